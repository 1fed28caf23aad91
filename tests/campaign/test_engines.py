"""One audit, the same files, whoever runs it; lost workers are replaced."""

import os
import textwrap

import pytest

from palpate import config
from palpate.campaign import engine_ray
from palpate.campaign.crew import Crew
from palpate.campaign.drive import drive
from palpate.campaign.journal import entries
from palpate.campaign.plan import resolve
from palpate.errors import ConfigError
from palpate.record import Record

# dies in the middle of a cell, as often as a file beside it says
DEADLY = """
    import os, signal
    from pathlib import Path

    whole = make
    class Deadly(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner
        def forward(self, images):
            lives, parent = (Path(__file__).with_name(name) for name in ("lives", "parent"))
            noisy = images.diff().abs().mean() > 0.15
            if noisy and parent.read_text() != str(os.getpid()) and lives.read_text() != "0":
                lives.write_text(str(int(lives.read_text()) - 1))
                os.kill(os.getpid(), signal.SIGKILL)
            return self.inner(images)

    def make(**arguments):
        return Deadly(whole(**arguments))
"""
NOISE = "perturbations=[{name: fgsm, epsilon: [0, 4/255]}, {name: gaussian_noise, severity: 5}]"


@pytest.fixture(scope="module")
def ray():
    """One small private cluster for all tests here."""
    with engine_ray.cluster(Crew(engine="ray")):
        yield engine_ray._ray()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The record of one worker in this process, made once."""
    return tmp_path_factory.mktemp("whole")


@pytest.fixture
def alone(whole, resolved, contents):
    """Files of the audit as one worker writes them."""
    if not (whole / "run.json").exists():
        drive(resolved("batch_size=5"), whole)
    return contents(whole)


CREWS = {
    "local 2": Crew(workers=2),
    "local 2, shards": Crew(workers=2, shards=3),
    "ray 2": Crew(engine="ray", workers=2, options={"cpus": "1"}),
    "submitit": Crew(engine="slurm", workers=2, shards=2, options={"cluster": "local"}),
}


@pytest.mark.parametrize("name", CREWS)
def test_every_engine_writes_the_same_bytes(name, resolved, alone, contents, tmp_path, request):
    if "ray" in name:
        request.getfixturevalue("ray")
    record = drive(resolved("batch_size=5"), tmp_path / "run", crew=CREWS[name])

    assert all(cell.status == "ok" for cell in record.cells)
    assert len(record.cells) == 7
    assert contents(tmp_path / "run") == alone
    assert not list((tmp_path / "run" / "claims").iterdir())
    assert not (tmp_path / "run" / "jobs").exists()
    assert not (tmp_path / "run" / "shards").exists()


def test_shards_with_another_batch_size_give_the_same_decisions(resolved, alone, whole, tmp_path):
    cut = drive(resolved("batch_size=3"), tmp_path / "run", crew=Crew(shards=2))
    one = Record.load(whole)

    for a, b in zip(one.cells, cut.cells, strict=True):
        assert a == b
        first, second = one.samples(a), cut.samples(b)
        assert first["sample"].tolist() == second["sample"].tolist()
        assert first["decision"].tolist() == second["decision"].tolist()
        assert first["score"] == pytest.approx(second["score"], abs=1e-5)


@pytest.mark.parametrize("engine", ["local", "ray", "slurm"])
def test_a_killed_worker_is_replaced_and_nothing_is_lost(
    engine, audit_file, tmp_path, contents, request
):
    if engine == "ray":
        request.getfixturevalue("ray")
    folder = deadly(tmp_path, lives=1)
    audit = resolve(config.load(audit_file, ("probes=false", NOISE)), folder, 12)
    drive(audit, tmp_path / "run", crew=crew_of(engine))

    events = [e["event"] for e in entries(tmp_path / "run")]
    assert events.count("worker lost") == 1
    assert events.count("ok") == 4  # each cell once
    (tmp_path / "lives").write_text("0")
    drive(audit, tmp_path / "whole")
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")


def test_a_cell_that_kills_every_worker_is_given_up_and_the_rest_goes_on(audit_file, tmp_path):
    folder = deadly(tmp_path, lives=99)
    audit = resolve(config.load(audit_file, ("probes=false", NOISE)), folder, 12)
    record = drive(audit, tmp_path / "run", crew=Crew(workers=2))

    failed = [cell for cell in record.cells if cell.status != "ok"]
    assert [cell.perturbation for cell in failed] == ["gaussian_noise"]
    assert failed[0].error["type"] == "WorkerLost"
    assert (
        "3 workers were lost on this cell; the last: signal SIGKILL" in failed[0].error["message"]
    )
    assert (tmp_path / "lives").read_text() == "96"
    (tmp_path / "lives").write_text("0")
    assert all(c.status == "ok" for c in drive(audit, tmp_path / "run").cells)


def deadly(folder, *, lives):
    (folder / "parent").write_text(str(os.getpid()))
    network = folder / "network.py"
    network.write_text(network.read_text() + textwrap.dedent(DEADLY))
    (folder / "lives").write_text(str(lives))
    return folder


def crew_of(engine):
    options = {"slurm": {"cluster": "local"}, "ray": {"cpus": "1"}}
    return Crew(engine=engine, workers=2, options=options.get(engine, {}))


def test_more_than_the_cluster_has_is_refused_at_once(ray, resolved, tmp_path):
    for crew in (
        Crew(engine="ray", workers=2, gpus=0.5, options={"cpus": "1"}),
        Crew(engine="ray", workers=999, options={"cpus": "1"}),
    ):
        with pytest.raises(ConfigError, match=r"at most what the cluster has, \d+ CPUs and 0 GPUs"):
            drive(resolved(), tmp_path / str(crew.workers), crew=crew)


def test_a_private_cluster_listens_on_loopback_alone_with_a_token(ray):
    assert [node["NodeManagerAddress"] for node in ray.nodes()] == ["127.0.0.1"]
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


def test_fractions_of_a_device_are_not_added_up_across_devices():
    assert engine_ray._places(2.0, 0.5) == 4
    assert engine_ray._places(2.0, 0.6) == 2  # one each, though 3 x 0.6 < 2
    assert engine_ray._places(3.0, 2.0) == 1
    assert engine_ray._places(0.0, 0.0) == float("inf")


@pytest.mark.parametrize(("module", "name"), [("ray", "ray"), ("submitit", "slurm")])
def test_an_extra_that_is_missing_is_named_in_one_line(
    module, name, monkeypatch, resolved, tmp_path
):
    monkeypatch.setattr("palpate.campaign.engine.importlib.util.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=rf"extra \[{name}\].*pip install 'palpate\[{name}\]'"):
        drive(resolved(), tmp_path / "run", crew=Crew(engine=name, options={}))


@pytest.mark.parametrize(
    ("crew", "message"),
    [
        ({"workers": 0}, "workers: expected 1 to 4096, got 0"),
        ({"shards": 0}, "shards: expected 1"),
        ({"gpus": 1.5}, "gpus: expected a fraction or a whole number, got 1.5"),
        ({"address": "auto"}, "engine local has none, got 'auto'"),
        ({"options": {"cpus": "1"}}, "engine local: no option 'cpus'"),
        ({"engine": "ray", "options": {"cpu": "1"}}, "no option 'cpu'; did you mean 'cpus'"),
        ({"engine": "ray", "options": {"cpus": "x"}}, "option cpus: expected a whole number"),
        ({"engine": "ray", "address": "there"}, "expected auto or HOST:PORT, got 'there'"),
        (
            {"engine": "ray", "address": "127.0.0.1:1"},
            "cluster at 127.0.0.1:1, got .*refused",
        ),
        ({"engine": "slurm", "options": {"cluster": "x"}}, "expected slurm or local, got 'x'"),
        ({"gpus": 1.0}, "expected at most what this machine has, "),
    ],
)
def test_a_crew_that_cannot_be_is_refused(crew, message, resolved, tmp_path):
    with pytest.raises(ConfigError, match=message):
        drive(resolved(), tmp_path / "run", crew=Crew(**crew))


def test_slurm_without_sbatch_is_named(resolved, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="expected the command sbatch on this machine, got none"):
        drive(resolved(), tmp_path / "run", crew=Crew(engine="slurm"))

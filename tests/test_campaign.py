"""Cells by content, resume, interrupts and kills: the record of a broken run equals a whole one."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import save_file

from palpate import config, registry
from palpate.campaign.crew import Crew
from palpate.campaign.drive import drive, estimate
from palpate.campaign.plan import make_plan, resolve
from palpate.errors import CheckpointError, ConfigError, StoreError, TargetError, UnknownComponent
from palpate.record import Record

QUICK = "probes=false"  # they are looked at in test_probe.py


def resolved(path, *overrides, limit=12):
    return resolve(config.load(path, (QUICK, *overrides)), path.parent, limit)


def contents(folder):
    """Everything of a record that must not depend on how it came about."""
    files = [p for p in folder.rglob("*") if p.is_file() and p.name != "run.json"]
    kept = [p for p in files if p.suffix != ".html" and p.parent.name != "log"]
    return {str(p.relative_to(folder)): p.read_bytes() for p in kept}


@pytest.fixture
def run(audit_file, tmp_path):
    drive(resolved(audit_file), tmp_path / "whole")
    return tmp_path / "whole"


def test_plan_has_a_clean_cell_and_one_per_setting(audit_file):
    plan = make_plan(resolved(audit_file))

    assert [(c.entry["perturbation"], c.entry["family"]) for c in plan.cells] == [
        ("none", "none"),
        *[("fgsm", "attacks")] * 2,
        *[("gaussian_noise", "corruptions")] * 2,
        ("patch_drop", "occlusions"),
        ("weight_bit_flip", "faults"),
    ]


def test_keys_hang_on_what_determines_the_result_and_on_nothing_else(audit_file):
    keys = [c.key for c in make_plan(resolved(audit_file)).cells]

    def changed(*overrides, limit=12):
        return [c.key for c in make_plan(resolved(audit_file, *overrides, limit=limit)).cells]

    assert changed("batch_size=3") == keys
    assert changed("metrics=[accuracy]") == keys
    for other in (changed("seed=1"), changed("storage=uint8"), changed(limit=11)):
        assert not set(other) & set(keys)
    assert set(changed("perturbations.0.epsilon=1/255")) < set(keys)


def test_maps_of_the_evidence_are_kept_when_asked_for(audit_file, tmp_path):
    strong = "perturbations.0.epsilon=0.3"
    keys = {c.key for c in make_plan(resolved(audit_file, strong)).cells}
    drive(resolved(audit_file, strong, "saliency=grad_cam"), tmp_path / "explained")

    record = Record.load(tmp_path / "explained")
    assert not {c.key for c in record.cells} & keys
    # a cell without a worst case still keeps the sample that every cell shows
    kept = [record.images(cell) for cell in record.cells]
    shown = [images for images in kept if images and "clean" in images]
    assert shown
    for images in shown:
        clean, heat = images["clean"], images["clean_saliency"]
        assert heat.shape == clean.shape[:1] + clean.shape[2:]
        assert all(n.startswith("Grad-CAM of ") for n in images["saliency_note"].tolist())
        assert float(heat.min()) >= 0


def test_a_second_run_does_nothing(audit_file, run):
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*") if p.is_file()}
    seen = []
    drive(resolved(audit_file), run, watch=seen.append)

    assert [(at.done, at.total, at.finished) for at in seen] == [(7, 7, None)]
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*") if p.is_file()} == before


def test_batch_size_changes_no_decision(audit_file, run, tmp_path):
    drive(resolved(audit_file, "batch_size=5"), tmp_path / "other")
    a, b = Record.load(run), Record.load(tmp_path / "other")

    for one, two in zip(a.cells, b.cells, strict=True):
        assert one == two
        assert a.samples(one)["decision"].tolist() == b.samples(two)["decision"].tolist()
        assert a.samples(one)["score"].tolist() == b.samples(two)["score"].tolist()


def test_lost_and_damaged_cells_are_run_again(audit_file, run):
    whole = contents(run)
    cells = sorted((run / "cells").iterdir())
    cells[0].unlink()
    cells[1].write_bytes(cells[1].read_bytes()[:40])
    (run / "samples" / cells[2].with_suffix(".parquet").name).unlink()

    drive(resolved(audit_file), run)

    assert contents(run) == whole


def test_another_audit_is_refused_not_mixed(audit_file, run, tmp_path):
    whole = contents(run)
    for other in (resolved(audit_file, "seed=1"), resolved(audit_file, limit=5)):
        with pytest.raises(StoreError, match="holds another audit.*choose another --store"):
            drive(other, run)
    assert contents(run) == whole
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.doc").write_text("precious")
    with pytest.raises(StoreError, match="expected an empty folder or a run"):
        drive(resolved(audit_file), tmp_path / "full")


def test_a_cell_that_raises_is_recorded_and_the_rest_goes_on(audit_file, tmp_path, monkeypatch):
    cls = registry.load("corruptions", "gaussian_noise")

    def explode(self, images, bounds, seeds):
        raise ZeroDivisionError("planned failure")

    with monkeypatch.context() as broken:
        broken.setattr(cls, "_disturb", explode)
        record = drive(resolved(audit_file), tmp_path / "run")
    failed = [c for c in record.cells if c.status == "error"]

    assert len(record.cells) == 7
    assert [c.perturbation for c in failed] == ["gaussian_noise"] * 2
    assert failed[0].error["type"] == "ZeroDivisionError"
    assert "explode" in failed[0].error["traceback"]
    again = drive(resolved(audit_file), tmp_path / "run")
    assert all(c.status == "ok" for c in again.cells)


def test_impossible_budget_is_refused_before_compute(audit_file, tmp_path):
    with pytest.raises(ConfigError, match=r"within the width 1 of the bounds .*got 2"):
        drive(resolved(audit_file, "perturbations.0.epsilon=2.0"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_models_not_fit_to_be_audited_are_refused(audit_file, tmp_path):
    with pytest.raises(TargetError, match="non-finite for 12 of 12"):
        drive(resolved(audit_file, "targets.0.arguments={bad: true}"), tmp_path / "run")
    with pytest.raises(TargetError, match=r"expected 2 classes .*got shape \(12, 5\)"):
        drive(resolved(audit_file, "targets.0.arguments={classes: 5}"), tmp_path / "run")


def test_unknown_engine_offers_the_known(audit_file, tmp_path):
    with pytest.raises(UnknownComponent, match="no engine named 'lokal'; did you mean 'local'"):
        drive(resolved(audit_file), tmp_path / "run", crew=Crew(engine="lokal"))


def test_estimate_covers_every_cell(audit_file):
    audit = resolved(audit_file)
    plan = make_plan(audit)
    seconds = estimate(audit, plan)

    assert seconds.keys() == {c.key for c in plan.cells}
    assert all(s > 0 for s in seconds.values())


def start(audit_file, store):
    code = "from palpate.cli import main; main()"
    arguments = [
        "run",
        str(audit_file),
        "--store",
        str(store),
        "--set",
        "perturbations.3.trials=400",
        "--set",
        QUICK,
    ]
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PALPATE_NO_PLUGINS": "1"},
    )


def wait_for_cells(process, store: Path, count: int):
    deadline = time.monotonic() + 120
    while len(list(store.glob("cells/*.json"))) < count and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_killed_at_any_moment_and_run_again_equals_uninterrupted(audit_file, tmp_path):
    override = (QUICK, "perturbations.3.trials=400")
    store = tmp_path / "killed"
    for count in (1, 3, 6):
        process = start(audit_file, store)
        wait_for_cells(process, store, count)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    drive(resolve(config.load(audit_file, override), tmp_path), store)
    drive(resolve(config.load(audit_file, override), tmp_path), tmp_path / "whole")

    left_over = {n for n in contents(store) if n.rpartition("/")[2].startswith(".")}
    assert {n: c for n, c in contents(store).items() if n not in left_over} == contents(
        tmp_path / "whole"
    )


def test_interrupt_is_exit_130_and_resumable(audit_file, tmp_path):
    store = tmp_path / "run"
    process = start(audit_file, store)
    wait_for_cells(process, store, 6)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)

    assert process.returncode == 130
    assert errors.strip() == "interrupted; run the same command again to go on"
    assert len(list(store.glob("cells/*.json"))) == 6


def test_two_workers_give_the_record_of_one(audit_file, tmp_path):
    store = tmp_path / "two"
    override = (QUICK, "perturbations.3.trials=40")
    seen = []
    audit = resolve(config.load(audit_file, override), tmp_path, 12)
    drive(audit, store, crew=Crew(workers=2), watch=seen.append)
    drive(resolve(config.load(audit_file, override), tmp_path, 12), tmp_path / "one")
    assert contents(store) == contents(tmp_path / "one")
    assert [p.done for p in seen] == list(range(len(seen)))
    drive(audit, store, crew=Crew(workers=2), watch=seen.append)  # nothing is left to do
    assert seen[-1].finished is None


DEADLY = """
import os, signal
whole = make
def make(**arguments):
    if os.environ["PARENT"] != str(os.getpid()):
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(**arguments)
"""


def test_a_lost_worker_is_said_and_what_is_done_stays(audit_file, tmp_path, monkeypatch):
    monkeypatch.setenv("PARENT", str(os.getpid()))
    network = tmp_path / "network.py"
    network.write_text(network.read_text() + DEADLY)
    drive(resolved(audit_file, "perturbations=[fgsm]"), tmp_path / "run")
    with pytest.raises(
        StoreError, match="workers to start, lost 3 while they loaded.*signal SIGKILL"
    ):
        drive(resolved(audit_file), tmp_path / "other", crew=Crew(workers=2))
    assert not list((tmp_path / "other").glob("cells/*.tmp"))


def test_workers_need_an_audit_file_and_a_sensible_number(audit_file, tmp_path):
    audit = resolved(audit_file)
    with pytest.raises(ConfigError, match="workers: expected 1 to 4096, got 0"):
        drive(audit, tmp_path / "none", crew=Crew(workers=0))
    handed_in = dataclasses.replace(audit, again=False)
    with pytest.raises(ConfigError, match="expected an audit file to run with 2 processes"):
        drive(handed_in, tmp_path / "memory", crew=Crew(workers=2))


def test_defences_and_targets_that_share_a_name_are_kept_apart(audit_file, tmp_path):
    """Each is compared with its own clean cell; nothing is pooled under one label."""
    text = audit_file.read_text()
    line = next(part for part in text.splitlines() if "name: module" in part)
    two = [
        line.replace("label: small", "label: A"),
        line.replace("label: small", "label: A"),
        line.replace("label: small", 'label: "A 2"'),
    ]
    audit_file.write_text(
        text.replace(line, "\n".join(two))
        + "defences: [{name: input_filter}, {name: input_filter, kind: bit_depth, bits: 1}]\n"
    )
    record = drive(resolved(audit_file, "perturbations=[fgsm]"), tmp_path / "run")

    assert {c.target for c in record.cells} == {"A", "A 2", "A 2 2"}
    assert {c.defence for c in record.cells} == {
        "input_filter (default)",
        "input_filter (kind bit_depth, bits 1)",
    }
    assert len(record.cells) == 12  # three labels on one network share their cell files
    assert len(list((tmp_path / "run" / "cells").iterdir())) == 4


def test_other_weights_of_a_member_are_another_cell(audit_file):
    """The key hangs on what the file of an ensemble holds, not on its name."""
    keys, member = [], audit_file.parent / "member.safetensors"
    own = resolved(audit_file).targets[0].module.state_dict()
    audit_file.write_text(
        audit_file.read_text() + "defences: [{name: ensemble, weights: [member.safetensors]}]\n"
    )
    for factor in (1.0, 1.0, 0.5):
        save_file({name: factor * tensor for name, tensor in own.items()}, member)
        keys.append({c.key for c in make_plan(resolved(audit_file)).cells})
    assert keys[0] == keys[1]
    assert not keys[0] & keys[2]
    member.unlink()
    with pytest.raises(CheckpointError, match=r"ensemble: weights: expected a file at .*member"):
        make_plan(resolved(audit_file))


def test_a_renamed_target_is_another_audit(audit_file, run):
    with pytest.raises(StoreError, match="holds another audit"):
        drive(resolved(audit_file, "targets.0.label=renamed"), run)

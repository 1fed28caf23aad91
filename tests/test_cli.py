"""What a user types, and what a user gets for a mistake: one line, exit 2, no traceback."""

import json
import os
import shlex
import subprocess
import sys

import pytest

from palpate import cli, registry


@pytest.fixture
def palpate(monkeypatch, capsys):
    def call(*words):
        monkeypatch.setattr(sys, "argv", ["palpate", *map(str, words)])
        monkeypatch.setattr(sys, "path", list(sys.path))  # a run adds the audit file's folder
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capsys.readouterr()
        return end.value.code, out, err

    return call


def edited(path, old, new):
    other = path.with_name("edited.yaml")
    text = path.read_text()
    assert old in text
    other.write_text(text.replace(old, new))
    return other


def test_a_run_ends_with_a_table_and_the_report(palpate, audit_file, tmp_path):
    code, out, err = palpate("run", audit_file, "--store", tmp_path / "r", "--limit", 12)

    assert (code, err) == (0, "")
    assert "[7/7] small weight_bit_flip" in out
    assert out.strip().endswith(str(tmp_path / "r" / "report.html"))
    assert (tmp_path / "r" / "report.html").stat().st_size > 10_000
    code, out, _ = palpate("status", tmp_path / "r")
    assert (code, out) == (0, "7 of 7 cells ok, 0 failed\n")


def test_the_record_says_how_to_run_it_again(palpate, audit_file, tmp_path):
    place = tmp_path / "Kopie für Müller"

    palpate("run", audit_file, "--store", place, "--limit", 4, "--json")

    command = json.loads((place / "run.json").read_text())["command"]
    assert shlex.split(command)[3:5] == ["--store", str(place)]


def test_json_is_json_and_nothing_else(palpate, audit_file, tmp_path):
    code, out, _ = palpate("run", audit_file, "--store", tmp_path / "r", "--limit", 12, "--json")
    rows = json.loads(out)["summary"]

    assert code == 0
    assert {"target", "defence", "dataset", "family", "perturbation", "setting"} <= set(rows[0])
    assert {"metric", "value", "low", "high", "n"} <= set(rows[0])
    for row in rows:
        if row["value"] is not None and row["metric"] != "ece":
            assert row["low"] <= row["value"] <= row["high"]


def test_dry_run_lists_the_cells_and_runs_none(palpate, audit_file, tmp_path):
    code, out, _ = palpate("run", audit_file, "--store", tmp_path / "r", "--dry-run")

    assert code == 0
    assert "7 cells on breastmnist 28 test" in out
    assert "minutes; 156 samples" in out
    assert not (tmp_path / "r").exists()
    code, out, _ = palpate("run", audit_file, "--dry-run", "--json")
    assert len(json.loads(out)) == 7


def test_defended_cells_are_told_from_bare_ones(palpate, audit_file, tmp_path):
    audit_file.write_text(audit_file.read_text() + "defences: [none, {name: input_filter}]\n")
    words = ("run", audit_file, "--store", tmp_path / "r", "--limit", 4)

    _, planned, _ = palpate(*words, "--dry-run")
    _, told, _ = palpate(*words)

    assert "small + input_filter" in planned
    assert "small fgsm epsilon=0.003922" in told
    assert "small + input_filter fgsm epsilon=0.003922" in told


@pytest.mark.parametrize("place", ["network", "network.py"])
def test_a_factory_beside_the_audit_file_is_found(palpate, audit_file, place):
    other = edited(audit_file, str(audit_file.with_name("network.py")), place)

    code, out, err = palpate("run", other, "--dry-run", "--limit", 4)

    assert (code, err) == (0, "")
    assert "7 cells" in out


def test_report_is_rebuilt_from_the_record(palpate, audit_file, tmp_path):
    palpate("run", audit_file, "--store", tmp_path / "r", "--limit", 12)
    (tmp_path / "r" / "report.html").unlink()

    code, out, _ = palpate("report", tmp_path / "r")

    assert (code, out.strip()) == (0, str(tmp_path / "r" / "report.html"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("name: fgsm", "name: fgms", "no perturbation named 'fgms'; did you mean 'fgsm'"),
        ("epsilon:", "epsilom:", "fgsm has no parameter 'epsilom'; did you mean 'epsilon'"),
        ("1/255, 4/255", "big", "epsilon: Input should be a valid number"),
        ("[1/255, 4/255]", "3", "expected epsilon within the width 1 of the bounds"),
        ("severity: [1, 3]", "severity: 9", "severity: expected 0 to 5, got 9"),
        ("coverage: 0.5", "coverage: 1.5", "coverage: expected 0 to 1, got 1.5"),
        ("breastmnist", "brestmnist", "no MedMNIST set named 'brestmnist'; did you mean"),
        ("seed: 0", "sead: 0", "unknown key 'sead'; did you mean 'seed'"),
        ("label: small", "weights: nowhere.pt", "got no such file"),
        ("trials: 5", "trials: 5, flips: 0", "flips"),
        ("[1/255, 4/255]", "1/0", "expected a number or a fraction, got '1/0'"),
        ("trials: 5", "trials: true", "trials: expected a number, got True"),
        (":make", ":nothing", "AttributeError"),
        (":make", ":torch.tensor", "factory"),
        ("label: small", "arguments: {classes: none}", "TypeError"),
        ("seed: 0", "? [seed, 1]\n: 0", "edited.yaml"),
    ],
)
def test_user_mistakes_are_one_line_and_exit_2(palpate, audit_file, tmp_path, old, new, message):
    code, out, err = palpate("run", edited(audit_file, old, new), "--store", tmp_path / "r")

    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("run", "nowhere.yaml"), "cannot read nowhere.yaml"),
        (("run",), "Missing argument"),
        (("rnu",), "No such command 'rnu'"),
        (("show", "pdg"), "no component named 'pdg'; did you mean 'pgd'"),
        (("list", "attack"), "did you mean 'attacks'"),
        (("status", "nowhere"), "no run at nowhere"),
        (("report", "nowhere"), "no run at nowhere"),
        (("demo", "--limit", "0"), "limit: expected 1 or more, got 0"),
    ],
)
def test_wrong_words_are_one_line_and_exit_2(palpate, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    code, _, err = palpate(*words)

    assert code == 2
    assert message in err
    assert "Traceback" not in err


def test_a_store_that_cannot_be_written_is_named(palpate, audit_file, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = palpate("run", audit_file, "--store", tmp_path / "file" / "r", "--limit", 4)

    assert code == 2
    assert err.startswith(f"error: cannot write {tmp_path / 'file' / 'r' / 'run.json'}: ")


def test_a_full_store_is_named_and_the_run_goes_on_later(audit_file, tmp_path):
    """A file size limit stands for a full disk: the kernel refuses the write half way."""
    code = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from palpate.cli import main\n"
        "import palpate.report.page, palpate.campaign.drive\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))\n"
        "main()\n"
    )
    words = ["run", str(audit_file), "--store", str(tmp_path / "r")]
    environment = {**os.environ, "PALPATE_NO_PLUGINS": "1", "PYTHONDONTWRITEBYTECODE": "1"}

    def call(*how):
        command = [sys.executable, *how, *words]
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)

    full = call("-c", code)
    assert full.returncode == 2
    assert full.stderr.splitlines()[-1].startswith("error: cannot write ")
    assert not list((tmp_path / "r").rglob("*.tmp"))
    assert call("-m", "palpate").returncode == 0


def test_failed_cells_are_exit_3(palpate, audit_file, tmp_path, monkeypatch):
    from palpate import registry

    def explode(*args):
        raise ZeroDivisionError("planned failure")

    monkeypatch.setattr(registry.load("occlusions", "patch_drop"), "_hidden", explode)
    code, out, err = palpate("run", audit_file, "--store", tmp_path / "r", "--limit", 8)

    assert code == 3
    assert "ERROR planned failure" in out
    assert err == "incomplete: 1 failed, 0 missing cells\n"
    assert "planned failure" in (tmp_path / "r" / "report.html").read_text()


@pytest.mark.parametrize("family", registry.FAMILIES)
def test_show_knows_a_component_of_every_family(palpate, family):
    name = registry.names(family)[0]
    code, out, _ = palpate("show", name)

    assert code == 0
    assert out.startswith(f"{family}/{name}")


def test_list_show_validate_and_doctor(palpate, audit_file):
    assert "fgsm" in palpate("list")[1].partition("corruptions:")[0]
    assert json.loads(palpate("list", "corruptions", "--json")[1])["corruptions"]
    code, out, _ = palpate("show", "pgd")
    assert code == 0
    assert "1706.06083" in out
    assert palpate("validate", audit_file) == (0, f"{audit_file}: valid\n", "")
    assert "bundled breastmnist.npz: present" in palpate("doctor")[1]

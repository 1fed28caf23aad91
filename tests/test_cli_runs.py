"""Verbs on finished runs: what they print, write and exit with."""

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from palpate import cli


@pytest.fixture
def palpate(monkeypatch, capsys):
    def call(*words):
        monkeypatch.setattr(sys, "argv", ["palpate", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capsys.readouterr()
        return end.value.code, out, err

    return call


@pytest.fixture
def run(synthetic, tmp_path):
    """Make a run of one model: how many of 40 samples are lost clean and under noise."""

    def make(name, target="v1", *, lost=0, failed=False, missing=False, **manifest):
        maker = synthetic.Maker(tmp_path / name, targets=(target,))
        maker.cell(target, outcomes=[maker.outcome(i, right=i > 1) for i in range(40)])
        maker.cell(
            target,
            "corruptions",
            "gaussian_noise",
            setting={"severity": 2},
            outcomes=[]
            if failed
            else [maker.outcome(i, right=i > 1 + lost, l2=1.0) for i in range(40)],
            error={"type": "OSError", "message": "no"} if failed else None,
            written=not missing,
        )
        maker.write(**manifest)
        return maker.folder

    return make


def test_compare_shows_a_table_and_ends_well_without_a_margin(palpate, run):
    code, out, err = palpate("compare", run("a"), run("b", "v2", lost=20))

    assert (code, err) == (0, "")
    assert "gaussian noise" in out
    assert out.splitlines()[-1] == "Of 2 cells compared: 1 cannot tell; 1 worse."


@pytest.mark.parametrize(
    ("changes", "margin", "expected"),
    [
        ({"lost": 0}, 0.2, 0),
        ({"lost": 0}, 0.01, 1),  # too few samples to show it
        ({"lost": 20}, 0.2, 1),
        ({"failed": True}, 0.2, 3),
        ({"missing": True}, 0.2, 3),
    ],
)
def test_a_margin_is_a_gate(palpate, run, changes, margin, expected):
    words = ("compare", run("a"), run("b", "v2", **changes), "--margin", margin)
    code, out, err = palpate(*words)

    assert (code, err) == (expected, "")
    code, out, _ = palpate(*words, "--json")
    assert code == expected
    assert json.loads(out)["holds"] is (expected == 0)


def test_an_unfinished_cell_is_in_the_headline(palpate, run):
    _, out, _ = palpate("compare", run("a"), run("b", "v2", missing=True), "--margin", 0.2)

    assert out.splitlines()[-1].endswith("or more is excluded in every one. Without a result: 1.")


def test_compare_writes_its_page(palpate, run, tmp_path):
    page = tmp_path / "compare.html"
    code, out, _ = palpate("compare", run("a"), run("b", "v2"), "--output", page)

    assert code == 0
    assert out.splitlines()[-1] == f"comparison: {page}"
    assert page.read_text().startswith("<!doctype html>")


def test_compare_refuses_what_it_cannot_compare(palpate, run, tmp_path):
    dataset = json.loads((run("a") / "run.json").read_text())["dataset"]
    other = run("b", dataset={**dataset, "digest": "e" * 64})

    for words, message in (
        ((run("a"), other), "expected two runs on the same data"),
        ((run("a"), tmp_path / "nowhere"), "no run at"),
        ((run("a"), run("a"), "--margin", "2"), "margin: expected more than 0"),
        ((run("a"), run("a"), "--margin", "two"), "Invalid value for '--margin'"),
        ((run("a"),), "Missing argument"),
    ):
        code, out, err = palpate("compare", *words)
        assert (code, out) == (2, "")
        assert message in err
        assert err.count("\n") == 1


def test_torch_is_never_imported(run):
    code = (
        "import sys\n"
        "from palpate.cli import main\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        "    assert 'torch' not in sys.modules\n"
    )
    words = [sys.executable, "-c", code, "compare", str(run("a")), str(run("b", "v2"))]

    done = subprocess.run(words, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")


GATES = """
gates:
  - {metric: accuracy, perturbation: none, at_least: 0.5}
  - {metric: accuracy, perturbation: gaussian_noise, where: {severity: 2}, at_least: 0.5}
"""


@pytest.fixture
def gates(tmp_path):
    path = tmp_path / "gates.yaml"
    path.write_text(GATES)
    return path


@pytest.mark.parametrize(
    ("changes", "expected", "headline"),
    [
        ({}, 0, "gates: 3 passed, 0 failed"),
        ({"lost": 20}, 1, "gates: 2 passed, 1 failed"),
        ({"failed": True}, 3, "incomplete: 1 planned cell without a result"),
        ({"missing": True}, 3, "incomplete: 1 planned cell without a result"),
    ],
)
def test_check_tells_weak_from_broken(palpate, run, gates, tmp_path, changes, expected, headline):
    words = ("check", run("a", **changes), "--gates", gates)
    xml = tmp_path / "out" / "gates.xml"

    code, out, err = palpate(*words, "--junit", xml)

    assert (code, err) == (expected, "")
    assert out.splitlines()[-1].endswith(headline)
    suite = ET.fromstring(xml.read_bytes())[0]
    assert suite.get("errors") == str(int(expected == 3))
    code, out, _ = palpate(*words, "--json")
    data = json.loads(out)
    assert code == expected
    assert data["passed"] is (expected == 0)
    assert len(data["unfinished"]) == int(expected == 3)
    assert {"gate", "status", "cell", "value", "low", "high", "evidence"} == set(data["gates"][0])


def test_check_refuses_a_bad_file_or_run(palpate, run, gates, tmp_path):
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(GATES.replace("gaussian_noise", "gausian_noise"))

    for words, message in (
        ((run("a"),), "Missing option '--gates'"),
        ((run("a"), "--gates", tmp_path / "no.yaml"), "cannot read"),
        ((run("a"), "--gates", wrong), "did you mean 'gaussian_noise'"),
        ((tmp_path / "nowhere", "--gates", gates), "no run at"),
    ):
        code, out, err = palpate("check", *words)
        assert (code, out) == (2, "")
        assert message in err
        assert err.count("\n") == 1


@pytest.mark.parametrize("form", ["parquet", "csv", "json", "junit"])
def test_export_says_where_it_wrote(palpate, run, tmp_path, form):
    code, out, err = palpate("export", run("a"), "--format", form)
    assert (code, err) == (0, "")
    assert Path(out.strip()).parent == tmp_path / "a"
    assert Path(out.strip()).stat().st_size > 100

    code, out, _ = palpate("export", run("a"), "--format", form, "--output", tmp_path / "o" / "x")
    assert (code, out) == (0, f"{tmp_path / 'o' / 'x'}\n")
    assert (tmp_path / "o" / "x").is_file()


def test_export_refuses_other_formats(palpate, run):
    code, _, err = palpate("export", run("a"), "--format", "xlsx")
    assert (code, err) == (2, "error: no format named 'xlsx'; known: csv, json, junit, parquet\n")

"""A run read back on a laptop."""

import subprocess
import sys

import pytest

import palpate
from palpate.errors import StoreError

GATE = {"metric": "accuracy", "perturbation": "none", "at_least": 0.5}


@pytest.fixture
def run(rich):
    return palpate.Run.open(rich.folder)


def test_a_run_is_compared_and_checked(run, tmp_path):
    assert {row.verdict for row in run.compare(run)} == {"same"}
    assert run.compare(run, margin=0.1).holds
    gates = tmp_path / "gates.yaml"
    gates.write_text("gates: [{metric: accuracy, perturbation: none, at_least: 0.5}]")

    assert run.check(gates).rows == run.check([GATE]).rows == run.check(str(gates)).rows


def test_a_notebook_shows_tables(run):
    for shown in (run, run.summary(), run.compare(run), run.check([GATE])):
        assert "<table>" in shown._repr_html_()


def test_no_run_is_said(tmp_path):
    with pytest.raises(StoreError, match="no run at"):
        palpate.Run.open(tmp_path)


def test_reading_a_run_never_imports_torch(rich):
    code = (
        "import sys, palpate\n"
        "run = palpate.Run.open(sys.argv[1])\n"
        "assert len(run.summary().to_arrow()) and len(run.checks())\n"
        "assert 'torch' not in sys.modules\n"
    )

    subprocess.run([sys.executable, "-c", code, str(rich.folder)], check=True)

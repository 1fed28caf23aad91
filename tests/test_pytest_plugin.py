"""The plug-in, in a pytest of its own."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import palpate.report.gate_table
import palpate.run
import palpate.statistics.gates
from palpate.errors import ConfigError
from palpate.pytest_plugin import assert_robust

pytest_plugins = ["pytester"]


@pytest.fixture
def inner(pytester, rich, monkeypatch):
    """Run a test file with the plug-in and nothing else; `rich` is the run in `the_run`."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    shutil.copytree(rich.folder, pytester.path / "the_run")

    def call(body, *words, ini=""):
        pytester.makeini(f"[pytest]\nmarkers =\n{ini}")
        imports = "import pytest\nfrom palpate.pytest_plugin import assert_robust\n"
        pytester.makepyfile(imports + body)
        return pytester.runpytest("-p", "palpate.pytest_plugin", "--strict-markers", *words)

    return call


PASSES = """
def test_it(palpate_run):
    assert_robust(palpate_run, threat="none", at_least=0.5)
"""


def test_a_run_that_keeps_its_promise_passes(inner):
    inner(PASSES, "--palpate-run", "the_run").assert_outcomes(passed=1)
    inner(PASSES, ini="palpate_run = the_run").assert_outcomes(passed=1)
    marked = '@pytest.mark.robustness(run="the_run")' + PASSES
    inner(marked, "--palpate-run", "nowhere").assert_outcomes(passed=1)


def test_a_failure_shows_the_table_of_what_matched(inner):
    body = """
def test_it(palpate_run):
    assert_robust(
        palpate_run,
        metric="robust_accuracy",
        threat={"name": "pgd", "epsilon": "1/255"},
        at_least=0.8,
        target="mamba",
        self_checks=False,
    )
"""
    result = inner(body, "--palpate-run", "the_run")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "E*AssertionError: not shown: robust accuracy under pgd (epsilon 1/255, mamba) at*",
            "E*status*gate*cell*evidence",
            "E*fail*mamba, pgd, epsilon 1/255, norm linf*lower end 0.* is below 0.8",
        ]
    )
    result.stdout.no_fnmatch_line("*judge(run.record*")


def test_tests_that_use_a_run_are_marked(inner):
    body = PASSES + "\ndef test_other():\n    pass\n"
    words = ("--palpate-run", "the_run", "-m")

    inner(body, *words, "robustness").assert_outcomes(passed=1, deselected=1)
    inner(body, *words, "not robustness").assert_outcomes(passed=1, deselected=1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "*palpate_run: expected a run directory: --palpate-run DIR*"),
        (("--palpate-run", "nowhere"), "*palpate_run: no run at*nowhere*"),
    ],
)
def test_no_run_is_an_error_and_no_skip(inner, words, message):
    result = inner(PASSES, *words)

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([message])


def test_a_run_is_read_once(inner):
    body = """
runs = []

def test_one(palpate_run):
    runs.append(palpate_run)

def test_two(palpate_run):
    assert runs[0] is palpate_run
"""
    inner(body, "--palpate-run", "the_run").assert_outcomes(passed=2)


def test_help_names_the_option_and_the_marker(inner):
    inner("", "--help").stdout.fnmatch_lines(["*--palpate-run=DIR*"])
    inner("", "--markers").stdout.fnmatch_lines(["@pytest.mark.robustness(run=DIR)*"])


def test_the_function_works_without_the_fixture(rich):
    run = palpate.run.Run(rich)

    assert_robust(run, threat="weight_bit_flip", metric="due_rate", at_most=1, self_checks=False)
    with pytest.raises(AssertionError, match="matched no cell: epsilon is 1/255, 2/255"):
        assert_robust(run, threat={"name": "pgd", "epsilon": "3/255"}, at_least=0.1)
    with pytest.raises(ConfigError, match="assert_robust: gates.0: expected at_least or at_most"):
        assert_robust(run, threat="pgd")
    with pytest.raises(ConfigError, match="did you mean 'pgd'"):
        assert_robust(run, threat="pdg", at_least=0.1)


def test_checks_of_the_run_count_unless_told_otherwise(maker):
    maker.cell("mamba", outcomes=[maker.outcome(i, right=False) for i in range(40)])
    run = palpate.run.Run(maker.write())

    with pytest.raises(AssertionError, match="clean accuracy above chance"):
        assert_robust(run, threat="none", at_least=0.0)
    assert_robust(run, threat="none", at_least=0.0, self_checks=False)


def test_loading_it_costs_nothing():
    code = (
        "import sys, palpate.pytest_plugin\n"
        "heavy = {'torch', 'numpy', 'scipy', 'pyarrow', 'pydantic', 'palpate.run'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )

    subprocess.run([sys.executable, "-c", code], check=True)


def test_it_is_an_entry_point():
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    points = tomllib.loads(text)["project"]["entry-points"]["pytest11"]

    assert points == {"palpate": "palpate.pytest_plugin"}

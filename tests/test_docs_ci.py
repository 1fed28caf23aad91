"""What docs/ci.md promises is what the code does."""

import re
from pathlib import Path

import pytest
import yaml

from palpate import console
from palpate.report.comparison import CHIPS
from palpate.statistics.gates import judge, parse_gates

TEXT = (Path(__file__).parents[1] / "docs" / "ci.md").read_text(encoding="utf-8")
YAML, WORKFLOW = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)


def test_the_gates_file_is_valid_and_speaks_of_real_things(rich):
    gates = parse_gates(yaml.safe_load(YAML))
    found = judge(rich, gates)

    assert len(gates.gates) == 4
    assert not [row for row in found.rows if row.evidence.startswith("matched no cell")]


def test_the_workflow_is_yaml_and_calls_verbs_that_exist():
    from typer.testing import CliRunner

    from palpate.cli import app

    steps = yaml.safe_load(WORKFLOW)["jobs"]["audit"]["steps"]
    commands = [s["run"].split() for s in steps if s.get("run", "").startswith("palpate")]
    assert [c[1] for c in commands] == ["run", "check", "compare"]
    for command in commands:
        shown = CliRunner().invoke(app, [command[1], "--help"], env={"COLUMNS": "200"}).output
        assert all(word in shown for word in command if word.startswith("--"))


def test_codes_and_verdicts_are_all_there():
    codes = {int(c) for c in re.findall(r"^\| (\d+) \|", TEXT, re.MULTILINE)}
    known = {console.OK, console.GATE_FAILED, console.USAGE, console.INCOMPLETE}

    assert codes == known | {console.INTERRUPTED}
    assert all(word in TEXT for word in CHIPS)


def test_the_test_of_the_page_runs(rich):
    from palpate.run import Run

    code = re.search(r"```python\n(.*?)```", TEXT, re.DOTALL)[1]
    code = code.replace("at_least=0.5", "at_least=1").replace("@pytest.mark.robustness\n", "")
    names = {}
    exec(code, names)

    with pytest.raises(
        AssertionError, match=r"not shown: robust accuracy under pgd \(epsilon 1/255"
    ):
        names["test_small_attacks_do_not_break_it"](Run(rich))

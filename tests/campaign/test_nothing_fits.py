"""A run of which no perturbation fits the task has tested nothing, and must not look green."""

import sys

import pytest
from torch import nn

import palpate
from palpate import cli
from palpate.errors import CapabilityError


@pytest.fixture
def of_questions(audit_file):
    """An audit of labels that asks for attacks on questions alone."""
    head, _, _ = audit_file.read_text().partition("perturbations:")
    audit_file.write_text(f"{head}perturbations: [{{name: prompt_edit}}, {{name: joint}}]\n")
    return audit_file


@pytest.mark.parametrize("words", [(), ("--dry-run",), ("--json",)])
def test_it_ends_before_any_compute_with_exit_2(of_questions, tmp_path, monkeypatch, capsys, words):
    store = tmp_path / "r"
    asked = ["palpate", "run", str(of_questions), "--store", str(store), "--limit", "4", *words]
    monkeypatch.setattr(sys, "argv", asked)
    monkeypatch.setattr(sys, "path", list(sys.path))

    with pytest.raises(SystemExit) as end:
        cli.main()

    out, err = capsys.readouterr()
    assert (end.value.code, out) == (2, "")
    assert err.startswith("error: perturbations: expected at least one that fits a target, got")
    assert "none: prompt_edit: expected a task of PromptedSegmentation, got Classification" in err
    assert err.endswith("; and 1 more\n")
    assert err.count("\n") == 1
    assert not store.exists()


def test_one_that_fits_is_enough_and_the_rest_is_listed(tmp_path):
    samples = palpate.load_dataset("medmnist", limit=4)
    module = nn.Sequential(nn.Flatten(), nn.Linear(784, 2)).eval()
    target = palpate.wrap(module, task=samples.task)

    with pytest.raises(CapabilityError, match="expected at least one that fits a target, got none"):
        palpate.audit(target, samples, ["prompt_edit"], store=tmp_path / "none")
    run = palpate.audit(target, samples, ["prompt_edit", "fgsm"], store=tmp_path / "some")

    assert [row["perturbation"] for row in run.record.manifest["not_testable"]] == ["prompt_edit"]
    assert not run.record.missing

"""What a notebook types."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import palpate
from palpate.errors import ConfigError, TargetError


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).eval()


def samples(count=40):
    rng = np.random.default_rng(0)
    images = rng.random((count, 1, 8, 8)).astype(np.float32)
    return palpate.Samples.of(images, rng.integers(0, 2, count), task=TASK)


TASK = palpate.Classification(("negative", "positive"), positive=1)


def test_the_example_of_the_design(tmp_path):
    target = palpate.wrap(network(), task=TASK, mean=(0.5,), std=(0.5,))

    run = palpate.audit(
        target,
        samples(),
        [
            "fgsm",
            {"name": "pgd", "epsilon": ["2/255", "8/255"], "steps": 5},
            palpate.occlusions.PatchDrop(coverage=0.5, patch_size=2),
            {"name": "weight_bit_flip", "flips": 1, "trials": 10},
        ],
        store=tmp_path / "run",
    )
    table = run.summary().to_pandas()

    assert {"fgsm", "pgd", "patch_drop", "weight_bit_flip", "none"} <= set(table["perturbation"])
    assert run.report(tmp_path / "report.html").exists()
    assert len(run.checks()) > 5
    assert "<table" in run._repr_html_()
    reopened = palpate.Run.open(tmp_path / "run")
    assert reopened.summary().to_dicts() == run.summary().to_dicts()


def test_the_readme_example_runs_as_written(tmp_path, monkeypatch):
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    first, second = readme.split("```python\n")[1:3]
    code = first.split("```")[0].replace('"trials": 500', '"trials": 5')
    monkeypatch.chdir(tmp_path)
    module = nn.Sequential(nn.Flatten(), nn.Linear(784, 2)).eval()
    names = {"module": module}

    exec(code, names)
    batch = names["dataset"].batch(range(4))
    names.update(images=batch.images, references=batch.references)
    exec(second.split("```")[0], names)

    assert (tmp_path / "report.html").exists()
    assert names["adversarial"].shape == batch.images.shape


def test_targets_need_a_name_each(tmp_path):
    twice = [palpate.wrap(network(), task=TASK)] * 2

    with pytest.raises(TargetError, match="expected a name each"):
        palpate.audit(twice, samples(), ["fgsm"], store=tmp_path)


def test_targets_must_share_the_datasets_task_and_bounds(tmp_path):
    other = palpate.wrap(network(), task=palpate.Classification(("a", "b")))

    with pytest.raises(TargetError, match="expected the dataset's task and bounds"):
        palpate.audit(other, samples(), ["fgsm"], store=tmp_path)


def test_nothing_to_do_is_said(tmp_path):
    target = palpate.wrap(network(), task=TASK)
    for nothing in ([], [{"epsilon": 1}]):
        with pytest.raises(ConfigError, match="expected"):
            palpate.audit(target, samples(), nothing, store=tmp_path)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"confidence": 95}, "audit: statistics.confidence: .*less than 1, got 95"),
        ({"batch_size": 0}, "audit: batch_size: .*greater than or equal to 1, got 0"),
        ({"seed": "many"}, "audit: seed: .*got 'many'"),
        ({"storage": "tiff"}, "audit: storage: expected one of"),
    ],
)
def test_settings_out_of_range_are_one_line(tmp_path, wrong, message):
    target = palpate.wrap(network(), task=TASK)

    with pytest.raises(ConfigError, match=message) as caught:
        palpate.audit(target, samples(), ["fgsm"], store=tmp_path / "run", **wrong)
    assert "\n" not in str(caught.value)


def test_a_normalisation_may_be_an_array():
    arrays = palpate.wrap(network(), task=TASK, mean=np.float32([0.5]), std=torch.tensor([0.25]))

    assert arrays.digest() == palpate.wrap(network(), task=TASK, mean=(0.5,), std=(0.25,)).digest()


def test_misspelt_defences_and_metrics_are_refused_before_compute(tmp_path):
    target = palpate.wrap(network(), task=TASK)

    for wrong in ({"defences": [{"name": "input_filtre"}]}, {"metrics": ["acuracy"]}):
        with pytest.raises(ConfigError, match="did you mean"):
            palpate.audit(target, samples(), ["fgsm"], store=tmp_path / "run", **wrong)
    assert not (tmp_path / "run").exists()


def test_a_disturbance_asked_for_twice_is_one(tmp_path):
    """Else it would count twice in the correction of every p-value."""
    target = palpate.wrap(network(), task=TASK)
    asked = ["fgsm", palpate.attacks.Fgsm(), {"name": "fgsm", "epsilon": ["2/255", "8/255"]}]
    run = palpate.audit(target, samples(), asked, store=tmp_path / "run")
    settings = [e["setting"]["epsilon"] for e in run.record.manifest["plan"] if e["setting"]]
    assert settings == pytest.approx([2 / 255, 8 / 255])

"""Lower and upper bound of the same number, on made-up rows and on a real audit of a plane."""

import numpy as np
import pytest
import torch
from torch import nn

import palpate
from palpate.statistics.certified import certified
from palpate.statistics.checks import checks

CHECK = "proven samples stand under attack"
TASK = palpate.Classification(("a", "b"))


class Plane(nn.Module):
    def __init__(self):
        super().__init__()
        self.look = nn.Linear(16, 1)
        with torch.no_grad():
            self.look.weight.copy_(torch.randn(1, 16, generator=torch.Generator().manual_seed(0)))
            self.look.bias.zero_()

    def forward(self, images):
        return self.look(images.flatten(1) - 0.5)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    torch.set_num_threads(1)  # this is set up before the fixture that does so for every test
    rng = np.random.default_rng(0)
    images = rng.random((40, 1, 4, 4)).astype(np.float32)
    network = Plane().eval()
    with torch.no_grad():
        scores = network(torch.from_numpy(images))[:, 0]
    exact = (scores.abs() / network.look.weight.detach().norm()).numpy()
    data = palpate.Samples.of(images, (scores > 0).long().numpy(), task=TASK)
    run = palpate.audit(
        palpate.wrap(network, task=TASK),
        data,
        [{"name": "pgd", "norm": "l2", "epsilon": [0.05, 0.2, 0.6], "steps": 10}],
        store=tmp_path_factory.mktemp("certified") / "run",
        defences=[
            {"name": "none"},
            {"name": "randomised_smoothing", "sigma": 0.2, "samples": 15, "draws": 400},
        ],
        metrics=["accuracy", "certified_accuracy"],
    )
    return run, exact


def test_the_truth_lies_between_the_bounds(run):
    found, exact = certified(run[0].record), run[1]

    assert {row.model for row in found} == {"Plane + randomised_smoothing"}
    assert len(found.rows) == 5
    for row in found:
        truth = float((exact >= row.radius).mean())
        assert row.certified.value <= truth
        # a vote of 15 copies may differ from the plane's own answer near it
        assert row.attacked.value >= truth - 0.1
        assert row.certified.value <= row.attacked.value
    values = [row.certified.value for row in found]
    assert values == sorted(values, reverse=True)
    assert values[0] > 0.5
    assert any(row.attacked.value < 1 for row in found)


def test_the_metric_and_the_report_carry_it(run, tmp_path):
    (row,) = [
        r
        for r in run[0].summary().rows
        if r.metric == "certified_accuracy" and r.defence == "randomised_smoothing"
    ]
    assert row.value == certified(run[0].record).rows[0].certified.value
    page = run[0].report(tmp_path / "report.html").read_text()
    assert "Proven lower bound beside attacked upper bound" in page


def test_a_sound_certificate_passes(run):
    (found,) = run[0].checks().find(check=CHECK)
    assert found.status in ("pass", "warn")
    assert not run[0].checks().find(check="gradients reach the input", status="fail")


@pytest.mark.parametrize(("fallen", "status"), [(0, "pass"), (1, "warn"), (9, "fail")])
def test_certified_samples_that_fall_are_named(maker, fallen, status):
    proved = {"radius": 0.5, "certified": 1.0, "abstained": 0.0}
    maker.cell("mamba", outcomes=[maker.outcome(i, right=True, **proved) for i in range(40)])
    rows = [maker.outcome(i, right=i >= fallen, linf=0.01, l2=0.3) for i in range(40)]
    rows[39] = maker.outcome(39, right=False, linf=0.01, l2=0.7)  # beyond the radius
    setting = {"epsilon": 0.01, "norm": "linf"}
    maker.cell("mamba", "attacks", "fgsm", setting=setting, outcomes=rows)
    (found,) = checks(maker.write()).find(check=CHECK)
    assert found.status == status
    assert found.evidence.startswith(f"{fallen} of 40") or not fallen


def test_what_certifies_nothing_has_no_rows(maker):
    maker.cell("mamba", outcomes=[maker.outcome(i, right=True) for i in range(40)])
    record = maker.write()
    assert not certified(record)
    assert not checks(record).find(check=CHECK)


def test_of_masks_both_bounds_are_shares_of_pixels(synthetic, tmp_path):
    maker = synthetic.Maker(tmp_path, targets=("mamba",), kind="segmentation")
    proved = {"radius": 0.1, "certified": 0.6, "abstained": 0.3, "pixels": 100}
    rows = [maker.outcome(i, right=True, wrong_pixels=5, **proved) for i in range(40)]
    maker.cell("mamba", outcomes=rows)
    rows = [
        maker.outcome(i, right=True, l2=0.05 if i < 20 else 0.5, pixels=100, wrong_pixels=25)
        for i in range(40)
    ]
    setting = {"epsilon": 0.5, "norm": "l2"}
    maker.cell("mamba", "attacks", "pgd", setting=setting, outcomes=rows)

    (row,) = certified(maker.write()).rows

    assert row.radius == pytest.approx(0.1)
    assert row.certified.value == pytest.approx(0.6)
    assert row.attacked.value == pytest.approx((0.75 + 0.95) / 2)
    assert row.abstained == pytest.approx(0.3)


def test_another_question_is_no_change_within_the_radius(synthetic, tmp_path):
    maker = synthetic.Maker(tmp_path, targets=("mamba",), kind="segmentation")
    proved = {"radius": 0.1, "certified": 0.6, "abstained": 0.3, "pixels": 100}
    rows = [maker.outcome(i, right=True, wrong_pixels=5, prompt="a", **proved) for i in range(40)]
    maker.cell("mamba", outcomes=rows)
    rows = [
        maker.outcome(i, right=True, pixels=100, wrong_pixels=25, prompt="a" if i < 10 else "b")
        for i in range(40)
    ]
    maker.cell("mamba", "attacks", "joint", setting={"epsilon": 0.5}, outcomes=rows)

    (row,) = certified(maker.write()).rows

    assert row.attacked.value == pytest.approx((0.75 + 3 * 0.95) / 4)

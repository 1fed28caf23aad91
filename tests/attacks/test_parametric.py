"""The frame of the attacks that search few parameters."""

import textwrap
from dataclasses import dataclass

import pytest
import torch

from palpate.attacks._parametric import ParametricAttack, grid
from palpate.campaign.drive import drive
from palpate.campaign.plan import resolve
from palpate.config import load
from palpate.contracts.oracles import batch, constant, probe
from palpate.errors import BudgetError
from palpate.outcome import Status
from palpate.run import Run


@dataclass(frozen=True)
class Gain(ParametricAttack):
    """x · exp(p / 10): as simple as it gets."""

    cheats: str = ""

    def count(self, images):
        return 1

    def points(self):
        return [(2.0,)] if self.cheats == "parameters" else []

    def transformed(self, images, parameters, bounds):
        made = images * torch.exp(self.share * parameters / 10).reshape(-1, 1, 1, 1)
        if self.cheats == "range":
            return made + 1
        if self.cheats == "other images":
            made = made + 0.01 * torch.rand(1)
        return made.clamp(*bounds)


def test_an_honest_one_passes_and_keeps_the_parameters_of_the_best():
    target, given = probe(), batch(4)
    attack = Gain()
    found = attack.search(target, given.images, given.references)

    assert set(found.status) == {Status.OK}
    assert found.passes >= 4 * 21  # all samples take part in the first start
    gain = (found.images / given.images).flatten(1)
    assert float(gain.max()) <= torch.exp(torch.tensor(0.06)) + 1e-5


@pytest.mark.parametrize(
    ("cheats", "message"),
    [
        ("parameters", r"expected parameters within \[-1, 1\], spent 2"),
        ("range", r"expected values within \(0.0, 1.0\)"),
        ("other images", "expected images of the transform, got 0.0"),
    ],
)
def test_a_component_that_cheats_is_caught(cheats, message):
    given = batch(3)

    with pytest.raises(BudgetError, match=message):
        Gain(cheats=cheats)(probe(), given.images, given.references)


def test_the_clean_input_is_no_iterate():
    """At a target that answers all alike the best try is kept, and said to be none."""
    given = batch(3)
    found = Gain().search(constant(), given.images, given.references)

    assert set(found.status) == {Status.NO_GRADIENT}


def test_more_starts_and_steps_are_never_weaker():
    target, given = probe(), batch(8)
    labels = target.logits(given.images).detach().argmax(1)

    def loss(**more):
        images = Gain(severity=5.0, **more)(target, given.images, labels)
        logits = target.logits(images).detach()
        return torch.nn.functional.cross_entropy(logits, labels, reduction="none")

    assert bool((loss(restarts=3) >= loss(restarts=1) - 1e-6).all())


def test_grid_runs_inwards_without_the_origin():
    assert grid(3, 1) == [(-1.0, 0.0), (1.0, 0.0)]
    points = grid(5, 3, 3)
    assert len(points) == 44
    sizes = [sum(x * x for x in p) for p in points]
    assert sizes == sorted(sizes, reverse=True)


def test_a_run_without_any_epsilon_renders(audit_file, tmp_path):
    audit = audit_file.read_text().split("perturbations:")[0] + (
        "perturbations:\n"
        "      - {name: window_level, severity: [1, 3], steps: 2, places: 3}\n"
        "      - {name: spatial, severity: [1, 3], steps: 2, angles: 3, places: 3}\n"
        "      - {name: spatial, kind: elastic, severity: 2, steps: 2}\n"
        "      - {name: adversarial_patch, coverage: [0.02, 0.1], steps: 5}\n"
    )
    audit_file.write_text(textwrap.dedent(audit))
    drive(resolve(load(audit_file), audit_file.parent, 6), tmp_path / "run")
    run = Run.open(tmp_path / "run")

    found = run.checks()
    assert {c.status for c in found.find(check="every planned cell finished")} == {"pass"}
    assert len(found.find(check="robust accuracy falls with epsilon")) == 1
    page = run.report().read_text()
    for words in ("window level", "kind elastic", "severity", "adversarial patch"):
        assert words in page

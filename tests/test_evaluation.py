import pytest
import torch
from torch import nn

import palpate
from palpate import registry
from palpate.contracts.oracles import batch, probe
from palpate.evaluation import evaluate
from palpate.filing import on_grid
from palpate.outcome import Status, Verdict
from palpate.scoring import scores
from palpate.types import Batch, Bounds, Prediction, Segmentation

NOISE = {"severity": 3, "trials": 2}


def noise():
    return registry.create("corruptions", "gaussian_noise", NOISE)


def split(whole, size):
    from palpate.contracts.oracles import one

    singles = [one(whole, i) for i in range(len(whole))]
    return singles if size == 1 else [whole]


@pytest.mark.parametrize(
    ("family", "name", "parameters"),
    [
        ("corruptions", "gaussian_noise", NOISE),
        ("occlusions", "patch_drop", {}),
        ("attacks", "fgsm", {}),
        ("faults", "weight_bit_flip", {"trials": 6}),
    ],
)
def test_results_do_not_depend_on_the_batch_size(family, name, parameters):
    perturbation = registry.create(family, name, parameters)
    found = [
        evaluate(probe(), split(batch(6), size), perturbation=perturbation).outcomes
        for size in (1, 6)
    ]

    for a, b in zip(*found, strict=True):
        assert (a.sample, a.trial, a.decision, a.score, a.verdict) == (
            (b.sample, b.trial, b.decision, b.score, b.verdict)
        )
        assert a.probabilities == pytest.approx(b.probabilities, abs=1e-5, nan_ok=True)


def test_outcomes_are_ordered_by_trial_then_sample():
    outcomes = evaluate(probe(), split(batch(3), 1), perturbation=noise()).outcomes

    assert [(o.trial, o.sample) for o in outcomes] == [
        (t, s) for t in range(2) for s in ("s0", "s1", "s2")
    ]


def test_non_finite_output_is_due_and_wrong_never_class_zero():
    target = probe()

    class Breaks(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = target.module

        def forward(self, images):
            logits = self.inner(images)
            return torch.where(images.mean((1, 2, 3))[:, None] < 0, logits * float("nan"), logits)

    given = batch(3)
    broken = palpate.wrap(
        Breaks().eval(), task=target.task, mean=tuple(given.images.mean((0, 2, 3)).tolist())
    )
    outcomes = evaluate(broken, [given]).outcomes
    bad = [o for o in outcomes if not o.finite]

    assert 0 < len(bad) < 3
    for outcome in bad:
        assert outcome.verdict is Verdict.DUE
        assert outcome.score == 0
        assert outcome.decision == ()


def test_clean_cell_is_identical_to_itself():
    outcomes = evaluate(probe(), [batch(4)]).outcomes

    assert all(o.identical and o.verdict is Verdict.MASKED and o.linf == 0 for o in outcomes)


def test_changed_values_are_counted():
    attack = registry.create("attacks", "sigma_zero", {"epsilon": 3, "steps": 30})
    given = batch(4)
    for storage in ("float32", "uint8"):
        found = evaluate(probe(), [given], perturbation=attack, storage=storage).outcomes
        assert {0 < o.l0 <= 3 for o in found if o.status is Status.OK} == {True}
        assert all(o.l0 == 0 for o in found if o.status is Status.NO_MOVE)
    assert all(o.l0 == 0 for o in evaluate(probe(), [given]).outcomes)


def test_storage_rounds_to_the_grid_of_the_bounds():
    images = torch.rand(2, 1, 8, 8)
    stored = on_grid(images * 1400 - 1000, Bounds(-1000.0, 400.0))

    steps = (stored.double() + 1000) / 1400 * 255
    assert float((steps - steps.round()).abs().max()) < 1e-3
    assert float((stored - (images * 1400 - 1000)).abs().max()) <= 1400 / 255 / 2 + 1e-3


def test_an_attack_below_half_a_grey_level_does_not_survive_storage():
    fgsm = registry.create("attacks", "fgsm", {"epsilon": "0.4/255"})
    grey = batch(4)
    grey = grey.with_images((grey.images * 255).round() / 255)

    kept = evaluate(probe(), [grey], perturbation=fgsm).outcomes
    stored = evaluate(probe(), [grey], perturbation=fgsm, storage="uint8").outcomes

    assert all(o.linf > 0.001 and o.status is Status.OK for o in kept)
    assert all(o.linf == 0 and o.status is Status.NO_MOVE for o in stored)


def test_storage_never_overspends_a_budget():
    fgsm = registry.create("attacks", "fgsm", {"epsilon": "1.6/255"})

    stored = evaluate(probe(), [batch(4)], perturbation=fgsm, storage="uint8").outcomes

    assert all(o.linf == pytest.approx(1 / 255, abs=1e-6) for o in stored)


def test_gallery_holds_exact_arrays_of_the_worst_cases():
    fgsm = registry.create("attacks", "pgd", {"epsilon": 0.5})
    given = batch(16)
    given = palpate.types.Batch(
        given.images,
        probe().predict(given).decisions,
        given.samples,
        given.cases,
        given.sites,
    )

    result = evaluate(probe(), [given], perturbation=fgsm, gallery=3)
    wrong = {o.sample for o in result.outcomes if o.score < 1}

    assert len(wrong) >= 3
    assert set(result.images["sample"]) <= wrong
    assert len(result.images["sample"]) == 3
    index = given.samples.index(result.images["sample"][0])
    assert torch.equal(torch.from_numpy(result.images["clean"][0]), given.images[index])


@pytest.mark.parametrize(
    ("predicted", "expected", "dice"),
    [([0, 0], [0, 0], 1.0), ([1, 0], [0, 0], 0.0), ([0, 0], [1, 1], 0.0), ([1, 0], [1, 1], 2 / 3)],
)
def test_empty_masks_follow_the_written_policy(predicted, expected, dice):
    planes = torch.tensor(predicted).float().reshape(1, 1, 1, 2) * 2 - 1
    task = Segmentation(("lesion",), exclusive=False)

    found = scores(Prediction(planes, task), torch.tensor(expected).reshape(1, 1, 1, 2))

    assert found.item() == pytest.approx(dice)


def test_storage_changes_nothing_for_faults_in_the_model():
    """The images are not the fault's: same decisions, and no pictures of unchanged images."""
    fault = registry.create("faults", "weight_bit_flip", {"trials": 20, "bits": [30]})
    grey = batch(6)
    grey = grey.with_images((grey.images * 255).round() / 255)

    kept, stored = (
        evaluate(probe(), [grey], perturbation=fault, storage=storage, gallery=3)
        for storage in ("float32", "uint8")
    )

    assert {o.verdict for o in kept.outcomes} > {Verdict.MASKED}
    assert [(o.verdict, o.decision) for o in kept.outcomes] == [
        (o.verdict, o.decision) for o in stored.outcomes
    ]
    assert kept.images == stored.images == {}


class _Stripes(nn.Module):
    """Foreground where a pixel is bright; NaN for a sample whose first pixel is 1."""

    def forward(self, images):
        logits = torch.cat([0.5 - images, images - 0.5], dim=1)
        broken = (images[:, :1, :1, :1] == 1).expand_as(logits)
        return torch.where(broken, logits * float("nan"), logits)


def masks(count=3, side=12):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(count, 1, side, side, generator=generator) * 0.9
    images[-1, 0, 0, 0] = 1
    references = (torch.rand(count, side, side, generator=generator) > 0.5).long()
    names = tuple(f"s{i}" for i in range(count))
    return Batch(images, references, names, names, ("",) * count)


@pytest.mark.parametrize("perturbation", [None, noise()])
def test_masks_leave_one_region_per_class_that_the_score_agrees_with(perturbation):
    task = Segmentation(("background", "lesion"))
    target = palpate.wrap(_Stripes().eval(), task=task)
    given = masks()
    outcomes = evaluate(target, [given], perturbation=perturbation).outcomes

    for one in outcomes:
        (region,) = one.regions
        reference = given.references[given.samples.index(one.sample)]
        assert region.expected == int(reference.sum())
        total = region.decided + region.expected
        assert one.score == pytest.approx(2 * region.overlap / total if one.finite else 0, abs=1e-6)
        wrong = total - 2 * region.overlap if one.finite else reference.numel()
        assert (one.pixels, one.wrong_pixels) == (reference.numel(), wrong)
        if not one.finite:
            assert (region.decided, region.surface, region.found) == (0, 0, 0)
    assert outcomes[2].finite is (perturbation is not None)


@pytest.mark.parametrize("exclusive", [True, False])
def test_pixels_are_counted_against_the_reference_and_the_golden_output(exclusive):
    """Planes that do not exclude each other hold one decision per plane and pixel."""
    draw = torch.Generator().manual_seed(1)
    module = torch.nn.Conv2d(1, 3, kernel_size=3, padding=1).eval()
    task = Segmentation(("a", "b", "c"), exclusive=exclusive)
    target = palpate.wrap(module, task=task)
    shape = (3, 6, 6) if exclusive else (3, 3, 6, 6)
    references = torch.randint(0, 3 if exclusive else 2, shape, generator=draw)
    names = ("s0", "s1", "s2")
    images = torch.rand((3, 1, 6, 6), generator=draw)
    given = Batch(images, references, names, names, ("",) * 3)
    fault = registry.create("corruptions", "gaussian_noise", {"severity": 5})

    clean, noisy = (evaluate(target, [given], perturbation=p).outcomes for p in (None, fault))

    golden = target.predict(given).decisions
    assert [o.wrong_pixels for o in clean] == (golden != references).flatten(1).sum(1).tolist()
    assert {o.changed_pixels for o in clean} == {0}
    assert {o.pixels for o in clean} == {36 if exclusive else 108}
    assert any(o.changed_pixels for o in noisy)
    for one, before in zip(noisy, clean, strict=True):  # no pixel is newly wrong unless it changed
        assert abs(one.wrong_pixels - before.wrong_pixels) <= one.changed_pixels


def test_labels_leave_no_regions():
    outcomes = evaluate(probe(), [batch(2)]).outcomes
    assert all((o.regions, o.pixels, o.wrong_pixels) == ((), 0, 0) for o in outcomes)

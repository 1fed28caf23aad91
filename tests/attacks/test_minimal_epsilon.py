import pytest
import torch

from palpate.attacks._call import Given
from palpate.attacks._projection import size
from palpate.attacks.fab import Fab
from palpate.attacks.minimal_epsilon import MinimalEpsilon, _held
from palpate.attacks.pgd import Pgd
from palpate.contracts.oracles import batch, linear
from palpate.errors import ConfigError
from palpate.scoring import scores
from palpate.types import Prediction


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_closed_form_on_a_linear_model(norm):
    target, given = linear(), batch(8, classes=2, margin=0.3)
    logits = target.logits(given.images).detach()
    weight = target.module.get_parameter("weight").detach()
    dual = weight.abs().sum() if norm == "linf" else weight.norm()

    found = MinimalEpsilon(norm=norm)(target, given.images, logits.argmax(1))

    ratio = size(found - given.images, norm) / (logits[:, 1].abs() / dual)
    assert 1 - 1e-4 <= float(ratio.min()) <= float(ratio.max()) < 1.02


def test_one_run_gives_the_curve_of_pgd_not_far_behind_fab(few):
    """At any budget as many samples stand as PGD from the clean image leaves, give or take one."""
    target, images, labels = few
    right = target.logits(images).argmax(1) == labels
    images, labels = images[right], labels[right]
    found = MinimalEpsilon(steps=8, searches=7)(target, images, labels)
    distance = size(found - images, "linf")

    for epsilon in (1 / 255, 4 / 255):
        pgd = Pgd(epsilon=epsilon, steps=8, random_start=False)(target, images, labels)
        stands = (target.logits(pgd).argmax(1) == labels).float().mean()
        curve = (distance > epsilon).float().mean()
        assert abs(float(curve - stands)) <= 1 / len(labels) + 1e-6
    fab = size(Fab(steps=8)(target, images, labels) - images, "linf")
    assert distance.median() < 1.3 * fab.median()


def dice(target, images, masks):
    return scores(Prediction(target.logits(images).detach(), target.task), masks)


def test_closed_form_of_dice_below_a_bar_on_a_pixel_threshold(thresholds):
    """Pixels turn wrong in the order of their distance, so the Dice at each budget is known."""
    target, images, masks = thresholds
    found = MinimalEpsilon(criterion="dice_below", bar=0.4, searches=14)(target, images, masks)

    distance = (images - 0.5).abs()
    for i, least in enumerate(distance.flatten(1).sort(dim=1).values):
        turned = [(distance[i, 0] <= t) for t in least]
        decided = [torch.where(t, 1 - masks[i], masks[i]) for t in turned]
        below = [
            2 * int((d * masks[i]).sum()) < 0.4 * int(d.sum() + masks[i].sum()) for d in decided
        ]
        best = float(least[below.index(True)])
        spent = float(size((found - images)[i : i + 1], "linf"))
        assert best - 1e-5 <= spent < best + 0.01
    assert bool((dice(target, found, masks) < 0.4).all())


def test_the_curve_of_dice_below_a_bar_is_that_of_pgd(network):
    target, images, masks = network
    attack = MinimalEpsilon(criterion="dice_below", bar=0.5, steps=10, loss="dice")
    distance = size(attack(target, images, masks) - images, "linf")

    assert bool((distance > 0).all())
    for epsilon in (0.8 * float(distance.median()), 1.25 * float(distance.median())):
        pgd = Pgd(epsilon=epsilon, steps=10, random_start=False, loss="dice")
        stands = (dice(target, pgd(target, images, masks), masks) >= 0.5).float().mean()
        assert abs(float((distance > epsilon).float().mean() - stands)) <= 1 / len(masks) + 1e-6


def test_a_mask_below_the_bar_already_needs_no_attack(thresholds):
    target, images, masks = thresholds
    assert torch.equal(MinimalEpsilon()(target, images, 1 - masks), images)


@pytest.mark.parametrize(
    ("criterion", "bar", "count"),
    [("pixel_success", 0.01, 1), ("dice_below", 0.5, 3), ("pixel_success", 1.0, 4)],
)
def test_several_labels_are_broken_as_the_score_counts_them(labelled, criterion, bar, count):
    """One wrong label, fewer than half right, none right."""
    target, images, labels = labelled
    attack = MinimalEpsilon(criterion=criterion, bar=bar, steps=40, searches=12)
    found = attack(target, images, labels)

    assert bool((labelled.wrong(found) >= count / 4).all())
    ratio = size(found - images, "linf") / labelled.least("linf", count)
    assert 1 - 1e-4 <= float(ratio.min()) <= float(ratio.max()) < 1.02


def test_in_l2_labels_that_are_wrong_already_must_not_take_the_budget(labelled):
    target, images, labels = labelled
    options = {"norm": "l2", "criterion": "pixel_success", "bar": 1.0, "steps": 40, "searches": 12}
    found = MinimalEpsilon(loss="masked_ce", **options)(target, images, labels)

    ratio = size(found - images, "l2") / labelled.least("l2", 4)
    assert 1 - 1e-4 <= float(ratio.min()) <= float(ratio.max()) < 1.04


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(("packed", "searches"), [(2, 6), (3, 5), (7, 4)])
def test_packed_budgets_reach_the_closed_form_in_fewer_rounds(norm, packed, searches):
    target, given = linear(), batch(8, classes=2, margin=0.3)
    logits = target.logits(given.images).detach()
    weight = target.module.get_parameter("weight").detach()
    dual = weight.abs().sum() if norm == "linf" else weight.norm()

    def ratio(packed):
        attack = MinimalEpsilon(norm=norm, packed=packed, searches=searches)
        found = attack(target, given.images, logits.argmax(1))
        return size(found - given.images, norm) / (logits[:, 1].abs() / dual)

    many, one = ratio(packed), ratio(1)
    assert 1 - 1e-4 <= float(many.min()) <= float(many.max()) < 1.02
    assert float(one.max()) > 1.02


def test_packed_budgets_give_the_same_curve(cheap):
    target, images, labels = cheap
    curves = {}
    for packed, searches in ((1, 12), (3, 6), (7, 4)):
        attack = MinimalEpsilon(steps=8, packed=packed, searches=searches)
        found = attack.search(target, images, labels)
        curves[packed] = size(found.images - images, "linf")
        assert 0.5 < found.passes / (len(images) * searches * packed * 9) < 1
    for packed in (3, 7):
        assert torch.allclose(curves[packed], curves[1], rtol=0.02, atol=1e-6)


def test_packed_budgets_are_tried_at_once_and_no_more_of_them(labelled):
    target, images, labels = labelled
    asked = []
    hook = target.module.register_forward_hook(lambda _, given, __: asked.append(len(given[0])))
    attack = MinimalEpsilon(criterion="pixel_success", bar=0.01, steps=5, searches=4, packed=3)
    found = attack(target, images, labels)
    attack.ask_once(Given(target, images, labels, None, range(6)))
    hook.remove()

    # the clean images, then three rows for each; a measure of memory takes as many
    assert asked == [6] + [18] * 4 * (5 + 1) + [18]
    ratio = size(found - images, "linf") / labelled.least("linf", 1)
    assert 1 - 1e-4 <= float(ratio.min()) <= float(ratio.max()) < 1.1


def test_what_held_is_the_largest_budget_below_the_smallest_that_broke():
    low, budgets = torch.tensor([0.1, 0.1, 0.1]), torch.tensor([[0.2, 0.3, 0.4]]).repeat(3, 1)
    broken = torch.tensor([[True, True, True], [False, True, False], [False, False, False]])

    assert torch.equal(_held(low, budgets, broken), torch.tensor([0.1, 0.2, 0.4]))


def test_bad_settings_are_refused(thresholds):
    with pytest.raises(ConfigError, match="expected a Dice above 0, at most 1, got 0"):
        MinimalEpsilon(bar=0.0)
    with pytest.raises(ConfigError, match="loss: expected one of .* got 'dlr'"):
        MinimalEpsilon(loss="dlr").check(thresholds.target)
    with pytest.raises(ConfigError, match="searches: expected 1 or more, got 0"):
        MinimalEpsilon(searches=0)
    with pytest.raises(ConfigError, match="packed: expected 1 or more, got 0"):
        MinimalEpsilon(packed=0)
    assert torch.tensor(MinimalEpsilon().passes) == 610

import itertools

import pytest
import torch

from palpate.attacks._loss import margin
from palpate.attacks._places import cheapest, leads
from palpate.attacks._success import Success
from palpate.scoring import scores
from palpate.types import Classification, MultiLabel, Prediction, PromptedSegmentation, Segmentation

TWO = Segmentation(("background", "lesion"))
THREE = Segmentation(("background", "a", "b"))
PLANES = Segmentation(("a", "b"), exclusive=False)


def drawn(seed, task, shape):
    draw = torch.Generator().manual_seed(seed)
    logits = torch.randn(shape, generator=draw)
    prediction = Prediction(logits, task)
    if prediction.exclusive:
        known = torch.randint(0, shape[1], (shape[0], *shape[2:]), generator=draw)
    else:
        known = torch.randint(0, 2, shape, generator=draw)
    return prediction, known


def broken(prediction, references, wrong, success):
    """Whether a sample is broken when just these places are wrong."""
    other = prediction.logits.clone()
    if prediction.exclusive:
        labels = references.unsqueeze(1)
        true = torch.zeros_like(other).scatter(1, labels, 1.0) > 0
        # raise the true logit where it is right, lower it where it is wrong
        other = torch.where(true, torch.where(wrong.unsqueeze(1), -99.0, 99.0), other)
    else:
        other = torch.where(wrong, 1.0, -1.0) * torch.where(references > 0, -1.0, 1.0)
    return success.left(Prediction(other, prediction.task), references) <= 0


def test_leads_are_below_zero_where_a_place_is_wrong():
    for task, shape in (
        (Classification(("a", "b", "c")), (5, 3)),
        (MultiLabel(("a", "b", "c")), (5, 3)),
        (THREE, (2, 3, 4, 5)),
        (PLANES, (2, 2, 4, 5)),
        (PromptedSegmentation(), (2, 1, 4, 5)),
    ):
        prediction, known = drawn(1, task, shape)
        lead = leads(prediction.logits, known, exclusive=prediction.exclusive)
        assert torch.equal(lead < 0, prediction.decisions != known)
    prediction, known = drawn(2, Classification(("a", "b", "c")), (5, 3))
    assert torch.equal(
        leads(prediction.logits, known, exclusive=True), -margin(prediction.logits, known)
    )


@pytest.mark.parametrize("bar", [0.3, 0.5, 0.9])
@pytest.mark.parametrize("seed", range(6))
def test_the_pixels_that_lower_dice_are_the_cheapest_up_to_the_last(seed, bar):
    """Dantzig: the chosen cost no less than the best of all sets, without the last no more."""
    prediction, known = drawn(seed, TWO, (1, 2, 2, 4))
    known[0, 0, 0] = 1
    costs = torch.rand(known.shape, generator=torch.Generator().manual_seed(seed)) + 0.1
    success = Success("dice_below", bar)

    chosen = cheapest(costs, prediction, known, success)

    best = min(
        float((costs.flatten()[list(some)] ** 2).sum())
        for count in range(9)
        for some in itertools.combinations(range(8), count)
        if broken(prediction, known, _of(some, known), success)
    )
    assert bool(broken(prediction, known, chosen, success))
    spent = costs[chosen] ** 2
    last = spent / torch.where(known[chosen] > 0, 2 - bar, bar)
    without = spent.sum() - spent[last.argmax()]
    assert float(without) - 1e-6 <= best <= float(spent.sum()) + 1e-6


def _of(places, like):
    made = torch.zeros(like.numel(), dtype=torch.bool)
    made[list(places)] = True
    return made.reshape(like.shape)


@pytest.mark.parametrize("task", [THREE, PLANES])
def test_without_the_dearest_of_them_a_sample_of_several_classes_stands(task):
    shape = (4, 3 if task is THREE else 2, 5, 6)
    prediction, known = drawn(3, task, shape)
    success = Success("dice_below", 0.5)
    lead = leads(prediction.logits, known, exclusive=prediction.exclusive)

    chosen = cheapest(lead, prediction, known, success)

    assert bool(broken(prediction, known, chosen, success).all())
    before = (~chosen).flatten(1).sum(1)
    assert bool((before > 0).all())
    fewer = chosen.clone().flatten(1)
    for row in fewer:
        row[torch.nonzero(row).flatten()[: int(row.sum()) // 4]] = False
    assert not bool(broken(prediction, known, fewer.reshape(chosen.shape), success).any())


@pytest.mark.parametrize(
    ("success", "count"),
    [
        (Success("pixel_success", 0.01), 1),
        (Success("pixel_success", 0.4), 2),
        (Success("dice_below", 0.7), 2),
        (Success("dice_below", 1.0), 1),
        (Success("pixel_success", 1.0), 5),
    ],
)
def test_of_labels_the_nearest_so_many(success, count):
    """Five labels; those that are wrong already come first."""
    prediction, known = drawn(4, MultiLabel(tuple("abcde")), (3, 5))
    lead = leads(prediction.logits, known, exclusive=False)

    chosen = cheapest(lead, prediction, known, success)

    assert chosen.sum(1).tolist() == [count] * 3
    assert torch.equal(chosen, lead <= lead.sort(dim=1).values[:, count - 1 : count])


def test_a_single_class_is_its_only_place():
    prediction, known = drawn(5, Classification(("a", "b", "c")), (4, 3))
    lead = leads(prediction.logits, known, exclusive=True)
    assert bool(cheapest(lead, prediction, known, Success("dice_below", 0.5)).all())


def test_all_where_nothing_breaks_it():
    """An absent class scores 1; while its logits are the lowest, no pixel turns into it."""
    known = torch.randint(0, 2, (1, 4, 4), generator=torch.Generator().manual_seed(6))
    logits = torch.nn.functional.one_hot(known, 3).movedim(-1, 1) - 5.0 * torch.eye(3)[2].reshape(
        1, 3, 1, 1
    )
    swapped = logits[:, [1, 0, 2]]  # every pixel wrong: 0 for the one class, 1 for the absent one
    assert float(scores(Prediction(swapped, THREE), known)) == 0.5
    lead = leads(logits, known, exclusive=True)

    chosen = cheapest(lead, Prediction(logits, THREE), known, Success("dice_below", 0.5))

    assert bool(chosen.all())

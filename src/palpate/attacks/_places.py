"""Places of an answer, by how much the truth leads at each, and which to turn to break a sample.

A place is the class of a classification, one of several labels, a pixel, or a pixel of a plane
where classes do not exclude each other. A sample breaks when enough of its places are wrong. Which
are the cheapest is a knapsack: a place costs the square of its lead, as in L2, and is worth what
Dice loses by it. For one class, Dice is below a bar β when Σ v > 2 R (1 − β), with v = 2 − β for
each of its R pixels that is missed and β for each that is added, so that taking them in the order
of cost over worth is best up to the last pixel (Dantzig's bound).

| code | meaning | symbol |
|---|---|---|
| leads | true logit less the largest other; of a sigmoid plane the logit, signed | – |
| worth | what Dice, at the bar, loses by a wrong pixel | v |
"""

import torch
from torch import Tensor

from palpate.attacks._success import Success
from palpate.scoring import planes
from palpate.types import Logits, Prediction, References, winners


def leads(logits: Logits, references: References, *, exclusive: bool) -> Tensor:
    """By how much the truth leads, differentiable; below 0 where a place is wrong.

    Args:
        logits: (batch, classes, *spatial).
        references: class indices (batch, *spatial) if exclusive, else 0/1 of the logits' shape.
        exclusive: softmax if true, sigmoid per class if not.

    Returns:
        Shape of the references.
    """
    if not exclusive:
        return torch.where(references > 0, logits, -logits)
    labels = references.unsqueeze(1)
    others = logits.scatter(1, labels, -torch.inf)
    return logits.gather(1, labels).squeeze(1) - others.amax(dim=1)


def cheapest(
    costs: Tensor, prediction: Prediction, references: References, success: Success
) -> Tensor:
    """The places that break a sample when all of them are wrong, cheapest first; no more of them.

    All places where not even that breaks it (Dice of an absent class falls only where it appears).

    Args:
        costs: in the shape of the references, below 0 for places that are wrong already.
        prediction: says what a pixel would turn into.
        references: on the same device.
        success: when a sample is broken.

    Returns:
        Shape of the references.
    """
    turned = _turned(prediction, references)
    costs = costs.detach()
    if success.kind == "dice_below" and prediction.logits.ndim > 2:
        worth = _worth(turned, prediction, references, success.bar)
        costs = torch.where(costs > 0, costs / worth.sqrt().clamp(min=1e-12), costs)
    flat = costs.reshape(len(costs), -1)
    order = flat.argsort(dim=1)
    numbers = torch.arange(flat.shape[1], device=flat.device).expand_as(order)
    rank = torch.empty_like(order).scatter_(1, order, numbers)
    count = torch.zeros_like(rank[:, :1])
    step = 1 << (rank.shape[1].bit_length() - 1)
    while step:  # the largest number of places that does not break it
        more = (count + step).clamp(max=rank.shape[1])
        first = (rank < more).reshape(references.shape)
        decided = torch.where(first, turned, references)
        stands = success.left(_deciding(decided, prediction), references) > 0
        count = torch.where(stands.unsqueeze(1), more, count)
        step //= 2
    return (rank <= count).reshape(references.shape)


def _turned(prediction: Prediction, references: References) -> References:
    """What each place would be if it were wrong: the likeliest of the other classes."""
    if not prediction.exclusive:
        return 1 - references
    return winners(prediction.logits.scatter(1, references.unsqueeze(1), -torch.inf))


def _deciding(decided: References, prediction: Prediction) -> Prediction:
    """Logits that decide so."""
    if not prediction.exclusive:
        return Prediction(decided.float() - 0.5, prediction.task)
    logits = torch.zeros_like(prediction.logits).scatter(1, decided.unsqueeze(1), 1.0)
    return Prediction(logits, prediction.task)


def _worth(
    turned: References, prediction: Prediction, references: References, bar: float
) -> Tensor:
    """What Dice loses by each wrong pixel, up to a factor, in the shape of the references."""
    true, wrong = planes(references, prediction), planes(turned, prediction)
    size = true.flatten(2).sum(dim=2).clamp(min=1)
    weight = (1.0 / size).reshape(*size.shape, *(1 for _ in true.shape[2:]))
    lost = weight * ((2 - bar) * (true & ~wrong) + bar * (wrong & ~true))
    return lost.sum(dim=1) if prediction.exclusive else lost

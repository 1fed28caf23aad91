"""Questions on attacks on masks: which loss, which order of its arguments, which step, which size.

They are those of Wang, Xu, "Susceptibility of Adversarial Attack on Medical Image Segmentation
Models", arXiv 2401.11224. Its public code calls the loss with prediction and mask exchanged and
blends the step with the image ("as published" here); the method that it names does neither
("corrected").
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import numpy as np
from scipy.stats import norm, rankdata, spearmanr

from palpate.record import CellRecord, Record
from palpate.report import words
from palpate.report.answer import Answer
from palpate.report.attack_grid import Grid, Ladder, common, said, way
from palpate.statistics.cells import Cells
from palpate.statistics.estimate import Estimate
from palpate.statistics.summary import Summary

_MASKS: Final = ("segmentation", "prompted_segmentation")
_ORDERS: Final = {"as published": (True, "blend"), "corrected": (False, "add")}
_TOGETHER: Final = "all models together"
_FEW: Final = 10  # models; below it a correlation says little
_EXACT: Final = 8  # models whose every order can be looked at
_SEEN: Final = 0.05

Pairs = list[tuple[CellRecord, CellRecord]]


def mask_questions(record: Record, summary: Summary) -> tuple[tuple[str, Iterable[Answer]], ...]:
    """The questions on masks, each with its answers; none where the audit has no masks.

    Args:
        record: the run.
        summary: its numbers.
    """
    if record.manifest["dataset"]["task"]["kind"] not in _MASKS:
        return ()
    grid = Grid(Cells(record), summary, record)
    return (
        ("Does a loss other than the training loss attack better?", _losses(grid)),
        ("Does the published order of the loss's arguments weaken the attack?", _swapped(grid)),
        ("Does blending the step with the image hurt more than adding it?", _blended(grid)),
        ("Which attack hurts most: FGSM, PGD or SEA?", _strongest(grid)),
        ("Does size protect?", _size(grid)),
    )


def _losses(grid: Grid) -> Iterator[Answer]:
    losses = [x for x in grid.values("fgsm", "loss") if x is not None]
    for order, (swap, update) in _ORDERS.items():
        pooled: dict[str, Pairs] = {}
        answers: list[Answer] = []
        trained: set[str] = set()
        for model in grid.models:
            loss = grid.trained_with(model)
            if loss is None:
                continue
            ladders = {
                x: grid.ladder(model, "fgsm", loss=x, swap_arguments=swap, update=update)
                for x in losses
            }
            own = ladders.pop(loss, {})
            others = {x: ladder for x, ladder in ladders.items() if common(ladder, own)}
            if not others:
                continue
            trained.add(loss)
            for x, ladder in others.items():
                pooled.setdefault(x, []).extend(common(ladder, own))
            answers.append(_loss_answer(grid, f"{model}, {order}", loss, own=own, others=others))
        if len(answers) > 1 and len(trained) == 1:
            yield _pooled_losses(grid, order, loss=trained.pop(), pooled=pooled)
        yield from answers


def _pooled_losses(grid: Grid, order: str, *, loss: str, pooled: dict[str, Pairs]) -> Answer:
    found = {x: grid.between(pairs, compared=len(pooled)) for x, pairs in pooled.items()}
    text = f"Dice left by the other loss less that left by {loss}, over all models and epsilons: "
    text += "; ".join(f"{x} {said(difference)}" for x, difference in found.items())
    return Answer(f"{_TOGETHER}, {order}", _better(found), text)


def _loss_answer(
    grid: Grid, who: str, loss: str, *, own: Ladder, others: dict[str, Ladder]
) -> Answer:
    count = len(others)
    found = {x: grid.between(common(o, own), compared=count) for x, o in others.items()}
    parts = [f"relative drop by {loss} {_drops(grid, own)}"]
    for x, other in others.items():
        each = ", ".join(
            f"{words.number(grid.drop(cell))} at {words.dose_text('epsilon', epsilon)}"
            f" ({said(grid.between([(cell, own[epsilon])]))})"
            for epsilon, cell in other.items()
            if epsilon in own
        )
        parts.append(f"by {x} {each}; Dice left beside {loss} {said(found[x])} in all")
    return Answer(who, _better(found), "; ".join(parts))


def _better(found: Mapping[str, Estimate]) -> str:
    """Which of the other losses leave less."""
    ways = {loss: way(difference) for loss, difference in found.items()}
    if better := [loss for loss, side in ways.items() if side == -1]:
        return f"yes, {words.listed(better)}"
    return "no" if all(side == 1 for side in ways.values()) else "cannot tell"


def _swapped(grid: Grid) -> Iterator[Answer]:
    for loss in grid.values("fgsm", "loss"):
        by_model: dict[str, Pairs] = {}
        for model in grid.models:
            how: dict[str, Any] = {"loss": loss, "update": "add"}
            wrong = grid.ladder(model, "fgsm", **how, swap_arguments=True)
            right = grid.ladder(model, "fgsm", **how, swap_arguments=False)
            if pairs := common(wrong, right):
                by_model[model] = pairs
        if by_model:
            what = "Dice left with the arguments exchanged less that left in the right order"
            yield _by_model(grid, str(loss), by_model, what=what, yes=1)


def _blended(grid: Grid) -> Iterator[Answer]:
    for swap in (True, False):
        by_model: dict[str, Pairs] = {}
        for model in grid.models:
            for loss in grid.values("fgsm", "loss"):
                how: dict[str, Any] = {"loss": loss, "swap_arguments": swap}
                blend = grid.ladder(model, "fgsm", **how, update="blend")
                add = grid.ladder(model, "fgsm", **how, update="add")
                if pairs := common(blend, add):
                    by_model.setdefault(model, []).extend(pairs)
        if by_model:
            what = "Dice left by blending less that left by adding, over all losses and epsilons"
            found = "exchanged arguments" if swap else "right order"
            yield _by_model(grid, found, by_model, what=what, yes=-1)


def _by_model(grid: Grid, who: str, by_model: dict[str, Pairs], *, what: str, yes: int) -> Answer:
    """One answer over all models, and the number of each."""
    whole = grid.between([pair for pairs in by_model.values() for pair in pairs])
    verdict = {yes: "yes", -yes: "no, the reverse"}.get(way(whole), "cannot tell")
    text = f"{what}: {said(whole)}"
    if len(by_model) > 1:
        each = "; ".join(f"{m} {said(grid.between(pairs))}" for m, pairs in by_model.items())
        text += f" over all models; {each}"
    return Answer(who, verdict, text)


def _strongest(grid: Grid) -> Iterator[Answer]:
    met: dict[tuple[str, str], Pairs] = {}
    answers: list[Answer] = []
    for model in grid.models:
        ladders = {name.upper(): _usual(grid, model, name) for name in ("fgsm", "pgd", "sea")}
        ladders = {name: ladder for name, ladder in ladders.items() if ladder}
        pairs = {
            (one, other): found
            for one, other in itertools.combinations(ladders, 2)
            if (found := common(ladders[other], ladders[one]))
        }
        if not pairs:
            continue
        for key, found in pairs.items():
            met.setdefault(key, []).extend(found)
        drops = [f"{name} takes away {_drops(grid, ladder)}" for name, ladder in ladders.items()]
        answers.append(_ranked(grid, model, pairs, start="; ".join(drops) + "; "))
    if len(answers) > 1:
        yield _ranked(grid, _TOGETHER, met, start="")
    yield from answers


def _ranked(grid: Grid, who: str, pairs: dict[tuple[str, str], Pairs], *, start: str) -> Answer:
    """Name the attack that leaves less than every other, by whole intervals."""
    found = {key: grid.between(cells, compared=len(pairs)) for key, cells in pairs.items()}
    names = dict.fromkeys(name for key in found for name in key)
    won = dict.fromkeys(names, 0)
    for (one, other), difference in found.items():
        if side := way(difference):
            won[one if side > 0 else other] += 1
    best = [name for name, wins in won.items() if wins == len(names) - 1]
    text = start + "Dice left, "
    text += "; ".join(f"{b} less {a} {said(d)}" for (a, b), d in found.items())
    return Answer(who, best[0] if best else "cannot tell", text)


def _usual(grid: Grid, model: str, attack: str, order: str = "corrected") -> Ladder:
    """An attack in one order with the training loss, or with its first where that is unknown."""
    if attack == "sea":
        return grid.ladder(model, attack)
    swap, update = _ORDERS[order]
    how: dict[str, Any] = {"swap_arguments": swap, "update": update}
    own = grid.ladder(model, attack, loss=grid.trained_with(model), **how)
    return own or grid.ladder(model, attack, **how)


def _size(grid: Grid) -> Iterator[Answer]:
    known = {t["label"]: t.get("parameters") for t in grid.record.manifest["targets"]}
    for attack, order in (("fgsm", "as published"), ("fgsm", "corrected"), ("pgd", "corrected")):
        found = [
            (float(known[model]), float(np.mean(drops)))
            for model in grid.models
            if known.get(model) and (drops := _known(grid, _usual(grid, model, attack, order)))
        ]
        if len({size for size, _ in found}) > 2:
            sizes, drops = np.array(found).T
            yield _correlated(sizes, drops, f"{attack.upper()}, {order}", grid.cells.confidence)


def _correlated(sizes: Any, drops: Any, who: str, confidence: float) -> Answer:
    n, logs = len(sizes), np.log10(sizes)
    if np.ptp(drops) == 0:
        return Answer(who, "cannot tell", "every model loses the same")
    linear = float(np.corrcoef(logs, drops)[0, 1])
    ranks, p = spearman(sizes, drops)
    low, high = fisher(linear, n, confidence=confidence)
    clear = p < _SEEN and low * high > 0
    verdict = "cannot tell" if not clear else "yes" if ranks < 0 else "no, the reverse"
    text = (
        f"parameters against mean relative drop over {n} models: Spearman {_signed(ranks)}"
        f" (p {p:.2g}), Pearson with the logarithm of the count {_signed(linear)}"
        f" [{_signed(low)}, {_signed(high)}]"
    )
    if n < _FEW:
        text += f"; {n} points say little, and the models differ in more than size"
    return Answer(who, verdict, text)


def spearman(first: Any, second: Any) -> tuple[float, float]:
    """Rank correlation and its two-sided p-value, exact over all orders for few points.

    Args:
        first: (points,).
        second: (points,).
    """
    a, b = rankdata(first), rankdata(second)
    seen = float(np.corrcoef(a, b)[0, 1])
    if len(a) > _EXACT:
        return seen, float(spearmanr(a, b).pvalue)  # pyright: ignore
    orders = np.array(list(itertools.permutations(b)))
    centred = a - a.mean()
    all_of_them = (orders - b.mean()) @ centred
    least = abs(float((b - b.mean()) @ centred))
    return seen, float((np.abs(all_of_them) >= least - 1e-9).mean())


def fisher(r: float, n: int, *, confidence: float) -> tuple[float, float]:
    """Fisher's interval of a linear correlation; everything where four points are not there.

    Args:
        r: correlation.
        n: points.
        confidence: in (0, 1).
    """
    if n < 4 or abs(r) >= 1:
        return -1.0, 1.0
    half = float(norm.ppf((1 + confidence) / 2)) / np.sqrt(n - 3)
    z = np.arctanh(r)
    return float(np.tanh(z - half)), float(np.tanh(z + half))


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def _known(grid: Grid, ladder: Ladder) -> list[float]:
    return [x for x in map(grid.drop, ladder.values()) if x is not None]


def _drops(grid: Grid, ladder: Ladder) -> str:
    """Relative drop at each epsilon."""
    return ", ".join(
        f"{words.number(grid.drop(cell))} at {words.dose_text('epsilon', epsilon)}"
        for epsilon, cell in ladder.items()
    )

"""Did the attacks attack? Checks on every attack cell and between them."""

import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from palpate import registry
from palpate.metrics.base import CLASSES, Rows
from palpate.record import CellRecord
from palpate.statistics._check import (
    DOSES,
    GRADIENT_FREE,
    ONE_FOR_ALL,
    TRANSFER,
    Check,
    Verdict,
    checked,
    named,
)
from palpate.statistics._order import wrong_order
from palpate.statistics._probe_checks import BLACK, STEPS
from palpate.statistics._probe_checks import TRANSFER as TRANSFERRED
from palpate.statistics._search_checks import (
    left_to_break,
    says_nothing_of_empty_masks,
    search_checks,
    without_lesion,
)
from palpate.statistics.cells import Cells, blends, budget_of, spending
from palpate.statistics.estimate import codes
from palpate.statistics.paired import label, scores
from palpate.storage import Storage

_GAP = 0.02  # mean score by which the last iterate may lag behind the best
_LEFT = 0.1  # mean score that may be left at the largest budget


def attack_checks(cells: Cells) -> Iterator[Check]:
    """All checks that concern attacks; nothing where the run has none."""
    attacks = [c for c in cells.finished("attacks") if _epsilon(c) != 0]
    for check in (_moved, _within_budget, _best_against_last):
        yield from check(cells, attacks)
    yield from search_checks(cells, attacks)
    for check in (_falls_with_epsilon, _many_steps_beat_one, _breaks_at_the_largest_budget):
        yield from check(cells, attacks)
    yield from _gradients_beat(cells, attacks, BLACK, GRADIENT_FREE)
    yield from _gradients_beat(cells, attacks, TRANSFERRED, TRANSFER)


def _moved(cells: Cells, attacks: list[CellRecord]) -> Iterator[Check]:
    name = "the attack could act"
    found: list[Check] = []
    for cell in attacks:
        rows = cells.rows(cell)
        standing = (rows["clean_score"] > 0) & (scores(rows) >= rows["clean_score"])
        standing &= left_to_break(rows, cell.setting) > 0
        stuck = standing & (rows["status"] != "ok")
        if not stuck.any():
            continue
        if says_nothing_of_empty_masks(cell) and not (stuck & ~without_lesion(rows)).any():
            found.append(Check(name, "warn", named(cell), _spared(rows, stuck)))
            continue
        status = "fail" if stuck.sum() > standing.sum() / 2 else "warn"
        evidence = (
            f"no gradient or no movement for {int(stuck.sum())} of the {int(standing.sum())}"
            " samples that still stand; they are not counted as robust"
        )
        found.append(Check(name, status, named(cell), evidence))
    yield from checked(found, name, attacks, "a gradient and a movement on every sample")


def _spared(rows: Rows, stuck: NDArray[np.bool_]) -> str:
    return (
        f"only samples whose reference is empty are concerned, {int(stuck.sum())} of"
        f" {int(without_lesion(rows).sum())}: this loss has no gradient there. That is a property"
        " of the loss, not of the model; they are not counted as robust, and a drop over all"
        " samples is too small by them"
    )


def _within_budget(cells: Cells, attacks: list[CellRecord]) -> Iterator[Check]:
    name = "perturbation within the budget"
    if attacks and _storage(cells).format == "jpeg":
        yield _moved_by_the_file(cells, attacks, f"{name} once it is stored")
        return
    found: list[Check] = []
    for cell in attacks:
        budget = budget_of(cell)
        if budget is None or budget[0] not in ("linf", "l2", "l0"):
            continue
        norm, epsilon = budget
        if blends(cell.perturbation, cell.setting):
            epsilon *= 2
        spent = float(cells.rows(cell)[norm].max())
        if spent > epsilon + _slack(cells, norm):
            evidence = f"{norm} {spent:.6g} spent, {epsilon:.6g} allowed"
            found.append(Check(name, "fail", named(cell), evidence))
    yield from checked(found, name, attacks, "the recorded norm of every sample")


def _moved_by_the_file(cells: Cells, attacks: list[CellRecord], name: str) -> Check:
    """JPEG adds a change of its own; every attack was held to its budget before it was stored."""
    most = max(float(cells.rows(cell)["linf"].max()) for cell in attacks)
    largest = max((b[1] for c in attacks if (b := budget_of(c)) and b[0] == "linf"), default=None)
    allowed = "" if largest is None else f", the largest epsilon is {largest:.4g}"
    why = (
        f"images were stored as JPEG, which moves pixels by itself: recorded linf up to {most:.4g}"
        f"{allowed}; the budget was held before they were stored"
    )
    return Check(name, "not run", "", why)


def _storage(cells: Cells) -> Storage:
    return Storage.parse(cells.record.manifest["config"].get("storage", "float32"))


def _slack(cells: Cells, norm: str) -> float:
    """Float32 rounding, and half a grey level per pixel where images were rounded to 8 bits."""
    low, high = cells.record.manifest["dataset"].get("bounds") or (0.0, 1.0)
    slack = 1e-5 * (high - low)
    storage = _storage(cells)
    if norm == "l0":  # where changed images alone are filed, every value moves a little
        return 0.0 if storage.originals else np.inf
    if storage.format in ("uint8", "png"):
        pixels = int(np.prod(cells.record.manifest["dataset"].get("shape") or [1]))
        slack += (high - low) / 510 * (1 if norm == "linf" else float(np.sqrt(pixels)))
    return slack


def _best_against_last(cells: Cells, attacks: list[CellRecord]) -> Iterator[Check]:
    name = "best iterate against last"
    found: list[Check] = []
    for cell in attacks:
        rows = cells.rows(cell)
        gap = float((rows["last_score"] - rows["score"]).mean())
        if abs(gap) > _GAP:
            evidence = f"the last iterate scores {gap:+.3f} against the best, which is reported"
            found.append(Check(name, "warn", named(cell), evidence))
    yield from checked(found, name, attacks, f"mean scores agree within {_GAP:g}")


def _falls_with_epsilon(cells: Cells, attacks: list[CellRecord]) -> Iterator[Check]:
    name = "robust accuracy falls with epsilon"
    ladders = [ladder for ladder in _ladders(attacks) if len(ladder) > 1]
    pairs = [pair for ladder in ladders for pair in itertools.pairwise(ladder)]
    yield from _in_order(cells, pairs, name, "no larger budget leaves more samples right")


def _many_steps_beat_one(cells: Cells, attacks: list[CellRecord]) -> Iterator[Check]:
    pairs = [
        (one, many)
        for one in attacks
        for many in attacks
        if _same_place(one, many)
        and _steps(one) == 1 < _steps(many)
        and _should_be_strong(cells, many)
    ]
    yield from _in_order(
        cells, pairs, STEPS, "single-step and iterative attack, same budget, paired"
    )


def _gradients_beat(
    cells: Cells, attacks: list[CellRecord], name: str, kinds: frozenset[str]
) -> Iterator[Check]:
    """An attack without the model's gradients that does better than one with them unmasks them."""
    pairs = [
        (free, white)
        for free in attacks
        for white in attacks
        if free.perturbation in kinds
        and _should_be_strong(cells, white)
        and _same_place(free, white)
        and _steps(white) > 1
    ]
    yield from _in_order(cells, pairs, name, "same budget, paired")


def _should_be_strong(cells: Cells, cell: CellRecord) -> bool:
    """Whether an attack follows the model's gradients, and to the lowest score that there is."""
    setting = cell.setting
    return (
        cell.perturbation not in GRADIENT_FREE | TRANSFER | ONE_FOR_ALL
        and setting.get("goal", "break") == "break"
        and setting.get("prompt", "same") == "same"
        and not setting.get("swap_arguments")
        # which is content once a mask is below the bar
        and ("criterion" not in setting or cells.task.kind in CLASSES)
    )


def _in_order(
    cells: Cells, pairs: list[tuple[CellRecord, CellRecord]], name: str, what: str
) -> Iterator[Check]:
    """The first of each pair, the weaker by its making, must not do better than the second."""
    found: list[Check] = []
    for weak, strong in pairs:
        finding = _ordered(cells, weak=weak, strong=strong, among=len(pairs))
        if finding is not None:
            found.append(Check(name, finding[0], named(strong), finding[1]))
    yield from checked(found, name, pairs, what)


def _breaks_at_the_largest_budget(cells: Cells, attacks: list[CellRecord]) -> Iterator[Check]:
    """The strongest attack of each norm must come near 0 somewhere; a single step need not."""
    name = "the curve reaches total failure"
    strongest: dict[tuple[str, str, str], tuple[float, CellRecord]] = {}
    for ladder in _ladders(attacks):
        if _epsilon(ladder[-1]) is None:
            continue  # what is physically possible need not break everything
        rows = cells.rows(ladder[-1])
        left = float(np.minimum(scores(rows), rows["clean_score"]).mean())
        norm = str(ladder[-1].setting.get("norm", "linf"))
        key = (label(ladder[-1]), ladder[-1].dataset, norm)
        strongest[key] = min(
            strongest.get(key, (np.inf, ladder[-1])), (left, ladder[-1]), key=_first
        )
    found = [
        Check(
            name,
            "warn",
            named(cell),
            f"score {left:.3f} left at the largest budget; an unbounded attack must reach 0, so a"
            " larger epsilon is worth a run",
        )
        for left, cell in strongest.values()
        if left > _LEFT
    ]
    yield from checked(found, name, strongest, f"at most {_LEFT:g} left for each model and norm")


def _first(pair: tuple[float, CellRecord]) -> float:
    return pair[0]


def _ordered(
    cells: Cells, *, weak: CellRecord, strong: CellRecord, among: int
) -> tuple[Verdict, str] | None:
    """None if the stronger attack leaves no more right than the weaker one, sample by sample."""
    (a, cases), (b, _) = (_standing(cells.rows(cell)) for cell in (weak, strong))
    shared = sorted(a.keys() & b.keys())
    first, second = (np.array([side[s] for s in shared]) for side in (a, b))
    whose = codes(np.array([cases[s] for s in shared]))
    return wrong_order(first, second, cases=whose, under=named(weak), among=among)


def _standing(rows: Rows) -> tuple[dict[str, float], dict[str, str]]:
    """Worst score per sample over the trials, no better than clean; the case of each."""
    worst: dict[str, float] = {}
    left = np.fmin(scores(rows), rows["clean_score"])
    names = rows["sample"].tolist()
    for sample, value in zip(names, left.tolist(), strict=True):
        worst[sample] = min(value, worst.get(sample, np.inf))
    return worst, dict(zip(names, rows["case"].tolist(), strict=True))


def _ladders(attacks: list[CellRecord]) -> list[list[CellRecord]]:
    """Cells that differ in the dose alone, by rising dose."""
    groups: dict[tuple[str, ...], list[tuple[float, CellRecord]]] = {}
    for cell in attacks:
        if (dose := _dose(cell)) is not None:
            rest = registry.canonical({k: v for k, v in cell.setting.items() if k != dose[0]})
            key = (label(cell), cell.dataset, cell.perturbation, rest)
            groups.setdefault(key, []).append((dose[1], cell))
    return [[cell for _, cell in sorted(group, key=lambda g: g[0])] for group in groups.values()]


def _dose(cell: CellRecord) -> tuple[str, float] | None:
    """Name and size of what the attack may spend; None where there is no limit."""
    for name in DOSES:
        value = cell.setting.get(name)
        if isinstance(value, int | float):
            return name, float(value)
    return None


def _epsilon(cell: CellRecord) -> float | None:
    budget = budget_of(cell)
    return None if budget is None else budget[1]


def _same_place(a: CellRecord, b: CellRecord) -> bool:
    if label(a) != label(b) or a.dataset != b.dataset:
        return False
    first, second = (spending(c.family, c.perturbation, c.setting) for c in (a, b))
    return first == second is not None


def _steps(cell: CellRecord) -> int:
    return int(cell.setting.get("steps") or cell.setting.get("queries") or 1)

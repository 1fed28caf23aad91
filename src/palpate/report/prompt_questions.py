"""Questions on text-prompted segmentation: image attacks by protocol, and what the words do.

The first are those of Budathoki and Dhakal, "Adversarial Robustness Analysis of Vision-Language
Models in Medical Image Segmentation", arXiv 2505.02971; "literal" is the attack as its public code
runs it (`normalised_pgd`), "corrected" the attack that the papers describe (`fgsm`, `pgd`).
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from palpate.record import CellRecord, Record
from palpate.report import words
from palpate.report._prompt_cells import Ladder, PromptCells, question_of
from palpate.report.answer import Answer
from palpate.report.attack_grid import said, way
from palpate.report.fault_words import measured
from palpate.statistics.cells import Cells
from palpate.statistics.estimate import Estimate

_MASKS: Final = ("segmentation", "prompted_segmentation")
_SAME_MEANING: Final = ("synonym", "typo", "truncation")
_OTHER_MEANING: Final = ("negation", "organ", "location", "empty")
_NOTHING: Final = 0.05  # a change of the score below which wording does not matter
_HALF: Final = 0.5
_UNKNOWN: Final = "cannot tell"
_NO_MATTER: Final = f"no, by less than {_NOTHING * 100:g}\u00a0pp"

Asked = tuple[tuple[str, Iterable[Answer]], ...]


def prompt_questions(record: Record) -> Asked:
    """The questions, each with its answers; those on words only where the task has prompts.

    Args:
        record: the run.
    """
    kind = record.manifest["dataset"]["task"]["kind"]
    if kind not in _MASKS:
        return ()
    found = PromptCells(Cells(record))
    universal = ("Does one perturbation fool many images?", _universal(found))
    if kind == "segmentation":
        return (universal,)
    return (
        ("Does PGD beat FGSM?", _stronger(found)),
        ("Is the damage monotone in epsilon?", _monotone(found)),
        universal,
        ("Does the wording of the question matter?", _wording(found)),
        ("Does the model read its question?", _reads(found)),
        ("Does an attack found under one question carry over to another?", _carries(found)),
    )


def _stronger(cells: PromptCells) -> Iterator[Answer]:
    for protocol in (p for model in cells.models for p in cells.protocols(model)):
        if len(protocol.attacks) < 2:
            continue
        one, many = protocol.attacks["FGSM"], protocol.attacks["PGD"]
        both = [epsilon for epsilon in many if epsilon in one]
        found = {e: cells.between(many[e], one[e], compared=len(both)) for e in both}
        if found:
            text = f"Dice left by PGD less that left by FGSM {_at_each(found)}"
            yield Answer(protocol.who, _beaten(found), text)


def _beaten(found: Mapping[float, Estimate]) -> str:
    below = [e for e, d in found.items() if way(d) == -1]
    above = [e for e, d in found.items() if way(d) == 1]
    if len(below) == len(found):
        return "yes"
    if len(above) == len(found):
        return "no, the reverse"
    if below and above:
        return f"yes at {_epsilons(below)}, the reverse at {_epsilons(above)}"
    if below:
        return f"yes at {_epsilons(below)}"
    return f"no, the reverse at {_epsilons(above)}" if above else _UNKNOWN


def _monotone(cells: PromptCells) -> Iterator[Answer]:
    for protocol in (p for model in cells.models for p in cells.protocols(model)):
        for attack, ladder in protocol.attacks.items():
            if len(ladder) > 1:
                yield _rising(cells, f"{protocol.who}, {attack}", ladder)


def _rising(cells: PromptCells, who: str, ladder: Ladder) -> Answer:
    """Whether no larger epsilon leaves more than the one before it, and the last surely less."""
    doses = list(ladder)
    steps = list(itertools.pairwise(doses))
    found = {(a, b): cells.between(ladder[b], ladder[a], compared=len(steps)) for a, b in steps}
    risen = [_pair(*pair) for pair, d in found.items() if way(d) == 1]
    seem = [_pair(*pair) for pair, d in found.items() if (d.value or 0.0) > 0]
    whole = cells.between(ladder[doses[-1]], ladder[doses[0]])
    sure = way(whole) == -1 and not seem
    verdict = "yes" if sure else _UNKNOWN
    if risen:
        verdict = f"no, {words.listed(risen)}"
    left = ", ".join(
        f"{measured(cells.dice(cell))} at {words.dose_text('epsilon', e)}"
        for e, cell in ladder.items()
    )
    text = f"Dice left {left}; change "
    text += ", ".join(f"{_pair(*pair)} {said(d)}" for pair, d in found.items())
    if len(found) > 1:
        text += f"; {_pair(doses[0], doses[-1])} {said(whole)}"
    if seem and not risen:
        text += f"; it rises {words.listed(seem)}, within what chance does"
    return Answer(who, verdict, text)


def _pair(one: float, other: float) -> str:
    return f"from {words.dose_text('epsilon', one)} to {words.dose_text('epsilon', other)}"


def _universal(cells: PromptCells) -> Iterator[Answer]:
    for model in cells.models:
        for cell in cells.of(model, "universal"):
            limit = float(cell.setting.get("agreement", _HALF))
            found = cells.fooled(cell, below=limit)
            change = cells.against_clean(cell)
            if found.value is None or found.low is None or found.high is None:
                continue
            verdict = "yes" if found.low > _HALF else "no" if found.high < _HALF else _UNKNOWN
            elsewhere = cell.setting.get("fit_on", "audited") != "audited"
            apart = "other data" if elsewhere else f"other {cell.setting.get('held_out', 'case')}s"
            text = (
                f"fitted on {apart}, it fools {measured(found)} of {words.plural(found.n, 'image')}"
                f" (mask agrees with the clean one by less than {limit:g})"
            )
            if change is not None:
                text += f"; Dice {said(change)}"
            yield Answer(f"{model}, {cells.name(cell)}", verdict, text)


def _wording(cells: PromptCells) -> Iterator[Answer]:
    for model in cells.models:
        found = cells.of(model, "prompt_edit", "prompt_wording", "prompt_exchange")
        kept = [c for c in found if c.setting.get("kind", "synonym") in _SAME_MEANING]
        moved = _moved(cells, kept)
        changes = {
            cell.key: change
            for cell in moved
            if (change := cells.against_clean(cell, compared=len(moved))) is not None
        }
        parts: list[str] = []
        for cell in kept:
            agreed = cells.agreed(cell)
            text = f"{cells.name(cell)} ({_searched(cells, cell)})"
            text += f": Dice {said(changes[cell.key])}" if cell.key in changes else ""
            if cell.key in changes and agreed.value is not None:
                text += f", agreement with its own answer {measured(agreed)}"
            parts.append(text)
        if parts:
            worse = [cells.name(c) for c in moved if c.key in changes and way(changes[c.key]) < 0]
            still = bool(changes) and all(map(_still, changes.values()))
            verdict = f"yes, {words.listed(worse)}" if worse else _NO_MATTER if still else _UNKNOWN
            yield Answer(model, verdict, "; ".join(parts))


def _moved(cells: PromptCells, found: Iterable[CellRecord]) -> list[CellRecord]:
    """Cells in which there was a word to change."""
    return [c for c in found if cells.unmoved(c)[0] < cells.unmoved(c)[1]]


def _searched(cells: PromptCells, cell: CellRecord) -> str:
    """How much choice the attacker had, and where there was none."""
    setting = cell.setting
    tried = len(setting.get("kinds") or ()) or int(setting.get("queries") or 1)
    if cell.perturbation == "prompt_exchange":
        how = f"{words.plural(int(setting.get('tokens') or 1), 'token')}, meaning not held"
    else:
        how = f"worst of up to {tried}" if tried > 1 else "one wording"
    stuck, every = cells.unmoved(cell)
    if stuck == every:
        return f"{how}; nothing to change in these questions"
    return f"{how}; nothing to change in {stuck} of {every}" if stuck else how


def _still(found: Estimate) -> bool:
    low, high = found.low, found.high
    return low is not None and high is not None and low > -_NOTHING and high < _NOTHING


def _reads(cells: PromptCells) -> Iterator[Answer]:
    for model in cells.models:
        edits = cells.of(model, "prompt_edit")
        found = [c for c in edits if c.setting.get("kind") in _OTHER_MEANING]
        moved = _moved(cells, found)
        follows, ignores, parts = list[str](), list[str](), list[str]()
        for cell in found:
            kind = str(cell.setting["kind"])
            change = cells.against_clean(cell) if cell in moved else None
            beyond = cells.against_clean(cell, kept=_HALF, compared=len(moved))
            text = f"{kind} ({_searched(cells, cell)})"
            if change is not None and beyond is not None:
                side = way(beyond)
                (follows if side < 0 else ignores if side > 0 else []).append(kind)
                text += f": Dice with the reference of the original question {said(change)}"
                text += f", {measured(cells.dice(cell))} left"
            parts.append(text)
        if parts:
            yield Answer(model, _read(follows, ignores, len(moved)), "; ".join(parts))


def _read(follows: list[str], ignores: list[str], asked: int) -> str:
    """Followed: under another question less than half of the Dice stays; ignored: more."""
    if asked and len(follows) == asked:
        return "yes"
    if asked and len(ignores) == asked:
        return "no"
    if follows and ignores:
        return f"in part: {words.listed(follows)}, not {words.listed(ignores)}"
    if follows:
        return f"yes, {words.listed(follows)}; the rest cannot be told"
    return f"no, {words.listed(ignores)}; the rest cannot be told" if ignores else _UNKNOWN


def _carries(cells: PromptCells) -> Iterator[Answer]:
    for model in cells.models:
        every = cells.of(model)
        for cell in (c for c in every if question_of(c.setting)):
            wanted = {**cell.setting, "prompt": "same"}
            own = next(
                (c for c in every if (c.perturbation, c.setting) == (cell.perturbation, wanted)),
                None,
            )
            if own is not None:
                yield _carried(cells, f"{model}, {cells.name(cell)}", cell, own)


def _carried(cells: PromptCells, who: str, cell: CellRecord, own: CellRecord) -> Answer:
    hurt, still = cells.against_clean(own), cells.against_clean(cell)
    beyond = cells.carried(cell, own, kept=_HALF)
    if hurt is None or still is None or beyond is None or not hurt.value:
        return Answer(who, _UNKNOWN, "no damage to carry over")
    text = (
        f"change of Dice {said(hurt)} when found under the question that is scored, {said(still)}"
        f" when found under another ({question_of(cell.setting)}); difference"
        f" {said(cells.between(cell, own))}"
    )
    if way(hurt) != -1:
        return Answer(who, _UNKNOWN, f"{text}; under its own question it does no sure damage")
    text += f"; {words.number((still.value or 0.0) / hurt.value)} of the damage carries over"
    verdict = {1: "yes, more than half", -1: "no, less than half"}.get(way(beyond), _UNKNOWN)
    return Answer(who, verdict, text)


def _at_each(found: Mapping[float, Estimate]) -> str:
    each = (f"{said(d)} at {words.dose_text('epsilon', e)}" for e, d in found.items())
    return f"{', '.join(each)} ({words.plural(max(d.n for d in found.values()), 'image')})"


def _epsilons(doses: Iterable[float]) -> str:
    return words.listed([words.dose_text("epsilon", e) for e in doses])

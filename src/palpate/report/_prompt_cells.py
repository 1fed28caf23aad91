"""The attack cells of a run on masks, as the questions on prompts read them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson

from palpate import registry
from palpate.metrics.base import Share, Values
from palpate.metrics.consistency import Consistency, agreement
from palpate.metrics.dice import Dice
from palpate.outcome import Status
from palpate.record import CellRecord
from palpate.report import words
from palpate.report.sites import short_labels
from palpate.statistics.cells import Cells, design_of
from palpate.statistics.estimate import Design, Estimate, codes
from palpate.statistics.measure import estimate
from palpate.statistics.paired import difference, label, scores, shared
from palpate.statistics.summary import measure

Ladder = dict[float, CellRecord]
_SHARED: Final = ("norm", "loss", "swap_arguments", "label", "goal", "prompt", "update")


@dataclass(frozen=True)
class Protocol:
    """FGSM and PGD with the same loss, question and norm, by epsilon.

    Attributes:
        who: the model and what tells this protocol from others.
        attacks: "FGSM" and "PGD", each with its cells by epsilon; one of them may be absent.
    """

    who: str
    attacks: dict[str, Ladder]


@dataclass(frozen=True)
class PromptCells:
    """Finished attacks of a run.

    Attributes:
        cells: reader of the run.
    """

    cells: Cells

    @property
    def models(self) -> list[str]:
        """Every model that was attacked, with its defence."""
        return list(dict.fromkeys(label(c) for c in self.cells.finished("attacks")))

    def of(self, model: str, *names: str) -> list[CellRecord]:
        """Attacks of these names (all by default) on one model, in the order of the audit."""
        found = self.cells.finished("attacks")
        return [c for c in found if label(c) == model and (not names or c.perturbation in names)]

    def protocols(self, model: str) -> list[Protocol]:
        """Literal ones first, then the corrected ones."""
        literal: dict[str, list[CellRecord]] = {}
        for cell in self.of(model, "normalised_pgd"):
            key = {k: v for k, v in cell.setting.items() if k not in ("epsilon", "steps")}
            literal.setdefault(registry.canonical(key), []).append(cell)
        corrected: dict[str, list[CellRecord]] = {}
        for cell in self.of(model, "fgsm", "pgd"):
            if not cell.setting.get("swap_arguments") and cell.setting.get("update") != "blend":
                key = {k: cell.setting.get(k) for k in _SHARED}
                corrected.setdefault(registry.canonical(key), []).append(cell)
        return [
            *(_protocol(model, "literal", key, found) for key, found in literal.items()),
            *(_protocol(model, "corrected", key, found) for key, found in corrected.items()),
        ]

    def name(self, cell: CellRecord) -> str:
        """A cell in words, with what tells it from the model's other cells of that component."""
        keys = {
            c.key: (c.family, c.perturbation, registry.canonical(c.setting))
            for c in self.of(label(cell), cell.perturbation)
        }
        return short_labels(list(keys.values()))[keys[cell.key]]

    def unmoved(self, cell: CellRecord) -> tuple[int, int]:
        """Rows in which there was nothing to change, and all rows."""
        status = self.cells.rows(cell)["status"]
        return int((status == Status.NO_MOVE.value).sum()), len(status)

    def between(self, one: CellRecord, other: CellRecord, *, compared: int = 1) -> Estimate:
        """Mean score of one less that of the other, on the same samples."""
        a, b = self.cells.rows(one), self.cells.rows(other)
        left, right = shared(a, b)
        pairs = scores(a)[left], scores(b)[right]
        return self._difference(pairs, a["case"][left], [one, other], compared=compared)

    def against_clean(
        self, cell: CellRecord, *, kept: float = 1.0, compared: int = 1
    ) -> Estimate | None:
        """Mean score of a cell less that share of the clean score; None where that is unknown.

        Args:
            cell: any.
            kept: share of the clean score.
            compared: intervals that one verdict reads; each is widened by Bonferroni.
        """
        rows = self.cells.rows(cell)
        known = ~np.isnan(rows["clean_score"])
        if not known.any():
            return None
        pairs = scores(rows)[known], kept * rows["clean_score"][known].astype(np.float64)
        return self._difference(pairs, rows["case"][known], [cell, kept], compared=compared)

    def carried(self, found: CellRecord, own: CellRecord, *, kept: float) -> Estimate | None:
        """By how much the damage of one cell exceeds a share of another's, paired by sample."""
        a, b = self.cells.rows(found), self.cells.rows(own)
        left, right = shared(a, b)
        clean = a["clean_score"][left].astype(np.float64)
        if not len(left) or np.isnan(clean).any():
            return None
        limit = (1 - kept) * clean + kept * scores(b)[right]
        pairs = limit, scores(a)[left]
        return self._difference(pairs, a["case"][left], [found, own, "carried"], compared=1)

    def dice(self, cell: CellRecord) -> Estimate:
        """Mean Dice of a cell."""
        return self._measured(Dice(), cell)

    def agreed(self, cell: CellRecord) -> Estimate:
        """Mean Dice with the clean answer."""
        return self._measured(Consistency(), cell)

    def fooled(self, cell: CellRecord, *, below: float) -> Estimate:
        """Share of the samples whose Dice with the clean answer is below a limit."""
        rows = self.cells.rows(cell)
        agreed = agreement(rows, self.cells.task)
        values: Values = np.where(np.isnan(agreed), np.nan, agreed < below)
        return estimate(
            Share(values),
            design_of(rows, cell.family),
            confidence=self.cells.confidence,
            resamples=self.cells.resamples,
            name=f"fooled:{cell.key}",
        )

    def _measured(self, metric: Dice | Consistency, cell: CellRecord) -> Estimate:
        return measure(
            metric,
            self.cells.rows(cell),
            self.cells,
            family=cell.family,
            notes=cell.notes,
            confidence=self.cells.confidence,
            resamples=self.cells.resamples,
        )

    def _difference(
        self, pairs: tuple[Values, Values], cases: Any, named: Sequence[Any], *, compared: int
    ) -> Estimate:
        names = [n.key if isinstance(n, CellRecord) else str(n) for n in named]
        return difference(
            *pairs,
            Design(codes(cases), np.zeros(len(cases), dtype=np.intp)),
            confidence=1 - (1 - self.cells.confidence) / max(1, compared),
            resamples=self.cells.resamples,
            name=":".join(names),
        )


def question_of(setting: dict[str, Any]) -> str:
    """Under which question an attack searched, in words; empty for the audit's own."""
    prompt = setting.get("prompt") or "same"
    if prompt == "same":
        return ""
    return "question drawn anew" if prompt == "random" else f"question {prompt}"


def _protocol(model: str, kind: str, key: str, found: Sequence[CellRecord]) -> Protocol:
    setting = orjson.loads(key)
    parts = [model, kind, question_of(setting)]
    if setting.get("double_sigmoid") is False:
        parts.append("single sigmoid")
    if kind == "corrected":
        norm = setting.get("norm") or "linf"
        parts.append("" if norm == "linf" else words.NORMS.get(norm, norm))
        parts.append(str(setting.get("loss") or ""))
        parts.append("labels the model's own" if setting.get("label") == "prediction" else "")
        parts.append("" if setting.get("goal") in (None, "break") else f"goal {setting['goal']}")
    ladders = {"FGSM": _ladder(found, single=True), "PGD": _ladder(found, single=False)}
    who = ", ".join(filter(None, parts))
    return Protocol(who, {name: ladder for name, ladder in ladders.items() if ladder})


def _ladder(found: Sequence[CellRecord], *, single: bool) -> Ladder:
    """One-step attacks, or those with the most steps, by epsilon."""
    own = [c for c in found if (c.perturbation == "fgsm" or _steps(c) == 1) == single]
    most = max(map(_steps, own), default=0)
    ladder: Ladder = {}
    for cell in own:
        if _steps(cell) == most:
            ladder.setdefault(float(cell.setting["epsilon"]), cell)
    return dict(sorted(ladder.items()))


def _steps(cell: CellRecord) -> int:
    return int(cell.setting.get("steps") or 1)

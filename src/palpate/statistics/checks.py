"""`checks(record)`: the audit examines itself; a check that was not run says so.

Sources: Carlini et al., "On Evaluating Adversarial Robustness" (arXiv 1902.06705); Pintor et al.,
"Indicators of Attack Failure" (arXiv 2106.09947); the warnings of AutoAttack (Croce and Hein,
arXiv 2003.01690).
"""

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from palpate import registry
from palpate.metrics.base import LABELS
from palpate.record import CellRecord, Record
from palpate.statistics._advice import ADVICE, NOT_RUN
from palpate.statistics._attack_checks import attack_checks
from palpate.statistics._check import Check, checked, named
from palpate.statistics._margin_checks import margin_checks
from palpate.statistics._model_checks import model_checks
from palpate.statistics._not_run import not_run
from palpate.statistics._probe_checks import probe_checks
from palpate.statistics._probes import probes_of
from palpate.statistics._shared_checks import shared_checks
from palpate.statistics.cells import Cells, design_of
from palpate.statistics.certified import certificate_checks
from palpate.statistics.paired import label, scores
from palpate.statistics.proportions import share
from palpate.statistics.sample_size import cases_for
from palpate.statistics.summary import Row, Summary, summarise
from palpate.statistics.table import Table

_WIDE = 0.1  # half-width of an interval beyond which a single number says little
_ORDER = {"fail": 0, "warn": 1, "pass": 2, "not run": 3}


def checks(record: Record, *, summary: Summary | None = None) -> Table[Check]:
    """Examine a run: failures first, then warnings, passes, and what was not examined.

    Args:
        record: the run.
        summary: its summary, if at hand.
    """
    cells, probes = Cells(record), probes_of(record)
    found = [
        *_finished(record),
        *_exactly_once(cells),
        *_above_chance(cells),
        *_as_on_card(cells),
        *_finite(cells),
        *attack_checks(cells),
        *certificate_checks(cells),
        *shared_checks(cells),
        *_dose_moves_more(cells),
        *_faults_reach_the_output(cells),
        *margin_checks(cells),
        *_dataset(record),
        *_intervals(summary or summarise(record)),
    ]
    found = _joined(found, [*model_checks(probes), *probe_checks(probes)])
    found += not_run(record, probes=probes, done={c.check for c in found})
    advised = [_advised(c) for c in found]
    return Table(tuple(sorted(advised, key=lambda c: _ORDER[c.status])))


def _joined(own: list[Check], probed: list[Check]) -> list[Check]:
    """A pass on a few samples adds nothing to one on all of them."""
    known = {c.check for c in own}
    return own + [c for c in probed if c.status != "pass" or c.check not in known]


def _advised(check: Check) -> Check:
    if check.status == "pass":
        return check
    known = NOT_RUN if check.status == "not run" else ADVICE
    return replace(check, advice=known.get(check.check, ""))


def _finished(record: Record) -> Iterator[Check]:
    name = "every planned cell finished"
    failed = [c for c in record.cells if c.status != "ok"]
    for cell in failed:
        error = cell.error or {}
        evidence = f"{error.get('type', 'error')}: {error.get('message', 'no message')}"
        yield Check(name, "fail", named(cell), evidence)
    if record.missing:
        planned = len(record.manifest["plan"])
        yield Check(name, "fail", "", f"{len(record.missing)} of {planned} cells were not run")
    elif not failed:
        yield Check(name, "pass", "", f"all {len(record.cells)} cells")


def _exactly_once(cells: Cells) -> Iterator[Check]:
    name = "every sample exactly once per trial"
    found: list[Check] = []
    for cell in cells.finished():
        rows, clean = cells.rows(cell), cells.clean_of(cell)
        keys = np.char.add(np.char.add(rows["trial"].astype(str), "\x1f"), rows["sample"])
        distinct, expected = len(np.unique(keys)), cell.samples * cell.trials
        trials = np.bincount(rows["trial"], minlength=cell.trials)
        even = len(rows["trial"]) == expected == distinct and (trials == cell.samples).all()
        same = clean is None or set(rows["sample"].tolist()) == set(clean["sample"].tolist())
        if not even or not same:
            evidence = f"{len(keys)} rows, {distinct} distinct, {expected} expected" + (
                "" if same else "; other samples than the clean cell"
            )
            found.append(Check(name, "fail", named(cell), evidence))
    yield from checked(found, name, cells.finished(), "each trial holds each sample once")


def _above_chance(cells: Cells) -> Iterator[Check]:
    name = "clean accuracy above chance"
    if cells.task.kind not in LABELS:
        yield Check(name, "not run", "", "dense task: no chance level is defined")
        return
    for cell in cells.finished("none"):
        rows = cells.rows(cell)
        reference = rows["reference"]
        _, counts = np.unique(reference, return_counts=True)
        chance = float(counts.max() / counts.sum())
        values = scores(rows)
        found = share(values, design_of(rows, cell.family), confidence=cells.confidence)
        assert found.value is not None
        assert found.low is not None
        above = "pass" if found.low > chance else "warn" if found.value > chance else "fail"
        evidence = (
            f"accuracy {found.value:.3f} [{found.low:.3f}, {found.high:.3f}],"
            f" most frequent answer {chance:.3f}"
        )
        if len(counts) == 1:
            above, evidence = "warn", f"{evidence}: one class alone, always giving it is right"
        yield Check(name, above, named(cell), evidence)


def _as_on_card(cells: Cells) -> Iterator[Check]:
    """The model's card states its clean accuracy, or Dice; the same data must give it again."""
    score = "accuracy" if cells.task.kind in LABELS else "dice"
    name = f"clean {'accuracy' if score == 'accuracy' else 'Dice'} as on the card"
    asked = cells.record.manifest["config"].get("dataset") or {}
    cards = {t["label"]: t.get("card") or {} for t in cells.record.manifest.get("targets") or []}
    for cell in cells.finished("none"):
        card = cards.get(cell.target) or {}
        trained = (card.get("recipe") or {}).get("dataset") or {}
        stated = (card.get("clean") or {}).get(asked.get("split", "test")) or {}
        same = all(trained.get(k) == asked.get(k) for k in ("name", "flag"))
        if cell.defence != "none" or not same or stated.get("n") != cell.samples:
            continue
        if score not in stated:
            continue
        found = float(scores(cells.rows(cell)).mean())
        agrees = abs(found - stated[score]) <= 1.01 / cell.samples  # one near tie may flip
        evidence = f"measured {found:.4f}, card {stated[score]:.4f}"
        name = (
            "clean accuracy as on the card" if score == "accuracy" else "clean Dice as on the card"
        )
        yield Check(name, "pass" if agrees else "fail", named(cell), evidence)


def _finite(cells: Cells) -> Iterator[Check]:
    name = "finite output without faults"
    found: list[Check] = []
    members = cells.finished("none", "attacks", "corruptions", "occlusions")
    for cell in members:
        finite = cells.rows(cell)["finite"].astype(bool)
        if not finite.all():
            status = "fail" if cell.family == "none" else "warn"
            evidence = f"{int((~finite).sum())} of {len(finite)} outputs are not finite"
            found.append(Check(name, status, named(cell), evidence))
    yield from checked(found, name, members, "every output")


def _dose_moves_more(cells: Cells) -> Iterator[Check]:
    """A higher severity or coverage must move the image further, on average; zero not at all."""
    name = "higher dose moves the image further"
    ladders: dict[tuple[str, ...], list[tuple[float, float, CellRecord]]] = {}
    for cell in cells.finished("corruptions", "occlusions"):
        dose = next((k for k in ("severity", "coverage") if k in cell.setting), None)
        if dose is None:
            continue
        rest = registry.canonical({k: v for k, v in cell.setting.items() if k != dose})
        moved = float(cells.rows(cell)["l2"].mean())
        step = (float(cell.setting[dose]), moved, cell)
        ladders.setdefault((label(cell), cell.dataset, cell.perturbation, rest), []).append(step)
    found: list[Check] = []
    for ladder in ladders.values():
        steps = sorted(ladder, key=lambda s: s[0])
        moved = [m for _, m, _ in steps]
        falls = any(b < a * (1 - 1e-6) for a, b in itertools.pairwise(moved))
        still = any((d == 0) != (m == 0) for d, m, _ in steps)
        if falls or still:
            evidence = ", ".join(f"{d:g}: {m:.4g}" for d, m, _ in steps)
            status = "fail" if still else "warn"
            found.append(Check(name, status, named(steps[0][2], setting=False), f"L2 {evidence}"))
    yield from checked(found, name, list(ladders), "mean L2 distance rises along every ladder")


def _faults_reach_the_output(cells: Cells) -> Iterator[Check]:
    name, members, touched, drawn = "faults reach the output", cells.finished("faults"), 0, 0
    found: list[Check] = []
    for cell in members:
        rows = cells.rows(cell)
        changed = np.bincount(rows["trial"], weights=~rows["identical"].astype(bool)) > 0
        touched, drawn = touched + int(changed.sum()), drawn + len(changed)
        if not changed.any():
            evidence = f"none of {len(changed)} faults changed a single bit of an output"
            found.append(Check(name, "warn", named(cell), evidence))
    evidence = f"{touched} of {drawn} faults changed some output"
    yield from checked(found, name, members, evidence)


def _dataset(record: Record) -> Iterator[Check]:
    name = "dataset without a warning"
    warnings = record.manifest["dataset"].get("warnings") or []
    for warning in warnings:
        yield Check(name, "warn", "", str(warning))
    if not warnings:
        yield Check(name, "pass", "", "the dataset raised no warning")


def _intervals(summary: Summary) -> Iterator[Check]:
    name = "intervals narrow enough to decide on"
    main = {"accuracy", "dice", "robust_accuracy", "sdc_rate"}
    rows = [r for r in summary.rows if r.metric in main and r.value is not None]
    unknown = [r for r in rows if r.low is None or r.high is None]
    wide = [r for r in rows if _half(r) > _WIDE]
    for row in unknown[:3]:
        yield Check(name, "warn", f"{row.target}, {row.perturbation}, {row.metric}", row.note)
    if wide:
        worst = max(wide, key=_half)
        share_seen = min(max(worst.value or 0.0, 0.0), 1.0)
        need = cases_for(_WIDE, confidence=summary.confidence, share=share_seen)
        evidence = (
            f"{len(wide)} of {len(rows)} numbers are known to no better than ± {_WIDE:g}; the"
            f" widest, {_spaced(worst.metric)} under {_spaced(worst.perturbation)}, to"
            f" ± {_half(worst):.2f} from {worst.units:.0f} independent units ({need} would do)"
        )
        yield Check(name, "warn", f"{worst.target}, {_spaced(worst.perturbation)}", evidence)
    elif not unknown:
        yield Check(name, "pass", "", f"all {len(rows)} main numbers within ± {_WIDE:g}")


def _spaced(name: str) -> str:
    return name.replace("_", " ")


def _half(row: Row) -> float:
    return (row.high - row.low) / 2 if row.low is not None and row.high is not None else 0.0

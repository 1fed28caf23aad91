"""What this run is evidence for, clause by clause, and what it says nothing about.

The mapping is data (`palpate/data/evidence.yaml`); this file only looks up which finished cells
answer to it. A cell whose attack could not act is no evidence, nor is one that failed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from palpate.record import CellRecord, Record
from palpate.report import words
from palpate.report._mapping import Clause, Document, Mapping, Wanted, bundled
from palpate.statistics._check import Check
from palpate.statistics.summary import Summary
from palpate.statistics.table import Table

_UNABLE: Final = "could not attack"


@dataclass(frozen=True)
class Shown:
    """One piece of evidence.

    Attributes:
        text: what it is evidence for.
        measured: which components, how many cells, samples and faults.
    """

    text: str
    measured: str


@dataclass(frozen=True)
class Line:
    """One clause.

    Attributes:
        clause: its number or heading.
        asks: what it asks for.
        shown: evidence in this run; empty where there is none.
        absent: evidence that an audit can give and this run does not.
        not_covered: what no audit of this kind shows.
    """

    clause: str
    asks: str
    shown: tuple[Shown, ...]
    absent: tuple[str, ...]
    not_covered: str


@dataclass(frozen=True)
class Part:
    """One document.

    Attributes:
        title: full name.
        state: status and date.
        lines: its clauses.
    """

    title: str
    state: str
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Evidence:
    """The table of the report.

    Attributes:
        reviewed: when the mapping was last gone through.
        parts: documents.
        not_covered: what and why, over all documents.
        doubts: why the evidence must be read with care.
    """

    reviewed: str
    parts: tuple[Part, ...]
    not_covered: tuple[tuple[str, str], ...]
    doubts: tuple[str, ...]


def evidence(
    record: Record, *, summary: Summary, checks: Table[Check], mapping: Mapping | None = None
) -> Evidence:
    """Look up what a run is evidence for.

    Args:
        record: the run, finished or not.
        summary: its summary.
        checks: its checks on itself.
        mapping: another mapping than the bundled one.
    """
    mapping = bundled() if mapping is None else mapping
    look = _Look(record, summary, checks)
    parts = tuple(
        Part(document.title, document.state, tuple(look.line(c) for c in document.clauses))
        for document in mapping.documents
    )
    return Evidence(
        reviewed=f"{mapping.reviewed:%d %B %Y}".lstrip("0"),
        parts=parts,
        not_covered=(
            *look.families_not_run(),
            *(x for d, p in zip(mapping.documents, parts, strict=True) for x in _without(d, p)),
            *look.unmapped(mapping.documents),
        ),
        doubts=tuple(look.doubts()),
    )


class _Look:
    """Finds cells and checks of one run."""

    def __init__(self, record: Record, summary: Summary, checks: Table[Check]) -> None:
        self.record = record
        self.checks = checks
        self.metrics: dict[str, set[str]] = {}
        for row in summary.rows:
            if row.value is not None:
                self.metrics.setdefault(row.cell, set()).add(row.metric.partition("[")[0])
        self.unable = {row.cell for row in summary.rows if row.cell and _UNABLE in row.note}
        self.cells = [
            cell
            for cell in record.cells
            if cell.status == "ok" and cell.samples and cell.key not in self.unable
        ]

    def line(self, clause: Clause) -> Line:
        """One clause against the run."""
        found = [(wanted.shows, self._measured(wanted)) for wanted in clause.evidence]
        return Line(
            clause.clause,
            clause.asks,
            tuple(Shown(text, measured) for text, measured in found if measured),
            tuple(text for text, measured in found if not measured),
            clause.not_covered,
        )

    def _measured(self, wanted: Wanted) -> str:
        if wanted.checks:
            return self._checked(wanted.checks)
        return _counted([cell for cell in self.cells if self._answers(cell, wanted)])

    def _checked(self, names: Sequence[str]) -> str:
        """Checks that ran; where one failed, the evidence says so."""
        status = {name: {c.status for c in self.checks if c.check == name} for name in names}
        ran = [name for name in names if status[name] - {"not run"}]
        if not ran:
            return ""
        poor = [name for name in ran if "fail" in status[name]]
        return f"{words.plural(len(ran), 'check')} of {len(names)} run" + (
            f"; failed: {words.listed(poor)}" if poor else "; none failed"
        )

    def _answers(self, cell: CellRecord, wanted: Wanted) -> bool:
        if wanted.defended:
            if not _has_defence(cell, wanted.defences):
                return False
        elif cell.family == "none" and "none" not in wanted.families:
            return False
        return (
            (not wanted.families or cell.family in wanted.families)
            and (not wanted.names or cell.perturbation in wanted.names)
            and all(cell.setting.get(k, value) == value for k, value in wanted.where.items())
            and (
                not wanted.metrics
                or bool(self.metrics.get(cell.key, set()).intersection(wanted.metrics))
            )
        )

    def families_not_run(self) -> list[tuple[str, str]]:
        """Families without a single cell that counts."""
        have = {cell.family for cell in self.cells}
        planned = {entry["family"] for entry in self.record.manifest["plan"]}
        clean = [] if "none" in have else [("clean performance", "no clean cell has a result")]
        return clean + [
            (
                title.lower(),
                "planned, but no cell has a result that counts"
                if family in planned
                else "not part of this audit",
            )
            for family, title in words.FAMILIES.items()
            if family not in have
        ]

    def unmapped(self, documents: Sequence[Document]) -> list[tuple[str, str]]:
        """What was measured and no clause speaks of by name."""
        asked = [w for d in documents for c in d.clauses for w in c.evidence if not w.checks]
        named = {(family, name) for w in asked for family in w.families for name in w.names}
        narrow = {family for family, _ in named}
        whole = {family for w in asked if not w.names for family in w.families}
        unknown: dict[str, str] = {}
        for cell in self.cells:
            if cell.family not in whole | narrow:
                unknown[cell.perturbation] = "measured, but the mapping does not know its family"
            elif cell.family in narrow and (cell.family, cell.perturbation) not in named:
                why = "counts for its family; the mapping does not say what it supposes and reaches"
                unknown[cell.perturbation] = why
        return [(words.spaced(name), why) for name, why in unknown.items()]

    def doubts(self) -> list[str]:
        """Failed checks, missing cells, attacks that could not act."""
        failed = len({c.check for c in self.checks if c.status == "fail"})
        found = [f"{words.plural(failed, 'check')} of the audit on itself failed"] if failed else []
        planned = len(self.record.manifest["plan"])
        done = sum(cell.status == "ok" for cell in self.record.cells)
        if done < planned:
            found.append(
                f"{planned - done} of {words.plural(planned, 'planned cell')} have no result"
            )
        if self.unable:
            cells = words.plural(len(self.unable), "cell")
            found.append(f"{cells} left out: the attack could not act")
        return found


def _has_defence(cell: CellRecord, names: Sequence[str]) -> bool:
    # a defence that an audit holds twice is labelled "name (settings)"
    return cell.defence != "none" and (not names or cell.defence.partition(" (")[0] in names)


def _counted(cells: Sequence[CellRecord]) -> str:
    """Components, cells, models, samples and faults in words; empty for no cells."""
    if not cells:
        return ""
    names = list(dict.fromkeys(_name(cell) for cell in cells))
    models = len({cell.target for cell in cells})
    sizes = sorted({cell.samples for cell in cells})
    samples = " to ".join(dict.fromkeys(words.count(n) for n in (sizes[0], sizes[-1])))
    text = (
        f"{', '.join(names)}: {words.plural(len(cells), 'cell')} on {words.plural(models, 'model')}"
    )
    faults = sum(cell.trials for cell in cells if cell.family == "faults")
    more = f", {words.plural(faults, 'fault')}" if faults else ""
    return f"{text}{more}, {samples} {'sample' if sizes[-1] == 1 else 'samples'} each"


def _name(cell: CellRecord) -> str:
    name = "clean" if cell.family == "none" else words.spaced(cell.perturbation)
    return name if cell.defence == "none" else f"{name} behind {words.spaced(cell.defence)}"


def _without(document: Document, part: Part) -> Iterator[tuple[str, str]]:
    """The clauses of a document that this run shows nothing for, in one entry."""
    lines = [line for line in part.lines if not line.shown]
    gaps = [
        f"{x.clause} ({'; '.join(x.absent) + ': not run' if x.absent else x.not_covered})"
        for x in lines
    ]
    if gaps:
        yield document.short, "; ".join(gaps)

"""What the command line prints: progress, tables, one-line errors."""

import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from palpate.campaign.drive import Progress

Watch = Callable[["Progress"], None]

OK, GATE_FAILED, USAGE, INCOMPLETE, INTERRUPTED = 0, 1, 2, 3, 130
"""What the exit status tells a shell; `docs/ci.md` explains them."""


def say(text: str) -> None:
    """Print one line to the user; the only place that prints."""
    print(text, flush=True)  # noqa: T201


def complain(text: str) -> None:
    """Print one line to standard error."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201


def json(data: Any) -> None:
    """Print data as JSON with sorted keys."""
    import orjson

    option = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_SERIALIZE_NUMPY
    say(orjson.dumps(data, option=option).decode())


def table(rows: Sequence[Sequence[str]], title: str) -> None:
    """Print rows, the first being the header."""
    from rich.console import Console
    from rich.table import Table

    header, *body = rows
    drawn = Table(title=title, title_justify="left")
    for name in header:
        drawn.add_column(name, overflow="fold")
    for row in body:
        drawn.add_row(*(_plain(cell) for cell in row))
    width = None if sys.stdout.isatty() else 140
    Console(width=width).print(drawn)


@contextmanager
def progress(*, quiet: bool = False) -> Generator[Watch]:
    """A live bar on a terminal, one line per cell otherwise, nothing when quiet."""
    if quiet:
        yield lambda _: None
    elif sys.stdout.isatty():
        with _bar() as watch:
            yield watch
    else:
        yield lambda at: say(_line(at))


@contextmanager
def _bar() -> Generator[Watch]:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Bar(*columns, TimeRemainingColumn()) as bar:
        task = bar.add_task("planning", total=None)

        def watch(at: "Progress") -> None:
            text = "starting" if at.finished is None else _cell(at.finished.cell.entry)
            text = "waiting for another run" if at.elsewhere else text
            text = f"looking at {at.probed}" if at.probed else text
            bar.update(task, total=at.total, completed=at.done, description=text)

        yield watch


def _line(at: "Progress") -> str:
    if at.elsewhere:
        return f"[{at.done}/{at.total}] waiting for {at.elsewhere} that another run holds"
    if at.probed:
        return f"[{at.done}/{at.total}] looking at {at.probed} before its cells are run"
    if at.finished is None:
        return f"[{at.done}/{at.total}] cells already done"
    end = f"  ERROR {at.finished.error}" if at.finished.error else ""
    return (
        f"[{at.done}/{at.total}] {_cell(at.finished.cell.entry)} {at.finished.seconds:.1f} s{end}"
    )


def model(entry: dict[str, Any]) -> str:
    """A planned cell's model, with its defence where it has one."""
    bare = entry["defence"] == "none"
    return entry["target"] if bare else f"{entry['target']} + {entry['defence']}"


def _cell(entry: dict[str, Any]) -> str:
    doses = ("epsilon", "severity", "coverage", "flips", "bit_error_rate", "norm", "scope")
    setting = entry["setting"]
    shown = [f"{k}={_short(setting[k])}" for k in doses if setting.get(k) is not None]
    name = "clean" if entry["family"] == "none" else entry["perturbation"]
    return " ".join([model(entry), name, *shown])


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _plain(text: str) -> str:
    return text.replace("[", r"\[")  # rich would read it as markup

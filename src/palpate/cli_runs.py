"""Verbs of the day after: they read finished runs, and need neither the model nor torch."""

from pathlib import Path
from typing import Annotated

import typer

from palpate import console
from palpate.console import GATE_FAILED, INCOMPLETE, OK

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def compare(
    before: Annotated[Path, typer.Argument(help="Run directory of the last release.")],
    after: Annotated[Path, typer.Argument(help="Run directory of this one.")],
    margin: Annotated[
        float | None, typer.Option(help="Largest acceptable loss; 0.02 is two points.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="HTML file.")] = None,
    json: Json = False,
) -> None:
    """Compare two runs on the same samples; with a margin, exit 1 unless no cell is worse."""
    from palpate.record import Record
    from palpate.report import comparison
    from palpate.statistics.compare import compare as compared

    found = compared(Record.load(before), Record.load(after), margin=margin)
    page = None if output is None else comparison.render(found, output, before, after)
    if json:
        console.json(comparison.plain(found))
    else:
        console.table(comparison.terminal_table(found), title=f"{after} minus {before}")
        for line in comparison.terminal_lines(found):
            console.say(line)
        if page is not None:
            console.say(f"comparison: {page}")
    if margin is None:
        return
    unfinished = any(apart.unfinished for apart in found.apart)
    raise typer.Exit(INCOMPLETE if unfinished else OK if found.holds else GATE_FAILED)

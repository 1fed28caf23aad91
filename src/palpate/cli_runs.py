"""Verbs of the day after: they read finished runs, and need neither the model nor torch."""

from pathlib import Path
from typing import Annotated

import typer

from palpate import console
from palpate.console import GATE_FAILED, INCOMPLETE, OK
from palpate.errors import ConfigError

RunFolder = Annotated[Path, typer.Argument(help="Run directory.")]
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
    page = None if output is None else comparison.render(found, output)
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


def check(
    folder: RunFolder,
    gates: Annotated[Path, typer.Option(help="Gates file.")],
    junit: Annotated[Path | None, typer.Option(help="JUnit XML file to write.")] = None,
    json: Json = False,
) -> None:
    """Hold a run against gates on interval ends: exit 0 pass, 1 failed, 3 incomplete run."""
    from palpate.record import Record, write_atomic
    from palpate.report import gate_table
    from palpate.report import junit as xml
    from palpate.statistics.gates import judge, load_gates

    asked = load_gates(gates)
    found = judge(Record.load(folder), asked)
    if junit is not None:
        write_atomic(junit, xml.junit(f"palpate check {folder}", xml.gate_cases(found)))
    if json:
        plain = {"passed": found.passed, "unfinished": list(found.unfinished)}
        console.json({**plain, "gates": found.to_dicts()})
    else:
        console.table(gate_table.gate_table(found), title=str(folder))
        console.say(gate_table.gate_headline(found))
    if found.unfinished:
        raise typer.Exit(INCOMPLETE)
    raise typer.Exit(OK if found.passed else GATE_FAILED)


def export(
    folder: RunFolder,
    form: Annotated[
        str | None, typer.Option("--format", help="parquet, csv, json or junit.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="File; in the run by default.")] = None,
    to: Annotated[str | None, typer.Option(help="mlflow or wandb, instead of a file.")] = None,
    tracking_uri: Annotated[
        str | None, typer.Option(help="MLflow's URI, or a folder for an offline W&B run.")
    ] = None,
    project: Annotated[str, typer.Option(help="MLflow experiment or W&B project.")] = "palpate",
) -> None:
    """Write the summary's rows (parquet, csv, json), the checks (junit), or send the rows on."""
    from palpate.record import Record

    if (form is None) == (to is None):
        raise ConfigError("export: expected either --format or --to, got both or neither")
    record = Record.load(folder)
    if to is not None:
        from palpate.sinks import send

        console.say(send(record, to, project=project, where=tracking_uri))
    else:
        from palpate.report.export import export as exported

        console.say(str(exported(record, str(form), path=output)))

"""The verbs, thin: nothing heavy is imported until one of them works."""

import shlex
import sys
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import typer

from palpate import cli_data, cli_runs, cli_view, console
from palpate.console import INCOMPLETE, INTERRUPTED, OK, USAGE
from palpate.errors import PalpateError, UsageError

app = typer.Typer(
    help="Stress-test medical-imaging models, and say where they break and how sure that is.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

# typer has its own copy of click in newer versions; this is the base class in either
_CLICK_ERROR: Any = typer.BadParameter.__mro__[2]

Store = Annotated[Path | None, typer.Option(help="Run directory.")]
Limit = Annotated[int | None, typer.Option(help="Keep the first N samples.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
RunFolder = Annotated[Path, typer.Argument(help="Run directory.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="a.b=c, may repeat.")]


@app.command()
def demo(store: Store = None, limit: Limit = None) -> None:
    """Audit the bundled models on the bundled breast-ultrasound images."""
    audit = Path(str(resources.files("palpate") / "data" / "demo.yaml"))
    _run(audit, store or Path("runs/demo"), limit=limit, command="palpate demo")


@app.command()
def run(
    audit: Annotated[Path, typer.Argument(help="Audit file.")],
    store: Store = None,
    limit: Limit = None,
    set_: Set = None,
    engine: Annotated[str, typer.Option(help="local, ray or slurm.")] = "local",
    workers: Annotated[int, typer.Option(help="Cells that run at once.")] = 1,
    address: Annotated[str, typer.Option(help="Ray cluster: auto or HOST:PORT.")] = "",
    gpus: Annotated[float, typer.Option(help="Per worker, a fraction to share one.")] = 0.0,
    shards: Annotated[int, typer.Option(help="Parts of the samples per cell.")] = 1,
    option: Annotated[list[str] | None, typer.Option(help="Of the engine: a=b.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the cells and stop.")] = False,
    json: Json = False,
) -> None:
    """Run an audit file; goes on where an earlier run stopped."""
    from palpate.campaign.crew import Crew

    words = {"engine": engine, "workers": workers, "address": address}
    crew = Crew.parsed(option or (), gpus=gpus, shards=shards, **words)
    _run(
        audit,
        store or Path("runs") / audit.stem,
        limit=limit,
        overrides=tuple(set_ or ()),
        crew=crew,
        dry_run=dry_run,
        json=json,
        command=shlex.join(["palpate", *sys.argv[1:]]),
    )


@app.command()
def status(folder: RunFolder, json: Json = False) -> None:
    """Say how far a run is, also one that runs now or on another machine."""
    from dataclasses import asdict

    from palpate.campaign.standing import standing

    found = standing(folder)
    if json:
        console.json({**asdict(found), "error": len(found.failed)})
        return
    for line in found.lines():
        console.say(line)


@app.command()
def report(
    folder: RunFolder, output: Annotated[Path | None, typer.Option(help="HTML file.")] = None
) -> None:
    """Write the report again from the record; needs no model and no torch."""
    from palpate.record import Record
    from palpate.report.page import render

    console.say(str(render(Record.load(folder), output or folder / "report.html")))


@app.command("list")
def list_(
    family: Annotated[str, typer.Argument(help="One family, or all.")] = "", json: Json = False
) -> None:
    """List the components of a family, or of all."""
    from palpate import registry

    families = (family,) if family else registry.FAMILIES
    found = {name: registry.names(name) for name in families}
    if json:
        console.json(found)
        return
    for name, components in found.items():
        console.say(f"{name}: {', '.join(components) or 'none'}")


@app.command()
def show(name: Annotated[str, typer.Argument(help="Component.")]) -> None:
    """Show what a component does, its source and its parameters."""
    import inspect

    from palpate import registry
    from palpate.errors import UnknownComponent, nearest

    families = registry.families_of(name)
    if not families:
        known = [n for family in registry.FAMILIES for n in registry.names(family)]
        raise UnknownComponent(f"no component named {name!r}; {nearest(name, known)}")
    for family in families:
        cls = registry.load(family, name)
        module = inspect.getmodule(cls)
        version = f"@{cls.version}" if hasattr(cls, "version") else ""  # a metric has none
        console.say(f"{family}/{name}{version}\n\n{inspect.getdoc(module)}\n")
        console.say(f"{inspect.getdoc(cls)}\n\n{inspect.signature(cls)}")


@app.command()
def validate(audit: Annotated[Path, typer.Argument(help="Audit file.")]) -> None:
    """Check an audit file: names, keys, types and ranges; loads no data."""
    from palpate import config

    config.load(audit)
    console.say(f"{audit}: valid")


@app.command()
def doctor() -> None:
    """Say what this machine offers, and what is missing."""
    from palpate.doctor import findings

    for line in findings():
        console.say(line)


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="Recipe file.")],
    output: Annotated[Path | None, typer.Option(help="Folder of checkpoint and card.")] = None,
    set_: Set = None,
) -> None:
    """Train a network from a recipe; resumable, seeded, with a card beside the checkpoint."""
    from palpate.training.run import train_recipe

    overrides = tuple(set_ or ())
    made = train_recipe(recipe, folder=output, overrides=overrides, say=console.say)
    console.say(str(made))


for verb in (
    *(cli_runs.compare, cli_runs.check, cli_runs.export),
    *(cli_view.view, cli_view.bundle, cli_data.prompts),
):
    app.command()(verb)


def main() -> None:
    """Entry point: user errors are one line and exit 2, an interrupt is exit 130."""
    sys.exit(_guarded())


def _guarded() -> int:
    try:
        code = app(standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted()
    except _CLICK_ERROR as error:
        console.complain(f"error: {error.format_message()}")
        return USAGE
    except UsageError as error:
        console.complain(f"error: {' '.join(str(error).split())}")
        return USAGE
    except PalpateError as error:
        console.complain(f"defect in a component: {error}")
        return INCOMPLETE
    if code == INTERRUPTED:  # newer versions of typer catch the interrupt themselves
        return _interrupted()
    return code if isinstance(code, int) else OK


def _interrupted() -> int:
    console.complain("interrupted; run the same command again to go on")
    return INTERRUPTED


def _run(
    path: Path,
    store: Path,
    *,
    command: str,
    limit: int | None = None,
    overrides: tuple[str, ...] = (),
    crew: Any = None,
    dry_run: bool = False,
    json: bool = False,
) -> None:
    from palpate import config
    from palpate.campaign.plan import resolve

    base = path.parent.resolve()
    sys.path.insert(0, str(base))  # a user's own factory lies beside the audit file
    audit = resolve(config.load(path, overrides), base, limit)
    if dry_run:
        _dry(audit, json=json)
        return
    from palpate.campaign.drive import drive
    from palpate.report.page import render
    from palpate.report.tables import terminal_table
    from palpate.statistics.summary import summarise

    with console.progress(quiet=json) as watch:
        record = drive(audit, store, command=command, crew=crew, watch=watch)
    summary = summarise(record)
    page = render(record, store / "report.html")
    failed = [cell for cell in record.cells if cell.status != "ok"]
    if json:
        console.json({"report": str(page), "failed": len(failed), "summary": summary.to_dicts()})
    else:
        console.table(terminal_table(summary), title=audit.samples.label)
        console.say(f"report: {page}")
    if failed or record.missing:
        console.complain(f"incomplete: {len(failed)} failed, {len(record.missing)} missing cells")
        raise typer.Exit(INCOMPLETE)


def _dry(audit: Any, *, json: bool) -> None:
    from palpate.campaign.drive import estimate
    from palpate.campaign.plan import make_plan

    plan = make_plan(audit)
    seconds = estimate(audit, plan)
    if json:
        console.json([{"key": c.key, **c.entry, "seconds": seconds[c.key]} for c in plan.cells])
        return
    rows = [["cell", "target", "perturbation", "setting", "estimate"]]
    for cell in plan.cells:
        setting = ", ".join(f"{k}={v}" for k, v in cell.entry["setting"].items())
        entry = cell.entry
        words = [console.model(entry), entry["perturbation"], setting, f"{seconds[cell.key]:.1f} s"]
        rows.append([cell.key[:12], *words])
    console.table(rows, title=f"{len(plan.cells)} cells on {audit.samples.label}")
    for refused in plan.not_testable:
        console.say(
            f"not testable: {refused['target']} {refused['perturbation']}: {refused['reason']}"
        )
    console.say(f"about {sum(seconds.values()) / 60:.1f} minutes; {len(audit.samples)} samples")

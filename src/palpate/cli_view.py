"""Verbs that show a run: a page on this machine, or a folder to hand on. They need no torch."""

from pathlib import Path
from typing import Annotated

import typer

from palpate import console

RunFolder = Annotated[Path, typer.Argument(help="Run directory.")]


def view(
    folder: RunFolder,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 for any that is free.")
    ] = 0,
    show: Annotated[bool, typer.Option("--open/--no-open", help="Open a browser.")] = True,
) -> None:
    """Browse a run on a read-only local page, until it is interrupted."""
    import threading
    import webbrowser

    from palpate.view.server import make_server

    server, address = make_server(folder, port=port)
    console.say(f"{address}\nonly this machine can reach it; Ctrl-C ends it")
    if show:
        # some browsers run in the terminal and only return when they are closed
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
    try:
        server.serve_forever()
    finally:
        server.server_close()


def bundle(
    folder: RunFolder,
    output: Annotated[
        Path | None, typer.Option(help="Folder; `bundle` in the run by default.")
    ] = None,
) -> None:
    """Write the same page as a static folder that opens from the disk or any web server."""
    from palpate.view.bundle import write_bundle

    console.say(str(write_bundle(folder, output or folder / "bundle")))

"""Sphinx configuration: `make docs` builds this site without a warning."""

import sys
from pathlib import Path

from palpate import __version__

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

project = "Palpate"
author = "the authors of Palpate"
copyright = "2026, the authors of Palpate; Apache-2.0"
version = release = __version__

extensions = ["myst_parser", "components"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
nitpicky = True
exclude_patterns = ["_build", "_ext"]

html_theme = "furo"
html_title = f"Palpate {version}"
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"source_repository": "", "navigation_with_keys": True}


def setup(app):  # noqa: ANN001, ANN201 - Sphinx's own types are not worth an import
    """Show the page on scale, written beside the measurements, below the page on clusters."""
    tree = "\n```{toctree}\n:maxdepth: 1\n\n/scale\n```\n"

    def add(app, name, source):  # noqa: ANN001, ANN202, ARG001
        if name == "howto/cluster" and (HERE / "scale.md").exists():
            source[0] += f"\n## Scale\n{tree}"

    app.connect("source-read", add)

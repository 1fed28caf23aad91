"""From a template of this folder to one self-contained file: style inside, everything escaped."""

from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import orjson
from markupsafe import Markup

from palpate.record import write_atomic
from palpate.report import words


def write_page(path: Path, name: str, content: dict[str, Any]) -> Path:
    """Fill a template and write it.

    Args:
        path: of the HTML file.
        name: of the template.
        content: its values; the style sheet and the words for numbers are added.

    Returns:
        The path.

    Raises:
        StoreError: the file cannot be written.
    """
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_source),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = Markup(_source("style.css"))
    text = environment.get_template(name).render(_HELPERS | {"style": style} | content)
    write_atomic(path, text.encode())
    return path


def _source(name: str) -> str:
    return (files("palpate.report") / name).read_text(encoding="utf-8")


def _setting_words(text: str) -> str:
    return words.setting_words(orjson.loads(text))


_HELPERS = {
    "number": words.number,
    "interval": words.interval,
    "count": words.count,
    "plural": words.plural,
    "points": words.points,
    "spaced": words.spaced,
    "setting_words": _setting_words,
}

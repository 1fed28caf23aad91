"""The site builds without a warning, and its reference holds every component."""

import dataclasses
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal

import pytest

from palpate import registry

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
COMPONENTS = [(f, n) for f in registry.FAMILIES for n in registry.names(f) if "/" not in n]


def module(name):
    spec = importlib.util.spec_from_file_location(name, DOCS / "_ext" / f"{name}.py")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.fixture(scope="module")
def reference():
    return module("components")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built from the working tree as CI does."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-E"]
    folders = ["-d", str(out / "trees"), str(DOCS), str(out / "html")]
    built = subprocess.run([*command, *folders], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    assert built.stderr == ""
    return out / "html"


def test_the_site_builds_without_a_warning(site):
    assert (site / "index.html").exists()
    assert len(list(site.glob("reference/*.html"))) == len(registry.FAMILIES) + 1


def test_no_link_within_the_site_is_broken(site):
    pages = {path.resolve(): path.read_text(encoding="utf-8") for path in site.rglob("*.html")}
    names = {path: set(re.findall(r'id="([^"]+)"', text)) for path, text in pages.items()}
    broken = []
    for path, text in pages.items():
        for link in re.findall(r'href="([^"]+)"', text):
            if re.match(r"[a-z]+:|//", link):
                continue
            file, _, anchor = link.partition("#")
            wanted = (path.parent / file.partition("?")[0]).resolve() if file else path
            known = wanted.exists() and (not anchor or anchor in names.get(wanted, {anchor}))
            if not known:
                broken.append((path.name, link))
    assert broken == []


def test_nothing_is_fetched_from_elsewhere_but_what_a_reader_clicks(site):
    for path in site.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        for tag in re.findall(r"<(?:script|img|link|iframe)[^>]*>", text):
            assert not re.search(r'(?:src|href)="(?:https?:)?//', tag), (path.name, tag)


def test_every_study_and_how_to_is_in_the_menu(site):
    menu = (site / "index.html").read_text(encoding="utf-8")
    for source in [*DOCS.glob("studies/*.md"), *DOCS.glob("howto/*.md"), *DOCS.glob("*.md")]:
        page = source.relative_to(DOCS).with_suffix(".html").as_posix()
        assert page == "index.html" or f'href="{page}"' in menu, page


@pytest.mark.parametrize(("family", "name"), COMPONENTS)
def test_every_component_has_an_entry_with_all_its_fields(reference, family, name):
    text = reference.entry(family, name)
    cls = registry.load(family, name)

    assert text.startswith(f"({family}-{name.replace('_', '-')})=\n\n## {name}\n")
    for field in dataclasses.fields(cls):
        if field.init:
            row = next(r for r in text.splitlines() if r.startswith(f"| `{field.name}` |"))
            assert len(re.split(r"(?<!\\)\|", row)) == 6, row
            assert not row.endswith("|  |"), f"{family}/{name}: {field.name} has no meaning"


def test_the_index_lists_every_component(reference):
    text = reference.index()
    for family, name in COMPONENTS:
        assert f"[{name}](#{family}-{name.replace('_', '-')})" in text


def test_types_are_in_a_users_words(reference):
    cases = {
        "integer": int,
        "number or none": float | None,
        "`a` or `b`": Literal["a", "b"],
        "list of text": tuple[str, ...],
        "number": Annotated[float, "fraction"],
        "path": Path,
        "mapping": dict[str, int],
    }
    assert {text: reference.type_text(hint) for text, hint in cases.items()} == dict(
        zip(cases, cases, strict=True)
    )


def test_angle_brackets_are_text(reference):
    assert reference._escaped("a < b, `<flag>` and <x>") == "a &lt; b, `<flag>` and &lt;x>"


def test_pages_that_did_not_change_are_left_alone(reference, tmp_path):
    first = {path: path.stat().st_mtime_ns for path in reference.write(tmp_path / "reference")}
    assert {path: path.stat().st_mtime_ns for path in first} == first
    again = {path: path.stat().st_mtime_ns for path in reference.write(tmp_path / "reference")}
    assert again == first

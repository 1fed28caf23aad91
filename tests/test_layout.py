"""The rules of the house, as far as a machine can hold them."""

import ast
import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest

from palpate import registry

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "palpate"
FILES = sorted(SOURCE.rglob("*.py"))
# one word per idea: DESIGN section 5
AVOIDED = {"alpha", "n_iter", "num_steps", "max_iter", "eps", "lr", "gt", "net", "nb_iter"}
COMPONENTS = [(f, n) for f in registry.FAMILIES for n in registry.names(f)]


def tracked():
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [ROOT / name for name in listed.stdout.split("\0") if name]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_file_is_short_and_shallow(path):
    assert len(path.read_text().splitlines()) <= 300
    assert len(path.relative_to(SOURCE).parts) <= 2


def test_functions_are_short():
    long = {}
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                documented = ast.get_docstring(node) is not None
                first = node.body[1] if documented and len(node.body) > 1 else node.body[0]
                length = (node.end_lineno or 0) - first.lineno + 1
                if length > 45:
                    long[f"{path.name}:{node.name}"] = length

    assert long == {}


@pytest.mark.parametrize(("family", "name"), COMPONENTS)
def test_every_component_has_a_test_of_its_own(family, name):
    assert (ROOT / "tests" / family / f"test_{name}.py").is_file()


@pytest.mark.parametrize(("family", "name"), COMPONENTS)
def test_parameters_use_the_words_of_the_design(family, name):
    fields = {f.name for f in dataclasses.fields(registry.load(family, name))}

    assert not fields & AVOIDED


def test_no_name_is_in_two_families():
    """An audit file names a perturbation without its family."""
    found = [name for family in registry.PERTURBATIONS for name in registry.names(family)]

    assert len(found) == len(set(found))


def test_nothing_heavy_is_imported_by_listing_or_help():
    code = (
        "import sys, palpate, palpate.cli, palpate.config\n"
        "from palpate import registry\n"
        "[registry.names(f) for f in registry.FAMILIES]\n"
        "heavy = {'torch', 'numpy', 'timm', 'scipy', 'matplotlib', 'pyarrow'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )

    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_report_side_never_imports_torch():
    code = (
        "import sys\n"
        "import palpate.record, palpate.statistics.summary, palpate.report.page\n"
        "assert 'torch' not in sys.modules\n"
    )

    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_core_works_without_torchvision():
    code = (
        "import sys\n"
        "sys.modules['torchvision'] = None\n"
        "sys.modules['timm'] = None\n"
        "import palpate\n"
        "from palpate import registry\n"
        "assert palpate.wrap and palpate.audit\n"
        "for family in registry.FAMILIES:\n"
        "    for name in registry.names(family):\n"
        "        registry.load(family, name)\n"
    )

    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_lock_file_and_no_registry_host():
    hosts = ["py" + "pi.org", "python" + "hosted", "registry.np" + "mjs", "deb.debi" + "an.org"]
    locks = {"uv.lock", "poetry.lock", "pdm.lock", "pixi.lock", "package-lock.json"}
    for path in tracked():
        assert path.name not in locks
        if path.suffix in {".py", ".md", ".toml", ".txt", ".yaml", ".yml", ".html", ".css", ""}:
            text = path.read_text(errors="ignore")
            assert not any(host in text for host in hosts), path


def test_constraints_are_plain_pins():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]

    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", pin) for pin in pins)


def test_repository_is_small():
    assert sum(path.stat().st_size for path in tracked() if path.is_file()) < 60e6

"""Every block of the tutorial and of the how-to pages runs as it stands."""

import re
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest
import yaml

from palpate import cli, config, contracts, registry

DOCS = Path(__file__).parents[1] / "docs"
NETWORK = """
    import torch
    from torch import nn

    def make():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 2))
"""
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page):
    """Kind and text of every block of code."""
    return BLOCK.findall((DOCS / page).read_text(encoding="utf-8"))


@pytest.fixture
def shell(monkeypatch):
    """Run one line as a shell would, in this process."""

    def call(line):
        monkeypatch.setattr(sys, "argv", line.split())
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert end.value.code == 0, line

    return call


def follow(page, tmp_path, monkeypatch, shell):
    """Do what the page says, in its order, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "network.py").write_text(textwrap.dedent(NETWORK))
    names = {"__name__": "tutorial"}
    monkeypatch.setitem(sys.modules, "tutorial", type(sys)("tutorial"))
    done = []
    for kind, text in blocks(page):
        if kind == "python":
            exec(compile(text, page, "exec"), names)
            vars(sys.modules["tutorial"]).update(names)
        elif kind == "console":
            for line in text.splitlines():
                shell(line)
        elif kind == "yaml" and "schema_version" in text:
            (tmp_path / "audit.yaml").write_text(text)
        done.append(kind)
    return names, done


def test_the_tutorial_runs(tmp_path, monkeypatch, shell):
    names, done = follow("tutorial.md", tmp_path, monkeypatch, shell)

    assert done.count("python") >= 7
    assert done.count("console") == 2
    assert len(names["run"].record.cells) == 7
    assert (tmp_path / "runs" / "tutorial" / "report.html").exists()
    assert (tmp_path / "runs" / "mine" / "summary.csv").read_text().count("\n") > 10


@pytest.mark.parametrize("page", ["howto/model.md", "howto/data.md", "howto/attack.md"])
def test_the_how_to_pages_run(page, tmp_path, monkeypatch, shell):
    _, done = follow(page, tmp_path, monkeypatch, shell)

    assert "python" in done


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """The page's package, installed: its module and its entry point, as the page has them."""
    code = next(text for kind, text in blocks("howto/attack.md") if kind == "python")
    entry = next(text for kind, text in blocks("howto/attack.md") if kind == "toml")
    group, (name, place) = next(
        (group, next(iter(found.items())))
        for group, found in tomllib.loads(entry)["project"]["entry-points"].items()
    )
    package = tmp_path / "my_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "neighbour_fgsm.py").write_text(code)
    info = tmp_path / "my_package-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {place}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("PALPATE_NO_PLUGINS", raising=False)
    yield f"my-package/{name}"
    for loaded in [m for m in sys.modules if m.partition(".")[0] == "my_package"]:
        del sys.modules[loaded]


def test_the_attack_of_the_page_is_found_and_keeps_its_contracts(plugin):
    assert plugin == "my-package/neighbour_fgsm"
    assert plugin in registry.names("attacks")
    cls = registry.load("attacks", plugin)
    checks = contracts.of("attacks")
    assert len(checks) > 5
    for check in checks:
        check(contracts.light(cls()))


def test_an_audit_file_may_name_the_plug_in(plugin):
    (spec,) = [
        yaml.safe_load(text)["perturbations"][0]
        for kind, text in blocks("howto/attack.md")
        if kind == "yaml"
    ]
    assert spec["name"] == plugin
    assert [s["epsilon"] for s in config.sweep("attacks", spec)] == ["1/255", "4/255"]


@pytest.mark.parametrize("page", ["howto/model.md", "howto/data.md"])
def test_yaml_of_the_pages_names_what_exists(page):
    for kind, text in blocks(page):
        if kind != "yaml":
            continue
        data = yaml.safe_load(text)
        for spec in [data["dataset"]] if "dataset" in data else data["targets"]:
            family = "datasets" if "dataset" in data else "targets"
            parameters = {k: v for k, v in spec.items() if k not in ("name", "label")}
            assert registry.create(family, spec["name"], parameters)


def test_verbs_and_options_on_the_pages_exist():
    from typer.testing import CliRunner

    lines = [
        line.partition("#")[0].split()
        for page in sorted(DOCS.rglob("*.md"))
        if "studies" not in page.parts and "reference" not in page.parts
        for line in page.read_text(encoding="utf-8").splitlines()
        if line.startswith("palpate ")
    ]
    assert len(lines) > 10
    for words in lines:
        shown = CliRunner().invoke(cli.app, [words[1], "--help"], env={"COLUMNS": "200"}).output
        assert "Usage" in shown, words
        assert all(word in shown for word in words if word.startswith("--")), words

import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from palpate import doctor
from palpate.targets.clipseg import FILES, Clipseg

ROOT = Path(__file__).parents[1]


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty Hugging Face cache, laid out as that library lays it out."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(doctor.CLIPSEG_FOLDER, raising=False)
    folder = tmp_path / "cache" / "models--CIDAS--clipseg-rd64-refined"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    snapshot = folder / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    return snapshot


def clipseg():
    return [line for line in doctor.findings() if line.startswith(f"{Clipseg().hub} ")]


def test_every_file_that_the_real_clipseg_lacks_is_named(hub):
    lines = clipseg()

    assert len(lines) == len(FILES) == 4
    for name, line in zip(FILES, lines, strict=True):
        assert f" {name}: MISSING, neither in a folder named by PALPATE_CLIPSEG" in line


def test_files_in_the_cache_or_the_folder_are_found(hub, tmp_path, monkeypatch):
    (hub / "config.json").write_text("{}")
    own = tmp_path / "own"
    own.mkdir()
    (own / "vocab.json").write_text("{}")
    monkeypatch.setenv("PALPATE_CLIPSEG", str(own))
    found = dict(line.removeprefix(f"{Clipseg().hub} ").split(": ", 1) for line in clipseg())

    assert found["config.json"] == f"present, {hub / 'config.json'}"
    assert found["vocab.json"] == f"present, {own / 'vocab.json'}"
    assert found["merges.txt"].startswith(f"MISSING, neither in {own} nor in")
    assert found["model.safetensors"].startswith("MISSING")


def test_the_full_recipe_asks_for_the_same_model():
    for name in ("full.yaml", "full_study.yaml"):
        text = (ROOT / "recipes/vlsm_robustness" / name).read_text()
        assert Clipseg().hub in text


def test_each_library_of_each_extra_is_present_or_missing(monkeypatch):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    required = [f'{r}; extra == "{extra}"' for extra, rs in extras.items() for r in rs]
    monkeypatch.setattr(metadata, "requires", lambda name: ["torch>=2.6", *required])
    absent = "timm"
    version = metadata.version

    def known(package):
        if package == absent:
            raise metadata.PackageNotFoundError(package)
        return version(package)

    monkeypatch.setattr(metadata, "version", known)
    lines = list(doctor.findings())

    assert "timm (vision): missing, pip install 'palpate[vision]'" in lines
    assert f"torchvision (vision): {version('torchvision')}" in lines
    for extra in extras.keys() - {"dev", "docs"}:
        assert sum(f" ({extra}): " in line for line in lines) == len(extras[extra])
    assert not any("(dev)" in line or "(docs)" in line for line in lines)

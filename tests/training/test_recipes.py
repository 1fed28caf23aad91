"""recipes/mamba_reliability: every set of the study at both scales, every command of its README."""

import re
import shlex
from pathlib import Path

import numpy as np
import orjson
import pytest
import torch

from palpate import config
from palpate.errors import DataError
from palpate.training import load_recipe
from palpate.training.run import train_recipe

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "recipes/mamba_reliability"
SETS = orjson.loads((ROOT / "src/palpate/data/medmnist.json").read_bytes())["sets"]
PARTS = ("path", "derma", "oct", "pneumonia", "retina", "breast", "blood")
FLAGS = [f"{part}mnist" for part in (*PARTS, "organa", "organc", "organs")]
SIZES = {"small": 28, "full": 224, "small_resnet18": 28, "small_vit": 28}
README = (FOLDER / "README.md").read_text()
COMMANDS = [
    shlex.split(line.partition("#")[0])[2:]
    for line in README.splitlines()
    if line.startswith("palpate train ")
]


def settings(command):
    return tuple(command[i + 1] for i, word in enumerate(command) if word == "--set")


def file_of(flag, size):
    return f"{flag}.npz" if size == 28 else f"{flag}_{size}.npz"


def write(folder, flag, *, size, train=4):
    """A made-up file with a set's classes, channels and name."""
    facts = SETS[flag]
    shape = (size, size) if facts["channels"] == 1 else (size, size, 3)
    rng = np.random.default_rng(0)
    content = {}
    for split, count in (("train", train), ("val", 2), ("test", len(facts["classes"]))):
        content[f"{split}_images"] = rng.integers(0, 256, (count, *shape), dtype=np.uint8)
        content[f"{split}_labels"] = np.arange(count)[:, None] % len(facts["classes"])
    np.savez(folder / file_of(flag, size), **content)


@pytest.fixture
def no_download(tmp_path, monkeypatch):
    """A home, a shared folder and a network that have nothing."""
    import medmnist

    def refuse(*args, **kwargs):
        raise RuntimeError("no network")

    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PALPATE_DATA", str(tmp_path))
    for flag in FLAGS:
        monkeypatch.setattr(medmnist, medmnist.INFO[flag]["python_class"], refuse)


def test_the_ten_sets_are_those_of_the_study():
    assert len(FLAGS) == 10
    assert set(SETS) - set(FLAGS) == {"chestmnist", "tissuemnist"}


@pytest.mark.parametrize("scale", SIZES)
@pytest.mark.parametrize("flag", FLAGS)
def test_every_set_has_a_recipe_at_every_scale(scale, flag):
    if scale not in ("small", "full"):
        pytest.importorskip("timm")
    recipe = load_recipe(FOLDER / f"{scale}.yaml", (f"dataset.flag={flag}",))
    dataset = config.build("datasets", {**recipe.dataset, "split": "train"})
    assert (dataset.flag, dataset.size) == (flag, SIZES[scale])
    assert str(SIZES[scale]) in SETS[flag]["md5"]
    facts = SETS[flag]
    with torch.device("meta"):
        model = config.build("targets", recipe.target).build(
            classes=len(facts["classes"]), channels=facts["channels"]
        )
    *_, bias = model.parameters()
    assert bias.shape == (len(facts["classes"]),)


@pytest.mark.parametrize("flag", FLAGS)
def test_the_small_recipe_trains_on_every_set(tmp_path, no_download, flag):
    write(tmp_path, flag, size=28)

    made = train_recipe(
        FOLDER / "small.yaml",
        folder=tmp_path / "out",
        overrides=(f"dataset.flag={flag}", "epochs=1"),
        say=print,
    )

    assert made.name == f"medmamba_nano_{flag}_28.safetensors"
    card = orjson.loads(made.with_suffix(".json").read_bytes())
    assert card["classes"] == SETS[flag]["classes"]


def test_the_full_recipe_trains_at_224_pixels(tmp_path, no_download):
    write(tmp_path, "bloodmnist", size=224, train=2)

    made = train_recipe(
        FOLDER / "full.yaml",
        folder=tmp_path / "out",
        overrides=("dataset.flag=bloodmnist", "epochs=1", "device=cpu"),
        say=print,
    )

    assert made.name == "medmamba_tiny_bloodmnist_224.safetensors"
    card = orjson.loads(made.with_suffix(".json").read_bytes())
    assert card["input"]["shape"] == [3, 224, 224]


@pytest.mark.parametrize("flag", FLAGS)
def test_an_absent_file_is_named(no_download, flag):
    settings = (f"dataset.flag={flag}", "device=cpu")

    with pytest.raises(DataError, match=rf"expected {flag}_224\.npz in .*or give its folder"):
        train_recipe(FOLDER / "full.yaml", overrides=settings, say=print)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_of_the_readme_builds(command):
    recipe = load_recipe(ROOT / command[0], settings(command))
    if recipe.target["name"] == "timm":
        pytest.importorskip("timm")
    with torch.device("meta"):
        model = config.build("targets", recipe.target).build(classes=5, channels=3)
        side = recipe.dataset.get("size") or (28 if "28" in recipe.dataset["path"] else 64)
        if recipe.target["name"] == "timm":  # a scan has no meta kernel
            assert model.eval()(torch.empty(2, 3, side, side)).shape == (2, 5)
    config.build("datasets", {**recipe.dataset, "split": "val"})


def test_the_readme_names_the_baselines_at_full_scale():
    models = {
        load_recipe(ROOT / command[0], settings(command)).target.get("model")
        for command in COMMANDS
        if command[0].endswith("full.yaml")
    }
    assert {"resnet18", "resnet50", "convnext_tiny"} <= models
    assert {"vit_tiny_patch16_224", "vit_small_patch16_224"} <= models


def test_the_table_of_the_readme_is_that_of_the_cards():
    def ends(card, metric):
        low, high = card["intervals"]["test"][metric]
        return f"{card['clean']['test'][metric]:.3f} ({low:.3f} to {high:.3f})"

    for path in sorted((FOLDER / "weights").glob("*.json")):
        card = orjson.loads(path.read_bytes())
        parts = (f"{card['parameters']:,}", ends(card, "accuracy"), ends(card, "auc"))
        row = rf"\| `{path.stem}` \| " + r" \| ".join(map(re.escape, parts)) + r" \|"
        assert re.search(row, README), f"{path.stem}: {parts}"

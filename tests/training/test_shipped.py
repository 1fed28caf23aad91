"""The checkpoints of this repository are what their cards and recipes say."""

import os
import re
import shlex
from pathlib import Path

import orjson
import pytest
import torch
from safetensors.torch import load_file

from palpate import config
from palpate.errors import DataError
from palpate.training import Examples, load_recipe
from palpate.training.card import data_digest, tensors_digest
from palpate.training.intervals import intervals
from palpate.training.recipe import parse_recipe
from palpate.training.scores import predict, scores

ROOT = Path(__file__).parents[2]
DATA, STUDY = ROOT / "src/palpate/data", ROOT / "recipes/mamba_reliability"
SPLITS = {"train": "train", "validation": "val", "test": "test"}
CARDS = [*DATA.glob("*_breastmnist.json"), *(STUDY / "weights").glob("*.json")]
SHIPPED = pytest.mark.parametrize("path", sorted(CARDS), ids=lambda path: path.stem)


def read(path):
    card = orjson.loads(path.read_bytes())
    return card, parse_recipe(card["recipe"])


def network(recipe, card):
    if recipe.target["name"] == "timm":
        pytest.importorskip("timm")
    with torch.random.fork_rng():
        return config.build("targets", recipe.target).build(
            classes=len(card["classes"]), channels=card["input"]["shape"][0]
        )


def loaded(recipe):
    """The recipe's splits, or a skipped test where a set that is not bundled is not there."""
    try:
        samples = {
            name: config.build("datasets", {**recipe.dataset, "split": split}).load()
            for name, split in SPLITS.items()
        }
    except DataError:
        if "PALPATE_DATA" in os.environ or recipe.dataset["name"] == "medmnist":
            raise
        pytest.skip("PALPATE_DATA is not set")
    examples = {
        name: Examples(torch.from_numpy(s.read(range(len(s)))), torch.from_numpy(s.references))
        for name, s in samples.items()
    }
    return examples, {name: s.cases for name, s in samples.items()}


def test_what_is_shipped():
    names = {path.stem for path in CARDS}
    assert {f"{kind}_breastmnist" for kind in ("medmamba_nano", "resnet18", "vit")} <= names
    assert {f"medmamba_nano_{name}" for name in ("busi_cls64", "isic2017_28", "mednist64")} <= names
    assert {f"{kind}_isic2017_28" for kind in ("medmamba_nano", "resnet18", "vit")} <= names
    sizes = [path.with_suffix(".safetensors").stat().st_size for path in CARDS]
    assert max(sizes) < 3e6


@SHIPPED
def test_recipe_is_a_command_of_the_repository(path):
    card, recipe = read(path)
    assert card["name"] == recipe.output == path.stem
    if path.parent == DATA:
        known = [load_recipe(p) for p in (ROOT / "recipes/breastmnist").glob("*.yaml")]
    else:
        lines = re.findall(r"^palpate train (.*)$", (STUDY / "README.md").read_text(), re.MULTILINE)
        commands = [shlex.split(line, comments=True) for line in lines]
        known = [
            load_recipe(ROOT / c[0], tuple(c[i + 1] for i, w in enumerate(c) if w == "--set"))
            for c in commands
        ]
        recipe = recipe.model_copy(update={"output": ""})
    assert recipe in known


@SHIPPED
def test_checkpoint_is_that_of_its_card(path):
    card, recipe = read(path)
    state = load_file(path.with_suffix(".safetensors"))
    assert card["state_digest"] == tensors_digest(state)
    model = network(recipe, card)
    model.load_state_dict(state, strict=True)
    assert card["parameters"] == sum(p.numel() for p in model.parameters())


@SHIPPED
def test_scores_are_those_of_its_card(path):
    card, recipe = read(path)
    examples, cases = loaded(recipe)
    assert card["data"]["digest"] == data_digest(examples)
    model = network(recipe, card)
    model.load_state_dict(load_file(path.with_suffix(".safetensors")))
    mean, std = card["input"]["mean"], card["input"]["std"]
    for split in ("validation", "test"):
        images, labels = examples[split].images, examples[split].labels
        logits = predict(model, images, mean=mean, std=std)
        found = scores(logits, labels)
        # Rounding of another machine may move one image across the border.
        assert found["accuracy"] == pytest.approx(card["clean"][split]["accuracy"], abs=0.014)
        assert found["auc"] == pytest.approx(card["clean"][split]["auc"], abs=1e-3)
        classes = tuple(card["classes"])
        ends = intervals(logits, labels, classes=classes, cases=cases[split])
        for name, pair in card["intervals"][split].items():
            assert ends[name] == pytest.approx(pair, abs=0.015)


@pytest.mark.parametrize("name", ["medmamba_nano", "resnet18"])
def test_the_networks_of_the_demo_are_good(name):
    card, _ = read(DATA / f"{name}_breastmnist.json")
    assert card["clean"]["test"]["accuracy"] >= 0.83
    assert card["clean"]["test"]["auc"] >= 0.85

"""recipes/unet_susceptibility/small: the checkpoints are what their cards and the README say."""

import os
import re
from pathlib import Path

import orjson
import pytest
import torch
from safetensors.torch import load_file

from palpate import config
from palpate.training import Examples, load_recipe
from palpate.training.card import data_digest, tensors_digest
from palpate.training.masks import mask_estimates, mask_scores
from palpate.training.recipe import parse_recipe
from palpate.training.scores import predict
from palpate.types import Segmentation

FOLDER = Path(__file__).parents[2] / "recipes/unet_susceptibility/small"
README = (FOLDER / "README.md").read_text()
SHIPPED = pytest.mark.parametrize(
    "path", sorted((FOLDER / "weights").glob("*.json")), ids=lambda path: path.stem
)
SPLITS = {"train": "train", "validation": "val", "test": "test"}
COLUMNS = ("dice", "dice_where_any", "iou", "hd95", "surface_distance", "lesion_sensitivity")
SHAREABLE = {"busi_seg", "isic2017_seg"}  # CC BY 4.0 and CC0 1.0; the other sets must not ship


def read(path):
    card = orjson.loads(path.read_bytes())
    return card, parse_recipe(card["recipe"])


def network(recipe, card):
    pytest.importorskip("segmentation_models_pytorch")
    source = config.build("targets", recipe.target)
    planes = source.outputs(Segmentation(tuple(card["classes"])))
    with torch.random.fork_rng():
        return source.build(classes=planes, channels=card["input"]["shape"][0])


def test_every_recipe_has_a_checkpoint_that_is_small():
    audits = {"study", "defences", "training"}
    names = {path.stem for path in FOLDER.glob("*.yaml")} - audits
    weights = list((FOLDER / "weights").glob("*.safetensors"))

    assert names == {path.stem for path in weights}
    assert max(path.stat().st_size for path in weights) < 8e6
    assert all(f"palpate train recipes/unet_susceptibility/small/{n}.yaml" in README for n in names)


@SHIPPED
def test_recipe_is_that_of_the_repository(path):
    card, recipe = read(path)

    assert recipe == load_recipe(FOLDER / f"{path.stem}.yaml")
    assert card["name"] == recipe.output == path.stem
    assert recipe.dataset["path"] in SHAREABLE


@SHIPPED
def test_checkpoint_is_that_of_its_card(path):
    card, recipe = read(path)
    state = load_file(path.with_suffix(".safetensors"))
    model = network(recipe, card)

    model.load_state_dict(state, strict=True)
    assert card["state_digest"] == tensors_digest(state)
    assert card["parameters"] == sum(p.numel() for p in model.parameters())
    row = card["curve"][card["kept_epoch"] - 1]
    assert row["validation_dice"] == max(r["validation_dice"] for r in card["curve"])


@SHIPPED
@pytest.mark.skipif("PALPATE_DATA" not in os.environ, reason="PALPATE_DATA is not set")
def test_scores_are_those_of_its_card(path):
    card, recipe = read(path)
    splits, cases = {}, {}
    for name, split in SPLITS.items():
        samples = config.build("datasets", {**recipe.dataset, "split": split}).load()
        every = list(range(len(samples)))
        masks = torch.from_numpy(samples.references[every])
        splits[name] = Examples(torch.from_numpy(samples.read(every)), masks)
        cases[name] = samples.cases
    assert card["data"]["digest"] == data_digest(splits)
    model = network(recipe, card)
    model.load_state_dict(load_file(path.with_suffix(".safetensors")))
    for name in ("validation", "test"):
        images, masks, *_ = splits[name]
        logits = predict(model, images, mean=card["input"]["mean"], std=card["input"]["std"])
        assert mask_scores(logits, masks)["dice"] == pytest.approx(
            card["clean"][name]["dice"], abs=1e-3
        )
        ends = mask_estimates(logits, masks, classes=tuple(card["classes"]), cases=cases[name])
        for metric in COLUMNS:
            value, low, high = ends[metric]
            given = (card["clean"][name][metric], *card["intervals"][name][metric])
            assert (value, low, high) == pytest.approx(given, rel=0.02, abs=0.005)


@SHIPPED
def test_the_table_of_the_readme_is_that_of_its_card(path):
    card, _ = read(path)

    def shown(metric):
        low, high = card["intervals"]["test"][metric]
        digits = 1 if metric == "hd95" else 3
        value = card["clean"]["test"][metric]
        return f"{value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"

    row = " | ".join([f"| `{path.stem}`", *map(shown, COLUMNS)]) + " |"
    assert re.search(re.escape(row), README), row

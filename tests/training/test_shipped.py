"""The checkpoints in the package are what their cards and recipes say."""

from pathlib import Path

import numpy as np
import orjson
import pytest
import torch
from safetensors.torch import load_file

from palpate import config
from palpate.training import Examples, load_recipe
from palpate.training.card import data_digest, tensors_digest
from palpate.training.recipe import parse_recipe
from palpate.training.scores import predict, scores

ROOT = Path(__file__).parents[2]
DATA, RECIPES = ROOT / "src/palpate/data", ROOT / "recipes/breastmnist"
KEYS = {"train": "train", "validation": "val", "test": "test"}


@pytest.fixture(scope="module")
def splits():
    with np.load(DATA / "breastmnist.npz") as arrays:
        return {
            name: Examples(
                torch.from_numpy(arrays[f"{key}_images"][:, None]),
                torch.from_numpy(arrays[f"{key}_labels"].ravel().astype(np.int64)),
            )
            for name, key in KEYS.items()
        }


@pytest.mark.parametrize("name", ["medmamba_nano", "resnet18"])
def test_checkpoint_card_and_recipe_agree(name, splits):
    if name == "resnet18":
        pytest.importorskip("timm")
    recipe = load_recipe(RECIPES / f"{name}.yaml")
    card = orjson.loads((DATA / f"{recipe.output}.json").read_bytes())
    state = load_file(DATA / f"{recipe.output}.safetensors")
    assert parse_recipe(card["recipe"]) == recipe
    assert card["state_digest"] == tensors_digest(state)
    assert card["data"]["digest"] == data_digest(splits)
    with torch.random.fork_rng():
        model = config.build("targets", recipe.target).build(classes=2, channels=1)
    model.load_state_dict(state, strict=True)
    for split in ("validation", "test"):
        images, labels = splits[split]
        found = scores(predict(model, images, mean=(0.5,), std=(0.5,)), labels)
        # Rounding of another machine may move one image across the border.
        assert found["accuracy"] == pytest.approx(card["clean"][split]["accuracy"], abs=0.014)
        assert found["auc"] == pytest.approx(card["clean"][split]["auc"], abs=1e-3)
    assert card["clean"]["test"]["accuracy"] >= 0.83
    assert card["clean"]["test"]["auc"] >= 0.85

"""The whole of `palpate train`, on real data."""

import json

import pytest

from palpate import cli
from palpate.errors import ConfigError
from palpate.training.run import train_recipe

RECIPE = """
schema_version: 1
dataset: {name: medmnist, flag: breastmnist}
target: {name: timm, model: resnet18, small_stem: true, arguments: {channels: [8, 8, 8, 8]}}
output: tiny
epochs: 1
batch_size: 128
"""


def test_a_recipe_becomes_a_checkpoint_that_an_audit_loads(tmp_path):
    from palpate import registry

    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE)
    lines = []

    checkpoint = train_recipe(recipe, folder=tmp_path / "out", say=lines.append)

    assert checkpoint == tmp_path / "out" / "tiny.safetensors"
    assert lines[0].startswith("epoch 1/1  ")
    card = json.loads(checkpoint.with_suffix(".json").read_text())
    assert card["clean"]["test"]["n"] == 156
    samples = registry.create("datasets", "medmnist", {}).load()
    spec = {"small_stem": True, "arguments": {"channels": [8, 8, 8, 8]}, "weights": str(checkpoint)}
    target = registry.create("targets", "timm", spec).load(
        task=samples.task, channels=1, bounds=samples.bounds
    )
    batch = samples.batch(range(156))
    right = (target.predict(batch).decisions == batch.references).float().mean()
    assert float(right) == pytest.approx(card["clean"]["test"]["accuracy"], abs=1e-6)


def test_settings_reach_the_recipe_and_an_unnamed_output_is_named_after_them(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.replace("output: tiny\n", ""))
    narrow = (
        "target={name: timm, model: resnet18, arguments: {channels: [2, 2, 2, 2]}, label: Slim 2}"
    )

    checkpoint = train_recipe(recipe, overrides=(narrow, "seed=3"), say=print)

    assert checkpoint.name == "slim_2_breastmnist_28.safetensors"
    card = json.loads(checkpoint.with_suffix(".json").read_text())
    assert card["seed"] == 3
    assert card["name"] == card["recipe"]["output"] == "slim_2_breastmnist_28"


def test_the_command_line_passes_settings_on(tmp_path, monkeypatch, capsys):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE)
    words = ["train", str(recipe), "--set", "seed=1", "--set", "epochs=0"]
    monkeypatch.setattr("sys.argv", ["palpate", *words])

    with pytest.raises(SystemExit) as end:
        cli.main()

    assert end.value.code == 2
    assert (
        "recipe.yaml: epochs: Input should be greater than or equal to 1" in capsys.readouterr()[1]
    )


def test_a_place_that_a_recipe_lacks_is_named(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE)

    with pytest.raises(ConfigError, match=r"--set: no such place 'data\.flag' in recipe\.yaml"):
        train_recipe(recipe, overrides=("data.flag=bloodmnist",), say=print)


def test_mistakes_in_a_recipe_are_named(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.replace("epochs: 1", "epochs: 0"))

    with pytest.raises(ConfigError, match="epochs: .*got 0"):
        train_recipe(recipe, say=print)

"""The whole of `palpate train`, on real data."""

import json

import pytest
import torch
from safetensors.torch import load_file

from palpate import cli
from palpate.errors import CheckpointError, ConfigError
from palpate.training.card import tensors_digest
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


def start_from(folder, *, rate=1e-12, **start):
    """A second recipe that begins with what the first one made, by default without learning."""
    given = json.dumps({"weights": "out/tiny.safetensors", **start})
    (folder / "second.yaml").write_text(
        RECIPE.replace("tiny", "second") + f"start: {given}\nlearning_rate: {rate:e}\n"
    )
    return train_recipe(folder / "second.yaml", say=print)


def test_a_recipe_may_begin_with_part_of_the_weights_of_another(tmp_path):
    (tmp_path / "first.yaml").write_text(RECIPE)
    first = load_file(train_recipe(tmp_path / "first.yaml", folder=tmp_path / "out", say=print))

    made = start_from(tmp_path, part="layer1.")
    second, card = load_file(made), json.loads(made.with_suffix(".json").read_text())
    weights = {n for n in first if n.endswith("conv1.weight")}
    kept = {n for n in weights if torch.allclose(first[n], second[n], atol=1e-6)}
    assert kept == {n for n in weights if n.startswith("layer1.")} != set()
    part = {n: t for n, t in first.items() if n.startswith("layer1.")}
    assert card["start_digest"] == tensors_digest(part)

    made = start_from(tmp_path, rate=0.1, part="layer1.", frozen=True)
    third = load_file(made)
    assert all(torch.equal(third[n], first[n]) for n in kept)
    assert all(not torch.allclose(third[n], second[n], atol=1e-3) for n in weights - kept)

    with pytest.raises(ConfigError, match="start: expected tensors that begin with 'stage'"):
        start_from(tmp_path, part="stage")
    with pytest.raises(CheckpointError, match="expected weights at .*nothing.safetensors"):
        start_from(tmp_path, weights="nothing.safetensors")
    torch.save({"layer1.unknown": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="start does not fit the model: 1 unknown"):
        start_from(tmp_path, weights="other.pt")


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

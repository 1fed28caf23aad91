"""recipes/unet_susceptibility: both audits and every command of its README."""

import re
import shlex
from pathlib import Path

import orjson
import pytest

from palpate import config
from palpate.training import load_recipe

FOLDER = Path(__file__).parents[2] / "recipes/unet_susceptibility"
SMALL = FOLDER / "small"
README = (FOLDER / "README.md").read_text()
COMMANDS = [
    shlex.split(line)[2:] for line in README.splitlines() if line.startswith("palpate train ")
]
EPSILONS = [0.003, 0.007, 0.009, 0.02, 0.03]


def settings(command):
    return tuple(command[i + 1] for i, word in enumerate(command) if word == "--set")


def attacks(audit, name):
    return [spec for spec in audit.perturbations if spec["name"] == name]


def listed(value):
    return list(value) if isinstance(value, list | tuple) else [value]


@pytest.mark.parametrize("path", [SMALL / "study.yaml", FOLDER / "full_study.yaml"])
def test_the_audits_ask_in_both_orders_and_both_ways(path):
    audit = config.load(path)

    losses = {"dice_ce", "bce", "dice_focal"}
    for swap, update in ((True, "blend"), (False, "add")):
        asked = {
            (loss, epsilon)
            for spec in attacks(audit, "fgsm")
            for loss in spec["loss"]
            for epsilon in listed(spec["epsilon"])
            if swap in listed(spec.get("swap_arguments", False))
            and update in listed(spec.get("update", "add"))
        }
        assert asked == {(loss, epsilon) for loss in losses for epsilon in EPSILONS}
    for name in ("pgd", "sea"):
        (spec,) = attacks(audit, name)
        assert set(spec["epsilon"]) <= set(EPSILONS)
    for spec in (*audit.targets, audit.dataset):
        config.build("datasets" if spec is audit.dataset else "targets", spec)


def test_the_small_audit_has_the_networks_of_its_recipes():
    for spec in config.load(SMALL / "study.yaml").targets:
        path = SMALL / spec["weights"]
        card = orjson.loads(path.with_suffix(".json").read_bytes())
        asked = {k: v for k, v in spec.items() if k != "weights"}

        assert path.is_file()
        assert asked == card["recipe"]["target"]
        assert card["recipe"]["loss"] == "dice_ce"


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: settings(c)[-1:] or "plain")
def test_commands_of_the_readme_make_the_networks_of_the_full_audit(command):
    recipe = load_recipe(FOLDER.parents[1] / command[0], settings(command))
    targets = {
        Path(spec["weights"]).stem: spec for spec in config.load(FOLDER / "full_study.yaml").targets
    }

    audited = targets[recipe.output]
    for key in ("name", "architecture", "encoder", "label"):
        assert audited[key] == recipe.target[key]
    assert (recipe.dataset["size"], recipe.epochs, recipe.batch_size) == (224, 15, 64)
    assert (recipe.learning_rate, recipe.weight_decay) == (3e-4, 1e-3)
    assert recipe.device == "cuda"


def test_every_network_of_the_full_audit_has_a_command():
    assert len(COMMANDS) == len(config.load(FOLDER / "full_study.yaml").targets) == 4


def test_the_readme_names_files_that_exist():
    for name in re.findall(r"`([\w/]+\.(?:yaml|md))`", README):
        assert (FOLDER / name).is_file() or (FOLDER.parents[1] / name).is_file(), name

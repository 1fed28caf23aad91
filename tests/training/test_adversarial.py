"""Adversarial training on small made-up sets: it makes robust, and leaves all else as it was."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from palpate.errors import ConfigError
from palpate.seeds import Seeds
from palpate.training import Examples, fit, load_recipe
from palpate.training.adversarial import Adversarial, harden, robust_score
from palpate.training.card import tensors_digest
from palpate.training.recipe import parse_recipe

NORM = {"mean": (0.5,), "std": (0.5,)}
ATTACK = {"name": "pgd", "epsilon": "16/255", "steps": 3}
SEEDS = Seeds(0, "test")


def examples(count, seed):
    """The class in the wide middle, faintly in one pixel: only the first survives an attack."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 2, (count,), generator=generator)
    images = torch.randint(110, 140, (count, 1, 8, 8), generator=generator)
    sign = (labels * 2 - 1).view(-1, 1, 1)
    images[:, 0, 2:6, 2:6] += sign * 25
    images[:, 0, 0, ::2] += sign[:, 0] * 8
    return Examples(images.to(torch.uint8), labels)


def masks(count, seed, planes=0):
    found = examples(count, seed)
    drawn = torch.zeros(count, 8, 8, dtype=torch.uint8)
    drawn[:, 2:6, 2:6] = found.labels.view(-1, 1, 1).to(torch.uint8)
    if planes:
        drawn = drawn.unsqueeze(1).repeat(1, planes, 1, 1)
    return Examples(found.images, drawn)


class Asked(nn.Module):
    """A mask whose sign the question sets."""

    def __init__(self):
        super().__init__()
        self.look = nn.Conv2d(1, 1, 3, padding=1)
        self.word = nn.Embedding(2, 1)

    def forward(self, images, tokens):
        return self.look(images) * self.word(tokens[:, 0]).view(-1, 1, 1, 1)


def classifier():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2))


def recipe(**changes):
    data = {
        "dataset": {"name": "squares"},
        "target": {"name": "small"},
        "epochs": 6,
        "batch_size": 32,
        "learning_rate": 1e-2,
        "select_by": "last",
    }
    return parse_recipe(data | changes)


def fitted(settings, **options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = classifier()
    found = fit(
        model, settings, train=examples(96, 1), validation=examples(64, 2), **NORM, **options
    )
    model.load_state_dict(found.state)
    return model.eval(), found


def test_it_makes_robust_where_plain_training_does_not():
    plain, _ = fitted(recipe())
    robust, found = fitted(recipe(adversarial={"attack": ATTACK}))
    strong = Adversarial(attack={"name": "pgd", "epsilon": "16/255", "steps": 20, "restarts": 2})

    def left(model):
        return robust_score(model, examples(64, 3), strong, **NORM, seeds=SEEDS)

    assert left(robust) > left(plain) + 0.2
    assert left(robust) > 0.8
    assert found.curve[-1]["validation_accuracy"] > 0.9
    assert found.curve[-1]["validation_robust"] > 0.8


def test_same_seed_same_weights_and_a_resumed_run_is_the_same(tmp_path):
    settings = recipe(adversarial={"attack": ATTACK, "share": 0.5}, epochs=3)
    _, whole = fitted(settings)

    def stop(epoch, row):
        if epoch == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fitted(settings, state_file=tmp_path / "state.pt", progress=stop)
    _, parts = fitted(settings, state_file=tmp_path / "state.pt")

    assert tensors_digest(whole.state) == tensors_digest(parts.state)
    assert whole.curve == parts.curve


def test_the_share_is_attacked_within_the_budget_and_the_model_left_alone():
    model = classifier().train()
    before = copy.deepcopy(model.state_dict())
    given = examples(10, 4)
    batch = (given.images / 255, given.labels, None)
    how = Adversarial(attack=ATTACK, share=0.4)

    found = harden(model, batch, how, **NORM, seeds=SEEDS)

    moved = (found - batch[0]).abs().flatten(1).amax(dim=1)
    assert (moved[:4] > 0).all()
    assert moved.max() <= 16 / 255 + 1e-6
    assert (moved[4:] == 0).all()
    assert model.training
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    ("network", "given"),
    [
        (lambda: nn.Conv2d(1, 1, 3, padding=1), masks(32, 5)),
        (lambda: nn.Conv2d(1, 2, 3, padding=1), masks(32, 5)),
        (lambda: nn.Conv2d(1, 2, 3, padding=1), masks(32, 5, planes=2)),
        (Asked, Examples(*masks(32, 5, planes=1)[:2], torch.ones(32, 2, 1, dtype=torch.int64))),
    ],
    ids=["one plane", "label map", "planes", "asked"],
)
def test_masks_lose_dice_to_the_attack_in_the_loop(network, given):
    torch.manual_seed(0)
    settings = recipe(adversarial={"attack": ATTACK}, loss="dice_ce", select_by="robust", epochs=2)
    model = network()

    found = fit(model, settings, train=given, validation=given, **NORM)

    for row in found.curve:
        assert 0 <= row["validation_robust"] <= row["validation_dice"] + 1e-6
    best = max(row["validation_robust"] for row in found.curve)
    assert found.curve[found.epoch - 1]["validation_robust"] == best


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"attack": {"name": "pdg"}}, "did you mean 'pgd'"),
        ({"attack": {"epsilon": 1}}, "expected a 'name'"),
        ({"attack": {"name": "pgd", "steps": 0}}, "steps"),
        ({"attack": ATTACK, "share": 0}, "share"),
    ],
)
def test_an_attack_that_does_not_exist_is_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        recipe(adversarial=wrong)


def test_robust_selection_needs_an_attack():
    with pytest.raises(ConfigError, match="no validation robust"):
        fitted(recipe(select_by="robust", epochs=2))


@pytest.mark.parametrize("name", ["resnet18_adversarial", "resnet18_corruptions"])
def test_the_recipe_shown_is_valid(name):
    folder = Path(__file__).parents[2] / "recipes" / "breastmnist"

    found = load_recipe(folder / f"{name}.yaml")

    assert (found.adversarial is not None) == (name == "resnet18_adversarial")
    assert any(c.name == "corrupt" for c in found.augmentation) == (name == "resnet18_corruptions")

"""Training on masks: loss against monai, masks that move with their images, a whole small run."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from palpate import registry
from palpate.errors import ConfigError, DataError
from palpate.training import Examples, fit
from palpate.training.augment import augmented
from palpate.training.masks import MaskLoss, answered, mask_estimates, mask_scores
from palpate.training.recipe import parse_recipe
from palpate.training.run import train_recipe

NORM = {"mean": (0.5,), "std": (0.5,)}
RECIPE = """
schema_version: 1
dataset: {name: segmentation_folder, path: FOLDER, size: 32}
target:
  name: smp
  encoder: tu-resnet10t
  arguments: {encoder_depth: 3, decoder_channels: [8, 8, 8]}
output: tiny
epochs: 2
batch_size: 4
loss: dice_ce
select_by: dice
storage: float16
augmentation: [{name: flip}, {name: affine}, {name: intensity}, {name: noise}]
ema: 0.5
"""


def recipe(**changes):
    data = {
        "dataset": {"name": "x"},
        "target": {"name": "y"},
        "epochs": 3,
        "batch_size": 8,
        "learning_rate": 1e-2,
        "loss": "dice_ce",
        "select_by": "dice",
        "augmentation": [{"name": n} for n in ("flip", "affine", "intensity", "noise", "erase")],
    }
    return parse_recipe(data | changes)


def discs(count=24, seed=0, side=16):
    """Bright discs on noise, and where they are."""
    rng = np.random.default_rng(seed)
    rows, columns = np.ogrid[:side, :side]
    centres = rng.integers(4, side - 4, (count, 2))
    masks = np.stack([(rows - r) ** 2 + (columns - c) ** 2 <= 9 for r, c in centres])
    images = rng.integers(0, 80, (count, 1, side, side)) + 150 * masks[:, None]
    return Examples(
        torch.from_numpy(images.astype(np.uint8)), torch.from_numpy(masks.astype(np.uint8))
    )


def network(planes=1):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, planes, 3, padding=1)
        )


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", ["one plane", "softmax", "sigmoid"])
def test_the_loss_is_that_of_monai(kind):
    losses = pytest.importorskip("monai.losses")
    shared = {"batch": True, "smooth_nr": 1e-5, "smooth_dr": 1e-5}
    generator = torch.Generator().manual_seed(1)
    if kind == "softmax":
        logits = random(4, 3, 9, 8)
        references = torch.randint(0, 3, (4, 9, 8), generator=generator)
        dice = losses.DiceLoss(softmax=True, to_onehot_y=True, include_background=False, **shared)
        expected = dice(logits, references[:, None]) + nn.functional.cross_entropy(
            logits, references
        )
    else:
        planes = 1 if kind == "one plane" else 3
        logits = random(4, planes, 9, 8)
        references = torch.randint(0, 2, (4, planes, 9, 8), generator=generator)
        peer = losses.DiceLoss(sigmoid=True, **shared)
        bce = nn.functional.binary_cross_entropy_with_logits(logits, references.float())
        expected = peer(logits, references) + bce
        references = references[:, 0] if kind == "one plane" else references

    assert MaskLoss()(logits, references).item() == pytest.approx(expected.item(), rel=1e-5)


def test_masks_move_with_their_images():
    examples = discs()
    images = examples.images / 255
    changes = recipe(
        augmentation=[{"name": "flip", "vertical": 0.5}, {"name": "affine"}]
    ).augmentation
    moved, masks = augmented(images, examples.labels, changes, torch.Generator().manual_seed(3))

    assert masks.dtype == torch.uint8
    assert not torch.equal(masks, examples.labels)
    bright = (moved[:, 0] > 0.45).to(torch.uint8)
    assert (bright == masks).float().mean() > 0.97


def test_colours_leave_masks_where_they_are():
    examples = discs()
    changes = recipe(augmentation=[{"name": "intensity"}, {"name": "noise"}]).augmentation
    planes = examples.labels[:, None].repeat(1, 2, 1, 1)
    for masks in (examples.labels, planes):
        images, found = augmented(examples.images / 255, masks, changes, torch.Generator())
        assert torch.equal(found, masks)
        assert not torch.equal(images, examples.images / 255)


@pytest.mark.parametrize("planes", [1, 2])
def test_a_network_learns_to_draw_discs(planes):
    found = fit(
        network(planes),
        recipe(epochs=40, augmentation=[{"name": "flip"}]),
        train=discs(),
        validation=discs(seed=1),
        **NORM,
    )

    assert found.curve[-1]["validation_dice"] > 0.9
    best = max(row["validation_dice"] for row in found.curve)
    assert found.curve[found.epoch - 1]["validation_dice"] == best


def test_scores_follow_the_policy_of_the_audit():
    references = torch.zeros(3, 8, 8, dtype=torch.uint8)
    references[0, 2:5, 2:5] = 1
    empty, full = torch.full((1, 1, 8, 8), -9.0), torch.full((1, 1, 8, 8), 9.0)
    found = mask_scores(torch.cat([empty, empty, full]), references)

    assert found["dice"] == pytest.approx(1 / 3)  # erased 0, both empty 1, phantom 0
    assert answered(empty, references[:1]).logits.shape == (1, 2, 8, 8)
    ends = mask_estimates(
        torch.cat([empty, empty, full]), references, classes=("none", "disc"), cases=None
    )
    assert ends["dice"][0] == pytest.approx(1 / 3)
    assert ends["dice_where_any"][0] == 0
    assert ends["hd95"][0] == pytest.approx((2 * 49) ** 0.5)
    assert ends["lesion_sensitivity"][0] == 0


@pytest.mark.parametrize(
    ("changes", "labels", "message"),
    [
        ({"class_balanced": True}, "masks", "expected neither for masks"),
        ({"label_smoothing": 0.1}, "masks", "expected neither for masks"),
        ({"select_by": "accuracy", "epochs": 2}, "masks", "no validation accuracy for this task"),
        ({}, "classes", "dice_ce is for masks, got class numbers"),
    ],
)
def test_settings_that_do_not_fit_the_task_are_refused(changes, labels, message):
    examples = discs()
    if labels == "classes":
        examples = examples._replace(labels=torch.zeros(24, dtype=torch.int64))

    with pytest.raises(ConfigError, match=message):
        fit(network(), recipe(**changes), train=examples, validation=examples, **NORM)


def test_masks_of_another_size_are_refused():
    examples = discs()
    bad = examples._replace(labels=examples.labels[:, :8])

    with pytest.raises(DataError, match=r"or uint8 masks \(n, \[classes,\] height, width\); got"):
        fit(network(), recipe(), train=bad, validation=bad, **NORM)


@pytest.fixture
def folder(tmp_path):
    rows = ["id,image,mask,split,case"]
    for split, seed in (("train", 0), ("val", 1), ("test", 2)):
        examples = discs(8, seed=seed, side=32)
        for i in range(8):
            name = f"{split}{i}"
            for kind, pixels in (("i", examples.images[i, 0]), ("m", examples.labels[i])):
                Image.fromarray(pixels.numpy()).save(tmp_path / f"{kind}{name}.png")
            rows.append(f"{name},i{name}.png,m{name}.png,{split},p{name}")
    (tmp_path / "split.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "dataset.json").write_text('{"mask_values": {"0": "none", "1": "disc"}}')
    return tmp_path


def test_a_recipe_becomes_a_checkpoint_that_an_audit_loads(folder, tmp_path):
    pytest.importorskip("segmentation_models_pytorch")
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.replace("FOLDER", str(folder)))
    lines = []

    checkpoint = train_recipe(path, folder=tmp_path / "out", say=lines.append)

    card = json.loads(checkpoint.with_suffix(".json").read_text())
    assert card["classes"] == ["none", "disc"]
    assert card["data"]["counts"]["test"] == {"images": 8, "empty masks": 0}
    assert "validation_dice" in card["curve"][0]
    low, high = card["intervals"]["test"]["dice"]
    assert low <= card["clean"]["test"]["dice"] <= high
    assert checkpoint.stat().st_size < 2.2 * card["parameters"] + 60_000  # two bytes a number
    samples = registry.create("datasets", "segmentation_folder", {"path": str(folder), "size": 32})
    spec = card["recipe"]["target"] | {"weights": str(checkpoint)}
    target = registry.create("targets", spec.pop("name"), spec).load(
        task=samples.load().task, channels=1, bounds=samples.load().bounds
    )
    from palpate.scoring import scores

    batch = samples.load().batch(range(8))
    dice = scores(target.predict(batch), batch.references).mean().item()
    assert dice == pytest.approx(card["clean"]["test"]["dice"], abs=1e-5)

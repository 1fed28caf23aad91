"""Small real runs: same seed same weights, resume equals uninterrupted, the best epoch is kept."""

import json

import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score
from statsmodels.stats.proportion import proportion_confint
from torch import nn

from palpate.errors import ConfigError, DataError
from palpate.training import Examples, fit, load_recipe, train
from palpate.training.card import tensors_digest
from palpate.training.intervals import intervals
from palpate.training.recipe import parse_recipe
from palpate.training.scores import predict, scores

NORM = {"mean": (0.5,), "std": (0.5,)}
CHANGES = ("flip", "affine", "intensity", "noise", "erase")


def examples(count, seed):
    """Bright squares (class 1) and dark ones (class 0) on noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 2, (count,), generator=generator)
    images = torch.randint(60, 180, (count, 1, 8, 8), generator=generator)
    images[:, :, 2:6, 2:6] += (labels * 60 - 30).view(-1, 1, 1, 1)
    return Examples(images.clamp(0, 255).to(torch.uint8), labels)


def recipe(**changes):
    data = {
        "dataset": {"name": "squares"},
        "target": {"name": "small"},
        "output": "squares",
        "epochs": 4,
        "batch_size": 16,
        "learning_rate": 1e-2,
        "ema": 0.8,
        "augmentation": [{"name": name} for name in CHANGES],
    }
    return parse_recipe(data | changes)


def build():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(144, 2),
    )


def fitted(settings, model_seed=0, **options):
    with torch.random.fork_rng():
        torch.manual_seed(model_seed)
        model = build()
    return fit(
        model, settings, train=examples(70, 1), validation=examples(40, 2), **NORM, **options
    )


def run(settings, folder, **options):
    splits = {"train": examples(70, 1), "validation": examples(40, 2), "test": examples(50, 3)}
    names = ("dark", "bright")
    return train(
        settings, build, splits=splits, classes=names, output=folder / "out", **NORM, **options
    )


@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
def test_same_seed_same_weights(optimiser):
    first, second = (fitted(recipe(optimiser=optimiser)) for _ in range(2))
    assert tensors_digest(first.state) == tensors_digest(second.state)
    assert first.curve == second.curve
    other = fitted(recipe(optimiser=optimiser, seed=1))
    assert tensors_digest(first.state) != tensors_digest(other.state)


def test_global_random_numbers_are_left_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    fitted(recipe(epochs=1))
    assert torch.equal(torch.rand(2), expected)


def test_it_learns():
    found = fitted(recipe(epochs=8))
    assert found.curve[-1]["train_loss"] < found.curve[0]["train_loss"]
    assert found.curve[found.epoch - 1]["validation_auc"] > 0.9


@pytest.mark.parametrize("ema", [None, 0.8])
def test_resumed_equals_uninterrupted(tmp_path, ema):
    def stop(epoch, row):
        if epoch == 2:
            raise KeyboardInterrupt

    settings = recipe(ema=ema)
    whole = run(settings, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(settings, tmp_path / "parts", progress=stop)
    epochs = []
    parts = run(settings, tmp_path / "parts", progress=lambda epoch, row: epochs.append(epoch))
    assert epochs == [3, 4]
    assert parts == whole
    first, second = (tmp_path / f / "out.safetensors" for f in ("whole", "parts"))
    assert first.read_bytes() == second.read_bytes()
    assert sorted(p.name for p in (tmp_path / "parts").iterdir()) == ["out.json", "out.safetensors"]


def test_state_of_another_recipe_is_refused(tmp_path):
    fitted(recipe(epochs=1), state_file=tmp_path / "state.pt")
    with pytest.raises(ConfigError, match=r"state\.pt: this training state is of another recipe"):
        fitted(recipe(epochs=2), state_file=tmp_path / "state.pt")


@pytest.mark.parametrize(
    ("select_by", "key", "best"),
    [
        ("loss", "validation_loss", min),
        ("accuracy", "validation_accuracy", max),
        ("auc", "validation_auc", max),
    ],
)
def test_best_epoch_by_validation_is_kept(select_by, key, best):
    found = fitted(recipe(select_by=select_by, learning_rate=0.1, epochs=5, ema=None))
    assert found.curve[found.epoch - 1][key] == best(row[key] for row in found.curve)
    model = build()
    model.load_state_dict(found.state)
    validation = examples(40, 2)
    again = scores(predict(model, validation.images, **NORM), validation.labels)
    assert again[select_by] == pytest.approx(found.curve[found.epoch - 1][key])


@pytest.mark.parametrize("epochs", [8, 100])
def test_steps_is_the_schedule_of_the_medmnist_benchmark(epochs):
    parameter = nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.SGD([parameter], 1e-2)
    milestones = [epochs // 2, epochs * 3 // 4]
    peer = torch.optim.lr_scheduler.MultiStepLR(optimiser, milestones, gamma=0.1)
    expected = []
    for _ in range(epochs):
        optimiser.step()
        expected.append(peer.get_last_lr()[0])
        peer.step()
    found = fitted(recipe(schedule="steps", epochs=epochs, batch_size=70, ema=None))
    assert [row["learning_rate"] for row in found.curve] == pytest.approx(expected)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_device_is_named(tmp_path):
    with pytest.raises(ConfigError, match="device: expected a CUDA device, got none"):
        run(recipe(device="cuda"), tmp_path)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_trains_and_goes_on_on_a_cuda_device(tmp_path):
    def stop(epoch, row):
        if epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(recipe(device="cuda"), tmp_path, progress=stop)
    card = run(recipe(device="cuda"), tmp_path)
    assert [row["epoch"] for row in card["curve"]] == [1, 2, 3, 4]
    assert card["clean"]["test"]["auc"] > 0.9


def test_last_epoch_is_kept_when_asked():
    assert fitted(recipe(select_by="last")).epoch == 4


def test_card_says_what_was_made(tmp_path):
    settings = recipe(output="weights/squares", class_balanced=True, gradient_clip=1.0)
    card = run(settings, tmp_path)
    assert json.loads((tmp_path / "out.json").read_text()) == json.loads(json.dumps(card))
    state = load_file(tmp_path / "out.safetensors")
    assert card["state_digest"] == tensors_digest(state)
    assert card["parameters"] == sum(p.numel() for p in build().parameters())
    assert card["recipe"] == settings.model_dump(mode="json")
    assert card["name"] == "squares"
    assert card["classes"] == ["dark", "bright"]
    assert card["input"] == {"shape": [1, 8, 8], "bounds": [0.0, 1.0], "mean": [0.5], "std": [0.5]}
    assert {name: sum(c.values()) for name, c in card["data"]["counts"].items()} == {
        "train": 70,
        "validation": 40,
        "test": 50,
    }
    assert card["clean"].keys() == card["intervals"].keys() == {"validation", "test"}
    for name, (low, high) in card["intervals"]["test"].items():
        assert low < card["clean"]["test"][name] <= high
    assert card["clean"]["test"]["n"] == 50
    assert len(card["curve"]) == 4
    assert {"python", "torch", "numpy"} <= card["versions"].keys()
    model = build()
    model.load_state_dict(state)
    test = examples(50, 3)
    assert scores(predict(model, test.images, **NORM), test.labels) == card["clean"]["test"]


def test_intervals_are_wilson_and_widen_with_cases():
    labels = torch.arange(200) % 2
    logits = nn.functional.one_hot(labels, 2).float()
    logits[:40] = logits[:40].flip(1)  # 40 wrong in a row
    alone = intervals(logits, labels, classes=("a", "b"))
    low, high = proportion_confint(160, 200, method="wilson")
    assert alone["accuracy"] == pytest.approx([low, high])
    cases = [str(i // 10) for i in range(200)]
    together = intervals(logits, labels, classes=("a", "b"), cases=cases)
    for name in ("accuracy", "balanced_accuracy", "auc"):
        assert together[name][0] < alone[name][0]
        assert together[name][1] > alone[name][1]


def test_batch_norm_never_sees_a_batch_of_one():
    settings = recipe(batch_size=23, epochs=1)
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 2))
    fit(model, settings, train=examples(70, 1), validation=examples(5, 2), **NORM)


@pytest.mark.parametrize("classes", [2, 3])
def test_auc_is_that_of_scikit_learn(classes):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(60, classes, generator=generator).round(decimals=1)
    labels = torch.randint(0, classes, (60,), generator=generator)
    shares = logits.double().softmax(1).numpy()
    expected = (
        roc_auc_score(labels, shares[:, 1])
        if classes == 2
        else roc_auc_score(labels, shares, multi_class="ovr")
    )
    assert scores(logits, labels)["auc"] == pytest.approx(expected)


@pytest.mark.parametrize("name", CHANGES)
def test_augmentation_keeps_range_and_hangs_on_its_generator(name):
    (change,) = recipe(augmentation=[{"name": name}]).augmentation
    images = examples(30, 1).images / 255
    first, second = (change(images, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, second)
    assert first.shape == images.shape
    assert first.min() >= 0
    assert first.max() <= 1
    assert not torch.equal(first, images)


def test_affine_without_reach_is_the_identity():
    spec = {"name": "affine", "degrees": 0, "translate": 0, "scale": 0}
    (change,) = recipe(augmentation=[spec]).augmentation
    images = examples(3, 1).images / 255
    assert torch.allclose(change(images, torch.Generator()), images, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs: 0", "recipe.yaml: epochs: .*greater than or equal to 1, got 0"),
        ("speed: 3", "recipe.yaml: speed: Extra inputs are not permitted, got 3"),
        ("augmentation: [{name: twirl}]", "recipe.yaml: augmentation.0: .*'twirl'"),
        ("target: {variant: nano}", "target: expected a 'name'"),
    ],
)
def test_recipe_errors_name_the_key(tmp_path, text, message):
    base = {"dataset": "dataset: {name: x}", "target": "target: {name: y}", "epochs": "epochs: 1"}
    lines = [line for key, line in base.items() if not text.startswith(key)]
    path = tmp_path / "recipe.yaml"
    path.write_text("\n".join([*lines, "output: out", text]))
    with pytest.raises(ConfigError, match=message):
        load_recipe(path)


def test_wrong_arrays_are_refused():
    good = examples(10, 1)
    for bad in (good._replace(images=good.images / 255), good._replace(labels=good.labels[:5])):
        with pytest.raises(DataError, match="validation: expected uint8 images"):
            fit(build(), recipe(), train=good, validation=bad, **NORM)


def test_missing_split_is_named(tmp_path):
    with pytest.raises(DataError, match="got no validation"):
        train(
            *(recipe(), build),
            splits={"train": examples(4, 1)},
            classes=("a", "b"),
            output=tmp_path / "out",
            **NORM,
        )

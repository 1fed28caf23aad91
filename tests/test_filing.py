"""What storing does to pixels: exact for PNG, Pillow's own for JPEG."""

from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from palpate import registry
from palpate.contracts.oracles import Linear, batch
from palpate.errors import CapabilityError, ConfigError
from palpate.evaluation import evaluate
from palpate.filing import check_storage, filed, jpeg, refiled
from palpate.outcome import Status
from palpate.storage import Storage
from palpate.targets.base import Target
from palpate.types import Batch, Bounds, Classification


def pictures(channels=1, count=3, side=16):
    draw = torch.Generator().manual_seed(4)
    levels = torch.randint(0, 256, (count, channels, side, side), generator=draw)
    return levels, levels.float() / 255


def through(levels, kind, **options):
    """One picture (channel, height, width) through a file, by Pillow alone."""
    array = levels.to(torch.uint8).numpy()
    image = (
        Image.fromarray(array[0], "L")
        if len(array) == 1
        else Image.fromarray(np.moveaxis(array, 0, -1), "RGB")
    )
    file = BytesIO()
    image.save(file, kind, **options)
    back = np.asarray(Image.open(BytesIO(file.getvalue())))
    return torch.from_numpy(back.copy() if back.ndim == 2 else np.moveaxis(back, -1, 0).copy())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("quality", [30, 75, 95])
def test_jpeg_equals_pillows_own_round_trip(channels, quality):
    levels, images = pictures(channels)

    found = jpeg(images, Bounds(), quality=quality)

    for mine, given in zip(found, levels, strict=True):
        expected = through(given, "JPEG", quality=quality).reshape(given.shape)
        assert torch.equal((mine * 255).round().to(torch.uint8), expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_png_is_the_grid_rounded_to_the_nearest(channels):
    _, images = pictures(channels)
    png = Storage("png")

    assert torch.equal(filed(images, png, Bounds()), images)
    off = (images + 0.3 / 255).clamp(0, 1)
    found = refiled(off, png, Bounds(), clean=images)
    for mine, given in zip(found, off, strict=True):
        nearest = (given * 255).round()
        assert torch.equal(
            (mine * 255).round().to(torch.uint8), through(nearest, "PNG").reshape(given.shape)
        )
    assert torch.equal(found, images)  # 0.3 of a level is none


def test_other_bounds_hold_the_same_picture():
    _, images = pictures()
    wide = Bounds(-1000.0, 400.0)

    found = jpeg(images * 1400 - 1000, wide, quality=80)

    assert torch.allclose(found, jpeg(images, Bounds(), quality=80) * 1400 - 1000, atol=1e-3)
    assert wide.low <= float(found.min()) <= float(found.max()) <= wide.high


def test_what_was_not_changed_is_not_written_anew():
    _, images = pictures()
    changed = images.clone()
    changed[1] = (changed[1] + 0.1).clamp(0, 1)
    found = refiled(changed, Storage("jpeg", 50), Bounds(), clean=images)

    assert torch.equal(found[[0, 2]], images[[0, 2]])
    assert not torch.equal(found[1], changed[1])


def test_originals_go_through_the_file_unless_said_otherwise():
    _, images = pictures()
    stored = filed(images, Storage("jpeg", 50), Bounds())

    assert torch.equal(stored, jpeg(images, Bounds(), quality=50))
    assert filed(images, Storage("jpeg", 50, originals=False), Bounds()) is images
    assert filed(images, Storage(), Bounds()) is images


@pytest.mark.parametrize("shape", [(2, 2, 8, 8), (2, 1, 4, 8, 8), (2, 4, 8, 8)])
@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_what_no_picture_file_holds_is_refused(shape, kind):
    with pytest.raises(CapabilityError, match="expected pictures of 1 or 3 channels"):
        check_storage(Storage(kind), torch.zeros(shape))
    check_storage(Storage("uint8"), torch.zeros(shape))


@pytest.mark.parametrize(
    ("given", "short"),
    [
        ("float32", "float32"),
        ("uint8", "uint8"),
        ("png", "png"),
        ("png:changed", "png:changed"),
        ("jpeg", "jpeg:75"),
        ("jpeg:90", "jpeg:90"),
        ({"format": "jpeg", "quality": 90}, "jpeg:90"),
        ({"format": "jpeg", "originals": False}, "jpeg:75:changed"),
        ("jpeg:60:changed", "jpeg:60:changed"),
    ],
)
def test_ways_to_say_it(given, short):
    storage = Storage.parse(given)

    assert str(storage) == short
    assert Storage.parse(short) == storage


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("tiff", "expected one of float32, uint8, png, jpeg, got 'tiff'"),
        ("jpeg:0", "quality of 1 to 95, got 0"),
        ("jpeg:high", "a form such as jpeg:90, got 'jpeg:high'"),
        ("png:90", "a quality for jpeg only, got png"),
        ("uint8:changed", "originals: false for png or jpeg only, got uint8"),
        ({"format": "jpeg", "level": 3}, "format, quality, originals, got"),
        ({"format": "jpeg", "quality": 0.9}, "a whole quality"),
        ({"quality": 90}, "expected one of float32, uint8, png, jpeg, got ''"),
        (None, "expected a format"),
    ],
)
def test_what_means_nothing_is_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        Storage.parse(given)


def signs_and_pictures():
    """A linear model whose best attack is noise of one pixel's size, and four noisy pictures."""
    weight = torch.randn((1, 16, 16), generator=torch.Generator().manual_seed(9)).sign() / 256
    target = Target(Linear(weight, 0.0).eval(), Classification(("dark", "bright")))
    names = tuple("abcd")
    images = pictures(count=4)[1] * 0.8 + 0.1
    return target, Batch(images, torch.zeros(4, dtype=torch.int64), names, names, ("",) * 4)


@pytest.mark.parametrize("storage", ["jpeg:75", "jpeg:75:changed"])
def test_jpeg_changes_what_it_should(storage):
    target, given = signs_and_pictures()
    attack = registry.create("attacks", "fgsm", {"epsilon": "8/255"})

    plain = evaluate(target, [given], perturbation=attack, gallery=4)
    stored = evaluate(target, [given], perturbation=attack, gallery=4, storage=storage)

    originals = storage == "jpeg:75"
    start = jpeg(given.images, Bounds(), quality=75) if originals else given.images
    expected = jpeg(attack(target, start, given.references), Bounds(), quality=75)
    spent = (expected - start).abs().flatten(1).amax(1)
    assert [o.linf for o in stored.outcomes] == pytest.approx(spent.tolist(), abs=1e-7)
    assert all(o.linf == pytest.approx(8 / 255, abs=1e-6) for o in plain.outcomes)
    assert max(o.linf for o in stored.outcomes) > 8 / 255 + 1e-3  # the file moves pixels by itself
    clean = evaluate(target, [given], storage=storage).outcomes
    probabilities = target.logits(start).softmax(1)[:, 1]
    assert [o.probabilities[1] for o in clean] == pytest.approx(probabilities.tolist(), abs=1e-6)


def test_an_attack_that_a_png_undoes_has_not_attacked():
    given = batch(4, classes=2)
    grey = given.with_images((given.images[:, :1] * 255).round() / 255)
    target = Target(Linear(torch.ones(1, 8, 8), -32.0).eval(), Classification(("a", "b")))
    small = registry.create("attacks", "fgsm", {"epsilon": "0.4/255"})
    larger = registry.create("attacks", "fgsm", {"epsilon": "0.57/255"})

    undone = evaluate(target, [grey], perturbation=small, storage="png").outcomes
    doubled = evaluate(target, [grey], perturbation=larger, storage="png").outcomes

    assert all(o.linf == 0 and o.status is Status.NO_MOVE for o in undone)
    # 0.57 of a grey level becomes a whole one: what the study's image writer does at 0.01
    assert all(o.linf == pytest.approx(1 / 255, abs=1e-6) for o in doubled)


def test_an_attack_behind_the_jpeg_filter_knows_of_the_file():
    """The filter is the file: same answers, and the attack's gradient goes straight through."""
    target, given = signs_and_pictures()
    behind = registry.create("defences", "input_filter", {"kind": "jpeg"}).protect(target)
    stored = evaluate(target, [given], storage="jpeg").outcomes
    filtered = evaluate(behind, [given]).outcomes
    attack = registry.create("attacks", "fgsm", {"epsilon": "8/255"})

    known = evaluate(behind, [given], perturbation=attack).outcomes

    assert [o.probabilities for o in filtered] == [o.probabilities for o in stored]
    assert all(o.status is Status.OK and o.linf > 0 for o in known)
    attacked = attack(behind, given.images, given.references)
    kept = target.logits(jpeg(attacked, Bounds(), quality=75)).softmax(1)[:, 1]
    assert [o.probabilities[1] for o in known] == pytest.approx(kept.tolist(), abs=1e-5)

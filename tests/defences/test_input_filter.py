import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

import palpate
from palpate.attacks.pgd import Pgd
from palpate.contracts.oracles import batch, probe
from palpate.defences.input_filter import InputFilter
from palpate.errors import CapabilityError, ConfigError
from palpate.filing import jpeg
from palpate.types import Bounds


class Echo(torch.nn.Module):
    """Answers with the mean of what it is shown, per channel."""

    def __init__(self):
        super().__init__()
        self.seen = None

    def forward(self, images):
        self.seen = images.detach()
        return images.mean(dim=(2, 3))


def seen(defence, images, **preprocessing):
    echo = Echo().eval()
    task = palpate.Classification(("a", "b", "c")[: max(2, images.shape[1])])
    target = defence.protect(palpate.wrap(echo, task=task, **preprocessing))
    target.logits(images)
    return echo.seen


@pytest.mark.parametrize("size", [3, 5])
def test_median_equals_scipy(size):
    images = torch.rand(2, 2, 9, 7)

    found = seen(InputFilter(size=size), images)

    expected = ndimage.median_filter(images.numpy(), size=(1, 1, size, size), mode="mirror")
    assert np.allclose(found.numpy(), expected, atol=1e-6)


def test_bit_depth_keeps_that_many_levels_inside_the_bounds():
    images = torch.rand(1, 2, 64, 64) * 1400 - 1000

    found = seen(
        InputFilter(kind="bit_depth", bits=3), images, bounds=(-1000.0, 400.0), std=(500.0,)
    )

    assert len((found * 500).round().unique()) == 8


def through_pillow(picture, quality):
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


@pytest.mark.parametrize("quality", [10, 75, 95])
@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_pillows_own_round_trip(channels, quality):
    """Smooth pictures in the units of the bounds, against the file that Pillow writes of them."""
    rng = np.random.default_rng(channels)
    fields = ndimage.gaussian_filter(rng.random((2, 24, 17, channels)), (0, 3, 3, 0))
    levels = np.round(255 * (fields - fields.min()) / np.ptp(fields)).astype(np.uint8)
    images = torch.from_numpy(levels).movedim(-1, 1).double() / 255 * 1400 - 1000

    bounds, mean, std = (-1000.0, 400.0), (-300.0,), (500.0,)
    filtered = InputFilter(kind="jpeg", quality=quality)
    found = seen(filtered, images.float(), bounds=bounds, mean=mean, std=std) * 500 - 300

    pictures = [p[..., 0] if channels == 1 else p for p in levels]
    expected = np.stack([through_pillow(p, quality) for p in pictures])
    expected = expected[:, None] if channels == 1 else np.moveaxis(expected, -1, 1)
    assert np.allclose(found.numpy(), expected / 255 * 1400 - 1000, atol=1e-3)
    assert not np.array_equal(expected, np.moveaxis(levels, -1, 1))  # something was lost


def test_jpeg_refuses_what_no_file_of_that_kind_holds():
    with pytest.raises(CapabilityError, match=r"jpeg: expected .*1 or 3.*got \(1, 2, 8, 8\)"):
        seen(InputFilter(kind="jpeg"), torch.rand(1, 2, 8, 8))


def test_gradients_pass_straight_through_jpeg():
    """The gradient is that of the model at what came out of the file, as if nothing was there."""
    draw = torch.Generator().manual_seed(4)
    weight = torch.rand((1, 1, 16, 16), generator=draw)

    class Square(torch.nn.Module):
        def forward(self, images):
            z = (weight * images**2).flatten(1).sum(dim=1, keepdim=True)
            return torch.cat([z, -z], dim=1)

    target = palpate.wrap(Square().eval(), task=palpate.Classification(("a", "b")))
    images = torch.rand((2, 1, 16, 16), generator=draw).requires_grad_()
    InputFilter(kind="jpeg", quality=50).protect(target).logits(images)[:, 0].sum().backward()

    inside = jpeg(images.detach(), Bounds(), quality=50)
    assert torch.allclose(images.grad, 2 * weight * inside, atol=1e-6)
    assert not torch.allclose(images.grad, 2 * weight * images, atol=1e-2)


@pytest.mark.parametrize("size", [3, 5])
def test_the_gradient_of_a_median_is_that_of_the_pixel_it_picks(size):
    target = palpate.wrap(Echo().eval(), task=palpate.Classification(("a", "b")))
    images = torch.rand(
        (1, 2, 9, 9), generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    images.requires_grad_()

    InputFilter(size=size).protect(target).logits(images)[0, 0].backward()

    half, expected = size // 2, torch.zeros_like(images)
    plane = np.pad(images.detach().numpy()[0, 0], half, mode="reflect")
    where = np.pad(np.arange(81).reshape(9, 9), half, mode="reflect")
    for top in range(9):
        for left in range(9):
            window = np.s_[top : top + size, left : left + size]
            picked = np.argsort(plane[window], axis=None)[size * size // 2]
            expected[0, 0].view(-1)[where[window].flat[picked]] += 1 / 81
    assert torch.allclose(images.grad, expected)


def test_normalisation_happens_once():
    images = torch.full((1, 2, 8, 8), 0.25)

    found = seen(InputFilter(), images, mean=(0.5,), std=(0.5,))

    assert torch.allclose(found, torch.full_like(found, -0.5))


def test_straight_through_gradient_beats_the_filter():
    """Attacked through its rounding, the filter is no wall: the adaptive attack does its work."""
    given = batch(16)
    protected = InputFilter(kind="bit_depth", bits=2).protect(probe())
    labels = protected.predict(given).decisions

    attacked = Pgd(epsilon=0.5, steps=10)(protected, given.images, labels)

    changed = protected.predict(given.with_images(attacked)).decisions != labels
    assert float(changed.float().mean()) > 0.3


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"size": 2}, "odd"), ({"bits": 0}, "1 to 8"), ({"quality": 96}, "1 to 95")],
)
def test_impossible_settings_are_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        InputFilter(**wrong)

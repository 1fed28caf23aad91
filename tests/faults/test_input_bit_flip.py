import numpy as np
import pytest
import torch
from torch import nn

from palpate.errors import ConfigError
from palpate.faults.input_bit_flip import InputBitFlip


class Pixels(nn.Module):
    def forward(self, images):
        return images.flatten(1)


@pytest.fixture
def worlds(wrap):
    def run(fault, images):
        target, batch = wrap(Pixels(), tuple(images.shape), classes=images[0].numel())
        batch = batch.with_images(images)
        seeds = fault.seeds(0)
        with fault.prepared(target, batch) as enter:
            for trial in range(fault.repeats):
                with enter(seeds.at(trial)) as world:
                    yield world.notes, world.batch.images

    return run


@pytest.mark.parametrize(("fmt", "top"), [("uint8", 255), ("uint16", 65535)])
def test_bits_of_the_stored_codes_flip_in_every_image(fmt, top, worlds):
    codes = np.random.default_rng(0).integers(0, top + 1, (3, 1, 4, 4)).astype(fmt)
    images = torch.from_numpy(codes.astype(np.float64) / top).float()
    for notes, flipped in worlds(InputBitFlip(trials=40, flips=2, format=fmt), images):
        expected = codes.copy()
        for site in notes["sites"]:
            expected[(slice(None), *site["index"])] ^= np.array(1 << site["bit"], dtype=fmt)
            assert (site["field"], site["format"], site["layer"]) == ("integer", fmt, "input")
        assert np.array_equal((flipped.double() * top).round().numpy().astype(fmt), expected)


def test_pixels_that_are_not_hit_keep_their_exact_value(worlds):
    images = torch.rand(2, 3, 5, 5)
    for notes, flipped in worlds(InputBitFlip(trials=10), images):
        same = flipped == images
        same[(slice(None), *notes["sites"][0]["index"])] = True
        assert bool(same.all())
        assert 0 <= float(flipped.min()) <= float(flipped.max()) <= 1


def test_wrong_settings_are_refused():
    with pytest.raises(ConfigError, match="expected distinct bits between 0 and 7"):
        InputBitFlip(bits=(8,))
    with pytest.raises(ConfigError, match="expected a tensor with sign bits"):
        InputBitFlip(bits="sign")
    with pytest.raises(ConfigError, match="at least 1, got flips=0"):
        InputBitFlip(flips=0)

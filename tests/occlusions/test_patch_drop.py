import pytest
import torch

from palpate.errors import ConfigError
from palpate.occlusions.patch_drop import PatchDrop


@pytest.mark.parametrize(("side", "patch"), [(28, 2), (224, 16), (64, 4)])
def test_default_patches_are_a_fourteenth_of_the_side(side, patch):
    images = torch.full((1, 1, side, side), 0.5)

    hidden = PatchDrop(coverage=0.5)(images)[0, 0] == 0
    whole = side // patch * patch
    tiles = hidden[:whole, :whole].reshape(side // patch, patch, side // patch, patch)
    share = tiles.float().mean(dim=(1, 3))

    assert set(share.unique().tolist()) <= {0.0, 1.0}


def test_larger_coverage_hides_the_same_patches_and_more():
    from palpate.seeds import Seeds

    images = torch.full((3, 1, 28, 28), 0.5)
    seeds = PatchDrop().seeds(0).per_sample("abc")
    assert PatchDrop(coverage=0.3).seeds(0) == PatchDrop(coverage=0.5).seeds(0) != Seeds()

    few, many = (PatchDrop(coverage=c)(images, seeds=seeds) == 0 for c in (0.3, 0.5))

    assert bool((many | ~few).all())


def test_mean_fill_is_per_sample_and_channel():
    images = torch.rand(2, 3, 28, 28)

    filled = PatchDrop(coverage=1.0, fill="mean")(images)

    expected = images.mean(dim=(2, 3), keepdim=True).expand_as(images)
    assert torch.allclose(filled, expected)


def test_sizes_that_do_not_divide():
    images = torch.full((1, 1, 30, 17), 0.5)

    hidden = PatchDrop(coverage=0.5, patch_size=4)(images) == 0

    assert 0.4 < float(hidden.float().mean()) < 0.6


def test_impossible_settings_are_refused():
    for wrong, message in (({"coverage": 1.2}, "0 to 1"), ({"patch_size": 0}, "1 or more")):
        with pytest.raises(ConfigError, match=message):
            PatchDrop(**wrong)

import numpy as np
import torch
from torch import nn

from palpate.corruptions.gaussian_noise import GaussianNoise
from palpate.evaluation import evaluate
from palpate.targets.base import Target
from palpate.types import Batch, Segmentation


class Threshold(nn.Module):
    """A pixel above one half is lesion."""

    def forward(self, images):
        return 10 * (images - 0.5)


def test_masks_are_kept_beside_the_images():
    images = torch.rand(4, 1, 6, 6, generator=torch.Generator().manual_seed(0)) * 0.2 + 0.4
    names = ("a", "b", "c", "d")
    batch = Batch(images, (images[:, 0] > 0.5).long(), names, names, ("",) * 4)
    target = Target(Threshold().eval(), Segmentation(("background", "lesion")))
    noise = GaussianNoise(severity=5)
    found = evaluate(target, [batch], perturbation=noise, gallery=2).images
    assert found["reference_mask"].shape == found["perturbed_mask"].shape == (2, 6, 6)
    for i, name in enumerate(found["sample"]):
        row = names.index(name)
        assert (found["reference_mask"][i] == batch.references[row].numpy()).all()
        assert (found["clean_mask"][i] == found["reference_mask"][i]).all()
        assert (found["perturbed_mask"][i] == (found["perturbed"][i][0] > 0.5)).all()
        assert (found["perturbed_mask"][i] != found["clean_mask"][i]).any()
    assert found["reference_mask"].dtype == np.uint8

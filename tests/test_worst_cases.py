import hashlib

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


NAMES = tuple("abcdefgh")
IMAGES = torch.rand(8, 1, 6, 6, generator=torch.Generator().manual_seed(1)) * 0.2 + 0.4


def followed(severity, rows=range(8), *, source=IMAGES, **options):
    rows = list(rows)
    names = tuple(NAMES[i] for i in rows)
    images = source[rows]
    references = (images[:, 0] > 0.5).long()
    references[[n in WRONG for n in names]] = 0  # these the model answers wrongly when clean
    target = Target(Threshold().eval(), Segmentation(("background", "lesion")))
    batch = Batch(images, references, names, names, ("",) * len(rows))
    noise = GaussianNoise(severity=severity)
    return evaluate(target, [batch], perturbation=noise, **{"gallery": 1} | options).images


ORDER = sorted(NAMES, key=lambda name: hashlib.sha256(name.encode()).digest())
WRONG = ORDER[:2]


def test_every_cell_follows_the_first_name_that_is_right_when_clean():
    for severity in (1, 5):
        found = followed(severity)
        assert found["followed_sample"].tolist() == [ORDER[2]]
        assert found["followed_right"].tolist() == [True]
        row = NAMES.index(ORDER[2])
        assert (found["followed_clean"][0] == IMAGES[row].numpy()).all()
        expected = found["followed_perturbed"][0][0] > 0.5
        assert (found["followed_perturbed_mask"][0] == expected).all()
    weak, strong = (np.abs(followed(s)["followed_perturbed"] - IMAGES[row].numpy()) for s in (1, 5))
    assert weak.mean() < strong.mean()


def test_without_one_that_is_right_the_first_name_is_followed():
    found = followed(1, rows=[NAMES.index(name) for name in WRONG])
    assert found["followed_sample"].tolist() == [ORDER[0]]
    assert found["followed_right"].tolist() == [False]


def test_without_a_gallery_no_picture_is_kept():
    assert followed(5, gallery=0) == {}


def test_a_cell_without_worst_cases_follows_all_the_same():
    found = followed(1, source=IMAGES.round())  # too far from one half for a little noise
    assert "sample" not in found
    assert found["followed_sample"].tolist() == [ORDER[2]]

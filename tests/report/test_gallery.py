import base64
import io

import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image

from palpate.report.gallery import gallery
from palpate.report.pictures import Shown, data_uri, gain_of, overlay_uri, pictures


def _pixels(uri):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def test_pictures_are_lossless():
    grey = (np.arange(256).reshape(1, 16, 16) / 255).astype(np.float32)
    assert (_pixels(data_uri(grey, 0.0, 1.0)) == np.arange(256).reshape(16, 16)).all()


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((3, 8, 9), (8, 9, 3)),
        ((1, 8, 9), (8, 9)),
        ((5, 8, 9), (8, 9)),
        ((1, 4, 8, 9), (8, 9)),
        ((1, 2048, 1024), (512, 256)),
    ],
)
def test_any_number_of_channels_and_volumes(shape, expected):
    assert _pixels(data_uri(np.zeros(shape, dtype=np.float32), -1.0, 1.0)).shape == expected


def test_values_that_are_not_finite_are_shown_as_the_ends():
    image = np.array([[[np.nan, np.inf, -np.inf, 0.5]]])
    assert _pixels(data_uri(image, 0.0, 1.0)).tolist() == [[0, 255, 0, 128]]


@pytest.mark.parametrize(("largest", "expected"), [(1 / 255, 100), (0.5, 1), (1.0, 1), (0.0, 1000)])
def test_the_gain_is_round_and_never_clips(largest, expected):
    assert gain_of(np.array([largest, -largest / 2]), 1.0) == expected


def test_cards_show_the_smallest_dose(rich):
    cards = gallery(rich)
    assert len(cards) == 4
    assert all("1/255" in card.title for card in cards)
    assert [p.caption for p in cards[0].pictures] == ["clean", "perturbed", "change × 100"]
    assert cards[0].after.startswith(("malignant (", "benign ("))


def test_cards_are_limited(rich):
    assert len(gallery(rich, limit=1)) == 1


def test_masks_are_laid_over_the_image_in_three_colours():
    image = np.zeros((1, 2, 2), dtype=np.float32)
    reference = np.array([[1, 0], [1, 0]])
    decision = np.array([[1, 1], [0, 0]])
    uri = overlay_uri(image, (reference, decision), exclusive=True, bounds=(0.0, 1.0))
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))
    right, extra, missed, rest = (pixels[i, j].tolist() for i in (0, 1) for j in (0, 1))
    assert right == [round(0.45 * c) for c in (0, 158, 115)]
    assert extra == [round(0.45 * c) for c in (230, 120, 0)]
    assert missed == [round(0.45 * c) for c in (0, 114, 250)]
    assert rest == [0, 0, 0]
    planes = (reference[None], decision[None])
    assert overlay_uri(image, planes, exclusive=False, bounds=(0.0, 1.0)) == uri


def test_a_card_of_masks_shows_both_overlays(maker):
    maker.kind, maker.classes = "segmentation", ("background", "lesion")
    maker.cell("unet", outcomes=[maker.outcome(i, right=True) for i in range(40)])
    image, mask = np.zeros((1, 1, 4, 4), dtype=np.float32), np.zeros((1, 4, 4), dtype=np.uint8)
    images = {
        "sample": np.array([maker.names[0][0]]),
        "trial": np.array([0]),
        "clean": image,
        "perturbed": image,
        **dict.fromkeys(("reference_mask", "clean_mask", "perturbed_mask"), mask),
    }
    rows = [maker.outcome(i, right=i > 0) for i in range(40)]
    setting = {"epsilon": 0.01, "norm": "linf"}
    maker.cell("unet", "attacks", "fgsm", setting=setting, outcomes=rows, images=images)
    (card,) = gallery(maker.write())
    assert [p.caption.partition(":")[0] for p in card.pictures[:2]] == ["clean", "perturbed"]
    assert "green right, orange extra, blue missed" in card.pictures[1].alt
    assert card.pictures[0].source == card.pictures[1].source


def test_a_moved_picture_is_laid_over_the_moved_reference():
    image, mask = np.zeros((1, 1, 4, 4), dtype=np.float32), np.eye(4, dtype=np.uint8)[None]
    images = {
        "clean": image,
        "perturbed": image,
        "reference_mask": mask,
        "clean_mask": mask,
        "perturbed_mask": mask[:, ::-1],
        "moved_mask": mask[:, ::-1],
    }
    shown = Shown("a", "before", "after", (0.0, 1.0))
    clean, moved = pictures(images, 0, shown=shown)[:2]
    turned = np.ascontiguousarray(mask[0, ::-1])
    right = overlay_uri(image[0], (turned, turned), exclusive=True, bounds=(0.0, 1.0))
    assert moved.source == right
    assert clean.source != right


def explained(maker, maps, note):
    maker.kind, maker.classes = "segmentation", ("background", "lesion")
    maker.cell("unet", outcomes=[maker.outcome(i, right=True) for i in range(40)])
    image, mask = np.zeros((1, 1, 4, 4), dtype=np.float32), np.zeros((1, 4, 4), dtype=np.uint8)
    images = {
        "sample": np.array([maker.names[0][0]]),
        "trial": np.array([0]),
        "clean": image,
        "perturbed": image,
        **dict.fromkeys(("reference_mask", "clean_mask", "perturbed_mask"), mask),
        "clean_saliency": maps[0],
        "perturbed_saliency": maps[1],
        "saliency_note": np.array([note]),
    }
    outcomes = [maker.outcome(i, right=False) for i in range(40)]
    setting = {"epsilon": 0.1, "norm": "linf"}
    maker.cell("unet", "attacks", "fgsm", setting=setting, outcomes=outcomes, images=images)
    (card,) = gallery(maker.write())
    return card


def test_maps_of_the_evidence_stand_beside_the_overlays_on_one_scale(maker):
    heat = np.zeros((2, 1, 4, 4), dtype=np.float32)
    heat[0, 0, 1, 1], heat[1, 0, 1, 1] = 8.0, 2.0
    card = explained(maker, heat, "Grad-CAM of lesion at decoder")

    first, second = card.pictures[2:4]
    assert first.caption.startswith("clean: Grad-CAM of lesion at decoder")
    assert second.alt.endswith("strongest evidence 25% of the pair's")
    full, quarter = (colormaps["inferno"](v)[:3] for v in (1.0, 0.25))
    for picture, colour in ((first, full), (second, quarter)):
        expected = np.round(0.5 * 255 * np.array(colour))
        assert np.abs(_pixels(picture.source)[1, 1] - expected).max() <= 1
    assert card.saliency == "Grad-CAM of lesion at decoder"


def test_a_model_without_maps_is_told_in_words(maker):
    card = explained(maker, np.full((2, 1, 4, 4), np.nan, dtype=np.float32), "no Grad-CAM: why")

    assert len(card.pictures) == 5
    assert card.saliency == "no Grad-CAM: why"

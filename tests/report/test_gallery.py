import base64
import io

import numpy as np
import pytest
from PIL import Image

from palpate.report.gallery import data_uri, gain_of, gallery


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

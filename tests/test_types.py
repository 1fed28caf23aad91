"""Decisions read off logits."""

import pytest
import torch

from palpate.errors import DataError
from palpate.types import Classification, Prediction, Segmentation, winners


@pytest.mark.parametrize("shape", [(200, 2), (200, 7), (3, 2, 9, 9), (3, 5, 9, 9), (2, 3, 4, 5, 6)])
def test_winners_are_those_of_argmax_ties_and_nan_included(shape):
    logits = torch.randint(0, 3, shape, generator=torch.Generator().manual_seed(0)).float()
    logits[0, 1] = torch.nan

    assert torch.equal(winners(logits), logits.argmax(dim=1))


@pytest.mark.parametrize("positive", [2, -1])
def test_the_positive_class_is_the_number_of_one(positive):
    with pytest.raises(DataError, match=r"positive: .* number of a class, 0 to 1, got"):
        Classification(("a", "b"), positive)


def test_exclusive_classes_have_one_winner_and_others_a_plane_each():
    logits = torch.tensor([[[-1.0, 2.0]], [[3.0, 2.0]]]).movedim(0, 1)  # (1, 2, 2)
    task = Segmentation(("background", "lesion"))

    assert Prediction(logits, task).decisions.tolist() == [[1, 0]]
    assert Prediction(logits, Segmentation(("a", "b"), exclusive=False)).decisions.tolist() == [
        [[0, 1], [1, 1]]
    ]
    flat = Prediction(torch.tensor([[1.0, 1.0]]), Classification(("a", "b")))
    assert flat.decisions.tolist() == [0]

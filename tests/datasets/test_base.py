import numpy as np
import pytest
import torch

from palpate import Classification, MultiLabel, Samples, Segmentation
from palpate.errors import DataError

TASK = Classification(("a", "b"))


def samples(count=5, **changes):
    images = np.random.default_rng(0).random((count, 1, 4, 4)).astype(np.float32)
    return Samples.of(images, np.arange(count) % 2, task=TASK, **changes)


def test_digest_sees_pixels_order_and_limit():
    assert samples().digest() == samples().digest()
    assert samples().digest() != samples().take(4).digest()
    assert samples().digest() != samples(bounds=(0.0, 2.0)).digest()
    assert samples().digest() != samples(cases=["p"] * 5).digest()


def test_numbers_of_patients_are_names():
    given = samples(cases=np.arange(5) // 2, ids=range(5))

    assert given.cases == ("0", "0", "1", "1", "2")
    assert given.digest() == samples(cases=list("00112")).digest()


def test_tensors_are_arrays():
    given = samples()
    images, references = given.batch(range(5)).images, torch.from_numpy(given.references)

    assert Samples.of(images, references, task=TASK).digest() == given.digest()


@pytest.mark.parametrize(
    ("references", "task", "message"),
    [
        (np.zeros((3, 1), int), TASK, r"numbers of shape \(3,\) as references, got int64 of shape"),
        (np.zeros(3, int), MultiLabel(("a", "b")), r"numbers of shape \(3, 2\) as references"),
        (np.array(["a", "b", "a"]), TASK, r"as references, got <U1 of shape \(3,\)"),
        (np.array([0.0, 1.0, 0.5]), TASK, "labels from 0 to 1, got 0.5 in sample '2'"),
        (np.array([0.0, np.nan, 1.0]), TASK, "labels from 0 to 1, got nan in sample '1'"),
        (np.array([0, -1, 1]), TASK, "labels from 0 to 1, got -1 in sample '1'"),
    ],
)
def test_labels_that_are_none_are_refused(references, task, message):
    with pytest.raises(DataError, match=message):
        Samples.of(np.zeros((3, 1, 2, 2), np.uint8), references, task=task)


def test_batches_cover_every_sample_once():
    ids = [s for batch in samples().batches(2) for s in batch.samples]

    assert ids == list(samples().ids)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: samples(0), "expected at least one sample, got an empty dataset"),
        (lambda: samples(ids=["x"] * 5), "unique sample ids, got 'x' 5 times"),
        (lambda: samples(ids=["x", "y"]), "expected 5 ids, as of images, got 2"),
        (lambda: samples(cases=["p"]), "as many references, cases and sites as images"),
        (
            lambda: Samples.of(np.zeros((1, 1, 2, 2)), np.array([5]), task=TASK),
            "got 5 in sample '0'",
        ),
    ],
)
def test_bad_data_is_refused(make, message):
    with pytest.raises(DataError, match=message):
        make()


@pytest.mark.parametrize(
    ("exclusive", "shape", "value", "message"),
    [
        (True, (2, 4, 5), 1, r"masks of the images' size \(4, 4\), got \(4, 5\)"),
        (True, (2, 2, 4, 4), 1, r"masks of the images' size \(4, 4\), got \(2, 4, 4\)"),
        (True, (2, 4, 4), 2, "mask values from 0 to 1, got 0 to 2 in sample '1'"),
        (False, (2, 3, 4, 4), 1, r"expected 2 mask planes, got shape \(3, 4, 4\)"),
        (False, (2, 2, 4, 4), 2, "mask values from 0 to 1"),
    ],
)
def test_masks_that_do_not_fit_are_refused(exclusive, shape, value, message):
    masks = np.zeros(shape, np.uint8)
    masks[1].flat[0] = value
    task = Segmentation(("none", "organ"), exclusive)
    samples = Samples.of(np.zeros((2, 1, 4, 4), np.uint8), masks, task=task)

    with pytest.raises(DataError, match=message):
        samples.batch([0, 1])

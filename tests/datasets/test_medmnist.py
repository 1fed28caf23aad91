import numpy as np
import pytest

from palpate import registry
from palpate.errors import DataError
from palpate.types import Classification, MultiLabel


def load(**parameters):
    return registry.create("datasets", "medmnist", parameters).load()


def write(folder, flag, images, labels, split="test"):
    np.savez(folder / f"{flag}.npz", **{f"{split}_images": images, f"{split}_labels": labels})


def test_bundled_breastmnist_is_the_official_file():
    samples = load(flag="breastmnist")

    assert len(samples) == 156
    assert samples.task == Classification(("malignant", "normal, benign"), positive=0)
    assert (samples.references == 0).sum() == 42
    assert not any("official" in warning for warning in samples.warnings)
    assert samples.licence == "CC BY 4.0"
    assert "Al-Dhabyani" in samples.attribution


def test_pixels_are_the_files_pixels_over_255():
    batch = load(flag="breastmnist", split="val").batch([3])
    from importlib import resources

    with np.load(resources.files("palpate") / "data" / "breastmnist.npz") as content:
        expected = content["val_images"][3].astype(np.float32) / 255

    assert np.array_equal(batch.images[0, 0].numpy(), expected)
    assert batch.samples == ("breastmnist/val/00003",)


def test_another_file_is_a_warning_that_names_both_digests(tmp_path):
    write(tmp_path, "retinamnist", np.zeros((2, 28, 28, 3), np.uint8), np.array([[0], [4]]))

    samples = load(flag="retinamnist", root=str(tmp_path))

    assert "expected MD5" in samples.warnings[0]
    assert samples.batch([0]).images.shape == (1, 3, 28, 28)
    assert len(samples.task.classes) == 5


def test_multi_label_sets_have_label_vectors(tmp_path):
    write(tmp_path, "chestmnist", np.zeros((2, 28, 28), np.uint8), np.eye(14, dtype=int)[:2])

    samples = load(flag="chestmnist", root=str(tmp_path))

    assert isinstance(samples.task, MultiLabel)
    assert samples.batch([1]).references.shape == (1, 14)


@pytest.mark.parametrize("size", [64, 128, 224])
def test_larger_sizes_have_files_of_their_own(tmp_path, size):
    images = np.zeros((1, size, size), np.uint8)
    np.savez(tmp_path / f"breastmnist_{size}.npz", test_images=images, test_labels=np.array([[1]]))

    samples = load(flag="breastmnist", size=size, root=str(tmp_path))

    assert samples.batch([0]).images.shape == (1, 1, size, size)


def test_missing_file_without_network_says_what_to_place_where(tmp_path, monkeypatch):
    import medmnist

    def refuse(*args, **kwargs):
        raise RuntimeError("no network")

    monkeypatch.setattr(medmnist, "PathMNIST", refuse)
    with pytest.raises(
        DataError, match=r"expected pathmnist\.npz in .*place the official file there"
    ):
        load(flag="pathmnist", root=str(tmp_path))


def test_truncated_file_is_named(tmp_path):
    from importlib import resources

    whole = (resources.files("palpate") / "data" / "breastmnist.npz").read_bytes()
    (tmp_path / "breastmnist.npz").write_bytes(whole[: len(whole) // 2])

    with pytest.raises(DataError, match=r"breastmnist\.npz: expected a MedMNIST \.npz"):
        load(flag="breastmnist", root=str(tmp_path))


def test_labels_out_of_range_are_named(tmp_path):
    write(tmp_path, "breastmnist", np.zeros((2, 28, 28), np.uint8), np.array([[0], [2]]))

    with pytest.raises(DataError, match="expected labels from 0 to 1, got 2 in sample"):
        load(flag="breastmnist", root=str(tmp_path))


@pytest.mark.parametrize("flag", ["bloodmnist", "organamnist", "octmnist"])
def test_wrong_arrays_are_refused(tmp_path, flag):
    write(tmp_path, flag, np.zeros((2, 28, 28), np.float32), np.array([[0], [1]]))

    with pytest.raises(DataError, match="expected uint8 images"):
        load(flag=flag, root=str(tmp_path))


def test_misspelt_flag_offers_neighbours():
    with pytest.raises(Exception, match="did you mean 'breastmnist'"):
        load(flag="brestmnist")

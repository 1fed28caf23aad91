import numpy as np
import pytest
from PIL import Image

from palpate import registry
from palpate.errors import DataError


def load(path, **parameters):
    return registry.create("datasets", "image_folder", {"path": str(path), **parameters}).load()


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("benign", "malignant"):
        for i in range(2):
            save(tmp_path / name / f"{i}.png", rng.integers(0, 256, (8, 8), dtype=np.uint8))
    return tmp_path


def test_class_folders(folder):
    samples = load(folder, positive="malignant")

    assert samples.task.classes == ("benign", "malignant")
    assert samples.task.positive == 1
    assert samples.references.tolist() == [0, 0, 1, 1]
    assert samples.ids[2] == "malignant/0.png"


def test_manifest_gives_cases_sites_and_split(folder):
    manifest = folder / "list.csv"
    manifest.write_text(
        "path,label,case,site,split\n"
        "benign/0.png,benign,p1,north,test\n"
        "benign/1.png,benign,p1,south,test\n"
        "malignant/0.png,malignant,p2,north,train\n"
    )

    samples = load(folder, manifest=str(manifest), split="test", classes=["malignant", "benign"])

    assert samples.cases == ("p1", "p1")
    assert samples.sites == ("north", "south")
    assert samples.references.tolist() == [1, 1]


def test_classes_are_those_of_every_split(folder):
    """Else a model's second output would be the third class in a split that lacks the second."""
    manifest = folder / "list.csv"
    manifest.write_text(
        "path,label,split\nbenign/0.png,benign,train\nmalignant/0.png,malignant,test\n"
    )

    samples = load(folder, manifest=str(manifest), split="test")

    assert samples.task.classes == ("benign", "malignant")
    assert samples.references.tolist() == [1]


def test_a_split_needs_a_manifest_that_has_it(folder):
    manifest = folder / "list.csv"
    manifest.write_text("path,label,split\nbenign/0.png,benign,train\n")

    with pytest.raises(DataError, match="split 'test': expected a manifest"):
        load(folder, split="test")
    with pytest.raises(DataError, match=r"list.csv: expected rows of split 'test', .* has train"):
        load(folder, split="test", manifest=str(manifest))


def test_a_patient_in_two_splits_is_refused(folder):
    manifest = folder / "list.csv"
    manifest.write_text(
        "path,label,case,split\nbenign/0.png,benign,p1,train\nmalignant/0.png,malignant,p1,test\n"
    )

    with pytest.raises(DataError, match="every case in one split, got case 'p1' in test and train"):
        load(folder, split="test", manifest=str(manifest))


def test_bit_depths_fill_the_same_range(tmp_path):
    save(tmp_path / "a" / "eight.png", np.full((4, 4), 255, np.uint8))
    save(tmp_path / "b" / "sixteen.png", np.full((4, 4), 65535, np.uint16))
    save(tmp_path / "c" / "half.png", np.full((4, 4), 32768, np.uint16))

    images = load(tmp_path).batch([0, 1, 2]).images

    assert images[:2].unique().tolist() == [1.0]
    assert images[2].unique().item() == pytest.approx(0.5, abs=1e-4)


def test_sizes_that_differ_are_refused_or_resized(folder):
    save(folder / "benign" / "2.png", np.zeros((9, 8), np.uint8))
    samples = load(folder)

    with pytest.raises(DataError, match=r"images of one shape.*set size to resize"):
        samples.digest()
    assert load(folder, size=16).batch([0, 2]).images.shape == (2, 1, 16, 16)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, "expected finite pixels, got NaN"),
        (1.5, r"within the bounds \[0, 1\], got \[0, 1.5\]"),
    ],
)
def test_bad_pixels_name_the_sample(tmp_path, value, message):
    image = np.zeros((4, 4), np.float32)
    image[1, 1] = value
    (tmp_path / "a").mkdir()
    np.save(tmp_path / "a" / "bad.npy", image)

    with pytest.raises(DataError, match=f"{message}.*a/bad.npy"):
        load(tmp_path).batch([0])


def test_unreadable_files_are_named(folder):
    (folder / "benign" / "1.png").write_bytes(b"not an image")
    save(folder / "malignant" / "rgba.png", np.zeros((8, 8, 4), np.uint8))
    samples = load(folder)

    with pytest.raises(DataError, match=r"1\.png: cannot be read as an image"):
        samples.batch([1])
    with pytest.raises(DataError, match=r"rgba\.png: expected a grey or RGB image, got RGBA"):
        samples.batch([4])


def test_mistakes_in_the_manifest_are_named(folder):
    manifest = folder / "list.csv"
    for text, message in (
        ("file,label\nx,y\n", "expected a column 'path', got file, label"),
        ("path,label\nnone.png,benign\n", "no such image"),
        ("path,label\nbenign/0.png,other\n", "expected labels out of benign, got 'other'"),
        ("path,label\n", "empty dataset"),
        ("path,label\nbenign/0.png\n", "a label in every row, got path 'benign/0.png'"),
        ("path,label\n/etc/0.png,benign\n", "expected a path from .* got path '/etc/0.png'"),
    ):
        manifest.write_text(text)
        with pytest.raises(DataError, match=message):
            load(folder, manifest=str(manifest), classes=["benign"])


def test_arrays_that_are_none_are_named(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "bad.NPY").write_bytes(b"no array")
    np.save(tmp_path / "a" / "object.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "a" / "small.npy", np.zeros((4, 4), np.float32))
    samples = load(tmp_path, size=8)

    for index, message in (
        (0, "bad.NPY: cannot be read"),
        (1, "object.npy: cannot be read"),
        (2, "8 x 8"),
    ):
        with pytest.raises(DataError, match=message):
            samples.batch([index])
    with pytest.raises(DataError, match="expected low < high"):
        load(tmp_path, bounds=[1, 0])


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(DataError, match="expected a folder at"):
        load(tmp_path / "nowhere")

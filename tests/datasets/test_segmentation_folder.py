import os
from pathlib import Path

import numpy as np
import orjson
import pytest
from PIL import Image

from palpate import registry
from palpate.errors import DataError

HEAD = "id,image,mask,split,group,sex"
NEEDS_DATA = pytest.mark.skipif("PALPATE_DATA" not in os.environ, reason="PALPATE_DATA is not set")
SETS = {
    "busi_seg": (2, 36, 36),
    "isic2017_seg": (2, 40, 40),
    "kvasir_seg": (2, 35, 35),
    "lgg_mri_seg": (2, 40, 40),
    "cxr_lungs_heart": (4, 13, 13),
    "fuseg_wounds": (2, 28, 28),
    "msd_hippocampus_nifti": (3, None, 13),
}


def make(path, **parameters):
    return registry.create("datasets", "segmentation_folder", {"path": str(path), **parameters})


def load(path, **parameters):
    return make(path, **parameters).load()


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def listed(folder, rows, head=HEAD):
    (folder / "split.csv").write_text("\n".join([head, *rows]) + "\n")


def square(low=0, high=255, side=8):
    mask = np.full((side, side), low, np.uint8)
    mask[2:5, 2:6] = high
    return mask


@pytest.fixture
def folder(tmp_path):
    """Two training images of one patient, one test image with a mask and one without."""
    rng = np.random.default_rng(0)
    for i in range(4):
        save(tmp_path / f"images/{i}.png", rng.integers(0, 256, (8, 8), dtype=np.uint8))
        save(tmp_path / f"masks/{i}.png", square(high=0 if i == 3 else 255))
    splits = [("train", "p0", "f"), ("train", "p0", "f"), ("test", "p1", "m"), ("test", "p2", "f")]
    listed(
        tmp_path, [f"s{i},images/{i}.png,masks/{i}.png,{','.join(s)}" for i, s in enumerate(splits)]
    )
    facts = {"mask_values": {"0": "background", "255": "lesion"}, "licence": "CC0 1.0"}
    (tmp_path / "dataset.json").write_bytes(orjson.dumps(facts))
    return tmp_path


def test_images_and_label_maps_of_one_split(folder):
    samples = load(folder, site="sex")
    batch = samples.batch([0, 1])

    assert samples.ids == ("s2", "s3")
    assert samples.cases == ("p1", "p2")
    assert samples.sites == ("m", "f")
    assert samples.licence == "CC0 1.0"
    assert samples.warnings == ()
    assert samples.task.classes == ("background", "lesion")
    assert batch.references.tolist()[0] == (square() // 255).tolist()
    assert batch.references[1].sum() == 0
    with Image.open(folder / "images/2.png") as image:
        assert (batch.images[0, 0] * 255).round().int().tolist() == np.asarray(image).tolist()
    assert len(load(folder, split="").ids) == 4
    assert make(folder).load(1).digest() != samples.digest() == load(folder, site="sex").digest()


def test_sigmoid_planes_have_no_background(folder):
    samples = load(folder, exclusive=False)

    assert samples.task.classes == ("lesion",)
    assert samples.batch([0]).references.shape == (1, 1, 8, 8)
    assert samples.batch([0]).references.sum() == 12


def test_classes_and_values_of_the_parameters_go_first(folder):
    samples = load(folder, classes=["lesion", "rest"], values=[255, 0])

    assert samples.task.classes == ("lesion", "rest")
    assert samples.batch([0]).references[0].tolist() == (1 - square() // 255).tolist()


def test_masks_are_resized_by_the_nearest_pixel(folder):
    batch = load(folder, size=16).batch([0])

    assert batch.images.shape == (1, 1, 16, 16)
    assert set(batch.references.unique().tolist()) == {0, 1}
    assert batch.references.sum() == 4 * 12


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_colour_and_other_formats(folder, suffix):
    save(folder / f"images/9.{suffix}", np.full((8, 8, 3), 128, np.uint8))
    listed(folder, [f"s9,images/9.{suffix},masks/0.png,test,p9,m"])
    image = load(folder).batch([0]).images

    assert image.shape == (1, 3, 8, 8)
    assert image.mean().item() == pytest.approx(128 / 255, abs=0.01)


def test_16_bits_fill_the_same_range_beside_8_bits(folder):
    save(folder / "images/9.png", np.full((8, 8), 65535, np.uint16))
    save(folder / "images/8.png", np.full((8, 8), 255, np.uint8))
    rows = [f"s{i},images/{i}.png,masks/0.png,test,p{i},m" for i in (9, 8)]
    listed(folder, rows)

    assert load(folder).batch([0, 1]).images.unique().tolist() == [1.0]


@pytest.mark.parametrize(
    ("image", "mask", "message"),
    [
        (np.zeros((9, 8), np.uint8), square(), r"0.png: .*image's size 8 x 9, got 8 x 8"),
        (square(), square(high=7), r"0.png: expected mask values 0, 255, got 7"),
        (square(), np.zeros((8, 8, 3), np.uint8), "one number per pixel, got a colour image"),
        (square(), np.zeros((8, 8, 4), np.uint8), "expected a grey or RGB image, got RGBA"),
        (np.zeros((8, 8, 4), np.uint8), square(), "expected a grey or RGB image, got RGBA"),
        (np.zeros((8, 8), np.float32), square(), "expected 8 or 16 bits, got float32"),
    ],
)
def test_pairs_that_do_not_fit_name_the_file(folder, image, mask, message):
    for path, array in ((folder / "images/0.tif", image), (folder / "masks/0.png", mask)):
        save(path, array)
    listed(folder, ["s0,images/0.tif,masks/0.png,test,p0,m"])

    with pytest.raises(DataError, match=message):
        load(folder).digest()


def test_sizes_that_differ_are_refused(folder):
    save(folder / "images/3.png", np.zeros((9, 9), np.uint8))
    save(folder / "masks/3.png", np.zeros((9, 9), np.uint8))

    with pytest.raises(DataError, match=r"images of one shape.*set size to resize"):
        load(folder).digest()
    assert load(folder, size=8).digest()


def test_grey_beside_colour_is_not_a_matter_of_size(folder):
    save(folder / "images/3.png", np.zeros((8, 8, 3), np.uint8))

    with pytest.raises(DataError, match=r"images of one shape.*grey and colour cannot be mixed"):
        load(folder, size=8).digest()


@pytest.mark.parametrize("given", [{"lesion": 255}, [0, 255], "lesion"])
def test_mask_values_that_are_none_are_named(folder, given):
    (folder / "dataset.json").write_bytes(orjson.dumps({"mask_values": given}))

    with pytest.raises(DataError, match=r"dataset.json: mask_values: expected number -> name, got"):
        load(folder)


def test_a_size_of_nothing_is_refused(folder):
    with pytest.raises(DataError, match="segmentation_folder: size: expected 1 or more, got 0"):
        make(folder, size=0)


@pytest.mark.parametrize(
    ("rows", "head", "options", "message"),
    [
        (["s0,images/0.png,masks/0.png,val,p0,m"], HEAD, {}, "split 'test', got none; it has val"),
        (
            ["s0,images/0.png,masks/0.png,test,p0,m", "s1,images/1.png,masks/1.png,train,p0,m"],
            HEAD,
            {},
            "every case in one split, got case 'p0' in test and train",
        ),
        (["s0,images/x.png,masks/0.png,test,p0,m"], HEAD, {}, "no such file .*x.png"),
        (["s0,images/0.png,test"], "id,image,split", {}, "expected a column 'mask'"),
        (["s0,images/0.png,masks/0.png,test,p0,m"], HEAD, {"site": "age"}, "a column 'age'"),
        (["s0,images/0.png,masks/0.png,test,p0,m"] * 2, HEAD, {}, "unique sample ids"),
        (
            ["s0,images/0.png,masks/0.png,test,p0,m"],
            HEAD,
            {"classes": ["background", "a", "b"]},
            "two or more classes, background first, each with a mask value",
        ),
    ],
)
def test_mistakes_in_the_table_are_named(folder, rows, head, options, message):
    listed(folder, rows, head)

    with pytest.raises(DataError, match=message):
        load(folder, **options)


def test_without_cases_every_image_is_its_own(folder):
    listed(folder, ["s0,images/0.png,masks/0.png,test"], "id,image,mask,split")
    samples = load(folder)

    assert samples.cases == ("s0",)
    assert "every image is counted as a case of its own" in samples.warnings[0]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(DataError, match=r"expected split.csv in .*nowhere"):
        load(tmp_path / "nowhere")


def nifti(path, array, spacing=1.0):
    nibabel = pytest.importorskip("nibabel")
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, np.diag([spacing] * 3 + [1.0])), path)


@pytest.fixture
def volumes(tmp_path):
    rng = np.random.default_rng(0)
    scan = (rng.random((6, 5, 3)) * 900 + 100).astype(np.float32)
    labels = np.zeros((6, 5, 3), np.uint8)
    labels[1:3, 2:4, 1] = 1
    nifti(tmp_path / "a.nii.gz", scan)
    nifti(tmp_path / "m.nii.gz", labels)
    listed(tmp_path, ["v,a.nii.gz,m.nii.gz,test,v,m"])
    return tmp_path, scan, labels


def test_volumes_are_read_slice_by_slice(volumes):
    folder, scan, labels = volumes
    samples = load(folder, classes=["none", "organ"])
    batch = samples.batch([0, 1, 2])

    assert samples.ids == ("v/000", "v/001", "v/002")
    assert samples.cases == ("v", "v", "v")
    assert "own smallest and largest" in samples.warnings[0]
    unit = (scan - scan.min()) / (scan.max() - scan.min())
    for k in range(3):
        np.testing.assert_allclose(batch.images[k, 0], unit[:, :, k].T, atol=1e-6)
        np.testing.assert_array_equal(batch.references[k], labels[:, :, k].T)
    assert load(folder, classes=["none", "organ"], size=8).batch([1]).images.shape == (1, 1, 8, 8)


def test_volumes_on_other_grids_are_refused(volumes):
    folder, _, labels = volumes
    for array, spacing, message in (
        (labels[:5], 1.0, r"its image's size \(6, 5, 3\), got \(5, 5, 3\)"),
        (labels, 2.0, "another affine"),
    ):
        nifti(folder / "m.nii.gz", array, spacing)
        with pytest.raises(DataError, match=message):
            load(folder, classes=["none", "organ"])
    (folder / "m.nii.gz").write_bytes(b"no volume")
    with pytest.raises(DataError, match="m.nii.gz: cannot be read as NIfTI"):
        load(folder, classes=["none", "organ"])


@NEEDS_DATA
@pytest.mark.parametrize("name", SETS)
def test_the_shared_sets_load(name):
    classes, images, cases = SETS[name]
    samples = load(Path(name), size=32)

    assert len(samples.task.classes) == classes
    assert images is None or len(samples) == images
    assert len(set(samples.cases)) <= cases
    assert samples.digest()
    if name == "busi_seg":
        empty = sum(not bool(b.references.any()) for b in samples.batches(1))
        assert empty == 12

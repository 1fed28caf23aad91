"""On a small tree in the layout of the competition, written here."""

import numpy as np
import pytest
from PIL import Image
from sklearn.model_selection import GroupKFold

from palpate import registry
from palpate.datasets.uw_madison import ORGANS, decoded, folds_of
from palpate.errors import ConfigError, DataError

HEIGHT, WIDTH = 6, 8


def load(path, **parameters):
    given = {"path": str(path), "folds": 4, "size": None, "channels": 1} | parameters
    return registry.create("datasets", "uw_madison", given).load()


def runs_of(mask):
    """The opposite of `decoded`, pixel by pixel."""
    flat = mask.reshape(-1)
    return " ".join(f"{i + 1} 1" for i in np.flatnonzero(flat))


@pytest.fixture
def tree(tmp_path):
    """Six cases of two slices; stomach and large bowel overlap in the first slice of each."""
    rng = np.random.default_rng(0)
    lines = ["id,class,segmentation"]
    scans = [f"case{c}_day{d}" for c, d in ((1, 0), (2, 3), (3, 0), (4, 20), (7, 0), (7, 1))]
    for scan in [*scans, "case81_day30", "case81_day31"]:
        for number in (1, 2):
            folder = tmp_path / "train" / scan.split("_")[0] / scan / "scans"
            folder.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 3000, (HEIGHT, WIDTH)).astype(np.uint16)
            name = f"slice_{number:04d}_{WIDTH}_{HEIGHT}_1.50_1.50.png"
            Image.fromarray(pixels).save(folder / name)
            drawn = {"large_bowel": "2 3 10 2", "stomach": "3 1"} if number == 1 else {}
            lines += [
                f"{scan}_slice_{number:04d},{organ},{drawn.get(organ, '')}" for organ in ORGANS
            ]
    (tmp_path / "train.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def everything(tree, **parameters):
    return [load(tree, split=split, **parameters) for split in ("train", "val", "test")]


def test_three_planes_that_may_overlap(tree):
    samples = load(tree)
    batch = samples.batch([0, 1])

    assert samples.task.classes == ORGANS
    assert not samples.task.exclusive
    planes = batch.references[0]
    assert planes.shape == (3, HEIGHT, WIDTH)
    assert planes[0, 0].tolist() == [0, 1, 1, 1, 0, 0, 0, 0]  # along the rows, from 1
    assert planes[0, 1].tolist() == [0, 1, 1, 0, 0, 0, 0, 0]
    assert (planes[0] & planes[2]).sum() == 1
    assert planes[1].sum() == batch.references[1].sum() == 0


def test_16_bit_images_are_divided_by_their_own_maximum(tree):
    images = load(tree).batch([0, 1]).images

    assert images.amax(dim=(1, 2, 3)).tolist() == [1.0, 1.0]
    assert load(tree, channels=3).batch([0]).images.shape == (1, 3, HEIGHT, WIDTH)


def test_splits_share_no_case_and_leave_out_the_bad_scans(tree):
    parts = everything(tree)
    cases = [set(p.cases) for p in parts]

    assert sum(len(p) for p in parts) == 12
    assert sum(len(c) for c in cases) == len(set.union(*cases))
    names = {name for p in parts for name in p.ids}
    assert "case7_day1_slice_0001" in names
    assert not any(n.startswith(("case7_day0", "case81_day30")) for n in names)


def test_only_slices_with_organs_where_asked(tree):
    assert sum(len(p) for p in everything(tree, organs_only=True)) == 6


def test_folds_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    cases = [f"case{rng.integers(0, 60)}" for _ in range(900)]
    expected = np.zeros(900, int)
    for fold, (_, held) in enumerate(GroupKFold(10).split(cases, groups=cases)):
        expected[held] = fold

    assert folds_of(cases, 10) == expected.tolist()


def test_runs_are_read_back():
    mask = (np.random.default_rng(0).random((HEIGHT, WIDTH)) < 0.4).astype(np.uint8)

    assert (decoded(runs_of(mask), (HEIGHT, WIDTH), where="x") == mask).all()
    assert decoded("", (2, 2), where="x").sum() == 0


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ("1 2 3", "expected pairs of start and length, got '1 2 3'"),
        ("a b", "expected pairs"),
        ("47 5", "within 8 x 6 pixels, got start 47 and length 5"),
        ("0 1", "got start 0"),
    ],
)
def test_runs_that_do_not_fit_are_named(runs, message):
    with pytest.raises(DataError, match=message):
        decoded(runs, (HEIGHT, WIDTH), where="case1_day0_slice_0001")


def test_resizing_keeps_masks_whole(tree):
    batch = load(tree, size=16).batch([0])

    assert batch.images.shape == (1, 1, 16, 16)
    assert set(batch.references.unique().tolist()) == {0, 1}


def test_mistakes_are_named(tree, tmp_path_factory):
    with pytest.raises(DataError, match="uw-madison-gi-tract-image-segmentation"):
        load(tmp_path_factory.mktemp("none"))
    with pytest.raises(ConfigError, match="expected 3 folds or more"):
        load(tree, folds=2)
    with pytest.raises(DataError, match="expected 10 cases or more, got 6"):
        load(tree, folds=10)
    next(tree.glob("train/case1/*/scans/slice_0002*")).unlink()
    with pytest.raises(DataError, match="no image of case1_day0_slice_0002"):
        load(tree)
    (tree / "train.csv").write_text("id,class,segmentation\ncase1_day0_slice_0001,spleen,\n")
    with pytest.raises(DataError, match="got 'spleen' for case1_day0_slice_0001"):
        load(tree)

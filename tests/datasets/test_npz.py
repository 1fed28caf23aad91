import os
from pathlib import Path

import numpy as np
import pytest

from palpate import registry
from palpate.errors import DataError
from palpate.types import Classification, MultiLabel

SHARED = Path(os.environ.get("PALPATE_DATA", "none"))


def load(path, **parameters):
    return registry.create("datasets", "npz", {"path": str(path), **parameters}).load()


def arrays(folder, name="made", labels=((0,), (1,), (1,)), shape=(8, 8)):
    rng = np.random.default_rng(0)
    content = {}
    for split in ("train", "val", "test"):
        size = (len(labels), *shape)
        content[f"{split}_images"] = rng.integers(0, 256, size, dtype=np.uint8)
        content[f"{split}_labels"] = np.array(labels, dtype=np.uint8)
    folder.mkdir(exist_ok=True, parents=True)
    np.savez(folder / f"{name}.npz", **content)
    return folder / f"{name}.npz"


def table(folder, lines, head="split,index,label,group,sex"):
    (folder / "split.csv").write_text("\n".join([head, *lines]) + "\n")


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 3)])
def test_images_are_the_files_images(tmp_path, shape):
    path = arrays(tmp_path, shape=shape)
    samples = load(path, split="val", classes=["dark", "bright"], positive="bright")

    with np.load(path) as content:
        expected = content["val_images"].astype(np.float32) / 255
    got = samples.batch([0, 2]).images.numpy()
    assert np.array_equal(got, np.moveaxis(expected.reshape(3, 8, 8, -1), 3, 1)[[0, 2]])
    assert samples.task == Classification(("dark", "bright"), positive=1)
    assert samples.references.tolist() == [0, 1, 1]
    assert samples.ids[2] == samples.cases[2] == "made/val/00002"
    assert samples.label == "made val"
    assert "every image is counted as a case" in samples.warnings[0]


def test_names_cases_and_subgroups_come_from_the_files_beside(tmp_path):
    path = arrays(tmp_path)
    (tmp_path / "dataset.json").write_text(
        '{"classes": {"1": "bright", "0": "dark"}, "licence": "CC0 1.0", "attribution": "us"}'
    )
    table(
        tmp_path,
        [
            "train,0,dark,9,male",
            "test,0,dark,4,male",
            "test,1,bright,5,female",
            "test,2,bright,4,male",
        ],
    )

    samples = load(path, site="sex")

    assert samples.task.classes == ("dark", "bright")
    assert samples.cases == ("4", "5", "4")
    assert samples.sites == ("male", "female", "male")
    assert (samples.licence, samples.attribution, samples.warnings) == ("CC0 1.0", "us", ())
    assert load(path, case="sex").cases == ("male", "female", "male")


def test_label_vectors_are_multi_label(tmp_path):
    path = arrays(tmp_path, labels=((0, 1), (1, 1), (0, 0)))

    assert load(path, classes=["a", "b"]).task == MultiLabel(("a", "b"))


@pytest.mark.parametrize("folder", ["", "made"])
def test_a_file_elsewhere_is_looked_for_in_the_shared_folder(tmp_path, monkeypatch, folder):
    arrays(tmp_path / folder)
    monkeypatch.setenv("PALPATE_DATA", str(tmp_path))

    assert len(load("nowhere/made.npz", classes=["a", "b"])) == 3


def test_a_missing_file_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PALPATE_DATA", str(tmp_path))

    with pytest.raises(DataError, match=r"expected a file at .*made\.npz, or made\.npz in the fol"):
        load(tmp_path / "x" / "made.npz", classes=["a", "b"])


@pytest.mark.parametrize(
    ("lines", "options", "message"),
    [
        (["test,0,dark,1,f"], {}, "expected rows 0 to 2 of test in order, got 1 rows"),
        (
            ["test,0,dark,1,f", "test,2,bright,1,f", "test,1,bright,1,f"],
            {},
            "expected rows 0 to 2 of test in order",
        ),
        (
            ["test,0,bright,1,f", "test,1,bright,1,f", "test,2,bright,1,f"],
            {},
            "expected label 'bright' for made/test/00000, got class 0",
        ),
        (
            ["test,0,dark,1,f", "test,1,bright,1,f", "test,2,bright,1,f"],
            {"site": "age"},
            "expected a column 'age', got split, index, label, group, sex",
        ),
    ],
)
def test_a_table_that_does_not_fit_is_refused(tmp_path, lines, options, message):
    path = arrays(tmp_path)
    table(tmp_path, lines)

    with pytest.raises(DataError, match=message):
        load(path, classes=["dark", "bright"], **options)


def test_a_table_without_split_and_index_is_refused(tmp_path):
    path = arrays(tmp_path)
    table(tmp_path, ["dark"], head="label")

    with pytest.raises(DataError, match="expected a column 'index', got label"):
        load(path, classes=["dark", "bright"])


def test_a_subgroup_without_a_table_is_refused(tmp_path):
    with pytest.raises(DataError, match="expected a column 'sex', got no such file"):
        load(arrays(tmp_path), classes=["dark", "bright"], site="sex")


def test_class_names_are_needed(tmp_path):
    with pytest.raises(DataError, match="expected class names, got none; give classes"):
        load(arrays(tmp_path))


def test_a_misspelt_positive_class_offers_neighbours(tmp_path):
    with pytest.raises(Exception, match="no class 'brihgt'; did you mean 'bright'"):
        load(arrays(tmp_path), classes=["dark", "bright"], positive="brihgt")


def test_labels_out_of_range_are_named(tmp_path):
    path = arrays(tmp_path, labels=((0,), (1,), (2,)))

    with pytest.raises(DataError, match="expected labels from 0 to 1, got 2 in sample"):
        load(path, classes=["dark", "bright"])


@pytest.mark.parametrize("content", ["[1", "[1, 2]"])
def test_broken_facts_are_named(tmp_path, content):
    path = arrays(tmp_path)
    (tmp_path / "dataset.json").write_text(content)

    with pytest.raises(DataError, match=r"dataset\.json: expected a JSON object"):
        load(path)


@pytest.mark.skipif(not SHARED.is_dir(), reason="PALPATE_DATA is not set")
@pytest.mark.parametrize(
    ("name", "count", "cases", "classes"),
    [("busi_cls64", 165, True, 3), ("isic2017_28", 388, True, 3), ("mednist64", 600, False, 6)],
)
def test_shared_sets_load(name, count, cases, classes):
    samples = load(f"{name}.npz")

    assert len(samples) == count
    assert len(samples.task.classes) == classes
    assert (len(set(samples.cases)) < count) == cases
    train = load(f"{name}.npz", split="train")
    assert not set(samples.cases) & set(train.cases)

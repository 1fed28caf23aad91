import numpy as np
import pyarrow.parquet as pq
import pytest

from palpate import record
from palpate.errors import StoreError
from palpate.outcome import Outcome, Status, Verdict
from palpate.record import CellRecord, Record
from palpate.regions import Region


def outcome(sample="a", **changes):
    values = {
        "sample": sample,
        "case": "p",
        "site": "",
        "trial": 0,
        "reference": (1,),
        "decision": (1,),
        "probabilities": (0.25, 0.75),
        "score": 1.0,
        "last_score": 1.0,
        "finite": True,
        "identical": False,
        "verdict": Verdict.MASKED,
        "linf": 0.1,
        "l2": 0.2,
        "status": Status.OK,
    }
    return Outcome(**{**values, **changes})


def cell(key="k", **changes):
    words = dict.fromkeys(("target", "defence", "dataset", "family", "perturbation"), "x")
    return CellRecord(key=key, status="ok", setting={}, trials=1, samples=2, **{**words, **changes})


def test_rows_come_back_as_they_were(tmp_path):
    broken = outcome(
        "b", decision=(), finite=False, verdict=Verdict.DUE, probabilities=(np.nan,) * 2
    )
    record.write_cell(tmp_path, cell(), [outcome(l0=3.0), broken])

    columns = record.read_samples(tmp_path / "samples" / "k.parquet")

    assert columns["sample"].tolist() == ["a", "b"]
    assert [columns["l0"][0], np.isnan(columns["l0"][1])] == [3, True]
    assert columns["decision"].tolist() == [[1], [-1]]
    assert columns["verdict"].tolist() == ["masked", "due"]
    assert np.isnan(columns["probabilities"][1]).all()
    assert record.read_cell(tmp_path / "cells" / "k.json") == cell()


def test_regions_of_masks_come_back_as_columns(tmp_path):
    first, second = Region(3, 4, 5, 1.5, 0.5, 2, 1), Region(0, 0, 0, np.nan, 1.0, 0, 0)
    record.write_cell(tmp_path, cell(), [outcome(regions=(first, second)), outcome("b")])

    columns = record.read_samples(tmp_path / "samples" / "k.parquet")

    assert columns["region_overlap"].tolist() == [[3, 0], [-1, -1]]
    assert columns["region_hd95"][0, 0] == 1.5
    assert np.isnan(columns["region_hd95"][:, 1]).all()
    assert columns["region_found"].tolist()[0] == [1, 0]


def test_runs_of_version_1_are_read_without_regions(tmp_path):
    record.write_cell(tmp_path, cell(schema_version=1), [outcome()])
    path = tmp_path / "samples" / "k.parquet"
    table = pq.read_table(path)
    old = [name for name in table.column_names if not name.startswith("region_")]
    pq.write_table(table.select(old), path)

    assert record.read_cell(tmp_path / "cells" / "k.json").schema_version == 1
    columns = record.read_samples(path)
    assert columns["region_overlap"].shape == columns["region_hd95"].shape == (1, 0)
    assert columns["score"].tolist() == [1.0]


def test_runs_of_version_2_are_read_without_counts_of_pixels(tmp_path):
    record.write_cell(tmp_path, cell(schema_version=2), [outcome(pixels=9, wrong_pixels=4)])
    path = tmp_path / "samples" / "k.parquet"
    table = pq.read_table(path)
    assert record.read_samples(path)["wrong_pixels"].tolist() == [4]
    old = [name for name in table.column_names if "pixels" not in name and name != "prompt"]
    pq.write_table(table.select(old), path)

    columns = record.read_samples(path)
    assert record.read_cell(tmp_path / "cells" / "k.json").schema_version == 2
    assert columns["pixels"].tolist() == columns["changed_pixels"].tolist() == [0]
    assert columns["prompt"].tolist() == [""]


def test_some_columns_are_read_alone(tmp_path):
    record.write_cell(tmp_path, cell(), [outcome(), outcome("b")])
    path = tmp_path / "samples" / "k.parquet"
    whole = record.read_samples(path)

    some = record.read_samples(path, ("decision", "sample"))

    assert list(some) == ["decision", "sample"]
    assert all((some[name] == whole[name]).all() for name in some)


def test_the_same_cell_gives_the_same_bytes(tmp_path):
    images = {"sample": np.array(["a"]), "clean": np.ones((1, 2), np.float32)}
    for folder in (tmp_path / "one", tmp_path / "two"):
        record.write_cell(folder, cell(), [outcome()], images)

    files = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*.*"))
    assert len(files) == 3
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_the_cell_file_comes_last(tmp_path, monkeypatch):
    def full(path, content):
        if path.suffix == ".json":
            raise StoreError("full")
        kept(path, content)

    kept = record.write_atomic
    monkeypatch.setattr(record, "write_atomic", full)
    with pytest.raises(StoreError):
        record.write_cell(tmp_path, cell(), [outcome()])

    assert not list(tmp_path.glob("cells/*"))


def test_damaged_files_are_named(tmp_path):
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(StoreError, match=r"run\.json: expected JSON, got a damaged file"):
        Record.load(tmp_path)
    (tmp_path / "run.json").write_text('{"schema_version": 99}')
    with pytest.raises(StoreError, match="expected schema_version 1 or 2 or 3, got 99"):
        Record.load(tmp_path)
    with pytest.raises(StoreError, match="no run at .*nowhere"):
        Record.load(tmp_path / "nowhere")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(StoreError, match=r"bad\.parquet: cannot be read"):
        record.read_samples(tmp_path / "bad.parquet")


def test_a_failed_write_leaves_nothing(tmp_path):
    (tmp_path / "cells").write_text("a file where a folder should be")

    with pytest.raises(StoreError, match="cannot write"):
        record.write_json(tmp_path / "cells" / "k.json", {})
    assert [p.name for p in tmp_path.iterdir()] == ["cells"]

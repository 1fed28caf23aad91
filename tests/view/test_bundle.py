import json
import re

import numpy as np
import pytest

from palpate.errors import StoreError
from palpate.view.bundle import MARK, write_bundle
from palpate.view.sheet import Query
from palpate.view.shelf import Shelf


def files_in(folder):
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def piece(folder, name):
    text = (folder / "data" / f"{name}.js").read_text()
    found = re.fullmatch(r'piece\("([0-9a-z]+)",(.*)\);\n', text, re.DOTALL)
    assert found[1] == name
    return json.loads(found[2])


def test_it_holds_everything_and_nothing_else(awkward, tmp_path):
    (awkward.folder / "report.html").write_text("<h1>Report</h1>")
    page = write_bundle(awkward.folder, tmp_path / "out")

    assert page == tmp_path / "out" / "index.html"
    keys = {entry["key"] for entry in awkward.manifest["plan"]}
    data = {f"data/{name}.js" for name in (*keys, "run", "cells")}
    found = files_in(tmp_path / "out")
    pictures = {name for name in found if re.fullmatch(r"pictures/[0-9a-f]{32}\.png", name)}
    page_files = {"index.html", "source.js", "view.js", "view.css", "style.css"}
    assert found == data | pictures | page_files | {"report.html", MARK}
    assert piece(tmp_path / "out", "run")["report"] is True
    assert list(tmp_path.glob(".out*")) == []


def test_its_pieces_are_what_the_server_says(awkward, key_of, tmp_path):
    write_bundle(awkward.folder, tmp_path / "out")
    shelf = Shelf.open(awkward.folder)
    key = key_of("fgsm")
    found = piece(tmp_path / "out", key)

    assert found["head"] == shelf.head(key)
    assert found["samples"] == json.loads(
        json.dumps(shelf.samples(key).plain(), default=np.ndarray.tolist)
    )
    assert [(c["sample"], c["trial"]) for c in found["cases"]] == [("s0030", 0), ("s0002", 0)]
    shown = shelf.case(key, "s0030", trial=0)
    for mine, theirs in zip(found["cases"][0]["pictures"], shown, strict=True):
        assert (mine["alt"], mine["caption"]) == (theirs["alt"], theirs["caption"])
        assert (tmp_path / "out" / mine["source"]).read_bytes().startswith(b"\x89PNG")
    cells = piece(tmp_path / "out", "cells")
    assert cells["total"] == len(shelf.cells(Query())["rows"]) == 10


def test_damaged_and_missing_cells_are_said(awkward, key_of, tmp_path):
    write_bundle(awkward.folder, tmp_path / "out")

    for name in ("cells", "samples", "images"):
        found = piece(tmp_path / "out", key_of(f"broken_{name}"))
        assert found["samples"] is None
        assert found["head"]["state"] == "damaged"
        assert found["problem"]
    failed = piece(tmp_path / "out", key_of("patch_drop", coverage=0.5))
    assert failed["head"]["state"] == "failed"
    assert failed["problem"].startswith("cell ")


def test_pictures_that_cannot_be_shown_do_not_stop_it(maker, tmp_path):
    maker.cell("m", outcomes=[maker.outcome(i, right=True) for i in range(3)])
    images = {
        "sample": np.array(["s0001"]),
        "trial": np.array([0]),
        "clean": np.zeros((1, 1, 4, 4), dtype=np.float32),
    }
    cell = maker.cell(
        "m",
        "attacks",
        "fgsm",
        setting={"epsilon": 0.1},
        outcomes=[maker.outcome(i, right=i != 1) for i in range(3)],
        images=images,
    )
    record = maker.write()
    write_bundle(record.folder, tmp_path / "out")
    (case,) = piece(tmp_path / "out", cell.key)["cases"]
    assert "cannot be shown" in case["problem"]


def test_equal_pictures_are_written_once(awkward, key_of, tmp_path):
    write_bundle(awkward.folder, tmp_path / "out")
    assert len(list((tmp_path / "out" / "pictures").iterdir())) == 6


def test_an_older_bundle_is_replaced_as_a_whole(awkward, tmp_path):
    out = tmp_path / "out"
    write_bundle(awkward.folder, out)
    (out / "data" / "old.js").write_text("old")
    write_bundle(awkward.folder, out)

    assert not (out / "data" / "old.js").exists()
    assert (out / "index.html").is_file()
    assert {path.name for path in tmp_path.iterdir()} == {"run", "out"}


def test_an_empty_folder_is_filled(awkward, tmp_path):
    (tmp_path / "out").mkdir()
    assert write_bundle(awkward.folder, tmp_path / "out").is_file()


def test_other_folders_are_left_alone(awkward, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    (tmp_path / "file").write_text("mine")

    for name, problem in (("mine", "an older bundle, got other files"), ("file", "got a file")):
        with pytest.raises(StoreError, match=problem):
            write_bundle(awkward.folder, tmp_path / name)
    with pytest.raises(StoreError, match="got other files"):
        write_bundle(awkward.folder, awkward.folder)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
    assert (tmp_path / "file").read_text() == "mine"


def test_nothing_half_written_is_left(awkward, tmp_path, monkeypatch):
    out = tmp_path / "out"
    write_bundle(awkward.folder, out)
    before = {name: (out / name).read_bytes() for name in files_in(out)}

    def full(shelf, key, *, folder):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("palpate.view.bundle._cell", full)
    with pytest.raises(StoreError, match=r"cannot write .*out: No space left on device"):
        write_bundle(awkward.folder, out)
    assert {name: (out / name).read_bytes() for name in files_in(out)} == before
    assert {path.name for path in tmp_path.iterdir()} == {"run", "out"}


def test_a_place_below_a_file_is_said(awkward, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write"):
        write_bundle(awkward.folder, tmp_path / "file" / "out")


def test_no_run_no_folder(tmp_path):
    with pytest.raises(StoreError, match="no run at"):
        write_bundle(tmp_path / "nowhere", tmp_path / "out")
    assert not (tmp_path / "out").exists()

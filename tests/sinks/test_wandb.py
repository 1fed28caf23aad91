"""W&B gets the rows; an offline run is read back from its folder."""

import json
import sys
import time

import pytest

import palpate
from palpate.errors import ConfigError, StoreError
from palpate.sinks._pack import COLUMNS, packed

_BLOCK = 32768
_HEAD = 7


def records(path):
    """Records of a W&B run file: LevelDB's log format, blocks of 32 KiB, a head of 7 bytes each."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, place, held = path.read_bytes(), _HEAD, b""
    assert content[:4] in (b":W&B", b"")
    while place + _HEAD <= len(content):
        left = _BLOCK - place % _BLOCK
        if left < _HEAD:
            place += left
            continue
        size, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        place += _HEAD
        if place + size > len(content):
            return
        held += content[place : place + size]
        place += size
        if kind in (1, 4):  # a whole record, or the last part of one
            record = Record()
            record.ParseFromString(held)
            held = b""
            yield record


@pytest.fixture(scope="module")
def folder(rich, tmp_path_factory):
    """The folder of one offline run."""
    where = tmp_path_factory.mktemp("tracker")
    text = palpate.Run(rich).log_to("wandb", project="breast", where=str(where))
    (found,) = where.glob("wandb/offline-run-*")
    assert text == str(found)
    (path,) = found.glob("run-*.wandb")
    for _ in range(300):  # W&B's service may still write when `finish` is back
        if any(record.WhichOneof("record_type") == "exit" for record in records(path)):
            return found
        time.sleep(0.1)
    raise AssertionError(f"{path} has no end")


def test_what_was_sent_is_what_is_read(rich, folder):
    (path,) = folder.glob("run-*.wandb")
    found = list(records(path))
    pack = packed(rich)

    (run,) = (r.run for r in found if r.WhichOneof("record_type") == "run")
    assert (run.project, run.display_name) == ("breast", pack.name)
    config = {u.key: json.loads(u.value_json) for u in run.config.update}
    assert {k: config[k] for k in pack.origin} == pack.origin
    summary = {
        u.key: json.loads(u.value_json)
        for r in found
        if r.WhichOneof("record_type") == "summary"
        for u in r.summary.update
    }
    assert {k: summary[k] for k in pack.metrics} == pytest.approx(pack.metrics)
    (table,) = folder.glob("files/media/table/summary_*.table.json")
    rows = json.loads(table.read_text())
    assert rows["columns"] == list(COLUMNS)
    assert rows["data"] == [list(row) for row in pack.rows]


def test_no_identifier_no_image_and_no_machine_is_in_the_run(rich, folder):
    # what `wandb sync` would send: the run file and the files; the logs beside them stay
    files = [*folder.glob("run-*.wandb"), *folder.glob("files/**/*.*")]
    content = b"\n".join(path.read_bytes() for path in files if path.is_file())
    cells = [rich.samples(cell) for cell in rich.cells]
    names = {str(n) for c in cells for column in ("sample", "case") for n in c[column]}

    assert len(files) == 2
    assert not [name for name in names if f'"{name}"'.encode() in content]
    assert str(rich.folder).encode() not in content
    assert not any(magic in content for magic in (b"\x89PNG", b"NUMPY", b"PK\x03\x04", b"PAR1"))
    (run,) = (r.run for r in records(files[0]) if r.WhichOneof("record_type") == "run")
    assert run.host == "not recorded"
    assert not run.HasField("git")


def test_a_folder_that_cannot_be_written_is_one_line(maker, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="wandb: cannot log to project 'palpate': ") as caught:
        palpate.Run(maker.write()).log_to("wandb", where=str(tmp_path / "file" / "x"))
    assert "\n" not in str(caught.value)


def test_without_wandb_it_says_what_to_install(maker, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"expected W&B; pip install 'palpate\[wandb\]'"):
        palpate.Run(maker.write()).log_to("wandb")

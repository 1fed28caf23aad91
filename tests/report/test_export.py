import csv
import io
import json
from xml.etree import ElementTree as ET

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from palpate.errors import UnknownComponent
from palpate.report.export import NAMES, export
from palpate.statistics.checks import checks
from palpate.statistics.summary import summarise
from palpate.statistics.table import Table


@pytest.fixture
def rows(rich):
    return summarise(rich).to_dicts()


def test_parquet_has_every_row_its_types_and_its_origin(rich, rows, tmp_path):
    table = pq.read_table(export(rich, "parquet", path=tmp_path / "s.parquet"))

    assert table.to_pylist() == rows
    assert table.schema.field("value").type == pa.float64()
    assert table.schema.field("n").type == pa.int64()
    assert table.schema.field("setting").type == pa.string()
    source = json.loads(table.schema.metadata[b"palpate"])
    assert source["confidence"] == 0.95
    assert source["targets"] == {"mamba": "a" * 64, "resnet": "a" * 64}
    assert (source["planned"], source["finished"]) == (len(rich.cells), len(rich.cells))


def test_csv_reads_back(rich, rows, tmp_path):
    text = export(rich, "csv", path=tmp_path / "s.csv").read_bytes().decode()
    found = list(csv.DictReader(io.StringIO(text, newline="")))

    assert len(found) == len(rows)
    for line, row in zip(found, rows, strict=True):
        assert list(line) == list(row)
        assert float(line["value"] or "nan") == pytest.approx(
            row["value"] if row["value"] is not None else float("nan"), nan_ok=True
        )
        assert json.loads(line["setting"]) == json.loads(row["setting"])


def test_json_has_the_checks_too(rich, rows, tmp_path):
    data = json.loads(export(rich, "json", path=tmp_path / "s.json").read_text())

    assert data["summary"] == rows
    assert data["checks"] == checks(rich).to_dicts()
    assert data["run"]["data_digest"] == "d" * 64


def test_junit_has_a_case_per_check(rich, tmp_path):
    suite = ET.fromstring(export(rich, "junit", path=tmp_path / "c.xml").read_bytes())[0]
    found = checks(rich)

    assert suite.get("tests") == str(len(found))
    assert suite.get("skipped") == str(len(found.find(status="not run")))
    assert suite.get("failures") == str(len(found.find(status="fail")))


@pytest.mark.parametrize("form", NAMES)
def test_an_empty_run_exports_nothing_but_well(maker, form):
    path = export(maker.write(), form)

    assert path == maker.folder / NAMES[form]
    if form == "parquet":
        assert pq.read_table(path).num_rows == 0


def test_other_formats_are_refused(rich):
    with pytest.raises(UnknownComponent, match="no format named 'parket'; did you mean 'parquet'"):
        export(rich, "parket")


def test_a_column_of_none_alone_keeps_its_type(maker):
    maker.cell("mamba", error={"type": "OSError", "message": "no"})
    table = summarise(maker.write()).to_arrow()

    assert table.column("value").null_count == table.num_rows > 0
    assert table.schema.field("value").type == pa.float64()
    assert Table(()).to_arrow().num_rows == 0

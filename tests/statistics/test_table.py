from dataclasses import dataclass

from palpate.statistics.table import Table


@dataclass(frozen=True)
class Row:
    name: str
    value: float | None


def test_ways_out():
    table = Table((Row("<b>", 0.5), Row("c", None)))
    assert len(table) == 2
    assert table.to_dicts()[0] == {"name": "<b>", "value": 0.5}
    assert list(table.to_pandas()["name"]) == ["<b>", "c"]
    assert table.find(name="c") == [Row("c", None)]
    assert "&lt;b&gt;" in table._repr_html_()
    assert "<b>" not in table._repr_html_()


def test_no_rows():
    assert Table(())._repr_html_().startswith("<table>")

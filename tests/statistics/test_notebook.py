"""What a notebook shows: static tables, bars drawn to scale, hostile names as text."""

import dataclasses
from html.parser import HTMLParser

import pyarrow as pa
import pytest

import palpate
from palpate.outcome import Status
from palpate.statistics._html import LIMIT, Markup, Scale, bar, number, table
from palpate.statistics.checks import checks
from palpate.statistics.compare import compare
from palpate.statistics.notebook import setting_text
from palpate.statistics.summary import Summary, summarise

HOSTILE = "<script>alert('x')</script>\" onload=\"x"
ALLOWED = {"table", "caption", "thead", "tbody", "tr", "th", "td", "svg", "line", "circle", "p"}


class Page(HTMLParser):
    """Tags, attributes, and the cells of every row."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.rows, self.texts = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def harmless(text):
    """Parse, and hold every tag and attribute against what a static table needs."""
    page = Page(text)
    assert {tag for tag, _ in page.tags} <= ALLOWED
    for _, attrs in page.tags:
        assert not any(name.startswith("on") or name in ("src", "href") for name in attrs)
    return page


@pytest.fixture(scope="module")
def summary(rich):
    return summarise(rich)


@pytest.fixture
def hostile(maker):
    maker.targets = (HOSTILE,)
    maker.cell(HOSTILE, outcomes=[maker.outcome(i, right=True) for i in range(40)])
    stuck = [maker.outcome(i, right=True, status=Status.NO_GRADIENT) for i in range(40)]
    setting = {"epsilon": 0.01, "norm": HOSTILE}
    maker.cell(HOSTILE, "attacks", HOSTILE, setting=setting, outcomes=stuck)
    return maker.write()


def test_a_summary_has_a_row_and_a_bar_per_number(summary):
    page = harmless(summary._repr_html_())
    head, *rows = page.rows

    shown = summary.rows[:LIMIT]
    assert head[:5] == ["model", "disturbance", "setting", "metric", "value"]
    assert len(rows) == len(shown)
    assert len(page.all("svg")) == sum(row.value is not None for row in shown)
    for cells, row in zip(rows, shown, strict=True):
        assert cells[0] == row.target
        assert cells[4] == number(row.value)
    assert "95 % interval" in head


def test_bars_are_drawn_to_scale():
    page = harmless(bar(0.5, (0.25, 1.0), Scale(0.0, 1.0)).text)
    zero, interval = page.all("line")
    (dot,) = page.all("circle")

    left, right = float(interval["x1"]), float(interval["x2"])
    start = float(zero["x1"])
    assert (left - start) / (right - start) == pytest.approx(0.25, abs=0.01)
    assert (float(dot["cx"]) - start) / (right - start) == pytest.approx(0.5, abs=0.01)
    assert page.all("svg")[0]["aria-label"] == "0.500, interval 0.250 to 1.000"


def test_no_bar_without_a_value_and_no_line_without_an_interval():
    scale = Scale.around([0.5])
    assert bar(None, (None, None), scale) == bar(float("nan"), (0, 1), scale) == Markup("")
    assert bar(0.5, (None, None), scale).text.count("<line") == 1  # the axis


def test_scales_hold_zero_and_every_value():
    assert Scale.around([0.2, 0.9, None]) == Scale(0.0, 1.0)
    assert Scale.around([3.0, -1.0, float("inf")]) == Scale(-1.0, 3.0)
    assert Scale.around([0.02, -0.3], symmetric=True) == Scale(-0.3, 0.3)
    assert Scale.around([0.0], symmetric=True) == Scale(-1.0, 1.0)


def test_small_numbers_are_not_printed_as_nothing():
    assert number(0.0001) == "1.0e−04"
    assert number(-0.25) == "−0.250"
    assert number(0.0) == "0.000"
    assert number(None) == number(float("inf")) == "–"


def test_settings_in_words():
    setting = {"epsilon": 2 / 255, "norm": "linf", "restarts": 1, "goal": None, "sites": ["a", "b"]}
    assert setting_text({**setting, "flag": False, "fill": ""}) == (
        "epsilon 2/255, norm linf, restarts 1, sites a + b"
    )


def test_long_tables_say_what_they_leave_out(summary):
    many = Summary(summary.rows * (1 + 2 * LIMIT // len(summary)), summary.confidence)
    page = harmless(many._repr_html_())

    assert len(page.rows) == LIMIT + 1
    assert f"{len(many) - LIMIT} more rows; to_pandas() has them all." in page.texts
    assert len(many.to_pandas()) == len(many)


def test_a_comparison_shows_both_values_and_the_verdict(rich):
    record = dataclasses.replace(rich, cells=rich.cells[:8])
    found = compare(rich, record)
    page = harmless(found._repr_html_())
    head, *rows = page.rows

    assert head[4:7] == ["before", "after", "difference"]
    assert [row[-1] for row in rows] == [row.verdict for row in found] == ["same"] * len(found)
    assert "Not compared: before: " in " ".join(page.texts)
    assert any("more" in text for text in page.texts)


def test_a_difference_is_drawn_on_its_side_of_zero(synthetic, tmp_path):
    records = []
    for right in (30, 10):
        maker = synthetic.Maker(tmp_path / str(right), targets=("mamba",))
        rows = [maker.outcome(i, right=i < right) for i in range(40)]
        digest = {"label": "mamba", "digest": str(right), "parameters": 1, "source": {}}
        maker.cell("mamba", setting={"weights": right}, outcomes=rows)
        maker.plan[0]["setting"] = {}
        records.append(maker.write(targets=[digest]))
    found = compare(*records)
    page = harmless(found._repr_html_())
    zero, _ = page.all("line")

    assert page.rows[1][4:7] == ["0.750", "0.250", "−0.500"]
    assert page.rows[1][-1] == "worse"
    assert float(page.all("circle")[0]["cx"]) < float(zero["x1"])


def test_a_run_says_where_it_stands_and_which_checks_failed(rich, hostile):
    plain = harmless(palpate.Run(rich)._repr_html_())
    assert plain.texts[0].startswith(f"breast, 40 samples; mamba, resnet; {len(rich.cells)} of")
    failed = harmless(palpate.Run(hostile)._repr_html_())
    assert "the attack could act" in failed.texts[1]


def test_hostile_names_are_text(hostile):
    run = palpate.Run(hostile)
    for shown in (run, run.summary(), run.compare(run), run.checks()):
        text = shown._repr_html_()
        assert "<script" not in text
        page = harmless(text)
        assert "<script>alert('x')" in "".join(page.texts)


def test_nothing_at_all(maker):
    run = palpate.Run(maker.write())
    for shown in (run, run.summary(), run.compare(run)):
        assert len(harmless(shown._repr_html_()).rows) == 1
    assert harmless(table(["a"], [], caption=HOSTILE)).rows == [["a"]]


def test_rows_leave_for_pandas_and_arrow(rich, summary):
    run = palpate.Run(rich)
    assert list(run.to_pandas()["metric"]) == [row.metric for row in summary]
    assert run.to_arrow().to_pylist() == summary.to_dicts()
    found = run.compare(run)
    arrow = found.to_arrow()
    assert arrow.schema.field("gained").type == pa.list_(pa.string())  # all empty here
    assert arrow.column("verdict").to_pylist() == ["same"] * len(found)
    assert list(found.to_pandas()["value"]) == [0.0] * len(found)
    assert checks(rich).to_arrow().num_rows == len(checks(rich))

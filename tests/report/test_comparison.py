import json
import re

import orjson
import pytest

from palpate.report import comparison
from palpate.report._template import _source
from palpate.statistics.compare import compare

HOSTILE = "<script>alert('x')</script>\" onload=$x$"


@pytest.fixture
def found(synthetic, tmp_path):
    """Lost under blur, more under noise, one cell that only the later run has."""

    def run(name, target, *, blur, noise):
        maker = synthetic.Maker(tmp_path / name, targets=(target,))
        for perturbation, lost in (("none", 0), ("blur", blur), ("noise", noise)):
            rows = [maker.outcome(i, right=i >= lost) for i in range(40)]
            family = "none" if perturbation == "none" else "corruptions"
            setting = {} if family == "none" else {"severity": 2}
            maker.cell(target, family, perturbation, setting=setting, outcomes=rows)
        if name == "after":
            maker.cell(target, "corruptions", "bias", outcomes=rows)
        return maker.write()

    before = run("before", "v1", blur=0, noise=1)
    return compare(before, run("after", HOSTILE, blur=30, noise=1), margin=0.3, names=3)


def test_every_verdict_has_a_chip_that_the_style_sheet_draws():
    style = _source("style.css")

    for kind in comparison.CHIPS.values():
        assert f".{kind}::before" in style


def test_the_terminal_says_what_changed_and_what_has_no_partner(found):
    head, clean, blur, noise = comparison.terminal_table(found)

    assert len(head) == len(clean) == len(blur) == len(noise)
    assert blur[1:5] == ["blur, severity 2", "accuracy", "100.0\u00a0%", "25.0\u00a0%"]
    assert blur[6:] == ["0 / 30", "< 0.001", "worse"]
    assert noise[6:] == ["0 / 0", "1.000", "not worse than the margin"]
    lines = list(comparison.terminal_lines(found))
    assert lines[0].startswith(
        f"lost, {HOSTILE}, blur, severity 2: c0000, c0001, c0002 and 27 more"
    )
    assert lines[1].startswith("not compared (after): ")
    assert lines[-1] == (
        "Of 3 cells compared: 2 not worse than the margin; 1 worse. A loss of"
        " 30.0\u00a0pp or more is not excluded in 1 of them."
    )


def test_plain_data_is_json(found):
    data = json.loads(orjson.dumps(comparison.plain(found)))

    assert data["holds"] is False
    assert [run["targets"] for run in data["runs"]] == [{"v1": "a" * 64}, {HOSTILE: "a" * 64}]
    assert data["margin"] == 0.3
    assert data["cells"][1]["lost"] == ["c0000", "c0001", "c0002"]
    assert data["apart"][0]["why"] == "not part of the other run"


def test_the_page_is_self_contained_and_escaped(found, tmp_path):
    path = comparison.render(found, tmp_path / "compare.html")
    text = path.read_text(encoding="utf-8")

    assert "<script" not in text
    assert f"<h1>{tmp_path / 'after'} against {tmp_path / 'before'}</h1>" in text
    assert "lt;script&gt;alert(&#39;x&#39;)" in text
    assert text.count("a" * 64) == 2
    assert "default-src &#39;none&#39;" in text or "default-src 'none'" in text
    assert not re.search(r"(src|href)=\"(?!#)", text)
    assert '<span class="chip fail">worse</span>' in text
    assert "and 27 more" in text
    assert "not part of the other run" in text
    assert len(text) < 60_000


def test_nothing_compared_is_said(synthetic, tmp_path):
    maker = synthetic.Maker(tmp_path, targets=("a",))
    record = maker.write()
    found = compare(record, record, margin=0.1)

    assert comparison.headline(found) == "No cell could be compared."
    assert not found.holds
    assert comparison.terminal_table(found)[1:] == []
    assert "None." in comparison.render(found, tmp_path / "c.html").read_text()

import re

import matplotlib as mpl
import pytest

from palpate.report.figures import INK, SERIES, curve, dots, swatch
from palpate.report.ladders import ladders
from palpate.statistics.strata import strata
from palpate.statistics.summary import summarise


@pytest.fixture(scope="module")
def found(rich):
    return ladders(summarise(rich), "classification")


def test_text_stays_text_and_colours_are_the_pages(found):
    before = dict(mpl.rcParams)
    svg = curve(found[0], chance=0.75)
    assert ">4/255</text>" in svg
    assert "currentColor" in svg
    assert "var(--series-1)" in svg
    assert "font-family" not in svg
    assert not any(colour in svg for colour in (INK, *SERIES))
    assert dict(mpl.rcParams) == before


def test_ids_of_two_drawings_never_meet(found):
    ids = [set(re.findall(r'id="([^"]+)"', curve(ladder))) for ladder in found[:2]]
    assert all(ids)
    assert not ids[0] & ids[1]


def test_the_alternative_text_holds_the_numbers(found):
    label = re.search(r'aria-label="([^"]+)"', curve(found[1]))[1]
    assert label.startswith("Robust accuracy under pgd (L∞) by epsilon. mamba: clean ")
    assert label.count("8/255 ") == 2


def test_dots_name_every_stratum(rich):
    rows = strata(rich).find(target="mamba", by="part")
    for upright in (True, False):
        svg = dots(rows, title="by field", labels=["$a$ & <b>"] * len(rows), upright=upright)
        assert all(f"{r.name}: SDC " in svg for r in rows)
        assert "$a$ &amp; &lt;b&gt;" in svg


def test_swatches_are_decoration():
    assert 'aria-hidden="true"' in swatch(7, within="attacks")

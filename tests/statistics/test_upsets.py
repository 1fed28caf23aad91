import dataclasses

import pytest

from palpate.statistics.critical import critical_bits
from palpate.statistics.upsets import upsets


def given(rich, **rates):
    """A copy with rates in its audit file."""
    config = {**rich.manifest["config"], "memory_errors": rates}
    return dataclasses.replace(rich, manifest={**rich.manifest, "config": config})


def test_without_a_rate_there_is_no_number(rich):
    rows = upsets(given(rich))
    assert [(r.target, r.ecc) for r in rows][:2] == [("mamba", False), ("mamba", True)]
    assert all(r.silent is None and r.upsets is None and r.rate is None for r in rows)
    assert "no rate given (memory_errors.fit_per_mbit)" in rows.rows[0].note


def test_failures_in_a_year_by_hand(rich):
    # 96 Mbit at 8 FIT per Mbit: 768 failures in 10^9 hours
    rates = {
        "fit_per_mbit": 8.0,
        "fit_per_mbit_ecc": None,
        "hours_per_year": 2000.0,
        "devices": 5.0,
    }
    off, on = upsets(given(rich, **rates)).find(target="mamba")
    critical = critical_bits(rich).find(target="mamba", by="all")[0].critical
    assert off.mbit == 96
    assert off.upsets == pytest.approx(768 * 2000 * 5 / 1e9)
    expected = [off.upsets * x for x in (critical.value, critical.low, critical.high)]
    assert off.silent == pytest.approx(expected)
    assert off.note == "2000 hours a year on 5 devices"
    assert on.silent is None


def test_error_correction_has_a_rate_of_its_own(rich):
    rates = {
        "fit_per_mbit": 8.0,
        "fit_per_mbit_ecc": 0.08,
        "hours_per_year": 8766.0,
        "devices": 1.0,
    }
    off, on = upsets(given(rich, **rates)).find(target="mamba")
    assert on.upsets == pytest.approx(off.upsets / 100)


def test_part_of_the_memory_says_nothing_of_the_whole(rich):
    cells = tuple(
        dataclasses.replace(c, setting={**c.setting, "tensors": ["head.*"]}) for c in rich.cells
    )
    part = dataclasses.replace(rich, cells=cells)
    assert not upsets(given(part, fit_per_mbit=8.0, hours_per_year=1.0, devices=1.0))


def test_formats_are_memories_of_their_own(rich):
    kinds = iter(("stored", "int8"))
    cells = tuple(
        dataclasses.replace(c, target="mamba", setting={**c.setting, "format": next(kinds)})
        if c.family == "faults"
        else c
        for c in rich.cells
    )
    both = upsets(given(dataclasses.replace(rich, cells=cells)))
    assert [r.target for r in both if not r.ecc] == ["mamba", "mamba (int8)"]

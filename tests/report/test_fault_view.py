import dataclasses

import orjson
import pytest

from palpate.report import fault_view
from palpate.report.fault_view import fault_views
from palpate.statistics.strata import worst_faults


def changed(record, **setting):
    """The same record with other settings in the fault cells."""
    cells = tuple(
        dataclasses.replace(c, setting={**c.setting, **setting}) if c.family == "faults" else c
        for c in record.cells
    )
    return dataclasses.replace(record, cells=cells)


def views(record):
    return fault_views(record, worst_faults(record))


def test_one_view_per_model_with_critical_bits_by_group(rich):
    first, second = views(rich)
    assert first.title == "mamba · weight bit flip, flips 1, scope model, trials 12"
    assert second.whole.target == "resnet"
    assert {c.name for c in first.critical} == {"stem", "stages"}
    assert first.critical_bits.bits == 96_000_000
    assert not first.maps
    assert [p.name for p in first.parts] == sorted(
        (p.name for p in first.parts), key=fault_view._PARTS.index
    )


def test_maps_where_trials_were_dealt_to_them(rich):
    sdc, due = views(changed(rich, scope="layer_field"))[0].maps
    assert sdc.corner == "layer"
    assert "SDC by layer and bit field" in sdc.caption
    assert {label for label, _ in sdc.rows} == {"stages.0", "stages.1", "stages.2"}
    assert set(sdc.columns) <= set(fault_view._PARTS)
    shades = [max(e.shade or 0 for e in entries) for _, entries in due.rows]
    assert shades == sorted(shades, reverse=True)
    assert all("[" in e.interval for _, entries in sdc.rows for e in entries if e.shade is not None)


@pytest.mark.parametrize("setting", [{"flips": 4}, {"bit_error_rate": 1e-6}])
def test_cells_of_many_flips_have_curves_only(rich, setting):
    assert not views(changed(rich, **setting))


def test_settings_are_canonical(rich):
    assert orjson.loads(views(rich)[0].whole.setting)["scope"] == "model"

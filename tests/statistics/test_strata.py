import pytest

from palpate.outcome import Verdict
from palpate.statistics.strata import BETWEEN, SEVERAL, strata, worst_faults
from palpate.statistics.summary import summarise


def test_strata_add_up_to_the_summary(rich):
    rows = strata(rich)
    for target in ("mamba", "resnet"):
        (whole,) = rows.find(target=target, by="all")
        summary = summarise(rich).find(target=target, metric="sdc_rate")[0]
        assert (whole.sdc.value, whole.sdc.low) == pytest.approx((summary.value, summary.low))
        for by in ("layer", "group", "part", "bit", "layer part"):
            parts = rows.find(target=target, by=by)
            assert sum(p.trials for p in parts) == whole.trials
            mean = sum(p.sdc.value * p.trials for p in parts) / whole.trials
            assert mean == pytest.approx(whole.sdc.value)
        assert whole.masked.value + whole.sdc.value + whole.due.value == pytest.approx(1)


def test_bits_are_in_numeric_order(rich):
    bits = [int(r.name) for r in strata(rich).find(target="mamba", by="bit")]
    assert bits == sorted(bits)


def _cell(maker, notes, verdict):
    maker.cell("mamba", outcomes=[maker.outcome(i, right=True) for i in range(40)])
    rows = [
        maker.outcome(i, right=True, trial=t, verdict=verdict(t))
        for t in range(len(notes))
        for i in range(40)
    ]
    trials = len(notes)
    maker.cell(
        "mamba", "faults", "weight_bit_flip", setting={}, trials=trials, outcomes=rows, notes=notes
    )
    return maker.write()


def _site(layer, bit, field):
    return {
        "tensor": f"{layer}.weight",
        "layer": layer,
        "index": [1, 2],
        "bit": bit,
        "field": field,
        "part": field,
    }


def test_a_field_over_layers_of_unequal_size_weights_them(maker):
    notes = [
        {"stratum": n, "share": s, "sites": [_site(n, 30, "exponent")]}
        for n, s in (("big", 0.9), ("small", 0.1)) * 5
    ]
    record = _cell(maker, notes, lambda t: Verdict.SDC if t % 2 else Verdict.MASKED)
    (row,) = strata(record).find(by="part")
    assert row.sdc.value == pytest.approx(0.1)


def test_a_trial_that_hits_several_layers_belongs_to_none(maker):
    notes = [{"sites": [_site("a", 1, "mantissa"), _site("b", 1, "mantissa")]}] * 3
    found = strata(_cell(maker, notes, lambda t: Verdict.MASKED))
    assert [r.name for r in found.find(by="layer")] == [SEVERAL]
    assert [r.name for r in found.find(by="part")] == ["mantissa"]


def test_chosen_faults_are_listed_over_all_only(maker):
    notes = [{"sites": [_site("a", 1, "sign")], "damage": 0.5, "stratum": "a", "share": 1.0}] * 2
    record = _cell(maker, notes, lambda t: Verdict.SDC)
    assert [(r.by, r.sdc.value) for r in strata(record)] == [("all", 1.0)]
    assert len(worst_faults(record)) == 2


def test_maps_name_both_their_sides(rich):
    rows = strata(rich).find(target="mamba", by="layer part")
    layers = {r.name for r in strata(rich).find(target="mamba", by="layer")}
    assert {r.name.rsplit(BETWEEN, 1)[0] for r in rows} == layers
    assert {r.name.rsplit(BETWEEN, 1)[1] for r in rows} <= {
        "sign",
        "top exponent bit",
        "exponent",
        "mantissa",
    }


def test_the_root_layer_has_a_name(maker):
    found = strata(_cell(maker, [{"sites": [_site("", 1, "sign")]}], lambda t: Verdict.MASKED))
    assert [r.name for r in found.find(by="layer")] == ["root"]


def test_the_worst_fault_comes_first_and_harmless_ones_are_left_out(rich):
    worst = worst_faults(rich, limit=5).find(target="mamba")
    losses = [w.clean - w.score for w in worst]
    assert losses == sorted(losses, reverse=True)
    assert all(w.score < w.clean or w.sdc or w.due for w in worst)
    assert worst[0].site.startswith("stages.")
    assert "bit " in worst[0].site

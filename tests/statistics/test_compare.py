import dataclasses
import itertools

import numpy as np
import pytest
from scipy.stats import norm

from palpate.errors import ConfigError, DataError, TargetError
from palpate.statistics.compare import compare
from palpate.statistics.paired import newcombe


@pytest.fixture
def two(synthetic, tmp_path):
    """Make two runs; each argument maps a perturbation to the samples that are right."""

    made = itertools.count()

    def make(before, after, *, count=200, manifest=None):
        records = []
        for name, wanted in (("before", before), ("after", after)):
            maker = synthetic.Maker(
                tmp_path / f"{name}{next(made)}", cases=count, targets=("mamba",)
            )
            for perturbation, right in wanted.items():
                family = "none" if perturbation == "none" else "corruptions"
                rows = [maker.outcome(i, right=bool(right[i])) for i in range(count)]
                # another model: the key of a cell differs between the runs
                setting = {} if family == "none" else {"severity": 1}
                cell = maker.cell("mamba", family, perturbation, setting=setting, outcomes=rows)
                _rename(maker, cell, name)
            records.append(maker.write(**((manifest or {}) if name == "after" else {})))
        return records

    return make


def _rename(maker, cell, prefix):
    key = prefix[0] + cell.key[1:]
    for folder, ending in (("cells", "json"), ("samples", "parquet")):
        path = maker.folder / folder / f"{cell.key}.{ending}"
        target = path.with_name(f"{key}.{ending}")
        path.rename(target)
    path = maker.folder / "cells" / f"{key}.json"
    path.write_text(path.read_text().replace(cell.key, key))
    maker.plan[-1]["key"] = key


def right(count, share, seed=0):
    return np.random.default_rng(seed).permutation(count) < share * count


def test_a_loss_is_a_paired_difference_with_the_cases_named(two):
    before, after = right(200, 0.9), right(200, 0.9)
    after[np.flatnonzero(before)[:30]] = False
    after[np.flatnonzero(~before)[:2]] = True

    (row,) = compare(*two({"none": before}, {"none": after}))

    assert row.value == pytest.approx(-28 / 200)
    assert (row.low, row.high) == pytest.approx(newcombe(after, before, confidence=0.95))
    assert (row.before, row.after) == pytest.approx((before.mean(), after.mean()))
    assert (row.gains, row.losses, row.verdict, row.metric) == (2, 30, "worse", "accuracy")
    assert row.gained == tuple(f"c{i:04d}" for i in np.flatnonzero(~before)[:2])
    assert len(row.lost) == 20
    assert set(row.lost) <= {f"c{i:04d}" for i in np.flatnonzero(before)[:30]}


def test_swapping_the_runs_swaps_the_sign(two):
    before, after = two({"none": right(200, 0.9)}, {"none": right(200, 0.6, seed=1)})
    (there,), (back,) = compare(before, after), compare(after, before)

    assert (there.value, there.low, there.high) == pytest.approx(
        (-back.value, -back.high, -back.low)
    )
    assert (there.verdict, back.verdict) == ("worse", "better")


def test_verdicts_against_a_margin(two):
    full = np.ones(200, dtype=bool)
    few, many = full.copy(), full.copy()
    few[:1], many[:40] = False, False
    wanted = {"none": full, "defocus_blur": full, "gaussian_noise": full}
    runs = two(wanted, {"none": full, "defocus_blur": few, "gaussian_noise": many})

    verdicts = {m: [r.verdict for r in compare(*runs, margin=m)] for m in (None, 0.05, 0.4, 0.001)}

    assert verdicts[None] == ["cannot tell", "cannot tell", "worse"]
    assert verdicts[0.05] == ["not worse than the margin"] * 2 + ["worse"]
    assert verdicts[0.4] == ["not worse than the margin"] * 2 + ["worse, within the margin"]
    assert verdicts[0.001] == ["cannot tell", "cannot tell", "worse"]
    assert compare(*runs, margin=0.4).holds
    assert not compare(*runs, margin=0.05).holds


def test_many_cells_need_more_evidence_each(two):
    """A difference that one test would call real is none among twenty."""
    before, names = np.ones(200, dtype=bool), [f"noise{i}" for i in range(20)]
    after = before.copy()
    after[:7] = False
    (alone,) = compare(*two({"none": before}, {"none": after}))
    many = compare(
        *two(
            {"none": before, **dict.fromkeys(names, before)},
            {"none": after, **dict.fromkeys(names, before)},
        )
    )

    assert alone.verdict == "worse"
    assert many.rows[0].p == alone.p
    assert many.rows[0].p_holm == pytest.approx(21 * alone.p)
    assert many.rows[0].verdict == "cannot tell"


def test_two_equal_models_are_seldom_called_different(two):
    wrong = 0
    for seed in range(12):
        a, b = right(200, 0.8, seed=seed), right(200, 0.8, seed=seed + 100)
        (row,) = compare(*two({"none": a}, {"none": b}))
        wrong += row.verdict != "cannot tell"
    assert wrong <= 2


def test_the_same_model_is_the_same(rich):
    found = compare(rich, rich, margin=0.01)

    assert {row.verdict for row in found} == {"same"}
    assert len(found) == len(rich.cells)
    assert all(row.low == row.value == row.high == 0 for row in found)
    assert (found.apart, found.notes, found.holds) == ((), (), True)


def test_sdc_rates_are_subtracted_and_lower_is_better(synthetic, tmp_path):
    def run(name, every):
        maker = synthetic.Maker(tmp_path / name, targets=("mamba",))
        maker.cell("mamba", outcomes=[maker.outcome(i, right=True) for i in range(40)])
        rows = [
            maker.outcome(i, right=True, trial=t, verdict="sdc" if t % every == 0 else "masked")
            for t in range(400)
            for i in range(40)
        ]
        cell = maker.cell("mamba", "faults", "weight_bit_flip", trials=400, outcomes=rows)
        _rename(maker, cell, name)
        return maker.write()

    rare, often = run("a", 100), run("b", 4)
    worse = compare(rare, often, margin=0.1).find(family="faults")[0]
    better = compare(often, rare).find(family="faults")[0]

    assert worse.metric == "sdc_rate"
    assert worse.value == pytest.approx(0.24)
    assert worse.low < worse.value < worse.high
    assert (worse.verdict, better.verdict) == ("worse", "better")
    assert worse.p < 1e-6
    assert (worse.gains, worse.losses) == (0, 0)


def test_the_p_value_of_faults_agrees_with_the_interval():
    from palpate.statistics.compare import _p_value
    from palpate.statistics.estimate import Estimate

    for low, value, high in ((0.0, 0.1, 0.3), (-0.3, -0.1, 0.0)):
        assert _p_value(Estimate(value, low, high, 0.95, 9, 9, "")) == pytest.approx(0.05)
    assert _p_value(Estimate(0.1, 0.1, 0.2, 0.95, 9, 9, "")) == 0.0
    assert _p_value(Estimate(0.0, -0.1, 0.2, 0.95, 9, 9, "")) == 1.0
    z = norm.isf(0.025)
    assert _p_value(Estimate(2.0, 2.0 - z, 9.0, 0.95, 9, 9, "")) == pytest.approx(2 * norm.sf(2))


def test_other_data_is_refused(two):
    ok = np.ones(200, dtype=bool)
    data = {**two({"none": ok}, {"none": ok})[0].manifest["dataset"], "digest": "e" * 64}
    runs = two({"none": ok}, {"none": ok}, manifest={"dataset": data})

    with pytest.raises(DataError, match=r"same data, got breast .*dddddddddddd.*eeeeeeeeeeee"):
        compare(*runs)
    task = {**data, "digest": "d" * 64, "task": {**data["task"], "classes": ["a", "b"]}}
    with pytest.raises(DataError, match="same task"):
        compare(*two({"none": ok}, {"none": ok}, manifest={"dataset": task}))


@pytest.mark.parametrize("margin", [0.0, -0.1, 1.0, 5.0])
def test_a_margin_is_a_share(rich, margin):
    with pytest.raises(ConfigError, match="margin: expected more than 0 and less than 1"):
        compare(rich, rich, margin=margin)


def test_what_has_no_partner_is_said(synthetic, tmp_path):
    def run(name, targets, *cells, config=None):
        maker = synthetic.Maker(tmp_path / name, targets=targets)
        for target, perturbation, severity, state in cells:
            family = "none" if perturbation == "none" else "corruptions"
            maker.cell(
                target,
                family,
                perturbation,
                setting={"severity": severity},
                outcomes=[]
                if state == "failed"
                else [maker.outcome(i, right=True) for i in range(40)],
                error={"type": "OSError", "message": "no"} if state == "failed" else None,
                written=state != "missing",
            )
        record = maker.write()
        config = {**record.manifest["config"], **(config or {})}
        return maker.write(config=config)

    before = run(
        "before",
        ("a", "b"),
        ("a", "none", 0, ""),
        ("a", "blur", 1, ""),
        ("a", "noise", 1, ""),
        ("a", "motion", 1, "failed"),
        ("b", "none", 0, ""),
        ("a", "bias", 1, "missing"),
    )
    after = run(
        "after",
        ("a", "c"),
        ("a", "none", 0, ""),
        ("a", "blur", 2, ""),
        ("a", "motion", 1, ""),
        ("c", "none", 0, ""),
        ("a", "bias", 1, ""),
        config={"seed": 1},
    )

    found = compare(before, after)

    assert [(r.target, r.perturbation) for r in found] == [("a", "none")]
    assert [dataclasses.astuple(x)[:3] for x in found.apart] == [
        ("before", "a, blur, severity 1", "in the other run with other settings only"),
        ("before", "a, noise, severity 1", "not part of the other run"),
        ("before", "a, motion, severity 1", "failed: OSError"),
        ("before", "b, clean", "the other run has no model of this name"),
        ("before", "a, bias, severity 1", "not run yet"),
        ("after", "a, blur, severity 2", "in the other run with other settings only"),
        ("after", "a, motion, severity 1", "failed: OSError in the other run"),
        ("after", "c, clean", "the other run has no model of this name"),
        ("after", "a, bias, severity 1", "not run yet in the other run"),
    ]
    assert {x.cell for x in found.apart if x.unfinished} == {
        "a, motion, severity 1",
        "a, bias, severity 1",
    }
    assert found.notes == ("seed 0 before and 1 after: the random draws differ",)


def test_one_model_each_is_one_model_and_more_need_a_name(synthetic, tmp_path):
    def run(name, *targets):
        maker = synthetic.Maker(tmp_path / name, targets=targets)
        for target in targets:
            maker.cell(target, outcomes=[maker.outcome(i, right=True) for i in range(40)])
        return maker.write()

    one, other, both = run("1", "v1"), run("2", "v2"), run("3", "x", "y")

    found = compare(one, other)
    assert found.rows[0].target == "v2"
    assert "v1 and v2 are compared as one model" in found.notes[0]
    for pair in itertools.permutations((one, both)):
        with pytest.raises(TargetError, match="expected a model name that both runs have"):
            compare(*pair)


def test_samples_without_a_partner_are_left_out_and_counted(two):
    ok = np.ones(200, dtype=bool)
    (before,) = two({"none": ok}, {"none": ok})[:1]
    after = two({"none": ok}, {"none": ok}, count=150)[1]

    (row,) = compare(before, after)

    assert row.n == 150
    assert row.method.endswith("50 rows without a partner left out")


def test_masks_are_compared_by_dice(synthetic, tmp_path):
    def run(name, shift):
        maker = synthetic.Maker(tmp_path / name, targets=("unet",), kind="segmentation")
        dice = np.clip(np.random.default_rng(0).normal(0.8 - shift, 0.05, 40), 0, 1)
        rows = [maker.outcome(i, right=True, score=float(d)) for i, d in enumerate(dice)]
        _rename(maker, maker.cell("unet", outcomes=rows), name)
        return maker.write()

    (row,) = compare(run("a", 0.0), run("b", 0.1), margin=0.05)

    assert (row.metric, row.verdict, row.losses) == ("dice", "worse", 40)
    assert row.low <= -0.09 >= row.value
    assert "bootstrap by case" in row.method


def test_more_cases_that_gain_make_no_loss_sure(synthetic, tmp_path):
    """The sign test is sure of the gains, the interval of the falling mean: nothing is sure."""
    maker = synthetic.Maker(tmp_path, cases=60, kind="segmentation", targets=("mamba",))

    def run(name, scores):
        one = dataclasses.replace(maker, folder=tmp_path / name, plan=[])
        rows = [
            dataclasses.replace(one.outcome(i, right=True), score=s, reference=(), decision=())
            for i, s in enumerate(scores)
        ]
        _rename(one, one.cell("mamba", outcomes=rows), name)
        return one.write()

    before = run("before", [0.8] * 60)
    (row,) = compare(before, run("after", [0.82] * 45 + [0.2] * 15))
    assert row.high < 0
    assert row.p_holm < 0.05
    assert row.verdict == "cannot tell"
    (row,) = compare(run("after", [0.82] * 45 + [0.2] * 15), before)
    assert row.verdict == "cannot tell"
    (row,) = compare(before, run("after", [0.6] * 45 + [0.81] * 15))
    assert row.verdict == "worse"

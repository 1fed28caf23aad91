import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest

from palpate.outcome import Status, Verdict
from palpate.regions import Region
from palpate.statistics.summary import chosen_metrics, summarise


def test_every_row_holds_its_value_and_is_plain_data(rich):
    summary = summarise(rich)
    assert len(summary.rows) > 300
    for row in summary.rows:
        if row.low is None or row.high is None:
            assert row.value is None or (row.metric == "ece" and row.note.startswith("no interval"))
        else:
            assert row.low <= row.value <= row.high
    json.dumps(summary.to_dicts(), allow_nan=False)
    frame = summary.to_pandas()
    wanted = ["target", "defence", "dataset", "family", "perturbation", "setting", "metric"]
    assert list(frame.columns)[:11] == [*wanted, "value", "low", "high", "n"]


def test_is_the_same_twice(rich):
    assert summarise(rich) == summarise(rich)


def test_clean_accuracy_and_the_worst_over_attacks(rich):
    summary = summarise(rich)
    clean = summary.find(target="mamba", family="none", metric="accuracy")[0]
    scores = rich.samples(rich.cells[0])["score"]
    assert clean.value == pytest.approx(scores.mean())
    worst = summary.find(target="mamba", perturbation="all attacks", metric="robust_accuracy")
    assert [json.loads(r.setting)["norm"] for r in worst] == ["linf"] * 4
    for row in worst:
        epsilon = json.loads(row.setting)["epsilon"]
        single = [
            r.value
            for r in summary.find(target="mamba", metric="robust_accuracy")
            if r.cell and json.loads(r.setting)["epsilon"] == epsilon
        ]
        assert len(single) == 2
        assert row.value <= min(single)


def test_worst_over_attacks_is_per_sample(maker):
    maker.cell("mamba", outcomes=[maker.outcome(i, right=True) for i in range(40)])
    for name, parity in (("fgsm", 0), ("pgd", 1)):
        rows = [maker.outcome(i, right=i % 2 == parity, linf=0.01) for i in range(40)]
        setting = {"epsilon": 0.01, "norm": "linf"}
        maker.cell("mamba", "attacks", name, setting=setting, outcomes=rows)
    summary = summarise(maker.write())
    row = summary.find(perturbation="all attacks", metric="robust_accuracy")[0]
    assert row.value == 0.0
    assert summary.find(perturbation="fgsm", metric="robust_accuracy")[0].value == 0.5


def test_worst_mask_over_attacks_is_per_sample(synthetic, tmp_path):
    maker = synthetic.Maker(tmp_path, cases=40, targets=("unet",), kind="segmentation")
    setting = {"epsilon": 0.01, "norm": "linf"}
    for family, name, parity in (
        ("none", "none", 2),
        ("attacks", "fgsm", 0),
        ("attacks", "pgd", 1),
    ):
        overlaps = [20 if i % 2 == parity else 80 for i in range(40)]
        rows = [
            maker.outcome(
                i, right=True, score=n / 100, regions=(Region(n, 100, 100, 1.0, 1.0, 1, 1),)
            )
            for i, n in enumerate(overlaps)
        ]
        maker.cell("unet", family, name, setting=setting if parity < 2 else {}, outcomes=rows)
    summary = summarise(maker.write())

    (row,) = summary.find(perturbation="all attacks", metric="dice")
    assert (row.value, row.n) == (pytest.approx(0.2), 40)
    assert summary.find(perturbation="fgsm", metric="dice")[0].value == pytest.approx(0.5)


def test_an_attack_that_moved_nothing_says_so(maker):
    rows = [maker.outcome(i, right=True) for i in range(40)]
    maker.cell("mamba", outcomes=rows)
    stuck = [dataclasses.replace(r, status=Status.NO_GRADIENT) for r in rows]
    maker.cell(
        "mamba", "attacks", "fgsm", setting={"epsilon": 0.01, "norm": "linf"}, outcomes=stuck
    )
    for row in summarise(maker.write()).find(metric="robust_accuracy"):
        assert row.value is None
        assert row.note == "could not attack"


def test_a_failed_cell_is_a_row_without_value(maker):
    error = {"type": "RuntimeError", "message": "boom", "traceback": "..."}
    maker.cell("mamba", error=error)
    (row,) = summarise(maker.write()).rows
    assert row.value is None
    assert row.note == "failed: RuntimeError"


def test_without_a_clean_cell_nothing_is_compared(maker):
    rows = [maker.outcome(i, right=True) for i in range(40)]
    maker.cell("mamba", written=False)
    maker.cell("mamba", "attacks", "fgsm", setting={"epsilon": 0.01, "norm": "linf"}, outcomes=rows)
    summary = summarise(maker.write())
    assert summary.find(metric="robust_accuracy")[0].note == "no clean result to compare with"
    assert summary.find(metric="accuracy")[0].value == 1.0


def test_samples_are_joined_by_id_and_not_by_position(maker):
    clean = [maker.outcome(i, right=i < 10) for i in range(40)]
    maker.cell("mamba", outcomes=clean)
    turned = [maker.outcome(i, right=i < 10) for i in reversed(range(40))]
    setting = {"severity": 1, "trials": 1}
    maker.cell("mamba", "corruptions", "gaussian_noise", setting=setting, outcomes=turned)
    row = summarise(maker.write()).find(metric="relative_drop")[0]
    assert row.value == 0.0


def test_faults_dealt_by_layer_are_weighted_by_the_memory(maker):
    maker.cell("mamba", outcomes=[maker.outcome(i, right=True) for i in range(40)])
    notes = [
        {"stratum": f"layer{t % 2}", "share": (0.9, 0.1)[t % 2], "sites": []} for t in range(10)
    ]
    rows = [
        maker.outcome(i, right=True, trial=t, verdict=Verdict.SDC if t % 2 else Verdict.MASKED)
        for t in range(10)
        for i in range(40)
    ]
    setting = {"scope": "layer", "trials": 10}
    maker.cell(
        "mamba", "faults", "weight_bit_flip", setting=setting, trials=10, outcomes=rows, notes=notes
    )
    row = summarise(maker.write()).find(metric="sdc_rate")[0]
    assert row.value == pytest.approx(0.1)


def test_layers_that_were_never_drawn_widen_everything(maker):
    maker.cell("mamba", outcomes=[maker.outcome(i, right=True) for i in range(40)])
    notes = [{"stratum": "a", "share": 0.6, "sites": []}] * 30
    rows = [maker.outcome(i, right=True, trial=t) for t in range(30) for i in range(40)]
    maker.cell("mamba", "faults", "weight_bit_flip", trials=30, outcomes=rows, notes=notes)
    summary = summarise(maker.write())
    for metric, side in (("sdc_rate", "high"), ("relative_drop", "high"), ("accuracy", "low")):
        row = summary.find(metric=metric, family="faults")[0]
        assert abs(getattr(row, side) - row.value) >= 0.4
        assert "40.0% of the population never drawn" in row.method


def test_the_worst_case_over_attacks_says_when_one_is_missing(maker):
    rows = [maker.outcome(i, right=True) for i in range(40)]
    maker.cell("mamba", outcomes=rows)
    setting = {"epsilon": 0.01, "norm": "linf"}
    maker.cell("mamba", "attacks", "fgsm", setting=setting, outcomes=rows)
    maker.cell("mamba", "attacks", "pgd", setting=setting, written=False)
    row = summarise(maker.write()).find(perturbation="all attacks")[0]
    assert row.note == "only 1 of 2 attacks finished"


def test_chosen_faults_are_no_sample_of_faults(maker):
    maker.cell("mamba", outcomes=[maker.outcome(i, right=True) for i in range(40)])
    notes = [{"stratum": "a", "share": 1.0, "damage": 0.5, "sites": []}] * 2
    rows = [
        maker.outcome(i, right=i % 4 > 0, trial=t, verdict=Verdict.MASKED if i % 4 else Verdict.SDC)
        for t in range(2)
        for i in range(40)
    ]
    maker.cell("mamba", "faults", "worst_case_bit_flip", trials=2, outcomes=rows, notes=notes)
    row = summarise(maker.write()).find(metric="sdc_rate")[0]
    assert row.value == 0.25
    assert row.units == pytest.approx(40)
    assert row.note.startswith("chosen faults")


def test_metrics_named_in_the_audit_and_the_essential_ones():
    names = {type(m).__name__ for m in chosen_metrics(["auc"])}
    assert {"Auc", "Accuracy", "RobustAccuracy", "SdcRate", "RelativeDrop", "Dice"} <= names
    assert "Ece" not in names


def test_notebook_table_is_static_and_escaped(synthetic, tmp_path):
    maker = synthetic.Maker(tmp_path, targets=("<script>x</script>",))
    maker.cell("<script>x</script>", outcomes=[maker.outcome(i, right=True) for i in range(40)])
    text = summarise(maker.write())._repr_html_()
    assert "<script>" not in text
    assert "&lt;script&gt;" in text


def test_multi_label_and_dense_tasks(synthetic, tmp_path):
    maker = synthetic.Maker(
        tmp_path, kind="segmentation", classes=("background", "lesion"), positive=None
    )
    flat = {"reference": (), "decision": (), "probabilities": ()}
    for family, name, score in (("none", "none", 0.9), ("corruptions", "gaussian_noise", 0.6)):
        rows = [maker.outcome(i, right=True, score=score - i / 400, **flat) for i in range(40)]
        maker.cell(
            "mamba", family, name, setting={"severity": 2} if name != "none" else {}, outcomes=rows
        )
    summary = summarise(maker.write())
    assert {r.metric for r in summary.rows} == {"dice", "dice_below", "relative_drop"}
    drop = summary.find(metric="relative_drop")[0]
    clean = np.mean([0.9 - i / 400 for i in range(40)])
    assert drop.value == pytest.approx(0.3 / clean, abs=1e-6)


def test_masks_are_estimated_per_class_and_distances_say_how_many_are_real(synthetic, tmp_path):
    maker = synthetic.Maker(
        tmp_path, targets=("unet",), kind="segmentation", classes=("background", "liver", "spleen")
    )
    found, emptied = Region(60, 80, 70, 3.0, 0.9, 1, 1), Region(0, 0, 30, 200.0, 0.0, 1, 0)
    outcomes = [
        maker.outcome(i, right=True, score=0.4, regions=(found, emptied if i % 2 else found))
        for i in range(40)
    ]
    maker.cell("unet", outcomes=outcomes)
    summary = summarise(maker.write())
    rows = {row.metric: row for row in summary.rows}

    assert rows["dice"].value == pytest.approx(0.4)
    assert rows["dice[liver]"].value == pytest.approx(0.8)
    assert rows["dice[spleen]"].value == pytest.approx(0.4)
    assert rows["iou[liver]"].value == pytest.approx(60 / 90)
    assert rows["lesion_sensitivity[spleen]"].value == pytest.approx(0.5)
    assert rows["hd95[spleen]"].value == pytest.approx(101.5)
    assert rows["hd95[liver]"].note.startswith("valid 40/40")
    assert rows["hd95[spleen]"].note.startswith("valid 20/40, 20 with one mask empty")
    for row in rows.values():
        assert row.low <= row.value <= row.high


@pytest.fixture
def attacked(synthetic, tmp_path):
    """Small and large lesions and empty images; an attack erases the small and makes some up."""
    maker = synthetic.Maker(
        tmp_path, targets=("unet",), kind="segmentation", classes=("background", "lesion")
    )
    small, large = Region(30, 30, 30, 0.0, 1.0, 1, 1), Region(90, 90, 90, 0.0, 1.0, 1, 1)
    empty, erased = Region(0, 0, 0, np.nan, 1.0, 0, 0), Region(0, 0, 30, 28.0, 0.0, 1, 0)
    phantom = Region(0, 9, 0, 28.0, 0.0, 0, 0)
    before = [(small, large, empty, empty)[i % 4] for i in range(40)]
    after = [(erased, large, phantom, empty)[i % 4] for i in range(40)]
    for name, regions in (("none", before), ("fgsm", after)):
        outcomes = [
            maker.outcome(
                i,
                right=True,
                score=float(r.decided == r.expected),
                regions=(r,),
                pixels=784,
                wrong_pixels=abs(r.decided - r.expected),
            )
            for i, r in enumerate(regions)
        ]
        family, setting = ("attacks", {"epsilon": 0.1}) if name == "fgsm" else ("none", {})
        maker.cell("unet", family, name, setting=setting, outcomes=outcomes)
    return maker


def test_success_on_masks_is_told_apart_by_the_size_of_the_lesion(attacked):
    rows = {r.metric: r for r in summarise(attacked.write()).rows if r.family == "attacks"}

    values = {name: row.value for name, row in rows.items()}
    assert values["lesion_erased"] == pytest.approx(0.5)
    assert values["lesion_erased[small lesions]"] == 1.0
    assert values["lesion_erased[large lesions]"] == 0.0
    assert values["phantom_created"] == pytest.approx(0.5)
    assert values["dice_below"] == pytest.approx(0.5)
    assert values["dice[small lesions]"] == 0.0
    assert values["relative_drop[small lesions]"] == 1.0
    assert values["pixel_success_rate"] == pytest.approx((10 * 30 + 10 * 9) / 40 / 784)
    small = rows["lesion_erased[small lesions]"]
    assert small.n == 10
    assert small.note.startswith("images whose reference covers at most 5%, but something; valid")
    assert rows["phantom_created"].note.startswith("valid 20/40")
    assert all(r.low <= r.value <= r.high for r in rows.values() if r.value is not None)


def test_metrics_with_other_parameters_are_rows_of_their_own(attacked):
    asked = ["iou", {"name": "dice_below", "bar": [0.5, 0.25]}]
    config = {"metrics": asked, "statistics": {"confidence": 0.95, "resamples": 400}}
    rows = summarise(attacked.write(config=config)).find(family="none", n=40)

    names = {r.metric for r in rows if "lesions]" not in r.metric}
    assert names == {"dice", "iou", "dice_below", "dice_below[bar 0.25]"}


def test_no_tensor_library_is_imported():
    code = (
        "import sys, palpate.statistics.summary, palpate.statistics.checks,"
        " palpate.statistics.paired, palpate.statistics.strata, palpate.statistics.sample_size\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_number_of_an_attack_says_where_it_could_not_act(attacked):
    """Also Dice, which is that of the clean images then."""
    rows = attacked.outcome
    region = Region(30, 30, 30, 0.0, 1.0, 1, 1)
    for name, stuck in (("pgd", 40), ("bim", 5)):
        outcomes = [
            rows(
                i,
                right=True,
                score=1.0,
                regions=(region,),
                pixels=784,
                status=Status.NO_GRADIENT if i < stuck else Status.OK,
            )
            for i in range(40)
        ]
        setting = {"epsilon": 0.1, "norm": "linf"}
        attacked.cell("unet", "attacks", name, setting=setting, outcomes=outcomes)
    summary = summarise(attacked.write())
    found = {
        name: {r.metric: r.note for r in summary.find(perturbation=name)} for name in ("pgd", "bim")
    }
    assert found["pgd"]["dice"] == "could not attack"
    assert found["bim"]["dice"] == "no gradient or no movement in 5 of 40 tries"
    assert all("could not attack" in note for note in found["pgd"].values())

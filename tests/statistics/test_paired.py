import numpy as np
import pytest
from scipy.stats import binomtest
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from palpate.statistics.estimate import Design
from palpate.statistics.paired import difference, holm, newcombe, paired, sign_test

HOW = {"confidence": 0.95, "resamples": 1000, "name": "x"}


def independent(n):
    return Design(np.arange(n), np.zeros(n, dtype=np.intp))


def table(both, first, second, neither):
    ours = np.repeat([True, True, False, False], [both, first, second, neither])
    theirs = np.repeat([True, False, True, False], [both, first, second, neither])
    return ours, theirs


def test_newcombe_equals_a_published_example():
    # airway hyper-responsiveness, Fagerland, Lydersen, Laake 2014 (Stat Med 33, 2850), table 3
    assert newcombe(*table(1, 1, 7, 12), confidence=0.95) == pytest.approx(
        (-0.507, -0.026), abs=5e-4
    )


def test_newcombe_is_not_fooled_by_no_discordant_pair():
    low, high = newcombe(*table(30, 0, 0, 10), confidence=0.95)
    assert low < 0 < high


def test_sign_test_is_mcnemars_exact_test():
    ours, theirs = table(40, 12, 3, 20)
    expected = mcnemar([[40, 12], [3, 20]], exact=True).pvalue
    found = sign_test(ours * 1.0 - theirs, np.arange(75))
    assert found == (12, 3, pytest.approx(expected))
    assert expected == pytest.approx(binomtest(3, 15, 0.5).pvalue)


def test_copies_of_a_patient_do_not_raise_significance():
    ours, theirs = table(40, 12, 3, 20)
    net = ours * 1.0 - theirs
    assert sign_test(np.repeat(net, 5), np.repeat(np.arange(75), 5)) == sign_test(
        net, np.arange(75)
    )


def test_holm_equals_statsmodels():
    p = np.random.default_rng(0).random(20) ** 3
    assert holm(p.tolist()) == pytest.approx(multipletests(p, method="holm")[1].tolist())
    assert holm([]) == []


def test_clustered_pairs_go_through_the_bootstrap():
    rng = np.random.default_rng(0)
    ours, theirs = (rng.random(40) < 0.8).astype(float), (rng.random(40) < 0.6).astype(float)
    one = difference(ours, theirs, independent(40), **HOW)
    copies = Design(np.repeat(np.arange(40), 4), np.zeros(160, dtype=np.intp))
    four = difference(np.repeat(ours, 4), np.repeat(theirs, 4), copies, **HOW)
    assert one.method == "Newcombe, paired"
    assert "bootstrap by case" in four.method
    assert one.value == four.value
    assert four.high - four.low == pytest.approx(one.high - one.low, rel=0.25)


def test_coverage_of_the_paired_difference():
    hits = 0
    for run in range(800):
        rng = np.random.default_rng(run)
        theirs = rng.random(120) < 0.85
        ours = np.where(rng.random(120) < 0.8, theirs, rng.random(120) < 0.6)
        low, high = newcombe(ours, theirs, confidence=0.95)
        hits += low <= 0.2 * (0.6 - 0.85) <= high
    assert 0.93 <= hits / 800 <= 0.98


def test_rows_of_a_run(rich):
    rows = paired(rich)
    against = rows.find(kind="disturbance")
    assert len(against) == sum(c.family != "none" for c in rich.cells)
    assert all(r.p is None for r in against if r.family == "faults")
    assert all(r.p_holm >= r.p for r in rows if r.p is not None)
    between = rows.find(kind="model")
    assert {(r.target, r.other) for r in between} == {("mamba", "resnet")}
    assert "faults" not in {r.family for r in between}
    clean = next(r for r in between if r.family == "none")
    accuracy = [rich.samples(c)["score"].mean() for c in rich.cells if c.family == "none"]
    assert clean.value == pytest.approx(accuracy[0] - accuracy[1], abs=1e-6)


def test_attacks_of_one_budget_are_compared_with_clean_together(maker):
    maker.cell("mamba", outcomes=[maker.outcome(i, right=i < 39) for i in range(40)])
    settings = [{"epsilon": 0.01, "norm": "linf", "loss": loss} for loss in ("ce", "margin")]
    for turn, setting in enumerate([*settings, {"epsilon": 0.02, "norm": "linf"}]):
        rows = [maker.outcome(i, right=i < 39 and i % 10 != turn) for i in range(40)]
        maker.cell("mamba", "attacks", "pgd", setting=setting, outcomes=rows)
    rows = paired(maker.write())
    (row,) = rows.find(kind="together")
    assert (row.value, row.gains, row.losses) == (pytest.approx(-0.2), 0, 8)
    assert row.setting == '{"attacks":["pgd"],"epsilon":0.01,"norm":"linf"}'
    assert row.p_holm == row.p == pytest.approx(2 * 0.5**8)
    assert [r.value for r in rows.find(kind="disturbance")] == pytest.approx([-0.1] * 3, abs=0.01)


def test_models_meet_on_shared_samples_only(maker):
    maker.cell("mamba", outcomes=[maker.outcome(i, right=True) for i in range(30)])
    maker.cell("resnet", outcomes=[maker.outcome(i, right=i >= 20) for i in range(20, 40)])
    (row,) = paired(maker.write()).find(kind="model")
    assert (row.n, row.value) == (10, 0.0)


def test_faults_dealt_by_layer_are_weighted_like_the_summary(maker):
    maker.cell("mamba", outcomes=[maker.outcome(i, right=True) for i in range(40)])
    notes = [
        {"stratum": f"layer{t % 2}", "share": (0.9, 0.1)[t % 2], "sites": []} for t in range(20)
    ]
    rows = [maker.outcome(i, right=t % 2 == 0, trial=t) for t in range(20) for i in range(40)]
    maker.cell("mamba", "faults", "weight_bit_flip", trials=20, outcomes=rows, notes=notes)
    (row,) = paired(maker.write()).find(family="faults")
    assert row.value == pytest.approx(-0.1)

import pytest

from palpate.outcome import Verdict
from palpate.statistics.checks import checks


@pytest.mark.parametrize(
    ("margin", "trials", "status"), [(0.2, 40, "pass"), (0.01, 40, "warn"), (0.01, 900, "pass")]
)
def test_the_margin_is_measured_again(maker, margin, trials, status):
    maker.cell("mamba", outcomes=[maker.outcome(i, right=True) for i in range(40)])
    notes = [{"stratum": "ab"[t % 2], "share": (0.9, 0.1)[t % 2]} for t in range(40)]
    rows = [
        maker.outcome(i, right=True, trial=t, verdict=Verdict.SDC if t % 4 == 1 else Verdict.MASKED)
        for t in range(40)
        for i in range(40)
    ]
    setting = {"margin": margin, "trials": trials}
    maker.cell(
        "mamba",
        "faults",
        "weight_bit_flip",
        setting=setting,
        trials=40,
        outcomes=rows,
        notes=[{**n, "sites": []} for n in notes],
    )
    (found,) = checks(maker.write()).find(check="margin of the SDC rate reached")
    assert found.status == status
    assert "SDC rate 0.05 [" in found.evidence
    assert ("all 40 trials were used up" in found.evidence) == (status == "warn")

"""Whether a universal perturbation carries over, from what its search told the record."""

import pytest

from palpate.statistics._shared_checks import SHARED
from palpate.statistics.checks import checks


def told(own, apart, *, fitted=20, others=20):
    return {
        "measured_on": "first half",
        "fitted_on": fitted,
        "rounds": 5,
        "linf": 0.01,
        "l2": 0.2,
        "fooling_rate": own,
        "held_out": others,
        "fooling_rate_held_out": apart,
    }


@pytest.mark.parametrize(
    ("halves", "verdict", "words"),
    [
        ([(0.9, 0.8), (0.7, 0.8)], "pass", "on 80% of the samples that it was fitted on (40)"),
        ([(1.0, 0.0), (1.0, 0.4)], "warn", "on 20% of others (40)"),
        ([(0.0, 0.0), (0.0, 0.0)], "warn", "none was found"),
    ],
)
def test_what_the_search_told_is_judged(maker, halves, verdict, words):
    maker.cell("mamba", outcomes=[maker.outcome(i, right=True) for i in range(40)])
    maker.cell(
        "mamba",
        "attacks",
        "universal",
        setting={"epsilon": 0.01, "norm": "linf"},
        outcomes=[maker.outcome(i, right=i < 20, linf=0.01) for i in range(40)],
        notes=[{"universal": [told(*half) for half in halves]}],
    )
    [found] = [c for c in checks(maker.write()) if c.check == SHARED]

    assert found.status == verdict
    assert words in found.evidence
    assert (found.advice != "") == (verdict == "warn")


def test_parts_count_by_their_size(maker):
    maker.cell("mamba", outcomes=[maker.outcome(i, right=True) for i in range(40)])
    maker.cell(
        "mamba",
        "attacks",
        "universal",
        setting={"epsilon": 0.01},
        outcomes=[maker.outcome(i, right=True) for i in range(40)],
        notes=[{"universal": [told(1.0, 0.5, fitted=30, others=10), told(0.2, 0.5, fitted=10)]}],
    )
    [found] = [c for c in checks(maker.write()) if c.check == SHARED]

    assert "on 80% of the samples that it was fitted on (40)" in found.evidence


def test_one_change_for_all_is_not_held_against_a_search_for_each(maker):
    """Weaker than one step for each sample, and its loss falls on some: both as it should be."""
    maker.cell("mamba", outcomes=[maker.outcome(i, right=True) for i in range(40)])
    for name, fallen, steps in (("fgsm", 30, 1), ("square", 20, 100), ("universal", 5, 10)):
        maker.cell(
            "mamba",
            "attacks",
            name,
            setting={"epsilon": 0.01, "norm": "linf", "steps": steps},
            outcomes=[
                maker.outcome(i, right=i >= fallen, linf=0.01, rise=-0.1 if steps == 10 else 1.0)
                for i in range(40)
            ],
        )
    assert not [c for c in checks(maker.write()) if "universal" in c.cell]


def test_a_run_without_one_has_no_such_check(rich):
    assert not [c for c in checks(rich) if c.check == SHARED]

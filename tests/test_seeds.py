from hypothesis import given
from hypothesis import strategies as st

from palpate import registry
from palpate.seeds import Seeds


@given(st.integers(0, 2**31), st.text(max_size=20), st.integers(0, 10**6), st.text(max_size=20))
def test_every_part_matters(campaign, cell, trial, sample):
    seeds = Seeds(campaign, cell, trial)
    changed = [
        Seeds(campaign + 1, cell, trial),
        Seeds(campaign, cell + "x", trial),
        seeds.at(trial + 1),
    ]

    assert all(seeds.per_sample([sample]) != other.per_sample([sample]) for other in changed)
    assert seeds.per_sample([sample]) != seeds.per_sample([sample + "x"])
    assert seeds.shared() not in seeds.per_sample([sample])
    assert 0 <= seeds.shared() < 2**63


def test_doses_and_trial_counts_share_their_draws():
    noise = [
        registry.create("corruptions", "gaussian_noise", {"severity": s, "trials": t}).seeds(0)
        for s, t in ((1, 1), (5, 1), (5, 9))
    ]

    assert noise[0] == noise[1] == noise[2]
    assert noise[0] != registry.create("corruptions", "defocus_blur", {}).seeds(0)

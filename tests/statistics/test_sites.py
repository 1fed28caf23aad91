import numpy as np
import pytest

from palpate.metrics.accuracy import Accuracy
from palpate.metrics.dice import Dice
from palpate.statistics.sites import UNNAMED, by_site


@pytest.fixture
def mixed(synthetic, tmp_path):
    """Ten cases of two images each at a, five at b; b falls under noise."""

    def made(sites=("a", "a", "b"), fall="b"):
        maker = synthetic.Maker(tmp_path, cases=15, per_case=2, targets=("net",))
        for name in ("none", "gaussian_noise"):
            rows = [
                maker.outcome(
                    i,
                    right=name == "none" or sites[i // 2 % len(sites)] != fall or i % 4 == 0,
                    site=sites[i // 2 % len(sites)],
                )
                for i in range(30)
            ]
            family = "none" if name == "none" else "corruptions"
            maker.cell("net", family, name, outcomes=rows)
        return maker.write()

    return made


def test_each_site_has_its_own_value_and_interval(mixed):
    rows = by_site(mixed(), {"none": Accuracy(), "corruptions": Accuracy()})

    found = {(r.family, r.site): r for r in rows}
    assert len(found) == len(rows) == 4
    assert found["none", "b"].found.value == 1
    assert found["corruptions", "a"].found.value == 1
    fallen = found["corruptions", "b"]
    assert (fallen.samples, fallen.cases, fallen.found.n) == (10, 5, 10)
    assert fallen.found.value == pytest.approx(3 / 10)
    assert fallen.found.low < 0.3 < fallen.found.high
    narrow = found["corruptions", "a"].found
    assert narrow.high - narrow.low < fallen.found.high - fallen.found.low


def test_a_family_that_is_not_asked_for_is_left_out(mixed):
    assert {r.family for r in by_site(mixed(), {"none": Accuracy()})} == {"none"}


@pytest.mark.parametrize("site", ["", "a"])
def test_one_site_or_none_is_no_subgroup(mixed, site):
    assert len(by_site(mixed((site,)), {"none": Accuracy()})) == 0


def test_samples_without_a_site_are_their_own_group(mixed):
    sites = {r.site for r in by_site(mixed(("", "b")), {"none": Accuracy()})}
    assert sites == {UNNAMED, "b"}


def test_random_faults_are_crossed_with_the_cases_of_a_site(synthetic, tmp_path):
    maker = synthetic.Maker(tmp_path, cases=8, targets=("net",), kind="segmentation")
    site = ("a", "b")

    def rows(trials):
        draw = np.random.default_rng(0)
        return [
            maker.outcome(
                i, right=True, trial=t, score=float(draw.random() / (1 + i % 2)), site=site[i % 2]
            )
            for t in range(trials)
            for i in range(8)
        ]

    maker.cell("net", outcomes=rows(1))
    notes = [{"scope": "model"} for _ in range(6)]
    maker.cell("net", "faults", "weight_bit_flip", trials=6, outcomes=rows(6), notes=notes)
    found = by_site(maker.write(), {"faults": Dice()}).rows

    assert [(r.samples, r.cases) for r in found] == [(4, 4), (4, 4)]
    assert found[0].found.n == 24

import dataclasses

import pytest
import torch
from torch import nn

from palpate.errors import ConfigError, ContractError
from palpate.evaluation import evaluate
from palpate.faults._dealt import Sequential
from palpate.faults._sites import distinct_below
from palpate.faults.activation_bit_flip import ActivationBitFlip
from palpate.faults.weight_bit_flip import WeightBitFlip
from palpate.outcome import Verdict
from palpate.sampling import Tally, estimate


class Linear(nn.Module):
    def __init__(self, weights):
        super().__init__()
        self.weights = nn.Parameter(torch.tensor(weights))

    def forward(self, images):
        return images.flatten(1)[:, :1] * self.weights


def linear(wrap, weights):
    target, batch = wrap(Linear(weights), (2, 1, 1, 1), classes=len(weights))
    return target, batch.with_images(torch.ones_like(batch.images))


def study(fault, target, batch):
    return evaluate(target, [batch], perturbation=fault, study=batch)


def test_a_campaign_stops_when_its_margin_is_reached(wrap):
    target, batch = linear(wrap, [1.0, 0.75, -3.0])
    result = study(WeightBitFlip(margin=0.05, trials=5000, scope="field"), target, batch)
    strata = [n["stratum"] for n in result.notes]
    size = {n["stratum"]: round(n["share"] * 96) for n in result.notes}
    tallies = {name: Tally(size[name]) for name in dict.fromkeys(strata)}
    for trial, name in enumerate(strata):
        hit = [o.verdict is Verdict.SDC for o in result.outcomes if o.trial == trial]
        tallies[name] = tallies[name].plus([sum(hit) / len(hit)])
    rate = estimate(list(tallies.values()))
    assert rate.margin <= 0.05
    assert len(strata) < 90
    # 11 of 96 bits are critical, see test_weight_bit_flip
    assert rate.low <= 11 / 96 <= rate.high


def test_all_faults_of_a_small_memory_are_met_exactly_once(wrap):
    target, batch = linear(wrap, [1.0, 0.75, -3.0])
    result = study(WeightBitFlip(margin=1e-6, trials=5000, scope="field"), target, batch)
    sites = [(n["sites"][0]["index"][0], n["sites"][0]["bit"]) for n in result.notes]
    assert len(sites) == len(set(sites)) == 96
    sdc = sum(o.verdict is Verdict.SDC for o in result.outcomes)
    assert sdc == 2 * 11


def test_trials_are_capped_and_the_first_round_is_fixed(wrap):
    target, batch = linear(wrap, [0.1 * i for i in range(1, 300)])
    fault = WeightBitFlip(margin=1e-4, trials=150, scope="field")
    result = study(fault, target, batch)
    assert len(result.notes) == 150
    with pytest.raises(ConfigError, match=r"expected at least 64 trials, 16 for each of 4 strata"):
        study(dataclasses.replace(fault, trials=60), target, batch)


def test_the_same_trials_come_whatever_the_batch_size(wrap):
    target, batch = linear(wrap, [1.0, 0.75, -3.0, 0.2])
    fault = WeightBitFlip(margin=0.05, trials=400, scope="field")
    singles = [
        dataclasses.replace(
            batch,
            images=batch.images[i : i + 1],
            references=batch.references[i : i + 1],
            samples=batch.samples[i : i + 1],
            cases=batch.cases[i : i + 1],
            sites=batch.sites[i : i + 1],
        )
        for i in range(2)
    ]
    whole = evaluate(target, [batch], perturbation=fault, study=batch)
    apart = evaluate(target, singles, perturbation=fault, study=batch)
    assert whole.notes == apart.notes
    assert sorted((o.trial, o.sample, o.verdict) for o in whole.outcomes) == sorted(
        (o.trial, o.sample, o.verdict) for o in apart.outcomes
    )


def test_batches_must_be_readable_again(wrap):
    target, batch = linear(wrap, [0.1 * i for i in range(1, 40)])
    fault = WeightBitFlip(margin=0.01, trials=900, scope="field")
    with pytest.raises(ContractError, match="expected batches that can be read again"):
        evaluate(target, iter([batch]), perturbation=fault, study=batch)


def test_activations_stop_at_a_margin_too(wrap, nets):
    target, batch = wrap(*nets("unet"))
    fault = ActivationBitFlip(margin=0.08, trials=400, scope="field")
    assert isinstance(fault.fitted(target, batch), Sequential)
    result = study(fault, target, batch)
    assert 64 <= len(result.notes) < 400


@pytest.mark.parametrize("margin", [-0.1, 1.0])
def test_margins_out_of_range_are_refused(margin):
    with pytest.raises(ConfigError, match=r"expected margin in \[0, 1\)"):
        WeightBitFlip(margin=margin)


def test_a_margin_needs_single_flips():
    with pytest.raises(ConfigError, match="expected single flips with a margin"):
        WeightBitFlip(margin=0.01, flips=2)


@pytest.mark.parametrize("size", [90, 10**7])
def test_draws_are_distinct_nested_and_in_range(size):
    many = distinct_below(size, 80, 5)
    assert len(set(many.tolist())) == 80
    assert many.min() >= 0
    assert many.max() < size
    assert (distinct_below(size, 7, 5) == many[:7]).all()


def test_more_flips_and_higher_rates_add_to_the_same_bits(wrap):
    target, batch = linear(wrap, [0.1 * i for i in range(1, 300)])

    def sites(fault):
        seeds = fault.seeds(0)
        with fault.prepared(target, batch) as enter, enter(seeds.at(3)) as world:
            return {(s["index"][0], s["bit"]) for s in world.notes["sites"]}

    assert sites(WeightBitFlip(flips=2)) < sites(WeightBitFlip(flips=9))
    low, high = (sites(WeightBitFlip(bit_error_rate=r)) for r in (5e-4, 3e-3))
    assert low
    assert low < high


def test_too_few_trials_for_the_first_round_are_refused_before_compute(wrap, nets):
    target, _ = wrap(*nets("unet"))
    with pytest.raises(ConfigError, match="expected at least 64 trials"):
        WeightBitFlip(margin=0.01, trials=63, scope="field", tensors=("last",)).check(target)


def test_bits_of_counters_alone_are_no_bits_of_the_model(wrap, nets):
    target, _ = wrap(*nets("unet"))
    with pytest.raises(ConfigError, match="expected distinct bits between 0 and 31"):
        WeightBitFlip(bits=(40,)).check(target)

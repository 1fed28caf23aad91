import json
from collections import Counter

import pytest
import torch
from torch import nn

from palpate.errors import CapabilityError, ConfigError, RestorationError
from palpate.faults import _bits
from palpate.faults._sites import places
from palpate.faults._storage import deployed, stored
from palpate.faults.base import fingerprint
from palpate.faults.weight_bit_flip import WeightBitFlip


class Linear(nn.Module):
    """Logit k is weight k times the pixel; the pixel is 1."""

    def __init__(self, weights):
        super().__init__()
        self.weights = nn.Parameter(torch.tensor(weights))

    def forward(self, images):
        return images.flatten(1)[:, :1] * self.weights


def decisions(fault, target, batch):
    seeds = fault.seeds(0)
    with fault.prepared(target, batch) as enter:
        for trial in range(fault.repeats):
            with enter(seeds.at(trial)) as world:
                yield world.notes, world.target.predict(world.batch)


def linear(wrap, weights):
    target, batch = wrap(Linear(weights), (2, 1, 1, 1), classes=len(weights))
    return target, batch.with_images(torch.ones_like(batch.images))


def test_critical_bits_known_by_construction(wrap):
    target, batch = linear(wrap, [1.0, 0.75, -3.0])
    # 0.75 wins only where it grows beyond 1: bits 23 (1.5), 30 (huge)
    # 1.0 loses where it shrinks below 0.75 or turns: 23-29 (1/2 ... tiny), 31; bit 30 is infinite
    # -3.0 wins where it turns positive: bit 31
    critical = {((0,), b) for b in (*range(23, 30), 31)} | {((1,), 23), ((1,), 30), ((2,), 31)}
    found, due = set(), set()
    for notes, prediction in decisions(WeightBitFlip(trials=1500), target, batch):
        [site] = notes["sites"]
        key = (tuple(site["index"]), site["bit"])
        if not bool(prediction.finite.all()):
            due.add(key)
        elif int(prediction.decisions[0]) != 0:
            found.add(key)
    assert found == critical
    assert due == {((0,), 30)}


def test_a_flip_that_makes_nan_reaches_the_logits(wrap, nets):
    target, batch = wrap(*nets("vit"))
    fault = WeightBitFlip(trials=20, bits=(30,), tensors=("norm.weight",))  # gains of exactly 1
    for _, prediction in decisions(fault, target, batch):
        assert not bool(prediction.finite.any())


def test_notes_are_plain_data_and_name_the_bit(wrap, nets):
    target, batch = wrap(*nets("medmamba"))
    fault = WeightBitFlip(trials=4, flips=2, bits=(30,), tensors=("*.A_logs",), scope="layer")
    for notes, _ in decisions(fault, target, batch):
        assert json.loads(json.dumps(notes)) == notes
        assert notes["scope"] == "layer"
        assert len(notes["sites"]) == 2
        for site in notes["sites"]:
            assert site["tensor"].endswith(".A_logs")
            assert site["layer"] == notes["stratum"] == site["tensor"].removesuffix(".A_logs")
            tensor = target.module.get_parameter(site["tensor"])
            assert site["after"] == _bits.plain(tensor[tuple(site["index"])].item())
            assert (site["bit"], site["field"], site["format"]) == (30, "exponent", "float32")
            assert site["after"] != site["before"]


def test_the_memory_holds_raw_parameters_and_buffers_and_tied_tensors_once(nets):
    net, _ = nets("awkward")
    assert [p.name for p in places(net)] == [
        "stem.weight",
        "stem.bias",
        "twice.weight",
        "twice.bias",
        "tied.weight",
        "tied.bias",
        "order",
    ]
    mamba, _ = nets("medmamba")
    names = {p.name for p in places(mamba)}
    raw = {"A_logs", "Ds", "x_proj_weight", "dt_projs_weight", "dt_projs_bias"}
    assert {f"layers.0.blocks.0.self_attention.{n}" for n in raw} <= names
    assert "layers.0.blocks.0.conv33conv33conv11.0.running_var" in names


def test_layers_get_equal_shares_of_the_trials(wrap, nets):
    target, batch = wrap(*nets("unet"))
    fault = WeightBitFlip(trials=24, scope="layer")
    layers = Counter(n["sites"][0]["layer"] for n, _ in decisions(fault, target, batch))
    assert set(layers.values()) == {3}
    assert len(layers) == 8
    shares = {n["stratum"]: n["share"] for n, _ in decisions(fault, target, batch)}
    assert sum(shares.values()) == pytest.approx(1)


def test_sites_are_uniform_over_all_bits(wrap):
    target, batch = linear(wrap, [0.1, 0.2, 0.3, 0.4])
    counts = Counter(
        (n["sites"][0]["index"][0], n["sites"][0]["bit"])
        for n, _ in decisions(WeightBitFlip(trials=2560), target, batch)
    )
    assert len(counts) == 128
    squares = sum((c - 20) ** 2 / 20 for c in counts.values())
    assert 80 < squares < 190  # chi-square with 127 degrees of freedom, 0.1 % tails


def test_a_trial_is_the_same_whatever_the_batch_and_the_number_of_trials(wrap, nets):
    target, batch = wrap(*nets("unet"))
    _, other = wrap(target.module, (1, 3, 16, 16), seed=3)
    many = [n for n, _ in decisions(WeightBitFlip(trials=9, flips=2), target, batch)]
    few = [n for n, _ in decisions(WeightBitFlip(trials=5, flips=2), target, other)]
    assert many[:5] == few


def test_everything_is_restored_also_after_an_exception(wrap, nets):
    target, batch = wrap(*nets("resnet18"))
    digest, before = target.digest(), fingerprint(target.module)

    def fail(fault):
        with fault.prepared(target, batch) as enter, enter(fault.seeds(0)) as world:
            world.target.predict(world.batch)
            assert target.digest() != digest
            raise ZeroDivisionError

    for fmt in ("stored", "int8", "float16"):
        with pytest.raises(ZeroDivisionError):
            fail(WeightBitFlip(flips=50, format=fmt))
        assert target.digest() == digest
        assert fingerprint(target.module) == before


def test_a_model_changed_behind_our_back_is_reported(wrap, nets):
    target, batch = wrap(*nets("unet"))
    fault = WeightBitFlip()
    with (
        pytest.raises(RestorationError, match=r"got changes in last\.bias"),
        fault.prepared(target, batch),
    ):
        target.module.last.bias.data[0] += 1


def test_a_crash_of_the_faulty_model_is_a_non_finite_answer(wrap, nets):
    target, batch = wrap(*nets("awkward"))
    fault = WeightBitFlip(trials=3, bits=(40,), tensors=("order",))  # an index of 2**40
    for _, prediction in decisions(fault, target, batch):
        assert not bool(prediction.finite.any())


@pytest.mark.parametrize(
    "fmt", ["float16", "bfloat16", "float8_e4m3", "float8_e5m2", "int8", "int8_per_channel"]
)
def test_a_storage_format_rounds_the_model_and_flips_the_code(fmt, wrap, nets):
    target, batch = wrap(*nets("unet"))
    weight = target.module.two.conv.weight
    original = weight.detach().clone()
    memory = [stored(place, fmt) for place in places(target.module)]
    place = next(p for p in memory if p.name == "two.conv.weight")
    with deployed(memory):
        scale = 1.0 if place.scale is None else place.scale
        assert torch.equal(weight, place.codes.float() * scale)
        step = {"float16": 2**-11, "bfloat16": 2**-8, "float8_e4m3": 2**-4, "float8_e5m2": 2**-3}
        bound = original.abs() * step[fmt] + 1e-3 if fmt in step else original.abs().max() / 253
        assert bool(((weight - original).abs() <= bound).all())
    assert _bits.equal(weight, original)

    fault = WeightBitFlip(trials=6, format=fmt, tensors=("two.conv.weight",))
    for notes, prediction in decisions(fault, target, batch):
        [site] = notes["sites"]
        assert site["format"] == fmt.removesuffix("_per_channel")
        assert prediction.logits.shape == (2, 10)
    if fmt.startswith("int8"):
        top = WeightBitFlip(trials=6, format=fmt, bits=(7,), tensors=("two.conv.weight",))
        for notes, _ in decisions(top, target, batch):
            [site] = notes["sites"]
            unit = place.scale.expand(weight.shape)[tuple(site["index"])].item()
            assert abs(site["after"] - site["before"]) == pytest.approx(128 * unit, rel=1e-5)


def test_settings_that_the_target_cannot_serve_are_refused_before_any_pass(wrap, nets):
    target, _ = wrap(*nets("unet"))
    wrong = {
        "no tensor or module named 'two.cov.bias'; did you mean 'two.conv.bias'": WeightBitFlip(
            tensors=("two.cov.bias",)
        ),
        "expected distinct bits between 0 and 7, got": WeightBitFlip(
            format="int8", bits=(8,), tensors=("two.conv.weight",)
        ),
        "expected at most 320 flips, the bits of last.bias, got 321": WeightBitFlip(
            flips=321, scope="tensor", tensors=("last.bias",)
        ),
        "expected a tensor with exponent bits, got only": WeightBitFlip(
            format="int8", bits="exponent", tensors=("two.conv.weight",)
        ),
    }
    for text, fault in wrong.items():
        with pytest.raises(ConfigError, match=text):
            fault.check(target)
    with pytest.raises(CapabilityError, match="weight_bit_flip: expected a target with weights"):
        WeightBitFlip().check(wrap(nn.Flatten(), (1, 10))[0])
    with pytest.raises(ConfigError, match="expected a tensor that float32 can hold, got float16"):
        WeightBitFlip(format="float32").check(wrap(nn.Linear(2, 2).half(), (1, 2))[0])
    huge = nn.Linear(2, 2)
    nn.init.constant_(huge.weight, 1e5)
    with pytest.raises(ConfigError, match="expected values that float16 can hold, got 100000"):
        WeightBitFlip(format="float16").check(wrap(huge, (1, 2))[0])
    with pytest.raises(ConfigError, match=r"expected counts of at least 1, got \{.flips.: 0"):
        WeightBitFlip(flips=0)


def test_a_bit_error_rate_draws_a_binomial_number_of_distinct_bits(wrap):
    target, batch = linear(wrap, [0.1] * 64)
    fault = WeightBitFlip(trials=300, bit_error_rate=0.01)
    counts = [notes["flips"] for notes, _ in decisions(fault, target, batch)]
    assert abs(sum(counts) / 300 - 20.48) < 1  # mean of binomial(2048, 0.01); 4 standard errors
    assert 12 < torch.tensor(counts).float().var() < 30  # 20.3
    for notes, _ in decisions(WeightBitFlip(trials=5, bit_error_rate=1.0), target, batch):
        assert notes["flips"] == 2048
        assert len(notes["sites"]) == 64
    target.module.weights.data[:] = 0.1
    for notes, prediction in decisions(WeightBitFlip(trials=2, bit_error_rate=1e-9), target, batch):
        assert notes["sites"] == []
        assert _bits.equal(prediction.logits, target.predict(batch).logits)


def test_a_burst_hits_adjacent_bits_and_words(wrap):
    target, batch = linear(wrap, [0.1] * 8)
    fault = WeightBitFlip(trials=60, burst=3, words=2, bits=(31,))
    for notes, _ in decisions(fault, target, batch):
        first = notes["sites"][0]["index"][0]
        expected = [(first + w, b) for w, b in ((0, 31), (1, 0), (1, 1), (1, 31), (2, 0), (2, 1))]
        hit = [(s["index"][0], s["bit"]) for s in notes["sites"]]
        assert hit == [site for site in expected if site[0] < 8]


def test_stuck_bits_change_only_what_differs(wrap):
    target, batch = linear(wrap, [1.0, -1.0, 0.5])
    golden = target.predict(batch).logits
    low = WeightBitFlip(trials=60, bits=(31,), effect="stuck_at_0")
    for notes, prediction in decisions(low, target, batch):
        [site] = notes["sites"]
        changed = site["index"] == [1]
        assert notes["flips"] == int(changed)
        assert site["after"] == abs(site["before"])
        assert _bits.equal(prediction.logits, golden) != changed
    high = WeightBitFlip(trials=30, bits=(31,), effect="stuck_at_1")
    assert all(n["sites"][0]["after"] < 0 for n, _ in decisions(high, target, batch))


def test_settings_that_contradict_each_other_are_refused():
    with pytest.raises(ConfigError, match="expected flips or bit_error_rate, got both"):
        WeightBitFlip(flips=2, bit_error_rate=0.1)
    with pytest.raises(ConfigError, match=r"expected bit_error_rate in \[0, 1\], got 2"):
        WeightBitFlip(bit_error_rate=2)


def test_fields_keep_the_top_exponent_bit_apart(wrap, nets):
    target, batch = wrap(*nets("two_encoders"))
    fault = WeightBitFlip(trials=8, scope="field")
    found = {notes["stratum"]: notes["share"] for notes, _ in decisions(fault, target, batch)}
    shares = {"sign": 1, "top exponent bit": 1, "exponent": 7, "mantissa": 23}
    assert found == {f"float32 {name}": pytest.approx(n / 32) for name, n in shares.items()}

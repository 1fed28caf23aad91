import pytest

from palpate.outcome import Verdict
from palpate.statistics.critical import critical_bits

POPULATION = [
    {
        "tensor": "a.weight",
        "layer": "a",
        "group": "stem",
        "elements": 300,
        "bits": 9000,
        "parts": {"sign": 9000},
    },
    {
        "tensor": "b.weight",
        "layer": "b",
        "group": "head",
        "elements": 100,
        "bits": 1000,
        "parts": {"sign": 1000},
    },
]


def site(tensor, bit=30):
    group = "stem" if tensor[0] == "a" else "head"
    return {"tensor": tensor, "layer": tensor[0], "group": group, "bit": bit, "part": "sign"}


def record(maker, trials, outcome, **note):
    """One cell of single flips; `trials` names tensor, stratum and share of each."""
    maker.cell("mamba", outcomes=[maker.outcome(i, right=True) for i in range(40)])
    notes = [
        {"stratum": s, "share": w, "flips": 1, "sites": [site(t)], **note} for t, s, w in trials
    ]
    notes[0]["population"] = POPULATION
    rows = [outcome(t, i) for t in range(len(notes)) for i in range(40)]
    maker.cell(
        "mamba",
        "faults",
        "weight_bit_flip",
        setting={"flips": 1},
        trials=len(notes),
        outcomes=rows,
        notes=notes,
    )
    return maker.write()


def test_one_changed_decision_makes_a_bit_critical_and_not_harmful(maker):
    def outcome(t, i):
        hit = t % 2 == 0 and i == 7
        verdict = Verdict.SDC if hit else Verdict.MASKED
        return maker.outcome(i, right=not hit, trial=t, verdict=verdict)

    found = critical_bits(record(maker, [("a.weight", "model", 1.0)] * 20, outcome))
    (whole,) = found.find(by="all")
    assert whole.critical.value == pytest.approx(0.5)
    assert whole.harmful.value == 0
    assert (whole.bits, whole.trials) == (10_000, 20)
    assert whole.critical.units == 20  # faults, however many images there are
    value, low, high = whole.count()
    assert value == pytest.approx(5000)
    assert low < value < high
    (tensor,) = found.find(by="tensor")
    assert (tensor.name, tensor.bits) == ("a.weight", 9000)


def test_lost_outputs_are_harmful_and_not_critical(maker):
    def outcome(t, i):
        return maker.lost(i, trial=t) if t < 5 else maker.outcome(i, right=True, trial=t)

    (whole,) = critical_bits(record(maker, [("a.weight", "model", 1.0)] * 20, outcome)).find(
        by="all"
    )
    assert whole.critical.value == 0
    assert whole.harmful.value == pytest.approx(0.25)


def test_strata_of_unequal_size_are_weighted(maker):
    trials = [("a.weight", "a", 0.9), ("b.weight", "b", 0.1)] * 10

    def outcome(t, i):
        verdict = Verdict.SDC if t % 2 else Verdict.MASKED
        return maker.outcome(i, right=t % 2 == 0, trial=t, verdict=verdict)

    found = critical_bits(record(maker, trials, outcome))
    assert found.find(by="all")[0].critical.value == pytest.approx(0.1)
    assert [(r.name, r.critical.value) for r in found.find(by="group")] == [
        ("head", 1.0),
        ("stem", 0.0),
    ]


@pytest.mark.parametrize("note", [{"flips": 2}, {"damage": 0.3}])
def test_several_flips_and_chosen_ones_count_no_bits(maker, note):
    made = record(
        maker,
        [("a.weight", "model", 1.0)] * 4,
        lambda t, i: maker.outcome(i, right=True, trial=t),
        **note,
    )
    assert not critical_bits(made)


@pytest.mark.parametrize(("clean", "fatal"), [(36, 0.5), (28, 0.0)])
def test_a_model_that_guesses_has_no_fatal_bit(maker, clean, fatal):
    """30 of 40 have the most frequent class; half of the faults leave 20 right."""
    maker.cell("mamba", outcomes=[maker.outcome(i, right=i < clean) for i in range(40)])
    found = critical_bits(one_cell(maker, lambda t, i: i < (20 if t % 2 else clean)))
    (whole,) = found.find(by="all")
    assert whole.harmful.value == pytest.approx(0.5)
    assert whole.fatal.value == pytest.approx(fatal)


def test_without_a_clean_result_nothing_is_known_of_harm(maker):
    found = critical_bits(one_cell(maker, lambda t, i: i < 20))
    (whole,) = found.find(by="all")
    assert whole.critical.value == 0
    assert (whole.harmful.value, whole.fatal.value) == (None, None)


def one_cell(maker, right):
    """Twenty single flips of one tensor."""
    notes = [
        {"stratum": "model", "share": 1.0, "flips": 1, "sites": [site("a.weight")]}
        for _ in range(20)
    ]
    notes[0]["population"] = POPULATION
    rows = [maker.outcome(i, right=right(t, i), trial=t) for t in range(20) for i in range(40)]
    maker.cell(
        "mamba",
        "faults",
        "weight_bit_flip",
        setting={"flips": 1},
        trials=20,
        outcomes=rows,
        notes=notes,
    )
    return maker.write()

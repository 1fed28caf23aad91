"""What attacks say of themselves, on made-up rows."""

import dataclasses

import pytest

from palpate.outcome import Status
from palpate.regions import Region
from palpate.statistics.checks import checks

CLAIMED = "attack success equals the re-measured decisions"
RISES = "the loss of the attack rises"
CONVERGED = "attack converged (loss flat over the last steps)"


@pytest.fixture
def found(maker):
    def run(make, *, name="pgd", error=None):
        maker.cell("mamba", outcomes=[maker.outcome(i, right=True) for i in range(40)])
        setting = {"epsilon": 0.01, "norm": "linf", "steps": 20}
        rows = [make(i) for i in range(40)]
        maker.cell("mamba", "attacks", name, setting=setting, outcomes=rows)
        if error is not None:
            maker.cell("mamba", "attacks", "fgsm", setting=setting, error=error)
        return {c.check: c for c in checks(maker.write())}

    return run


@pytest.mark.parametrize(
    ("false", "storage", "status"),
    [(0, "float32", "pass"), (5, "float32", "fail"), (5, "uint8", "pass")],
)
def test_claims_are_held_against_what_was_measured(found, maker, false, storage, status):
    maker.storage = storage
    check = found(lambda i: maker.outcome(i, right=True, linf=0.01, claimed=float(i >= false)))[
        CLAIMED
    ]
    assert check.status == status
    assert ("scores that the attack claims" in check.evidence) == (status != "pass")


def test_one_near_tie_among_many_is_a_warning(maker):
    maker.cases = 80
    maker.cell("mamba", outcomes=[maker.outcome(i, right=True) for i in range(80)])
    setting = {"epsilon": 0.01, "norm": "linf", "steps": 20}
    rows = [maker.outcome(i, right=True, linf=0.01, claimed=float(i > 0)) for i in range(80)]
    maker.cell("mamba", "attacks", "pgd", setting=setting, outcomes=rows)
    (check,) = checks(maker.write()).find(check=CLAIMED)
    assert check.status == "warn"


@pytest.mark.parametrize(
    "setting",
    [
        {"criterion": "dice_below", "bar": 0.5},
        {"criterion": "pixel_success", "bar": 0.4},
        {"goal": "erase"},
        {"label": "prediction"},
        {},
    ],
    ids=lambda s: next(iter(s.values()), "audit"),
)
def test_a_search_is_held_to_what_it_sought(maker, setting):
    """Half of the masks are below the bar already: nothing is to be done, and 0 is claimed."""
    rows = [
        maker.outcome(
            i,
            right=True,
            score=0.8 if i % 2 else 0.45,
            last_score=0.8 if i % 2 else 0.45,
            pixels=100,
            wrong_pixels=10 if i % 2 else 40,
            status=Status.OK if i % 2 else Status.NO_MOVE,
            reference=(),
            decision=(),
            probabilities=(),
        )
        for i in range(40)
    ]
    maker.kind = "segmentation"
    maker.cell("mamba", outcomes=rows)
    found = 0.9 if setting.get("criterion") == "pixel_success" else 0.8
    claims = [dataclasses.replace(r, claimed=found if r.score > 0.5 else 0.0) for r in rows]
    maker.cell("mamba", "attacks", "minimal_epsilon", setting=setting, outcomes=claims)
    status = {c.check: c.status for c in checks(maker.write())}
    assert status[CLAIMED] == ("pass" if setting else "fail")
    assert status["the attack could act"] == ("pass" if "criterion" in setting else "warn")


@pytest.mark.parametrize(("flat", "status"), [(0, "pass"), (3, "pass"), (10, "warn"), (30, "fail")])
def test_a_loss_that_does_not_rise(found, maker, flat, status):
    check = found(lambda i: maker.outcome(i, right=True, linf=0.01, rise=0.0 if i < flat else 0.4))[
        RISES
    ]
    assert check.status == status


@pytest.mark.parametrize(("swapped", "status"), [(True, "pass"), (False, "fail")])
def test_a_loss_without_a_gradient_on_empty_masks_need_not_rise_there(maker, swapped, status):
    rows = [
        maker.outcome(
            i,
            right=True,
            rise=0.4 if i < 10 else 0.0,
            regions=(Region(9 * (i < 10), 9, 9 * (i < 10), 1.0, 1.0, 1, 1),),
        )
        for i in range(40)
    ]
    maker.kind = "segmentation"
    maker.cell("mamba", outcomes=rows)
    setting = {"epsilon": 0.01, "norm": "linf", "loss": "bce", "swap_arguments": swapped}
    maker.cell("mamba", "attacks", "fgsm", setting=setting, outcomes=rows)
    assert {c.check: c.status for c in checks(maker.write())}[RISES] == status


def test_nothing_is_asked_of_a_search_whose_steps_are_not_seen(found, maker):
    rows = found(lambda i: maker.outcome(i, right=True, linf=0.01, rise=0.0), name="normalised_pgd")
    assert rows[RISES].status == "not run"


def test_a_broken_sample_need_not_have_risen(found, maker):
    rows = found(lambda i: maker.outcome(i, right=False, linf=0.01, rise=0.0))
    assert rows[RISES].status == "pass"


@pytest.mark.parametrize(("late", "status"), [(0.02, "pass"), (0.3, "warn")])
def test_a_search_cut_short(found, maker, late, status):
    def make(i):
        # only what still stands could have fallen to more steps
        return maker.outcome(i, right=i < 20, linf=0.01, rise=1.0, late=late if i < 20 else 0.9)

    check = found(make)[CONVERGED]
    assert check.status == status
    assert ("20 samples that still stand" in check.evidence) == (status == "warn")


@pytest.mark.parametrize("name", ["square", "transfer", "foolbox"])
def test_searches_that_climb_no_loss_of_this_model_are_not_held_to_it(found, maker, name):
    rows = found(lambda i: maker.outcome(i, right=True, linf=0.01, rise=0.0, late=0.9), name=name)
    assert rows[CONVERGED].status == rows[RISES].status == "not run"


def test_runs_of_older_versions_say_nothing_of_their_searches(found, maker):
    rows = found(lambda i: maker.outcome(i, right=True, linf=0.01))
    assert rows[RISES].status == rows[CONVERGED].status == "not run"


def test_a_cell_stopped_by_its_frame_is_a_failure_of_the_range(found, maker):
    error = {"type": "BudgetError", "message": "expected values within (0, 1)", "traceback": ""}
    rows = found(lambda i: maker.outcome(i, right=True, linf=0.01), error=error)
    assert rows["pixels within the legal range"].status == "fail"
    assert "within (0, 1)" in rows["pixels within the legal range"].evidence

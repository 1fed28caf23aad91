import dataclasses
import math

import pytest

from palpate.outcome import Status
from palpate.regions import Region
from palpate.statistics._check import fraction, named_entry
from palpate.statistics.checks import checks


def status(record, check):
    return {c.status for c in checks(record) if c.check == check}


def attack(maker, name, epsilon, right, **changes):
    rows = [maker.outcome(i, right=right(i), linf=epsilon, **changes) for i in range(40)]
    setting = {"epsilon": epsilon, "norm": "linf"} | ({"steps": 20} if name == "pgd" else {})
    maker.cell("mamba", "attacks", name, setting=setting, outcomes=rows)


@pytest.fixture
def clean(maker):
    maker.cell("mamba", outcomes=[maker.outcome(i, right=True) for i in range(40)])
    return maker


def test_a_sound_run_has_no_failure_and_names_what_was_not_run(rich):
    found = checks(rich)
    assert "fail" not in {c.status for c in found}
    assert len(found.find(status="not run")) >= 8
    order = [c.status for c in found]
    assert order == sorted(order, key=["fail", "warn", "pass", "not run"].index)
    assert all(c.evidence for c in found)


def test_an_attack_without_gradient_fails(clean):
    attack(clean, "fgsm", 0.01, lambda i: True, status=Status.NO_GRADIENT)
    assert status(clean.write(), "the attack could act") == {"fail"}


def test_a_few_samples_that_could_not_be_attacked_warn(clean):
    rows = [clean.outcome(i, right=True, linf=0.01) for i in range(40)]
    rows[3] = dataclasses.replace(rows[3], status=Status.NO_MOVE)
    clean.cell("mamba", "attacks", "fgsm", setting={"epsilon": 0.01, "norm": "linf"}, outcomes=rows)
    assert status(clean.write(), "the attack could act") == {"warn"}


def lesions(maker, *, empty, stuck, setting):
    """An attack on masks that leaves its score; the first `empty` references hold no lesion."""
    region = Region(0, 0, 0, math.nan, 1.0, 0, 0), Region(9, 9, 9, 0.0, 1.0, 1, 1)
    rows = [
        maker.outcome(
            i,
            right=True,
            regions=(region[i >= empty],),
            status=Status.NO_GRADIENT if i in stuck else Status.OK,
        )
        for i in range(40)
    ]
    maker.cell("mamba", "attacks", "fgsm", setting={"epsilon": 0.01, **setting}, outcomes=rows)
    found = checks(maker.write()).find(check="the attack could act")
    return [(c.status, c.evidence) for c in found]


@pytest.mark.parametrize("setting", [{"loss": "bce", "swap_arguments": True}, {"loss": "dice"}])
def test_a_loss_that_says_nothing_of_empty_masks_only_warns(clean, setting):
    (found,) = lesions(clean, empty=25, stuck=range(25), setting=setting)
    assert found[0] == "warn"
    assert found[1].startswith(
        "only samples whose reference is empty are concerned, 25 of 25: this loss has no gradient"
    )


@pytest.mark.parametrize(
    ("stuck", "setting"),
    [
        (range(26), {"loss": "bce", "swap_arguments": True}),  # one with a lesion among them
        (range(25), {"loss": "bce"}),  # a loss that should have had a gradient
    ],
)
def test_any_other_sample_without_a_gradient_still_fails(clean, stuck, setting):
    (found,) = lesions(clean, empty=25, stuck=stuck, setting=setting)
    assert found[0] == "fail"
    assert found[1].startswith(f"no gradient or no movement for {len(stuck)} of the 40")


def test_spending_more_than_epsilon_fails(clean):
    rows = [clean.outcome(i, right=True, linf=0.0101) for i in range(40)]
    clean.cell("mamba", "attacks", "fgsm", setting={"epsilon": 0.01, "norm": "linf"}, outcomes=rows)
    assert status(clean.write(), "perturbation within the budget") == {"fail"}


@pytest.mark.parametrize(
    ("spent", "storage", "expected"),
    [(9.0, "float32", "fail"), (8.0, "uint8", "pass"), (784.0, "png:changed", "pass")],
)
def test_more_changed_values_than_allowed_fail(clean, spent, storage, expected):
    """A file of the changed image alone moves all values; that is not the attack's doing."""
    clean.storage = storage
    rows = [clean.outcome(i, right=True, linf=1.0, l0=spent) for i in range(40)]
    setting = {"epsilon": 8.0, "norm": "l0"}
    clean.cell("mamba", "attacks", "sigma_zero", setting=setting, outcomes=rows)
    assert status(clean.write(), "perturbation within the budget") == {expected}


def test_rounding_to_8_bits_may_spend_half_a_grey_level(clean):
    clean.storage = "uint8"
    rows = [clean.outcome(i, right=True, linf=0.01 + 0.9 / 510) for i in range(40)]
    clean.cell("mamba", "attacks", "fgsm", setting={"epsilon": 0.01, "norm": "linf"}, outcomes=rows)
    assert status(clean.write(), "perturbation within the budget") == {"pass"}


def test_a_jpeg_file_may_move_pixels_further_and_that_is_said(clean):
    clean.storage = "jpeg:75"
    rows = [clean.outcome(i, right=True, linf=0.05) for i in range(40)]
    clean.cell("mamba", "attacks", "fgsm", setting={"epsilon": 0.01, "norm": "linf"}, outcomes=rows)
    record = clean.write()
    [said] = [c for c in checks(record) if c.check.startswith("perturbation within the budget")]
    assert said.status == "not run"
    assert "recorded linf up to 0.05, the largest epsilon is 0.01" in said.evidence


def test_robust_accuracy_that_rises_with_epsilon_fails(clean):
    attack(clean, "fgsm", 0.01, lambda i: i < 10)
    attack(clean, "fgsm", 0.02, lambda i: i < 30)
    assert status(clean.write(), "robust accuracy falls with epsilon") == {"fail"}


def test_one_sample_right_again_is_a_warning(clean):
    attack(clean, "fgsm", 0.01, lambda i: i < 10)
    attack(clean, "fgsm", 0.02, lambda i: i < 11)
    assert status(clean.write(), "robust accuracy falls with epsilon") == {"warn"}


@pytest.mark.parametrize(
    ("name", "setting"), [("spatial", {"severity": 2.0}), ("adversarial_patch", {"coverage": 0.1})]
)
def test_attacks_with_another_dose_than_epsilon_are_held_to_it(clean, name, setting):
    """A larger dose must not leave more right; no dose that is physical has to break all."""
    (dose,) = setting
    for share, kept in ((1.0, 10), (2.0, 30)):
        rows = [clean.outcome(i, right=i < kept, linf=0.3) for i in range(40)]
        more = {dose: share * setting[dose], "kind": "rigid"}
        clean.cell("mamba", "attacks", name, setting=more, outcomes=rows)
    record = clean.write()

    assert status(record, "robust accuracy falls with epsilon") == {"fail"}
    assert status(record, "the curve reaches total failure") <= {"pass", "not run"}
    (found,) = checks(record).find(check="robust accuracy falls with epsilon")
    assert f"{dose} {2 * setting[dose]:g}" in found.cell
    assert "kind rigid" in found.cell


def test_one_step_stronger_than_many_fails(clean):
    attack(clean, "fgsm", 0.01, lambda i: i < 10)
    attack(clean, "pgd", 0.01, lambda i: i < 30)
    assert status(clean.write(), "many steps are at least as strong as one") == {"fail"}


def test_scores_that_the_decisions_do_not_bear_out_fail(clean):
    attack(clean, "fgsm", 0.01, lambda i: True, score=0.0)
    assert status(clean.write(), "attack success equals the re-measured decisions") == {"fail"}


def test_a_last_iterate_that_lags_behind_warns(clean):
    attack(clean, "pgd", 0.01, lambda i: False, last_score=1.0)
    assert status(clean.write(), "best iterate against last") == {"warn"}


def test_a_budget_that_leaves_much_right_warns(clean):
    attack(clean, "pgd", 0.01, lambda i: i < 30)
    assert status(clean.write(), "the curve reaches total failure") == {"warn"}


def test_a_severity_that_moves_less_warns(clean):
    for severity, l2 in ((1, 2.0), (2, 1.0)):
        rows = [clean.outcome(i, right=True, l2=l2) for i in range(40)]
        setting = {"severity": severity, "trials": 1}
        clean.cell("mamba", "corruptions", "gaussian_noise", setting=setting, outcomes=rows)
    assert status(clean.write(), "higher dose moves the image further") == {"warn"}


def test_a_severity_that_moves_nothing_fails(clean):
    rows = [clean.outcome(i, right=True) for i in range(40)]
    clean.cell("mamba", "corruptions", "gaussian_noise", setting={"severity": 1}, outcomes=rows)
    assert status(clean.write(), "higher dose moves the image further") == {"fail"}


def test_a_sample_twice_fails(clean):
    rows = [clean.outcome(i if i else 1, right=True, l2=1.0) for i in range(40)]
    clean.cell("mamba", "corruptions", "gaussian_noise", setting={"severity": 1}, outcomes=rows)
    assert status(clean.write(), "every sample exactly once per trial") == {"fail"}


def test_a_model_that_only_guesses_fails(maker):
    maker.cell("mamba", outcomes=[maker.outcome(i, right=i % 2 == 0) for i in range(40)])
    assert status(maker.write(), "clean accuracy above chance") == {"fail"}


def test_a_clean_output_that_is_not_finite_fails(maker):
    rows = [maker.outcome(i, right=True) for i in range(39)]
    maker.cell("mamba", outcomes=[*rows, maker.lost(39)])
    assert status(maker.write(), "finite output without faults") == {"fail"}


def test_faults_that_never_reach_the_output_warn(clean):
    rows = [
        clean.outcome(i, right=True, trial=t, identical=True) for t in range(2) for i in range(40)
    ]
    notes = [{"sites": []}] * 2
    clean.cell("mamba", "faults", "weight_bit_flip", trials=2, outcomes=rows, notes=notes)
    assert status(clean.write(), "faults reach the output") == {"warn"}


def test_failed_and_missing_cells_fail(maker):
    maker.cell("mamba", error={"type": "ValueError", "message": "boom", "traceback": ""})
    maker.cell("mamba", "attacks", "fgsm", setting={"epsilon": 0.01}, written=False)
    found = checks(maker.write()).find(check="every planned cell finished")
    assert [c.status for c in found] == ["fail", "fail"]
    assert found[0].evidence == "ValueError: boom"
    assert found[1].evidence == "1 of 2 cells were not run"


def test_dataset_warnings_are_repeated(clean):
    clean.warnings = ["MD5 differs from the published one"]
    (found,) = checks(clean.write()).find(check="dataset without a warning")
    assert (found.status, found.evidence) == ("warn", "MD5 differs from the published one")


def test_few_cases_give_a_warning_about_the_width(synthetic, tmp_path):
    maker = synthetic.Maker(tmp_path, cases=12, targets=("mamba",))
    maker.cell("mamba", outcomes=[maker.outcome(i, right=i % 3 > 0) for i in range(12)])
    (found,) = checks(maker.write()).find(check="intervals narrow enough to decide on")
    assert found.status == "warn"
    assert "12 independent units" in found.evidence


@pytest.mark.parametrize(("stated", "expected"), [(1.0, "pass"), (0.9, "fail")])
def test_the_card_of_a_model_must_hold(clean, stated, expected):
    record = clean.write()
    dataset = record.manifest["config"]["dataset"]
    card = {"recipe": {"dataset": dataset}, "clean": {"test": {"accuracy": stated, "n": 40}}}
    record.manifest["targets"][0]["card"] = card
    assert status(record, "clean accuracy as on the card") == {expected}


@pytest.mark.parametrize(("stated", "expected"), [(0.7, {"pass"}), (0.6, {"fail"}), (None, set())])
def test_the_card_of_a_mask_model_states_dice(synthetic, tmp_path, stated, expected):
    maker = synthetic.Maker(tmp_path, targets=("mamba",), kind="segmentation")
    maker.cell("mamba", outcomes=[maker.outcome(i, right=True, score=0.7) for i in range(40)])
    record = maker.write()
    dataset = record.manifest["config"]["dataset"]
    known = {"n": 40} if stated is None else {"n": 40, "dice": stated}
    record.manifest["targets"][0]["card"] = {
        "recipe": {"dataset": dataset},
        "clean": {"test": known},
    }
    assert status(record, "clean Dice as on the card") == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (8 / 255, "8/255"),
        (0.5 / 255, "0.5/255"),
        (0.1, "0.1"),
        (0.2, "0.2"),
        (1 / 3, "85/255"),
        (0.123456, "0.1235"),
        (3.0, "3"),
        (0.0, "0"),
    ],
)
def test_fractions(value, expected):
    assert fraction(value) == expected


@pytest.mark.parametrize(("square", "expected"), [(5, "fail"), (30, "pass")])
def test_a_search_without_gradients_that_wins_says_that_they_are_masked(clean, square, expected):
    attack(clean, "pgd", 0.01, lambda i: i < 25)
    attack(clean, "square", 0.01, lambda i: i < square)
    assert status(clean.write(), "gradient-free attack not stronger than white-box") == {expected}


@pytest.mark.parametrize(
    ("kind", "more", "expected"),
    [
        ("segmentation", {}, {"fail"}),
        ("segmentation", {"goal": "phantom"}, {"not run"}),
        ("segmentation", {"swap_arguments": True}, {"not run"}),
        ("segmentation", {"criterion": "dice_below", "bar": 0.5}, {"not run"}),
        ("classification", {"criterion": "dice_below", "bar": 0.5}, {"fail"}),
    ],
    ids=lambda v: next(iter(v), "") if isinstance(v, dict) else None,
)
def test_many_steps_towards_something_else_need_not_beat_one(clean, kind, more, expected):
    clean.kind = kind
    attack(clean, "fgsm", 0.01, lambda i: i < 10)
    rows = [clean.outcome(i, right=i < 30, linf=0.01) for i in range(40)]
    setting = {"epsilon": 0.01, "norm": "linf", "steps": 20, **more}
    clean.cell("mamba", "attacks", "pgd", setting=setting, outcomes=rows)
    assert status(clean.write(), "many steps are at least as strong as one") == expected


def test_a_blend_may_spend_twice_its_epsilon(clean):
    rows = [clean.outcome(i, right=False, linf=0.019) for i in range(40)]
    for update in ("add", "blend"):
        setting = {"epsilon": 0.01, "norm": "linf", "update": update}
        clean.cell("mamba", "attacks", "fgsm", setting=setting, outcomes=rows)
    found = checks(clean.write()).find(check="perturbation within the budget")
    assert [c.status for c in found] == ["fail"]


def test_targeted_attacks_are_not_called_untargeted(clean):
    rows = [clean.outcome(i, right=False, linf=0.01) for i in range(40)]
    setting = {"epsilon": 0.01, "norm": "linf", "goal": "erase"}
    clean.cell("mamba", "attacks", "fgsm", setting=setting, outcomes=rows)
    assert status(clean.write(), "targeted attacks") == set()


def test_a_cell_in_words_names_what_is_inside_it():
    entry = {"target": "mamba", "defence": "none", "perturbation": "transfer"}
    surrogate = {"name": "timm", "label": "own copy"}
    setting = {"surrogate": surrogate, "attack": "pgd", "epsilon": 0.01, "norm": "linf"}
    said = named_entry({**entry, "setting": setting})
    assert said == "mamba, transfer, attack pgd, surrogate own copy, epsilon 0.01, norm linf"

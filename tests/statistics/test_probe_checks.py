"""Made-up probes with known answers: which order of attacks, and which model, is believed."""

import copy

import pytest

from palpate.record import write_json
from palpate.statistics.checks import checks

CLEAN = [1.0] * 14 + [0.0] * 2
HALF = [0.0] * 8 + [1.0] * 6 + [0.0] * 2
GOOD = {
    "samples": 16,
    "answers": {
        "repeat": {"largest": 0.0, "decisions": 0},
        "company": {"largest": 1e-7, "decisions": 0},
        "training": [],
        "state_changed": False,
        "probabilities": False,
    },
    "preparation": {
        "mean": [0.5],
        "std": [0.5],
        "bounds": [0.0, 1.0],
        "own": None,
        "declared": {"loss": [0.3] * 20, "score": [1.0] * 20, "shift": 0.05},
        "raw": {"loss": [0.9] * 20, "score": [0.0] * 20, "shift": 1.5},
    },
    "gradients": {
        "cross-entropy": {"zero": 0, "not_finite": 0},
        "margin": {"zero": 0, "not_finite": 0},
    },
    "box": 0.01,
    "attacks": {
        "epsilon": 0.01,
        "width": 1.0,
        "steps": {"many": 8, "unbounded": 40},
        "queries": 40,
        "points": 20,
        "surrogate": "other",
        "skipped": {},
        "scores": {
            "clean": CLEAN,
            "random_points": CLEAN,
            "one_step": [0.0] * 3 + CLEAN[3:],
            "double": [0.0] * 16,
            "unbounded": [0.0] * 16,
            "gradient_free": CLEAN,
            "starts": [HALF, HALF],
            "transfer": CLEAN,
        },
    },
}
NAMES = (
    "same input, same answer",
    "answers do not hang on the rest of the batch",
    "output is logits, not probabilities",
    "gradients reach the input",
    "stable answers in a small box",
    "normalisation applied once",
    "many steps are at least as strong as one",
    "robust accuracy falls with epsilon",
    "unbounded attack reaches total failure",
    "random points not stronger than gradients",
    "gradient-free attack not stronger than white-box",
    "transfer attack not stronger than white-box",
    "several random starts agree",
)


def changed(**at):
    """The good probe with some of its parts replaced, named by their path."""
    probe = copy.deepcopy(GOOD)
    for path, value in at.items():
        *parents, last = path.split("__")
        place = probe
        for part in parents:
            place = place[part]
        place[last] = value
    return probe


@pytest.fixture
def judged(maker):
    def run(found, *, attacks=True, defence="none", **manifest):
        maker.cell("mamba", outcomes=[maker.outcome(i, right=True) for i in range(40)])
        if attacks:
            rows = [maker.outcome(i, right=False, linf=0.01) for i in range(40)]
            setting = {"epsilon": 0.01, "norm": "linf"}
            maker.cell("mamba", "attacks", "fgsm", setting=setting, outcomes=rows)
        entry = {"key": "f00", "target": "mamba", "defence": defence, "dataset": "breast"}
        record = maker.write(probes=[entry], **manifest)
        if found is not None:
            write_json(record.folder / "probes" / "f00.json", found)
        return {c.check: c for c in checks(record) if c.check in NAMES}

    return run


def test_a_good_probe_passes_everywhere(judged):
    found = judged(GOOD)

    assert {name: found[name].status for name in NAMES} == dict.fromkeys(NAMES, "pass")
    assert all(check.advice == "" for check in found.values())
    assert {check.cell for check in found.values()} == {"mamba"}


@pytest.mark.parametrize(
    ("probe", "check", "status", "said"),
    [
        (changed(answers__training=["a.drop"]), NAMES[0], "fail", "in training mode: a.drop"),
        (changed(answers__training=[""]), NAMES[0], "fail", "the model itself"),
        (changed(answers__repeat={"largest": 0.2, "decisions": 3}), NAMES[0], "fail", "3 of them"),
        (changed(answers__repeat={"largest": 5e-5, "decisions": 0}), NAMES[0], "pass", "twice"),
        (changed(answers__state_changed=True), NAMES[0], "fail", "buffers"),
        (changed(answers__company={"largest": 0.1, "decisions": 2}), NAMES[1], "fail", "2 of 16"),
        (changed(answers__probabilities=True), NAMES[2], "warn", "add up to 1"),
        (changed(gradients__margin={"zero": 2, "not_finite": 0}), NAMES[3], "fail", "2 zero"),
        (changed(gradients__margin={"zero": 0, "not_finite": 1}), NAMES[3], "warn", "1 not finite"),
        (changed(box=0.2), NAMES[4], "warn", "0.2 within"),
        (changed(box=0.9), NAMES[4], "fail", "0.9 within"),
        (
            changed(preparation__own={"factor": [2.0], "offset": [-1.0]}),
            NAMES[5],
            "fail",
            "the very numbers",
        ),
        (
            changed(
                preparation__own={"factor": [3.0], "offset": [-0.4]},
                preparation__raw={"loss": [0.1] * 20, "score": [1.0] * 20, "shift": None},
                preparation__declared={"loss": [0.3] * 20, "score": [1.0] * 20, "shift": None},
            ),
            NAMES[5],
            "fail",
            "rescales its input itself",
        ),
        (
            changed(preparation__declared={"loss": [1.3] * 20, "score": [0] * 20, "shift": 5.0}),
            NAMES[5],
            "fail",
            "5 and 1.5 deviations",
        ),
        (
            changed(preparation__declared={"loss": [1.3] * 20, "score": [0] * 20, "shift": 0.1}),
            NAMES[5],
            "warn",
            "loss 1.3 as declared, 0.9 without",
        ),
        (changed(attacks__scores__one_step=[0.0] * 16), NAMES[6], "fail", "against 0.000"),
        (changed(attacks__scores__double=CLEAN), NAMES[7], "fail", "8 samples better off"),
        (changed(attacks__scores__unbounded=CLEAN), NAMES[8], "fail", "0.875 of 0.875"),
        (changed(attacks__scores__unbounded=[0.0] * 15 + [1.0]), NAMES[8], "pass", "0.000 of"),
        (changed(attacks__scores__unbounded=[1.0] + [0.0] * 15), NAMES[8], "warn", "0.062 of"),
        (changed(attacks__scores__random_points=[0.0] * 16), NAMES[9], "fail", "20 random points"),
        (changed(attacks__scores__gradient_free=[0.0] * 16), NAMES[10], "fail", "queries"),
        (changed(attacks__scores__transfer=[0.0] * 16), NAMES[11], "fail", "made on other"),
        (
            changed(attacks__scores__starts=[HALF, [1.0] * 8 + [0.0] * 8]),
            NAMES[12],
            "fail",
            "0.375 and 0.500 left by 2 starts, 0.000",
        ),
    ],
)
def test_each_defect_is_named(judged, probe, check, status, said):
    found = judged(probe)

    assert found[check].status == status
    assert said in found[check].evidence
    assert bool(found[check].advice) == (status != "pass")
    others = {name: found[name].status for name in NAMES if name != check}
    assert "fail" not in others.values()


def test_one_sample_of_sixteen_is_no_proof(judged):
    starts = [[1.0, *HALF[1:]]] * 2
    found = judged(changed(attacks__scores__transfer=HALF, attacks__scores__starts=starts))
    assert found[NAMES[11]].status == "warn"


@pytest.mark.parametrize(("shift", "status"), [(0.1, "pass"), (4.0, "warn"), (None, "pass")])
def test_a_target_that_normalises_nothing_is_no_case_of_twice(judged, shift, status):
    declared = {"loss": [0.3] * 20, "score": [1.0] * 20, "shift": shift}
    probe = changed(preparation__mean=[0.0], preparation__std=[1.0], preparation__declared=declared)
    del probe["preparation"]["raw"]
    assert judged(probe)[NAMES[5]].status == status


@pytest.mark.parametrize(
    ("found", "manifest", "why"),
    [
        (None, {}, "not run yet"),
        ({"error": "ValueError: boom"}, {}, "the probe failed: ValueError: boom"),
        (None, {"config": {"probes": False, "seed": 0}}, "probes are switched off"),
    ],
)
def test_what_was_not_probed_says_why(judged, found, manifest, why):
    rows = judged(found, **manifest)

    assert {rows[name].status for name in NAMES} == {"not run"}
    assert {rows[name].evidence for name in NAMES} == {why}
    said = " ".join(rows[name].advice for name in NAMES)
    assert "gradients" not in said, "what a failure would mean is no advice"
    assert "second model" in said


def test_what_has_no_partner_or_no_gradient_says_so(judged):
    probe = copy.deepcopy(GOOD)
    del probe["attacks"]["scores"]["transfer"], probe["attacks"]["scores"]["gradient_free"]
    probe["attacks"]["skipped"] = {"gradient_free": "square: expected two dimensions"}
    found = judged(probe)
    assert found[NAMES[11]].evidence == "there is no other model to carry an attack over from"
    assert found[NAMES[10]].evidence == "square: expected two dimensions"


def test_a_run_without_attacks_still_looks_at_the_model(judged):
    probe = {k: v for k, v in GOOD.items() if k not in ("gradients", "box", "attacks")}
    found = judged(probe, attacks=False)
    assert {name: found[name].status for name in NAMES if name in found} == {
        NAMES[0]: "pass",
        NAMES[1]: "pass",
        NAMES[2]: "pass",
        NAMES[5]: "pass",
    }

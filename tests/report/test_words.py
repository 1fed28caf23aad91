import pytest

from palpate.report import words


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.865, "86.5\u00a0%"),
        (1.0, "100.0\u00a0%"),
        (0.0, "0.0\u00a0%"),
        (None, "–"),
        (float("nan"), "–"),
        (0.0002, "0.02\u00a0%"),
        (0.99996, "99.99\u00a0%"),
        (-0.125, "−12.5\u00a0%"),
    ],
)
def test_shares_never_round_to_certainty(value, expected):
    assert words.number(value) == expected


def test_intervals():
    assert words.interval(0.8, 0.9) == "[80.0, 90.0]"
    assert words.interval(0.8, 0.9, metric="auc") == "[0.800, 0.900]"
    assert words.interval(None, None) == "no interval"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.0449, "+4.5\u00a0pp"),
        (-0.1, "−10.0\u00a0pp"),
        (0.0, "0.0\u00a0pp"),
        (-1e-16, "0.0\u00a0pp"),
        (-0.0004, "−0.04\u00a0pp"),  # its interval may be −0.07 to −0.01
        (0.9996, "+99.96\u00a0pp"),
    ],
)
def test_differences_are_points(value, expected):
    assert words.points(value) == expected


@pytest.mark.parametrize(
    ("names", "expected"),
    [([], ""), (["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")],
)
def test_lists(names, expected):
    assert words.listed(names) == expected


def test_settings_in_words():
    setting = {"epsilon": 4 / 255, "norm": "l2", "steps": 20, "restarts": 1, "random_start": False}
    assert words.setting_words(setting) == "epsilon 4/255, L2, steps 20, no random start"
    assert (
        words.setting_words({"coverage": 0.5, "patch_size": None, "trials": 3})
        == "coverage 50 %, trials 3"
    )
    assert words.setting_words({}) == ""
    fault = {"bits": "all", "burst": 1, "flips": 1, "format": "int8", "scope": "layer", "trials": 9}
    assert words.setting_words(fault) == "flips 1, format int8, scope layer, trials 9"


def test_counts():
    assert words.count(46800) == "46\u202f800"
    assert words.plural(1, "fault") == "1 fault"
    assert words.plural(2, "fault") == "2 faults"


def test_a_minimal_norm_attack_has_no_dose():
    setting = {"epsilon": None, "norm": "l2", "steps": 50, "stop_at_success": False, "targets": 0}
    assert words.dose_of(setting) is None
    assert words.setting_words(setting) == "L2, steps 50"


def test_a_component_inside_another_is_named():
    surrogate = {"name": "timm", "model": "resnet18", "label": "own copy"}
    setting = {"epsilon": 4 / 255, "surrogate": surrogate, "attack": "pgd", "eot": 1}
    said = words.setting_words(setting)
    assert said == "epsilon 4/255, surrogate own copy (model resnet18), attack pgd"
    library = {"attack": "PGD", "arguments": {"steps": 5}, "together": False}
    assert words.setting_words(library) == "attack PGD, arguments steps 5"
    assert words.setting_words({"attack": "PGD", "arguments": {}}) == "attack PGD"

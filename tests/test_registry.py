import pytest

import palpate
from palpate import registry
from palpate.errors import ConfigError, UnknownComponent


def test_misspelt_component_offers_neighbours():
    with pytest.raises(
        UnknownComponent, match="no attacks component named 'pdg'; did you mean 'pgd'"
    ):
        registry.create("attacks", "pdg")


def test_misspelt_parameter_offers_neighbours():
    with pytest.raises(
        UnknownComponent, match="pgd has no parameter 'epsilom'; did you mean 'epsilon'"
    ):
        registry.create("attacks", "pgd", {"epsilom": 0.1})


@pytest.mark.parametrize(
    ("text", "value"), [("8/255", 8 / 255), ("0.5/255", 0.5 / 255), (" 1 / 4 ", 0.25), (0.1, 0.1)]
)
def test_numbers_may_be_fractions(text, value):
    assert registry.create("attacks", "fgsm", {"epsilon": text}).epsilon == value


@pytest.mark.parametrize("name", [5, ["pgd"], None])
def test_a_name_that_is_no_text_is_refused(name):
    with pytest.raises(UnknownComponent, match="expected the name of one of the attacks, got"):
        registry.load("attacks", name)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"epsilon": "much"}, "pgd: epsilon: .*got 'much'"),
        ({"norm": "l7"}, "pgd: norm: .*'linf', 'l2' or 'l1', got 'l7'"),
        ({"epsilon": -1}, "pgd: epsilon: expected 0 or more, got -1"),
        ({"steps": 0}, "expected steps and restarts of 1 or more, got 0 and 1"),
        (
            {"restarts": 3, "random_start": False},
            "expected random_start: true for several restarts",
        ),
        ({"step_size": 0}, "step_size: expected more than 0"),
    ],
)
def test_wrong_values_say_what_came(parameters, message):
    with pytest.raises(ConfigError, match=message):
        registry.create("attacks", "pgd", parameters)


def test_classes_are_reached_by_their_python_name():
    assert palpate.attacks.Pgd(steps=3) == registry.create("attacks", "pgd", {"steps": 3})
    assert palpate.corruptions.GaussianNoise.__name__ == "GaussianNoise"
    with pytest.raises(AttributeError, match=r"palpate\.attacks.*'Pdg'"):
        _ = palpate.attacks.Pdg


def test_relative_paths_start_from_the_audit_file(tmp_path):
    target = registry.create("targets", "medmamba", {"weights": "w.safetensors"}, base=tmp_path)

    assert target.weights == tmp_path / "w.safetensors"


def test_unknown_family_is_refused():
    with pytest.raises(UnknownComponent, match="no family named 'attack'; did you mean 'attacks'"):
        registry.names("attack")

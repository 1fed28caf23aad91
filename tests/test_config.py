import textwrap

import pytest

from palpate import config
from palpate.errors import ConfigError, ContractError, UnknownComponent

GOOD = {
    "dataset": {"name": "medmnist"},
    "targets": [{"name": "medmamba"}],
    "perturbations": [{"name": "fgsm", "epsilon": ["1/255", "2/255"]}],
}


def test_lists_are_sweeps_in_the_order_written():
    specs = config.sweep("attacks", {"name": "pgd", "epsilon": [0.1, 0.2], "steps": [5, 10]})

    assert [(s["epsilon"], s["steps"]) for s in specs] == [(0.1, 5), (0.1, 10), (0.2, 5), (0.2, 10)]


def test_a_list_that_fits_its_field_is_a_value():
    specs = config.sweep("faults", {"name": "weight_bit_flip", "bits": [30, 23], "flips": [1, 2]})

    assert [s["bits"] for s in specs] == [[30, 23], [30, 23]]


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (
            {"perturbatons": []},
            UnknownComponent,
            "unknown key 'perturbatons'; did you mean 'perturb",
        ),
        (
            {"perturbations": [{"name": "fgms"}]},
            UnknownComponent,
            "named 'fgms'; did you mean 'fgsm'",
        ),
        ({"perturbations": []}, ConfigError, "perturbations: .*at least 1"),
        ({"targets": [{"weights": "x"}]}, ConfigError, "targets: .*expected a 'name'"),
        ({"schema_version": 2}, ConfigError, "schema_version: .*got 2"),
        ({"storage": "tiff"}, ConfigError, "storage: expected one of .*got 'tiff'"),
        ({"seed": "many"}, ConfigError, "seed: .*got 'many'"),
        ({"statistics": {"confidence": 95}}, ConfigError, "statistics.confidence: .*got 95"),
        ({"metrics": ["acuracy"]}, UnknownComponent, "'acuracy'; did you mean 'accuracy'"),
        ({"metrics": [{"name": "dice_below", "bar": 2}]}, ConfigError, "above 0, at most 1, got 2"),
        ({"saliency": "gradcam"}, ConfigError, "saliency.name: .*got 'gradcam'"),
        ({"metrics": [{"bar": 0.5}]}, ConfigError, "metrics: expected a 'name'"),
        ({"dataset": {"name": "medmnist", "split": "tets"}}, ConfigError, "split: .*got 'tets'"),
        ({"perturbations": [{"name": "pgd", "epsilon": []}]}, ConfigError, "at least one value"),
    ],
)
def test_mistakes_are_named(change, kind, message):
    with pytest.raises(kind, match=message):
        config.parse({**GOOD, **change})


def test_storage_is_kept_in_its_short_form():
    said = config.parse({**GOOD, "storage": {"format": "jpeg", "quality": 90}})

    assert said.storage == "jpeg:90"
    assert config.AuditConfig.model_validate_json(said.model_dump_json()) == said


def test_a_key_given_twice_is_refused(tmp_path):
    path = tmp_path / "audit.yaml"
    path.write_text("seed: 1\nseed: 2\n")

    with pytest.raises(ConfigError, match="key 'seed' given twice, line 2"):
        config.load(path)


@pytest.mark.parametrize("text", ["{", "- a\n", "!!python/object/apply:os.system [true]", "\x00"])
def test_files_that_are_no_mapping_are_refused(tmp_path, text):
    path = tmp_path / "audit.yaml"
    path.write_text(text)

    with pytest.raises(ConfigError):
        config.load(path)


def test_settings_reach_into_lists(tmp_path):
    path = tmp_path / "audit.yaml"
    path.write_text(
        textwrap.dedent("""
            dataset: {name: medmnist}
            targets: [{name: medmamba}]
            perturbations: [{name: fgsm, epsilon: 1/255}]
        """)
    )

    loaded = config.load(path, ("perturbations.0.epsilon=[0.1, 0.2]", "seed=3"))

    assert loaded.seed == 3
    assert loaded.perturbations[0]["epsilon"] == [0.1, 0.2]
    for wrong in ("seed", "perturbations.7.epsilon=1", "nothing.there=1"):
        with pytest.raises(ConfigError, match="--set"):
            config.load(path, (wrong,))
    with pytest.raises(ConfigError, match=r"--set: expected YAML after seed=, got '\[1'"):
        config.load(path, ("seed=[1",))


@pytest.mark.parametrize("key", ["dataset", "targets", "perturbations"])
def test_a_missing_key_is_named_without_the_rest_of_the_file(key):
    rest = {name: value for name, value in GOOD.items() if name != key}

    with pytest.raises(ConfigError, match=f"^audit: {key}: Field required$"):
        config.parse(rest)


def test_a_name_in_two_families_is_refused(monkeypatch):
    monkeypatch.setattr(
        "palpate.registry.families_of", lambda *_: ["attacks", "corruptions"], raising=True
    )
    with pytest.raises(ContractError, match="one family with a 'haze', got attacks and corrupt"):
        config.perturbation_family("haze")

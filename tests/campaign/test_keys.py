"""A cell's key changes with all that determines its result, and stays as it was otherwise."""

import ast
import dataclasses
import types
import typing
from pathlib import Path

import pytest

import palpate
from palpate import config, registry
from palpate.attacks.transfer import Transfer
from palpate.campaign import probe
from palpate.campaign.plan import PROBE_VERSION, make_plan, resolve
from palpate.contracts.oracles import batch
from palpate.contracts.oracles import probe as probed
from palpate.corruptions.gaussian_noise import GaussianNoise
from palpate.datasets.base import Samples
from palpate.defences.input_filter import InputFilter
from palpate.errors import TargetError
from palpate.targets.base import Target
from palpate.targets.module import Module

JPEG = "defences=[none, {name: input_filter, kind: jpeg}]"
SEARCH = "perturbations.0={name: random_search}"

# of records that lie on people's disks; a component whose version is raised leaves the table
PINNED = {
    ("none", "none"): "0ba8afaf",
    ("none", "gaussian_noise"): "9d5baf69",
    ("none", "patch_drop"): "fc84fe98",
    ("none", "weight_bit_flip"): "4db525b6",
    ("input_filter", "none"): "370261a9",
    ("input_filter", "gaussian_noise"): "a5fb65fa",
    ("input_filter", "patch_drop"): "889af931",
    ("input_filter", "weight_bit_flip"): "d9707862",
}

# components made of others: own version, and the versions of these when it was last looked at
COMPOSED = {
    "autoattack": (3, {"apgd": 1, "fab": 1, "square": 2}),
    "cospgd": (1, {"pgd": 2}),
    "joint": (2, {"pgd": 2, "prompt_exchange": 1}),
    "segpgd": (1, {"pgd": 2}),
    "universal": (1, {"deepfool": 1}),
    "probe": (1, {"fgsm": 1, "pgd": 2, "square": 2}),
}


@pytest.fixture
def keys(audit_file):
    """Defence and perturbation -> the first key of that name."""

    def read(*overrides):
        audit = resolve(config.load(audit_file, overrides), audit_file.parent, 4)
        found = {}
        for cell in make_plan(audit).cells:
            found.setdefault((cell.entry["defence"], cell.entry["perturbation"]), cell.key)
        return found

    return read


def test_old_records_keep_their_keys(keys, monkeypatch):
    monkeypatch.setattr(Target, "digest", lambda self: "model")
    monkeypatch.setattr(Samples, "digest", lambda self: "data")
    found = keys(JPEG)

    assert {name: found[name][:8] for name in PINNED} == PINNED


@pytest.mark.parametrize(
    ("raised", "affected"),
    [
        (GaussianNoise, {("none", "random_search"), ("none", "gaussian_noise")}),
        (InputFilter, {"input_filter"}),
        (Module, {"none", "input_filter"}),
    ],
)
def test_a_raised_version_changes_the_keys_that_hang_on_it(keys, monkeypatch, raised, affected):
    before = keys(JPEG, SEARCH)
    monkeypatch.setattr(raised, "version", raised.version + 1)
    after = keys(JPEG, SEARCH)

    changed = {name for name in before if before[name] != after[name]}
    wanted = {n for n in before if n in affected or ("none", n[1]) in affected or n[0] in affected}
    assert changed == wanted


def test_the_settings_of_a_nested_component_count_however_they_are_written(keys):
    def of(spec):
        return keys(f"perturbations.0={{name: random_search, perturbation: {spec}}}")[
            "none", "random_search"
        ]

    fraction = of("{name: patch_drop, coverage: 1/4, patch_size: 4}")
    assert fraction == of("{name: patch_drop, coverage: 0.25, patch_size: 4}")
    assert fraction != of("{name: patch_drop, coverage: 0.5, patch_size: 4}")
    default = registry.describe(GaussianNoise())["severity"]
    assert of(f"{{name: gaussian_noise, severity: {default}}}") != of(
        f"{{name: gaussian_noise, severity: {default - 1}}}"
    )


def test_a_surrogate_without_a_file_counts_by_its_weights(keys, tmp_path):
    (tmp_path / "other.py").write_text(
        "import torch\n"
        "def make(seed=None):\n"
        "    if seed is not None:\n"
        "        torch.manual_seed(seed)\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 2))\n"
    )

    def of(arguments):
        factory = f'factory: "{tmp_path}/other.py:make"'
        spec = f"{{name: module, {factory}, arguments: {arguments}}}"
        return keys(f"perturbations.0={{name: transfer, surrogate: {spec}}}")["none", "transfer"]

    assert of("{seed: 1}") == of("{seed: 1}")
    assert of("{seed: 1}") != of("{seed: 2}")
    assert of("{}") != of("{}")  # drawn anew


def test_the_key_names_the_network_that_attacks(tmp_path):
    """Not another draw of it."""
    (tmp_path / "other.py").write_text(
        "import torch\n"
        "def make():\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(72, 3))\n"
    )
    spec = {"name": "module", "factory": f"{tmp_path}/other.py:make"}
    attack, target, given = Transfer(surrogate=spec), probed(), batch(2)

    named = attack.identity(target, given)["surrogate"]
    assert named == attack._loaded(target, given.images).digest()


def test_a_surrogate_that_does_not_load_is_refused_before_compute_is_spent(keys):
    spec = '{name: module, factory: "nowhere:make"}'
    with pytest.raises(TargetError, match="factory 'nowhere:make'"):
        keys(f"perturbations.0={{name: transfer, surrogate: {spec}}}")


def test_every_parameter_that_takes_a_component_says_of_which_family():
    """Else the key would not know of its version."""
    seen = []
    for family in registry.FAMILIES:
        for name in registry.names(family):
            cls = registry.load(family, name)
            hints = typing.get_type_hints(cls)
            for field in dataclasses.fields(cls):
                kinds = {typing.get_origin(k) or k for k in typing.get_args(hints[field.name])}
                is_union = isinstance(hints[field.name], types.UnionType)
                if is_union and {str, dict} <= kinds:
                    seen.append(f"{name}.{field.name}")
                    assert field.metadata.get("family"), seen[-1]
    assert set(seen) >= {"random_search.perturbation", "transfer.attack", "universal.fit_on"}


def imported(path):
    """Components that a file imports, by itself or through the internal files of its folder."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom) or (node.module or "").count(".") != 2:
            continue
        _, family, stem = node.module.split(".")
        if family not in registry.PERTURBATIONS:
            continue
        if stem.startswith("_"):
            found |= imported(Path(palpate.__file__).parent / family / f"{stem}.py")
        elif stem != "base":
            found.add((family, stem))
    return found


def test_components_made_of_others_are_looked_at_when_these_change():
    """Fails where a part's version was raised: raise the whole's if it gives other numbers."""
    root = Path(palpate.__file__).parent
    files = {
        name: (root / family / f"{name}.py", registry.load(family, name).version)
        for family in registry.PERTURBATIONS
        for name in registry.names(family)
    }
    files["probe"] = (Path(probe.__file__), PROBE_VERSION)
    found = {}
    for name, (path, version) in files.items():
        parts = {n: registry.load(f, n).version for f, n in imported(path) if n != name}
        if parts:
            found[name] = (version, parts)

    assert found == COMPOSED

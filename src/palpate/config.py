"""Audit file -> frozen `AuditConfig`: YAML, unknown keys refused, lists are sweeps, no code."""

import dataclasses
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from palpate import registry
from palpate.errors import ConfigError, ContractError, UnknownComponent, nearest
from palpate.storage import Storage

Spec = dict[str, Any]
NO_DEFENCE: Spec = {"name": "none"}  # the bare target; not a component


class StatisticsConfig(BaseModel):
    """How sure the numbers have to be.

    Attributes:
        confidence: level of every interval.
        resamples: bootstrap resamples for metrics without a closed form.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    confidence: float = Field(default=0.95, gt=0.5, lt=1.0)
    resamples: int = Field(default=2000, ge=200)


class MemoryErrors(BaseModel):
    """How often memory goes wrong where the model will run; nothing is assumed.

    Attributes:
        fit_per_mbit: failures in 10^9 hours and 10^6 bits, without error correction.
        fit_per_mbit_ecc: those that pass the error correction.
        hours_per_year: hours in which the weights lie in memory.
        devices: how many run the model.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    fit_per_mbit: float | None = Field(default=None, ge=0.0)
    fit_per_mbit_ecc: float | None = Field(default=None, ge=0.0)
    hours_per_year: float = Field(default=8766.0, gt=0.0, le=8784.0)
    devices: float = Field(default=1.0, gt=0.0)


class SaliencyConfig(BaseModel):
    """Maps of where the evidence lies, for the worst cases.

    Attributes:
        name: how they are computed.
        layer: module whose activations are weighted; empty for the last one that fits.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["grad_cam"]
    layer: str = ""


class AuditConfig(BaseModel):
    """Everything that one audit asks for; see the README for an example file.

    Attributes:
        schema_version: version of this format.
        seed: root of every random number.
        dataset: `{name: ..., parameters}`.
        targets: one spec per model.
        defences: names or specs; `none` is the bare target.
        perturbations: specs; a list as a parameter's value is a sweep.
        metrics: names or specs, such as `{name: dice_below, bar: [0.3, 0.7]}`; empty for the task's
            usual ones.
        statistics: confidence level and resamples.
        memory_errors: rates that turn shares of critical bits into failures per year.
        storage: how images are stored before they are judged: `float32` as computed; `uint8` on the
            8-bit grid of the bounds, changes rounded towards the clean image; `png` the same grid,
            rounded to the nearest; `jpeg:90` through a real JPEG file, or `{format: jpeg, quality:
            90, originals: false}`, which leaves the clean images as they were loaded. An attack
            does not know of it; behind the defence `{name: input_filter, kind: jpeg}` it does.
        probes: look at every model before its numbers are believed (same input twice, random
            points, one step against many, no limit, no gradients, another model's attack): the
            audit's checks on itself need it. Seconds per model; false saves them.
        gallery: worst cases kept per cell for the report.
        saliency: `grad_cam`, or `{name: grad_cam, layer: ...}`, for maps of the evidence beside the
            worst cases; none by default.
        batch_size: samples per forward pass; no effect on results beyond rounding.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    seed: int = 0
    dataset: Spec
    targets: tuple[Spec, ...] = Field(min_length=1)
    defences: tuple[Spec, ...] = (NO_DEFENCE,)
    perturbations: tuple[Spec, ...] = Field(min_length=1)
    metrics: tuple[str | Spec, ...] = ()
    statistics: StatisticsConfig = StatisticsConfig()
    memory_errors: MemoryErrors = MemoryErrors()
    storage: str = "float32"
    probes: bool = True
    gallery: int = Field(default=4, ge=0)
    saliency: SaliencyConfig | None = None
    batch_size: int = Field(default=64, ge=1)

    @field_validator("dataset", "saliency", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return _as_spec(value)

    @field_validator("storage", mode="before")
    @classmethod
    def _short(cls, value: Any) -> str:
        return str(Storage.parse(value))

    @field_validator("targets", "defences", "perturbations", mode="before")
    @classmethod
    def _all_named(cls, value: Any) -> Any:
        return [_as_spec(v) for v in value] if isinstance(value, list | tuple) else value  # pyright: ignore


def load(path: Path, overrides: tuple[str, ...] = ()) -> AuditConfig:
    """Read an audit file.

    Args:
        path: YAML file.
        overrides: `a.b=c` settings, c in YAML; `perturbations.0.epsilon=1/255` reaches into lists.

    Raises:
        ConfigError: unreadable, not YAML, a key twice, unknown key or wrong type; names the place.
    """
    return parse(read_yaml(path, overrides), where=path.name)


def parse(data: Any, *, where: str = "audit") -> AuditConfig:
    """Validate plain data and check every component's name and parameters.

    Raises:
        ConfigError: one line that names the key, what was expected and what came.
    """
    if not isinstance(data, Mapping):
        raise ConfigError(f"{where}: expected a mapping of keys, got {type(data).__name__}")
    for key in data:
        if key not in AuditConfig.model_fields:
            raise UnknownComponent(
                f"{where}: unknown key {key!r}; {nearest(str(key), AuditConfig.model_fields)}"
            )
    config = validated(data, where=where)
    _check_components(config, where)
    if len({registry.canonical(spec) for spec in config.defences}) < len(config.defences):
        raise ConfigError(f"{where}: defences: expected each once, got one twice")
    return config


def validated(data: Mapping[str, Any], *, where: str) -> AuditConfig:
    """Validate the types and ranges of known keys, but no component; raises as `parse` does."""
    try:
        return AuditConfig.model_validate(data)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    except ValidationError as error:
        raise ConfigError(f"{where}: {registry.first_line(error)}") from None


def read_yaml(path: Path, overrides: tuple[str, ...] = ()) -> Any:
    """Read a YAML file with the safe loader; a key given twice is an error.

    Args:
        path: YAML file.
        overrides: `a.b=c` settings, as in `load`.

    Raises:
        ConfigError: missing, not text, not YAML, a duplicate key, or no place for an override.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from None
    try:
        data = yaml.load(text, Loader=_UniqueKeyLoader)
    except (yaml.YAMLError, TypeError) as error:  # TypeError: a key that is a list
        raise ConfigError(f"{path.name}: {' '.join(str(error).split())}") from None
    for override in overrides:
        _override(data, override, path.name)
    return data


def sweep(family: str, spec: Mapping[str, Any]) -> list[Spec]:
    """Expand lists into one spec per combination, in the order written.

    A list that already fits its field (a tuple of class names, say) is a value, not a sweep.
    """
    name = spec["name"]
    cls = registry.load(family, name)
    known = {f.name for f in dataclasses.fields(cls)}
    axes: list[list[tuple[str, Any]]] = []
    for key, value in spec.items():
        is_sweep = isinstance(value, list) and not (
            key in known and registry.fits(cls, key, value)  # pyright: ignore
        )
        values: list[Any] = value if is_sweep else [value]  # pyright: ignore
        if is_sweep and not values:
            raise ConfigError(f"{name}.{key}: expected at least one value to sweep over, got []")
        axes.append([(key, v) for v in values])
    return [dict(combination) for combination in itertools.product(*axes)]


def perturbation_family(name: str) -> str:
    """The one perturbation family that has this component.

    Raises:
        UnknownComponent: none has it; the nearest names of all four families are offered.
        ContractError: two have it, so that the audit file cannot say which is meant.
    """
    found = registry.families_of(name, registry.PERTURBATIONS)
    if not found:
        known = [n for family in registry.PERTURBATIONS for n in registry.names(family)]
        raise UnknownComponent(f"no perturbation named {name!r}; {nearest(name, known)}")
    if len(found) > 1:
        raise ContractError(f"expected one family with a {name!r}, got {' and '.join(found)}")
    return found[0]


def build(family: str, spec: Mapping[str, Any], base: Path | None = None) -> Any:
    """Build one component from a `{name, parameters}` spec."""
    parameters = {k: v for k, v in spec.items() if k != "name"}
    return registry.create(family, spec["name"], parameters, base=base)


def check_defences_and_metrics(config: AuditConfig) -> None:
    """Refuse names and parameters that do not exist.

    Raises:
        ConfigError: with the nearest names.
    """
    for spec in config.defences:
        if spec != NO_DEFENCE:
            build("defences", spec)
    for metric in config.metrics:
        spec = {"name": metric} if isinstance(metric, str) else metric
        if "name" not in spec:
            raise ConfigError(f"metrics: expected a 'name', got {metric!r}")
        for one in sweep("metrics", spec):
            build("metrics", one)


def _check_components(config: AuditConfig, where: str) -> None:
    try:
        build("datasets", config.dataset)
        for spec in config.targets:
            build("targets", spec)
        check_defences_and_metrics(config)
        for spec in config.perturbations:
            family = perturbation_family(spec["name"])
            for one in sweep(family, spec):
                build(family, one)
    except ConfigError as error:
        raise type(error)(f"{where}: {error}") from None


def _as_spec(value: Any) -> Any:
    spec = {"name": value} if isinstance(value, str) else value
    if isinstance(spec, Mapping) and "name" not in spec:
        raise ValueError(f"expected a 'name', got {value!r}")
    return spec


def _override(data: Any, override: str, where: str) -> None:
    key, separator, text = override.partition("=")
    if not separator:
        raise ConfigError(f"--set: expected key=value, got {override!r}")
    *parents, last = key.split(".")
    place = data
    try:
        for part in parents:
            place = place[int(part)] if isinstance(place, list) else place[part]
        place[int(last) if isinstance(place, list) else last] = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"--set: expected YAML after {key}=, got {text!r}") from None
    except (KeyError, IndexError, ValueError, TypeError):
        raise ConfigError(f"--set: no such place {key!r} in {where}") from None


class _UniqueKeyLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice instead of keeping the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - PyYAML's signature
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                line = key_node.start_mark.line + 1
                raise yaml.YAMLError(f"key {key!r} given twice, line {line}")
            seen.add(key)
        return super().construct_mapping(node, deep)

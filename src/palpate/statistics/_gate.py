"""The gates file: what a run must show before it may pass."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from palpate import config, registry
from palpate.errors import ConfigError, UnknownComponent, nearest
from palpate.statistics._check import fraction

_MAY_EXCEED_1 = frozenset({"hd95", "surface_distance", "volume_error"})


def _no_boolean(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"expected a number, got {value}")
    return registry.parse_fraction(value)


Limit = Annotated[float, Field(allow_inf_nan=False), BeforeValidator(_no_boolean)]
"""A number, also written as a fraction."""


class Gate(BaseModel):
    """One promise about one metric, which every cell that matches must keep.

    Attributes:
        metric: component name; "dice[stomach]" for one class of a mask.
        perturbation: component name; "none" for clean, "all attacks" for the worst over all
            attacks of one budget.
        family: all perturbations of one family instead.
        where: parameters of the perturbation that must be equal; numbers may be fractions.
        target: label of the model; all by default.
        defence: name of the defence, "none" for the bare model; all by default.
        at_least: the lower end of the interval must reach it.
        at_most: the upper end must not exceed it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    metric: str
    perturbation: str | None = None
    family: Literal["none", "attacks", "corruptions", "occlusions", "faults"] | None = None
    where: dict[str, Any] = {}
    target: str | None = None
    defence: str | None = None
    at_least: Limit | None = None
    at_most: Limit | None = None

    @field_validator("where")
    @classmethod
    def _numbers(cls, value: dict[str, Any]) -> dict[str, Any]:
        return {name: registry.parse_fraction(wanted) for name, wanted in value.items()}

    @model_validator(mode="after")
    def _says_something(self) -> "Gate":
        if (self.perturbation is None) == (self.family is None):
            raise ValueError("expected either a perturbation or a family")
        if self.at_least is None and self.at_most is None:
            raise ValueError("expected at_least or at_most")
        share = "/" not in self.metric and self.metric not in _MAY_EXCEED_1
        if share and max(self.at_least or 0.0, self.at_most or 0.0) > 1:
            raise ValueError(f"expected a limit of at most 1, since {self.metric} is a share")
        if None not in (self.at_least, self.at_most) and self.at_least > self.at_most:  # pyright: ignore
            raise ValueError(
                f"expected at_least <= at_most, got {self.at_least:g}, {self.at_most:g}"
            )
        return self

    @property
    def text(self) -> str:
        """The gate in words."""
        what = self.perturbation or f"all {self.family}"
        place = "clean" if what in ("none", "all none") else f"under {what.replace('_', ' ')}"
        fixed = [f"{k} {short(v)}" for k, v in self.where.items()]
        fixed += [v for v in (self.target, self.defence) if v is not None]
        limits = [
            f"{word} {limit:g}"
            for word, limit in (("at least", self.at_least), ("at most", self.at_most))
            if limit is not None
        ]
        inside = f" ({', '.join(fixed)})" if fixed else ""
        return f"{self.metric.replace('_', ' ')} {place}{inside} {' and '.join(limits)}"


class Gates(BaseModel):
    """A gates file.

    Attributes:
        schema_version: version of this format.
        gates: at least one.
        self_checks: whether the run's checks of itself must not fail either.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    gates: tuple[Gate, ...] = Field(min_length=1)
    self_checks: bool = True


def load_gates(path: Path) -> Gates:
    """Read a gates file.

    Raises:
        ConfigError: unreadable, not YAML, a key twice, unknown key or wrong type; names the place.
    """
    return parse_gates(config.read_yaml(path), where=path.name)


def parse_gates(data: Any, *, where: str = "gates") -> Gates:
    """Validate plain data.

    Args:
        data: a mapping with `gates`.
        where: named in errors.

    Raises:
        ConfigError: one line that names the key, what was expected and what came.
    """
    if not isinstance(data, Mapping):
        raise ConfigError(f"{where}: expected a mapping with 'gates', got {type(data).__name__}")
    try:
        return Gates.model_validate(data)
    except ValidationError as error:
        raise _one_line(error, where) from None


def _one_line(error: ValidationError, where: str) -> ConfigError:
    # a misspelt key is also a missing one; the misspelling says more
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    *parents, last = [str(part) for part in first["loc"]] or [""]
    place = ".".join([*parents, last])
    if first["type"] == "extra_forbidden":
        fields = (Gate if parents else Gates).model_fields
        at = ": ".join([where, *([".".join(parents)] if parents else [])])
        return UnknownComponent(f"{at}: unknown key {last!r}; {nearest(last, fields)}")
    message = first["msg"].removeprefix("Value error, ")
    got = "" if first["type"] in ("value_error", "missing") else f", got {first['input']!r}"
    return ConfigError(": ".join(part for part in (where, place, message) if part) + got)


def short(value: Any) -> str:
    """A parameter for print."""
    return fraction(value) if isinstance(value, float) else str(value)

"""Names, load, create, describe: a component's file stem is its name in the audit file.

Listing a family is a directory listing without imports. Third-party components come through one
entry-point group per family (``palpate.attacks``, ...), are listed as ``distribution/name``, load
lazily and fail alone; ``PALPATE_NO_PLUGINS=1`` turns them all off.
"""

import dataclasses
import functools
import importlib
import importlib.metadata
import os
import pkgutil
import re
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import orjson
from pydantic import BeforeValidator, TypeAdapter, ValidationError

from palpate.errors import ConfigError, ContractError, UnknownComponent, nearest

PERTURBATIONS = ("attacks", "corruptions", "occlusions", "faults")
FAMILIES = (*PERTURBATIONS, "defences", "datasets", "targets", "metrics")

_FRACTION = re.compile(r"\s*([0-9.]+)\s*/\s*([0-9.]+)\s*")


def parse_fraction(value: Any) -> Any:
    """A text such as "8/255" as a float; anything else as it is.

    Raises:
        ValueError: a fraction of nothing.
    """
    match = _FRACTION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return value
    if float(match[2]) == 0:
        raise ValueError(f"expected a number or a fraction, got {value!r}")
    return float(match[1]) / float(match[2])


Number = Annotated[float, BeforeValidator(parse_fraction)]
"""A float that an audit file may write as a fraction, such as ``"8/255"``."""


def names(family: str) -> list[str]:
    """Names of all components of a family, without importing any of them."""
    folder = str(Path(__file__).parent / _checked(family))
    own = (m.name for m in pkgutil.iter_modules([folder]))
    return [*sorted(n for n in own if not _is_internal(n)), *sorted(_plugins(family))]


def families_of(name: str, families: Iterable[str] = FAMILIES) -> list[str]:
    """The families that have a component of this name."""
    return [family for family in families if name in names(family)]


def load(family: str, name: str) -> type[Any]:
    """Import one component's class.

    Raises:
        UnknownComponent: no component of that name; the nearest names are in the message.
        ContractError: the file does not define exactly one frozen, final dataclass.
    """
    if _is_own(family, name):
        return _own(family, name)
    known = names(family)
    if name not in known:
        raise UnknownComponent(f"no {family} component named {name!r}; {nearest(name, known)}")
    return _checked_class(_plugins(family)[name].load(), family)


def _is_own(family: str, name: str) -> bool:
    """Whether a file of that name is there; quicker than a listing, for plans of many cells."""
    if not isinstance(name, str):  # an audit file can hold anything
        raise UnknownComponent(f"expected the name of one of the {family}, got {name!r}")
    file = Path(__file__).parent / _checked(family) / f"{name}.py"
    return name.isidentifier() and not _is_internal(name) and file.is_file()


@functools.cache
def _own(family: str, name: str) -> type[Any]:
    module = importlib.import_module(f"palpate.{family}.{name}")
    defined = [
        obj
        for obj in vars(module).values()
        if isinstance(obj, type)
        and obj.__module__ == module.__name__
        and getattr(obj, "family", None) == family
    ]
    if len(defined) != 1:
        raise ContractError(
            f"expected one {family} component in palpate/{family}/{name}.py, got {len(defined)}"
        )
    return _checked_class(defined[0], family)


def create(
    family: str, name: str, parameters: Mapping[str, Any] | None = None, *, base: Path | None = None
) -> Any:
    """Build a component from the audit file's words.

    Args:
        family: one of `FAMILIES`.
        name: component name.
        parameters: field values; numbers may be fractions such as "8/255".
        base: folder that relative paths start from.

    Raises:
        UnknownComponent: no such component, or no such parameter (nearest names offered).
        ConfigError: a value of the wrong type or out of range.
    """
    cls = load(family, name)
    given = dict(parameters or {})
    fields = {f.name for f in dataclasses.fields(cls)}
    for key in given:
        if key not in fields:
            raise UnknownComponent(f"{name} has no parameter {key!r}; {nearest(key, fields)}")
    try:
        component = _adapter(cls).validate_python(given)
    except ValidationError as error:
        raise ConfigError(f"{name}: {first_line(error)}") from None
    except ConfigError as error:  # of the component itself, which may not name itself
        text = str(error)
        raise type(error)(text if text.startswith(name) else f"{name}: {text}") from None
    for key, value in given.items():
        if isinstance(value, bool) and not isinstance(getattr(component, key), bool):
            raise ConfigError(f"{name}: {key}: expected a number, got {value}")
    return _absolute(component, base) if base is not None else component


@functools.cache
def _adapter(cls: type[Any]) -> TypeAdapter[Any]:
    """Building one takes a hundred times as long as using it."""
    return TypeAdapter(cls)


def describe(component: Any) -> dict[str, Any]:
    """Parameters of a component as plain data, without its name; `create` takes them back."""
    fields = dataclasses.fields(component)
    return {f.name: _plain(getattr(component, f.name)) for f in fields}


def nested(component: Any) -> dict[str, tuple[str, dict[str, Any]]]:
    """Family and spec of each component that another one names, by parameter.

    Such a parameter is a field whose metadata say `family`: one, or a tuple of several.
    """
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for f in dataclasses.fields(component):
        wanted = f.metadata.get("family", ())
        value = getattr(component, f.name)
        spec: Any = {"name": value} if isinstance(value, str) else value
        if wanted and isinstance(spec, Mapping) and "name" in spec:
            families = families_of(spec["name"], [wanted] if isinstance(wanted, str) else wanted)
            if families:  # else a word of the parameter's own, such as "undefended"
                found[f.name] = (families[0], dict(spec))  # pyright: ignore[reportUnknownArgumentType]
    return found


def name_of(component: Any) -> str:
    """Name of a component in the audit file."""
    return name_of_class(type(component))


def name_of_class(cls: type[Any]) -> str:
    """File stem of a built-in component, or distribution/name of a plug-in."""
    if cls.__module__.startswith("palpate."):
        return cls.__module__.rpartition(".")[2]
    plugins = _plugins(cls.family)
    return next(
        (
            name
            for name, entry in plugins.items()
            if entry.value == f"{cls.__module__}:{cls.__name__}"
        ),
        f"{cls.__module__}:{cls.__qualname__}",
    )


def canonical(value: Any) -> str:
    """Canonical JSON: sorted keys, no spaces; equal data gives equal text."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def fits(cls: type[Any], field: str, value: Any) -> bool:
    """Whether a value is acceptable for one field as it stands (a list that fits is no sweep)."""
    hint = typing.get_type_hints(cls, include_extras=True)[field]
    try:
        TypeAdapter(hint).validate_python(value)
    except ValidationError:
        return False
    return True


def attribute(family: str, name: str) -> type[Any]:
    """Class of a family by its Python name, for ``palpate.attacks.Pgd`` and the like.

    Raises:
        AttributeError: no such class.
    """
    stem = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    if name.startswith("_") or stem == name or stem not in names(family):
        raise AttributeError(f"module 'palpate.{family}' has no attribute {name!r}")
    return load(family, stem)


def _checked(family: str) -> str:
    if family not in FAMILIES:
        raise UnknownComponent(f"no family named {family!r}; {nearest(family, FAMILIES)}")
    return family


def _is_internal(stem: str) -> bool:
    return stem == "base" or stem.startswith("_")


def _plugins(family: str) -> dict[str, importlib.metadata.EntryPoint]:
    if os.environ.get("PALPATE_NO_PLUGINS") == "1":
        return {}
    found = importlib.metadata.entry_points(group=f"palpate.{family}")
    return {f"{e.dist.name if e.dist else 'unknown'}/{e.name}": e for e in found}


def _checked_class(cls: type[Any], family: str) -> type[Any]:
    frozen = dataclasses.is_dataclass(cls) and cls.__dataclass_params__.frozen  # pyright: ignore
    if getattr(cls, "family", None) != family or not frozen or not getattr(cls, "__final__", False):
        raise ContractError(f"{cls.__qualname__}: expected a frozen, final dataclass of {family}")
    return cls


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]  # pyright: ignore[reportUnknownVariableType]
    return value


def first_line(error: ValidationError) -> str:
    """The first thing that does not fit: where, what was expected, and what came."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    said = first["type"] in ("value_error", "missing")  # what came is in the text, or is nothing
    got = "" if said else f", got {first['input']!r}"
    return f"{where}: {message}{got}" if where else f"{message}{got}"


def _absolute(component: Any, base: Path) -> Any:
    changed: dict[str, Any] = {
        field: _placed(family, spec, base)
        for field, (family, spec) in nested(component).items()
        if not isinstance(getattr(component, field), str)
    }
    for f in dataclasses.fields(component):
        value = getattr(component, f.name)
        several: Any = value if isinstance(value, tuple) else (value,)
        if any(isinstance(v, Path) for v in several):
            placed = tuple(base / v if isinstance(v, Path) else v for v in several)
            changed[f.name] = placed if isinstance(value, tuple) else placed[0]
    return dataclasses.replace(component, **changed) if changed else component


def _placed(family: str, spec: Mapping[str, Any], base: Path) -> dict[str, Any]:
    """A component's spec inside another component, its paths starting from `base`."""
    given = {key: value for key, value in spec.items() if key != "name"}
    described = describe(create(family, spec["name"], given, base=base))
    return {key: described.get(key, value) for key, value in spec.items()}

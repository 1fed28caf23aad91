"""Checks of every component, whatever its family."""

import dataclasses
import inspect
import re
from typing import Any

from palpate import registry
from palpate.contracts.oracles import expect, raises


def check_frozen_and_final(component: Any) -> None:
    """A component is a frozen, final dataclass."""
    fields = dataclasses.fields(component)
    expect(getattr(type(component), "__final__", False), f"{component!r}: not final")
    frozen = raises(
        dataclasses.FrozenInstanceError,
        lambda: setattr(component, fields[0].name if fields else "x", None),
    )
    expect(frozen, f"{component!r}: not frozen")


def check_defaults(component: Any) -> None:
    """Every field has a default."""
    made = type(component)()
    expect(isinstance(made, type(component)), f"{component!r}: cannot be made from defaults")


def check_round_trip(component: Any) -> None:
    """What `describe` says, `create` takes back, through JSON."""
    import orjson

    family, name = component.family, registry.name_of(component)
    plain = orjson.loads(registry.canonical(registry.describe(component)))
    expect(
        registry.create(family, name, plain) == component,
        f"{component!r}: differs after a round trip through its description",
    )


def check_name(component: Any) -> None:
    """The file stem is the class name in snake case."""
    cls = type(component)
    stem = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()
    expect(
        cls.__module__.rpartition(".")[2] == stem,
        f"{cls.__name__}: expected its file to be {stem}.py, got {cls.__module__}",
    )


def check_documented(component: Any) -> None:
    """Class and module say what this is; every own field is described under Attributes."""
    cls = type(component)
    text = inspect.getdoc(cls) or ""
    documented = bool(text) and bool(inspect.getdoc(inspect.getmodule(cls)))
    expect(documented, f"{cls.__name__}: no docstring")
    inherited = {
        f.name
        for base in cls.__mro__[1:]
        if dataclasses.is_dataclass(base)
        for f in dataclasses.fields(base)
    }
    for field in dataclasses.fields(cls):
        if field.name not in inherited:
            expect(f"{field.name}:" in text, f"{cls.__name__}: field {field.name} is not described")

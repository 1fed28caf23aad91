"""What every component of a family must keep, as checks that anyone can run.

One module per family; every function named ``check_*`` takes a component instance and raises
`ContractError` (or fails an assertion of its own wording) when the contract is broken. Our tests
run them over everything discovered; a plug-in author needs one parametrised test::

    @pytest.mark.parametrize("check", contracts.of("attacks"), ids=contracts.label)
    def test_contract(check):
        check(contracts.light(MyAttack()))
"""

import dataclasses
import importlib
import inspect
from collections.abc import Callable
from typing import Any, Final

from palpate.registry import PERTURBATIONS

Check = Callable[[Any], None]

_LIGHT: Final = {
    "steps": 30,
    "queries": 300,
    "restarts": 1,
    "searches": 3,
    "angles": 7,
    "places": 3,
}


def of(family: str) -> list[Check]:
    """All checks that a component of this family has to pass."""
    modules = ["components"]
    if family in PERTURBATIONS:
        modules.append("perturbations")
    modules.append(family)
    return [check for module in modules for check in _checks(module)]


def light(component: Any) -> Any:
    """The component with so few steps and queries that all its checks take seconds.

    A contract holds at every setting; whether an attack is strong is for its own test.
    """
    fields = {f.name: getattr(component, f.name) for f in dataclasses.fields(component)}
    fewer = {
        name: min(fields[name], most)
        for name, most in _LIGHT.items()
        if isinstance(fields.get(name), int)
    }
    return dataclasses.replace(component, **fewer)


def label(check: Check) -> str:
    """Short name of a check, for test ids."""
    return check.__name__.removeprefix("check_")


def _checks(module: str) -> list[Check]:
    try:
        loaded = importlib.import_module(f"palpate.contracts.{module}")
    except ModuleNotFoundError:
        return []
    return [
        function
        for name, function in inspect.getmembers(loaded, inspect.isfunction)
        if name.startswith("check_") and function.__module__ == loaded.__name__
    ]

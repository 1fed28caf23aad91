"""Every check of contracts/ over everything that discovery finds."""

import pytest

from palpate import contracts, registry

CASES = [
    pytest.param(family, name, check, id=f"{family}-{name}-{contracts.label(check)}")
    for family in registry.FAMILIES
    for name in registry.names(family)
    for check in contracts.of(family)
]


@pytest.mark.parametrize(("family", "name", "check"), CASES)
def test_component_keeps_its_contract(family, name, check):
    check(contracts.light(registry.load(family, name)()))

"""Attacks of torchattacks by name.

Kim, "Torchattacks: A PyTorch Repository for Adversarial Attacks", arXiv 2010.01950.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar, Final, final

from typing_extensions import override

from palpate.attacks._peer import Maker, PeerAttack, UnitRange
from palpate.errors import ConfigError
from palpate.types import Images, References

_OF_MORE: Final = {"MultiAttack", "LGV"}  # made of attacks or of training data, not of a network
_BUDGETS: Final = ("eps", "max_epsilon")


@final
@dataclass(frozen=True)
class Torchattacks(PeerAttack):
    """`torchattacks.<attack>(model, **arguments)`, untargeted.

    Attributes:
        attack: with or without L2 behind: "PGD" is PGD or PGDL2. Where it has steps of a length,
            that is a quarter of the budget unless `arguments` has an alpha, since the library's
            own length is for one budget only.
    """

    library: ClassVar[str] = "torchattacks"
    # it pins an old `requests`, which nothing else accepts
    install: ClassVar[str] = "pip install 'palpate[peers]' && pip install --no-deps torchattacks"

    attack: str = "PGD"

    @override
    def _maker(self, library: ModuleType) -> Maker:
        base = library.attack.Attack
        known = {
            name: cls
            for name, cls in vars(library).items()
            if isinstance(cls, type) and issubclass(cls, base) and name not in _OF_MORE
        }
        if self.norm == "linf" and self.attack.endswith("L2") and self.attack in known:
            raise ConfigError(f"torchattacks: norm: expected l2 for {self.attack}, got linf")
        return self._chosen(known, [self.attack + "L2" * (self.norm == "l2"), self.attack])

    @override
    def _ours(self, maker: Maker) -> Mapping[str, Any]:
        has = inspect.signature(maker).parameters
        own: dict[str, Any] = {name: None for name in _BUDGETS if name in has}
        return own | ({"norm": self.norm.capitalize()} if "norm" in has else {})

    @property
    @override
    def _keeps_budget(self) -> bool:
        return any(name in self._ours(self._maker(self._imported())) for name in _BUDGETS)

    @override
    def _built(self, network: UnitRange, shape: tuple[int, ...]) -> Any:
        maker = self._maker(self._imported())
        given = dict(self._ours(maker))
        given |= {name: self._radius(network.bounds) for name in _BUDGETS if name in given}
        has = inspect.signature(maker).parameters
        if {"alpha", "steps"} <= has.keys() and given and "alpha" not in self.arguments:
            given["alpha"] = self._radius(network.bounds) / 4
        if "n_classes" in has and "n_classes" not in self.arguments:
            given["n_classes"] = network.classes
        return self._made(maker, network, **given)

    @override
    def _craft(self, attack: Any, network: UnitRange, given: tuple[Images, References]) -> Images:
        return attack(*given)

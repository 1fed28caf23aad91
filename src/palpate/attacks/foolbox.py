"""Attacks of foolbox by name.

Rauber, Zimmermann, Bethge, Brendel, "Foolbox Native: Fast adversarial attacks to benchmark the
robustness of machine learning models in PyTorch, TensorFlow, and JAX", JOSS 5(53), 2607.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar, final

from typing_extensions import override

from palpate.attacks._peer import Maker, PeerAttack, UnitRange
from palpate.errors import ConfigError
from palpate.types import Images, References

_PREFIXES = {"linf": ("Linf", "Linfinity", "LInf"), "l2": ("L2",)}


@final
@dataclass(frozen=True)
class Foolbox(PeerAttack):
    """`foolbox.attacks.<attack>(**arguments)`, untargeted.

    Attributes:
        attack: with or without the norm in front: "PGD" is LinfPGD or L2PGD.
    """

    library: ClassVar[str] = "foolbox"

    attack: str = "FastGradientAttack"

    @override
    def _maker(self, library: ModuleType) -> Maker:
        base = library.attacks.base.Attack
        known = {
            name: cls
            for name, cls in vars(library.attacks).items()
            if isinstance(cls, type) and issubclass(cls, base) and not inspect.isabstract(cls)
        }
        ours = [prefix + self.attack for prefix in _PREFIXES[self.norm]]
        return self._chosen(known, [*ours, self.attack])

    @override
    def _ours(self, maker: Maker) -> Mapping[str, Any]:
        has = inspect.signature(maker).parameters
        return {"constraint": self.norm} if "constraint" in has else {}

    @override
    def _built(self, network: UnitRange, shape: tuple[int, ...]) -> Any:
        library = self._imported()
        maker = self._maker(library)
        attack = self._made(maker, **self._ours(maker))
        self._check_norm(library, attack)
        if not isinstance(attack, library.attacks.base.MinimizationAttack):
            self._radius(network.bounds)
        return attack

    @override
    def _craft(self, attack: Any, network: UnitRange, given: tuple[Images, References]) -> Images:
        library, (images, labels) = self._imported(), given
        model = library.PyTorchModel(network, bounds=(0, 1), device=images.device)
        criterion = library.criteria.Misclassification(labels)
        radius = None if self.epsilon is None else self._radius(network.bounds)
        _, clipped, _ = attack(model, images, criterion, epsilons=radius)
        return clipped

    def _check_norm(self, library: ModuleType, attack: Any) -> None:
        own = {"linf": library.distances.linf, "l2": library.distances.l2}[self.norm]
        measured = getattr(attack, "distance", None)
        if measured is not None and measured.p != own.p:
            raise ConfigError(
                f"foolbox: norm: expected that of {self.attack}, l{measured.p:g}, got {self.norm}"
            )

"""Evasion attacks of the Adversarial Robustness Toolbox by name.

Nicolae et al., "Adversarial Robustness Toolbox v1.0.0", arXiv 1807.01069.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any, ClassVar, Literal, final

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from typing_extensions import override

from palpate.attacks._peer import Maker, PeerAttack, UnitRange
from palpate.types import Images, References


@final
@dataclass(frozen=True)
class Art(PeerAttack):
    """`art.attacks.evasion.<attack>(PyTorchClassifier(...), **arguments)`, untargeted.

    Attributes:
        attack: such as "FastGradientMethod" or "ProjectedGradientDescent"; where it has steps of a
            length, that is a quarter of the budget unless `arguments` has an eps_step, since the
            library's own 0.1 is more than most budgets.
        outputs: what the network gives: "logits", or "probabilities" for attacks that refuse
            anything else, such as SimBA.
    """

    library: ClassVar[str] = "art.attacks.evasion"

    attack: str = "FastGradientMethod"
    outputs: Literal["logits", "probabilities"] = "logits"

    @override
    def _maker(self, library: ModuleType) -> Maker:
        base = import_module("art.attacks.attack").EvasionAttack
        known = {
            name: cls
            for name, cls in vars(library).items()
            if isinstance(cls, type) and issubclass(cls, base)
        }
        return self._chosen(known, [self.attack])

    @override
    def _ours(self, maker: Maker) -> Mapping[str, Any]:
        has: list[str] = getattr(maker, "attack_params", [])
        own: dict[str, Any] = (
            {"norm": np.inf if self.norm == "linf" else 2} if "norm" in has else {}
        )
        return own | ({"eps": None} if "eps" in has else {})

    @property
    @override
    def _keeps_budget(self) -> bool:
        return "eps" in self._ours(self._maker(self._imported()))

    @override
    def _built(self, network: UnitRange, shape: tuple[int, ...]) -> Any:
        maker = self._maker(self._imported())
        has: list[str] = getattr(maker, "attack_params", [])
        given = dict(self._ours(maker))
        if "eps" in given:
            given["eps"] = self._radius(network.bounds)
            if "eps_step" in has and "eps_step" not in self.arguments:
                given["eps_step"] = given["eps"] / 4
        if "verbose" in has and "verbose" not in self.arguments:
            given["verbose"] = False
        classifier = import_module("art.estimators.classification").PyTorchClassifier(
            network
            if self.outputs == "logits"
            else nn.Sequential(network, nn.Softmax(dim=1)).eval(),
            loss=nn.CrossEntropyLoss(),
            input_shape=shape,
            nb_classes=network.classes,
            clip_values=(0.0, 1.0),
            device_type="gpu" if network.device.type == "cuda" else "cpu",
        )
        return self._made(maker, classifier, **given)

    @override
    def _craft(self, attack: Any, network: UnitRange, given: tuple[Images, References]) -> Images:
        images, labels = given
        wanted = functional.one_hot(labels, network.classes)  # all its attacks take that form
        found = attack.generate(x=images.cpu().numpy(), y=wanted.cpu().numpy())
        return torch.from_numpy(np.asarray(found, dtype=np.float32))

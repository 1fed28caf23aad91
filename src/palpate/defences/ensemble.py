"""Several models answer together: the mean of their probabilities.

Lakshminarayanan, Pritzel, Blundell, "Simple and Scalable Predictive Uncertainty Estimation using
Deep Ensembles", arXiv 1612.01474, section 2.4 (uniform mixture). The mixture is differentiable, so
every attack meets the ensemble as a whole.
"""

import copy
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from palpate.defences.base import Defence
from palpate.errors import ConfigError
from palpate.targets._checkpoint import fit_state, load_state
from palpate.targets.base import Target
from palpate.types import Logits, Tokens


@final
@dataclass(frozen=True)
class Ensemble(Defence):
    """The target, the same network with other weights, and each on the mirrored image too.

    Attributes:
        weights: checkpoints of further members, of the target's own architecture.
        mirror: let every member answer on the left-right mirrored image as well; masks are mirrored
            back.
    """

    weights: tuple[Path, ...] = ()
    mirror: bool = True

    def __post_init__(self) -> None:
        if not self.weights and not self.mirror:
            raise ConfigError("ensemble: expected further weights or mirror, got neither")

    @override
    def protect(self, target: Target) -> Target:
        members = [target.module]
        for path in self.weights:
            member = copy.deepcopy(target.module)
            fit_state(member, load_state(path), path)
            members.append(member)
        return target.with_module(_Mixture(target, members, mirror=self.mirror))


class _Mixture(nn.Module):
    """Log-probabilities (or logits of the mean probability) of several members."""

    def __init__(self, target: Target, members: list[nn.Module], *, mirror: bool) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.mirror = mirror
        # the members see what the target made of the image; their heads are read as its is
        self._reader = replace(target, module=nn.Identity().eval(), mean=(0.0,), std=(1.0,))

    def forward(self, normalised: Tensor, tokens: Tokens | None = None) -> Logits:
        """Same input as a member; one logit or plane per class."""
        answers = [self._read(member, normalised, tokens) for member in self.members]
        if self.mirror:
            turned = normalised.flip(-1)
            mirrored = [self._read(member, turned, tokens) for member in self.members]
            answers += [x.flip(-1) if x.ndim > 2 else x for x in mirrored]
        stacked = torch.stack(answers)
        if self._reader.is_exclusive:
            return functional.log_softmax(stacked, dim=2).logsumexp(dim=0) - math.log(len(answers))
        yes, no = functional.logsigmoid(stacked), functional.logsigmoid(-stacked)
        return yes.logsumexp(dim=0) - no.logsumexp(dim=0)

    def _read(self, member: nn.Module, normalised: Tensor, tokens: Tokens | None) -> Logits:
        return replace(self._reader, module=member).logits(normalised, tokens)

    @override
    def extra_repr(self) -> str:
        return f"mirror={self.mirror}"

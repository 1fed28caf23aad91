# ruff: noqa: N803, N806 - the symbols of the paper
"""The selective scan step by step, in the type of its input: the form that others are checked by.

Symbols as in `palpate.scan.base`.
"""

from typing import Final

import torch
from torch import Tensor

from palpate.scan.base import prepare

PRIORITY: Final = 0


def usable(u: Tensor) -> bool:
    """Serves every floating tensor on every device."""
    return u.is_floating_point()


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    *,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = True,
) -> Tensor:
    """Run the recurrence one step at a time under autograd; see `palpate.scan.selective_scan`.

    Memory grows with batch * channels * length * state when a gradient is wanted.
    """
    given = prepare(u, delta, A, B, C, D, delta_bias=delta_bias, delta_softplus=delta_softplus)
    batch, channels, length = u.shape
    groups, states = B.shape[1:3]
    grouped = (batch, groups, channels // groups, length)
    matrix = given.A.view(groups, -1, states)
    state = given.u.new_zeros(*grouped[:3], states)
    outputs: list[Tensor] = []
    # unbind, not indexing: the gradient of x[..., t] is a full-size tensor for every t.
    steps = zip(
        given.u.reshape(grouped).unbind(-1),
        given.delta.reshape(grouped).unbind(-1),
        given.B.unbind(-1),
        given.C.unbind(-1),
        strict=True,
    )
    for u_t, delta_t, B_t, C_t in steps:
        decay = torch.exp(delta_t[..., None] * matrix)
        state = decay * state + (delta_t * u_t)[..., None] * B_t[:, :, None]
        outputs.append((state * C_t[:, :, None]).sum(-1))
    y = torch.stack(outputs, -1).reshape(batch, channels, length)
    return y if given.D is None else y + given.u * given.D[:, None]

# ruff: noqa: N803, N806 - the symbols of the paper
"""The selective scan in plain torch, 32 steps at a time, with its own backward pass.

Symbols as in `palpate.scan.base`. Inside, time comes first and channels last, (length, batch,
groups, state, width): a step is then one contiguous block, and the products with B and C, which
all channels of a group share, run along contiguous channels. The forward pass keeps one state per
chunk; the backward pass recomputes the states of one chunk at a time, so memory is a chunk's
states instead of the whole length's.
"""

from typing import Any, Final

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from palpate.scan.base import prepare

PRIORITY: Final = 10
CHUNK: Final = 32


def usable(u: Tensor) -> bool:
    """Serves every floating tensor on every device."""
    return u.is_floating_point()


def _time_first(tensor: Tensor, groups: int) -> Tensor:
    """(batch, groups*width, length) to (length, batch, groups, width)."""
    batch, channels, length = tensor.shape
    return (
        tensor.reshape(batch, groups, channels // groups, length).permute(3, 0, 1, 2).contiguous()
    )


def _time_last(tensor: Tensor) -> Tensor:
    """(length, batch, groups, width) to (batch, groups*width, length)."""
    return tensor.permute(1, 2, 3, 0).flatten(1, 2)


def _states_of_chunk(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, start: Tensor
) -> tuple[Tensor, Tensor]:
    """Decays and states of one chunk, both (steps, batch, groups, state, width)."""
    decays = (delta.unsqueeze(-2) * A).exp_()
    states = (delta * u).unsqueeze(-2) * B.unsqueeze(-1)
    previous = start
    for decay, state in zip(decays.unbind(0), states.unbind(0), strict=True):
        previous = state.addcmul_(decay, previous)
    return decays, states


class _ChunkedScan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None
    ) -> Tensor:
        groups, states = B.shape[1:3]
        u_t, delta_t = _time_first(u, groups), _time_first(delta, groups)
        B_t, C_t = (tensor.permute(3, 0, 1, 2).contiguous() for tensor in (B, C))
        A_t = A.view(groups, -1, states).transpose(1, 2).contiguous()
        state = u_t.new_zeros(*u_t.shape[1:3], states, u_t.shape[3])
        y, starts = torch.empty_like(u_t), [state]
        for first in range(0, len(u_t), CHUNK):
            part = slice(first, first + CHUNK)
            _, chunk = _states_of_chunk(u_t[part], delta_t[part], A_t, B_t[part], starts[-1])
            y[part] = torch.matmul(C_t[part].unsqueeze(-2), chunk).squeeze(-2)
            starts.append(chunk[-1].clone())
        if D is not None:
            y += u_t * D.view(groups, -1)
        ctx.save_for_backward(u_t, delta_t, A_t, B_t, C_t, D, *starts[:-1])
        return _time_last(y).contiguous()

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        u, delta, A, B, C, D, *starts = ctx.saved_tensors
        need = ctx.needs_input_grad
        grad_y = _time_first(grad_outputs[0], B.shape[2])
        grad_u, grad_delta = torch.empty_like(u), torch.empty_like(u)
        grad_B, grad_C, grad_A = torch.empty_like(B), torch.empty_like(C), torch.zeros_like(A)
        later = torch.zeros_like(starts[0])
        with torch.autocast(u.device.type, enabled=False):
            for index in reversed(range(len(starts))):
                part = slice(index * CHUNK, (index + 1) * CHUNK)
                u_c, delta_c, B_c, g_c = u[part], delta[part], B[part], grad_y[part]
                decays, states = _states_of_chunk(u_c, delta_c, A, B_c, starts[index])
                grad_C[part] = torch.matmul(states, g_c.unsqueeze(-1)).squeeze(-1)
                grad_state = C[part].unsqueeze(-1) * g_c.unsqueeze(-2)
                later = _backward_recurrence(grad_state, decays, later)
                grad_input = torch.matmul(B_c.unsqueeze(-2), grad_state).squeeze(-2)
                grad_B[part] = torch.matmul(grad_state, (delta_c * u_c).unsqueeze(-1)).squeeze(-1)
                grad_u[part] = grad_input * delta_c
                through_decay = decays.mul_(grad_state)
                through_decay[1:].mul_(states[:-1])
                through_decay[0].mul_(starts[index])
                if need[2]:
                    grad_A += (through_decay * delta_c.unsqueeze(-2)).sum((0, 1))
                grad_delta[part] = grad_input * u_c + through_decay.mul_(A).sum(-2)
        grad_D = None
        if D is not None:
            grad_u += grad_y * D.view(B.shape[2], -1)
            grad_D = (grad_y * u).sum((0, 1)).flatten() if need[5] else None
        return (
            _time_last(grad_u),
            _time_last(grad_delta),
            grad_A.transpose(1, 2).flatten(0, 1) if need[2] else None,
            grad_B.permute(1, 2, 3, 0),
            grad_C.permute(1, 2, 3, 0),
            grad_D,
        )


def _backward_recurrence(grad_state: Tensor, decays: Tensor, later: Tensor) -> Tensor:
    """Add to each step's state gradient what comes from later steps, in place.

    `later` is what the chunk after this one sends back; returns what this one sends back.
    """
    for grad, decay in zip(reversed(grad_state.unbind(0)), reversed(decays.unbind(0)), strict=True):
        grad.add_(later)
        later = decay * grad
    return later


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
    """Run the scan in 32-step chunks; see `palpate.scan.selective_scan`.

    Once differentiable. Memory: a few (32, batch, channels, state) blocks.
    """
    return _ChunkedScan.apply(
        *prepare(u, delta, A, B, C, D, delta_bias=delta_bias, delta_softplus=delta_softplus)
    )

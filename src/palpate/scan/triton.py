# ruff: noqa: N803, N806 - the symbols of the paper
"""The selective scan as fused Triton kernels, for GPUs and for float32 and narrower.

Symbols as in `palpate.scan.base`; the kernels are in `_triton_kernels`. Spans of about the square
root of the length make the states that are kept and those that are recomputed equally many: what
the backward pass needs beside the tensors' own is 2*state/sqrt(length) times `u`, and state/16
times `u` for the parts of the gradients of B and C. No program adds to what another one writes, so
results are the same bits in every run and whatever else is in the batch.

With TRITON_INTERPRET=1 in the environment before the first import, the kernels run in Triton's
interpreter on the CPU: slow, for tests, and only where this backend is asked for by name.
"""

import functools
import importlib
import importlib.util
import math
import os
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from palpate.scan._probe import agrees
from palpate.scan.base import prepare

INTERPRETED: Final = os.environ.get("TRITON_INTERPRET") == "1"
# Above mamba_ssm, whose gradients differ from run to run.
PRIORITY: Final = -1 if INTERPRETED else 40
LANES: Final = 32
VALUES_PER_WARP: Final = 512


def usable(u: Tensor) -> bool:
    """Serves tensors of at most 32 bits on a GPU where a first trial agreed with the reference."""
    narrow = u.dtype in (torch.float32, torch.bfloat16, torch.float16)
    if not narrow or not (u.is_cuda or INTERPRETED) or importlib.util.find_spec("triton") is None:
        return False
    return agrees("triton", selective_scan, u.device)


@functools.cache
def _kernels() -> Any:
    return importlib.import_module("palpate.scan._triton_kernels")


def _power_of_two(number: int) -> int:
    """The next one at or above `number`."""
    return 1 << (number - 1).bit_length()


class _Plan(NamedTuple):
    """How a scan is cut up: programs of `tile` (states, channels), the length in spans."""

    sizes: tuple[int, int, int, int]
    blocks: int
    programs: int
    tile: tuple[int, int]
    span: int

    @classmethod
    def of(cls, u: Tensor, B: Tensor) -> "_Plan":
        batch, groups, states, length = B.shape
        width = u.shape[1] // groups
        lanes = min(LANES, _power_of_two(width))
        blocks = -(-width // lanes)
        return cls(
            sizes=(groups, width, states, length),
            blocks=blocks,
            programs=batch * groups * blocks,
            tile=(_power_of_two(states), lanes),
            span=math.isqrt(length - 1) + 1,
        )

    def kept(self, u: Tensor) -> Tensor:
        return u.new_empty(self.programs, -(-u.shape[2] // self.span), *self.tile)

    def launch(self, kernel: Any, u: Tensor, tensors: tuple[Tensor | None, ...]) -> None:
        if self.programs == 0:
            return
        warps = min(16, max(1, math.prod(self.tile) // VALUES_PER_WARP))
        with torch.cuda.device_of(u):
            kernel[(self.programs,)](
                *(*tensors, *self.sizes, self.span, *self.tile),
                num_warps=warps,
                enable_fp_fusion=True,  # the default differs between versions
            )


def _forward(*operands: Tensor | None, keep: bool) -> tuple[Tensor, Tensor | None]:
    """Output, and for the backward pass the states before every span."""
    u, B = operands[0], operands[3]
    assert u is not None
    assert B is not None
    plan, y = _Plan.of(u, B), torch.empty_like(u)
    starts = plan.kept(u) if keep else None
    plan.launch(_kernels().scan_forward, u, (*operands, y, starts))
    return y, starts


def _sum_blocks(parts: Tensor) -> Tensor:
    """Sum (batch, groups, blocks, state, length) over blocks, in an order that never changes."""
    first, *rest = parts.unbind(2)
    for part in rest:
        first = first + part
    return first


class _TritonScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *operands: Tensor | None) -> Tensor:
        y, starts = _forward(*operands, keep=True)
        ctx.save_for_backward(*operands, starts)
        return y

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        u, delta, A, B, C, D, starts = ctx.saved_tensors
        plan = _Plan.of(u, B)
        batch, groups, states, length = B.shape
        grad_u, grad_delta = torch.empty_like(u), torch.empty_like(delta)
        part_A, part_D = u.new_empty(batch, *A.shape), u.new_empty(batch, u.shape[1])
        part_B, part_C = u.new_empty(2, batch, groups, plan.blocks, states, length).unbind(0)
        scratch = u.new_empty(plan.programs, plan.span, *plan.tile)
        plan.launch(
            _kernels().scan_backward,
            u,
            (
                *(grad_outputs[0].contiguous(), u, delta, A, B, C, D, starts, scratch),
                *(grad_u, grad_delta, part_A, part_B, part_C, part_D),
            ),
        )
        need = ctx.needs_input_grad
        return (
            grad_u,
            grad_delta,
            part_A.sum(0) if need[2] else None,
            _sum_blocks(part_B) if need[3] else None,
            _sum_blocks(part_C) if need[4] else None,
            part_D.sum(0) if need[5] else None,
        )


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
    """Run the fused kernels; see `palpate.scan.selective_scan`.

    Once differentiable. Memory: see the head of this module.
    """
    given = prepare(u, delta, A, B, C, D, delta_bias=delta_bias, delta_softplus=delta_softplus)
    operands = tuple(
        None if tensor is None else tensor.contiguous() for tensor in given._replace(A=given.A.t())
    )
    wanted = any(tensor is not None and tensor.requires_grad for tensor in operands)
    if wanted and torch.is_grad_enabled():
        return _TritonScan.apply(*operands)
    return _forward(*operands, keep=False)[0]

# ruff: noqa: N803, N806 - the symbols of the paper
"""The selective scan in C++, compiled on first use, for float32 on the CPU.

Symbols as in `palpate.scan.base`. The source lies beside this file; `_build` compiles it. Each
sample and group is computed alone and in a fixed order, so results do not depend on the rest of
the batch or on the number of threads.
"""

import ctypes
from typing import Any, Final

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from palpate.scan._build import load_library
from palpate.scan.base import prepare

PRIORITY: Final = 20
LANES: Final = 16
CHUNK: Final = 16


def usable(u: Tensor) -> bool:
    """Serves CPU tensors of at most 32 bits where a compiler is at hand."""
    narrow = u.dtype in (torch.float32, torch.bfloat16, torch.float16)
    return u.device.type == "cpu" and narrow and load_library() is not None


def _call(name: str, tensors: tuple[Tensor | None, ...], sizes: tuple[int, ...]) -> None:
    # Few steps are done before a second thread has woken up.
    batch, groups, width, states, length = sizes
    threads = torch.get_num_threads() if batch * groups * width * states * length > 2**15 else 1
    getattr(load_library(), name)(
        *(None if tensor is None else tensor.data_ptr() for tensor in tensors),
        (ctypes.c_int64 * len(sizes))(*sizes),
        threads,
    )


def _forward(*operands: Tensor | None, keep: bool) -> tuple[Tensor, Tensor | None]:
    """Output, and for the backward pass the states at the start of every chunk."""
    u, B = operands[0], operands[3]
    assert u is not None
    assert B is not None
    batch, groups, states, length = B.shape
    width = u.shape[1] // groups
    chunks, blocks = -(-length // CHUNK), -(-width // LANES)
    starts = u.new_empty(batch, groups, blocks, chunks, states, LANES) if keep else None
    y = torch.empty_like(u)
    sizes = (batch, groups, width, states, length)
    _call("selective_scan_forward", (*operands, y, starts), sizes)
    return y, starts


class _CppScan(torch.autograd.Function):
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
        batch, groups, states, length = B.shape
        grads = [torch.empty_like(tensor) for tensor in (u, delta, B, C)]
        grad_u, grad_delta, grad_B, grad_C = grads
        grad_A, grad_D = u.new_empty(batch, *A.shape), u.new_empty(batch, len(A))
        _call(
            "selective_scan_backward",
            (
                *(grad_outputs[0].contiguous(), u, delta, A, B, C, D, starts),
                *(grad_u, grad_delta, grad_A, grad_B, grad_C, grad_D),
            ),
            (batch, groups, u.shape[1] // groups, states, length),
        )
        need = ctx.needs_input_grad
        return (
            grad_u,
            grad_delta,
            grad_A.sum(0) if need[2] else None,
            grad_B,
            grad_C,
            grad_D.sum(0) if need[5] else None,
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
    """Run the compiled scan; see `palpate.scan.selective_scan`.

    Once differentiable. Memory for the backward pass: state/16 times that of `u`.
    """
    operands = tuple(
        None if tensor is None else tensor.contiguous()
        for tensor in prepare(
            u, delta, A, B, C, D, delta_bias=delta_bias, delta_softplus=delta_softplus
        )
    )
    wanted = any(tensor is not None and tensor.requires_grad for tensor in operands)
    if wanted and torch.is_grad_enabled():
        return _CppScan.apply(*operands)
    return _forward(*operands, keep=False)[0]

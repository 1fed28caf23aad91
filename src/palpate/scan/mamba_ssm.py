# ruff: noqa: N803 - the symbols of the paper
"""The selective scan of the package mamba_ssm, where it is installed: CUDA, float32 inside.

Symbols as in `palpate.scan.base`. Source: github.com/state-spaces/mamba,
`ops/selective_scan_interface.py`. Bias and softplus are ours (`prepare`), as in every backend: with
its own ones, that package's backward pass is in doubt for lengths that do not fill its blocks
(issue 368 there). It adds up the gradients of A, B, C and D with atomics, so these differ in their
last bits from run to run (issue 493 there), and it scans in parallel, so where infinities arise the
result may differ from the reference; that is why `triton` comes first. At most 256 states.
"""

import functools
import importlib
import importlib.util
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from palpate.scan._probe import agrees
from palpate.scan.base import prepare

PRIORITY: Final = 30


def usable(u: Tensor) -> bool:
    """Serves tensors of at most 32 bits on CUDA where a trial agreed with the reference."""
    narrow = u.dtype in (torch.float32, torch.bfloat16, torch.float16)
    return u.is_cuda and narrow and installed() and agrees("mamba_ssm", selective_scan, u.device)


def installed() -> bool:
    """Whether the package is there; its compiled part may still fail, which the trial shows."""
    return importlib.util.find_spec("mamba_ssm") is not None


@functools.cache
def _selective_scan_fn() -> Callable[..., Tensor]:
    return importlib.import_module("mamba_ssm.ops.selective_scan_interface").selective_scan_fn


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
    """Run the package's scan; see `palpate.scan.selective_scan`. Once differentiable."""
    given = prepare(u, delta, A, B, C, D, delta_bias=delta_bias, delta_softplus=delta_softplus)
    if len(u) == 0:  # a grid of no blocks is an error to CUDA
        return given.u.clone()
    return _selective_scan_fn()(*given, z=None, delta_bias=None, delta_softplus=False)

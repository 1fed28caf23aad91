"""Try a backend for GPUs once per device, before its numbers are trusted.

Our machines for tests have no GPU, and what compiles there depends on driver, chip and the versions
of other packages. A small scan, forward and backward, is therefore compared with the reference in
float64 before the first use.
"""

import functools
import warnings
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from palpate.scan import reference

TOLERANCE: Final = 1e-4
BATCH, GROUPS, WIDTH, STATES, LENGTH = 2, 2, 40, 16, 7


def _arguments() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64, device="cpu")

    channels = GROUPS * WIDTH
    sequence, projection = (BATCH, channels, LENGTH), (BATCH, GROUPS, STATES, LENGTH)
    matrix = -torch.rand(channels, STATES, generator=generator, dtype=torch.float64, device="cpu")
    drawn = [draw(*sequence), draw(*sequence), matrix, draw(*projection), draw(*projection)]
    return [*drawn, draw(channels), draw(channels)]


def _results(scan: Callable[..., Tensor], arguments: list[Tensor]) -> list[Tensor]:
    leaves = [tensor.requires_grad_() for tensor in arguments]
    y = scan(*leaves[:6], delta_bias=leaves[6], delta_softplus=True)
    weight = torch.linspace(-1, 1, y.numel(), dtype=y.dtype, device=y.device).view_as(y)
    found = [y, *torch.autograd.grad(y, leaves, weight)]
    return [tensor.detach().to("cpu", torch.float64) for tensor in found]


def _complaint(scan: Callable[..., Tensor], device: torch.device) -> str | None:
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast("cpu", enabled=False):
        expected = _results(reference.selective_scan, _arguments())
        try:
            found = _results(scan, [t.to(device, torch.float32) for t in _arguments()])
        except Exception as error:  # noqa: BLE001 - whatever fails, another backend can serve
            return f"{type(error).__name__}: {error}"
    errors = ((f - e).abs().max() / e.abs().max() for f, e in zip(found, expected, strict=True))
    worst = torch.stack(list(errors)).max().item()
    if worst <= TOLERANCE:  # false for NaN
        return None
    return f"its relative error against the reference is {worst:.1e}"


@functools.cache
def agrees(name: str, scan: Callable[..., Tensor], device: torch.device) -> bool:
    """Whether `scan` ran on `device` and agreed with the reference; warns once where it did not."""
    complaint = _complaint(scan, device)
    if complaint is not None:
        warnings.warn(
            f"the {name} selective scan is not used on {device}: {complaint}",
            RuntimeWarning,
            stacklevel=2,
        )
    return complaint is None

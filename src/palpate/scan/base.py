# ruff: noqa: N803 - the symbols of the paper
"""What a backend of the selective scan promises, how one is found, and the checks before it runs.

Source: Gu and Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces" (2023),
section 3 and algorithm 2, with the simplified input term (delta times B) of its released code.

| code name    | meaning                                            | symbol      | section |
|--------------|----------------------------------------------------|-------------|---------|
| `u`          | input sequence (batch, groups*width, length)       | x           | 2       |
| `delta`      | step, after bias and softplus                      | Delta       | 3.2     |
| `A`          | diagonal of the state matrix (groups*width, state) | A           | 2       |
| `B`          | input projection (batch, groups, state, length)    | B           | 3.2     |
| `C`          | output projection (batch, groups, state, length)   | C           | 3.2     |
| `D`          | skip weight (groups*width,)                        | D           | alg. 2  |
| `delta_bias` | parameter added to the step before softplus        | Parameter   | 3.2     |
| `decay`      | exp(delta * A)                                     | A-bar       | eq. 4   |
| `state`      | hidden state, zero at the start                    | h           | eq. 2   |

    state[t] = exp(delta[t] * A) * state[t-1] + delta[t] * u[t] * B[t]
    y[t]     = sum over states of C[t] * state[t] + D * u[t]

A backend is a module of this folder whose name has no leading underscore. It has

- `PRIORITY`, an int: the usable backend with the largest one is taken by `backend="auto"`;
- `usable(u)`: whether it can serve this tensor here and now;
- `selective_scan(u, delta, A, B, C, D=None, *, delta_bias=None, delta_softplus=True)`.
"""

import functools
import importlib
import pkgutil
from pathlib import Path
from typing import NamedTuple, Protocol, cast

import torch
from torch import Tensor


class Backend(Protocol):
    """A backend module, as the type checker sees it."""

    PRIORITY: int

    def usable(self, u: Tensor) -> bool:
        """Whether this backend can serve a tensor like `u` in this process."""
        ...

    def selective_scan(
        self,
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
        """Run the scan; see `palpate.scan.selective_scan`."""
        ...


class Operands(NamedTuple):
    """The arguments in one floating type, with `delta` after bias and softplus."""

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None


def prepare(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    *,
    delta_bias: Tensor | None,
    delta_softplus: bool,
) -> Operands:
    """Cast to float32 or wider and turn the raw step into the positive one.

    Softplus is torch's own (linear above 20), so that every backend shares its rounding and its
    treatment of NaN and infinity.
    """
    dtype = torch.promote_types(u.dtype, torch.float32)
    delta = delta.to(dtype)
    if delta_bias is not None:
        delta = delta + delta_bias.to(dtype)[:, None]
    if delta_softplus:
        delta = torch.nn.functional.softplus(delta)
    skip = None if D is None else D.to(dtype)
    return Operands(u.to(dtype), delta, A.to(dtype), B.to(dtype), C.to(dtype), skip)


@functools.cache
def backends() -> tuple[str, ...]:
    """Names of the backends in this folder, sorted; nothing is imported."""
    found = (module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]))
    return tuple(sorted(name for name in found if name != "base" and not name.startswith("_")))


@functools.cache
def load_backend(name: str) -> Backend:
    """Import one backend.

    Raises:
        ValueError: if there is no backend of that name.
    """
    if name not in backends():
        expected = ", ".join(("auto", *backends()))
        raise ValueError(f"selective_scan: backend must be one of {expected}; got {name!r}")
    return cast(Backend, importlib.import_module(f"palpate.scan.{name}"))


@functools.cache
def _by_priority() -> tuple[Backend, ...]:
    return tuple(sorted(map(load_backend, backends()), key=lambda b: b.PRIORITY, reverse=True))


def _shape_errors(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
) -> str | None:
    if u.ndim != 3 or A.ndim != 2 or B.ndim != 4:
        return "u (batch, channels, length), A (channels, state), B (batch, groups, state, length)"
    batch, channels, length = u.shape
    groups, states = B.shape[1], A.shape[1]
    if channels == 0 or length == 0 or groups == 0 or states == 0 or channels % groups:
        return "non-empty channels, length, groups and state, and groups that divide channels"
    expected = (
        ("delta", delta, (batch, channels, length)),
        ("A", A, (channels, states)),
        ("B", B, (batch, groups, states, length)),
        ("C", C, (batch, groups, states, length)),
        ("D", D, (channels,)),
        ("delta_bias", delta_bias, (channels,)),
    )
    for name, tensor, shape in expected:
        if tensor is not None and tuple(tensor.shape) != shape:
            return f"{name} of shape {shape}"
    return None


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
    backend: str = "auto",
) -> Tensor:
    """Run the selective scan of Mamba over several groups of channels at once.

    A sample's output does not depend on the other samples of its batch. NaN and infinity in any
    argument spread as IEEE arithmetic says. First derivatives exist with respect to every tensor;
    `backend="reference"` also has higher ones.

    Args:
        u: Input, (batch, groups*width, length).
        delta: Raw step, same shape as `u`.
        A: State matrix diagonals, (groups*width, state); negative in a stable model.
        B: Input projection, (batch, groups, state, length).
        C: Output projection, (batch, groups, state, length).
        D: Skip weight, (groups*width,), or None for no skip.
        delta_bias: Added to `delta` before softplus, (groups*width,), or None.
        delta_softplus: Whether `delta` passes through softplus.
        backend: Name of a backend, or "auto" for the fastest one that is usable here.

    Returns:
        Output of the shape and floating type of `u`; computed in float32 or wider.

    Raises:
        ValueError: if shapes do not fit together or the backend is unknown or cannot serve `u`.

    Source: Gu and Dao (2023), algorithm 2; see the symbol table of this module.
    """
    problem = _shape_errors(u, delta, A, B, C, D, delta_bias)
    if problem is not None:
        given = {"u": u, "delta": delta, "A": A, "B": B, "C": C, "D": D, "delta_bias": delta_bias}
        shapes = {name: tuple(t.shape) for name, t in given.items() if t is not None}
        raise ValueError(f"selective_scan: expected {problem}; got shapes {shapes}")
    if backend == "auto":
        chosen = next(candidate for candidate in _by_priority() if candidate.usable(u))
    else:
        chosen = load_backend(backend)
        if not chosen.usable(u):
            raise ValueError(
                f"selective_scan: backend {backend!r} cannot serve a {u.dtype} tensor on"
                f" {u.device} here"
            )
    # Mixed precision would round the states, which grow errors over the length.
    with torch.autocast(u.device.type, enabled=False):
        y = chosen.selective_scan(
            u, delta, A, B, C, D, delta_bias=delta_bias, delta_softplus=delta_softplus
        )
    return y.to(u.dtype)

"""One fault trial: which calls run, which answer from memory, and how a pass may end early."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map

from palpate.faults._trace import Forward
from palpate.faults._trees import blanked, copied, same

Change = Callable[[Forward, tuple[Any, ...], dict[str, Any], Any], Any]
"""(real forward, args, kwargs, golden output or None) -> output of the faulty call."""

_CRASHES = (RuntimeError, IndexError, ValueError, TypeError, ArithmeticError, AssertionError)


class Masked(BaseException):
    """The faulty call's output is unchanged; no `except Exception` of a model may swallow this."""


class Trial:
    """One pass at a time: counts the calls and decides which of them run."""

    def __init__(self, inputs: Any, golden: Any) -> None:
        self._inputs = inputs
        self._golden = golden
        self._counts: dict[nn.Module, int] | None = None

    def scripted(self, module: nn.Module, real: Forward, decisions: list[Change | None]) -> Forward:
        """A `forward` whose calls follow the decisions in order, and run for real after them."""

        def forward(*args: Any, **kwargs: Any) -> Any:
            if self._counts is None:
                return real(*args, **kwargs)
            number = self._counts.get(module, 0)
            self._counts[module] = number + 1
            decision = decisions[number] if number < len(decisions) else None
            return real(*args, **kwargs) if decision is None else decision(real, args, kwargs, None)

        return forward

    def rooted(self, real: Forward) -> Forward:
        """The network's `forward`: starts counting, and survives a crash of the faulty model."""
        surviving = _surviving(real, like=self._golden)

        def forward(*args: Any, **kwargs: Any) -> Any:
            if torch.is_grad_enabled() or not same(self._inputs, (args, kwargs)):
                self._counts = None  # another question than the golden one: run it all
                return real(*args, **kwargs)
            self._counts = {}
            try:
                return surviving(*args, **kwargs)
            except Masked:
                return tree_map(copied, self._golden)
            finally:
                self._counts = None

        return forward


def run_whole(real: Forward, args: tuple[Any, ...], kwargs: dict[str, Any], golden: Any) -> Any:
    result = real(*args, **kwargs)
    if golden is not None and same(result, golden):
        raise Masked
    return result


def _surviving(real: Forward, *, like: Any) -> Forward:
    """Answer NaN where the faulty model crashes: a crash is noticed, as a NaN is."""

    def forward(*args: Any, **kwargs: Any) -> Any:
        try:
            return real(*args, **kwargs)
        except torch.OutOfMemoryError:
            raise
        except _CRASHES:
            return tree_map(blanked, like)

    return forward

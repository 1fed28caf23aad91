"""What a golden pass does, seen twice: as a tree of module calls and as a list of operations.

The operations tell which tensor is read when (also by a parent that hands a child's weight to a
fused kernel, where no hook of the child fires), and which tensor is overwritten in place. Storages
are told apart by weak references, so the pass keeps no activation alive.
"""

import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from palpate.targets.base import Target
from palpate.types import Batch

Forward = Callable[..., Any]
_ABSENT = object()
_BEFORE = -1  # storage that existed before the pass, or came from code that was not seen


@dataclass(eq=False, slots=True)
class Call:
    """One call of one module.

    Attributes:
        module: who was called.
        parent: the call that it happened in.
        start: clock when it began; the clock counts operations and call borders.
        end: clock when it returned.
        seconds: how long it took.
        children: calls that happened directly in it.
        outputs: storages of the tensors that it returned, with their bytes.
        tensors: shape and dtype of each tensor that it returned, in the order of the leaves.
        pure: it wrote to nothing older than itself, ran no hook of a module below it and left no
            module's attributes changed, so its stored output can stand in for it.
        overwritten: a later operation wrote to its output.
        wrote: storages older than itself that it wrote to.
        leaky: it ran a user's hook or left attributes changed.
        finishes: the call whose output it changes in place and hands on, as `ReLU(inplace=True)`
            does, if nothing looks at that output in between: the two are one.
    """

    module: nn.Module
    parent: "Call | None"
    start: int
    end: int = 0
    seconds: float = 0.0
    children: list["Call"] = field(default_factory=list)
    outputs: dict[int, int] = field(default_factory=dict)
    tensors: list[tuple[torch.Size, torch.dtype]] = field(default_factory=list)
    pure: bool = True
    overwritten: bool = False
    wrote: set[int] = field(default_factory=set)
    leaky: bool = False
    finishes: "Call | None" = None


class Trace(TorchDispatchMode):
    """Record of one pass of a network; run the pass inside `with trace:`."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.reads: dict[int, list[tuple[int, Call | None]]] = {}
        self._clock = 0
        self._stack: list[Call] = []
        self._known: dict[int, tuple[StorageWeakRef, int]] = {}
        self._written: dict[int, int] = {}
        self._uses: dict[int, list[int]] = {}
        for tensor in [*net.parameters(), *net.buffers()]:
            self._meet(tensor, _BEFORE)
            if (key := storage_key(tensor)) is not None:
                self.reads[key] = []
        self._net = net

    @contextmanager
    def recording(self) -> Generator[None]:
        """Watch every call and operation inside."""
        forwards = {module: self._watched(module) for module in self._net.modules()}
        with patched(forwards), self:
            yield
        for call in self.calls:
            late = [key for key in call.outputs if self._written.get(key, _BEFORE) > call.end]
            call.overwritten = bool(late)
            if any(self._known[key][1] < call.start for key in late):
                call.pure = False  # it returned an alias of something that changes later
        for call in self.calls:
            call.finishes = self._finished(call)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self._clock += 1
        inside = self._stack[-1] if self._stack else None
        for tensor in _tensors((args, kwargs)):
            key = self._meet(tensor, _BEFORE)
            if key is not None:
                self._uses.setdefault(key, []).append(self._clock)
            if key in self.reads:
                self.reads[key].append((self._clock, inside))
        result = func(*args, **kwargs)
        for tensor in _tensors(result):
            self._meet(tensor, self._clock)
        if func._schema.is_mutable:
            self._write(func._schema.arguments, args, kwargs)
        return result

    def _write(self, arguments: Any, args: Any, kwargs: Any) -> None:
        for number, argument in enumerate(arguments):
            if argument.alias_info is None or not argument.alias_info.is_write:
                continue
            value = args[number] if number < len(args) else kwargs.get(argument.name)
            for tensor in _tensors(value):
                key = self._meet(tensor, _BEFORE)
                if key is None:
                    continue
                self._written[key] = self._clock
                born = self._known[key][1]
                for call in self._stack:
                    if born < call.start:
                        call.pure = False
                        call.wrote.add(key)

    def _finished(self, call: Call) -> Call | None:
        if call.pure or call.leaky or call.children or call.parent is None or call.overwritten:
            return None
        if len(call.tensors) != 1 or call.wrote != set(call.outputs):
            return None
        [key] = call.wrote
        born = self._known[key][1]
        # a call in between that hands the same tensor on, such as an Identity, is not its maker
        makers = [c for c in call.parent.children if c.start <= born <= c.end < call.start]
        if len(makers) != 1:
            return None
        [maker] = makers
        whole = key in maker.outputs and len(maker.tensors) == 1
        between = any(maker.end < time < call.start for time in self._uses.get(key, []))
        return maker if whole and maker.pure and not maker.leaky and not between else None

    def _meet(self, tensor: Tensor, born: int) -> int | None:
        key = storage_key(tensor)
        if key is not None and key not in self._known:
            self._known[key] = (StorageWeakRef(tensor.untyped_storage()), born)
        return key

    def _watched(self, module: nn.Module) -> Forward:
        real = module.forward
        hooked = bool(module._forward_hooks or module._forward_pre_hooks)

        def forward(*args: Any, **kwargs: Any) -> Any:
            call = self._open(module, (args, kwargs), hooked=hooked)
            before = _attributes(module)
            began = time.perf_counter()
            result = real(*args, **kwargs)
            call.seconds = time.perf_counter() - began
            if not _unchanged(before, _attributes(module)):  # it left something for others to read
                call.leaky = True
                for outer in self._stack:
                    outer.pure = False
            self._close(call, result)
            return result

        return forward

    def _open(self, module: nn.Module, inputs: Any, *, hooked: bool) -> Call:
        for tensor in _tensors(inputs):
            self._meet(tensor, _BEFORE)
        self._clock += 1
        call = Call(module, self._stack[-1] if self._stack else None, self._clock, leaky=hooked)
        if call.parent is not None:
            call.parent.children.append(call)
        if hooked:  # the hooks must run, so every call around this one must run too
            for outer in self._stack:
                outer.pure = False
        self.calls.append(call)
        self._stack.append(call)
        return call

    def _close(self, call: Call, result: Any) -> None:
        self._clock += 1
        call.end = self._clock
        self._stack.pop()
        for leaf in tree_leaves(result):
            key = self._meet(leaf, _BEFORE) if isinstance(leaf, Tensor) else None
            if key is not None:
                call.outputs[key] = leaf.untyped_storage().nbytes()
                call.tensors.append((leaf.shape, leaf.dtype))
            elif not isinstance(leaf, int | float | str | None):
                call.pure = False


def traced(target: Target, batch: Batch, count: int) -> Trace:
    """Trace of one pass of the batch's first sample, repeated `count` times."""
    trace = Trace(target.module)
    with trace.recording():
        target.predict(probe(batch, count))
    return trace


def probe(batch: Batch, count: int) -> Batch:
    """The batch's first sample, repeated `count` times."""
    return Batch(
        images=torch.cat([batch.images[:1]] * count),
        references=torch.cat([batch.references[:1]] * count),
        samples=batch.samples[:1] * count,
        cases=batch.cases[:1] * count,
        sites=batch.sites[:1] * count,
        prompts=None if batch.prompts is None else batch.prompts[:1] * count,
    )


def storage_key(tensor: Tensor) -> int | None:
    """Identity of the memory behind a tensor while it lives; None if it has no plain storage."""
    if tensor.layout is not torch.strided or tensor.is_meta:
        return None
    return tensor.untyped_storage()._cdata


@contextmanager
def patched(forwards: Mapping[nn.Module, Forward]) -> Generator[None]:
    """Replace the `forward` of some modules; put back what was there on leaving."""
    before = {module: module.__dict__.get("forward", _ABSENT) for module in forwards}
    try:
        for module, forward in forwards.items():
            module.__dict__["forward"] = forward
        yield
    finally:
        for module, old in before.items():
            if old is _ABSENT:
                module.__dict__.pop("forward", None)
            else:
                module.__dict__["forward"] = old


def _attributes(module: nn.Module) -> dict[str, list[Any]]:
    """What a module holds beside its parts, lists and dicts by their entries."""
    found: dict[str, list[Any]] = {}
    for name, value in {**vars(module), **module._buffers}.items():
        if isinstance(value, dict):
            found[name] = [*value.keys(), *value.values()]
        else:
            found[name] = list(value) if isinstance(value, list | set | tuple) else [value]
    return found


def _unchanged(before: dict[str, list[Any]], after: dict[str, list[Any]]) -> bool:
    return before.keys() == after.keys() and all(
        len(old) == len(after[name]) and all(a is b for a, b in zip(old, after[name], strict=True))
        for name, old in before.items()
    )


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]

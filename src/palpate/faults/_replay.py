"""Answer a fault trial by re-running only what lies after the fault.

A golden pass stores the output of every module call. In a trial the model's own `forward` runs,
so skip connections and control flow come for free, but every call that ended before the faulty
tensor is first read returns its stored output. Results are bit for bit those of the full pass.

When all reads of the faulty tensors happen within one call and its output comes out unchanged, the
rest of the network cannot differ: the trial ends at once with the golden output.
"""

import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Final, final

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map

from palpate.errors import CapabilityError, ConfigError
from palpate.faults._trace import Call, Forward, Trace, patched, storage_key, traced
from palpate.faults._trees import copied, same
from palpate.faults._trial import Change, Trial, run_whole
from palpate.targets.base import Target
from palpate.types import Batch

_MEBIBYTE: Final = 1 << 20
_PROBE: Final = 2  # samples that the calls are traced on; one alone may be contiguous by accident


@final
class Replay:
    """Golden outputs of one target on one batch, and trials that start from them.

    Args:
        target: whose module's own `forward` each trial runs.
        batch: what every trial asks; another question inside a trial is answered in full.
        memory: bytes of golden outputs to keep, `memory_limit()` by default; what does not fit is
            computed again, which changes the time and nothing else.
    """

    def __init__(self, target: Target, batch: Batch, *, memory: int | None = None) -> None:
        self._net = target.module
        self.trace = Trace(self._net)
        self._store: dict[Call, Any] = {}
        self._finishers: dict[Call, Call] = {}
        self._scripts: dict[tuple[int, tuple[Call, ...]], dict[nn.Module, list[Any]]] = {}
        self._inputs: Any = None
        self._golden: Any = None
        self._real = self._net.forward
        if is_compiled(self._net):
            return  # its inner calls cannot be replaced: every trial is a full pass
        self.trace = traced(target, batch, _PROBE)
        if [call.module for call in self.trace.calls].count(self._net) != 1:
            return
        self._finishers = {c.finishes: c for c in self.trace.calls if c.finishes is not None}
        limit = memory_limit() if memory is None else memory
        kept = _worth_keeping(self.trace.calls, limit * _PROBE // max(len(batch), _PROBE))
        if not self._keep(kept, lambda: target.predict(batch)):
            self._store, self._inputs = {}, None  # other calls than in the trace: full passes

    @property
    def stored_bytes(self) -> int:
        """Bytes of golden outputs held."""
        leaves = [leaf for tree in self._store.values() for leaf in tree_flatten(tree)[0]]
        return sum({storage_key(t): t.nbytes for t in leaves if isinstance(t, Tensor)}.values())

    def answering(self) -> AbstractContextManager[None]:
        """Answer the golden question from memory, between trials."""
        if self._inputs is None:
            return nullcontext()

        def forward(*args: Any, **kwargs: Any) -> Any:
            if torch.is_grad_enabled() or not same(self._inputs, (args, kwargs)):
                return self._real(*args, **kwargs)
            return tree_map(copied, self._golden)

        return patched({self._net: forward})

    def reading(
        self, tensors: Sequence[tuple[str, Tensor]], change: Change | None = None
    ) -> AbstractContextManager[None]:
        """Enter a trial in which some of the network's stored tensors hold other values.

        Args:
            tensors: full names and tensors.
            change: computes the one call that reads them all, in place of its own forward.
        """
        if self._inputs is None or not tensors:
            return nullcontext()
        reads = [self._reads(name, tensor) for name, tensor in tensors]
        start = min(time for times in reads for time, _ in times)
        where = _common([call for times in reads for _, call in times])
        return self._entered(start, (where,) if where is not None else (), change or run_whole)

    def changing(self, calls: Sequence[Call], change: Change) -> AbstractContextManager[None]:
        """Enter a trial in which one call, or several of one module, answer otherwise.

        Args:
            calls: in the order that they happen.
            change: computes their answers.

        Raises:
            CapabilityError: calls inside the target's module cannot be replaced.
        """
        if self._inputs is None:
            raise CapabilityError(
                "expected a module that is called once per prediction, with calls that do not"
                " depend on the images, got another one: activations are not testable on it"
            )
        return self._entered(calls[0].end, tuple(calls), change)

    def _reads(self, name: str, tensor: Tensor) -> list[tuple[int, Call | None]]:
        key = storage_key(tensor)
        found = self.trace.reads.get(key) if key is not None else None
        if found:
            return found
        # no operation was seen to read it: it may still be read by one that bypasses the dispatcher
        path = name.rpartition(".")[0]
        while True:
            owner = self._net.get_submodule(path)
            calls = [call for call in self.trace.calls if call.module is owner]
            if calls or not path:
                return [(call.start, call) for call in calls] or [(0, None)]
            path = path.rpartition(".")[0]

    @contextmanager
    def _entered(self, start: int, where: tuple[Call, ...], change: Change) -> Generator[None]:
        key = (start, where)
        if key not in self._scripts:
            self._scripts[key] = self._script(start, where)
        trial = Trial(self._inputs, self._golden)
        forwards: dict[nn.Module, Forward] = {}
        for module, decisions in self._scripts[key].items():
            real = self._real if module is self._net else module.forward
            chosen = [self._decision(call, where, change) for call in decisions]
            forwards[module] = trial.scripted(module, real, chosen)
        forwards[self._net] = trial.rooted(forwards.get(self._net, self._real))
        with patched(forwards):
            yield

    def _script(self, start: int, where: tuple[Call, ...]) -> dict[nn.Module, list[Any]]:
        """Per module, what its calls do in the order that they happen: None runs for real."""
        script: dict[nn.Module, list[Any]] = {}
        last = max([start, *(call.start + 1 for call in where)])

        def visit(call: Call) -> None:
            stored = None if call in where else self._stand_in(call, start, where)
            script.setdefault(call.module, []).append(call if call in where else stored)
            if stored or (call in where and call.end <= start and call in self._store):
                return
            for child in call.children:
                if child.start < last:
                    visit(child)

        for call in self.trace.calls:
            if call.parent is None:
                visit(call)
        return {module: calls for module, calls in script.items() if any(calls)}

    def _stand_in(self, call: Call, start: int, where: tuple[Call, ...]) -> Call | None:
        """The call whose stored output answers this one, None if it has to run."""
        if call.end > start or call not in self._store:
            return None
        if call.finishes is not None:
            return call if call.finishes in self._store else None
        finisher = self._finishers.get(call)
        if finisher in self._store and finisher not in where and finisher.end <= start:
            return finisher  # handed out as the later call leaves it, so that needs no run
        return call

    def _decision(
        self, call: Call | None, where: tuple[Call, ...], change: Change
    ) -> Change | None:
        if call is None:
            return None
        golden = self._store.get(call)
        # what comes after the first faulty call has other inputs than the golden pass had
        known = golden if call.pure and call in where[:1] else None

        def memoised(*_: object) -> Any:
            # containers are new each time: a model may write into those that it was handed
            return tree_map(copied if call.overwritten else _itself, golden)

        def faulty(real: Forward, args: tuple[Any, ...], kwargs: dict[str, Any], _: Any) -> Any:
            return change(real, args, kwargs, known)

        return faulty if call in where else memoised

    def _keep(self, kept: set[Call], run: Callable[[], object]) -> bool:
        """Run the batch and store the outputs of the kept calls; False if the calls are others."""
        planned = iter(self.trace.calls)
        followed: list[bool] = []
        modules = {call.module for call in self.trace.calls}
        with patched({m: self._stored(m, planned, kept, followed) for m in modules}):
            run()
        return all(followed) and next(planned, None) is None

    def _stored(
        self, module: nn.Module, planned: Iterator[Call], kept: set[Call], followed: list[bool]
    ) -> Forward:
        real = module.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            call = next(planned, None)
            followed.append(call is not None and call.module is module)
            if call is None:
                return real(*args, **kwargs)
            inputs = tree_map(copied, (args, kwargs)) if module is self._net else None
            result = real(*args, **kwargs)
            if call in kept:
                self._store[call] = tree_map(copied if call.overwritten else _itself, result)
            if module is self._net:
                self._inputs, self._golden = inputs, tree_map(copied, result)
            return result

        return forward


def _itself(leaf: Any) -> Any:
    return leaf


def memory_limit() -> int:
    """Bytes that golden outputs may take: PALPATE_REPLAY_MEMORY in MiB, 1024 by default.

    Raises:
        ConfigError: the variable is no whole number of MiB.
    """
    text = os.environ.get("PALPATE_REPLAY_MEMORY", "1024")
    if not text.isdecimal():
        raise ConfigError(f"PALPATE_REPLAY_MEMORY: expected a number of MiB, got {text!r}")
    return int(text) * _MEBIBYTE


def _worth_keeping(calls: Sequence[Call], memory: int) -> set[Call]:
    """Most seconds saved per byte first, until the memory is full; shared storages count once."""
    held: set[int] = set()
    kept: set[Call] = set()

    def price(call: Call) -> int:
        return max(call.outputs.values(), default=0)

    ranked = sorted(calls, key=lambda c: c.seconds / (price(c) + 1), reverse=True)
    for call in [*ranked, *(c for c in calls if c.finishes is not None)]:
        if call.parent is None or not (call.pure or call.finishes in kept):
            continue
        new = {k: n for k, n in call.outputs.items() if call.overwritten or k not in held}
        if sum(new.values()) <= memory:
            memory -= sum(new.values())
            held |= set() if call.overwritten else set(new)
            kept.add(call)
    return kept


def _common(calls: Sequence[Call | None]) -> Call | None:
    """The innermost call around all of these, None if that is no call."""
    chains = [_chain(call) for call in calls]
    shared = None
    for level in zip(*chains, strict=False):
        if any(call is not level[0] for call in level):
            break
        shared = level[0]
    return shared


def _chain(call: Call | None) -> list[Call]:
    chain: list[Call] = []
    while call is not None:
        chain.append(call)
        call = call.parent
    return chain[::-1]


def is_compiled(module: nn.Module) -> bool:
    """Whether calls inside the module happen out of Python's sight."""
    return any(
        isinstance(part, torch.jit.ScriptModule) or hasattr(part, "_orig_mod")
        for part in module.modules()
    )

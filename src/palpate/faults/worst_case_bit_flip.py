"""The bits that an adversary with a write to memory would flip, and how few of them it takes."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import ClassVar, Literal, final

from palpate.errors import ConfigError
from palpate.faults import _bits
from palpate.faults._chosen import Chosen, ChosenFlips
from palpate.faults._memory import Memory
from palpate.faults._search import Found, Goal, candidates, progressive, spread, tried
from palpate.faults._sites import Place, Span, places, strata
from palpate.faults._storage import StorageFormat, deployed, stored_all
from palpate.faults.base import Fault
from palpate.perturbation import Enter
from palpate.targets.base import Target
from palpate.types import Batch


@final
@dataclass(frozen=True)
class WorstCaseBitFlip(Fault):
    """A search for the most harmful flips, on the first samples of the dataset (64 at most).

    All bits are ranked by the first-order change of the loss that they make, and by the size of the
    change; the best of every layer in turn are tried exactly. Damage is silent damage: a flip that
    makes an answer non-finite is noticed. It is a search, not a draw: its rates describe an
    adversary and estimate nothing about random faults, and it proves no absence of worse flips.

    Attributes:
        trials: worlds. With scope `model` world k holds the first k + 1 flips, each committed
            before the next is searched; with `layer` it holds the worst single flip of the k-th
            worst layer.
        scope: see `trials`.
        candidates: flips tried exactly per search; at least one of every layer with `layer`.
        bits: `all`, one field, or bit positions to choose from.
        format: what the memory holds; see `weight_bit_flip`.
        tensors: tensor names, module paths or glob patterns to choose from; empty for all.
        target_class: class that decisions should become (0 erases a mask); None for any wrong one.
        source_class: reference class whose samples the attacker is after; None for all.
        stealth: cost of a changed decision on the other samples, 0 for none.
        stop: mean score on the batch at which no more flips are committed, such as that of chance;
            None to go on. Later worlds then repeat the last one.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"weights", "gradients"})

    trials: int = field(default=3, kw_only=True)
    scope: Literal["model", "layer"] = "model"
    candidates: int = 64
    bits: _bits.Bits = "all"
    format: StorageFormat = "stored"
    tensors: tuple[str, ...] = ()
    target_class: int | None = None
    source_class: int | None = None
    stealth: float = 0.0
    stop: float | None = None

    def __post_init__(self) -> None:
        if self.trials < 1 or self.candidates < 1 or self.stealth < 0:
            raise ConfigError(
                "worst_case_bit_flip: expected trials and candidates of at least 1 and stealth of"
                f" at least 0, got {self.trials}, {self.candidates} and {self.stealth}"
            )
        if self.stealth and self.source_class is None:
            raise ConfigError("worst_case_bit_flip: expected a source_class with stealth, got none")

    def _check(self, target: Target) -> None:
        layers = {span.place.layer for span in self._spans(self._places(target))}
        if self.scope == "layer" and self.trials > len(layers):
            raise ConfigError(
                f"{self!r}: expected at most {len(layers)} trials, the layers of {target.name}"
            )
        for name in ("target_class", "source_class"):
            number = getattr(self, name)
            if number is not None and not 0 <= number < max(len(target.task.classes), 2):
                raise ConfigError(
                    f"{self!r}: expected {name} among {len(target.task.classes)} classes"
                )

    def fitted(self, target: Target, batch: Batch) -> ChosenFlips:
        """Search on this batch; what is found can be entered on any other."""
        self.check(target)
        found = self._places(target)
        with deployed(found):
            worlds = self._searched(target, batch, self._spans(found))
        chosen = tuple(self._choice(flips) for flips in worlds)
        return ChosenFlips(chosen, scope=self.scope, format=self.format, trials=self.trials)

    def _ready(self, target: Target, batch: Batch) -> AbstractContextManager[Enter]:
        return self.fitted(target, batch).prepared(target, batch)

    def _searched(
        self, target: Target, batch: Batch, spans: Sequence[Span]
    ) -> list[tuple[Found, ...]]:
        """Flips of every world."""
        goal = Goal(self.target_class, self.source_class, self.stealth)
        if self.scope == "model":
            chosen = progressive(
                target,
                batch,
                spans=spans,
                goal=goal,
                flips=self.trials,
                per_step=self.candidates,
                stop=self.stop,
            )
            return [tuple(chosen[: k + 1]) for k in range(len(chosen))] or [()]
        sites = candidates(target, batch, spans=spans, goal=goal)
        layers = len({site.place.layer for site in sites})
        golden = target.predict(batch)
        with Memory.prepared(target, batch) as memory:
            few = spread(sites, max(self.candidates, layers))
            found = tried(memory, few, goal=goal, golden=golden, batch=batch)
        best: dict[str, Found] = {}
        for one in found:
            best.setdefault(one.site.place.layer, one)
        return [(one,) for one in best.values()] or [()]

    def _choice(self, flips: Sequence[Found]) -> Chosen:
        sites = tuple((f.site.place.name, f.site.element, f.site.bit) for f in flips)
        layer = flips[-1].site.place.layer if flips and self.scope == "layer" else "model"
        return Chosen(sites, layer, flips[-1].damage if flips else 0.0)

    def _places(self, target: Target) -> list[Place]:
        return stored_all(places(target.module, self.tensors), self.format)

    def _spans(self, found: list[Place]) -> Sequence[Span]:
        [everything] = strata(found, "model", bits=self.bits, who=self)
        floating = [span for span in everything.spans if span.place.tensor.is_floating_point()]
        return floating or everything.spans

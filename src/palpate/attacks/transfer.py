"""Transfer: craft the images on another model, replay them on the audited one.

Papernot, McDaniel, Goodfellow, "Transferability in Machine Learning: from Phenomena to Black-Box
Attacks using Adversarial Samples", arXiv 1605.07277, section 2. The audited target is asked twice:
clean, to see whether it answers the change at all, and with the result. A transfer that does better
than a white-box attack says that gradients are masked (Athalye et al., arXiv 1802.00420, 3.1).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Final, final

from typing_extensions import override

from palpate import registry
from palpate.attacks._gradient import Search
from palpate.attacks.base import Attack, NormAttack
from palpate.datasets.base import Samples
from palpate.errors import CapabilityError, ConfigError
from palpate.perturbation import Perturbation
from palpate.targets.base import Target, TargetSource
from palpate.types import Batch, Images

UNDEFENDED: Final = "undefended"


@final
@dataclass(frozen=True)
class Transfer(Attack):
    """Attack the surrogate within the budget; the audited target need not have gradients.

    Attributes:
        surrogate: a target as the audit file names it, or "undefended" for the audited target
            without its defence. Where it has none that is the target itself: the number to hold
            those of its defences against.
        attack: name or spec of the attack on the surrogate; epsilon and norm are those of transfer.
            "universal" is fitted on the surrogate, and its one perturbation carried over.
    """

    needs: ClassVar[frozenset[str]] = frozenset()

    surrogate: str | dict[str, Any] = field(default=UNDEFENDED, metadata={"family": "targets"})
    attack: str | dict[str, Any] = field(default="pgd", metadata={"family": "attacks"})

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self._inner, self._source  # refuses what does not exist

    @property
    @override
    def passes(self) -> float:
        return self._inner.passes + 2

    @override
    def identity(self, target: Target, batch: Batch) -> dict[str, Any]:
        """The parameters, with what the attack hangs on, and the surrogate as its digest.

        Raises:
            TargetError: a surrogate that cannot be loaded; a CheckpointError for its weights.
            DataError: data that the attack is fitted on, missing or damaged.
            CapabilityError: a surrogate that reads prompts as the target does not.
        """
        own, inner = registry.describe(self), self._inner
        own["attack"] = {
            **inner.identity(target, batch),
            "name": registry.name_of(inner),
            "version": inner.version,
        }
        if self._source is not None:
            own["surrogate"] = self._loaded(target, batch.images).digest()
        return own

    @override
    def check_samples(self, samples: Samples) -> None:
        """Refuse what the attack refuses.

        Raises:
            DataError: says which samples, and why.
        """
        self._inner.check_samples(samples)

    @override
    def check(self, target: Target) -> None:
        """Refuse a surrogate or an attack that do not serve the target's task.

        Raises:
            CapabilityError: no such network for the task, or nothing that the attack could use.
            ConfigError: the attack refuses the task or the budget.
        """
        super().check(target)
        if self._source is not None and not isinstance(target.task, self._source.serves):
            kinds = " or ".join(kind.__name__ for kind in self._source.serves)
            raise CapabilityError(
                f"transfer: expected a task of {kinds} for its surrogate, got"
                f" {type(target.task).__name__}"
            )
        if self._source is None or self._inner.needs <= target.offers:
            self._inner.check(target.bare or target)

    @property
    @override
    def looks_first(self) -> bool:
        return self._inner.looks_first

    @property
    @override
    def separable(self) -> bool:
        return self._inner.separable

    @override
    def studied(self, count: int) -> Sequence[int]:
        """The samples that the attack wants to look at."""
        return self._inner.studied(count)

    @override
    def fitted(self, target: Target, batch: Batch) -> Perturbation:
        """What an attack finds that looks at samples first (universal), found on the surrogate.

        Raises:
            DataError: samples that the attack cannot be fitted on.
        """
        if not self.looks_first:
            return self
        return self._inner.fitted(self._loaded(target, batch.images), batch)

    @override
    def _run(self, search: Search, seeds: Sequence[int]) -> Images:
        crafting = self._crafting(search, seeds)
        with crafting.target.frozen():
            self._inner._run(crafting, seeds)
        moved = self._inner._finished(crafting)
        before, after = search.look(search.images).loss, search.look(moved).loss
        search.feel(before != after, None)
        search.passes += crafting.passes
        return moved

    @override
    def _ask_once(self, search: Search) -> None:
        crafting = self._crafting(search, range(len(search.images)))
        with crafting.target.frozen():
            self._inner._ask_once(crafting)

    def _crafting(self, search: Search, seeds: Sequence[int]) -> Search:
        """The search on the surrogate."""
        surrogate, inner = self._loaded(search.target, search.images), self._inner
        inner.check(surrogate)
        crafting = inner._searching(surrogate, search.images, search.references, search.tokens)
        crafting.begin(seeds)
        return crafting

    def _loaded(self, target: Target, images: Images) -> Target:
        """The surrogate for this task, on the target's device; made once, and named in the key."""
        if self._source is None:
            return target.bare or target
        key = repr((target.task, target.bounds, images.shape[1]))
        if key not in self._surrogates:
            self._surrogates[key] = self._source.load(
                task=target.task, channels=images.shape[1], bounds=target.bounds
            )
        surrogate = self._surrogates[key]
        surrogate.module.to(target.device)
        if repr(surrogate.tokenizer) != repr(target.tokenizer):
            raise CapabilityError(
                f"transfer: expected a surrogate that reads prompts as {target.name} does, got"
                f" {surrogate.tokenizer!r} instead of {target.tokenizer!r}"
            )
        return surrogate

    @cached_property
    def _inner(self) -> NormAttack:
        spec = {"name": self.attack} if isinstance(self.attack, str) else self.attack
        given = {k: v for k, v in spec.items() if k != "name"}
        taken = given.keys() & {"epsilon", "norm"}
        if "name" not in spec or taken or spec["name"] == registry.name_of(self):
            raise ConfigError(
                "attack: expected the name of another attack, without epsilon and norm, which are"
                f" those of transfer; got {spec}"
            )
        if not issubclass(registry.load("attacks", spec["name"]), NormAttack):
            raise ConfigError(f"attack: expected one whose budget is a norm, got {spec['name']!r}")
        shared = {"epsilon": self.epsilon, "norm": self.norm}
        return registry.create("attacks", spec["name"], {**given, **shared})

    @cached_property
    def _source(self) -> TargetSource | None:
        if self.surrogate == UNDEFENDED:
            return None
        if not isinstance(self.surrogate, Mapping) or "name" not in self.surrogate:
            raise ConfigError(
                f"surrogate: expected a target with a name, or {UNDEFENDED!r}, got"
                f" {self.surrogate!r}"
            )
        given = {k: v for k, v in self.surrogate.items() if k != "name"}
        return registry.create("targets", self.surrogate["name"], given)

    @cached_property
    def _surrogates(self) -> dict[str, Target]:
        return {}

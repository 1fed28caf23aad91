"""Universal perturbation: one change that fools the model on most images, unseen ones included.

Moosavi-Dezfooli, Fawzi, Fawzi, Frossard, "Universal adversarial perturbations", arXiv 1610.08401,
algorithm 1, and the gradient form of Shafahi et al., "Universal Adversarial Training", arXiv
1811.11304, section 3. The search is in `_universal`, with the symbols; who is measured with what is
in `_held_out`.

| code | meaning | symbol | source |
|---|---|---|---|
| epsilon | radius of the perturbation | ξ; ε | 1610.08401, section 2; 1811.11304, eq. 4 |
| fooling_rate | share of fooled samples that is wanted | 1 − δ | 1610.08401, section 2 |
| rounds | walks over the samples | – | algorithm 1, outer loop |
| overshoot | of the DeepFool inside | η | 1511.04599 |
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Final, Literal, final

import torch
from typing_extensions import override

from palpate import registry
from palpate.attacks._climb import LossAttack
from palpate.attacks._gradient import Search
from palpate.attacks._held_out import (
    Apart,
    FittedChange,
    Parts,
    check_apart,
    check_unseen,
    in_order,
    rest,
    some_samples,
)
from palpate.attacks._projection import size
from palpate.attacks._universal import Change, Climb, Crowd, Fitted, Fool
from palpate.datasets.base import Dataset, Samples
from palpate.errors import ConfigError
from palpate.perturbation import Enter
from palpate.registry import Number
from palpate.seeds import Seeds
from palpate.targets.base import Target
from palpate.types import Batch, Images

AUDITED: Final = "audited"

_READ: Final = 64  # images in memory at once while they are compared


@final
@dataclass(frozen=True)
class Universal(LossAttack):
    """x + δ, clipped to the bounds, with one δ for many samples.

    In an audit δ is fitted once per model, on samples that it is not measured on: others of the
    audit's (`held_out` says which stay together), or those of `fit_on`. Called alone it is fitted
    on the images that it is given. To carry it over from another model, name it in `transfer`.

    Attributes:
        method: "gradient" climbs the losses of the samples that are right when clean; "deepfool"
            adds up the least change of each.
        samples: how many samples the search may look at, evenly spread over the data.
        held_out: "case": what a patient meets was fitted on the other half of the patients; "site":
            what a site meets was fitted on all other sites (hospitals, modalities).
        fit_on: "audited", or another dataset as the audit file names it, such as the train split;
            then all meet one δ, and `held_out` says nothing.
        rounds: walks over the samples; None for 20, or at most 5 with "deepfool".
        batch: samples per update; None for 32, or 1 with "deepfool" as in the paper.
        step_size: of the first gradient step, in units of the bounds; steps shrink to nothing. None
            for a quarter of epsilon, or more where the steps are few.
        fooling_rate: share of samples with another decision at which "deepfool" is content.
        steps: of the search for one sample's least change ("deepfool").
        overshoot: share by which that change is lengthened.
        candidates: classes that it is compared with, the likeliest on the clean input.
        agreement: Dice with the mask on the clean input below which a mask counts as fooled.
    """

    shared: ClassVar[bool] = True

    method: Literal["gradient", "deepfool"] = "gradient"
    samples: int = 256
    held_out: Apart = "case"
    fit_on: str | dict[str, Any] = field(default=AUDITED, metadata={"family": "datasets"})
    rounds: int | None = None
    batch: int | None = None
    step_size: Number | None = None
    fooling_rate: float = 0.8
    steps: int = 10
    overshoot: float = 0.02
    candidates: int = 10
    agreement: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        counts = {"rounds": self._rounds, "batch": self._batch}
        counts |= {"steps": self.steps, "candidates": self.candidates}
        for name, count in counts.items():
            if count < 1:
                raise ConfigError(f"{name}: expected 1 or more, got {count}")
        if self.samples < 2:
            raise ConfigError(f"samples: expected 2 or more, got {self.samples}")
        for name in ("fooling_rate", "agreement"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"{name}: expected more than 0 to 1, got {getattr(self, name)}")
        if self.step_size is not None and not self.step_size > 0:
            raise ConfigError(f"step_size: expected more than 0, got {self.step_size}")
        if not self.overshoot >= 0:
            raise ConfigError(f"overshoot: expected 0 or more, got {self.overshoot}")
        if self.method == "deepfool" and self.goal != "break":
            raise ConfigError(f"goal: expected 'break' with deepfool, got {self.goal!r}")
        _ = self._others  # refuses what does not exist

    @property
    def _rounds(self) -> int:
        usual = 20 if self.method == "gradient" else 5
        return usual if self.rounds is None else self.rounds

    @property
    def _batch(self) -> int:
        usual = 32 if self.method == "gradient" else 1
        return usual if self.batch is None else self.batch

    @property
    @override
    def passes(self) -> float:
        each = 4.0 if self.method == "gradient" else 3.0 * self.steps
        return self._rounds * each + 2

    @override
    def identity(self, target: Target, batch: Batch) -> dict[str, Any]:
        """The parameters, with the data of `fit_on` as the hash of its content.

        Raises:
            DataError: files missing or damaged.
        """
        own = registry.describe(self)
        return own if self._others is None else {**own, "fit_on": self._others.load().digest()}

    @override
    def check_samples(self, samples: Samples) -> None:
        """Refuse samples that `fit_on` would fit the perturbation on.

        Raises:
            DataError: how many, and the first.
        """
        if self._others is not None:
            data = self._others.load()
            check_unseen(data.batch(self.studied(len(data))), samples.batches(_READ))

    @override
    def studied(self, count: int) -> Sequence[int]:
        """So many samples, evenly spread."""
        few = min(count, self.samples)
        return [i * count // few for i in range(few)]

    @override
    def fitted(self, target: Target, batch: Batch) -> FittedChange:
        """One perturbation for each part of these samples, fitted on the other parts.

        Raises:
            DataError: samples of one case or site only; data to fit on that does not fit the
                target, or is among these samples.
        """
        self.check(target)
        with target.frozen():
            if self._others is None:
                parts = Parts.of(batch, self.held_out)
                return self._crossed(target, in_order(batch), parts)
            data = self._others.load()
            other = in_order(data.batch(self.studied(len(data))))
            check_apart(data, other, batch, target)
            crowd = self._crowd(target, other)
            found = self._search(crowd)
            told = {"measured_on": "all", **_told(found, crowd)}
            told |= _held_out(found.change, self._crowd(target, in_order(batch)))
            return self._changes({"all": found}, None, [told])

    @override
    def prepared(self, target: Target, batch: Batch) -> AbstractContextManager[Enter]:
        return self.fitted(target, batch).prepared(target, batch)

    @override
    def _run(self, search: Search, seeds: Sequence[int]) -> Images:
        order = sorted(range(len(seeds)), key=lambda i: seeds[i])
        part = search.part(torch.tensor(order, device=search.images.device))
        found = self._search(Crowd.of(part, self.agreement))
        search.feel(torch.full_like(search.felt, found.felt), None)
        search.passes += part.passes
        images = (search.images + found.change).clamp(*search.target.bounds)
        search.look(images)
        return images

    def _crossed(self, target: Target, batch: Batch, parts: Parts) -> FittedChange:
        found: dict[str, Fitted] = {}
        told: list[dict[str, Any]] = []
        of = parts.part(batch)
        for name in parts.names:
            inside = [i for i, part in enumerate(of) if part == name]
            crowd = self._crowd(target, rest(batch, inside))
            found[name] = self._search(crowd)
            apart = self._crowd(target, some_samples(batch, inside))
            told.append(
                {
                    "measured_on": name,
                    **_told(found[name], crowd),
                    **_held_out(found[name].change, apart),
                }
            )
        return self._changes(found, parts, told)

    def _crowd(self, target: Target, batch: Batch) -> Crowd:
        drawn = Seeds(cell="universal").per_sample(batch.samples)
        prompts = self._prompts(batch, drawn)
        search = self._searching(
            target,
            batch.images.to(target.device),
            batch.references.to(target.device),
            target.tokens(prompts),
        )
        search.begin(drawn)
        return Crowd.of(search, self.agreement)

    def _changes(
        self, found: dict[str, Fitted], parts: Parts | None, told: list[dict[str, Any]]
    ) -> FittedChange:
        return FittedChange(
            epsilon=self.epsilon,
            norm=self.norm,
            changes={name: one.change[0] for name, one in found.items()},
            felt={name: one.felt for name, one in found.items()},
            parts=parts,
            told={"universal": told},
        )

    @cached_property
    def _others(self) -> Dataset | None:
        if self.fit_on == AUDITED:
            return None
        if not isinstance(self.fit_on, Mapping) or "name" not in self.fit_on:
            raise ConfigError(
                f"fit_on: expected a dataset with a name, or {AUDITED!r}, got {self.fit_on!r}"
            )
        given = {k: v for k, v in self.fit_on.items() if k != "name"}
        return registry.create("datasets", self.fit_on["name"], given)

    def _search(self, crowd: Crowd) -> Fitted:
        if self.method == "gradient":
            return Climb(
                norm=self.norm,
                epsilon=self.epsilon,
                rounds=self._rounds,
                batch=self._batch,
                step_size=self.step_size,
            )(crowd)
        return Fool(
            norm=self.norm,
            epsilon=self.epsilon,
            rounds=self._rounds,
            batch=self._batch,
            fooling_rate=self.fooling_rate,
            steps=self.steps,
            overshoot=self.overshoot,
            candidates=self.candidates,
        )(crowd)


def _told(found: Fitted, crowd: Crowd) -> dict[str, Any]:
    return {
        "fitted_on": len(crowd.search.images),
        "rounds": found.rounds,
        "linf": float(size(found.change, "linf")),
        "l2": float(size(found.change, "l2")),
        "fooling_rate": crowd.asked(found.change)[0],
    }


def _held_out(change: Change, crowd: Crowd) -> dict[str, Any]:
    return {
        "held_out": len(crowd.search.images),
        "fooling_rate_held_out": crowd.asked(change)[0],
    }

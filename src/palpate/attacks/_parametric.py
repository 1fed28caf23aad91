"""Base of the attacks that search few parameters of a transform instead of every pixel.

The parameters of a sample lie in the box [-1, 1]; the component gives them their physical size. The
box is climbed by projected signed gradients whose steps shrink to nothing, from several starts.
"""

import itertools
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, final

import torch
from torch import Tensor
from typing_extensions import override

from palpate.attacks._climb import ClimbingAttack
from palpate.attacks._gradient import Rows, Search, put, some
from palpate.attacks._projection import finite
from palpate.attacks._start import reseed
from palpate.errors import BudgetError, ConfigError
from palpate.perturbation import generators
from palpate.registry import Number
from palpate.targets.base import Target
from palpate.types import Bounds, Images, References, Tokens

Parameters = Tensor  # (batch, number of parameters), each in [-1, 1]

_STRONGEST = 5.0
_ROUNDING = 1e-5  # of the width of the bounds: one transform in batches of another size


@dataclass
class Walk(Search):
    """A search among parameters: it remembers those of the best iterates.

    Attributes:
        attack: knows the transform.
        origin: zero, the clean start, which is no iterate.
        parameters: of `best`; zero before any.
        farthest: largest parameter that was tried, without its sign.
    """

    attack: "ParametricAttack" = field(kw_only=True)
    origin: Parameters = field(init=False)
    parameters: Parameters = field(init=False)
    farthest: Tensor = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._known = (self.references, self.aim)
        count = self.attack.count(self.images)
        self.origin = self.images.new_zeros((len(self.images), count))
        self.parameters = self.origin
        self.farthest = self.images.new_zeros(())

    def slope(
        self, parameters: Parameters, *, rows: Rows | None, progress: float = 0.0
    ) -> Parameters:
        """Gradient of the loss in the parameters; arguments as in `ask`."""
        leaf = parameters.detach().requires_grad_()
        with torch.enable_grad():
            images = self._placed(leaf, rows)
        before = self._state(rows)
        asked = self.images if parameters is self.origin else images.detach()
        answer = self.ask(asked, rows=rows, progress=progress)
        self._keep_parameters(parameters, rows, before)
        return finite(torch.autograd.grad(images, leaf, answer.gradient)[0])

    @torch.no_grad()
    def see(self, parameters: Parameters, *, rows: Rows | None = None) -> Images:
        """Measure parameters without a gradient; the images that they make."""
        images, before = self._placed(parameters, rows), self._state(rows)
        self.look(images, rows=rows)
        self._keep_parameters(parameters, rows, before)
        return images

    def _placed(self, parameters: Parameters, rows: Rows | None) -> Images:
        """The images of some parameters; the references go where their pixels have gone."""
        self.farthest = torch.maximum(self.farthest, parameters.detach().abs().max())
        references, aim = self._known
        carried = self.attack.carried(some(references, rows), parameters.detach(), self.target)
        self.references = put(self.references, rows, carried)
        if aim is not None and self.aim is not None:
            carried = self.attack.carried(some(aim, rows), parameters.detach(), self.target)
            self.aim = put(self.aim, rows, carried)
        return self.attack.transformed(some(self.images, rows), parameters, self.target.bounds)

    def _state(self, rows: Rows | None) -> tuple[Tensor, Tensor]:
        return some(self.score, rows), some(self.loss, rows)

    def _keep_parameters(
        self, parameters: Parameters, rows: Rows | None, before: tuple[Tensor, Tensor]
    ) -> None:
        """Every better iterate changes the score or the loss of `best`."""
        score, loss = self._state(rows)
        better = ((score != before[0]) | (loss != before[1])).unsqueeze(1)
        kept = torch.where(better, parameters.detach(), some(self.parameters, rows))
        self.parameters = put(self.parameters, rows, kept)


@dataclass(frozen=True)
class ParametricAttack(ClimbingAttack):
    """Base of the attacks whose budget limits the few parameters of a transform.

    Attributes:
        severity: 0 (identity) to 5, where the limits are those that the component states; in
            between they shrink in proportion. Not only whole numbers.
        steps: gradient steps from each start.
        restarts: starts of the gradient search: the first is the component's own, the others are
            random draws from all that is allowed. A sample whose score is 0 starts no more.
    """

    dose: ClassVar[str] = "severity"

    severity: Number = field(default=3.0, kw_only=True)
    steps: int = field(default=20, kw_only=True)
    restarts: int = field(default=4, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.severity <= _STRONGEST:
            raise ConfigError(f"severity: expected 0 to 5, got {self.severity}")
        if self.steps < 1 or self.restarts < 1:
            raise ConfigError(
                f"expected steps and restarts of 1 or more, got {self.steps} and {self.restarts}"
            )

    @abstractmethod
    def count(self, images: Images) -> int:
        """How many parameters each of these samples has."""

    @abstractmethod
    def transformed(self, images: Images, parameters: Parameters, bounds: Bounds) -> Images:
        """Images within the bounds, differentiable in the parameters; zero leaves all as it is."""

    def carried(
        self,
        masks: References,
        parameters: Parameters,  # noqa: ARG002
        target: Target,  # noqa: ARG002
    ) -> References:
        """References as they are where the transform has moved the pixels; unmoved by default."""
        return masks

    @property
    def share(self) -> float:
        """Share of the stated limits that this severity allows."""
        return self.severity / _STRONGEST

    @property
    @override
    def budget(self) -> float:
        return self.severity

    @property
    @override
    def passes(self) -> float:
        return self.restarts * (3.0 * self.steps + 1) + len(self.points())

    @final
    @override
    def _run(self, search: Search, seeds: Sequence[int]) -> Images:
        assert isinstance(search, Walk)
        images = search.images
        for restart in range(self.restarts):
            rows = search.standing() if restart else None
            if rows is not None and not len(rows):
                break
            drawn = [reseed(seed, restart) for seed in seeds]
            start = self._random(search, drawn) if restart else self._first(search)
            last = self._climb(search, some(start, rows), rows)
            images = put(images, rows, search.see(last, rows=rows))
        return images

    def _first(self, search: Walk) -> Parameters:
        """Where the first start is: no change, or the best of the points to look at."""
        for point in self.points():
            rows = search.standing()
            if not len(rows):
                break
            search.see(torch.tensor(point).to(search.origin).expand(len(rows), -1), rows=rows)
        return search.parameters  # those of the origin where nothing was looked at

    def points(self) -> list[tuple[float, ...]]:
        """Parameters to look at before the first start; none by default.

        A sample whose score is 0 is looked at no more.
        """
        return []

    def _random(self, search: Walk, seeds: Sequence[int]) -> Parameters:
        count = search.parameters.shape[1]
        drawn = [2 * torch.rand(count, generator=g) - 1 for g in generators(seeds)]
        return torch.stack(drawn).to(search.parameters)

    @property
    def first_step(self) -> float:
        """Length of the first step along each parameter; the steps shrink to nothing from there."""
        return 0.5

    def _climb(self, search: Walk, parameters: Parameters, rows: Rows | None) -> Parameters:
        for step in range(self.steps):
            slope = search.slope(parameters, rows=rows, progress=step / self.steps)
            length = self.first_step * (1 - step / self.steps)
            parameters = (parameters + length * slope.sign()).clamp(-1, 1)
        return parameters

    @override
    def _searching(
        self, target: Target, clean: Images, references: References, tokens: Tokens | None
    ) -> Walk:
        plain = super()._searching(target, clean, references, tokens)
        return Walk(
            target,
            clean,
            plain.references,
            plain.objective,
            aim=plain.aim,
            tokens=tokens,
            attack=self,
        )

    @override
    def _check_budget(self, search: Search, images: Images) -> None:
        assert isinstance(search, Walk)
        farthest = float(search.farthest)
        if not farthest <= 1:
            raise BudgetError(f"{self!r}: expected parameters within [-1, 1], spent {farthest:.8g}")
        if images is not search.best:
            return
        bounds = search.target.bounds
        again = self.transformed(search.images, search.parameters, bounds)
        apart = float((again - images).abs().max())
        if apart > _ROUNDING * (bounds.high - bounds.low):
            raise BudgetError(f"{self!r}: expected images of the transform, got {apart:.3g} off")


def grid(*counts: int) -> list[tuple[float, ...]]:
    """Evenly spaced points of the box, from its corners inwards, without the origin.

    Args:
        counts: points along each axis, from -1 to 1; the middle alone for 1.
    """
    axes = [[0.0] if n == 1 else [2 * i / (n - 1) - 1 for i in range(n)] for n in counts]
    points = sorted(itertools.product(*axes), key=lambda p: -sum(x * x for x in p))
    return [p for p in points if any(p)]

"""Worst of many random draws of one corruption or occlusion: bad luck instead of the average.

Engstrom, Tran, Tsipras, Schmidt, Madry, "Exploring the Landscape of Spatial Robustness",
arXiv 1712.02779, section 3 ("worst-of-k"), here for any disturbance with random draws.

| code | meaning | symbol | section |
|---|---|---|---|
| queries | draws tried for each sample | k | 3 |
| perturbation | what is drawn | – | 3 |
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Final, final

from typing_extensions import override

from palpate import registry
from palpate.attacks._climb import check_steps
from palpate.attacks._gradient import Search, put, some
from palpate.attacks._projection import project
from palpate.attacks._start import reseed
from palpate.attacks.base import NormAttack, check_epsilon
from palpate.errors import ConfigError, UnknownComponent, nearest
from palpate.perturbation import ImagePerturbation
from palpate.registry import Number
from palpate.types import Images

_FAMILIES: Final = ("corruptions", "occlusions")


@final
@dataclass(frozen=True)
class RandomSearch(NormAttack):
    """Draw again and again at one severity or coverage; each sample keeps its worst draw.

    A sample whose score has reached 0 leaves at once.

    Attributes:
        perturbation: name or spec of a corruption or an occlusion.
        queries: most draws for each sample.
        epsilon: each draw is brought back to this distance from the clean image; None leaves it as
            it is, since a severity is its own limit.
    """

    needs: ClassVar[frozenset[str]] = frozenset()

    perturbation: str | dict[str, Any] = field(
        default="gaussian_noise", metadata={"family": _FAMILIES}
    )
    queries: int = 300
    epsilon: Number | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.epsilon is not None:
            check_epsilon(self.epsilon)
        check_steps(self.queries, None)
        _ = self._drawn  # refuses what does not exist

    @property
    @override
    def budget(self) -> float | None:
        return self.epsilon

    @property
    @override
    def passes(self) -> float:
        return float(self.queries + 1)

    @override
    def _run(self, search: Search, seeds: Sequence[int]) -> Images:
        bounds, images, rows = search.target.bounds, search.images, None
        before = search.look(images).loss
        for query in range(self.queries):
            clean = some(search.images, rows)
            mine = seeds if rows is None else [seeds[i] for i in rows.tolist()]
            moved = self._drawn(clean, bounds=bounds, seeds=[reseed(s, query) for s in mine])
            if self.epsilon is not None:
                moved = project(moved, clean, norm=self.norm, epsilon=self.epsilon, bounds=bounds)
            search.feel(search.look(moved, rows=rows).loss != some(before, rows), rows)
            images = put(images, rows, moved)
            rows = search.standing(rows)
            if not len(rows):
                break
        return images

    @cached_property
    def _drawn(self) -> ImagePerturbation:
        given = self.perturbation
        spec: dict[str, Any] = {"name": given} if isinstance(given, str) else dict(given)
        name = spec.pop("name", None)
        if name is None or spec.get("trials", 1) != 1:
            raise ConfigError(
                "perturbation: expected the name of a corruption or an occlusion, with queries in"
                f" place of trials, got {given}"
            )
        families = registry.families_of(name, _FAMILIES)
        if not families:
            known = [n for family in _FAMILIES for n in registry.names(family)]
            raise UnknownComponent(f"no corruption or occlusion {name!r}; {nearest(name, known)}")
        return registry.create(families[0], name, spec)

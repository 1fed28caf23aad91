"""Checks of attacks: those with a norm by closed forms, those with another dose by random draws."""

import dataclasses
import functools
import math
import typing
from collections.abc import Callable
from typing import Final

import torch

from palpate.attacks._nearest import MinimalAttack
from palpate.attacks._parametric import ParametricAttack
from palpate.attacks._projection import size
from palpate.attacks._prompting import PromptAttack
from palpate.attacks.base import AnyAttack, NormAttack
from palpate.contracts.oracles import batch, constant, expect, fewest, linear, probe, raises
from palpate.contracts.oracles import one as single
from palpate.contracts.prompted import prompted, with_questions
from palpate.errors import CapabilityError, ConfigError
from palpate.outcome import Status
from palpate.perturbation import Perturbation
from palpate.scoring import scores
from palpate.seeds import Seeds
from palpate.targets.base import Target
from palpate.types import Batch, Images

_DOSES: Final = {
    "severity": (0.0, 0.5, 1.0, 2.0, 5.0),
    "coverage": (0.0, 0.05, 0.1, 0.3, 1.0),
    "epsilon": (0.0, 0.01, 0.03, 0.1, 0.2),  # of an attack whose budget is no norm in pixels
}


def _of_images(check: Callable[[AnyAttack], None]) -> Callable[[Perturbation], None]:
    """The check, for attacks that search among images; others pass."""

    @functools.wraps(check)
    def checked(attack: Perturbation) -> None:
        if isinstance(attack, AnyAttack):
            check(attack)

    return checked


def check_only_the_question_changes(attack: Perturbation) -> None:
    """An attack on questions hands the images on, and is refused where there is none."""
    if not isinstance(attack, PromptAttack):
        return
    target, given = prompted(), with_questions(batch(3))
    with attack.applied(target, given, seeds=Seeds()) as world:
        expect(world.batch.images is given.images, f"{attack!r}: touched the images")
        moved = [new != old for new, old in zip(world.batch.prompts, given.prompts, strict=True)]  # pyright: ignore
        said = [status is Status.OK for status in world.status]
        expect(moved == said, f"{attack!r}: changed {moved}, and said {said}")
    refused = raises(CapabilityError, lambda: attack.check(probe()))
    expect(refused, f"{attack!r}: accepted a task without questions")


@_of_images
def check_budget_kept(attack: AnyAttack) -> None:
    """The difference stays within epsilon in every norm that the attack has.

    Of other budgets the frame is the judge, on every call; here something must have been spent.
    """
    given = batch(4)
    if not isinstance(attack, NormAttack):
        for one in _doses(attack)[1:]:
            images = one(probe(), given.images, given.references)
            still = (images == given.images).flatten(1).all(dim=1)
            expect(not bool(still.any()), f"{one!r}: moved nothing on a target with gradients")
        return
    for norm in norms(attack):
        for epsilon in (1.0, 4.0, 60.0) if norm == "l0" else (1e-3, 0.03, 0.5):
            one = dataclasses.replace(attack, epsilon=epsilon, norm=norm)
            moved = one(probe(), given.images, given.references) - given.images
            spent = float(size(moved.double(), norm).max())
            expect(spent <= epsilon + 1e-6, f"{one!r}: spent {spent:g}")
            expect(spent > 0, f"{one!r}: moved nothing on a target with gradients")


@_of_images
def check_zero_budget_is_identity(attack: AnyAttack) -> None:
    """A dose of 0 gives the images back."""
    given = batch(3)
    none = _dosed(attack, 0.0)
    images = none(probe(), given.images, given.references)
    expect(bool((images == given.images).all()), f"{none!r}: changed the images")


@_of_images
def check_optimum_of_linear_oracle(attack: AnyAttack) -> None:
    """On a linear model the logit moves by epsilon times the dual norm of the weights.

    The nearest input with another decision lies at |z| over that norm.
    """
    if isinstance(attack, MinimalAttack):
        _check_nearest_of_linear_oracle(attack)
    if isinstance(attack, ParametricAttack):
        _check_beats_random_draws(attack)
    if not isinstance(attack, NormAttack) or isinstance(attack, MinimalAttack):
        return
    target, given = linear(), batch(8, classes=2, margin=0.3)
    weight = target.module.get_parameter("weight").detach()
    right = target.logits(given.images).argmax(1) == given.references
    for norm in norms(attack):
        epsilon = 0.02 if norm == "linf" else 0.2
        one = dataclasses.replace(attack, epsilon=epsilon, norm=norm)
        images = _attacked(one, target, given)
        change = (target.logits(images) - target.logits(given.images)).detach()[:, 1]
        dual = _dual(weight, norm)
        signs = 1 - 2 * given.references
        reached = change * signs / (epsilon * dual)
        if attack.needs:
            # a random l2 start is turned towards the optimum only gradually; the sign step is exact
            asked, bar = right, 0.99 if norm == "linf" else 0.95
        else:  # a random point of the ball reaches 0 on average; who is broken asks no more
            asked, bar = target.logits(images).argmax(1) == given.references, 0.1
        least = min(reached[asked].tolist(), default=1.0)
        expect(least > bar, f"{one!r}: reached {least:.3f} of the optimum")


def _check_nearest_of_linear_oracle(attack: MinimalAttack) -> None:
    target, given = linear(), batch(8, classes=2, margin=0.3)
    weight = target.module.get_parameter("weight").detach()
    logits = target.logits(given.images).detach()
    right = logits.argmax(1) == given.references
    for norm in norms(attack):
        one = dataclasses.replace(attack, epsilon=None, norm=norm)
        images = one(target, given.images, given.references)
        wrong = target.logits(images).argmax(1) != given.references
        expect(bool(wrong.all()), f"{one!r}: left a sample right without a limit")
        gap = logits[:, 1] - logits[:, 0]
        if norm == "l0":
            least = fewest(given.images, weight, gap)[right]
        else:
            least = (gap.abs() / _dual(weight, norm))[right]
        spent = size(images - given.images, norm)
        ratio = float((spent[right] / least).max())
        bar = 2 if attack.needs else 3  # a few hundred queries only begin to find the direction
        expect(ratio <= bar, f"{one!r}: {ratio:.3f} times as far as the nearest")
        expect(float(spent[~right].max()) == 0.0, f"{one!r}: moved what was wrong already")


def _dual(weight: torch.Tensor, norm: str) -> float:
    """The largest w · x over all x whose norm is 1."""
    order = {"linf": 1, "l2": 2, "l1": math.inf}[norm]
    return float(torch.linalg.vector_norm(weight, order))


def _check_beats_random_draws(attack: ParametricAttack) -> None:
    """On the linear oracle a few random draws break nothing that the attack leaves right."""
    target, given = linear(), batch(16, classes=2, margin=0.1)
    drawing = torch.Generator().manual_seed(2)
    one = dataclasses.replace(attack, severity=5.0)
    labels = target.logits(given.images).detach().argmax(1)
    images = one(target, given.images, labels)
    stands = target.logits(images).detach().argmax(1) == labels
    expect(not bool(stands.all()), f"{one!r}: broke nothing on the linear oracle")
    for _ in range(20):
        drawn = 2 * torch.rand((len(images), one.count(images)), generator=drawing) - 1
        tried = one.transformed(given.images, drawn, target.bounds)
        broken = target.logits(tried).detach().argmax(1) != labels
        missed = int((broken & stands).sum())
        expect(missed == 0, f"{one!r}: a random draw breaks {missed} samples that it left right")


@_of_images
def check_larger_budget_never_weaker(attack: AnyAttack) -> None:
    """On the oracle, more budget never means more right answers."""
    target, given = linear(), batch(32, classes=2, margin=0.1)
    right: list[float] = []
    for one in _doses(attack):
        images = _attacked(one, target, given)
        score = scores(target.predict(given.with_images(images)), given.references)
        right.append(float(score.mean()))
    expect(right == sorted(right, reverse=True), f"{attack!r}: accuracy over epsilon is {right}")
    bar = 0.0 if attack.needs else 0.2
    if not isinstance(attack, NormAttack):
        bar = right[0] - 0.1  # what is physically possible need not break everything
    expect(right[-1] <= bar, f"{attack!r}: the largest dose leaves {right[-1]:.2f} right")


@_of_images
def check_no_gradient_is_said(attack: AnyAttack) -> None:
    """A target that cannot be attacked is never called robust."""
    given = batch(3)
    found = attack.search(constant(), given.images, given.references)
    expect(
        all(status is not Status.OK for status in found.status),
        f"{attack!r}: called a target without gradients attacked",
    )


@_of_images
def check_impossible_budget_refused(attack: AnyAttack) -> None:
    """A dose beyond what there is, or below 0, is an error of the user."""
    if isinstance(attack, NormAttack):
        wide = 1.5 if norms(attack)[0] == "linf" else -math.inf
    else:
        wide = math.inf if attack.dose == "epsilon" else 1.01 * _DOSES[attack.dose][-1]
    for dose in (wide, -0.1, math.nan):
        try:
            _dosed(attack, dose).check(probe())
        except ConfigError:
            continue
        expect(False, f"{attack!r}: accepted {attack.dose} {dose}")


def _attacked(attack: AnyAttack, target: Target, given: Batch) -> Images:
    """The attacked images; one at a time where they would share one change."""
    if not attack.shared:
        return attack(target, given.images, given.references)
    singles = (single(given, i) for i in range(len(given)))
    return torch.cat([attack(target, s.images, s.references) for s in singles])


def _dosed(attack: AnyAttack, dose: float) -> AnyAttack:
    return dataclasses.replace(attack, **{attack.dose: dose})


def _doses(attack: AnyAttack) -> list[AnyAttack]:
    """The attack at rising doses, the first 0; for the oracles' images."""
    if not isinstance(attack, NormAttack):
        return [_dosed(attack, dose) for dose in _DOSES[attack.dose]]
    pixels = batch(1).images.numel()
    unit = {"linf": 1.0, "l2": pixels**0.5, "l1": pixels, "l0": pixels}[attack.norm]
    doses = [dose * unit for dose in (0.0, 0.001, 0.005, 0.02, 0.1)]
    whole = "l0" in norms(attack)
    return [_dosed(attack, float(math.ceil(d)) if whole else d) for d in doses]


def norms(attack: NormAttack) -> tuple[str, ...]:
    """The norms that this attack has, from the type of its field."""
    return typing.get_args(typing.get_type_hints(type(attack))["norm"])

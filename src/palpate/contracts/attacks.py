"""Checks of attacks."""

import dataclasses
import typing

from palpate.attacks._projection import size
from palpate.attacks.base import Attack
from palpate.contracts.oracles import batch, constant, expect, linear, probe
from palpate.errors import ConfigError
from palpate.outcome import Status
from palpate.scoring import scores


def check_budget_kept(attack: Attack) -> None:
    """The difference stays within epsilon in every norm that the attack has."""
    given = batch(4)
    for norm in norms(attack):
        for epsilon in (1e-3, 0.03, 0.5):
            one = dataclasses.replace(attack, epsilon=epsilon, norm=norm)
            moved = one(probe(), given.images, given.references) - given.images
            spent = float(size(moved.double(), norm).max())
            expect(spent <= epsilon + 1e-6, f"{one!r}: spent {spent:g}")
            expect(spent > 0, f"{one!r}: moved nothing on a target with gradients")


def check_zero_budget_is_identity(attack: Attack) -> None:
    """Epsilon 0 gives the images back."""
    given = batch(3)
    images = dataclasses.replace(attack, epsilon=0.0)(probe(), given.images, given.references)
    expect(bool((images == given.images).all()), f"{attack!r}: epsilon 0 changed the images")


def check_optimum_of_linear_oracle(attack: Attack) -> None:
    """On a linear model the logit moves by epsilon times the dual norm of the weights."""
    target, given = linear(), batch(4, classes=2, margin=0.3)
    weight = target.module.get_parameter("weight").detach()
    for norm in norms(attack):
        epsilon = 0.02 if norm == "linf" else 0.2
        one = dataclasses.replace(attack, epsilon=epsilon, norm=norm)
        images = one(target, given.images, given.references)
        change = (target.logits(images) - target.logits(given.images)).detach()[:, 1]
        dual = float(weight.abs().sum() if norm == "linf" else weight.norm())
        signs = 1 - 2 * given.references
        reached = float((change * signs).min()) / (epsilon * dual)
        # a random l2 start is turned towards the optimum only gradually; the sign step is exact
        bar = 0.99 if norm == "linf" else 0.95
        expect(reached > bar, f"{one!r}: reached {reached:.3f} of the optimum")


def check_larger_budget_never_weaker(attack: Attack) -> None:
    """On the oracle, more budget never means more right answers."""
    target, given = linear(), batch(32, classes=2, margin=0.1)
    right: list[float] = []
    for epsilon in (0.0, 0.001, 0.005, 0.02, 0.1):
        one = dataclasses.replace(attack, epsilon=epsilon)
        images = one(target, given.images, given.references)
        score = scores(target.predict(given.with_images(images)), given.references)
        right.append(float(score.mean()))
    expect(right == sorted(right, reverse=True), f"{attack!r}: accuracy over epsilon is {right}")
    expect(right[-1] == 0.0, f"{attack!r}: a budget of 0.1 leaves {right[-1]:.2f} right")


def check_no_gradient_is_said(attack: Attack) -> None:
    """A target that cannot be attacked is never called robust."""
    given = batch(3)
    found = attack.search(constant(), given.images, given.references)
    expect(
        all(status is not Status.OK for status in found.status),
        f"{attack!r}: called a target without gradients attacked",
    )


def check_impossible_budget_refused(attack: Attack) -> None:
    """An epsilon beyond the bounds, or below 0, is an error of the user."""
    for epsilon in (1.5, -0.1, float("nan")):
        try:
            dataclasses.replace(attack, epsilon=epsilon, norm="linf").check(probe())
        except ConfigError:
            continue
        expect(False, f"{attack!r}: accepted epsilon {epsilon}")


def norms(attack: Attack) -> tuple[str, ...]:
    """The norms that this attack has, from the type of its field."""
    return typing.get_args(typing.get_type_hints(type(attack))["norm"])

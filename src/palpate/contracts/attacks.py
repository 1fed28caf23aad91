"""Checks of attacks."""

import dataclasses
import typing

from palpate.attacks._nearest import MinimalAttack
from palpate.attacks._projection import size
from palpate.attacks.base import AnyAttack
from palpate.contracts.oracles import batch, constant, expect, linear, probe
from palpate.errors import ConfigError
from palpate.outcome import Status
from palpate.scoring import scores


def check_budget_kept(attack: AnyAttack) -> None:
    """The difference stays within epsilon in every norm that the attack has."""
    given = batch(4)
    for norm in norms(attack):
        for epsilon in (1e-3, 0.03, 0.5):
            one = dataclasses.replace(attack, epsilon=epsilon, norm=norm)
            moved = one(probe(), given.images, given.references) - given.images
            spent = float(size(moved.double(), norm).max())
            expect(spent <= epsilon + 1e-6, f"{one!r}: spent {spent:g}")
            expect(spent > 0, f"{one!r}: moved nothing on a target with gradients")


def check_zero_budget_is_identity(attack: AnyAttack) -> None:
    """Epsilon 0 gives the images back."""
    given = batch(3)
    images = dataclasses.replace(attack, epsilon=0.0)(probe(), given.images, given.references)
    expect(bool((images == given.images).all()), f"{attack!r}: epsilon 0 changed the images")


def check_optimum_of_linear_oracle(attack: AnyAttack) -> None:
    """On a linear model the logit moves by epsilon times the dual norm of the weights.

    The nearest input with another decision lies at |z| over that norm.
    """
    if isinstance(attack, MinimalAttack):
        _check_nearest_of_linear_oracle(attack)
        return
    target, given = linear(), batch(8, classes=2, margin=0.3)
    weight = target.module.get_parameter("weight").detach()
    right = target.logits(given.images).argmax(1) == given.references
    for norm in norms(attack):
        epsilon = 0.02 if norm == "linf" else 0.2
        one = dataclasses.replace(attack, epsilon=epsilon, norm=norm)
        images = one(target, given.images, given.references)
        change = (target.logits(images) - target.logits(given.images)).detach()[:, 1]
        dual = float(weight.abs().sum() if norm == "linf" else weight.norm())
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
        dual = weight.abs().sum() if norm == "linf" else weight.norm()
        least = ((logits[:, 1] - logits[:, 0]).abs() / dual)[right]
        spent = size(images - given.images, norm)
        ratio = float((spent[right] / least).max())
        expect(ratio < 2, f"{one!r}: {ratio:.3f} times as far as the nearest")
        expect(float(spent[~right].max()) == 0.0, f"{one!r}: moved what was wrong already")


def check_larger_budget_never_weaker(attack: AnyAttack) -> None:
    """On the oracle, more budget never means more right answers."""
    target, given = linear(), batch(32, classes=2, margin=0.1)
    right: list[float] = []
    unit = 1 if attack.norm == "linf" else given.images[0].numel() ** 0.5
    for epsilon in (0.0, 0.001, 0.005, 0.02, 0.1):
        one = dataclasses.replace(attack, epsilon=epsilon * unit)
        images = one(target, given.images, given.references)
        score = scores(target.predict(given.with_images(images)), given.references)
        right.append(float(score.mean()))
    expect(right == sorted(right, reverse=True), f"{attack!r}: accuracy over epsilon is {right}")
    bar = 0.0 if attack.needs else 0.2
    expect(right[-1] <= bar, f"{attack!r}: a budget of 0.1 leaves {right[-1]:.2f} right")


def check_no_gradient_is_said(attack: AnyAttack) -> None:
    """A target that cannot be attacked is never called robust."""
    given = batch(3)
    found = attack.search(constant(), given.images, given.references)
    expect(
        all(status is not Status.OK for status in found.status),
        f"{attack!r}: called a target without gradients attacked",
    )


def check_impossible_budget_refused(attack: AnyAttack) -> None:
    """An epsilon beyond the bounds, or below 0, is an error of the user."""
    wide = {"linf": 1.5, "l2": float("-inf")}[norms(attack)[0]]
    for epsilon in (wide, -0.1, float("nan")):
        try:
            dataclasses.replace(attack, epsilon=epsilon).check(probe())
        except ConfigError:
            continue
        expect(False, f"{attack!r}: accepted epsilon {epsilon}")


def norms(attack: AnyAttack) -> tuple[str, ...]:
    """The norms that this attack has, from the type of its field."""
    return typing.get_args(typing.get_type_hints(type(attack))["norm"])

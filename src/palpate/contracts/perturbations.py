"""Checks of all four perturbation families."""

from typing import Any

import torch
from torch import Tensor

from palpate.contracts.oracles import batch, expect, one, probe, row_by_row
from palpate.contracts.prompted import needs_prompts, prompted, with_questions
from palpate.perturbation import Perturbation
from palpate.seeds import Seeds
from palpate.targets.base import Target
from palpate.types import Batch

_SEEDS = Seeds(campaign=5, cell="contract")


def check_same_seed_same_world(perturbation: Perturbation) -> None:
    """The same seeds give the same world, bit for bit."""
    expect(
        _same(_answer(perturbation, batch(3)), _answer(perturbation, batch(3))),
        f"{perturbation!r}: two runs with the same seeds differ",
    )


def check_batch_equals_singles(perturbation: Perturbation) -> None:
    """A batch gives what its samples give one by one, bit for bit where the model does."""
    whole = batch(4)
    asked = tuple(text for i in range(len(whole)) for text in _asked(perturbation, one(whole, i)))
    expect(
        _asked(perturbation, whole) == asked,
        f"{perturbation!r}: samples alone are asked other questions than in the batch",
    )
    together = _disturbed(perturbation, whole)
    alone = torch.cat([_disturbed(perturbation, one(whole, i)) for i in range(len(whole))])
    expect(
        torch.equal(together, alone),
        f"{perturbation!r}: samples alone differ from the batch by"
        f" {float((together - alone).abs().max()):g}",
    )


def check_order_does_not_matter(perturbation: Perturbation) -> None:
    """Random numbers hang on sample ids, not on positions."""
    whole = batch(3)
    turned = Batch(
        images=whole.images.flip(0),
        references=whole.references.flip(0),
        samples=whole.samples[::-1],
        cases=whole.cases[::-1],
        sites=whole.sites,
    )
    expect(
        bool(
            torch.isclose(
                _disturbed(perturbation, whole), _disturbed(perturbation, turned).flip(0), atol=1e-6
            ).all()
        ),
        f"{perturbation!r}: depends on the order of the samples",
    )


def check_leaves_target_as_it_was(perturbation: Perturbation) -> None:
    """Weights, gradients, flags and hooks are as before, also after an exception inside."""
    target, given = _met(perturbation, batch(2))
    before = _state(target)
    _answer(perturbation, batch(2), target)
    expect(_state(target) == before, f"{perturbation!r}: did not restore the target")
    try:
        with (
            _looked(perturbation, target).prepared(target, given) as enter,
            enter(_SEEDS) as world,
        ):
            world.target.predict(world.batch)
            raise KeyError("planned")
    except KeyError:
        pass
    expect(_state(target) == before, f"{perturbation!r}: did not restore after an exception")


def check_leaves_batch_as_it_was(perturbation: Perturbation) -> None:
    """The given images are never written to."""
    given = batch(2)
    copy = given.images.clone()
    _answer(perturbation, given)
    expect(torch.equal(given.images, copy), f"{perturbation!r}: wrote into the given images")


def check_stays_in_range(perturbation: Perturbation) -> None:
    """Disturbed images keep their shape and the legal range."""
    given = batch(4)
    images = _disturbed(perturbation, given)
    legal = (
        images.shape == given.images.shape and 0 <= float(images.min()) <= float(images.max()) <= 1
    )
    expect(legal, f"{perturbation!r}: left the legal range or the shape")


def check_trials_differ_or_are_one(perturbation: Perturbation) -> None:
    """Several trials are several draws."""
    if perturbation.repeats < 2:
        return
    notes = [_trial(perturbation, batch(2), trial) for trial in range(4)]
    expect(any(n != notes[0] for n in notes[1:]), f"{perturbation!r}: all trials are the same draw")


def _met(perturbation: Perturbation, given: Batch, *, exact: bool = False) -> tuple[Target, Batch]:
    """Who is asked what: questions where the perturbation has to do with them."""
    if needs_prompts(perturbation):
        return prompted(row_by_row=exact), with_questions(given)
    return (row_by_row() if exact else probe()), given


def _looked(perturbation: Perturbation, target: Target) -> Perturbation:
    """What comes of looking at some samples first, as in an audit; the same for every batch."""
    _, study = _met(perturbation, batch(4))
    return perturbation.fitted(target, study)


def _exactly(perturbation: Perturbation, given: Batch) -> Batch:
    # a search amplifies rounding that depends on the batch size, so it meets a model without any;
    # a fault needs the plain model, whose modules are called once per batch
    target, asked = _met(perturbation, given, exact="weights" not in perturbation.needs)
    looked = _looked(perturbation, target)
    with looked.prepared(target, asked) as enter, enter(_SEEDS) as world:
        return world.batch


def _disturbed(perturbation: Perturbation, given: Batch) -> Tensor:
    return _exactly(perturbation, given).images.clone()


def _asked(perturbation: Perturbation, given: Batch) -> tuple[str, ...]:
    return _exactly(perturbation, given).prompts or ()


def _answer(perturbation: Perturbation, given: Batch, target: Target | None = None) -> Tensor:
    own, asked = _met(perturbation, given)
    looked = _looked(perturbation, target or own)
    with looked.prepared(target or own, asked) as enter, enter(_SEEDS) as world:
        return world.target.predict(world.batch).logits.clone()


def _trial(perturbation: Perturbation, given: Batch, trial: int) -> Any:
    target, asked = _met(perturbation, given)
    looked = _looked(perturbation, target)
    with looked.prepared(target, asked) as enter, enter(_SEEDS.at(trial)) as world:
        return world.notes, world.batch.images.sum().item()


def _state(target: Target) -> list[Any]:
    module = target.module
    flags = [(p.requires_grad, p.grad is None) for p in module.parameters()]
    hooks = [
        len(m._forward_hooks) + len(m._forward_pre_hooks) + ("forward" in vars(m))
        for m in module.modules()
    ]
    return [target.digest(), flags, hooks, [m.training for m in module.modules()]]


def _same(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.view(torch.int32), b.view(torch.int32))

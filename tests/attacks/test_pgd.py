import pytest
import torch
from torch import nn

import palpate
from palpate.attacks.pgd import Pgd
from palpate.contracts.oracles import batch, constant, linear, probe, row_by_row
from palpate.errors import ConfigError
from palpate.outcome import Status
from palpate.scoring import scores

RECIPE = {"epsilon": 8 / 255, "step_size": 2 / 255, "steps": 10, "random_start": False}


def foolbox_pgd(attack, network, images, labels, **options):
    import foolbox

    model = foolbox.PyTorchModel(network, bounds=(0, 1), device="cpu")
    made = getattr(foolbox.attacks, attack)(
        steps=10, random_start=False, abs_stepsize=options["step"]
    )
    return made(model, images, labels, epsilons=options["epsilon"])[1]


def test_last_iterate_equals_torchattacks_and_foolbox_exactly(few):
    import torchattacks

    target, images, labels = few
    last = Pgd(**RECIPE).search(target, images, labels).last

    peer = torchattacks.PGD(few.network, eps=8 / 255, alpha=2 / 255, steps=10, random_start=False)
    assert torch.equal(last, peer(images, labels))
    assert torch.equal(
        last,
        foolbox_pgd("LinfPGD", few.network, images, labels, step=2 / 255, epsilon=8 / 255),
    )


def test_l2_agrees_with_torchattacks(few):
    import torchattacks

    target, images, labels = few
    ours = Pgd(norm="l2", epsilon=0.5, step_size=0.1, steps=10, random_start=False)
    last = ours.search(target, images, labels).last

    peer = torchattacks.PGDL2(few.network, eps=0.5, alpha=0.1, steps=10, random_start=False)
    assert torch.allclose(last, peer(images, labels), atol=1e-4)


def test_the_best_iterate_is_never_worse_than_the_last(few):
    target, images, labels = few
    found = Pgd(**{**RECIPE, "epsilon": 2 / 255}).search(target, images, labels)

    answer = [scores(target.predict(b), labels) for b in _batches(images, found)]

    assert bool((answer[0] <= answer[1]).all())


def test_more_restarts_never_help_the_defender(few):
    target, images, labels = few
    right = []
    for restarts in (1, 3):
        attack = Pgd(epsilon=1 / 255, steps=3, restarts=restarts)
        found = attack(target, images, labels)
        right.append(scores(target.predict(_batch(images, found)), labels))

    assert bool((right[1] <= right[0]).all())


def test_random_start_needs_a_real_draw_per_sample():
    attack = Pgd(epsilon=0.1, steps=1, step_size=1e-6)
    twice = batch(1).images.repeat(2, 1, 1, 1)

    found = attack.search(probe(), twice, torch.tensor([0, 0]), seeds=[1, 2]).last

    assert not torch.equal(found[0], found[1])
    assert float((found - twice).abs().max()) <= 0.1 + 1e-6


def test_one_logit_model_is_broken_not_called_robust():
    """attacks.md, finding 1: others move nothing here and report 100 % robust."""
    target, given = linear(), batch(32, classes=2, margin=0.1)
    clean = scores(target.predict(given), given.references).mean()

    found = Pgd(epsilon=0.1, steps=5).search(target, given.images, given.references)
    robust = scores(target.predict(given.with_images(found.images)), given.references).mean()

    assert clean > 0
    assert robust == 0
    assert set(found.status) == {Status.OK}


def test_user_gradients_and_flags_are_left_alone():
    target, given = probe(), batch(3)
    target.module.first.weight.requires_grad_(False)

    Pgd(steps=2)(target, given.images, given.references)

    assert all(p.grad is None for p in target.module.parameters())
    assert not target.module.first.weight.requires_grad
    assert target.module.second.weight.requires_grad


def test_detached_and_constant_models_could_not_be_attacked():
    class Detached(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = probe().module

        def forward(self, images):
            return self.inner(images).detach()

    given = batch(3)
    detached = palpate.wrap(Detached().eval(), task=probe().task)
    for target in (detached, constant()):
        found = Pgd(steps=2).search(target, given.images, given.references)
        assert set(found.status) == {Status.NO_GRADIENT}


LOSSES = ["ce", "bce", "dice", "dice_ce", "focal", "dice_focal", "segpgd", "cospgd", "jsd"]


@pytest.mark.parametrize("loss", [*LOSSES, "margin"])
def test_a_pixel_threshold_falls_exactly_where_the_budget_reaches(thresholds, loss):
    """The optimum flips every pixel within epsilon of the threshold, whatever the loss."""
    target, images, masks = thresholds

    last = Pgd(epsilon=0.3, steps=20, loss=loss).search(target, images, masks).last

    distance = (images[:, 0] - 0.5).abs()
    sure = (distance - 0.3).abs() > 1e-4
    if loss == "margin":  # stops working on a pixel that is wrong enough, 0.1 past the threshold
        sure &= (distance - 0.3).abs() > 0.06
    flipped = target.logits(last).argmax(1) != masks
    assert torch.equal(flipped[sure], (distance < 0.3)[sure])


def test_leaving_early_gives_exactly_the_same_robust_accuracy_for_less_work(few):
    target, images, labels = few
    found = {}
    for stop in (False, True):
        attack = Pgd(epsilon=2 / 255, steps=10, restarts=2, stop_at_success=stop)
        found[stop] = attack.search(target, images, labels)

    right = {k: scores(target.predict(_batch(images, f.images)), labels) for k, f in found.items()}
    last = scores(target.predict(_batch(images, found[True].last)), labels)
    assert torch.equal(right[True], right[False])
    assert 0 < float(right[True].mean()) < 1
    assert torch.equal(last <= 0, right[True] <= 0)  # who left keeps the point that broke it
    assert found[True].passes < 0.8 * found[False].passes


def test_samples_that_stay_are_attacked_as_if_nobody_had_left():
    target, given = row_by_row(), batch(6)
    stayed = {}
    for stop in (False, True):
        attack = Pgd(epsilon=0.03, steps=8, stop_at_success=stop)
        found = attack.search(target, given.images, given.references)
        still = scores(target.predict(given.with_images(found.images)), given.references) > 0
        stayed[stop] = found.last[still]

    assert 0 < len(stayed[True]) < 6
    assert torch.equal(stayed[True], stayed[False])


def test_settings_of_one_attack_share_their_random_start():
    plain = Pgd()
    other = Pgd(steps=3, stop_at_success=True, loss="margin", restarts=4)

    assert plain.seeds(7) == other.seeds(7)
    assert plain.seeds(7) != Pgd(norm="l2").seeds(7)
    assert plain.seeds(7) != plain.seeds(8)


def test_blended_steps_stay_in_the_ball():
    target, given = linear(), batch(8, classes=2, margin=0.1)
    attack = Pgd(epsilon=0.05, steps=10, update="blend")

    moved = attack(target, given.images, given.references) - given.images

    assert float(moved.abs().max()) <= 0.05 + 1e-6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"update": "blend", "norm": "l2"}, "update: expected 'add' for l2"),
        ({"restarts": 2, "random_start": False}, "random_start: true for several restarts"),
        ({"swap_arguments": True, "loss": "jsd"}, "swap_arguments: expected a loss of"),
    ],
)
def test_settings_that_contradict_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Pgd(**options)


def test_bounds_other_than_unit_are_respected():
    module = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).eval()
    target = palpate.wrap(
        module, task=palpate.Classification(("a", "b")), bounds=(-1000.0, 400.0), std=(500.0,)
    )
    images = torch.rand(4, 1, 4, 4) * 1400 - 1000

    found = Pgd(epsilon=30.0, steps=5)(target, images, torch.tensor([0, 1, 0, 1]))

    moved = (found - images).abs()
    assert 1 < float(moved.max()) <= 30.002
    assert -1000 <= float(found.min()) <= float(found.max()) <= 400


def _batch(images, found):
    return batch(len(images)).with_images(found)


def _batches(images, found):
    return [_batch(images, found.images), _batch(images, found.last)]

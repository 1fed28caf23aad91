import pytest
import torch

import palpate
from palpate.attacks._projection import size
from palpate.attacks.pgd import Pgd
from palpate.attacks.simba import Simba, _Vectors
from palpate.contracts.oracles import batch, constant, linear
from palpate.errors import ConfigError
from palpate.outcome import Status
from palpate.scoring import scores
from palpate.types import Prediction


def right(target, images, references):
    logits = target.logits(images).detach()
    return scores(Prediction(logits, target.task), references)


@pytest.mark.parametrize("basis", ["pixel", "dct"])
def test_vectors_are_an_orthonormal_basis(basis):
    images = torch.zeros((2, 3, 4, 6))
    attack = Simba(norm="l2", basis=basis, frequencies=1.0)
    vectors = _Vectors.of(attack, images, [4, 5])

    drawn = [vectors.at(torch.full((2,), k), None) for k in range(3 * 4 * 6)]
    for sample in range(2):
        matrix = torch.stack([v[sample].flatten() for v in drawn])
        assert torch.allclose(matrix @ matrix.T, torch.eye(len(matrix)), atol=1e-5)
    assert not torch.equal(drawn[0][0], drawn[0][1])  # each sample has an order of its own
    assert torch.equal(vectors.at(torch.tensor([72, 72]), None), drawn[0])


def test_low_frequencies_are_the_lowest():
    attack = Simba(norm="l2", basis="dct", frequencies=0.25)
    vectors = _Vectors.of(attack, torch.zeros((1, 1, 8, 8)), [0])
    assert vectors.order.shape == (1, 4)
    spectra = [torch.fft.rfft2(vectors.at(torch.tensor([k]), None)[0, 0]).abs() for k in range(4)]
    assert all(float(s[3:6].max()) < 0.5 * float(s.max()) for s in spectra)


def test_all_pixels_of_a_linear_model_reach_its_optimum():
    """With every pixel tried once at step ε, each has the better sign: the optimum in linf."""
    target, given = linear(), batch(4, classes=2, margin=0.3)
    labels = target.logits(given.images).argmax(1)
    weight = target.module.get_parameter("weight").detach()
    pixels = weight.numel()
    found = Simba(epsilon=0.001, queries=2 * pixels + 1).search(target, given.images, labels)

    change = (target.logits(found.images) - target.logits(given.images)).detach()[:, 1].abs()
    assert torch.allclose(change, 0.001 * weight.abs().sum().expand(4), rtol=1e-3)
    assert found.passes <= 4 * (2 * pixels + 1)


def test_steps_of_the_published_length_add_up_in_l2():
    """After k successes the change has the length √k · step, section 3.1."""
    target, given = linear(), batch(8, classes=2, margin=0.3)
    logits = target.logits(given.images).detach()
    far = logits[:, 1].abs().topk(2).indices  # none is broken on the way, and leaves
    images, labels = given.images[far], logits[far].argmax(1)
    attack = Simba(norm="l2", epsilon=1.0, step_size=0.001, queries=65)

    moved = attack(target, images, labels) - images

    successes = (moved != 0).flatten(1).sum(1)
    assert 32 <= successes.min() <= successes.max() <= 64
    assert torch.allclose(size(moved, "l2"), 0.001 * successes.sqrt(), rtol=1e-3)


@pytest.mark.parametrize("basis", ["pixel", "dct"])
def test_weaker_than_the_white_box_and_stronger_than_nothing(few, basis):
    target, images, labels = few
    attack = Simba(norm="l2", epsilon=1.0, basis=basis, queries=100)
    clean = right(target, images, labels).mean()
    blind = right(target, attack(target, images, labels), labels).mean()
    seeing = Pgd(norm="l2", epsilon=1.0, steps=5)(target, images, labels)

    assert right(target, seeing, labels).mean() <= blind < clean


def test_masks_and_volumes(thresholds):
    target, images, masks = thresholds
    found = Simba(epsilon=0.4, queries=100)(target, images, masks)
    assert float(right(target, found, masks).mean()) < float(right(target, images, masks).mean())

    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2 * 6**3, 2)).eval()
    volume = palpate.wrap(net, task=palpate.Classification(("a", "b")))
    cubes = torch.rand((2, 2, 6, 6, 6), generator=torch.Generator().manual_seed(1))
    moved = Simba(norm="l2", basis="dct", queries=9)(volume, cubes, torch.tensor([0, 1])) - cubes
    assert 0 < float(size(moved, "l2").max()) <= 2 / 255 + 1e-6


def test_a_target_that_never_answers_differently_is_not_robust():
    found = Simba(queries=10).search(constant(), batch(3).images, torch.tensor([1, 1, 1]))
    assert set(found.status) == {Status.NO_GRADIENT}


def test_bad_settings_are_refused():
    with pytest.raises(ConfigError, match=r"frequencies: expected a share in \(0, 1\], got 0"):
        Simba(frequencies=0.0)

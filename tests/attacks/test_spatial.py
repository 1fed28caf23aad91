import itertools
import math

import numpy as np
import pytest
import torch
from scipy import ndimage

import palpate
from palpate.attacks._parametric import Walk
from palpate.attacks.spatial import Spatial
from palpate.contracts.oracles import Linear
from palpate.errors import ConfigError
from palpate.evaluation import evaluate
from palpate.outcome import Verdict
from palpate.scoring import scores
from palpate.targets.base import Target
from palpate.types import Batch, Bounds, Prediction, Segmentation


def by_hand(image, parameters, attack):
    """Turn about the middle, then shift, by scipy: (height, width), 0 outside."""
    share = attack.severity / 5
    turn, across, down, larger = (share * float(p) for p in parameters)
    angle, size = math.radians(turn * attack.rotation), (1 + attack.scaling) ** -larger
    height, width = image.shape
    back = size * np.array(
        [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    )  # rows, columns
    shift = attack.translation * np.array([down * height, across * width])
    middle = (np.array([height, width]) - 1) / 2
    # scipy's "constant" cuts half a pixel outside, "grid-constant" fades as a bilinear read does
    return ndimage.affine_transform(
        image, back, offset=middle - back @ (middle + shift), order=1, mode="grid-constant"
    )


def test_moves_as_scipy_does():
    draw = torch.Generator().manual_seed(0)
    images = torch.rand((12, 1, 9, 12), generator=draw, dtype=torch.float64)
    parameters = 2 * torch.rand((12, 4), generator=draw, dtype=torch.float64) - 1
    attack = Spatial(severity=4.0, scaling=0.2)

    made = attack.transformed(images, parameters, Bounds())

    for row in range(12):
        assert np.allclose(
            made[row, 0].numpy(), by_hand(images[row, 0].numpy(), parameters[row], attack)
        )


def test_a_right_angle_and_a_whole_pixel_are_exact():
    images = torch.rand((1, 2, 10, 10)) - 0.5
    bounds = Bounds(-0.5, 0.5)
    quarter = Spatial(severity=5.0, rotation=90.0)
    turned = quarter.transformed(images, torch.tensor([[1.0, 0, 0, 0]]), bounds)
    assert torch.allclose(turned, images.rot90(-1, (2, 3)), atol=1e-5)

    shifted = quarter.transformed(images, torch.tensor([[0.0, 1.0, 0, 0]]), bounds)
    assert torch.allclose(shifted[..., 1:], images[..., :-1], atol=1e-5)
    assert torch.equal(shifted[..., 0], torch.full((1, 2, 10), -0.5))


@pytest.mark.parametrize("kind", ["rigid", "elastic"])
def test_slopes_are_right(kind):
    images = torch.rand((1, 1, 5, 6), generator=torch.Generator().manual_seed(1)).double()
    attack = Spatial(severity=3.0, kind=kind, scaling=0.1, spans=2)
    draw = torch.Generator().manual_seed(2)
    parameters = torch.rand((1, attack.count(images)), generator=draw, dtype=torch.float64) - 0.5

    assert torch.autograd.gradcheck(
        lambda p: attack.transformed(images, p, Bounds()), parameters.requires_grad_()
    )


def test_breaks_all_that_a_grid_of_scipy_breaks():
    draw = torch.Generator().manual_seed(3)
    weight = torch.randn((1, 5, 5), generator=draw)
    weight = torch.nn.functional.interpolate(weight[None], (12, 12), mode="bicubic")[0]
    blobs = torch.nn.functional.interpolate(torch.rand((8, 1, 4, 4), generator=draw), (12, 12))
    total = float((blobs * weight).flatten(1).sum(1).mean())
    target = palpate.wrap(
        Linear(weight, -total).eval(), task=palpate.Classification(("negative", "positive"))
    )
    labels = target.logits(blobs).detach().argmax(1)
    attack = Spatial(severity=1.5)
    found = attack(target, blobs, labels)
    stands = (target.logits(found).argmax(1) == labels).numpy()

    assert 0 < stands.sum() < 8
    axis = np.linspace(-1, 1, 5)
    for turn, across, down in itertools.product(np.linspace(-1, 1, 15), axis, axis):
        for row in np.flatnonzero(stands):
            moved = by_hand(blobs[row, 0].numpy(), (turn, across, down, 0.0), attack)
            z = float((moved * weight[0].numpy()).sum()) - total
            assert (z > 0) == bool(labels[row])


@pytest.fixture
def segmenter():
    """A threshold in each pixel: it turns with the picture, so no movement can make it wrong."""
    module = torch.nn.Conv2d(1, 2, kernel_size=1).eval()
    with torch.no_grad():
        module.weight.copy_(torch.tensor([0.0, 10.0]).reshape(2, 1, 1, 1))
        module.bias.copy_(torch.tensor([0.0, -5.0]))
    axis = torch.arange(32.0)
    centres = torch.tensor([[10.0, 20.0], [16.0, 12.0], [20.0, 22.0]])
    apart = (axis[None, :, None] - centres[:, 0, None, None]) ** 2 + (
        axis[None, None, :] - centres[:, 1, None, None]
    ) ** 2
    masks = (apart < 36).long()
    images = 0.2 + 0.6 * masks.unsqueeze(1).float()
    return Target(module, Segmentation(("background", "lesion"))), images, masks


@pytest.mark.parametrize("kind", ["rigid", "elastic"])
def test_a_model_that_moves_with_the_picture_keeps_its_score(segmenter, kind):
    target, images, masks = segmenter
    names = ("a", "b", "c")
    samples = Batch(images, masks, names, names, ("", "", ""))
    attack = Spatial(kind=kind, severity=5.0, angles=5, places=3, steps=5)

    outcomes = evaluate(target, [samples], perturbation=attack, gallery=3).outcomes

    # only the resampled border is left to argue about
    assert min(o.score for o in outcomes) > 0.94
    assert all(o.regions[0].surface > 0.99 for o in outcomes)
    found = attack(target, images, masks)
    still = scores(Prediction(target.logits(found).detach(), target.task), masks)
    assert float(still.mean()) < 0.9  # as it would be against the reference where it was


def test_masks_are_carried_and_verdicts_compare_moved_masks(segmenter):
    target, images, masks = segmenter
    names = ("a", "b", "c")
    samples = Batch(images, masks, names, names, ("", "", ""))
    attack = Spatial(severity=5.0, rotation=0.0, translation=0.125, places=3, steps=1)
    seeds = attack.seeds(0)

    with attack.applied(target, samples, seeds=seeds) as world:
        assert world.carry is not None
        assert world.last is None
        carried = world.carry(masks)
        # whole pixels: masks move exactly as the picture
        assert bool((carried == (world.batch.images[:, 0] > 0.5)).all())
        assert not bool((carried == masks).flatten(1).all(1).any())
    outcomes = evaluate(target, [samples], perturbation=attack, gallery=3)
    assert {o.verdict for o in outcomes.outcomes} == {Verdict.MASKED}
    assert {o.score for o in outcomes.outcomes} == {1.0}
    assert {o.wrong_pixels for o in outcomes.outcomes} == {0}


def test_a_model_that_knows_places_fails_and_is_judged_where_the_pixels_are():
    """It draws the same disk wherever the lesion is."""

    class Fixed(torch.nn.Module):
        def __init__(self, mask):
            super().__init__()
            self.planes = torch.nn.Parameter(torch.stack([-mask, mask]).float() * 4 - 2)

        def forward(self, images):
            return self.planes.expand(len(images), -1, -1, -1) + 0 * images

    axis = torch.arange(16.0) - 7.5
    mask = (axis[:, None] ** 2 + axis[None, :] ** 2 < 9).long()
    target = Target(Fixed(mask).eval(), Segmentation(("background", "lesion")))
    images = mask[None, None].float() * 0.5 + 0.25
    samples = Batch(images, mask[None], ("a",), ("a",), ("",))
    attack = Spatial(severity=5.0, rotation=0.0, translation=0.25, places=3, steps=1)

    (outcome,) = evaluate(target, [samples], perturbation=attack).outcomes

    moved = torch.zeros_like(mask)
    moved[4:, 4:] = mask[:-4, :-4]
    overlap = int((moved & mask).sum())
    assert outcome.score == pytest.approx(overlap / int(mask.sum()))


def test_planes_of_several_labels_and_volumes_move_slice_by_slice():
    task = Segmentation(("a", "b", "c"), exclusive=False)
    attack = Spatial(severity=5.0, rotation=90.0)
    target = Target(torch.nn.Conv3d(1, 3, 1).eval(), task)
    planes = torch.randint(0, 2, (2, 3, 4, 6, 6))
    quarter = torch.tensor([[1.0, 0, 0, 0]] * 2)

    assert torch.equal(attack.carried(planes, quarter, target), planes.rot90(-1, (3, 4)))
    volumes = torch.rand((2, 1, 4, 6, 6))
    turned = attack.transformed(volumes, quarter, Bounds())
    assert torch.allclose(turned, volumes.rot90(-1, (3, 4)), atol=1e-5)
    labels = torch.randint(0, 3, (2, 4, 6, 6))
    exclusive = Target(torch.nn.Conv3d(1, 3, 1).eval(), Segmentation(("a", "b", "c")))
    assert torch.equal(attack.carried(labels, quarter, exclusive), labels.rot90(-1, (2, 3)))


def test_bending_keeps_its_limit_and_folds_nothing():
    attack = Spatial(kind="elastic", severity=5.0, translation=0.1, spans=4)
    draw = torch.Generator().manual_seed(5)
    count = attack.count(torch.zeros(1, 1, 40, 40))
    corners = torch.randint(0, 2, (200, count), generator=draw).float() * 2 - 1

    places = attack._elastic(corners, 40, 40)
    home = attack._elastic(torch.zeros_like(corners), 40, 40)

    assert float((places - home).abs().max()) <= 4.0 + 1e-4
    down = places[:, 1:, :-1] - places[:, :-1, :-1]
    across = places[:, :-1, 1:] - places[:, :-1, :-1]
    area = across[..., 0] * down[..., 1] - across[..., 1] * down[..., 0]
    assert float(area.min()) > 0


def test_labels_do_not_move(few):
    target, images, labels = few
    names = tuple(str(i) for i in range(4))
    samples = Batch(images[:4], labels[:4], names, names, ("",) * 4)
    attack = Spatial(severity=5.0, angles=5, places=3, steps=2)

    with attack.applied(target, samples, seeds=attack.seeds(0)) as world:
        assert world.carry is None
        assert world.last is not None
    clean = (target.logits(images).argmax(1) == labels).float().mean()
    found = attack(target, images, labels)
    assert (target.logits(found).argmax(1) == labels).float().mean() < clean


def test_the_best_parameters_make_the_best_images(few):
    target, images, labels = few
    attack = Spatial(severity=2.0, angles=3, places=3, steps=3)
    search = Walk(target, images[:4], labels[:4], attack=attack)
    attack._run(search, range(4))

    made = attack.transformed(images[:4], search.parameters, target.bounds)
    assert torch.allclose(made, search.best, atol=1e-6)


def test_bad_settings_are_refused():
    with pytest.raises(ConfigError, match="rotation of 0 to 180"):
        Spatial(rotation=200.0)
    with pytest.raises(ConfigError, match="angles, places and spans of 1 or more, got 0, 5 and 4"):
        Spatial(angles=0)
    with pytest.raises(ConfigError, match=r"at most 0.48 \(no folding\), got 0.8"):
        Spatial(kind="elastic", translation=0.2)


def test_grid_of_the_paper():
    assert len(Spatial().points()) == 31 * 5 * 5 - 1
    assert Spatial(kind="elastic").points() == []
    assert len(Spatial(rotation=0.0, scaling=0.1, places=3).points()) == 26

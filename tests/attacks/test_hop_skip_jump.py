import pytest
import torch

import palpate
from palpate.attacks._projection import size
from palpate.attacks.fab import Fab
from palpate.attacks.hop_skip_jump import HopSkipJump
from palpate.attacks.minimal_epsilon import MinimalEpsilon
from palpate.contracts.oracles import batch, constant, linear
from palpate.errors import ConfigError
from palpate.outcome import Status
from palpate.scoring import scores
from palpate.types import Prediction


class Decisions(torch.nn.Module):
    """One-hot decisions of another model: neither gradients nor scores."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        self.asked = 0

    def forward(self, images):
        self.asked += len(images)
        with torch.no_grad():
            score = self.inner(images)
        return torch.cat([score <= 0, score > 0], 1).float() + 0 * images.flatten(1).sum(
            1, keepdim=True
        )


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_comes_near_to_the_closed_form_and_nearer_with_more_queries(norm):
    target, given = linear(), batch(8, classes=2, margin=0.3)
    logits = target.logits(given.images).detach()
    weight = target.module.get_parameter("weight").detach()
    dual = weight.abs().sum() if norm == "linf" else weight.norm()
    best = (logits[:, 1] / dual).abs()

    ratios = []
    for queries in (200, 1500):
        found = HopSkipJump(norm=norm, queries=queries)(target, given.images, logits.argmax(1))
        ratio = size(found - given.images, norm) / best
        assert ratio.min() >= 1 - 1e-4
        ratios.append(float(ratio.median()))
    assert ratios[1] < ratios[0]
    assert ratios[1] < {"l2": 1.1, "linf": 1.35}[norm]


def test_reads_decisions_alone():
    """One-hot outputs leave nothing else to read; the result is that of the scores."""
    target, given = linear(), batch(4, classes=2, margin=0.3)
    labels = target.logits(given.images).argmax(1)
    blind = palpate.wrap(Decisions(target.module).eval(), task=target.task)
    attack = HopSkipJump(norm="l2", queries=300)

    found = attack.search(blind, given.images, labels)

    assert torch.equal(found.images, attack(target, given.images, labels))
    assert set(found.status) == {Status.OK}
    assert found.passes == blind.module.asked <= 4 * 300


def test_not_weaker_than_foolbox_at_the_same_queries(cheap):
    """Median distance at no more queries, with 5 % for the draws."""
    import foolbox

    class Counting(torch.nn.Module):
        asked = 0

        def forward(self, images):
            self.asked += len(images)
            return target.logits(images)

    target, images, labels = cheap
    noise = torch.rand((40, *images.shape[1:]), generator=torch.Generator().manual_seed(0))
    common = target.logits(noise).argmax(1).mode().values
    # the peer starts from such noise alone, and fails where it is the sample's own class
    kept = (target.logits(images).argmax(1) == labels) & (labels != common)
    images, labels = images[kept][:8], labels[kept][:8]
    counting = Counting().eval()
    peer = foolbox.attacks.HopSkipJumpAttack(steps=5)
    torch.manual_seed(0)
    model = foolbox.PyTorchModel(counting, bounds=(0, 1), device="cpu")
    theirs = peer(model, images, labels, epsilons=None)[1]

    attack = HopSkipJump(norm="l2", queries=counting.asked // len(images))
    found = attack.search(target, images, labels)

    assert found.passes <= counting.asked
    assert bool((target.logits(found.images).argmax(1) != labels).all())
    ours, distance = size(found.images - images, "l2"), size(theirs - images, "l2")
    assert ours.median() <= 1.05 * distance.median()


def test_finds_a_start_where_noise_of_single_pixels_is_one_class(few):
    target, images, labels = few
    noise = torch.rand((40, *images.shape[1:]), generator=torch.Generator().manual_seed(0))
    always = target.logits(noise).argmax(1)
    assert len(set(always.tolist())) == 1
    same = (target.logits(images).argmax(1) == labels) & (labels == always[0])
    images, labels = images[same][:3], labels[same][:3]

    found = HopSkipJump(norm="l2", queries=60)(target, images, labels)

    assert bool((target.logits(found).argmax(1) != labels).all())


def test_the_white_box_comes_nearer(few):
    target, images, labels = few
    images, labels = images[:6], labels[:6]
    seeing = size(Fab(norm="l2", steps=10)(target, images, labels) - images, "l2")
    blind = HopSkipJump(norm="l2", queries=150)(target, images, labels)

    assert seeing.median() < size(blind - images, "l2").median()


def test_what_is_never_broken_is_said():
    found = HopSkipJump(queries=120).search(constant(), batch(3).images, torch.tensor([1, 1, 1]))

    assert set(found.status) == {Status.NO_GRADIENT}
    assert found.passes == 3 * 101  # the clean look and the starts


def test_masks_are_broken_below_a_bar(network):
    """No nearer than the white-box bisection, and nearer than where the walk began."""
    target, images, masks = (part[:3] if number else part for number, part in enumerate(network))
    first, later = (
        HopSkipJump(queries=queries, bar=0.4)(target, images, masks) for queries in (40, 500)
    )

    score = scores(Prediction(target.logits(later).detach(), target.task), masks)
    assert bool((score < 0.4).all())
    distance = size(later - images, "linf")
    assert distance.mean() < size(first - images, "linf").mean()
    seeing = MinimalEpsilon(bar=0.4, steps=10, searches=8)(target, images, masks)
    assert bool((size(seeing - images, "linf") < distance).all())


def test_several_labels_are_broken_below_a_bar(labelled):
    target, images, labels = labelled
    ratios = []
    for queries in (150, 1200):
        found = HopSkipJump(queries=queries)(target, images, labels)
        assert bool((labelled.wrong(found) > 0.5).all())
        ratios.append(size(found - images, "linf") / labelled.least("linf", 3))

    assert float(ratios[1].min()) >= 1 - 1e-4
    assert float(ratios[1].median()) < float(ratios[0].median())


def test_bad_settings_are_refused():
    with pytest.raises(ConfigError, match="samples: expected 1 or more, got 0"):
        HopSkipJump(samples=0)

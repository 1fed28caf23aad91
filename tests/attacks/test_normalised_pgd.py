import pytest
import torch
from monai.losses import DiceCELoss
from torch import nn

from palpate.attacks._dense_loss import plane_loss
from palpate.attacks.normalised_pgd import NormalisedPgd, study_loss
from palpate.contracts.oracles import batch, constant, probe
from palpate.errors import BudgetError, ConfigError
from palpate.evaluation import evaluate
from palpate.outcome import Status
from palpate.targets.base import Target
from palpate.types import Batch, Bounds, PromptedSegmentation

MEAN, STD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)


class Asked(nn.Module):
    """Two convolutions whose offset hangs on the prompt."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.last = nn.Conv2d(6, 1, 3, padding=1)
        self.word = nn.Embedding(8, 6)
        draw = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for tensor in self.parameters():
                tensor.copy_(0.4 * torch.randn(tensor.shape, generator=draw))

    def forward(self, images, tokens):
        hidden = self.first(images) * self.word(tokens[:, 0])[:, :, None, None]
        return self.last(hidden.tanh())


def tokenise(prompts):
    return torch.tensor([[len(p) % 8] for p in prompts])


def asked(bounds=(0.0, 1.0)):
    low, width = bounds[0], bounds[1] - bounds[0]
    return Target(
        Asked().eval(),
        PromptedSegmentation(),
        bounds=Bounds(*bounds),
        mean=tuple(low + m * width for m in MEAN),
        std=tuple(s * width for s in STD),
        tokenizer=tokenise,
    )


def given(count=3):
    draw = torch.Generator().manual_seed(8)
    images = torch.rand((count, 3, 12, 12), generator=draw)
    masks = (torch.rand((count, 1, 12, 12), generator=draw) > 0.7).long()
    names = tuple(f"s{i}" for i in range(count))
    return Batch(
        images,
        masks,
        names,
        names,
        ("",) * count,
        prompts=("polyp",) * count,
        wordings={"class": ("polyp",) * count, "size": ("small polyp",) * count},
    )


def by_hand(images, masks, prompts, epsilon, steps=40, step_size=2 / 255):
    """The study's loop, written out: batch of one, normalised tensors, monai's loss."""
    module, loss = Asked().eval(), DiceCELoss(lambda_dice=1.5, lambda_ce=1.0)
    mean, std = torch.tensor(MEAN).reshape(3, 1, 1), torch.tensor(STD).reshape(3, 1, 1)
    found = []
    for image, mask, prompt in zip(images, masks, prompts, strict=True):
        clean = ((image - mean) / std)[None]
        moved = clean.clone()
        for _ in range(steps):
            moved = moved.detach().requires_grad_()
            output = module(moved, tokenise([prompt])).sigmoid()
            loss(output, mask[None].float()).backward()
            step = epsilon if steps == 1 else step_size
            change = moved.detach() + step * moved.grad.sign() - clean
            moved = clean + change.clamp(-epsilon, epsilon)
        found.append((moved[0] * std + mean).clamp(0, 1))
    return torch.stack(found)


@pytest.mark.parametrize("epsilon", [0.01, 0.1, 0.5])
def test_equals_the_loop_written_out(epsilon):
    data = given()
    found = NormalisedPgd(epsilon=epsilon)(
        asked(), data.images, data.references, prompts=data.prompts
    )

    expected = by_hand(data.images, data.references, data.prompts, epsilon)
    assert torch.allclose(found, expected, atol=2e-6)


def test_one_step_is_the_fgsm_of_the_study():
    data = given()
    found = NormalisedPgd(epsilon=0.5, steps=1)(
        asked(), data.images, data.references, prompts=data.prompts
    )

    expected = by_hand(data.images, data.references, data.prompts, 0.5, steps=1)
    assert torch.allclose(found, expected, atol=1e-6)
    std = torch.tensor(STD).reshape(1, 3, 1, 1)
    spent = (found - data.images).abs() / std
    inside = (found > 0) & (found < 1)
    assert torch.allclose(spent[inside], torch.tensor(0.5), atol=1e-5)


def test_forty_steps_never_reach_half():
    """40 · 2/255 = 0.314: the study's largest budget is never spent."""
    data, std = given(), torch.tensor(STD).reshape(1, 3, 1, 1)
    attack = NormalisedPgd(epsilon=0.5)
    found = attack(asked(), data.images, data.references, prompts=data.prompts)

    spent = float(((found - data.images).abs() / std).max())
    assert spent == pytest.approx(80 / 255, abs=1e-4)
    other = NormalisedPgd(epsilon=0.4)(asked(), data.images, data.references, prompts=data.prompts)
    assert torch.equal(found, other)


@pytest.mark.parametrize("double", [True, False])
def test_the_loss_is_monais_on_sigmoid_outputs(double):
    draw = torch.Generator().manual_seed(1)
    logits = 3 * torch.randn((2, 1, 6, 6), generator=draw)
    masks = (torch.rand((2, 1, 6, 6), generator=draw) > 0.5).long()
    theirs = DiceCELoss(sigmoid=not double, lambda_dice=1.5, lambda_ce=1.0)
    shown = logits.sigmoid() if double else logits

    found = study_loss(logits, masks, exclusive=False, double=double)

    for i in range(2):
        expected = theirs(shown[i : i + 1], masks[i : i + 1].float())
        assert float(found[i]) == pytest.approx(float(expected), abs=1e-6)


def test_the_second_sigmoid_takes_the_pull_of_confident_pixels():
    """A confidently wrong pixel pulls less than an undecided one: what the defect does."""
    logits = torch.tensor([0.0, 2.0]).reshape(1, 1, 1, 2).requires_grad_()
    masks = torch.zeros((1, 1, 1, 2), dtype=torch.int64)

    def cross(double):
        dice = plane_loss("dice", logits, masks, exclusive=False, swap=False)
        loss = study_loss(logits, masks, exclusive=False, double=double) - 1.5 * dice
        return torch.autograd.grad(loss.sum(), logits)[0].flatten()

    undecided, confident = cross(False)
    assert confident > undecided
    undecided, confident = cross(True)
    assert confident < 0.6 * undecided


def test_iterates_may_leave_the_range_and_are_not_remembered():
    seen = []

    class Spy(Asked):
        def forward(self, images, tokens):
            seen.append((images * torch.tensor(STD)[:, None, None]).detach())
            return super().forward(images, tokens)

    data = given()
    target = asked().with_module(Spy())
    found = NormalisedPgd(epsilon=0.5).search(
        target, data.images, data.references, prompts=data.prompts
    )

    shown = torch.stack(seen) + torch.tensor(MEAN)[:, None, None]
    assert float(shown[2:-1].max()) > 1.05
    assert torch.equal(found.images, found.last)
    assert all(trace.rise > 0 and trace.claimed < 1 for trace in found.traces)
    assert 0 <= float(found.images.min()) <= float(found.images.max()) <= 1


def test_the_budget_is_that_of_every_channel():
    data = given()
    target, attack = asked(), NormalisedPgd(epsilon=0.1)
    search = attack._searching(target, data.images, data.references, None)
    std = torch.tensor(STD).reshape(1, 3, 1, 1)

    attack._check_budget(search, data.images + 0.1 * std)
    with pytest.raises(BudgetError, match=r"at most 0.1 of the normalised input, spent 0.11"):
        attack._check_budget(search, data.images + 0.11 * std)


def test_other_bounds_are_the_same_attack():
    data = given()
    small = NormalisedPgd()(asked(), data.images, data.references, prompts=data.prompts)
    large = NormalisedPgd()(
        asked((-1000.0, 400.0)),
        data.images * 1400 - 1000,
        data.references,
        prompts=data.prompts,
    )

    assert torch.allclose(large, small * 1400 - 1000, atol=0.02)


def test_the_attacker_may_ask_otherwise_than_the_audit():
    data, target = given(), asked()
    same = evaluate(target, [data], perturbation=NormalisedPgd(epsilon=0.3), gallery=3)
    other = evaluate(
        target, [data], perturbation=NormalisedPgd(epsilon=0.3, prompt="fixed:size"), gallery=3
    )

    assert [o.prompt for o in other.outcomes] == ["polyp"] * 3
    assert [o.score for o in same.outcomes] != [o.score for o in other.outcomes]
    by_size = by_hand(data.images, data.references, ("small polyp",) * 3, 0.3)
    spent = (by_size - data.images).flatten(1).norm(dim=1).tolist()
    assert [o.l2 for o in other.outcomes] == pytest.approx(spent, abs=1e-4)


def test_mistakes_are_named():
    with pytest.raises(ConfigError, match="prompt: expected 'same' for a task without prompts"):
        NormalisedPgd(prompt="random").check(probe())
    with pytest.raises(ConfigError, match="epsilon: expected 0 or more, got -1"):
        NormalisedPgd(epsilon=-1.0)
    with pytest.raises(ConfigError, match="steps: expected 1 or more, got 0"):
        NormalisedPgd(steps=0)


def test_a_target_without_gradients_is_said():
    data = batch(3)
    found = NormalisedPgd().search(constant(), data.images, data.references)

    assert set(found.status) == {Status.NO_GRADIENT}
    assert torch.equal(found.images, data.images)

"""The standard ensemble against the peer's members, and early leaving, on robust networks.

Two networks are trained adversarially on scikit-learn's digits (half a minute), so that at the
budgets here neither everything nor nothing is broken: a small one, on which much of the time is not
the model's, and a ResNet, on which nearly all is. Ratios are taken as in `attacks.py`.

    python benchmarks/ensemble.py [--rounds 1] [--quick] [--only leaving ensemble]
"""

import copy
import dataclasses
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

import palpate
from attacks import Row, classes, compare, main
from palpate.attacks._call import Found
from palpate.attacks.apgd import Apgd
from palpate.attacks.autoattack import Autoattack
from palpate.attacks.pgd import Pgd
from palpate.targets._laid_out import laid_out

BUDGET = 0.15
_WARM_UP = 0.25  # share of the epochs in which the budget grows


class Block(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, padding=1, bias=False),
            nn.BatchNorm2d(after),
        )
        self.short = nn.Sequential(
            nn.Conv2d(before, after, 1, stride=2, bias=False), nn.BatchNorm2d(after)
        )

    def forward(self, images: Tensor) -> Tensor:
        return functional.relu(self.body(images) + self.short(images))


def resnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        Block(16, 16),
        Block(16, 32),
        Block(32, 64),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def small() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 49, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


class Digits:
    """Images of 28 pixels, 1500 to train on and 297 to attack."""

    def __init__(self) -> None:
        from sklearn.datasets import load_digits

        raw = load_digits()
        images = torch.tensor(raw.images / 16, dtype=torch.float32).unsqueeze(1)
        images = functional.interpolate(images, size=(28, 28), mode="bilinear").clamp(0, 1)
        order = torch.randperm(len(images))
        self.fit, rest = order[:1500], order[1500:]
        self.all, self.known = images, torch.tensor(raw.target)
        self.images, self.labels = images[rest], self.known[rest]

    def trained(self, network: nn.Module, epochs: int, rate: float) -> nn.Module:
        """Trained on what two steps of PGD make of the images (Madry et al., arXiv 1706.06083)."""
        optimiser = torch.optim.Adam(network.parameters(), rate)
        steps = epochs * 15
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps)
        for epoch in range(epochs):
            budget = BUDGET * min(1, (epoch + 1) / (_WARM_UP * epochs))
            for rows in self.fit[torch.randperm(len(self.fit))].split(100):
                x, y = self.all[rows], self.known[rows]
                moved = x + budget * (2 * torch.rand_like(x) - 1)
                for _ in range(2):
                    point = moved.clamp(0, 1).requires_grad_()
                    loss = functional.cross_entropy(network(point), y)
                    (slope,) = torch.autograd.grad(loss, point)
                    moved = point.detach() + 0.6 * budget * slope.sign()
                    moved = x + (moved - x).clamp(-budget, budget)
                optimiser.zero_grad()
                functional.cross_entropy(network(moved.clamp(0, 1)), y).backward()
                optimiser.step()
                schedule.step()
        optimiser.zero_grad()
        return network.eval()


def networks(digits: Digits, *, quick: bool) -> dict[str, nn.Module]:
    few = 2 if quick else None
    return {
        "small network": digits.trained(small(), few or 40, 5e-3),
        "ResNet": digits.trained(resnet(), few or 15, 1e-2),
    }


def robust(network: nn.Module, labels: Tensor) -> Callable[[object], str]:
    @torch.no_grad()
    def say(found: object) -> str:
        assert isinstance(found, Tensor)
        right = network(found).argmax(1) == labels
        return f"robust accuracy {int(right.sum())}/{len(right)}"

    return say


def leaving(rounds: int, quick: bool) -> None:  # noqa: FBT001 - a flag of the command line
    """Early leaving where more and where less than half of the samples are broken."""
    digits = Digits()
    images, labels = digits.images[:128], digits.labels[:128]
    for name, network in networks(digits, quick=quick).items():
        target, robust_of = palpate.wrap(network, task=classes(10)), robust(network, labels)

        def say(found: object, robust_of: Callable[[object], str] = robust_of) -> str:
            assert isinstance(found, Found)
            return f"{robust_of(found.images)}; {found.passes} passes"

        for epsilon in (0.15, 0.18, 0.2, 0.25):
            for attack in (Pgd(epsilon=epsilon, steps=20), Apgd(epsilon=epsilon, steps=50)):
                rows = []
                for kind, stop in (("all stay", False), ("early leaving", True)):
                    one = dataclasses.replace(attack, stop_at_success=stop)
                    rows.append(Row(kind, partial(one.search, target, images, labels), say))
                title = f"{type(attack).__name__}-{attack.steps}, {name}, epsilon {epsilon}"
                compare(title, rows, rounds)


def ensemble(rounds: int, quick: bool) -> None:  # noqa: FBT001
    """The standard ensemble against torchattacks' members with the published settings."""
    import torchattacks

    digits = Digits()
    count, steps, queries = (8, 10, 100) if quick else (64, 100, 5000)
    images, labels = digits.images[:count], digits.labels[:count]
    options = {"norm": "Linf", "eps": BUDGET}
    ours = Autoattack(epsilon=BUDGET, steps=steps, queries=queries)
    for name, network in networks(digits, quick=quick).items():
        each = [
            torchattacks.APGD(network, steps=steps, **options),
            torchattacks.APGDT(network, steps=steps, n_classes=10, **options),
            torchattacks.FAB(
                network, steps=steps, n_classes=10, multi_targeted=True, n_restarts=1, **options
            ),
            torchattacks.Square(network, n_queries=queries, **options),
        ]
        members = torchattacks.MultiAttack(each)
        target, say = palpate.wrap(network, task=classes(10)), robust(network, labels)
        laid = target.with_module(laid_out(copy.deepcopy(network), channels_last=True))
        leave = dataclasses.replace(ours, stop_at_success=True)
        rows = [
            Row("torchattacks' members", partial(members, images, labels), say),
            Row("palpate", partial(ours, target, images, labels), say),
            Row("palpate, early leaving", partial(leave, target, images, labels), say),
            Row("palpate, channels_last", partial(ours, laid, images, labels), say),
        ]
        compare(f"standard ensemble, {name}, {count} images", rows, rounds)


PARTS = {"leaving": leaving, "ensemble": ensemble}

if __name__ == "__main__":
    main(__doc__, PARTS)

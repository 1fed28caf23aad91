"""What the curve of robust accuracy over epsilon costs: budgets one by one, packed, or by hand.

The rounds are those that shrink an interval to 1/512 or less; the share of samples within one
percent of what 13 rounds of plain bisection find is printed beside. PGD at eight budgets, which
gives eight points of the curve, takes turns with them. CPU time on one thread.

    python benchmarks/curve.py [--rounds 3] [--images 16]
"""

import argparse
from typing import NamedTuple

import torch
from torch import nn

import palpate
from attacks import Row, compare  # beside this file
from palpate import registry
from palpate.attacks._projection import size
from palpate.attacks.minimal_epsilon import MinimalEpsilon
from palpate.attacks.pgd import Pgd

STEPS = 20
ROUNDS = {1: 9, 3: 5, 7: 3}
CLOSE = 0.01
BUDGETS = [k / 255 for k in (0.25, 0.5, 1, 2, 3, 4, 6, 8)]


class Case(NamedTuple):
    """A network and the images that it gets right."""

    name: str
    target: object
    images: torch.Tensor
    labels: torch.Tensor

    @classmethod
    def of(cls, name, target, samples, most):
        batch = samples.batch(range(len(samples)))
        with torch.no_grad():
            right = target.logits(batch.images).argmax(1) == batch.references
        return cls(name, target, batch.images[right][:most], batch.references[right][:most])


def small(samples):
    """One convolution, fitted to the images themselves."""
    batch = samples.batch(range(len(samples)))
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 8, 5, stride=4, padding=2), nn.ReLU(), nn.Flatten(), nn.Linear(392, 2)
    )
    optimiser = torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(100):
        optimiser.zero_grad()
        nn.functional.cross_entropy(network(batch.images), batch.references).backward()
        optimiser.step()
    optimiser.zero_grad()
    return palpate.wrap(network.eval(), task=samples.task)


def resnet(samples):
    """The ResNet-18 of the demonstration."""
    weights = "src/palpate/data/resnet18_breastmnist.safetensors"
    arguments = {"channels": [16, 32, 64, 128]}
    made = registry.create(
        "targets", "timm", {"small_stem": True, "arguments": arguments, "weights": weights}
    )
    return made.load(task=samples.task, channels=1, bounds=samples.bounds)


def over(case, batch, attack):
    """Attack all images in batches of a size; the norms found, and the passes spent."""
    parts = zip(case.images.split(batch), case.labels.split(batch), strict=True)
    found = [attack.search(case.target, *part) for part in parts]
    moved = torch.cat([f.images for f in found]) - case.images
    return size(moved, "linf"), sum(f.passes for f in found) / len(case.images)


def spent(found, exact):
    distance, passes = found
    near = ((distance / exact - 1).abs() <= CLOSE).float().mean()
    return f"{passes:.0f} passes an image; {float(near):.0%} within {CLOSE:.0%}"


def separately(case, batch, *, leave):
    """PGD at each budget from the beginning; the passes of all of them."""
    attacks = [
        Pgd(epsilon=e, steps=STEPS, random_start=False, stop_at_success=leave) for e in BUDGETS
    ]
    return sum(over(case, batch, attack)[1] for attack in attacks)


def curve(case, exact, batch, rounds):
    rows = []
    for packed, searches in ROUNDS.items():
        attack = MinimalEpsilon(steps=STEPS, packed=packed, searches=searches)
        rows.append(
            Row(
                f"packed {packed}, {searches} rounds",
                lambda attack=attack: over(case, batch, attack),
                lambda found: spent(found, exact),
            )
        )
    for leave in (False, True):
        name = f"PGD at {len(BUDGETS)} budgets" + (", early leaving" if leave else "")
        rows.append(
            Row(
                name,
                lambda leave=leave: separately(case, batch, leave=leave),
                lambda passes: f"{passes:.0f} passes an image",
            )
        )
    compare(f"{case.name}, batches of {batch}", rows, rounds)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=16)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    samples = palpate.load_dataset("medmnist")
    print("| case | variant | CPU time / packed 1 | of it |")
    print("| --- | --- | --- | --- |")
    for name, make in (("one convolution, 28 px", small), ("ResNet-18, 28 px", resnet)):
        case = Case.of(name, make(samples), samples, asked.images)
        exact, _ = over(case, len(case.images), MinimalEpsilon(steps=STEPS, searches=13))
        for batch in (1, 4, asked.images):
            curve(case, exact, batch, asked.rounds)


if __name__ == "__main__":
    main()

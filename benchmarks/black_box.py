"""Searches without gradients against their peers at the same number of queries.

Square against torchattacks (robust accuracy, mean over draws), HopSkipJump against foolbox (median
distance), SimBA against ART (share broken within the budget). The network is one convolution fitted
to BreastMNIST's test images, so that draws are cheap and the differences are not chance.

    python benchmarks/black_box.py [--draws 30]
"""

import argparse
import statistics
import warnings

import torch
from torch import nn

import palpate
from palpate.attacks._projection import size
from palpate.attacks.art import Art
from palpate.attacks.hop_skip_jump import HopSkipJump
from palpate.attacks.nes import Nes
from palpate.attacks.simba import Simba
from palpate.attacks.square import Square

QUERIES = 150
GROUP = 10


def fitted():
    samples = palpate.load_dataset("medmnist")
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
    target = palpate.wrap(network.eval(), task=samples.task)
    right = network(batch.images).argmax(1) == batch.references
    return target, batch.images[right], batch.references[right]


class Counting(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network
        self.asked = 0

    def forward(self, images):
        self.asked += len(images)
        return self.network(images)


@torch.no_grad()
def still_right(target, images, labels):
    return float((target.logits(images).argmax(1) == labels).float().mean())


def mean_and_error(values):
    return f"{statistics.mean(values):.4f} ± {statistics.stdev(values) / len(values) ** 0.5:.4f}"


def peer_square(target, images, labels, setting):
    """In groups, each with its own seed: the peer moves one window for a whole batch."""
    import torchattacks

    norm, epsilon, rescale, draw = setting
    found = []
    for number, group in enumerate(torch.arange(len(images)).split(GROUP)):
        peer = torchattacks.Square(
            target.module,
            norm=norm.capitalize(),
            eps=epsilon,
            n_queries=QUERIES,
            resc_schedule=rescale,
            seed=1000 * draw + number,
        )
        found.append(peer(images[group], labels[group]))
    return still_right(target, torch.cat(found), labels)


def square(target, images, labels, draws):
    print(f"\nSquare, {QUERIES} queries, {len(images)} images, {draws} draws: robust accuracy\n")
    print("| norm | epsilon | schedule | palpate | torchattacks |")
    print("| --- | --- | --- | --- | --- |")
    for norm, epsilon in (("linf", 4 / 255), ("l2", 0.5)):
        for rescale in (True, False):
            ours, theirs = [], []
            for draw in range(draws):
                seeds = [1_000_003 * draw + i for i in range(len(images))]
                attack = Square(norm=norm, epsilon=epsilon, queries=QUERIES, rescale=rescale)
                ours.append(
                    still_right(target, attack(target, images, labels, seeds=seeds), labels)
                )
                theirs.append(peer_square(target, images, labels, (norm, epsilon, rescale, draw)))
            name = "rescaled" if rescale else "as published"
            row = (norm, f"{epsilon:.4f}", name, mean_and_error(ours), mean_and_error(theirs))
            print("|", " | ".join(row), "|", flush=True)


def hop_skip_jump(target, images, labels):
    import foolbox

    noise = torch.rand((200, *images.shape[1:]))
    common = target.logits(noise).argmax(1).mode().values
    kept = labels != common  # foolbox finds no start where noise is the sample's own class
    images, labels = images[kept][:32], labels[kept][:32]
    print(f"\nHopSkipJump, {len(images)} images: median distance at the same queries\n")
    print("| norm | queries | palpate | foolbox |")
    print("| --- | --- | --- | --- |")
    for norm in ("l2", "linf"):
        for steps in (2, 6, 12):
            counting = Counting(target.module).eval()
            peer = foolbox.attacks.HopSkipJumpAttack(steps=steps, constraint=norm)
            model = foolbox.PyTorchModel(counting, bounds=(0, 1), device="cpu")
            theirs = peer(model, images, labels, epsilons=None)[1]
            queries = counting.asked // len(images)
            ours = HopSkipJump(norm=norm, queries=queries)(target, images, labels)
            far = [float(size(found - images, norm).median()) for found in (ours, theirs)]
            print(f"| {norm} | {queries} | {far[0]:.4f} | {far[1]:.4f} |", flush=True)


def score_based(target, images, labels):
    images, labels = images[:40], labels[:40]
    budget, step = 1.0, 0.2
    print(f"\nScore-based, {len(images)} images, l2 within {budget}: share broken\n")
    print("| attack | queries | share |")
    print("| --- | --- | --- |")
    arguments = {"attack": "px", "order": "random", "max_iter": 100, "epsilon": step}
    spec = {"attack": "SimBA", "arguments": arguments, "outputs": "probabilities"}
    for name, queries, attack in (
        ("ART SimBA", "up to 200", Art(norm="l2", epsilon=None, **spec)),
        ("SimBA, same step", 200, Simba(norm="l2", epsilon=budget, queries=200, step_size=step)),
        ("SimBA", 200, Simba(norm="l2", epsilon=budget, queries=200)),
        ("SimBA, dct", 200, Simba(norm="l2", epsilon=budget, queries=200, basis="dct")),
        ("NES", 200, Nes(norm="l2", epsilon=budget, queries=200)),
        ("Square", 200, Square(norm="l2", epsilon=budget, queries=200, rescale=True)),
    ):
        found = attack(target, images, labels)
        wrong = target.logits(found).argmax(1) != labels
        inside = size(found - images, "l2") <= budget + 1e-6
        print(f"| {name} | {queries} | {float((wrong & inside).float().mean()):.3f} |", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--draws", type=int, default=30)
    draws = parser.parse_args().draws
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    target, images, labels = fitted()
    square(target, images, labels, draws)
    hop_skip_jump(target, images, labels)
    score_based(target, images, labels)


if __name__ == "__main__":
    main()

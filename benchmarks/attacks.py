"""PGD against the floor (a hand-written loop, input gradient only), torchattacks and foolbox.

Prints CPU-time ratios within one run: variants take turns, ratios are taken within a round, the
median over rounds is printed. One thread, since these machines are shared.

    python benchmarks/attacks.py [--rounds 3]
"""

import argparse
import statistics
import time
import warnings

import torch
from torch import nn
from torch.nn import functional

import palpate
from palpate.attacks.pgd import Pgd

EPSILON, STEP_SIZE, STEPS = 8 / 255, 2 / 255, 10


def resnet():
    import timm

    return timm.create_model("resnet18", num_classes=10).eval(), torch.rand(64, 3, 32, 32)


def vit():
    import timm

    network = timm.create_model(
        "vit_tiny_patch16_224", img_size=28, patch_size=4, depth=6, num_classes=10
    )
    return network.eval(), torch.rand(32, 3, 28, 28)


def floor(network, images, labels):
    wanted = [p for p in network.parameters() if p.requires_grad]
    for parameter in wanted:
        parameter.requires_grad_(False)
    moved = images.clone()
    for _ in range(STEPS):
        moved.requires_grad_()
        loss = functional.cross_entropy(network(moved), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, moved)
        moved = moved.detach() + STEP_SIZE * gradient.sign()
        moved = (images + (moved - images).clamp(-EPSILON, EPSILON)).clamp(0, 1)
    for parameter in wanted:
        parameter.requires_grad_(True)
    return moved


def ours(network, images, labels):
    task = palpate.Classification(tuple(str(i) for i in range(10)))
    attack = Pgd(epsilon=EPSILON, step_size=STEP_SIZE, steps=STEPS, random_start=False)
    return attack.search(palpate.wrap(network, task=task), images, labels).last


def torchattacks_pgd(network, images, labels):
    import torchattacks

    attack = torchattacks.PGD(
        network, eps=EPSILON, alpha=STEP_SIZE, steps=STEPS, random_start=False
    )
    return attack(images, labels)


def foolbox_pgd(network, images, labels):
    import foolbox

    model = foolbox.PyTorchModel(network, bounds=(0, 1), device="cpu")
    attack = foolbox.attacks.LinfPGD(steps=STEPS, abs_stepsize=STEP_SIZE, random_start=False)
    return attack(model, images, labels, epsilons=EPSILON)[1]


def measure(network: nn.Module, images, rounds: int):
    labels = torch.randint(0, 10, (len(images),))
    variants = {
        "floor": floor,
        "palpate": ours,
        "torchattacks": torchattacks_pgd,
        "foolbox": foolbox_pgd,
    }
    expected = floor(network, images, labels)
    ratios: dict[str, list[float]] = {name: [] for name in variants}
    equal = {}
    for _ in range(rounds):
        seconds = {}
        for name, variant in variants.items():
            start = time.process_time()
            found = variant(network, images, labels)
            seconds[name] = time.process_time() - start
            equal[name] = bool(torch.equal(found, expected))
        for name, spent in seconds.items():
            ratios[name].append(spent / seconds["floor"])
    return {name: (statistics.median(values), equal[name]) for name, values in ratios.items()}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    warnings.filterwarnings("ignore")
    torch.manual_seed(0)
    torch.set_num_threads(1)
    print("| network | variant | CPU time / floor | equal to the floor |")
    print("| --- | --- | --- | --- |")
    for name, make in (("ResNet-18, 64x3x32x32", resnet), ("ViT, 32x3x28x28", vit)):
        for variant, (ratio, equal) in measure(*make(), rounds).items():
            print(f"| {name} | {variant} | {ratio:.2f} | {'yes' if equal else 'no'} |", flush=True)


if __name__ == "__main__":
    main()

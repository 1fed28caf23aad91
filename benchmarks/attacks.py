"""Gradient attacks against a hand-written loop (the floor) and against the peers.

Prints CPU-time ratios within one run: variants take turns, ratios are taken within a round, the
median over rounds is printed. One thread, since these machines are shared.

    python benchmarks/attacks.py [--rounds 2] [--quick] [--only pgd sweep dense]

`--quick` takes few images and steps: it shows that everything runs, its ratios are not for print.
"""

import argparse
import copy
import dataclasses
import statistics
import time
import warnings
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

import palpate
from palpate.attacks.fgsm import Fgsm
from palpate.attacks.pgd import Pgd
from palpate.corruptions.gaussian_noise import GaussianNoise
from palpate.evaluation import evaluate
from palpate.targets._laid_out import laid_out
from palpate.targets._memo import Memo
from palpate.types import Batch, Segmentation

EPSILON, STEP_SIZE = 8 / 255, 2 / 255
SWEEP = (1 / 255, 2 / 255, 4 / 255, 8 / 255)


class Row(NamedTuple):
    """One variant: what it runs, and what is said of its last result."""

    name: str
    run: Callable[[], object]
    say: Callable[[object], str] = lambda _: ""


def compare(title: str, rows: list[Row], rounds: int) -> None:
    """The first row is the base of the ratios."""
    ratios: dict[str, list[float]] = {row.name: [] for row in rows}
    said: dict[str, str] = {}
    base = []
    for _ in range(rounds):
        seconds = {}
        for row in rows:
            start = time.process_time()
            found = row.run()
            seconds[row.name] = time.process_time() - start
            said[row.name] = row.say(found)
        base.append(seconds[rows[0].name])
        for name, spent in seconds.items():
            ratios[name].append(spent / base[-1])
    for row in rows:
        each = ratios[row.name]
        spread = f"{min(each):.2f} to {max(each):.2f}"
        note = f"{statistics.median(base):.2f} s" if row is rows[0] else spread
        told = "; ".join(filter(None, (note, said[row.name])))
        print(f"| {title} | {row.name} | {statistics.median(ratios[row.name]):.2f} | {told} |")


def floor(network: nn.Module, images: Tensor, labels: Tensor, steps: int) -> Tensor:
    """PGD by hand: the gradient of the input only, nothing measured."""
    wanted = [p for p in network.parameters() if p.requires_grad]
    for parameter in wanted:
        parameter.requires_grad_(False)
    moved = images.clone()
    for _ in range(steps):
        moved.requires_grad_()
        loss = functional.cross_entropy(network(moved), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, moved)
        moved = moved.detach() + STEP_SIZE * gradient.sign()
        moved = (images + (moved - images).clamp(-EPSILON, EPSILON)).clamp(0, 1)
    for parameter in wanted:
        parameter.requires_grad_(True)
    return moved


def classes(count: int) -> palpate.Classification:
    return palpate.Classification(tuple(map(str, range(count))))


def peers(network: nn.Module, images: Tensor, labels: Tensor, steps: int) -> dict[str, Callable]:
    def by_torchattacks():
        import torchattacks

        options = {"alpha": STEP_SIZE, "steps": steps, "random_start": False}
        return torchattacks.PGD(network, eps=EPSILON, **options)(images, labels)

    def by_foolbox():
        import foolbox

        model = foolbox.PyTorchModel(network, bounds=(0, 1), device="cpu")
        attack = foolbox.attacks.LinfPGD(steps=steps, abs_stepsize=STEP_SIZE, random_start=False)
        return attack(model, images, labels, epsilons=EPSILON)[1]

    def by_art():
        from art.attacks.evasion import ProjectedGradientDescentPyTorch as Attack
        from art.estimators.classification import PyTorchClassifier

        shape, loss = tuple(images.shape[1:]), nn.CrossEntropyLoss()
        model = PyTorchClassifier(network, loss, shape, 10, clip_values=(0, 1), device_type="cpu")
        options = {"max_iter": steps, "batch_size": len(images), "verbose": False}
        attack = Attack(model, eps=EPSILON, eps_step=STEP_SIZE, **options)
        return torch.from_numpy(attack.generate(images.numpy(), labels.numpy()))

    return {"torchattacks": by_torchattacks, "foolbox": by_foolbox, "ART": by_art}


def pgd(title: str, network: nn.Module, images: Tensor, *, rounds: int, steps: int) -> None:
    """PGD of one network: ours in every form, and the peers' as shipped."""
    network = network.eval()
    labels = torch.randint(0, 10, (len(images),))
    target = palpate.wrap(network, task=classes(10))
    laid = target.with_module(laid_out(copy.deepcopy(network), channels_last=True))
    attack = Pgd(epsilon=EPSILON, step_size=STEP_SIZE, steps=steps, random_start=False)
    rough = dataclasses.replace(attack, precision="bfloat16")
    expected = floor(network, images, labels, steps)

    def equal(found: object) -> str:
        assert isinstance(found, Tensor)
        return f"{float((found != expected).float().mean()):.2%} of values other than the floor's"

    def ours(which, one):
        return lambda: one.search(which, images, labels).last

    rows = [
        Row("floor", lambda: floor(network, images, labels, steps)),
        Row("palpate", ours(target, attack), equal),
        Row("palpate, channels_last", ours(laid, attack), equal),
        Row("palpate, bfloat16", ours(target, rough), equal),
        Row("palpate, bfloat16 and channels_last", ours(laid, rough), equal),
    ]
    rows += [Row(n, run, equal) for n, run in peers(network, images, labels, steps).items()]
    compare(title, rows, rounds)


def all_pgd(rounds: int, quick: bool) -> None:  # noqa: FBT001 - a flag of the command line
    import timm

    small = {"img_size": 28, "patch_size": 4, "depth": 6}
    steps = 3 if quick else 20
    for name, made, shape in (
        ("ResNet-18", {}, (128, 3, 28, 28)),
        ("ViT (192, 6 blocks)", small, (128, 3, 28, 28)),
        ("ResNet-18", {}, (16, 3, 224, 224)),
        ("ViT-tiny", {}, (16, 3, 224, 224)),
    ):
        known = "resnet18" if name == "ResNet-18" else "vit_tiny_patch16_224"
        network = timm.create_model(known, num_classes=10, **made)
        images = torch.rand((max(2, shape[0] // 8), *shape[1:]) if quick else shape)
        title = f"PGD-{steps}, {name}, {'x'.join(map(str, images.shape))}"
        pgd(title, network, images, rounds=rounds, steps=steps)


def batches_of(images: Tensor, labels: Tensor, size: int) -> list[Batch]:
    ids = tuple(f"s{i}" for i in range(len(images)))
    return [
        Batch(images[i : i + size], labels[i : i + size], part, part, ("",) * len(part))
        for i in range(0, len(images), size)
        for part in [ids[i : i + size]]
    ]


def sweep(rounds: int, quick: bool) -> None:  # noqa: FBT001
    """Cells of an audit that share the golden answers, and FGSM's gradient."""
    import timm

    network = timm.create_model("resnet18", num_classes=10).eval()
    count, size, steps = (8, 4, 3) if quick else (128, 32, 20)
    images = torch.rand(count, 3, 32, 32)
    batches = batches_of(images, torch.randint(0, 10, (count,)), size)
    target = palpate.wrap(network, task=classes(10))
    for title, cells in (
        ("FGSM, 4 epsilons", [Fgsm(epsilon=e) for e in SWEEP]),
        ("Gaussian noise, 5 severities", [GaussianNoise(severity=s) for s in range(1, 6)]),
        (f"PGD-{steps}, 4 epsilons", [Pgd(epsilon=e, steps=steps) for e in SWEEP]),
    ):

        def run(memo: Memo | None, cells=cells) -> object:
            asked = dataclasses.replace(target, memo=memo)
            # as text, in which NaN equals NaN and every digit shows
            return repr([evaluate(asked, batches, perturbation=c).outcomes for c in cells])

        apart = run(None)
        rows = [
            Row("cell by cell", lambda run=run: run(None)),
            Row("with memory", lambda run=run: run(Memo()), lambda f, a=apart: f"equal: {f == a}"),
        ]
        compare(title, rows, max(3, rounds))


def dense(rounds: int, quick: bool) -> None:  # noqa: FBT001
    """PGD on masks against the same loop by hand."""
    import segmentation_models_pytorch as smp

    network = smp.Unet("resnet34", encoder_weights=None, classes=2).eval()
    size, steps = (64, 3) if quick else (128, 20)
    images, masks = torch.rand(2, 3, size, size), torch.randint(0, 2, (2, size, size))
    target = palpate.wrap(network, task=Segmentation(("background", "lesion")))
    laid = target.with_module(laid_out(copy.deepcopy(network), channels_last=True))
    attack = Pgd(epsilon=EPSILON, step_size=STEP_SIZE, steps=steps, random_start=False)
    rough = dataclasses.replace(attack, precision="bfloat16")
    rows = [Row("floor", lambda: floor(network, images, masks, steps))]
    for name, which, one in (
        ("palpate", target, attack),
        ("palpate, channels_last", laid, attack),
        ("palpate, bfloat16 and channels_last", laid, rough),
    ):
        rows.append(Row(name, lambda which=which, one=one: one(which, images, masks)))
    compare(f"PGD-{steps}, U-Net/ResNet-34, 2x3x{size}x{size}", rows, rounds)


PARTS = {"sweep": sweep, "dense": dense, "pgd": all_pgd}


def main(description: str | None, parts: dict[str, Callable]) -> None:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", choices=tuple(parts), default=tuple(parts))
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    print("| case | variant | CPU time / first row | |\n| --- | --- | --- | --- |", flush=True)
    for name in given.only:
        torch.manual_seed(0)
        parts[name](1 if given.quick else given.rounds, given.quick)


if __name__ == "__main__":
    main(__doc__, PARTS)

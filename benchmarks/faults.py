"""Trials per second of weight bit flips: ours, deep copy, in-place flip, PyTorchFI.

    python benchmarks/faults.py [--trials 100] [--threads 1] [--only resnet]

All ways answer the same faults on the same images in the same run; times are process CPU seconds.
The ways that cost the same for every fault are timed on the first few and scaled. PyTorchFI has no
float32 bit flip: it is given one; it reaches convolutions only, so a fault elsewhere is timed as
one in its first convolution. Networks are untrained, with batch norms calibrated on the images,
but for the stride-4 ResNet, which is trained on scikit-learn's digits for a minute first.
The floor is the mean share of multiply-adds (convolutions and linear layers) from the faulty layer
on: nobody who re-runs the whole faulty layer can be faster than 1 / floor times a full forward.
"""

import argparse
import copy
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from palpate.faults import _bits
from palpate.faults._trace import Trace
from palpate.faults.weight_bit_flip import WeightBitFlip
from palpate.targets.base import Target
from palpate.types import Batch, Classification, Segmentation

PEER_TRIALS = 5
CHECKED = 40  # trials compared bit for bit with an in-place flip and a full forward


def resnet(stem: str) -> nn.Module:
    import timm

    net = timm.create_model("resnet18", num_classes=10)
    if stem == "small":
        net.conv1, net.maxpool = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()
    return net


def medmamba_tiny() -> nn.Module:
    from palpate.models.medmamba import medmamba

    return medmamba("tiny", num_classes=10)


def unet() -> nn.Module:
    import segmentation_models_pytorch as smp

    return smp.Unet("resnet34", encoder_weights=None, classes=2)


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "ResNet-18 small stem 32 px": (lambda: resnet("small"), (32, 3, 32, 32)),
    "ResNet-18 stride-4 stem 32 px, trained": (lambda: resnet("large"), (256, 3, 32, 32)),
    "ResNet-18 224 px": (lambda: resnet("large"), (4, 3, 224, 224)),
    "MedMamba-T 64 px": (medmamba_tiny, (8, 3, 64, 64)),
    "U-Net/ResNet-34 128 px": (unet, (4, 3, 128, 128)),
}


def calibrated(net: nn.Module, images: torch.Tensor) -> None:
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
            nn.init.ones_(module.weight)  # timm starts some at zero, which would mask every fault
    net.train()
    with torch.no_grad():
        net(images)


def trained(net: nn.Module, count: int) -> torch.Tensor:
    """Train on digits; returns images that were not trained on."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    labels = torch.tensor(digits.target)
    images = nn.functional.interpolate(grey, size=32, mode="bilinear").repeat(1, 3, 1, 1)
    order = torch.randperm(len(images))
    kept, held = order[:1400], order[1400:]
    step = torch.optim.AdamW(net.parameters(), 1e-3, weight_decay=0.01)
    net.train()
    for _ in range(7):
        for chosen in kept[torch.randperm(len(kept))].split(64):
            step.zero_grad()
            nn.functional.cross_entropy(net(images[chosen]), labels[chosen]).backward()
            step.step()
    with torch.no_grad():
        right = net.eval()(images[held]).argmax(dim=1) == labels[held]
    print(f"trained on digits: {right.float().mean():.3f} of {len(held)} held-out images right")
    return images[held[:count]]


def build(name: str) -> tuple[Target, Batch]:
    make, shape = CASES[name]
    torch.manual_seed(0)
    net, images = make(), torch.rand(shape)
    if name.endswith("trained"):
        images = trained(net, shape[0])
    else:
        calibrated(net, images)
    names = tuple(map(str, range(len(images))))
    dense = "smp" in type(net).__module__ or "segmentation" in type(net).__module__
    classes = tuple(map(str, range(2 if dense else 10)))
    task = Segmentation(classes) if dense else Classification(classes)
    references = torch.zeros(len(images), dtype=torch.long)
    batch = Batch(images, references, names, names, ("",) * len(names))
    return Target(net.eval().requires_grad_(False), task), batch


def ours(target: Target, batch: Batch, fault: WeightBitFlip) -> tuple[list[Any], list[Any]]:
    logits: list[Any] = []
    notes: list[Any] = []
    seeds = fault.seeds(0)
    with fault.prepared(target, batch) as enter:
        for trial in range(fault.trials):
            with enter(seeds.at(trial)) as world:
                logits.append(world.target.predict(world.batch).logits)
                notes.append(world.notes["sites"][0])
    return logits, notes


def flip(net: nn.Module, site: dict[str, Any]) -> None:
    stored = {**dict(net.named_parameters()), **dict(net.named_buffers())}[site["tensor"]]
    bits = stored.detach().view(_bits.format_named(site["format"]).view)
    bits[tuple(site["index"])] ^= torch.ones((), dtype=bits.dtype) << site["bit"]


def in_place(target: Target, batch: Batch, sites: list[Any]) -> list[Any]:
    logits = []
    for site in sites:
        flip(target.module, site)
        logits.append(target.predict(batch).logits)
        flip(target.module, site)
    return logits


def deep_copy(target: Target, batch: Batch, sites: list[Any]) -> list[Any]:
    logits = []
    for site in sites:
        other = target.with_module(copy.deepcopy(target.module))
        flip(other.module, site)
        logits.append(other.predict(batch).logits)
    return logits


def pytorchfi(target: Target, batch: Batch, sites: list[Any]) -> list[Any]:
    from pytorchfi.core import fault_injection

    shape = list(batch.images.shape)
    injector = fault_injection(target.module, shape[0], input_shape=shape[1:])
    convolutions = [n for n, m in target.module.named_modules() if isinstance(m, nn.Conv2d)]
    logits = []
    for site in sites:
        reached = site["layer"] in convolutions and site["tensor"].endswith(".weight")
        index = site["index"] if reached else [0, 0, 0, 0]

        def flipped(weight: torch.Tensor, where: Any, bit: int = site["bit"]) -> torch.Tensor:
            one = weight[where].detach().clone().reshape(1)
            _bits.flip(one, [0], [min(bit, 31)])
            return one[0]

        layer = convolutions.index(site["layer"]) if reached else 0
        k, *rest = ([i] for i in index)
        faulty = injector.declare_weight_fi(
            function=flipped, layer_num=[layer], k=k, dim1=rest[0], dim2=rest[1], dim3=rest[2]
        )
        logits.append(target.with_module(faulty).predict(batch).logits)
    return logits


def floor(target: Target, batch: Batch, sites: list[Any]) -> float:
    """Mean share of multiply-adds from the first call of the faulty layer on."""
    trace = Trace(target.module)
    with trace.recording():
        target.predict(replace(batch, images=batch.images[:1]))
    work = []
    for call in trace.calls:
        weight = getattr(call.module, "weight", None)
        heavy = isinstance(call.module, nn.Conv2d | nn.Linear) and weight is not None
        work.append(call.tensors[0][0].numel() * weight[0].numel() if heavy else 0)
    first: dict[str, int] = {}
    names = {module: name for name, module in target.module.named_modules()}
    for number, call in enumerate(trace.calls):
        first.setdefault(names[call.module], number)
    return sum(sum(work[first.get(s["layer"], 0) :]) / sum(work) for s in sites) / len(sites)


def timed(function: Callable[..., Any], *args: Any) -> tuple[float, Any]:
    begin = time.process_time()
    result = function(*args)
    return time.process_time() - begin, result


def measure(name: str, trials: int) -> None:
    try:
        target, batch = build(name)
    except ImportError as error:
        print(f"{name}: not measured, {error}")
        return
    target.predict(batch)
    for scope in ("model", "layer"):
        fault = WeightBitFlip(trials=trials, scope=scope)
        seconds, (logits, sites) = timed(ours, target, batch, fault)
        own = seconds / trials  # golden passes and restoration checks included
        few = sites[:PEER_TRIALS]
        peers = {"in-place + full forward": in_place, "deep copy": deep_copy}
        checked = sites[:CHECKED]
        full = in_place(target, batch, checked)
        same = sum(_bits.equal(a, b) for a, b in zip(logits, full, strict=False))
        print(
            f"{name}, {tuple(batch.images.shape)}, {trials} faults, scope {scope}: ours"
            f" {1 / own:.2f} trials/s, bit-identical {same}/{len(checked)},"
            f" floor {1 / floor(target, batch, sites):.1f}x"
        )
        for peer, function in {**peers, "PyTorchFI + bit flip": pytorchfi}.items():
            try:
                seconds, _ = timed(function, target, batch, few)
            except ImportError:
                print(f"    {peer:26} not installed")
                continue
            each = seconds / len(few)
            print(f"    {peer:26} {1 / each:7.2f} trials/s   ours {each / own:5.1f}x", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", default="")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    for name in CASES:
        if given.only.lower() in name.lower():
            measure(name, given.trials)


if __name__ == "__main__":
    main()

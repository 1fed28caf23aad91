"""Trials that a rate of silent errors takes: strata by bit field, sequential, against uniform.

    python benchmarks/fault_statistics.py [--margins 0.003 0.001 0.0005] [--images 32]

Draws single-bit faults in the bundled MedMamba-nano until the 95 % interval of the rate of silent
errors (share of images whose decision changes) is as narrow as asked; strata are sign, top exponent
bit, other exponent bits and mantissa. What uniform sampling takes is computed from the rate found
(Leveugle's formula), and a few trials of PyTorchFI are timed to say what that would take there.
"""

import argparse
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

import palpate
from faults import pytorchfi
from palpate.faults.weight_bit_flip import WeightBitFlip
from palpate.models.medmamba import medmamba
from palpate.sampling import Rate, Tally, until
from palpate.statistics.sample_size import faults_for
from palpate.targets.base import Target
from palpate.types import Batch


def bundled(images: int) -> tuple[Target, Batch]:
    dataset = palpate.load_dataset("medmnist", flag="breastmnist", split="test")
    batch = next(iter(dataset.batches(images)))
    net = medmamba("nano", num_classes=2, in_chans=batch.images.shape[1])
    folder = Path(palpate.__file__).parent / "data"
    net.load_state_dict(load_file(folder / "medmamba_nano_breastmnist.safetensors"))
    return Target(net.eval(), dataset.task, mean=(0.5,), std=(0.5,)), batch


def sequential(target: Target, batch: Batch, margin: float) -> tuple[Rate, dict[str, Tally]]:
    """Stop at the margin; trial k of `scope: field` belongs to stratum k modulo their number."""
    fault = WeightBitFlip(scope="field")
    seeds = fault.seeds(0)
    with fault.prepared(target, batch) as enter:
        golden = target.predict(batch)
        shares: dict[str, float] = {}
        for trial in range(8):
            with enter(seeds.at(trial)) as world:
                shares[world.notes["stratum"]] = world.notes["share"]
        drawn = [0] * len(shares)

        def draw(stratum: int, count: int) -> list[float]:
            values: list[float] = []
            for _ in range(count):
                trial = stratum + drawn[stratum] * len(shares)
                drawn[stratum] += 1
                with enter(seeds.at(trial)) as world:
                    faulty = world.target.predict(world.batch)
                silent = (faulty.decisions != golden.decisions) & faulty.finite
                values.append(float(silent.float().mean()))
            return values

        memory = memory_bits(target)
        sizes = [round(share * memory) for share in shares.values()]
        rate, tallies = until(draw, sizes, margin=margin)
    return rate, dict(zip(shares, tallies, strict=True))


def memory_bits(target: Target) -> int:
    tensors = target.module.state_dict().values()
    return sum(tensor.numel() * tensor.element_size() * 8 for tensor in tensors)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--margins", type=float, nargs="+", default=[0.003, 0.001, 0.0005])
    parser.add_argument("--images", type=int, default=32)
    given = parser.parse_args()
    torch.set_num_threads(1)
    target, batch = bundled(given.images)
    begin = time.process_time()
    site = {"layer": "", "tensor": "", "index": [0, 0, 0, 0], "bit": 3}
    pytorchfi(target, batch, [site] * 8)
    each = (time.process_time() - begin) / 8
    print(f"PyTorchFI: {each * 1000:.0f} ms a trial")
    for margin in given.margins:
        compare(target, batch, margin=margin, peer=each)


def compare(target: Target, batch: Batch, *, margin: float, peer: float) -> None:
    """Our trials and time for a margin, and what uniform sampling takes at the peer's pace."""
    begin = time.process_time()
    rate, tallies = sequential(target, batch, margin)
    seconds = time.process_time() - begin
    print(f"margin {margin}:")
    for name, tally in tallies.items():
        print(f"    {name:28} {tally.trials:6} trials, SDC {tally.total / tally.trials:.4f}")
    uniform = faults_for(margin, population=memory_bits(target), share=rate.value)
    print(
        f"    SDC rate {rate.value:.5f} [{rate.low:.5f}, {rate.high:.5f}] from {rate.trials} trials"
        f" in {seconds:.1f} CPU s; uniform sampling: {uniform} trials, {uniform / rate.trials:.1f}x"
    )
    print(
        f"    PyTorchFI, uniform: {uniform * peer:.0f} CPU s, {uniform * peer / seconds:.0f}x ours"
    )


if __name__ == "__main__":
    main()

"""Time and peak memory of the selective scan: each backend that is usable here, and a usual loop.

    python benchmarks/scan.py [--device cpu] [--threads 1] [--only 196]

The usual loop is what most reference code does: states of all steps at once, `x[:, :, i]` in every
step. Its backward pass is quadratic in the length (the gradient of `x[:, :, i]` is a full-size
tensor), so at 784 steps it is measured on an eighth of the channels and multiplied (marked ~), and
beyond that left out; the backend `reference`, a loop over `unbind`, is then what to compare with.
All ways run in turns on the same numbers, N = 16, one group. Time is the smallest of 2 to 20 runs:
process CPU time, or on a GPU wall time up to its last kernel. Peak memory is what one run adds to
the memory in use with its inputs ready, results included: resident memory of a forked process each
(Linux), or what torch's allocator handed out on a GPU. Errors are of the first sample's output,
against float64. On a GPU the traffic limit is the bytes of inputs and results over the bandwidth of
a copy in the same run: what a scan that touched everything once would need.
"""

import argparse
import math
import multiprocessing
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from palpate.scan import selective_scan
from palpate.scan.base import backends, load_backend, prepare

STATES = 16
Case = tuple[int, int, int]  # batch, channels, length
CASES: tuple[Case, ...] = (
    (32, 192, 49),
    (4, 192, 196),
    (16, 192, 196),
    (4, 192, 784),
    (2, 96, 3136),
    (1, 48, 12544),
)
LOOP, SHARED_FROM, SHARE, LOOP_UP_TO = "usual loop", 784, 8, 784
RUNS, SECONDS = (2, 20), 1.5  # of each way: at least and at most this often, about this long
GPU_BATCHES = 32

Given = dict[str, Tensor]


def arguments(case: Case, *, device: str) -> Given:
    batch, channels, length = case
    batch *= GPU_BATCHES if device == "cuda" else 1
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    given = {
        "u": draw(batch, channels, length),
        "delta": draw(batch, channels, length) - 3.6,
        "A": -torch.arange(1.0, STATES + 1).repeat(channels, 1),
        "B": draw(batch, 1, STATES, length),
        "C": draw(batch, 1, STATES, length),
        "D": torch.ones(channels),
    }
    return {name: tensor.to(device) for name, tensor in given.items()}


def usual_loop(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:  # noqa: N803
    given = prepare(u, delta, A, B, C, D, delta_bias=None, delta_softplus=True)
    decay = torch.exp(torch.einsum("bdl,dn->bdln", given.delta, given.A))
    entering = torch.einsum("bdl,bnl,bdl->bdln", given.delta, B[:, 0], u)
    state, outputs = torch.zeros_like(decay[:, :, 0]), []
    for i in range(u.shape[2]):
        state = decay[:, :, i] * state + entering[:, :, i]
        outputs.append(torch.einsum("bdn,bn->bd", state, C[:, 0, :, i]))
    return torch.stack(outputs, 2) + u * D[:, None]


def ways(device: str) -> dict[str, Callable[..., Tensor]]:
    one = torch.zeros(1, device=device)
    found = [name for name in backends() if load_backend(name).usable(one)]
    found.sort(key=lambda name: load_backend(name).PRIORITY)
    return {LOOP: usual_loop} | {n: partial(selective_scan, backend=n) for n in found}


def part(given: Given, share: int) -> Given:
    """The first 1/share of the channels."""
    channels = given["u"].shape[1] // share
    by_axis = {"u": 1, "delta": 1, "A": 0, "D": 0}
    return {
        name: tensor.narrow(by_axis[name], 0, channels).contiguous() if name in by_axis else tensor
        for name, tensor in given.items()
    }


def run(way: Callable[..., Tensor], given: Given, backward: bool) -> Any:  # noqa: FBT001
    if not backward:
        with torch.no_grad():
            return way(**given)
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in given.items()}
    y = way(**leaves)
    return y.detach(), torch.autograd.grad(y, list(leaves.values()), given["u"])


def clock(device: str) -> float:
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def times(jobs: dict[str, Callable[[], Any]], device: str) -> dict[str, float]:
    taken: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(RUNS[1]):
        for name, job in jobs.items():
            if turn < RUNS[0] or sum(taken[name]) < SECONDS:
                begin = clock(device)
                job()
                taken[name].append(clock(device) - begin)
    return {name: min(seconds) for name, seconds in taken.items()}


def resident(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def peak_here(way: Callable[..., Tensor], case: Case, share: int, backward: bool) -> float:  # noqa: FBT001
    """MiB that one run adds to this process, which was forked for it."""
    given = part(arguments(case, device="cpu"), share)
    run(way, {n: t[..., :2] if n in "u delta B C" else t for n, t in given.items()}, backward)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = resident("VmRSS")
    kept = run(way, given, backward)
    peak = resident("VmHWM") - before
    del kept
    return peak


def peak(way: Callable[..., Tensor], case: Case, device: str, share: int, backward: bool) -> float:  # noqa: FBT001
    if device == "cuda":
        given = part(arguments(case, device=device), share)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run(way, given, backward)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    if not Path("/proc/self/clear_refs").exists():
        return math.nan
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=lambda: there.send(peak_here(way, case, share, backward)))
    child.start()
    there.close()
    found = here.recv()
    child.join()
    return found


def bandwidth() -> float:
    """Bytes per second that a copy reads and writes on the GPU."""
    block = torch.empty(2**28, device="cuda")
    other = torch.empty_like(block)
    seconds = times({"copy": lambda: other.copy_(block)}, "cuda")["copy"]
    return 2 * 4 * block.numel() / seconds


def traffic(given: Given, backward: bool) -> int:  # noqa: FBT001
    """Bytes of inputs and results: u, delta, y, B, C; and all their gradients with y's read."""
    sequence, projection = given["u"].numel(), given["B"].numel()
    forward = 3 * sequence + 2 * projection
    return 4 * (forward + (5 * sequence + 4 * projection if backward else 0))


def share_of(name: str, case: Case, backward: bool) -> int | None:  # noqa: FBT001
    """Which share of the channels is measured; None for none."""
    if name != LOOP or not backward or case[2] < SHARED_FROM:
        return 1
    return SHARE if case[2] <= LOOP_UP_TO else None


def error(way: Callable[..., Tensor], given: Given) -> float:
    first = {n: t[:1] if n in "u delta B C" else t for n, t in given.items()}
    truth = selective_scan(**{n: t.double() for n, t in first.items()}, backend="reference")
    return float((way(**first) - truth).abs().max() / truth.abs().max())


def measure(case: Case, device: str, peaks: dict[tuple[Any, ...], float]) -> None:
    given = arguments(case, device=device)
    found: dict[tuple[str, bool], tuple[float, int]] = {}
    for backward in (False, True):
        shares = {name: share_of(name, case, backward) for name in ways(device)}
        jobs = {
            name: partial(run, ways(device)[name], part(given, share), backward)
            for name, share in shares.items()
            if share
        }
        for name, seconds in times(jobs, device).items():
            share = shares[name] or 1
            found[name, backward] = (seconds * share, share)
    size = " x ".join(map(str, given["u"].shape))
    for name, way in ways(device).items():
        cells = []
        for backward in (False, True):
            seconds, share = found.get((name, backward), (math.nan, 1))
            about = "~" if share > 1 else ""
            cells.append(f"{about}{seconds * 1e3:.2f}" if seconds == seconds else "-")
            for base in (LOOP, "reference"):
                ratio = found.get((base, backward), (math.nan, 1))[0] / seconds
                cells.append(f"{ratio:.1f}x" if ratio == ratio else "-")
            memory = peaks.get((case, name, backward), math.nan)
            cells.append(f"{about}{memory:.1f}" if memory == memory else "-")
        print(f"| {size} | {name} | {' | '.join(cells)} | {error(way, given):.0e} |", flush=True)
    if device == "cuda":
        speed = bandwidth()
        limits = [f"{traffic(given, backward) / speed * 1e3:.3f}" for backward in (False, True)]
        name = f"traffic limit at {speed / 1e12:.2f} TB/s"
        print(f"| {size} | {name} | {limits[0]} | | | | {limits[1]} | | | | |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", type=int, choices=sorted({case[2] for case in CASES}))
    given = parser.parse_args()
    cases = [case for case in CASES if given.only in (None, case[2])]
    torch.set_num_threads(1)  # a forked process cannot use the threads of its parent
    peaks = {
        (case, name, backward): peak(way, case, given.device, share, backward) * share
        for case in cases
        for name, way in ways(given.device).items()
        for backward in (False, True)
        if (share := share_of(name, case, backward))
    }
    torch.set_num_threads(given.threads)
    columns = ("time, ms", f"vs {LOOP}", "vs reference", "peak, MiB")
    both = [f"{kind} {column}" for kind in ("forward", "f+b") for column in columns]
    print(f"| batch x channels x length | way | {' | '.join(both)} | error |")
    print("|" + " --- |" * (len(both) + 3))
    for case in cases:
        measure(case, given.device, peaks)


if __name__ == "__main__":
    main()

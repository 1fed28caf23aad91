"""What a campaign costs beside its cells: overhead, two workers against one, a large plan.

    python benchmarks/scale.py [--cells 300] [--plan 100000] [--only overhead|speedup|plan] [--ray]

Overhead: seconds per cell of a drive from its first finished cell to its last, less the seconds of
the same evaluations called directly in the same run (the floor). Two workers against one: cells per
second between the first finished cell and the last, one thread each, start-up left out. Plan: an
audit of as many cells, their files made up, then planning, `status`, reading the record and a run
with nothing to do; memory is the peak of a process of its own. Bars: 5 ms local, 20 ms Ray, 1.85.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import orjson
import torch

from palpate import config
from palpate.campaign.crew import Crew
from palpate.campaign.drive import drive
from palpate.campaign.hand import Hand
from palpate.campaign.plan import Audit, make_plan, resolve
from palpate.campaign.standing import standing
from palpate.campaign.unit import Unit
from palpate.campaign.worker import Worker
from palpate.record import Record, read_cell

NETWORK = """
import torch
def make(classes=2, width=4):
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, width, 3, stride=2, padding=1), torch.nn.ReLU(),
        torch.nn.Conv2d(width, width, 3, stride=2, padding=1), torch.nn.ReLU(),
        torch.nn.Flatten(), torch.nn.Linear(49 * width, classes))
"""


def audit(folder: Path, *, cells: int, name: str, axis: str, limit: int, **spec: Any) -> Audit:
    """As many cells of one disturbance, its axis in equal steps, and one clean cell."""
    (folder / "network.py").write_text(NETWORK)
    width = spec.pop("width", 4)
    factory = f"{folder / 'network.py'}:make"
    target = {"name": "module", "factory": factory, "label": "small", "arguments": {"width": width}}
    data = {
        "dataset": {"name": "medmnist", "flag": "breastmnist"},
        "targets": [target],
        "perturbations": [{"name": name, axis: [i / cells / 10 for i in range(cells)], **spec}],
        "probes": False,
        "gallery": 0,
    }
    return resolve(config.parse(data), folder, limit)


def paced(built: Audit, store: Path, crew: Crew) -> tuple[float, int]:
    """Seconds from the first finished cell to the last, and how many cells those are."""
    moments: list[float] = []
    drive(built, store, crew=crew, watch=lambda _: moments.append(time.perf_counter()))
    moments = moments[crew.workers :]  # the start, and first cells that waited for a second worker
    return moments[-1] - moments[0], len(moments) - 1


def overhead(cells: int, crews: dict[str, Crew]) -> None:
    print(f"\noverhead per cell, {cells} cells of 2 samples")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        built = audit(folder, cells=cells, name="patch_drop", axis="coverage", limit=2)
        worker = Worker(built, folder / "floor")
        plan = make_plan(built)
        evaluate = [worker._evaluated(cell, None, 64) for cell in plan.cells[:20]]  # warm
        assert len(evaluate) == 20
        start = time.perf_counter()
        for cell in plan.cells:
            worker._evaluated(cell, None, 64)
        floor = (time.perf_counter() - start) / len(plan.cells)
        start = time.perf_counter()
        for cell in plan.cells:
            worker.run(cell)
        written = (time.perf_counter() - start) / len(plan.cells) - floor
        print(f"  {'evaluation (floor)':26} {1000 * floor:8.2f} ms")
        print(f"  {'writing, fsync included':26} {1000 * written:8.2f} ms")
        for label, crew in crews.items():
            seconds, count = paced(built, folder / label, crew)
            print(f"  {label:26} {1000 * (seconds / count - floor):8.2f} ms")


def speedup(cells: int, crews: dict[str, Callable[[int], Crew]]) -> None:
    print(f"\ntwo workers against one, {cells} equal cells, one thread each")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spec = {"steps": 10, "width": 16}
        built = audit(folder, cells=cells, name="pgd", axis="epsilon", limit=156, **spec)
        for label, crew in crews.items():
            rates: list[float] = []
            for workers in (1, 2):
                seconds, count = paced(built, folder / f"{label}{workers}", crew(workers))
                rates.append(count / seconds)
            one, two = rates
            print(f"  {label:8} {one:6.2f} -> {two:6.2f} cells/s, ratio {two / one:5.2f}")


def large(cells: int) -> None:
    """Each step in a process of its own, so that its peak of memory is its own."""
    print(f"\na plan of {cells} cells")
    with tempfile.TemporaryDirectory() as name:
        for step in STEPS:
            words = [sys.executable, __file__, "--step", step, name, str(cells)]
            done = subprocess.run(words, capture_output=True, text=True, check=True)
            said = json.loads(done.stdout.splitlines()[-1])
            wall, cpu = f"{said['seconds']:8.2f} s", f"{said['cpu']:8.2f} s of CPU"
            print(f"  {step:26} {wall} {cpu} {said['mib']:8.0f} MiB at most", flush=True)


def planned(folder: Path, cells: int) -> None:
    make_plan(large_audit(folder, cells))


def made_up(folder: Path, cells: int) -> None:
    """One cell for real, its files copied under the other names; not part of the table's sense."""
    built = large_audit(folder, cells)
    from palpate.campaign.store import open_run

    store = folder / "run"
    plan = make_plan(built)
    open_run(store, built, plan, command="benchmark")
    hand = Hand.of(built, store, plan, session="benchmark")
    hand.attempt(Unit(plan.cells[1].key))
    first = read_cell(store / "cells" / f"{plan.cells[1].key}.json")
    rows = (store / "samples" / f"{first.key}.parquet").read_bytes()
    option = orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2
    for cell in plan.cells:
        record = asdict(replace(first, key=cell.key, **cell.entry))
        (store / "cells" / f"{cell.key}.json").write_bytes(orjson.dumps(record, option=option))
        (store / "samples" / f"{cell.key}.parquet").write_bytes(rows)


def large_audit(folder: Path, cells: int) -> Audit:
    return audit(folder, cells=cells - 1, name="patch_drop", axis="coverage", limit=2)


STEPS: dict[str, Callable[[Path, int], Any]] = {
    "planning": planned,
    "(making up the files)": made_up,
    "status": lambda folder, _: standing(folder / "run"),
    "reading the record": lambda folder, _: Record.load(folder / "run"),
    "run with nothing to do": lambda folder, n: drive(large_audit(folder, n), folder / "run"),
}


def one_step(step: str, folder: str, cells: str) -> None:
    start, used = time.perf_counter(), time.process_time()
    STEPS[step](Path(folder), int(cells))
    seconds, cpu = time.perf_counter() - start, time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "cpu": cpu, "mib": peak}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=300)
    parser.add_argument("--plan", type=int, default=100_000)
    parser.add_argument("--only", choices=("overhead", "speedup", "plan"))
    parser.add_argument("--ray", action="store_true", help="measure Ray too")
    parser.add_argument("--step", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.step:
        one_step(*asked.step)
        return
    os.environ["PALPATE_NO_PLUGINS"] = "1"
    torch.set_num_threads(1)

    def on_ray(workers: int) -> Crew:
        return Crew(engine="ray", workers=workers, options={"cpus": "1"})

    both = {"ray": on_ray} if asked.ray else {}
    if asked.only in (None, "overhead"):
        rays = {label: crew(1) for label, crew in both.items()}
        overhead(asked.cells, {"local, this process": Crew(), **rays})
    if asked.only in (None, "speedup"):
        speedup(min(asked.cells, 120), {"local": lambda n: Crew(workers=n), **both})
    if asked.only in (None, "plan"):
        large(asked.plan)


if __name__ == "__main__":
    main()

"""Killed drivers, full and read-only disks, two runs at once: nothing lost, nothing twice."""

import json
import os
import subprocess
import textwrap
from collections import Counter
from pathlib import Path

import pytest

import palpate as palpate_package
from palpate import registry
from palpate.campaign.claims import claims
from palpate.campaign.crew import Crew
from palpate.campaign.drive import drive
from palpate.campaign.inventory import versions
from palpate.campaign.journal import entries
from palpate.campaign.standing import standing
from palpate.campaign.store import check_versions
from palpate.errors import StoreError
from palpate.record import Record, read_json, write_json

# every forward pass of a worker waits while a file lies there
HELD = """
    import time
    from pathlib import Path

    whole = make
    class Held(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner
        def forward(self, images):
            while images.diff().abs().mean() > 0.15 and Path(__file__).with_name("hold").exists():
                time.sleep(0.01)
            return self.inner(images)

    def make(**arguments):
        return Held(whole(**arguments))
"""
SLOW = ("--set", "perturbations=[{name: fgsm}, {name: gaussian_noise, severity: [4, 5]}]")
FEW = ("--limit", "12", "--set", "probes=false", *SLOW)


@pytest.fixture
def held(audit_file):
    """The audit file of a network that can be stopped; yields the file that stops it."""
    network = audit_file.with_name("network.py")
    network.write_text(network.read_text() + textwrap.dedent(HELD))
    hold = audit_file.with_name("hold")
    hold.write_text("")
    yield hold
    hold.unlink(missing_ok=True)


def ended_once(store, cells):
    """Whether the journals of all processes have each cell once."""
    ok = Counter(event["unit"] for event in entries(store) if event["event"] == "ok")
    return set(ok.values()) == {1} and len(ok) == cells


def status(palpate, store, *words):
    process = palpate("status", store, *words)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    return out


def test_status_of_a_live_run_and_of_one_whose_driver_was_killed(
    held, palpate, audit_file, tmp_path, until
):
    store = tmp_path / "run"
    driver = palpate("run", audit_file, "--store", store, *FEW, "--workers", 2)
    until(lambda: len(list(store.glob("cells/[!.]*"))) == 2 and len(standing(store).running) == 2)
    out = status(palpate, store)
    found = json.loads(status(palpate, store, "--json"))

    assert out.startswith("2 of 4 cells ok, 0 failed\nrunning: small gaussian_noise on ")
    assert "rest: about " in out
    assert out.endswith("with 2 at work\n")
    assert (found["total"], found["ok"], found["stale"]) == (4, 2, [])
    assert {one["perturbation"] for one in found["running"]} == {"gaussian_noise"}
    assert found["seconds_left"] >= 0

    driver.kill()
    driver.wait()
    held.unlink()  # its workers finish what they have in hand, and stop
    until(lambda: not claims(store))
    assert standing(store).ok == 4
    assert ended_once(store, 4)


def test_a_killed_run_shows_as_stale_and_the_next_takes_over(
    held, palpate, audit_file, tmp_path, until
):
    store = tmp_path / "run"
    driver = palpate("run", audit_file, "--store", store, *FEW)
    until(lambda: len(list(store.glob("cells/[!.]*"))) == 2 and standing(store).running)
    driver.kill()
    driver.wait()
    found = standing(store)

    assert (found.ok, found.running, len(found.stale)) == (2, (), 1)
    lines = list(found.lines())
    assert lines[1].startswith("stale: small gaussian_noise on ")
    assert lines[1].endswith("the next run takes it over")
    assert lines[-1] == "nothing runs; the same run command goes on"
    held.unlink()
    again = palpate("run", audit_file, "--store", store, *FEW)
    _, err = again.communicate(timeout=60)
    assert (again.returncode, err) == (0, "")
    assert ended_once(store, 4)
    assert claims(store) == []


def test_two_runs_at_once_share_the_cells(held, palpate, audit_file, tmp_path, until):
    store = tmp_path / "run"
    runs = [palpate("run", audit_file, "--store", store, *FEW) for _ in range(2)]
    until(lambda: len(claims(store)) == 2)  # both at work, each on a cell of its own
    held.unlink()
    ends = [run.communicate(timeout=90) for run in runs]

    assert [run.returncode for run in runs] == [0, 0], ends
    assert ended_once(store, 4)
    assert claims(store) == []


def test_what_killed_processes_had_half_written_is_removed_in_the_end(resolved, tmp_path):
    drive(resolved(), tmp_path / "run")
    next((tmp_path / "run" / "cells").iterdir()).unlink()
    old, fresh = (tmp_path / "run" / "samples" / f".{n}.parquet.1.tmp" for n in ("old", "fresh"))
    for path in (old, fresh):
        path.write_bytes(b"PAR1")
    os.utime(old, (0, 0))

    drive(resolved(), tmp_path / "run")

    assert not old.exists()
    assert fresh.exists()  # a peer may be writing it


def test_an_interrupted_run_frees_what_its_workers_held(resolved, tmp_path, contents):
    def stop(at):
        if at.done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        drive(resolved(), tmp_path / "run", crew=Crew(workers=2), watch=stop)
    assert claims(tmp_path / "run") == []
    drive(resolved(), tmp_path / "run")
    drive(resolved(), tmp_path / "whole")
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")


@pytest.fixture
def disk(tmp_path):
    """A small disk of its own; yields a function that mounts it anew with other options."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(options):
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"may not mount here: {done.stderr.strip()}")
        return place

    yield mount
    subprocess.run(["umount", str(place)], capture_output=True, check=False)


def test_a_full_disk_is_named_and_the_run_goes_on_where_there_is_room(
    disk, resolved, tmp_path, contents
):
    store = disk("size=64k") / "run"
    with pytest.raises(StoreError, match=r"cannot write .*: No space left on device"):
        drive(resolved(), store)
    found = standing(store)
    assert 0 < found.ok < found.total
    assert not list(store.rglob("*.tmp"))
    disk("remount,size=4m")
    drive(resolved(), store)
    drive(resolved(), tmp_path / "whole")
    assert contents(store) == contents(tmp_path / "whole")
    assert ended_once(store, 7)


def test_a_store_that_may_not_be_written_any_more_is_named(disk, resolved):
    """A read-only mount: permissions would not stop root."""
    store = disk("size=4m") / "run"

    def stop(at):
        if at.done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        drive(resolved(), store, watch=stop)
    disk("remount,ro")
    with pytest.raises(StoreError, match=r"cannot write .*: Read-only file system"):
        drive(resolved(), store)
    assert standing(store).ok == 3
    disk("remount,rw")
    assert all(cell.status == "ok" for cell in drive(resolved(), store).cells)


def test_damaged_files_are_run_again_whichever_they_are(resolved, tmp_path, contents):
    store = tmp_path / "run"
    drive(resolved(), store)
    whole = contents(store)
    cells = sorted((store / "cells").iterdir())
    cells[0].write_bytes(b"")
    cells[1].write_bytes(cells[1].read_bytes()[:-20])
    samples = store / "samples" / cells[2].with_suffix(".parquet").name
    samples.write_bytes(samples.read_bytes()[:-20])
    seen = []
    drive(resolved(), store, watch=seen.append)

    assert seen[-1].done == 7
    assert len(seen) == 4
    assert contents(store) == whole


def test_a_failed_cell_counts_as_failed_and_says_why(resolved, tmp_path, monkeypatch):
    cls = registry.load("corruptions", "gaussian_noise")

    def explode(self, images, bounds, seeds):
        raise ZeroDivisionError("planned failure")

    with monkeypatch.context() as broken:
        broken.setattr(cls, "_disturb", explode)
        drive(resolved(), tmp_path / "run")
    found = standing(tmp_path / "run")

    assert (found.ok, len(found.failed)) == (5, 2)
    assert "failed: small gaussian_noise: planned failure" in list(found.lines())


def test_too_little_memory_halves_the_batch_and_the_journal_has_it(
    resolved, tmp_path, monkeypatch, contents
):
    import torch

    cls = registry.load("corruptions", "gaussian_noise")
    whole = cls._disturb

    def needs(self, images, bounds, seeds):
        if len(images) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return whole(self, images, bounds, seeds)

    with monkeypatch.context() as small:
        small.setattr(cls, "_disturb", needs)
        drive(resolved("batch_size=12"), tmp_path / "run")
    events = list(entries(tmp_path / "run"))
    short = [e["batch_size"] for e in events if e["event"] == "out of memory"]

    assert short == [12, 6, 12, 6]
    assert Counter(e["batch_size"] for e in events if e["event"] == "ok") == {12: 5, 3: 2}
    record = Record.load(tmp_path / "run")
    assert all(cell.status == "ok" for cell in record.cells)
    drive(resolved("batch_size=3"), tmp_path / "three")
    assert contents(tmp_path / "run").keys() == contents(tmp_path / "three").keys()
    assert standing(tmp_path / "run").retries == 4


def test_a_sample_too_large_for_the_memory_fails_its_cell_only(resolved, tmp_path, monkeypatch):
    def never(self, images, bounds, seeds):
        raise MemoryError("no room")

    monkeypatch.setattr(registry.load("corruptions", "gaussian_noise"), "_disturb", never)
    record = drive(resolved(), tmp_path / "run")

    failed = [cell for cell in record.cells if cell.status == "error"]
    assert {(c.perturbation, c.error["type"]) for c in failed} == {
        ("gaussian_noise", "MemoryError")
    }


def test_other_versions_are_refused_not_mixed(resolved, tmp_path):
    store = tmp_path / "run"
    drive(resolved(), store)
    manifest = read_json(store / "run.json")
    write_json(store / "run.json", {**manifest, "inventory": "0" * 64, "palpate": "0.0.1"})
    drive(resolved(), store)  # nothing is left to do
    next((store / "cells").iterdir()).unlink()
    with pytest.raises(StoreError, match=r"begun with other components .*palpate 0\.0\.1\); here"):
        drive(resolved(), store)
    write_json(store / "run.json", {k: v for k, v in manifest.items() if k != "inventory"})
    check_versions(store)  # begun before there was an inventory


def test_a_worker_with_other_components_is_refused(resolved, tmp_path, monkeypatch):
    monkeypatch.setattr("palpate.campaign.engine.inventory", lambda: "0" * 64)
    with pytest.raises(StoreError, match="got others in a worker"):
        drive(resolved(), tmp_path / "run", crew=Crew(workers=2))


def test_the_inventory_has_every_component_and_every_stated_version(tmp_path):
    root = Path(palpate_package.__file__).parent
    found = versions(root)
    for family in registry.FAMILIES:
        assert {f"{family}/{name}" for name in registry.names(family)} <= found.keys()
        stated = {int(v) for key, all_ in found.items() if key.startswith(family) for v in all_}
        classes = {
            getattr(registry.load(family, name), "version", 1) for name in registry.names(family)
        }
        assert classes <= stated | {1}
    (tmp_path / "faults").mkdir()
    copy = tmp_path / "faults" / "weight_bit_flip.py"
    text = (root / "faults" / "weight_bit_flip.py").read_text()
    copy.write_text(text)
    before = versions(tmp_path)
    copy.write_text(text.replace("ClassVar[int] = ", "ClassVar[int] = 9"))
    assert versions(tmp_path) != before

"""Only one has a unit at a time; what the dead and the silent held is free again."""

import os
import subprocess
import sys
import threading
from dataclasses import replace

import pytest

from palpate.campaign import claims as module
from palpate.campaign.claims import Claims, claims
from palpate.campaign.owner import Owner
from palpate.errors import StoreError

ELSEWHERE = replace(Owner.here("other"), host="far", place="far/boot/ns")


def dead():
    """A process of this machine that has ended."""
    code = "from palpate.campaign.owner import Owner; import dataclasses, json;"
    code += "print(json.dumps(dataclasses.asdict(Owner.here('gone'))))"
    import json

    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return Owner(**json.loads(said.stdout))


def mine(folder, **fields):
    return Claims(folder, Owner.here("mine"), **fields)


def test_one_of_many_threads_gets_the_unit(tmp_path):
    got, start, leave = [], threading.Barrier(8), threading.Event()

    def try_it():
        start.wait()
        with mine(tmp_path).hold("unit") as held:
            got.append(held)
            leave.wait(1)

    threads = [threading.Thread(target=try_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(got) == [False] * 7 + [True]
    assert claims(tmp_path) == []


def test_a_claim_says_who_and_since_when(tmp_path):
    with mine(tmp_path).hold("unit"):
        (claim,) = claims(tmp_path)
        assert (claim.unit, claim.generation, claim.owner) == ("unit", 0, Owner.here("mine"))
        assert 0 < claim.began <= module.now(tmp_path)


def test_a_dead_process_is_taken_over_at_once(tmp_path):
    Claims(tmp_path, dead())._made(tmp_path / "claims" / "unit.0")
    with mine(tmp_path).hold("unit") as held:
        assert held
        assert [c.generation for c in claims(tmp_path)] == [0, 1]
    assert claims(tmp_path) == []


def test_the_same_number_of_another_process_is_not_mistaken(tmp_path):
    reborn = replace(Owner.here("old"), born="1")
    Claims(tmp_path, reborn)._made(tmp_path / "claims" / "unit.0")
    assert claims(tmp_path)[0].owner.has_ended()
    assert not Owner.here("x").has_ended()


def test_sweeping_leaves_the_living_alone(tmp_path):
    Claims(tmp_path, dead())._made(tmp_path / "claims" / "a.0")
    Claims(tmp_path, ELSEWHERE)._made(tmp_path / "claims" / "b.0")
    mine(tmp_path).sweep()

    assert [c.unit for c in claims(tmp_path)] == ["b"]


def test_a_silent_owner_elsewhere_is_watched_before_it_counts_as_gone(tmp_path):
    path = tmp_path / "claims" / "unit.0"
    Claims(tmp_path, ELSEWHERE)._made(path)
    moment = [0.0]
    watching = mine(tmp_path, clock=lambda: moment[0])

    def abandoned():
        return watching.abandoned(watching.holder("unit"))

    assert not abandoned()
    moment[0] = module.LAPSE - 1
    assert not abandoned()
    os.utime(path)  # a beat: the watch begins again
    assert not abandoned()
    moment[0] += module.LAPSE - 1
    assert not abandoned()
    moment[0] += 1
    assert abandoned()
    watching.clear(watching.holder("unit"))
    assert claims(tmp_path) == []


@pytest.mark.parametrize("jump", [-86400, 86400])
def test_a_clock_that_jumps_makes_no_living_owner_stale(tmp_path, jump):
    """The file system's clock is a day off from one beat to the next; the owner beats on."""
    path = tmp_path / "claims" / "unit.0"
    Claims(tmp_path, ELSEWHERE)._made(path)
    moment = [0.0]
    watching = mine(tmp_path, clock=lambda: moment[0])
    for beat in range(40):
        shifted = module.now(tmp_path) - (jump if beat < 20 else 0) * 1_000_000_000
        os.utime(path, ns=(shifted + beat, shifted + beat))
        assert not watching.abandoned(watching.holder("unit"))
        moment[0] += module.BEAT


def test_a_claim_that_is_old_already_is_watched_for_some_beats_only(tmp_path):
    path = tmp_path / "claims" / "unit.0"
    Claims(tmp_path, ELSEWHERE)._made(path)
    os.utime(path, (1, 1))
    moment = [0.0]
    watching = mine(tmp_path, clock=lambda: moment[0])

    assert not watching.abandoned(watching.holder("unit"))
    moment[0] = 4 * module.BEAT
    assert watching.abandoned(watching.holder("unit"))


def test_a_peer_that_cleared_first_loses_nothing(tmp_path):
    """Two see one abandoned claim; the slower one must not remove what came after it."""
    path = tmp_path / "claims" / "unit.0"
    Claims(tmp_path, ELSEWHERE)._made(path)
    slow, quick = mine(tmp_path), mine(tmp_path)
    seen = slow.holder("unit")
    quick.clear(quick.holder("unit"))
    with quick.hold("unit") as held:
        assert held
        os.utime(path, ns=(seen.touched + 1, seen.touched + 1))
        slow.clear(seen)
        assert [c.unit for c in claims(tmp_path)] == ["unit"]


def test_an_owner_beats(tmp_path, monkeypatch, until):
    monkeypatch.setattr(module, "BEAT", 0.01)
    with mine(tmp_path).hold("unit"):
        path = tmp_path / "claims" / "unit.0"
        before = path.stat().st_mtime_ns
        until(lambda: path.stat().st_mtime_ns > before)


def test_a_damaged_claim_is_nobodys_but_counts(tmp_path):
    (tmp_path / "claims").mkdir()
    (tmp_path / "claims" / "unit.0").write_bytes(b"{")
    with mine(tmp_path).hold("unit") as held:
        assert not held


def test_a_store_that_takes_no_claim_is_named(tmp_path):
    (tmp_path / "claims").write_text("a file in the way")
    with (
        pytest.raises(StoreError, match=r"cannot write .*unit\.0"),
        mine(tmp_path).hold("unit"),
    ):
        pass

"""Batches that are cut, because that was asked for or because memory has run out."""

import dataclasses
import json
import subprocess
import sys
import textwrap
import weakref

import pytest
import torch
from torch import nn

from palpate import registry
from palpate.attacks._call import Given
from palpate.attacks._memory import _Living, host_memory, out_of_memory, room
from palpate.attacks.autoattack import Autoattack
from palpate.attacks.fab import Fab
from palpate.attacks.foolbox import Foolbox
from palpate.attacks.hop_skip_jump import HopSkipJump
from palpate.attacks.joint import Joint
from palpate.attacks.minimal_epsilon import MinimalEpsilon
from palpate.attacks.pgd import Pgd
from palpate.attacks.random_search import RandomSearch
from palpate.attacks.spatial import Spatial
from palpate.attacks.square import Square
from palpate.attacks.transfer import Transfer
from palpate.attacks.universal import Universal
from palpate.contracts.oracles import batch, linear, probe
from palpate.contracts.prompted import prompted, with_questions
from palpate.errors import ConfigError, OutOfMemoryWarning
from palpate.seeds import Seeds

COUNT = 7
PGD = Pgd(epsilon=0.02, steps=4, restarts=2)


class Narrow(nn.Module):
    """A network with memory for a few samples."""

    def __init__(self, inner, most, error=torch.OutOfMemoryError):
        super().__init__()
        self.inner, self.most, self.error = inner, most, error
        self.met, self.before = [], None

    def forward(self, images, *tokens):
        if not self.met or self.met[-1] != len(images):
            self.met.append(len(images))
        if len(images) > self.most:
            assert self.before is None or self.before() is None, "the last try is still held"
            large = torch.zeros(10)
            self.before = weakref.ref(large)
            raise self.error("CUDA out of memory. Tried to allocate 2.00 GiB")
        return self.inner(images, *tokens)


def narrow(target, most, error=torch.OutOfMemoryError):
    return target.with_module(Narrow(target.module, most, error))


@pytest.fixture
def given():
    return batch(COUNT, classes=2)


def assert_same(found, whole):
    assert torch.equal(found.images, whole.images)
    assert torch.equal(found.last, whole.last)
    assert found.status == whole.status
    assert found.passes == whole.passes
    assert repr(found.traces) == repr(whole.traces)  # NaN is NaN


ATTACKS = [
    PGD,
    Autoattack(epsilon=0.02, steps=4, queries=10),
    RandomSearch(queries=5),
    Spatial(severity=2.0, angles=3, places=2, steps=3),
    Transfer(epsilon=0.02, attack={"name": "pgd", "steps": 3}),
]


@pytest.mark.parametrize("seeds", [None, [50 + 3 * i for i in range(COUNT)]], ids=["own", "given"])
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda a: type(a).__name__)
def test_a_batch_too_large_is_halved_and_gives_what_it_would_have_given(attack, seeds, given):
    whole = attack.search(linear(), given.images, given.references, seeds=seeds)
    target = narrow(linear(), 3)

    with pytest.warns(OutOfMemoryWarning) as said:
        found = attack.search(target, given.images, given.references, seeds=seeds)

    assert_same(found, whole)
    name = registry.name_of(attack)
    expected = f"{name}: 7 samples at once did not fit into memory, 2 did (batch_size=2)"
    assert [str(one.message) for one in said] == [expected]
    assert [size for size in target.module.met if size > 3] == [7, 4]
    assert all(parameter.requires_grad for parameter in target.module.parameters())
    asked = attack.search(linear(), given.images, given.references, seeds=seeds, batch_size=3)
    assert_same(asked, whole)


def test_a_single_sample_that_does_not_fit_raises_what_it_raised(given):
    target = narrow(linear(), 0)
    with pytest.raises(torch.OutOfMemoryError, match=r"2.00 GiB"):
        PGD(target, given.images, given.references)

    assert target.module.met == [7, 4, 2, 1]
    assert all(parameter.requires_grad for parameter in target.module.parameters())


def test_other_errors_are_raised_at_once(given):
    def refuses(words):
        return RuntimeError("expected another shape")

    target = narrow(linear(), 3, refuses)
    with pytest.raises(RuntimeError, match="another shape"):
        PGD(target, given.images, given.references)

    assert target.module.met == [7]


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (MemoryError("Unable to allocate 3 GiB for an array"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 12 bytes"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB)"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_counts_as_out_of_memory(error, is_memory):
    assert out_of_memory(error) is is_memory


def test_prompts_are_cut_with_their_images():
    asked = with_questions(batch(5))
    attack = Pgd(epsilon=0.05, steps=2)
    whole = attack.search(prompted(), asked.images, asked.references, prompts=asked.prompts)

    found = attack.search(
        prompted(), asked.images, asked.references, prompts=asked.prompts, batch_size=2
    )

    assert torch.allclose(found.images, whole.images, atol=1e-6)
    assert len(set(asked.prompts)) > 1


def test_masks_are_carried_part_by_part(thresholds):
    target, images, masks = thresholds
    attack = Spatial(severity=5.0, angles=3, places=3, steps=2)
    whole = attack.search(target, images, masks)

    found = attack.search(target, images, masks, batch_size=2)

    assert_same(found, whole)
    assert torch.equal(found.carry(masks), whole.carry(masks))
    assert not torch.equal(found.carry(masks), masks)
    none = dataclasses.replace(attack, severity=0.0).search(target, images, masks, batch_size=2)
    assert none.carry is None
    assert torch.equal(none.images, images)


@pytest.mark.parametrize(
    "attack",
    [
        Universal(epsilon=0.1, rounds=2),
        Transfer(epsilon=0.1, attack={"name": "universal", "rounds": 2}),
        Foolbox(together=True),
    ],
    ids=lambda a: type(a).__name__,
)
def test_samples_that_hang_on_each_other_are_not_cut(attack, given):
    target = narrow(linear(), 3)
    for size in (4, "auto"):
        with pytest.raises(ConfigError, match="batch_size: expected None .* hang on each other"):
            attack(target, given.images, given.references, batch_size=size)
    assert target.module.met == []
    if isinstance(attack, Foolbox):
        pytest.importorskip("foolbox")
    with pytest.raises(torch.OutOfMemoryError):
        attack(target, given.images, given.references)


def test_sizes_that_are_none_are_refused(given, monkeypatch):
    with pytest.raises(ConfigError, match="batch_size: expected 'auto', or 1 or more, got 0"):
        PGD(linear(), given.images, given.references, batch_size=0)
    monkeypatch.setattr("palpate.attacks._memory.host_memory", lambda: None)
    with pytest.raises(ConfigError, match="free memory of this cpu is not known, got 'auto'"):
        PGD(linear(), given.images, given.references, batch_size="auto")


def test_a_trained_network_decides_alike_in_parts(few):
    target, images, labels = few
    attack = Pgd(epsilon=2 / 255, steps=5)
    whole = attack(target, images, labels)

    for size in (5, "auto"):
        parts = attack(target, images, labels, batch_size=size)
        assert torch.equal(target.logits(parts).argmax(1), target.logits(whole).argmax(1))
        assert float((parts - whole).abs().mean()) < 1e-4  # a sign here and there
    assert bool((target.logits(whole).argmax(1) != labels).any())


def test_two_small_steps_tell_what_a_large_one_takes(few):
    target, images, labels = few

    def most(count, attack):
        with _Living() as living:
            attack.ask_once(Given(target, images[:count], labels[:count], None, list(range(count))))
        return living.most

    for attack in (PGD, Square()):
        one, two, many = (most(count, attack) for count in (1, 2, 16))
        assert one + 15 * (two - one) == pytest.approx(many, rel=0.02)
    # three passes at once, but a backward pass keeps what a forward drops
    assert most(4, PGD) > most(4, Square()) > most(4, HopSkipJump())
    alone, packed = (most(4, MinimalEpsilon(packed=n)) for n in (1, 3))
    assert packed == pytest.approx(3 * alone, rel=0.1)


def test_room_by_hand(monkeypatch):
    """A step takes 4,000 bytes and 10,000 for each sample; a search holds 24 images of 40 bytes."""
    monkeypatch.setattr("palpate.attacks._memory.host_memory", lambda: 1_000_000)

    def step(count):
        torch.zeros(1000 + 2500 * count)

    cpu, images = torch.device("cpu"), torch.zeros((5, 1, 5, 2))
    assert room(step, images, cpu) == int((0.4 * 1_000_000 - 4000) / (10_000 + 24 * 40)) == 36

    def large(count):
        if count > 1:
            raise MemoryError

    assert room(large, images, cpu) == 1
    monkeypatch.setattr("palpate.attacks._memory.host_memory", lambda: -5)
    assert room(step, images, cpu) == 1
    with pytest.raises(ConfigError, match="free memory of this meta is not known"):
        room(step, images, torch.device("meta"))


@pytest.mark.parametrize(
    ("attack", "each"),
    [
        (Pgd(epsilon=2 / 255, steps=3), 1),
        (Fab(epsilon=2 / 255, steps=2), 1),
        (Square(epsilon=2 / 255, queries=60), 3),
        (Transfer(epsilon=2 / 255, attack={"name": "pgd", "steps": 3}), 1),
    ],
    ids=lambda a: type(a).__name__,
)
def test_auto_fills_the_free_memory_and_no_more(attack, each, few, monkeypatch):
    """All tensors together stay below what is said to be free, where all at once do not."""
    target, images, labels = few
    sizes = []

    def met(module, given):
        sizes.append(len(given[0]))

    hook = target.module.register_forward_pre_hook(met)
    with _Living() as all_at_once:
        attack(target, images, labels)
    free = all_at_once.most
    monkeypatch.setattr("palpate.attacks._memory.host_memory", lambda: free)
    sizes.clear()
    with _Living() as living:
        attack(target, images, labels, batch_size="auto")
    hook.remove()

    assert sizes[:3] == [each, each, 2 * each]
    assert 3 <= sizes[3] < 16
    assert max(sizes) in (sizes[3], each * sizes[3])
    assert 0.2 * free < living.most < 0.6 * free


def test_an_audit_cuts_its_batches_itself(given):
    """The worker halves a batch, tries again and writes it down: nothing is swallowed here."""
    with (
        pytest.raises(torch.OutOfMemoryError),
        PGD.applied(narrow(linear(), 3), given, seeds=Seeds()),
    ):
        pass
    asked = with_questions(batch(4))
    target = prompted()
    with (
        pytest.raises(torch.OutOfMemoryError),
        Joint(steps=1).applied(narrow(target, 3), asked, seeds=Seeds()),
    ):
        pass


def test_no_samples_and_one(given):
    one = slice(0, 1)
    for size in (None, 5, "auto"):
        found = PGD(probe(), given.images[one], given.references[one], batch_size=size)
        assert torch.equal(found, PGD(probe(), given.images[one], given.references[one]))


MEMINFO = "MemTotal: 2000 kB\nMemFree: 10 kB\nMemAvailable: 1000 kB\n"


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/\n", {}, 1_024_000),
        ("0::/job\n", {"job": ("max", "5", "inactive_file 0")}, 1_024_000),
        ("0::/job/step\n", {"job": ("500000", "400000", "inactive_file 30000\nanon 1")}, 130_000),
        ("0::/job/step\n", {"job": ("9", "2", ""), "job/step": ("8", "2", "")}, 6),
        ("0::/\n", {".": ("700", "100", "inactive_file 10\n")}, 610),
        ("4:memory:/job\n0::/\n", {"memory/job": ("800", "100", "total_inactive_file 1")}, 701),
        ("4:cpu,memory:/j\n", {"memory/.": ("800", "1", ""), "j": ("3", "1", "")}, 799),
        ("4:cpuset:/j\n", {"cpuset/j": ("3", "1", ""), "memory/j": ("3", "1", "")}, 1_024_000),
    ],
)
def test_free_memory_of_this_machine_and_of_its_groups(tmp_path, groups, files, expected):
    assert host_memory(tmp_path) is None
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "meminfo").write_text(MEMINFO)
    (tmp_path / "proc" / "self" / "cgroup").write_text(groups)
    for folder, contents in files.items():
        at = tmp_path / "sys" / "fs" / "cgroup" / folder
        at.mkdir(parents=True, exist_ok=True)
        first = folder.startswith("memory")
        names = (
            ("memory.limit_in_bytes", "memory.usage_in_bytes")
            if first
            else ("memory.max", "memory.current")
        )
        for name, content in zip((*names, "memory.stat"), contents, strict=True):
            (at / name).write_text(content)

    assert host_memory(tmp_path) == expected


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a limit that Linux keeps")
def test_memory_that_really_runs_out(tmp_path):
    """A process that may take 100 MB more attacks what needs thrice as much at once."""
    script = tmp_path / "limited.py"
    script.write_text(
        textwrap.dedent(
            """
            import json, resource, warnings
            import torch
            from torch import nn
            from palpate import Classification, wrap
            from palpate.attacks.pgd import Pgd

            torch.set_num_threads(1)

            class Wide(nn.Module):
                def __init__(self):
                    super().__init__()
                    self.scale = nn.Parameter(torch.ones(500, 1))

                def forward(self, images):
                    flat = images.flatten(1).unsqueeze(1)
                    return (flat * self.scale).sin().sum(dim=(1, 2)).unsqueeze(1)

            target = wrap(Wide().eval(), task=Classification(("a", "b")))
            images = torch.rand((32, 1, 40, 40), generator=torch.Generator().manual_seed(0))
            labels = torch.zeros(32, dtype=torch.long)
            attack = Pgd(epsilon=0.01, steps=1)
            parts = attack(target, images, labels, batch_size=4)
            held = [line for line in open("/proc/self/status") if line.startswith("VmSize")]
            limit = int(held[0].split()[1]) * 1024 + 100 * 2**20
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                found = attack(target, images, labels)
            (one,) = said
            print(json.dumps([torch.equal(found, parts), str(one.message), one.filename]))
            """
        )
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)

    same, said, where = json.loads(done.stdout)
    assert same
    assert said.startswith("pgd: 32 samples at once did not fit into memory, ")
    assert where == str(script)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_auto_keeps_within_a_device(few):
    target, images, labels = few
    there = dataclasses.replace(target, module=target.module.cuda())
    try:
        attack = Pgd(epsilon=2 / 255, steps=3)
        parts = attack(there, images, labels, batch_size="auto")
        assert parts.device.type == "cuda"
        assert torch.allclose(parts, attack(there, images, labels), atol=5e-3)
    finally:
        target.module.cpu()

"""How many samples there is memory for, measured before a search begins.

What a pass needs is a constant and a share for each sample, so two small passes tell both. On a
CUDA device its allocator says what they need; elsewhere every tensor is counted while it lives,
which also sees what a forward pass without gradients needs.

| code | meaning |
|---|---|
| _SHARE | of the free memory that may be planned with; an operation's own buffers are not counted |
| _HELD | images that the hungriest search holds for each sample besides the pass (fab) |
"""

import gc
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from typing_extensions import override

from palpate.errors import ConfigError
from palpate.types import Images

_SHARE: Final = {"cuda": 0.8, "cpu": 0.4}
_HELD: Final = 24
_SAID: Final = ("allocate memory", "out of memory", "ALLOC_FAILED")  # host, MPS, cuBLAS and cuDNN

Part = TypeVar("Part")


def out_of_memory(error: Exception) -> bool:
    """Whether a smaller batch may help: the device's memory, or this machine's."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _SAID)


def free_memory() -> None:
    """Give back what nothing holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def tried(run: Callable[[slice], Part], rows: slice) -> Part | None:
    """Run on some samples.

    Returns:
        The result; None where memory has run out, whose error, and all that it held, is let go of.

    Raises:
        Exception: whatever `run` raises; out of memory for a single sample.
    """
    try:
        return run(rows)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error) or rows.stop - rows.start < 2:
            raise
    return None


def room(step: Callable[[int], None], images: Images, device: torch.device) -> int:
    """How many of some images one step of a search can take at once.

    Args:
        step: takes so many of them through a step, and holds nothing afterwards.
        images: (batch, channel, *spatial).
        device: where the step allocates.

    Raises:
        ConfigError: the free memory is not known.
        Exception: whatever the step raises; out of memory for a single sample.
    """
    if len(images) < 2:
        return 1
    step(1)  # once: what stays allocated
    free = _SHARE.get(device.type, 0.0) * _free(device)
    one = _peak(step, 1, device)
    two = tried(lambda rows: _peak(step, rows.stop, device), slice(0, 2))
    if two is None:
        return 1
    each = max(two - one, 0)
    return max(1, int((free - (one - each)) / (each + _HELD * images[0].nbytes)))


def _peak(step: Callable[[int], None], count: int, device: torch.device) -> int:
    """Most bytes that a step on so many samples holds at once."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        step(count)
        return torch.cuda.max_memory_allocated(device) - before
    with _Living() as living:
        step(count)
    return living.most


class _Living(TorchDispatchMode):
    """Counts the bytes of all tensors that are made inside, while they live."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known: set[int] = set()

    @override
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._meet(tensor.untyped_storage())
        return made

    def _meet(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            self.now += size
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._part, key, size)

    def _part(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def _free(device: torch.device) -> int:
    """Bytes that can still be allocated.

    Raises:
        ConfigError: the device or the machine does not say.
    """
    free_memory()
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    found = host_memory() if device.type == "cpu" else None
    if found is None:
        raise ConfigError(
            f"batch_size: expected a number, since the free memory of this {device.type} is not"
            " known, got 'auto'"
        )
    return found


def host_memory(root: Path = Path("/")) -> int | None:
    """Bytes that this process may still take of this machine; None where it does not say.

    Args:
        root: of the file system, where Linux tells: proc(5), cgroups(7).
    """
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    machine = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    left = [size for group in groups for size in _group_memory(root, group)]
    return min([*machine, *left], default=None)


def _group_memory(root: Path, group: str) -> Iterator[int]:
    """What a control group and those above it leave; of version 1 that of memory alone."""
    number, controllers, path = group.split(":", 2)
    if number == "0":
        top, most, used, kept = "sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"
    elif "memory" in controllers.split(","):
        top, most, used = "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        kept = "total_inactive_file"
    else:
        return
    at = Path(path.lstrip("/"))
    for folder in (at, *at.parents):
        try:
            limit, now, stat = (
                (root / top / folder / name).read_text() for name in (most, used, "memory.stat")
            )
        except OSError:
            continue  # the top one has no limit; a container sees only its own
        cache = dict(line.split() for line in stat.splitlines()).get(kept, "0")
        if limit.strip() != "max":
            yield int(limit) - int(now) + int(cache)

"""A batch that is attacked in parts: because it was asked for, or because memory has run out."""

import warnings
from typing import TYPE_CHECKING, Literal

from palpate import registry
from palpate.attacks._call import Found, Given
from palpate.attacks._memory import free_memory, room, tried
from palpate.errors import ConfigError, OutOfMemoryWarning

if TYPE_CHECKING:
    from palpate.attacks.base import AnyAttack

BatchSize = int | Literal["auto"] | None


def in_parts(attack: "AnyAttack", given: Given, batch_size: BatchSize) -> Found:
    """Attack a batch in parts of a size that is halved until they fit into memory.

    Args:
        attack: whole where its samples hang on each other.
        given: all samples; each keeps its seed.
        batch_size: see `AnyAttack.__call__`.

    Raises:
        ConfigError: likewise.
        Exception: whatever the attack raises; out of memory for a single sample.
    """
    if batch_size is None and not attack.separable:
        return attack.whole(given)
    found: list[Found] = []
    count, size = len(given.images), _size(attack, given, batch_size)
    first = refused = 0
    while first < count or not found:
        last = min(first + size, count)
        part = tried(lambda rows: attack.whole(given.some(rows)), slice(first, last))
        if part is None:
            refused = refused or last - first
            size = (last - first + 1) // 2
            free_memory()
        else:
            found.append(part)
            first = last
    if refused:
        warnings.warn(
            f"{registry.name_of(attack)}: {refused} samples at once did not fit into memory,"
            f" {size} did (batch_size={size})",
            OutOfMemoryWarning,
            stacklevel=3,  # where the attack was called
        )
    return Found.joined(found)


def _size(attack: "AnyAttack", given: Given, asked: BatchSize) -> int:
    """Most samples at once."""
    if asked is None:
        return max(1, len(given.images))
    if not attack.separable:
        raise ConfigError(
            f"{registry.name_of(attack)}: batch_size: expected None for an attack whose samples"
            f" hang on each other, got {asked!r}"
        )
    if asked == "auto":
        attack.check(given.target)
        return room(
            lambda count: attack.ask_once(given.some(slice(0, count))),
            given.images,
            given.target.device,
        )
    if not isinstance(asked, int) or asked < 1:
        raise ConfigError(f"batch_size: expected 'auto', or 1 or more, got {asked!r}")
    return asked

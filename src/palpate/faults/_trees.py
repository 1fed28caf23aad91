"""What modules take and return, compared and copied: tensors in tuples, lists and dicts."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten

from palpate.faults import _bits


def same(first: Any, second: Any) -> bool:
    """Whether two trees of tensors and plain values agree bit for bit."""
    ours, our_shape = tree_flatten(first)
    theirs, their_shape = tree_flatten(second)
    return our_shape == their_shape and all(map(_same_leaf, ours, theirs))


def _same_leaf(first: Any, second: Any) -> bool:
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return _bits.equal(first, second)
    if isinstance(first, Tensor) or isinstance(second, Tensor):
        return False
    return first is second or bool(first == second)


def copied(leaf: Any) -> Any:
    """A tensor's own copy; anything else as it is."""
    return leaf.clone() if isinstance(leaf, Tensor) else leaf


def blanked(leaf: Any) -> Any:
    """NaN in the place of every number of a floating tensor; anything else as it is."""
    is_float = isinstance(leaf, Tensor) and leaf.is_floating_point()
    return torch.full_like(leaf, torch.nan) if is_float else leaf

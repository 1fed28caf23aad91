"""Take a state dict out of what training codes wrap around it."""

from collections.abc import Mapping
from typing import Any, Final

from torch import Tensor

from palpate.errors import CheckpointError

WRAPPERS: Final = ("model", "state_dict", "model_state_dict")


def plain_state(checkpoint: Mapping[str, Any], *, who: str) -> dict[str, Tensor]:
    """The state dict inside a checkpoint.

    Args:
        checkpoint: A bare state dict, or one under a key of `WRAPPERS`.
        who: Name of the network, for the error.

    Raises:
        CheckpointError: if nothing in it is a state dict.
    """
    state = next((checkpoint[k] for k in WRAPPERS if k in checkpoint), checkpoint)
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise CheckpointError(
            f"{who}: expected a mapping of names to tensors, bare or under"
            f" {', '.join(map(repr, WRAPPERS[:-1]))} or {WRAPPERS[-1]!r};"
            f" got keys {sorted(map(str, checkpoint))[:5]}"
        )
    return dict(state)

"""Find the logits in what a model returned."""

from typing import Any

from torch import Tensor

from palpate.errors import TargetError


def unwrap(output: Any, name: str) -> Tensor:
    """A tensor, `.logits`, or a dict's "logits" or "out".

    Raises:
        TargetError: none of these.
    """
    if isinstance(output, Tensor):
        return output
    if isinstance(getattr(output, "logits", None), Tensor):
        return output.logits
    if isinstance(output, dict):
        for key in ("logits", "out"):
            if isinstance(output.get(key), Tensor):
                return output[key]
    raise TargetError(
        f"{name}: expected a tensor, an object with .logits, or a dict with 'logits' or 'out',"
        f" got {type(output).__name__}"
    )

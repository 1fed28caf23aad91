"""Recompute only the faulty output channel of a convolution or linear layer.

The other channels cannot differ. Whether a few channels alone round as the whole layer does is up
to the backend, so it is asked: the fault-free channels computed alone must equal the golden ones
bit for bit, several times for each layer, else the whole layer runs. The order of a sum depends on
neither its values nor, among full tiles, on the channel.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from torch import Tensor, nn
from torch.nn import functional

from palpate.faults import _bits
from palpate.faults._storage import Flips
from palpate.faults._trace import Forward
from palpate.faults._trial import Change, Masked, run_whole

_CONVOLUTIONS: Final[tuple[tuple[type[nn.Module], Callable[..., Tensor]], ...]] = (
    (nn.Conv1d, functional.conv1d),
    (nn.Conv2d, functional.conv2d),
    (nn.Conv3d, functional.conv3d),
)
_TILE: Final = 16  # columns that matrix products are computed in; narrower ones round otherwise
_ENOUGH: Final = 64  # golden values that have to agree each time
_PROOFS: Final = 3  # times they have to before a layer is trusted


class _Part(NamedTuple):
    """Some neighbouring output channels of a layer, and the axis that they are on."""

    module: nn.Module
    first: int
    width: int
    axis: int
    compute: Callable[[Tensor], Tensor]


class Splicer:
    """Remembers which layers round alone as they do whole."""

    def __init__(self) -> None:
        self._agreed: dict[nn.Module, int] = {}

    def change(self, flips: Flips) -> Change:
        """How to compute a trial's faulty call: by a few channels if that is exact, else whole."""

        def change(
            real: Forward, args: tuple[Any, ...], kwargs: dict[str, Any], golden: Any
        ) -> Any:
            part = None
            if isinstance(golden, Tensor) and len(args) == 1 and not kwargs:
                part = _part(getattr(real, "__self__", None), flips, golden.ndim)
            if part is None or not self._is_exact(part, flips, args[0], golden):
                return run_whole(real, args, kwargs, golden)
            before = golden.narrow(part.axis, part.first, part.width)
            after = part.compute(args[0])
            if _bits.equal(after, before):
                raise Masked
            result = golden.clone()
            result.narrow(part.axis, part.first, part.width).copy_(after)
            return result

        return change

    def _is_exact(self, part: "_Part", flips: Flips, x: Tensor, golden: Tensor) -> bool:
        agreed = self._agreed.get(part.module, 0)
        if 0 <= agreed < _PROOFS:
            before = golden.narrow(part.axis, part.first, part.width)
            with flips.flipped():  # flipped back
                agrees = before.numel() >= _ENOUGH and _bits.equal(part.compute(x), before)
            agreed = agreed + 1 if agrees else -1
            self._agreed[part.module] = agreed
        return agreed > 0


def _part(module: nn.Module | None, flips: Flips, axes: int) -> _Part | None:
    """The channels that all flips are in, None if the layer cannot be taken apart."""
    if not isinstance(module, nn.Module) or len(flips.by_place) != 1:
        return None
    [(place, elements, _)] = flips.by_place.values()
    if place.tensor is not module._parameters.get("weight"):
        return None
    per_channel = place.tensor.numel() // place.tensor.shape[0]
    channels = {element // per_channel for element in elements}
    if len(channels) != 1:
        return None
    if type(module) is nn.Linear:
        return _linear(module, channels.pop(), axes)
    for kind, function in _CONVOLUTIONS:
        if type(module) is kind:
            return _convolution(module, channels.pop(), function, axes)
    return None


def _linear(module: Any, channel: int, axes: int) -> _Part | None:
    first = channel // _TILE * _TILE
    if module.out_features < 2 * _TILE or first + _TILE > module.out_features:
        return None
    rows = slice(first, first + _TILE)

    def compute(x: Tensor) -> Tensor:
        bias = None if module.bias is None else module.bias[rows]
        return functional.linear(x, module.weight[rows], bias)

    return _Part(module, first, _TILE, axes - 1, compute)


def _convolution(
    module: Any, channel: int, function: Callable[..., Tensor], axes: int
) -> _Part | None:
    if module.padding_mode != "zeros":
        return None
    row = slice(channel, channel + 1)
    width = module.weight.shape[1]
    axis = axes - module.weight.ndim + 1  # of the channels, with or without a batch axis
    first = channel * module.groups // module.out_channels * width

    def compute(x: Tensor) -> Tensor:
        bias = None if module.bias is None else module.bias[row]
        own = x.narrow(axis, first, width)
        return function(
            own, module.weight[row], bias, module.stride, module.padding, module.dilation
        )

    return _Part(module, channel, 1, axis, compute)

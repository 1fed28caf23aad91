"""How weights lie in memory: their values stay, convolutions may run faster."""

from typing import Final

import torch
from torch import nn

FORMATS: Final = {4: torch.channels_last, 5: torch.channels_last_3d}


def laid_out(module: nn.Module, *, channels_last: bool) -> nn.Module:
    """The module, with the channels of its convolutions' weights innermost if so asked."""
    if channels_last:
        for parameter in module.parameters():
            if parameter.ndim in FORMATS:
                parameter.data = parameter.data.contiguous(memory_format=FORMATS[parameter.ndim])
    return module

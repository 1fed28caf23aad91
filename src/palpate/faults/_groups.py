"""Which part of a network a tensor belongs to: stem, stages, parts of the scan, norms, head.

Roles are read off names and module types, so any network gets groups; a name that says nothing
falls back to the top-level module that holds it. The words are those of the literature on MedMamba:
one group for the convolution branch of every stage, one for each part of the selective scan over
all blocks (in_proj, conv2d, x_proj, dt, A, D, out_proj).
"""

import re
from collections.abc import Mapping
from typing import Final

from torch import nn

_STEM: Final = re.compile(
    r"(^|\.)(patch_embed|stem|conv_stem|pos_embed|cls_token\w*|embeddings)(\.|$)|^(conv1|bn1)\."
)
_HEAD: Final = re.compile(
    r"^(head|fc|classifier|final\w*|segmentation_head|norm_f|fc_norm)(\.|_|$)"
)
_SCAN: Final = (
    ("in_proj", "in_proj"),
    ("out_proj", "out_proj"),
    ("x_proj", "x_proj"),
    ("dt_proj", "dt"),
    ("A_", "A"),
    ("Ds", "D"),
    ("D", "D"),
)
_CONVOLUTIONS: Final = ("conv1d", "conv2d")  # between in_proj and the scan
_RESAMPLING: Final = re.compile(r"(^|\.)(downsample|upsample|shortcut)(\.|$)")
_PARTS: Final = (("attn", "attention"), ("attention", "attention"), ("mlp", "MLP"))
_ENCODERS: Final = {"vision_model", "text_model"}
_ADAPTERS: Final = re.compile(r"(^|\.)(adapter|lora_\w+|skips)(\.|$)")
_SIDES: Final = (
    (re.compile(r"(^|\.)(vision_model|visual_projection)(\.|$)"), "image encoder"),
    (re.compile(r"(^|\.)(text_model|text_projection|logit_scale)(\.|$)"), "text encoder"),
    (re.compile(r"(^|\.)decoder(\.|$)"), "decoder"),
)
_NORMS: Final = (
    nn.LayerNorm,
    nn.GroupNorm,
    nn.modules.batchnorm._NormBase,
    nn.RMSNorm,
)


def groups(module: nn.Module) -> Mapping[str, str]:
    """Group of every parameter, buffer and module, by its full name."""
    types = dict(module.named_modules())
    tensors = [name for name, _ in [*module.named_parameters(), *module.named_buffers()]]
    scans = {name.rpartition(".")[0] for name in tensors if re.search(r"(^|\.)A_\w*log", name)}
    found = {name: _group(name, part, scans) for name, part in types.items()}
    for name in tensors:
        found[name] = _group(name, types[name.rpartition(".")[0]], scans)
    if {name.rpartition(".")[2] for name in types} >= _ENCODERS:
        found = {name: _side(name) or group for name, group in found.items()}
    return found


def _side(name: str) -> str | None:
    """Part of a network with an image and a text encoder; None above them."""
    if _ADAPTERS.search(name):
        return "adapters"
    return next((side for pattern, side in _SIDES if pattern.search(name)), None)


def _group(name: str, owner: nn.Module, scans: set[str]) -> str:
    if _STEM.search(name):
        return "stem"
    if _HEAD.search(name):
        return "head"
    scan = next((s for s in scans if name.startswith(f"{s}.") or not s), None)
    if scan is not None and (part := _scan_part(name.removeprefix(f"{scan}."))):
        return part
    if _RESAMPLING.search(name):
        return "downsample"
    convolved = re.match(r"layers\.(\d+)\..*conv33", name)
    if convolved:
        return f"stage {int(convolved[1]) + 1} conv branch"
    if isinstance(owner, _NORMS) or re.search(r"(^|\.)(ln_\d|norm\w*|\w+_norm)(\.|$)", name):
        return "norms"
    for piece, role in _PARTS:
        if re.search(rf"(^|\.){piece}(\.|$)", name):
            return role
    return _stage(name)


def _scan_part(inner: str) -> str | None:
    first = inner.split(".")[0]
    if first.startswith(_CONVOLUTIONS):
        return first.split("_")[0]
    return next((role for start, role in _SCAN if first.startswith(start)), None)


def _stage(name: str) -> str:
    """The top-level module, with the number that follows it: "layer1", "layers.0"."""
    first, *rest = name.split(".")
    return f"{first}.{rest[0]}" if rest and rest[0].isdigit() else first or "root"

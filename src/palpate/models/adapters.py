"""Small trainable modules in a frozen CLIPSeg.

Dhakal et al., "VLSM-Adapter: Finetuning Vision-Language Segmentation Efficiently with Lightweight
Blocks", arXiv 2405.06196, as the networks of "Adversarial Robustness Analysis of Vision-Language
Models in Medical Image Segmentation" (arXiv 2505.02971) have them; LoRA is Hu et al., arXiv
2106.09685, by the peft library.

| code | meaning | place |
|---|---|---|
| Adapter | x + relu(W2 relu(W1 x)): with the second ReLU, as published, it can only add | 3.1 |
| dense | after self-attention and after the MLP of a layer, before the residual sum | 3.2 |
| shallow | on the image features that the decoder takes; after the same layers of the text | 3.2 |
| V, VL, VLC | image encoder; and text encoder; and the conditional vector | 3.2 |
"""

from collections.abc import Iterable
from typing import Any, Final, Literal

from torch import Tensor, nn
from typing_extensions import override

from palpate.errors import TargetError
from palpate.models.clipseg import PromptedClipSeg

Kind = Literal["none", "dense", "shallow", "lora"]
Places = Literal["V", "VL", "VLC"]
WIDTHS: Final = {"dense": 64, "shallow": 512, "lora": 8}
_CONDITION: Final = 256  # from the published parameter counts
_MARK: Final = "adapter"


class Adapter(nn.Module):
    """A bottleneck beside the identity.

    Args:
        size: features in and out.
        width: features between.
        second_relu: cut negative answers off, as the published code does.
    """

    def __init__(self, size: int, width: int, *, second_relu: bool = True) -> None:
        super().__init__()
        self.down = nn.Linear(size, width)
        self.up = nn.Linear(width, size)
        self.second_relu = second_relu

    @override
    def forward(self, features: Tensor) -> Tensor:
        """(..., size) in and out."""
        added = self.up(self.down(features).relu())
        return features + (added.relu() if self.second_relu else added)

    @override
    def extra_repr(self) -> str:
        return f"second_relu={self.second_relu}"


class Adapted(nn.Module):
    """A module whose answer, or the first of its answers, goes through an adapter."""

    def __init__(self, inner: nn.Module, adapter: Adapter) -> None:
        super().__init__()
        self.inner = inner
        self.adapter = adapter

    @override
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the module inside."""
        found = self.inner(*args, **kwargs)
        if isinstance(found, tuple):
            return (self.adapter(found[0]), *found[1:])
        return self.adapter(found)


def adapt(
    model: PromptedClipSeg,
    kind: Kind,
    *,
    places: Places = "VL",
    width: int | None = None,
    second_relu: bool = True,
) -> None:
    """Freeze a CLIPSeg and put adapters into it, in place.

    Args:
        model: the network.
        kind: "none" leaves it as it is, with everything trainable.
        places: where; LoRA has no conditional place.
        width: of the bottleneck, or the rank of LoRA; the published one for None.
        second_relu: see `Adapter`.

    Raises:
        TargetError: LoRA on the conditional vector, or without peft.
    """
    if kind == "none":
        return
    model.requires_grad_(False)
    size = WIDTHS[kind] if width is None else width
    clip = model.net.clip
    if kind == "lora":
        _insert_lora(model, places, size)
        return

    def fresh(features: int, width: int = size) -> Adapter:
        return Adapter(features, width, second_relu=second_relu)

    taken = model.taken
    if kind == "dense":
        for encoder in [clip.vision_model, clip.text_model][: 1 if places == "V" else 2]:
            for layer in encoder.encoder.layers[: max(taken)]:
                for part in ("self_attn", "mlp"):
                    adapter = fresh(layer.layer_norm1.normalized_shape[0])
                    setattr(layer, part, Adapted(getattr(layer, part), adapter))
    else:
        features = clip.vision_model.post_layernorm.normalized_shape[0]
        model.skips = nn.ModuleList([Adapted(nn.Identity(), fresh(features)) for _ in taken])
        layers = clip.text_model.encoder.layers
        for number in taken if places != "V" else ():
            features = clip.text_model.final_layer_norm.normalized_shape[0]
            layers[number] = Adapted(layers[number], fresh(features))
    if places == "VLC":
        last = fresh(clip.text_projection.out_features, _CONDITION)
        clip.text_projection = Adapted(clip.text_projection, last)


def adapter_tensors(names: Iterable[str]) -> list[str]:
    """Those names of a state dict that belong to adapters or LoRA."""
    return [n for n in names if f".{_MARK}." in n or ".lora_" in n]


def _insert_lora(model: PromptedClipSeg, places: Places, rank: int) -> None:
    if places == "VLC":
        raise TargetError("adapter: expected places V or VL for lora, got VLC")
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise TargetError("lora needs the extra: pip install 'palpate[vlm]'") from None
    encoders = ("vision_model", "text_model")[: 1 if places == "V" else 2]
    inside = "|".join(encoders)
    wanted = rf"net\.clip\.({inside})\.encoder\.layers\.\d+\.self_attn\.(q|v)_proj"
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=wanted), model)

"""Where the evidence for a decision lies, on the clean and on the disturbed image: Grad-CAM.

Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization", arXiv 1610.02391, section 3, as captum computes it (`LayerGradCam`). For masks the
score is summed over the pixels of a mask, as in the U-Net study (arXiv 2401.11224).

| code | meaning | symbol | section |
|---|---|---|---|
| _evidence | score whose gradient is taken | y^c | 3 |
| layer | activations whose channels are weighted | A^k | 3 |
"""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from palpate.errors import ConfigError
from palpate.targets.base import Target
from palpate.types import Classification, Images, MultiLabel, PerSample, PromptedSegmentation

Arrays = dict[str, NDArray[Any]]
_FAILURES: Final = (RuntimeError, AssertionError, ValueError, IndexError)  # of captum, of the model
_ATTENTION: Final = (nn.Dropout, nn.Softmax)  # what they answer with may be token by token
_DEEP: Final = 0.5  # share of the layers with weights that have to lie before


def check_saliency() -> None:
    """Refuse maps that cannot be computed here.

    Raises:
        ConfigError: captum is not installed.
    """
    if importlib.util.find_spec("captum") is None:
        raise ConfigError(
            "saliency: expected captum for grad_cam, which is not installed; pip install"
            " 'palpate[explain]'"
        )


def grad_cam(target: Target, images: Mapping[str, NDArray[Any]], *, layer: str = "") -> Arrays:
    """Maps for the worst cases of one cell; never raises because of the model.

    The class is the one decided on the clean image; for masks the one with most pixels there (in
    the reference, where nothing was decided; the first, where both are empty), its evidence summed
    over those pixels. Both images are asked for the same class and pixels. Two classes that exclude
    each other have the difference of their logits as evidence, other classes their logit.

    Args:
        target: the model that was judged, defence included.
        images: from `WorstCases.arrays`.
        layer: name of a module of the target; by default the last one whose output is
            (batch, channel, height, width) before the head's last layer with weights, unless it
            lies in the first half of the network.

    Returns:
        `clean_saliency`, `perturbed_saliency` (cases, height, width), 0 or more on one scale, NaN
        where there is none; `saliency_note` (cases,), the layer and class, or why there is none.
        Empty without a worst case.
    """
    if "sample" not in images:
        return {}
    count = len(images["sample"])
    shape = images["clean"].shape
    maps = np.full((2, count, *shape[2:]), np.nan, dtype=np.float32)
    notes = [""] * count
    for i in range(count):
        try:
            notes[i] = _case(target, images, i, layer=layer, maps=maps)
        except _FAILURES as error:
            notes[i] = f"no Grad-CAM: {type(error).__name__}: {' '.join(str(error).split())[:160]}"
    return {
        "clean_saliency": maps[0],
        "perturbed_saliency": maps[1],
        "saliency_note": np.array(notes),
    }


def _case(
    target: Target,
    images: Mapping[str, NDArray[Any]],
    number: int,
    *,
    layer: str,
    maps: NDArray[np.float32],
) -> str:
    """Fill in the two maps of one case; returns its note."""
    from captum.attr import LayerAttribution, LayerGradCam

    pair = [torch.from_numpy(images[n][number : number + 1]) for n in ("clean", "perturbed")]
    pair = [image.to(target.device) for image in pair]
    if pair[0].ndim != 4:
        return "no Grad-CAM: it is for images of two dimensions"
    if isinstance(target.task, PromptedSegmentation):
        return "no Grad-CAM: not for prompted tasks"
    chosen = _layer(target, pair[0], layer)
    if isinstance(chosen, str):
        return f"no Grad-CAM: {chosen}"
    name, module = chosen
    index, pixels = _asked(target, images, number, pair[0])

    def evidence(points: Images) -> PerSample:
        return _evidence(target, points, index, pixels)

    method = LayerGradCam(evidence, module)
    with target.frozen(), torch.enable_grad():
        for place, image in enumerate(pair):
            found: Any = method.attribute(image.clone().requires_grad_(), relu_attributions=True)
            wide: Any = LayerAttribution.interpolate(found, tuple(image.shape[2:]), "bilinear")
            maps[place, number] = wide[0, 0].detach().cpu().numpy()
    return f"Grad-CAM of {target.task.classes[index]} at {name}"


def _asked(
    target: Target, images: Mapping[str, NDArray[Any]], number: int, clean: Images
) -> tuple[int, Tensor | None]:
    """Class, and the pixels (height, width) to sum over; None for labels."""
    if isinstance(target.task, Classification | MultiLabel):
        with torch.no_grad():
            return int(target.logits(clean)[0].argmax()), None
    first = 1 if target.is_exclusive else 0
    for name in ("clean_mask", "reference_mask"):
        mask = torch.from_numpy(images[name][number])
        planes = (
            torch.stack([mask == k for k in range(first, len(target.task.classes))])
            if target.is_exclusive
            else mask.bool()
        )
        sizes = planes.flatten(1).sum(dim=1)
        if int(sizes.max()):
            largest = int(sizes.argmax())
            return largest + first, planes[largest].to(clean.device)
    return first, torch.ones(clean.shape[2:], dtype=torch.bool, device=clean.device)


def _evidence(target: Target, points: Images, index: int, pixels: Tensor | None) -> PerSample:
    logits = target.logits(points)
    own = logits[:, index]
    if target.is_exclusive and logits.shape[1] == 2:
        own = own - logits[:, 1 - index]  # a head of one logit has no other
    return own if pixels is None else (own * pixels).flatten(1).sum(dim=1)


@dataclass
class _Watch:
    """What a forward pass showed of the modules, in the order in which they finished."""

    finished: list[tuple[str, nn.Module, Tensor | None, int]] = field(default_factory=list)
    calls: dict[str, int] = field(default_factory=dict)
    weighted: list[int] = field(default_factory=list)
    begun: int = 0


def _layer(target: Target, image: Images, wanted: str) -> tuple[str, nn.Module] | str:
    """Name and module whose activations are weighted, or why there is none."""
    modules = dict(target.module.named_modules())
    if wanted:
        known = [n for n in modules if n == wanted or n.endswith(f".{wanted}")]  # inside a defence
        return (known[0], modules[known[0]]) if known else f"the model has no module {wanted!r}"
    seen = _watched(target, image)
    if not seen.weighted:
        return "the model has no layer with weights"
    head = seen.weighted[-1]
    before = [
        (name, module, when)
        for name, module, output, when in seen.finished
        if when < head and name and not isinstance(module, _ATTENTION)
        if output is not None and _is_plane(output, image)
    ]
    if not before:
        return "no module answers with (batch, channel, height, width)"
    name, module, when = before[-1]
    if seen.calls[name] > 1:
        return f"{name}, the last one, is asked several times for one image"
    depth = sum(w < when for w in seen.weighted) / max(1, len(seen.weighted) - 1)
    if depth < _DEEP:
        return (
            f"{name}, the last module that answers with (batch, channel, height, width), has only"
            f" {depth:.0%} of the network before it"
        )
    return name, module


def _watched(target: Target, image: Images) -> _Watch:
    seen = _Watch()
    handles: list[Any] = []

    def hooks(name: str, module: nn.Module) -> None:
        weighted = next(module.parameters(recurse=False), None) is not None

        def begin(_module: nn.Module, _inputs: Any) -> None:
            seen.begun += 1
            seen.calls[name] = seen.calls.get(name, 0) + 1
            if weighted:
                seen.weighted.append(seen.begun)

        def end(_module: nn.Module, _inputs: Any, output: Any) -> None:
            seen.begun += 1
            tensor = output if isinstance(output, Tensor) else None
            seen.finished.append((name, module, tensor, seen.begun))

        handles.append(module.register_forward_pre_hook(begin))
        handles.append(module.register_forward_hook(end))

    for name, module in target.module.named_modules():
        hooks(name, module)
    try:
        with torch.no_grad():
            target.logits(image)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _is_plane(output: Tensor, image: Images) -> bool:
    """Whether an output has the image's height and width on its last two axes, thinned or not."""
    if output.ndim != 4 or len(output) != len(image):
        return False
    (height, width), (tall, wide) = output.shape[2:], image.shape[2:]
    near = abs(height * wide / tall - width) <= 1
    return near and 1 < height <= tall and 1 < width <= wide

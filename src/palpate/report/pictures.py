"""Recorded arrays as lossless pictures: clean, perturbed, difference, masks laid over them."""

import base64
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image

_PIXELS = 512  # longest side of an embedded picture
# blue, orange and green that colour-blind readers tell apart (Okabe and Ito 2008)
_RIGHT, _EXTRA, _MISSED = (0, 158, 115), (230, 120, 0), (0, 114, 250)
_GAINS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


@dataclass(frozen=True)
class Picture:
    """One image of a card.

    Attributes:
        source: data URI of a PNG.
        alt: text alternative.
        caption: below it.
    """

    source: str
    alt: str
    caption: str


@dataclass(frozen=True)
class Shown:
    """What the alternative texts and captions of one case say.

    Attributes:
        sample: id of the input.
        before: what the model said of the clean image.
        after: what it said of the perturbed one.
        bounds: shown as black and white.
    """

    sample: str
    before: str
    after: str
    bounds: tuple[float, float]


def pictures(
    images: Mapping[str, NDArray[Any]], number: int, *, shown: Shown
) -> tuple[Picture, ...]:
    """Masks where there are any, then clean, perturbed and their enlarged difference.

    Args:
        images: worst cases of one cell, as `Record.images` returns them.
        number: which of them.
        shown: words and range.
    """
    low, high = shown.bounds
    clean, moved = images["clean"][number], images["perturbed"][number]
    gain = gain_of(moved - clean, high - low)
    change = (low + high) / 2 + gain * (moved.astype(np.float64) - clean)
    name = shown.sample
    return (
        *_overlays(images, number, shown),
        *_evidence(images, number, shown),
        Picture(data_uri(clean, low, high), f"Clean image {name}: {shown.before}", "clean"),
        Picture(data_uri(moved, low, high), f"Perturbed image {name}: {shown.after}", "perturbed"),
        Picture(
            data_uri(change, low, high),
            f"Change of image {name}, enlarged {gain} times; mid-grey is no change",
            f"change × {gain}",
        ),
    )


def data_uri(image: NDArray[np.floating[Any]], low: float, high: float) -> str:
    """PNG of an image (channel, *spatial) as a data URI, 256 levels between low and high.

    One channel is grey, three are colour, other counts are averaged; of a volume the middle slice
    is shown. Pictures longer than 512 pixels are thinned by whole steps.
    """
    plane = np.nan_to_num(np.asarray(image, dtype=np.float64), nan=low, posinf=high, neginf=low)
    while plane.ndim > 3:
        plane = plane[:, plane.shape[1] // 2]
    plane = plane if len(plane) in (1, 3) else plane.mean(axis=0, keepdims=True)
    step = max(1, -(-max(plane.shape[1:]) // _PIXELS))
    levels = np.clip((plane[:, ::step, ::step] - low) / ((high - low) or 1.0), 0, 1) * 255
    pixels = np.round(levels).astype(np.uint8)
    picture = Image.fromarray(pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, -1))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def overlay_uri(
    image: NDArray[np.floating[Any]],
    masks: tuple[NDArray[Any], NDArray[Any]],
    *,
    exclusive: bool,
    bounds: tuple[float, float],
) -> str:
    """PNG of an image with right, extra and missed pixels of a mask in colour, as a data URI.

    Args:
        image: (channel, height, width).
        masks: reference and decision, labels (height, width) or planes (classes, height, width).
        exclusive: whether the masks are labels, of which 0 is background.
        bounds: shown as black and white.
    """
    grey = np.nan_to_num(image.astype(np.float64), nan=bounds[0]).mean(axis=0)
    levels = np.clip((grey - bounds[0]) / ((bounds[1] - bounds[0]) or 1.0), 0, 1)
    picture = np.repeat(levels[None], 3, axis=0)
    reference, decision = masks
    agree = reference == decision
    if not exclusive:  # a pixel counts as right where every plane agrees
        agree = agree.all(axis=0)
        reference, decision = reference.any(axis=0), decision.any(axis=0)
    inside, said = reference > 0, decision > 0
    for where, colour in (
        (inside & said & agree, _RIGHT),
        (said & ~(inside & agree), _EXTRA),
        (inside & ~said, _MISSED),
    ):
        for channel, value in zip(picture, colour, strict=True):
            channel[where] = 0.55 * channel[where] + 0.45 * value / 255
    return data_uri(picture, 0.0, 1.0)


def saliency_note(images: Mapping[str, NDArray[Any]], number: int) -> str:
    """What the maps of the evidence show, or why there are none; empty where none were asked."""
    return str(images["saliency_note"][number]) if "saliency_note" in images else ""


def heat_uri(
    image: NDArray[np.floating[Any]],
    heat: NDArray[np.floating[Any]],
    *,
    bounds: tuple[float, float],
) -> str:
    """PNG of an image, in grey, under a map in colour (inferno), half of each, as a data URI.

    Args:
        image: (channel, height, width).
        heat: (height, width) in [0, 1].
        bounds: shown as black and white.
    """
    grey = np.nan_to_num(image.astype(np.float64), nan=bounds[0]).mean(axis=0)
    levels = np.clip((grey - bounds[0]) / ((bounds[1] - bounds[0]) or 1.0), 0, 1)
    colours = np.moveaxis(colormaps["inferno"](heat)[..., :3], -1, 0)
    return data_uri(0.5 * levels + 0.5 * colours, 0.0, 1.0)


def _evidence(images: Mapping[str, NDArray[Any]], number: int, shown: Shown) -> Iterator[Picture]:
    """Both maps on one scale, so that evidence that is gone looks gone."""
    if "clean_saliency" not in images:
        return
    pair = [images[f"{name}_saliency"][number] for name in ("clean", "perturbed")]
    largest = max(float(np.nan_to_num(heat).max()) for heat in pair)
    if any(np.isnan(heat).any() for heat in pair) or pair[0].ndim != 2:
        return
    note = saliency_note(images, number)
    for name, heat in zip(("clean", "perturbed"), pair, strict=True):
        source = heat_uri(images[name][number], heat / (largest or 1.0), bounds=shown.bounds)
        share = float(heat.max()) / largest if largest else 0.0
        alt = f"{note}, {name} image {shown.sample}: strongest evidence {share:.0%} of the pair's"
        yield Picture(source, alt, f"{name}: {note} (bright: much evidence, one scale for both)")


def gain_of(difference: NDArray[np.floating[Any]], width: float) -> int:
    """Largest round factor that keeps the difference within half the range."""
    largest = float(np.nan_to_num(np.abs(difference)).max()) / width
    return max((g for g in _GAINS if g * largest <= 0.5), default=1)


def _overlays(images: Mapping[str, NDArray[Any]], number: int, shown: Shown) -> Iterator[Picture]:
    if "reference_mask" not in images:
        return
    reference = images["reference_mask"][number]
    if reference.ndim > 3 or images["clean"][number].ndim != 3:
        return  # volumes: no plane of their own to show
    moved = images["moved_mask"][number] if "moved_mask" in images else reference
    for name, said, truth in (
        ("clean", shown.before, reference),
        ("perturbed", shown.after, moved),
    ):
        masks = (truth, images[f"{name}_mask"][number])
        source = overlay_uri(
            images[name][number], masks, exclusive=reference.ndim == 2, bounds=shown.bounds
        )
        alt = f"Mask on the {name} image: {said}; green right, orange extra, blue missed"
        yield Picture(source, alt, f"{name}: {said} (green right, orange extra, blue missed)")

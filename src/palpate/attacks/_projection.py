"""Steps and projections in the norms that attacks know."""

import torch
from torch import Tensor

from palpate.attacks import _sparse
from palpate.types import Bounds, Images, PerSample


def size(difference: Images, norm: str) -> PerSample:
    """Norm of each sample's difference; (batch,), in units of the bounds.

    In l0 it is the number of changed values, each channel of a pixel for itself.
    """
    flat = difference.flatten(1)
    if norm == "l0":
        return (flat != 0).sum(dim=1).to(flat.dtype)
    if norm == "l1":
        return flat.abs().sum(dim=1)
    return flat.abs().amax(dim=1) if norm == "linf" else flat.norm(dim=1)


def finite(gradient: Images) -> Images:
    """The gradient, 0 where it is no finite number.

    One pass over the values; `isfinite` and `where` take eighty times as long on a CPU.
    """
    return torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)


def direction(gradient: Images, norm: str) -> Images:
    """Steepest ascent direction of unit norm: the sign (linf) or the normalised gradient (l2)."""
    if norm == "linf":
        return gradient.sign()
    return gradient / shaped(size(gradient, "l2"), gradient).clamp(min=1e-30)


def project(
    images: Images, clean: Images, *, norm: str, epsilon: float | Tensor, bounds: Bounds
) -> Images:
    """Nearest point of the epsilon ball around `clean`, then of the legal range.

    Epsilon is one number, or one for each sample in the form that `shaped` gives it.
    Clipping into the box last never leaves the ball, since the clean image lies in both.
    """
    if norm == "l1":
        return _sparse.nearest(images, clean, epsilon=epsilon, bounds=bounds)
    if norm == "l0":
        images = images.clamp(bounds.low, bounds.high)
        return _sparse.largest(images, clean, count=epsilon)
    difference = images - clean
    if norm == "linf":
        difference = difference.clamp_(-epsilon, epsilon)  # pyright: ignore
    else:
        length = shaped(size(difference, "l2"), difference)
        # 1e-7 inside: rounding must not leave the ball
        shrink = (epsilon * (1 - 1e-7)) / length.clamp(min=1e-30)
        difference = torch.where(length > epsilon, difference * shrink, difference)
    # in place: fresh memory for every step costs as much as the arithmetic
    return difference.add_(clean).clamp_(bounds.low, bounds.high)


def blend(images: Images, way: Images, *, size: float, bounds: Bounds) -> Images:
    """Convex blend of images with a direction, (1 − s) u + s · way, u the image on [0, 1].

    Args:
        images: within the bounds.
        way: signs of the gradient.
        size: in units of the bounds.
        bounds: legal range, which the result is clipped to.
    """
    width = bounds.high - bounds.low
    share = size / width
    unit = (images - bounds.low) / width
    mixed = ((1 - share) * unit + share * way).clamp(0, 1)
    return (mixed * width + bounds.low).clamp(bounds.low, bounds.high)


def shaped(values: Tensor, like: Images) -> Tensor:
    """One value per sample, to multiply images with."""
    return values.reshape(-1, *(1 for _ in like.shape[1:]))

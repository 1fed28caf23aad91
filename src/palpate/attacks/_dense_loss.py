"""Losses on masks, per sample; higher is worse for the model.

Two kinds. *Plane* losses compare an input with a target, both (batch, classes, pixels), and can be
called with the two exchanged. *Pixel* losses see each pixel as one small classification; a sigmoid
plane z becomes the pair [0, z], so one formula serves softmax and sigmoid heads.

| code | meaning | symbol | source |
|---|---|---|---|
| dice | 1 − (2 Σ p g + s) / (Σ p + Σ g + s) | D | Milletari et al., arXiv 1606.04797, section 3 |
| focal | −(1 − p)^γ log p, γ = 2 | FL | Lin et al., arXiv 1708.02002, section 3 |
| segpgd | cross-entropy, 1 − λ on right, λ on wrong pixels | L | Gu et al., 2207.12391, eq. 4 |
| progress / 2 | schedule from 0 to ½ | λ(t) = (t − 1) / 2T | 2207.12391, section 3.2 |
| cospgd | cross-entropy times constant cos(softmax, one-hot) | L_cos | Agnihotri, 2302.02213 |
| jsd | Jensen–Shannon divergence of softmax and one-hot | D_JS | Croce et al., 2306.12941 |
| masked_ce | cross-entropy of the right pixels alone | L_MCE | Croce et al., 2306.12941 |
| masked_spherical | −(true logit of unit logits), right pixels alone | L_MSL | the same |
| margin | largest other less true logit, at most 1 | – | Carlini, Wagner, 1608.04644, f6 |
"""

from collections.abc import Callable, Mapping
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from palpate.types import AnyTensor, Logits, PerSample, References, winners

_SMOOTH: Final = 1e-5
_GAMMA: Final = 2.0
_CEILING: Final = 1.0  # a pixel that is wrong by this much in logits needs no more work


def planes(references: References, classes: int, *, exclusive: bool, like: Tensor) -> AnyTensor:
    """References as 0/1 planes (batch, classes, pixels) of the dtype of `like`."""
    if not exclusive:
        return references.flatten(2).to(like.dtype)
    flat = references.flatten(1)
    return functional.one_hot(flat, classes).movedim(-1, 1).to(like.dtype)


def plane_loss(
    name: str, logits: Logits, references: References, *, exclusive: bool, swap: bool
) -> PerSample:
    """A plane loss, as its formula says or with input and target exchanged.

    Args:
        name: one of `PLANE_LOSSES`.
        logits: (batch, classes, *spatial).
        references: label maps (batch, *spatial) if exclusive, else 0/1 of the logits' shape.
        exclusive: softmax if true, sigmoid if not.
        swap: call the loss with the mask as input and the logits as target, as the public code of
            the U-Net study (arXiv 2401.11224) does.

    Returns:
        (batch,), differentiable in the logits.
    """
    given = logits.flatten(2)
    masks = planes(references, logits.shape[1], exclusive=exclusive, like=logits)
    first, second = (masks, given) if swap else (given, masks)
    return PLANE_LOSSES[name](first, second, exclusive)


def pixel_loss(
    name: str, logits: Logits, references: References, *, exclusive: bool, progress: float
) -> PerSample:
    """A pixel loss, averaged over pixels (and over planes where they do not exclude each other).

    Args:
        name: one of `PIXEL_LOSSES`, or "segpgd".
        logits: (batch, classes, *spatial).
        references: as in `plane_loss`.
        exclusive: as in `plane_loss`.
        progress: share of the attack's steps that are done; segpgd's schedule hangs on it.

    Returns:
        (batch,), differentiable in the logits.
    """
    if not exclusive:
        logits = torch.stack([torch.zeros_like(logits), logits], dim=1)
    flat, labels = logits.flatten(2), references.flatten(1)
    if name == "segpgd":
        each = _segpgd(flat, labels, weight=progress / 2)
    else:
        each = PIXEL_LOSSES[name](flat, labels)
    return each.mean(dim=1)


def _bce(given: Tensor, target: Tensor, exclusive: bool) -> Tensor:  # noqa: FBT001, ARG001
    loss = functional.binary_cross_entropy_with_logits(given, target, reduction="none")
    return loss.flatten(1).mean(dim=1)


def _ce(given: Tensor, target: Tensor, exclusive: bool) -> Tensor:  # noqa: FBT001
    if not exclusive:
        return _bce(given, target, exclusive) * given.shape[1]
    return -(target * given.log_softmax(dim=1)).sum(dim=1).mean(dim=1)


def _dice(given: Tensor, target: Tensor, exclusive: bool) -> Tensor:  # noqa: FBT001
    """Mean over the foreground classes, as the audit's own score."""
    soft = given.softmax(dim=1)[:, 1:] if exclusive else given.sigmoid()
    wanted = target[:, 1:] if exclusive else target
    overlap, total = (soft * wanted).sum(dim=2), soft.sum(dim=2) + wanted.sum(dim=2)
    return (1 - (2 * overlap + _SMOOTH) / (total + _SMOOTH)).mean(dim=1)


def _focal(given: Tensor, target: Tensor, exclusive: bool) -> Tensor:  # noqa: FBT001
    if exclusive:
        logs = given.log_softmax(dim=1)
        loss = -((1 - logs.exp()) ** _GAMMA) * logs * target
    else:
        cross = functional.binary_cross_entropy_with_logits(given, target, reduction="none")
        # log of the probability that the plane gives to the wrong side
        wrong = functional.logsigmoid(-given * (2 * target - 1))
        loss = (_GAMMA * wrong).exp() * cross
    return loss.flatten(1).mean(dim=1)


def _margin(flat: Tensor, labels: Tensor) -> Tensor:
    true = flat.gather(1, labels.unsqueeze(1)).squeeze(1)
    hidden = flat.scatter(1, labels.unsqueeze(1), -torch.inf)
    return (hidden.amax(dim=1) - true).clamp(max=_CEILING)


def _segpgd(flat: Tensor, labels: Tensor, *, weight: float) -> Tensor:
    right = winners(flat) == labels
    cross = functional.cross_entropy(flat, labels, reduction="none")
    return torch.where(right, (1 - weight) * cross, weight * cross)


def _cospgd(flat: Tensor, labels: Tensor) -> Tensor:
    share = flat.detach().softmax(dim=1)
    cosine = share.gather(1, labels.unsqueeze(1)).squeeze(1) / share.norm(dim=1)
    return cosine * functional.cross_entropy(flat, labels, reduction="none")


def _masked_ce(flat: Tensor, labels: Tensor) -> Tensor:
    return _segpgd(flat, labels, weight=0.0)


def _masked_spherical(flat: Tensor, labels: Tensor) -> Tensor:
    right = winners(flat) == labels
    true = flat.gather(1, labels.unsqueeze(1)).squeeze(1)
    on_sphere = true / flat.norm(dim=1).clamp(min=1e-12)
    return torch.where(right, -on_sphere, torch.zeros_like(true))


def _jsd(flat: Tensor, labels: Tensor) -> Tensor:
    """½ KL(p ‖ m) + ½ KL(e ‖ m), m = ½ (p + e), e one-hot.

    Everything but the true class is p log 2; the log-softmax keeps it exact for saturated logits.
    """
    logs = flat.log_softmax(dim=1).gather(1, labels.unsqueeze(1)).squeeze(1)
    true = logs.exp()
    middle = torch.log1p(true)  # log of 2 m at the true class
    log2 = torch.log(torch.full_like(true, 2.0))
    own = true * (logs - middle + log2)  # p log(p / m)
    rest = (1 - true) * log2
    return 0.5 * (own + rest) + 0.5 * (log2 - middle)


_Plane = Callable[[Tensor, Tensor, bool], Tensor]
PLANE_LOSSES: Final[Mapping[str, _Plane]] = {
    "ce": _ce,
    "bce": _bce,
    "dice": _dice,
    "dice_ce": lambda g, t, e: _dice(g, t, e) + (_ce(g, t, e) if e else _bce(g, t, e)),
    "focal": _focal,
    "dice_focal": lambda g, t, e: _dice(g, t, e) + _focal(g, t, e),
}
PIXEL_LOSSES: Final[Mapping[str, Callable[[Tensor, Tensor], Tensor]]] = {
    "margin": _margin,
    "cospgd": _cospgd,
    "jsd": _jsd,
    "masked_ce": _masked_ce,
    "masked_spherical": _masked_spherical,
}

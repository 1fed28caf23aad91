"""A short look at every model before its numbers are believed: what the audit's own checks need.

A few samples are sent twice, moved at random, attacked with one step and with many, without any
limit, without gradients and from another model. Plain numbers come out; `palpate.statistics` judges
them. Sources: Carlini et al., arXiv 1902.06705, section 3 to 5; Pintor et al., arXiv 2106.09947,
section 3; the warnings of AutoAttack (Croce and Hein, arXiv 2003.01690).
"""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from palpate.attacks._loss import cross_entropy, margin
from palpate.attacks.fgsm import Fgsm
from palpate.attacks.pgd import Pgd
from palpate.attacks.square import Square
from palpate.campaign._inputs import preparation
from palpate.campaign.plan import PROBE_VERSION, Audit, Probe, protect
from palpate.config import NO_DEFENCE
from palpate.errors import CapabilityError, ConfigError, StoreError
from palpate.perturbation import Perturbation, draw_uniform
from palpate.record import read_json, write_json
from palpate.scoring import scores
from palpate.seeds import Seeds
from palpate.targets.base import Target
from palpate.types import Batch, Images, Logits, PerSample, Prediction

SAMPLES: Final = 16
_LARGE: Final = 65 * 65  # pixels beyond which fewer samples do
_READ: Final = 64  # samples that are only looked at
_STEPS: Final = 8
_UNBOUNDED_STEPS: Final = 40
_UNBOUNDED_STEP: Final = 0.02  # of the bounds' width; longer ones overshoot
_QUERIES: Final = 40
_POINTS: Final = 20
_BOX: Final = 1 / 1020  # a quarter of a grey level
_BOX_POINTS: Final = 8
_STARTS: Final = 2
_USUAL: Final = 4 / 255  # epsilon where the audit has none, as a share of the bounds' width


def run_probes(audit: Audit, probes: Sequence[Probe], folder: Path) -> Iterator[str]:
    """Write every probe that has no good result yet; one that raises is written as an error.

    Yields: the model, with its defence, before each is looked at.

    Raises:
        StoreError: the result cannot be written.
    """
    for one in probes if audit.config.probes else ():
        path = folder / "probes" / f"{one.key}.json"
        if _is_done(path):
            continue
        yield one.model
        try:
            found = probe(audit, one)
        except Exception as error:  # noqa: BLE001 - the audit goes on; its check tells why
            found = {"error": f"{type(error).__name__}: {error}"}
        write_json(path, {"version": PROBE_VERSION, "key": one.key, **one.entry, **found})


def _is_done(path: Path) -> bool:
    try:
        return path.exists() and "error" not in read_json(path)
    except StoreError:
        return False


def probe(audit: Audit, one: Probe) -> dict[str, Any]:
    """Measure one target behind its defence.

    Args:
        audit: data and models.
        one: which target and defence.

    Returns:
        Plain data; `scores` holds one list per attack, in the order of the same samples.
    """
    target = protect(audit, audit.targets[one.target], one.defence)
    batch = spread(audit, SAMPLES)
    found: dict[str, Any] = {
        "samples": len(batch),
        "answers": _answers(target, batch),
        "preparation": preparation(audit.targets[one.target], spread(audit, _READ)),
    }
    if "gradients" in target.offers and any(f == "attacks" for f, _ in audit.perturbations):
        found["gradients"] = _gradients(target, batch)
        found["box"] = _Looks(target, batch, audit.config.seed).box()
        found["attacks"] = _attacks(audit, one, target, batch)
    return found


def spread(audit: Audit, count: int) -> Batch:
    """Samples spread evenly over the data; fewer of large images."""
    samples = audit.samples
    pixels = int(np.prod(samples.batch([0]).images.shape[2:]))
    wanted = count if pixels < _LARGE else max(4, count // 4)
    rows = np.linspace(0, len(samples) - 1, min(wanted, len(samples))).astype(int)
    return samples.batch(rows.tolist())


@dataclass(frozen=True)
class _Looks:
    """Attacks and random points on the same few samples."""

    target: Target
    batch: Batch
    seed: int

    def attacked(
        self, attack: Perturbation, *, start: int = 0, by: Target | None = None
    ) -> list[float]:
        """Scores under one attack, made on `by` where it is not the target itself."""
        source = self.target if by is None else by
        attack.check(source)
        seeds = Seeds(self.seed, "probe", start)
        with attack.applied(source, self.batch, seeds=seeds) as world:
            return self._scores(world.batch)

    def clean(self) -> list[float]:
        return self._scores(self.batch)

    def scattered(self, epsilon: float) -> list[float]:
        """Lowest score over random points of the ball: inside, and in its corners."""
        worst = torch.full((len(self.batch),), torch.inf)
        for trial in range(_POINTS):
            moved = self._moved(epsilon, trial, corners=trial % 2 == 0)
            worst = torch.minimum(worst, torch.tensor(self._scores(self.batch.with_images(moved))))
        return worst.tolist()

    def box(self) -> float:
        """Median over the samples of the mean relative change of the loss in a small box."""
        before, width = self._loss(self.batch), self.target.bounds.high - self.target.bounds.low
        changes: list[PerSample] = []
        for trial in range(_BOX_POINTS):
            moved = self._moved(_BOX * width, trial, corners=False)
            after = self._loss(self.batch.with_images(moved))
            changes.append(((after - before).abs() / before.abs().clamp(min=1e-12)).clamp(max=1))
        return float(torch.stack(changes).mean(dim=0).nan_to_num(1.0).median())

    def _moved(self, epsilon: float, trial: int, *, corners: bool) -> Images:
        seeds = Seeds(self.seed, "probe points", trial).per_sample(self.batch.samples)
        images = self.batch.images.to(self.target.device)
        way = draw_uniform(images, seeds) * 2 - 1
        return (images + epsilon * (way.sign() if corners else way)).clamp(*self.target.bounds)

    def _loss(self, batch: Batch) -> PerSample:
        return _measures(self.target.predict(batch), batch)[-1]

    def _scores(self, batch: Batch) -> list[float]:
        prediction = self.target.predict(batch)
        return scores(prediction, batch.references.to(prediction.logits.device)).tolist()


def _answers(target: Target, batch: Batch) -> dict[str, Any]:
    """The same samples again, and in other company."""
    held = [b.clone() for b in target.module.buffers()]
    first, again = target.predict(batch), target.predict(batch)
    alone = torch.cat([target.predict(part).logits for part in _halves(batch)])
    changed = any(
        not torch.equal(a.nan_to_num(), b.nan_to_num())
        for a, b in zip(held, target.module.buffers(), strict=True)
    )
    shares = first.logits.sum(dim=1)
    return {
        "repeat": _apart(first, again.logits),
        "company": _apart(first, alone),
        "training": [n for n, m in target.module.named_modules() if m.training],
        "state_changed": changed,
        "probabilities": bool(
            first.exclusive
            and (first.logits >= 0).all()
            and torch.allclose(shares, torch.ones_like(shares), atol=1e-4)
        ),
    }


def _halves(batch: Batch) -> list[Batch]:
    """The samples in two batches."""
    middle = (len(batch) + 1) // 2
    return [_rows(batch, slice(0, middle)), _rows(batch, slice(middle, None))][
        : 1 if len(batch) < 2 else 2
    ]


def _rows(batch: Batch, rows: slice) -> Batch:
    return Batch(
        images=batch.images[rows],
        references=batch.references[rows],
        samples=batch.samples[rows],
        cases=batch.cases[rows],
        sites=batch.sites[rows],
        prompts=None if batch.prompts is None else batch.prompts[rows],
    )


def _apart(first: Prediction, logits: Logits) -> dict[str, float]:
    """How far two answers lie apart, as a share of the largest logit, and where they decide so."""
    a, b = first.logits.nan_to_num(), logits.nan_to_num()
    other = Prediction(logits, first.task).decisions
    decided = (first.decisions != other).reshape(len(logits), -1).any(dim=1)
    return {
        "largest": float((a - b).abs().max() / a.abs().max().clamp(min=1e-12)),
        "decisions": int(decided.sum()),
    }


def _gradients(target: Target, batch: Batch) -> dict[str, dict[str, int]]:
    """Per loss, how many samples have a gradient of nothing, or one that is not finite."""
    found: dict[str, dict[str, int]] = {}
    points = batch.images.to(target.device).detach().requires_grad_()
    with target.frozen(), torch.enable_grad():
        logits = target.logits(points, target.tokens(batch.prompts))
        losses = _measures(Prediction(logits, target.task), batch)
        names = ("cross-entropy", "margin")[: len(losses)]
        for name, loss in zip(names, losses, strict=True):
            gradient = torch.zeros_like(points)
            if loss.requires_grad:
                got = torch.autograd.grad(loss.sum(), points, allow_unused=True, retain_graph=True)
                gradient = gradient if got[0] is None else got[0]  # pyright: ignore
            flat = gradient.flatten(1)
            finite = flat.isfinite().all(dim=1)
            zero = (flat == 0).all(dim=1)
            found[name] = {"zero": int(zero.sum()), "not_finite": int((~finite).sum())}
    return found


def _measures(prediction: Prediction, batch: Batch) -> list[PerSample]:
    """Cross-entropy, and the margin where there is one class out of several."""
    references = batch.references.to(prediction.logits.device)
    found = [cross_entropy(prediction.logits, references, exclusive=prediction.exclusive)]
    if prediction.logits.ndim == 2 and prediction.exclusive:
        found.append(margin(prediction.logits, references))
    return found


def _attacks(audit: Audit, one: Probe, target: Target, batch: Batch) -> dict[str, Any]:
    looks = _Looks(target, batch, audit.config.seed)
    width = target.bounds.high - target.bounds.low
    epsilon = _epsilon(audit, width)
    many = Pgd(epsilon=epsilon, steps=_STEPS, stop_at_success=True)
    wanted: dict[str, Perturbation] = {
        "one_step": Fgsm(epsilon=epsilon),
        "double": Pgd(epsilon=min(2 * epsilon, width), steps=_STEPS, stop_at_success=True),
        "unbounded": Pgd(
            epsilon=width,
            steps=_UNBOUNDED_STEPS,
            step_size=_UNBOUNDED_STEP * width,
            random_start=False,
            stop_at_success=True,
        ),
        "gradient_free": Square(epsilon=epsilon, queries=_QUERIES),
    }
    found: dict[str, Any] = {"clean": looks.clean(), "random_points": looks.scattered(epsilon)}
    skipped: dict[str, str] = {}
    for name, attack in wanted.items():
        try:
            found[name] = looks.attacked(attack)
        except (CapabilityError, ConfigError) as error:
            skipped[name] = str(error)
    found["starts"] = [looks.attacked(many, start=start) for start in range(_STARTS)]
    surrogate = _surrogate(audit, one)
    if surrogate is not None:
        found["transfer"] = looks.attacked(many, by=surrogate)
    return {
        "epsilon": epsilon,
        "width": width,
        "steps": {"many": _STEPS, "unbounded": _UNBOUNDED_STEPS},
        "queries": _QUERIES,
        "points": _POINTS,
        "surrogate": None if surrogate is None else surrogate.name,
        "scores": found,
        "skipped": skipped,
    }


def _epsilon(audit: Audit, width: float) -> float:
    """The middle one of the audit's own budgets."""
    budgets = [
        float(component.epsilon)  # pyright: ignore[reportAttributeAccessIssue]
        for family, component in audit.perturbations
        if family == "attacks"
        and getattr(component, "norm", "") == "linf"
        and getattr(component, "epsilon", 0)
    ]
    return float(statistics.median_low(budgets)) if budgets else _USUAL * width


def _surrogate(audit: Audit, one: Probe) -> Target | None:
    """The bare model for a defended one, else the next model; None where there is no other."""
    if one.defence != NO_DEFENCE:
        return audit.targets[one.target]
    if len(audit.targets) < 2:
        return None
    return audit.targets[(one.target + 1) % len(audit.targets)]

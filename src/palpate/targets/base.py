"""The model under audit: `Target` answers, `TargetSource` is the component that loads one."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from palpate import registry
from palpate.errors import PalpateError, TargetError
from palpate.targets._checkpoint import fit_state, load_state
from palpate.targets._head import unwrap
from palpate.targets._laid_out import laid_out
from palpate.targets._memo import Memo
from palpate.targets._normalised import normalised
from palpate.types import (
    Batch,
    Bounds,
    Classification,
    Images,
    Logits,
    MultiLabel,
    Prediction,
    PromptedSegmentation,
    Segmentation,
    Task,
    Tokens,
)

Tokenizer = Callable[[Sequence[str]], Tensor]
"""Prompts -> token ids (prompt, token); its `repr` tells two tokenizers apart."""


@dataclass(frozen=True)
class Target:
    """A model under audit: pixels within `bounds` in, logits out.

    Attributes:
        module: the network, in evaluation mode; the normalisation is applied before it.
        task: what the logits mean.
        bounds: smallest and largest legal pixel value; budgets are in these units.
        mean: per channel (or one for all), subtracted before the module, in units of the bounds.
        std: likewise, divided by.
        name: label in tables.
        tokenizer: prompts -> token ids (prompt, token), for a module that takes them as its second
            argument; None where the task has no prompts.
        bare: the same target without its defence; None where it has none.
        version: of the source that loaded it.
        memo: what it has said of undisturbed batches, within one audit; None outside.
    """

    module: nn.Module
    task: Task
    bounds: Bounds = field(default_factory=Bounds)
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    name: str = "model"
    tokenizer: Tokenizer | None = None
    bare: "Target | None" = None
    version: int = field(default=1, kw_only=True)
    memo: Memo | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not self.bounds.low < self.bounds.high:
            raise TargetError(f"bounds: expected low < high, got {tuple(self.bounds)}")
        if not all(s > 0 for s in self.std):
            raise TargetError(f"{self.name}: std: expected more than 0, got {self.std}")

    @property
    def device(self) -> torch.device:
        """Where the module's first parameter or buffer lives."""
        first = next(self.module.parameters(), next(self.module.buffers(), torch.empty(0)))
        return first.device

    @property
    def offers(self) -> frozenset[str]:
        """What a perturbation may use: "gradients", and "weights" if there are any."""
        has_weights = next(self.module.parameters(), None) is not None
        return frozenset({"gradients", "weights"} if has_weights else {"gradients"})

    def tokens(self, prompts: Sequence[str] | None) -> Tokens | None:
        """Token ids of some prompts, on the target's device; None where the task has no prompts.

        Raises:
            TargetError: a prompted task without prompts, or without a tokenizer.
        """
        if not isinstance(self.task, PromptedSegmentation):
            return None
        if prompts is None or self.tokenizer is None:
            lacking = "samples with prompts" if prompts is None else "a target with a tokenizer"
            raise TargetError(f"{self.name}: expected {lacking} for a prompted task, got none")
        return self.tokenizer(prompts).to(self.device)

    def logits(self, images: Images, tokens: Tokens | None = None) -> Logits:
        """Normalise, run the module, and read its head.

        Args:
            images: (batch, channel, *spatial), in units of the bounds, on the target's device.
            tokens: of the prompts, see `tokens`; None where the task has none.

        Returns:
            (batch, classes, *spatial); a one-logit head z becomes the pair [0, z], so that
            cross-entropy, argmax and margins all mean something.

        Raises:
            TargetError: training mode, unreadable output, no logits, or another class count.
        """
        if self.module.training:
            raise TargetError(f"{self.name}: expected a model in evaluation mode; call .eval()")
        asked = () if tokens is None else (tokens,)
        return self._head(unwrap(self.module(self.normalised(images), *asked), self.name))

    def normalised(self, images: Images) -> Images:
        """What the module is given for some images.

        Raises:
            TargetError: mean or std for another number of channels.
        """
        return normalised(images, self.mean, self.std, name=self.name)

    @torch.no_grad()
    def predict(self, batch: Batch) -> Prediction:
        """Answer one batch without gradients.

        Raises:
            TargetError: as `logits`.
        """
        images, tokens = batch.images.to(self.device), self.tokens(batch.prompts)
        return Prediction(logits=self.logits(images, tokens), task=self.task)

    def preflight(self, batch: Batch) -> None:
        """Refuse a model that is not fit to be audited, before any compute is spent.

        Raises:
            TargetError: as `logits`, or a non-finite output on clean input.
        """
        try:
            prediction = self.predict(batch)
        except PalpateError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            raise TargetError(
                f"{self.name}: expected a model that takes images of shape"
                f" {tuple(batch.images.shape)}, got {type(error).__name__}: {reason}"
            ) from error
        if not bool(prediction.finite.all()):
            bad = [
                s for s, ok in zip(batch.samples, prediction.finite.tolist(), strict=True) if not ok
            ]
            raise TargetError(
                f"{self.name}: expected finite outputs on clean input, got non-finite for"
                f" {len(bad)} of {len(batch)} samples, first {bad[0]!r}"
            )

    def with_module(self, module: nn.Module) -> "Target":
        """The same task and bounds around another module, in evaluation mode."""
        return replace(self, module=module.eval(), memo=None)

    @contextmanager
    def frozen(self) -> Generator[None]:
        """Ask for no parameter gradients inside, and leave every `requires_grad` as it was."""
        wanted = [p for p in self.module.parameters() if p.requires_grad]
        try:
            for parameter in wanted:
                parameter.requires_grad_(False)
            yield
        finally:
            for parameter in wanted:
                parameter.requires_grad_(True)

    def digest(self) -> str:
        """SHA-256 over structure, weights, buffers, task and preprocessing; no file names."""
        sha = hashlib.sha256()
        contract = [repr(self.task), list(self.bounds), self.mean, self.std, repr(self.module)]
        if self.tokenizer is not None:
            contract.append(repr(self.tokenizer))
        if self.version > 1:  # the first goes without saying, as it did in older records
            contract.append(f"version {self.version}")
        sha.update(registry.canonical(contract).encode())
        for name, tensor in sorted(self.module.state_dict().items()):
            raw = tensor.detach().cpu().contiguous()
            sha.update(f"{name} {raw.dtype} {tuple(raw.shape)}".encode())
            sha.update(raw.flatten().view(torch.uint8).numpy().tobytes())
        return sha.hexdigest()

    @property
    def is_exclusive(self) -> bool:
        """Whether classes exclude each other (softmax) or not (sigmoid)."""
        return isinstance(self.task, Classification) or (
            isinstance(self.task, Segmentation) and self.task.exclusive
        )

    def _head(self, raw: Tensor) -> Logits:
        classes = len(self.task.classes)
        if not raw.is_floating_point():
            kind = raw.dtype
            raise TargetError(f"{self.name}: expected logits, got {kind}; leave out the argmax")
        if isinstance(self.task, Classification | MultiLabel) and raw.ndim == 1:
            raw = raw.unsqueeze(1)
        if self.is_exclusive and classes == 2 and raw.ndim >= 2 and raw.shape[1] == 1:
            return torch.cat([torch.zeros_like(raw), raw], dim=1)
        if raw.ndim < 2 or raw.shape[1] != classes:
            raise TargetError(
                f"{self.name}: expected {classes} classes {self.task.classes} in the model's"
                f" output, got shape {tuple(raw.shape)}"
            )
        return raw


@dataclass(frozen=True)
class TargetSource(ABC):
    """Base of the components that load a target.

    A component builds the bare network; the final `load` fits the weights, puts the network into
    evaluation mode and wraps it. `serves` says for which tasks it can build one; `version` is
    raised when the same weights would give other answers.

    Attributes:
        weights: .safetensors, or a state dict that loads with weights_only; None for fresh ones.
        label: name in tables; empty for the component's own.
        mean: per channel or one for all, in units of the dataset's bounds.
        std: likewise.
        allow_pickle: load a pickled checkpoint although it can run code.
        channels_last: lay out the weights for speed; answers stay the same up to rounding.
    """

    family: ClassVar[str] = "targets"
    version: ClassVar[int] = 1
    serves: ClassVar[tuple[type[Task], ...]] = (
        Classification,
        MultiLabel,
        Segmentation,
        PromptedSegmentation,
    )

    weights: Path | None = None
    label: str = ""
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.5,)
    allow_pickle: bool = False
    channels_last: bool = field(default=False, kw_only=True)

    @abstractmethod
    def build(self, *, classes: int, channels: int) -> nn.Module:
        """Make the network with fresh weights for so many outputs and input channels."""

    @abstractmethod
    def default_label(self) -> str:
        """Name in tables when the audit file gives none."""

    def outputs(self, task: Task) -> int:
        """How many logits or planes the network gives for a task: one per class by default."""
        return len(task.classes)

    def own_state(self, state: Mapping[str, Tensor], module: nn.Module) -> Mapping[str, Tensor]:  # noqa: ARG002
        """The tensors of a checkpoint under the names that the built network has for them."""
        return state

    def kept_state(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Those of a trained network's tensors that a checkpoint has to hold."""
        return state

    def tokenizer(self) -> Tokenizer | None:
        """What turns prompts into token ids; None for networks that take none."""
        return None

    @final
    def load(self, *, task: Task, channels: int, bounds: Bounds) -> Target:
        """Build the network, fit its weights and wrap it in evaluation mode.

        Raises:
            TargetError: the component has no network for such a task.
            CheckpointError: weights missing, unsafe or not fitting (the keys are named).
        """
        if not isinstance(task, self.serves):
            expected = " or ".join(kind.__name__ for kind in self.serves)
            raise TargetError(
                f"{registry.name_of(self)}: expected a task of {expected}, got"
                f" {type(task).__name__}"
            )
        module = self.build(classes=self.outputs(task), channels=channels)
        if self.weights is not None:
            state = load_state(self.weights, allow_pickle=self.allow_pickle)
            fit_state(module, self.own_state(state, module), self.weights)
        return Target(
            module=laid_out(module.eval(), channels_last=self.channels_last),
            task=task,
            bounds=bounds,
            mean=self.mean,
            std=self.std,
            name=self.label or self.default_label(),
            tokenizer=self.tokenizer(),
            version=self.version,
        )

"""Base of the attacks that climb a loss which the audit file chooses."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from typing_extensions import override

from palpate.attacks._expectation import ExpectedSearch
from palpate.attacks._goal import Goal, aimed_at, check_goal
from palpate.attacks._gradient import Search
from palpate.attacks._loss import LossName, Objective
from palpate.attacks._rough import RoughSearch
from palpate.attacks._wording import check_prompted, check_wording, worded
from palpate.attacks.base import AnyAttack, Attack
from palpate.errors import ConfigError
from palpate.registry import Number
from palpate.targets.base import Target
from palpate.types import Batch, Images, Prediction, References, Tokens


@dataclass(frozen=True)
class ClimbingAttack(AnyAttack):
    """Base of the attacks that climb a loss, whatever their budget is.

    Attributes:
        loss: what is increased; which losses there are depends on the task.
        swap_arguments: call the loss with prediction and mask exchanged, as the public code of the
            U-Net study does (masks only); to reproduce it, not to attack well.
        label: take the reference for the truth, or what the target decides on the clean input.
        goal: "break" the decision, or bring the mask near to one that is made from the label:
            "erase", "shift", "grow", "phantom".
        prompt: the question under which the attacker searches, for prompted tasks: "same" as the
            audit asks, "fixed:<kind>" for one of the wordings of the data, or "random" for any of
            them, drawn for each sample. The answer is scored under the audit's question.
        eot: draws over which a target that is random inside is averaged, each a pass of its own;
            1 asks the target as it is. See `_expectation`; memory grows with it.
    """

    loss: LossName = field(default="ce", kw_only=True)
    swap_arguments: bool = field(default=False, kw_only=True)
    label: Literal["reference", "prediction"] = field(default="reference", kw_only=True)
    goal: Goal = field(default="break", kw_only=True)
    prompt: str = field(default="same", kw_only=True)
    eot: int = field(default=1, kw_only=True)

    def __post_init__(self) -> None:
        check_wording(self.prompt)
        if self.eot < 1:
            raise ConfigError(f"eot: expected 1 or more, got {self.eot}")
        _ = self.objective  # refuses what does not fit together

    @property
    @override
    def objective(self) -> Objective:
        return Objective(self.loss, self.swap_arguments, towards=self.goal != "break")

    @override
    def check(self, target: Target) -> None:
        """Refuse a loss or a goal that the task does not have.

        Raises:
            ConfigError: with the losses that the task has.
        """
        super().check(target)
        self.objective.check(target.task)
        check_goal(self.goal, target.task)
        check_prompted(self.prompt, target.task)

    @override
    def _prompts(self, batch: Batch, seeds: Sequence[int]) -> tuple[str, ...] | None:
        return worded(batch, self.prompt, seeds)

    @override
    def _searching(
        self, target: Target, clean: Images, references: References, tokens: Tokens | None
    ) -> Search:
        if self.label == "prediction":
            with torch.no_grad():
                decided = Prediction(target.logits(clean, tokens), target.task).decisions
            references = decided.to(references.dtype)
        aim = aimed_at(self.goal, references, target.task)
        if self.eot > 1:
            return ExpectedSearch(
                target,
                clean,
                references,
                self.objective,
                tokens=tokens,
                aim=aim,
                draws=self.eot,
            )
        return Search(target, clean, references, self.objective, tokens=tokens, aim=aim)


@dataclass(frozen=True)
class LossAttack(ClimbingAttack, Attack):
    """Base of the attacks that climb a loss within a fixed norm of the difference."""

    def __post_init__(self) -> None:
        Attack.__post_init__(self)
        ClimbingAttack.__post_init__(self)


@dataclass(frozen=True)
class RefinedAttack(LossAttack):
    """Base of the attacks that take many gradient steps.

    Attributes:
        precision: "float32", or "bfloat16" for the gradients alone: what is found is measured in
            float32, so no success is reported that is none, but a few more samples may stand.
    """

    precision: Literal["float32", "bfloat16"] = field(default="float32", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.precision != "float32" and self.eot > 1:
            raise ConfigError(f"precision: expected 'float32' for eot {self.eot}, got 'bfloat16'")

    @override
    def _searching(
        self, target: Target, clean: Images, references: References, tokens: Tokens | None
    ) -> Search:
        plain = super()._searching(target, clean, references, tokens)
        if self.precision == "float32":
            return plain
        return RoughSearch(
            target,
            clean,
            plain.references,
            plain.objective,
            aim=plain.aim,
            tokens=tokens,
            leaving=bool(getattr(self, "stop_at_success", False)),
        )

    @override
    def _finished(self, search: Search) -> Images:
        if isinstance(search, RoughSearch):
            search.confirm()
        return super()._finished(search)


@dataclass(frozen=True)
class SteppedAttack(RefinedAttack):
    """Base of the attacks that take gradient steps of one length from one start.

    Attributes:
        steps: gradient steps.
        step_size: in units of the bounds; None for the attack's own choice.
    """

    steps: int = 10
    step_size: Number | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_steps(self.steps, self.step_size)

    @property
    @override
    def passes(self) -> float:
        return 3.0 * self.steps + 2


def check_steps(steps: int, step_size: float | None) -> None:
    """Refuse a loop that cannot run.

    Raises:
        ConfigError: no step, or a step that is not positive.
    """
    if steps < 1:
        raise ConfigError(f"steps: expected 1 or more, got {steps}")
    if step_size is not None and not step_size > 0:
        raise ConfigError(f"step_size: expected more than 0, got {step_size}")

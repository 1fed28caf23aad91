"""Recipe file -> frozen `Recipe`: everything that decides the weights, and nothing else."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from palpate import registry
from palpate.config import Spec, read_yaml
from palpate.errors import ConfigError
from palpate.training.adversarial import Adversarial
from palpate.training.augment import Augmentation


class Start(BaseModel):
    """Weights of an earlier recipe to begin with.

    Attributes:
        weights: checkpoint, from the folder of the recipe.
        part: take the tensors whose names begin so, and leave the others fresh; empty for all.
        frozen: learn the others only.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    weights: str
    part: str = ""
    frozen: bool = False


class Recipe(BaseModel):
    """How one checkpoint is made.

    Attributes:
        schema_version: version of this format.
        dataset: `{name: ..., parameters}`; its own split parameter is not given.
        target: `{name: ..., constructor parameters}` without weights.
        start: what to begin with instead of fresh weights, or None.
        output: name of the checkpoint, without suffix; the caller chooses the folder. Empty to name
            it after target and dataset.
        epochs: passes over the training images.
        batch_size: largest batch; an epoch is cut into batches of equal size, give or take one.
        optimiser: `adamw`, or `sgd` with Nesterov momentum 0.9.
        learning_rate: peak.
        weight_decay: on matrices and kernels; not on biases, norms and what the model excludes.
        schedule: after the warm-up, `cosine` to 0, `steps` (a tenth from half of the epochs on, a
            hundredth from three quarters on) or `constant`.
        warmup_epochs: linear rise from 0.
        loss: `cross_entropy`, or `dice_ce` for masks: soft Dice of the batch plus cross-entropy.
        label_smoothing: share of the target spread over all classes.
        class_balanced: weigh classes by the inverse of their frequency.
        gradient_clip: largest gradient norm, or None.
        augmentation: changes of the training images, applied in this order.
        adversarial: attack in the loop, or None; see `training.adversarial`.
        mismatched: share of the images of an epoch that meet a question of another site, to which
            the right answer is an empty mask; see `training.foreign`.
        ema: decay per step of the averaged weights, which are then what is validated and kept; or
            None for the weights as trained.
        select_by: validation score whose best epoch is kept, ties by loss; `robust` is the score
            under the attack of `adversarial`; `asked` is the Dice over questions that fit and those
            that do not, in the shares of the training; `last` keeps the last.
        storage: type of the checkpoint's numbers; the card speaks of the model as stored.
        seed: root of initial weights, order, augmentation and dropout.
        threads: torch threads; sums are cut differently for other numbers, so it decides bits.
        device: where to train; the same bits come back on `cpu` only.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    dataset: Spec
    target: Spec
    start: Start | None = None
    output: str = ""
    epochs: int = Field(ge=1)
    batch_size: int = Field(default=64, ge=2)
    optimiser: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = Field(default=1e-3, gt=0.0)
    weight_decay: float = Field(default=0.05, ge=0.0)
    schedule: Literal["cosine", "steps", "constant"] = "cosine"
    warmup_epochs: float = Field(default=0.0, ge=0.0)
    loss: Literal["cross_entropy", "dice_ce"] = "cross_entropy"
    label_smoothing: float = Field(default=0.0, ge=0.0, lt=1.0)
    class_balanced: bool = False
    gradient_clip: float | None = Field(default=None, gt=0.0)
    augmentation: tuple[Augmentation, ...] = ()
    adversarial: Adversarial | None = None
    mismatched: float = Field(default=0.0, ge=0.0, lt=1.0)
    ema: float | None = Field(default=None, gt=0.0, lt=1.0)
    select_by: Literal["accuracy", "auc", "dice", "loss", "robust", "asked", "last"] = "loss"
    storage: Literal["float32", "float16"] = "float32"
    seed: int = 0
    threads: int = Field(default=1, ge=1)
    device: Literal["cpu", "cuda"] = "cpu"

    @model_validator(mode="after")
    def _named(self) -> Self:
        for key, spec in (("dataset", self.dataset), ("target", self.target)):
            if "name" not in spec:
                raise ValueError(f"{key}: expected a 'name'")
        return self


def load_recipe(path: Path, overrides: tuple[str, ...] = ()) -> Recipe:
    """Read a recipe file.

    Args:
        path: YAML file.
        overrides: `a.b=c` settings, c in YAML, such as `dataset.flag=bloodmnist`.

    Raises:
        ConfigError: unreadable, not YAML, unknown key, wrong type or value out of range.
    """
    return parse_recipe(read_yaml(path, overrides), where=path.name)


def parse_recipe(data: Any, *, where: str = "recipe") -> Recipe:
    """Validate plain data.

    Raises:
        ConfigError: one line that names the key, what was expected and what came.
    """
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{where}: {registry.first_line(error)}") from None

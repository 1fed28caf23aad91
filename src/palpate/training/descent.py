"""The optimiser of a recipe and its learning rate."""

import math

import torch
from torch import Tensor, nn

from palpate.training.recipe import Recipe


def make_optimiser(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Over all parameters that ask for gradients, with decay where the recipe puts it."""
    # `no_weight_decay` is timm's convention for models that exclude some of their parameters.
    excluded: set[str] = getattr(model, "no_weight_decay", set)()
    decayed: list[Tensor] = []
    free: list[Tensor] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue  # frozen beside an adapter
        (free if parameter.ndim < 2 or name in excluded else decayed).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(groups, recipe.learning_rate, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, recipe.learning_rate)


def rate_at(recipe: Recipe, done: float) -> float:
    """Learning rate after `done` epochs, which may be a fraction."""
    if done < recipe.warmup_epochs:
        return recipe.learning_rate * done / recipe.warmup_epochs
    if recipe.schedule == "constant":
        return recipe.learning_rate
    if recipe.schedule == "steps":
        falls = sum(done > recipe.epochs * share for share in (0.5, 0.75))
        return recipe.learning_rate * 0.1**falls
    share = (done - recipe.warmup_epochs) / max(recipe.epochs - recipe.warmup_epochs, 1e-9)
    return recipe.learning_rate * (1 + math.cos(math.pi * share)) / 2

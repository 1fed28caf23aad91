"""Recipes that make models to audit: `train(load_recipe(path), build, splits=...)`."""

from palpate.training.examples import Examples
from palpate.training.fit import fit
from palpate.training.recipe import Recipe, load_recipe
from palpate.training.train import train

__all__ = ["Examples", "Recipe", "fit", "load_recipe", "train"]

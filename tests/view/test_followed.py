"""The sample that every cell follows is no worst case: the page neither lists nor counts it."""

import numpy as np
import pytest

from palpate.view.files import RunFiles
from palpate.view.shelf import Shelf


def images(sample, *, worst):
    image = np.zeros((1, 1, 8, 8), dtype=np.float32)
    own = {"sample": np.array([sample]), "trial": np.array([0]), "clean": image, "perturbed": image}
    followed = {f"followed_{name}": array for name, array in own.items()}
    several = {name: np.concatenate([array, array]) for name, array in own.items()}
    several["sample"] = np.array(worst)
    return {**(several if worst else {}), **followed, "followed_right": np.array([True])}


@pytest.mark.parametrize("worst", [("s0003", "s0001"), ()], ids=["with worst cases", "without"])
def test_it_is_not_listed_among_the_worst_cases(maker, worst):
    maker.cell("mamba", outcomes=[maker.outcome(i, right=True) for i in range(40)])
    rows = [maker.outcome(i, right=maker.names[i][0] not in worst) for i in range(40)]
    setting = {"epsilon": 0.01, "norm": "linf"}
    shown = images("s0007", worst=worst)
    cell = maker.cell("mamba", "attacks", "fgsm", setting=setting, outcomes=rows, images=shown)
    maker.write()
    shelf = Shelf(RunFiles.open(maker.folder))

    assert shelf.cases(cell.key) == [(name, 0) for name in worst]
    assert shelf.case(cell.key, "s0007", trial=0) == []
    assert all(len(shelf.case(cell.key, name, trial=0)) == 3 for name in worst)

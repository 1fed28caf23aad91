import numpy as np
import pytest

from palpate.statistics.cells import Cells, budgets, design_of, is_chosen, stacked


def test_stacked_rows_keep_cells_without_any_decision(maker):
    maker.cell("mamba", outcomes=[maker.outcome(i, right=True) for i in range(40)])
    setting = {"epsilon": 0.01, "norm": "linf"}
    maker.cell(
        "mamba", "attacks", "fgsm", setting=setting, outcomes=[maker.lost(i) for i in range(40)]
    )
    rows = [maker.outcome(i, right=False) for i in range(40)]
    maker.cell("mamba", "attacks", "pgd", setting=setting, outcomes=rows)
    cells = Cells(maker.write())
    [(members, name, planned)] = budgets(cells)
    assert planned == 2
    assert name == '{"attacks":["fgsm","pgd"],"epsilon":0.01,"norm":"linf"}'
    rows = stacked([cells.rows(cell) for cell in members])
    assert rows["decision"].shape == (80, 1)
    assert (rows["decision"][:40] == -1).all()
    assert np.isnan(rows["probabilities"][:40]).all()


def test_attacks_of_other_norms_and_budgets_are_kept_apart(maker):
    rows = [maker.outcome(i, right=True) for i in range(40)]
    maker.cell("mamba", outcomes=rows)
    for epsilon, norm in ((0.01, "linf"), (0.01, "l2"), (0.02, "linf")):
        maker.cell(
            "mamba", "attacks", "pgd", setting={"epsilon": epsilon, "norm": norm}, outcomes=rows
        )
    setting = {"epsilon": 0.01, "norm": "linf", "tokens": 1}
    maker.cell("mamba", "attacks", "joint", setting=setting, outcomes=rows)
    setting = {"epsilon": 0.01, "norm": "linf", "update": "blend"}
    maker.cell("mamba", "attacks", "fgsm", setting=setting, outcomes=rows)
    found = [name for _, name, _ in budgets(Cells(maker.write()))]
    assert len(found) == 5
    assert found[-2] == '{"attacks":["joint"],"epsilon":0.01,"norm":"linf","tokens":1}'
    # it moves a pixel by up to twice its epsilon
    assert found[-1] == '{"attacks":["fgsm"],"epsilon":0.01,"norm":"linf","update":"blend"}'


@pytest.mark.parametrize(
    ("family", "notes", "crossed"),
    [
        ("faults", [{"share": 1.0}], True),
        ("faults", [{"damage": 0.1}], False),
        ("attacks", [], False),
    ],
)
def test_only_drawn_faults_cross_the_cases(family, notes, crossed):
    rows = {"case": np.array(["a", "b"]), "trial": np.array([0, 0])}
    assert design_of(rows, family, notes=notes).crossed is crossed
    assert is_chosen(notes) is (family == "faults" and not crossed)

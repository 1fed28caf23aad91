import numpy as np
import pytest

from palpate.metrics.base import TaskInfo
from palpate.statistics.cells import Cells
from palpate.view.samples import OUTCOMES, outcomes, samples_sheet
from palpate.view.sheet import Query
from palpate.view.shelf import Shelf


def said(record, cell):
    cells = Cells(record)
    return [OUTCOMES[i] for i in outcomes(cells.rows(cell), cell.family, task=cells.task)]


def sheet_of(record, cell, pictured=None):
    cells = Cells(record)
    return samples_sheet(cells.rows(cell), cell, task=cells.task, pictured=pictured or {})


def titles(sheet):
    return [column.title for column in sheet.columns]


def column(sheet, name):
    return next(c for c in sheet.columns if c.name == name).plain()


def test_outcomes_of_classes(maker):
    rights = [True, True, False, False, True]
    clean = maker.cell("m", outcomes=[maker.outcome(i, right=r) for i, r in enumerate(rights)])
    now = [True, False, False, True, None]
    rows = [maker.lost(i) if r is None else maker.outcome(i, right=r) for i, r in enumerate(now)]
    cell = maker.cell("m", "attacks", "fgsm", setting={"epsilon": 0.1}, outcomes=rows)
    record = maker.write()

    assert said(record, clean) == ["right", "right", "wrong", "wrong", "right"]
    expected = ["right", "broken", "wrong, as when clean", "right", "non-finite"]
    assert said(record, cell) == expected
    assert OUTCOMES.index("non-finite") < OUTCOMES.index("broken") < OUTCOMES.index("right")


def test_without_the_clean_cell_nothing_is_called_broken(maker):
    rows = [maker.outcome(0, right=True), maker.outcome(1, right=False)]
    cell = maker.cell("m", "attacks", "fgsm", setting={"epsilon": 0.1}, outcomes=rows)
    assert said(maker.write(), cell) == ["right", "wrong, clean answer unknown"]


def test_a_label_lost_is_broken_although_another_is_won(maker):
    maker.kind, maker.classes = "multi_label", ("a", "b")
    changes = {"reference": (1, 1), "probabilities": (0.5, 0.5), "score": 0.5}
    clean = [maker.outcome(i, right=True, decision=(1, 0), **changes) for i in range(3)]
    maker.cell("m", outcomes=clean)
    now = [
        maker.outcome(0, right=True, decision=(0, 1), **changes),
        maker.outcome(1, right=True, decision=(1, 0), **changes),
        maker.outcome(2, right=True, decision=(1, 1), **(changes | {"score": 1.0})),
    ]
    cell = maker.cell("m", "attacks", "fgsm", setting={"epsilon": 0.1}, outcomes=now)
    record = maker.write()

    assert said(record, cell) == ["broken", "wrong, as when clean", "right"]
    sheet = sheet_of(record, cell)
    assert column(sheet, "answer") == ["b", "a", "a, b"]
    assert titles(sheet) == [
        "sample",
        "case",
        "class",
        "clean answer",
        "answer",
        "outcome",
        "labels right",
        "loss",
    ]


def test_masks_are_compared_by_their_score(maker):
    maker.kind, maker.classes = "segmentation", ("background", "lesion")
    dense = {"reference": (), "decision": (), "probabilities": ()}
    clean = [maker.outcome(i, right=True, **(dense | {"score": 0.8})) for i in range(4)]
    first = maker.cell("m", outcomes=clean)
    scores = (0.8, 0.79, 0.9, 0.0)
    now = [
        maker.outcome(i, right=True, finite=i < 3, **(dense | {"score": s}))
        for i, s in enumerate(scores)
    ]
    cell = maker.cell("m", "attacks", "fgsm", setting={"epsilon": 0.1}, outcomes=now)
    record = maker.write()

    assert said(record, first) == ["not compared with clean"] * 4
    assert said(record, cell) == ["not worse", "worse than clean", "not worse", "non-finite"]
    sheet = sheet_of(record, cell)
    assert titles(sheet) == ["sample", "case", "outcome", "Dice", "loss"]
    assert np.round(column(sheet, "loss"), 6).tolist() == [0.0, 0.01, -0.1, 0.8]


def test_only_columns_that_say_something(maker):
    rows = [maker.outcome(i, right=True, case=maker.names[i][0]) for i in range(4)]
    cell = maker.cell("m", outcomes=rows)
    assert titles(sheet_of(maker.write(), cell)) == [
        "sample",
        "class",
        "answer",
        "outcome",
        "probability",
    ]


def test_every_column(awkward, key_of):
    shelf = Shelf.open(awkward.folder)
    sheet = shelf.samples(key_of("fgsm"))

    said = ["sample", "case", "site", "class", "clean answer", "answer", "outcome", "could act"]
    assert titles(sheet) == [*said, "probability", "L∞", "L2", "picture"]
    assert [row[0] for row in sheet.page(Query(sort="picture", count=2))["rows"]] == [
        "s0030",
        "s0002",
    ]
    assert set(column(sheet, "site")) == {"unknown", "A", "B"}
    assert column(sheet, "status")[8] == "no gradient"

    faults = shelf.samples(key_of("weight_bit_flip"))
    extra = [title for title in titles(faults) if title not in titles(sheet)]
    assert extra == ["trial", "fault", "verdict"]
    assert set(column(faults, "fault")) == {f"head.{t}[0, {t}] bit 30" for t in range(3)}
    assert set(column(faults, "verdict")) == {"masked", "SDC"}


def test_changed_values_are_shown_where_they_are_the_norm(maker):
    maker.cell("m", outcomes=[maker.outcome(i, right=True) for i in range(4)])
    rows = [maker.outcome(i, right=False, linf=1.0, l0=float(i)) for i in range(4)]
    setting = {"epsilon": 8.0, "norm": "l0"}
    cell = maker.cell("m", "attacks", "sigma_zero", setting=setting, outcomes=rows)
    sheet = sheet_of(maker.write(), cell)

    assert titles(sheet)[-1] == "values changed"
    assert column(sheet, "l0") == [0, 1, 2, 3]


def test_two_classes_of_one_name(maker):
    maker.classes = ("same", "same", "other")
    rows = [maker.outcome(i, right=True) for i in range(3)]
    cell = maker.cell("m", outcomes=rows)
    assert column(sheet_of(maker.write(), cell), "reference") == ["same", "same", "other"]


def test_no_decision_has_no_probability(maker):
    cell = maker.cell("m", outcomes=[maker.lost(0), maker.lost(1)])
    sheet = sheet_of(maker.write(), cell)
    assert column(sheet, "answer") == ["none", "none"]
    assert column(sheet, "chance") == [None, None]


@pytest.mark.parametrize("kind", ["classification", "multi_label"])
def test_labels_out_of_range_are_named_by_number(maker, kind):
    row = maker.outcome(0, right=True, reference=(5,), decision=(5,))
    cell = maker.cell("m", outcomes=[row])
    rows = Cells(maker.write()).rows(cell)
    sheet = samples_sheet(rows, cell, task=TaskInfo(kind, ("a",)), pictured={})
    assert column(sheet, "reference") == (["class 5"] if kind == "classification" else ["no label"])

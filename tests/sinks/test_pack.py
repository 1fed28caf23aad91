"""What may leave for a tracker, and what stays at home."""

import dataclasses
import re

import pytest

import palpate
from palpate.errors import UnknownComponent
from palpate.sinks import send
from palpate.sinks._pack import COLUMNS, packed
from palpate.statistics.summary import summarise


def test_every_number_of_the_summary_goes_with_its_ends(rich):
    pack, rows = packed(rich), summarise(rich).rows
    known = [row for row in rows if row.value is not None]

    assert [row[COLUMNS.index("value")] for row in pack.rows] == [row.value for row in known]
    assert len([k for k in pack.metrics if not k.endswith((".low", ".high"))]) == len(known)
    low = sum(row.low is not None for row in known)
    assert len([k for k in pack.metrics if k.endswith(".low")]) == low
    assert pack.metrics["mamba/clean/accuracy"] == known[0].value
    setting = "epsilon 0.003922 norm linf random_start True restarts 1 steps 20"
    assert f"mamba/pgd/{setting}/robust_accuracy.low" in pack.metrics


def test_keys_hold_only_what_both_trackers_take(synthetic, tmp_path):
    names = ("<script>ä", "<script>ö")
    maker = synthetic.Maker(tmp_path, targets=names)
    for name in names:
        maker.cell(name, outcomes=[maker.outcome(i, right=i > 3) for i in range(40)])
    setting = {"epsilon": 0.01, "norm": "linf", "tensors": ["layer" * 99]}
    rows = [maker.outcome(i, right=i > 9, linf=0.01) for i in range(40)]
    maker.cell(names[0], "attacks", "fgsm", setting=setting, outcomes=rows)
    pack = packed(maker.write())

    assert all(re.fullmatch(r"[\w\-. /]{1,206}", key, re.ASCII) for key in pack.metrics)
    assert {"_script_/clean/accuracy", "_script_/clean/accuracy_"} <= set(pack.metrics)


def test_neither_folder_nor_label_of_the_data_goes(rich):
    pack = packed(rich)
    everything = repr(pack)

    assert str(rich.folder) not in everything
    assert rich.manifest["dataset"]["label"] == "breast"
    assert not re.search(r"\bbreast\b", everything)
    assert pack.origin["palpate.data_digest"] == "d" * 64
    assert pack.name == "medmnist ffffffff"


def test_the_label_of_arrays_stays_at_home(rich):
    config = {**rich.manifest["config"], "dataset": {"name": "Jane Doe 1970"}}
    pack = packed(dataclasses.replace(rich, manifest={**rich.manifest, "config": config}))

    assert pack.origin["palpate.dataset"] == "arrays"
    assert "Jane" not in repr(pack)


def test_no_name_of_a_sample_or_case_goes(rich):
    cells = [rich.samples(cell) for cell in rich.cells]
    names = {str(n) for c in cells for column in ("sample", "case") for n in c[column]}
    assert len(names) == 80
    everything = repr(packed(rich))
    assert not [name for name in names if f"'{name}'" in everything]


def test_an_empty_run_packs(maker):
    pack = packed(maker.write())
    assert pack.rows == ()
    assert pack.metrics == {}


def test_other_trackers_are_refused(rich):
    with pytest.raises(UnknownComponent, match="no tracker named 'mlfow'; did you mean 'mlflow'"):
        send(rich, "mlfow")
    with pytest.raises(UnknownComponent, match="known: mlflow, wandb"):
        palpate.Run(rich).log_to("x")

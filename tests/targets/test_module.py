import textwrap

import pytest

from palpate import Classification, registry
from palpate.errors import TargetError
from palpate.types import Bounds

TASK = Classification(("a", "b"))


def load(factory, **parameters):
    source = registry.create("targets", "module", {"factory": factory, **parameters})
    return source.load(task=TASK, channels=1, bounds=Bounds())


def test_a_function_in_a_file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        textwrap.dedent("""
            from torch import nn
            def make(width): return nn.Sequential(nn.Flatten(), nn.Linear(width, 2))
        """)
    )

    target = load(f"{path}:make", arguments={"width": 16})

    assert target.name == "make"
    assert not target.module.training


def test_an_importable_class():
    target = load("torch.nn:Linear", arguments={"in_features": 4, "out_features": 2})

    assert target.name == "Linear"


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("", "expected 'module:function', got ''"),
        ("nowhere.at_all:make", "No module named 'nowhere'"),
        ("torch.nn:Lynear", "Lynear"),
        ("missing.py:make", "no such file missing.py"),
        ("builtins:dict", "expected an nn.Module, got dict"),
    ],
)
def test_mistakes_are_named(factory, message):
    with pytest.raises(TargetError, match=message):
        load(factory)

import subprocess
import sys

import numpy as np
import pytest

from palpate import registry
from palpate.metrics.auc import Auc
from palpate.metrics.balanced_accuracy import BalancedAccuracy
from palpate.metrics.sensitivity import Sensitivity
from palpate.metrics.specificity import Specificity

NAMES = registry.names("metrics")


@pytest.mark.parametrize("name", NAMES)
def test_metrics_are_components_with_words_for_the_glossary(name):
    metric = registry.load("metrics", name)()
    assert registry.name_of(metric) == name
    assert metric.meaning.endswith(".")
    assert metric.better in ("higher", "lower")
    assert metric.tasks
    assert metric.families


def test_no_tensor_library_is_imported():
    code = (
        "import sys; from palpate import registry\n"
        "for name in registry.names('metrics'): registry.load('metrics', name)\n"
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("metric", [Auc, BalancedAccuracy, Sensitivity, Specificity])
def test_classes_without_a_sample_are_said(make_rows, metric):
    rows = make_rows([0, 0, 2, 2], [0, 1, 2, 2], probabilities=np.full((4, 3), 1 / 3))
    assert metric().note(rows) == "no sample of 1 of 3 classes"
    whole = make_rows([0, 1, 2, 2], [0, 1, 2, 2], probabilities=np.full((4, 3), 1 / 3))
    assert metric().note(whole) == ""

import subprocess
import sys

import pytest

from palpate import registry

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

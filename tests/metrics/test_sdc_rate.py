import numpy as np
import pytest

from palpate.metrics.sdc_rate import SdcRate


def test_is_the_share_of_silent_changes(make_rows, binary, value):
    verdict = np.array(["sdc", "masked", "due", "masked"])
    rows = make_rows([0, 0, 1, 1], [1, 0, -1, 1], verdict=verdict)
    assert value(SdcRate().measure(rows, binary), rows, crossed=True) == pytest.approx(1 / 4)


def test_speaks_of_faults_only():
    assert SdcRate().applies(task="segmentation", family="faults")
    assert not SdcRate().applies(task="classification", family="attacks")

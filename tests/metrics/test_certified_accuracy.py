import numpy as np
import pytest

from palpate.errors import ConfigError
from palpate.metrics.base import TaskInfo
from palpate.metrics.certified_accuracy import CertifiedAccuracy

TASK = TaskInfo("classification", ("a", "b"))


def rows(radius, certified, abstained):
    return {
        name: np.array(values, dtype=np.float32)
        for name, values in (("radius", radius), ("certified", certified), ("abstained", abstained))
    }


@pytest.mark.parametrize(("radius", "expected"), [(0.0, 0.5), (0.5, 0.25), (2.0, 0.0)])
def test_right_and_proved_far_enough(radius, expected):
    given = rows([1.0, 0.2, 0.9, 0.0], [1, 1, 0, 0], [0, 0, 0, 1])
    metric = CertifiedAccuracy(radius=radius)

    assert metric.measure(given, TASK).values.mean() == expected
    assert metric.note(given) == "abstained from 25.0%"


def test_of_masks_it_is_the_share_of_the_pixels():
    given = rows([0.1, 0.1], [0.75, 0.25], [0.2, 0.6])
    assert CertifiedAccuracy(radius=0.1).measure(given, TASK).values.tolist() == [0.75, 0.25]


def test_a_model_without_certificates_has_no_value():
    given = rows([np.nan] * 3, [np.nan] * 3, [np.nan] * 3)
    assert np.isnan(CertifiedAccuracy().measure(given, TASK).values).all()
    assert CertifiedAccuracy().note(given) == "the model proves nothing of its answers"


def test_it_speaks_of_undisturbed_images_only():
    assert CertifiedAccuracy().applies(task="classification", family="none")
    assert not CertifiedAccuracy().applies(task="classification", family="attacks")


def test_a_negative_radius_is_refused():
    with pytest.raises(ConfigError, match="radius: expected 0 or more"):
        CertifiedAccuracy(radius=-1.0)

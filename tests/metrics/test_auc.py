import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from palpate.metrics.auc import Auc, weighted_auc


def _softmax(rng, shape):
    raw = np.exp(rng.normal(size=shape))
    return np.round(raw / raw.sum(axis=1, keepdims=True), 2)  # rounding makes ties


def test_two_classes_equal_scikit_learn_with_ties(make_rows, binary, value):
    rng = np.random.default_rng(0)
    reference, chances = rng.integers(0, 2, 60), _softmax(rng, (60, 2))
    rows = make_rows(reference, reference, probabilities=chances)
    expected = roc_auc_score(reference, rows["probabilities"][:, 1])
    assert value(Auc().measure(rows, binary), rows) == pytest.approx(expected)


def test_several_classes_are_macro_one_against_the_rest(make_rows, several, value):
    rng = np.random.default_rng(1)
    reference, chances = rng.integers(0, 3, 60), _softmax(rng, (60, 3)).astype(np.float32)
    rows = make_rows(reference, reference, probabilities=chances)
    expected = np.mean([roc_auc_score(reference == c, chances[:, c]) for c in range(3)])
    assert value(Auc().measure(rows, several), rows) == pytest.approx(expected)


def test_multi_label_is_macro_over_labels_and_leaves_out_constant_ones(make_rows, labels, value):
    rng = np.random.default_rng(2)
    reference, chances = rng.integers(0, 2, (50, 3)), rng.random((50, 3)).astype(np.float32)
    reference[:, 2] = 0
    rows = make_rows(reference, reference, probabilities=chances)
    expected = roc_auc_score(reference[:, :2], chances[:, :2], average="macro")
    assert value(Auc().measure(rows, labels), rows) == pytest.approx(expected)


def test_a_sample_without_output_has_the_worst_rank_whichever_class_it_is(make_rows, binary, value):
    chances = np.array([[0.9, 0.1], [0.2, 0.8], [np.nan, np.nan], [np.nan, np.nan]])
    rows = make_rows([0, 1, 0, 1], [0, 1, -1, -1], probabilities=chances)
    ranked = roc_auc_score([0, 1, 0, 1], [0.1, 0.8, 9.0, -9.0])
    assert value(Auc().measure(rows, binary), rows) == pytest.approx(ranked)


def test_several_trials_are_averaged_and_not_pooled(make_rows, binary, value):
    rng = np.random.default_rng(3)
    reference = rng.integers(0, 2, 20)
    high = np.r_[rng.random(20) / 2, 0.5 + rng.random(20) / 2]
    chances = np.column_stack([1 - high, high])
    twice = np.tile(reference, 2)
    rows = make_rows(twice, twice, probabilities=chances) | {"trial": np.repeat([0, 1], 20)}
    areas = [roc_auc_score(reference, chances[s, 1]) for s in (slice(20), slice(20, 40))]
    assert value(Auc().measure(rows, binary), rows) == pytest.approx(np.mean(areas), abs=1e-6)


def test_weights_act_like_repeated_samples():
    rng = np.random.default_rng(4)
    scores, positive = rng.random(30).round(1), rng.random(30) < 0.4
    weights = rng.integers(0, 3, (5, 30)).astype(float)
    expected = [
        roc_auc_score(np.repeat(positive, w), np.repeat(scores, w)) for w in weights.astype(int)
    ]
    assert weighted_auc(scores, positive, weights) == pytest.approx(expected)


def test_one_class_only_is_undefined(make_rows, binary, value):
    rows = make_rows([1, 1], [1, 1])
    assert value(Auc().measure(rows, binary), rows) is None


def test_confident_answers_are_not_tied(make_rows, binary, value):
    """P near 1 is coarse in float32: answers that differ must not become equal."""
    rng = np.random.default_rng(0)
    reference = rng.integers(0, 2, 400)
    z = 30 + 8 * (2 * reference - 1) + 8 * rng.normal(size=400)
    chances = np.stack([1 / (1 + np.exp(z)), 1 / (1 + np.exp(-z))], axis=1).astype(np.float32)
    rows = make_rows(reference, chances.argmax(axis=1), probabilities=chances)

    assert len(np.unique(chances[:, 1])) < 100
    assert value(Auc().measure(rows, binary), rows) == pytest.approx(
        roc_auc_score(reference, z), abs=1e-6
    )


def test_labels_that_are_all_alike_are_counted(make_rows):
    reference = [[1, 0, 1], [1, 1, 0], [1, 0, 0]]
    rows = make_rows(reference, reference, probabilities=np.full((3, 3), 0.5))
    assert Auc().note(rows) == "1 of 3 labels without a positive or a negative"

"""Rules of the metrics: agreement with independent definitions, ties, resampling, statuses."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from crossrisk.metrics import METRICS, auc_value, curves, evaluate, ks_value

samples = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 6)), min_size=2, max_size=40).filter(
    lambda rows: 0 < sum(label for label, _ in rows) < len(rows)
)


def unzip(rows):
    label, score = zip(*rows, strict=True)
    return np.array(label), np.array(score) / 7


@given(samples)
def test_auc_is_the_share_of_pairs_with_ties_as_half(rows):
    label, score = unzip(rows)
    pairs = itertools.product(score[label == 1], score[label == 0])
    wins = [1.0 if b > g else 0.5 if b == g else 0.0 for b, g in pairs]
    assert auc_value(label, score) == pytest.approx(sum(wins) / len(wins), abs=1e-12)
    assert auc_value(label, score) == pytest.approx(roc_auc_score(label, score), abs=1e-12)


@given(samples)
def test_ks_is_the_largest_gap_at_distinct_scores(rows):
    label, score = unzip(rows)
    expected = ks_2samp(score[label == 1], score[label == 0]).statistic
    assert ks_value(label, score) == pytest.approx(expected, abs=1e-12)


@given(samples, st.integers(0, 1000))
def test_metrics_do_not_depend_on_the_order_of_rows(rows, seed):
    label, score = unzip(rows)
    order = np.random.default_rng(seed).permutation(len(label))
    assert auc_value(label[order], score[order]) == pytest.approx(auc_value(label, score), abs=1e-12)
    assert ks_value(label[order], score[order]) == pytest.approx(ks_value(label, score), abs=1e-12)


def drawn(rows=2000, seed=0):
    rng = np.random.default_rng(seed)
    p = rng.beta(1, 6, rows)
    return (rng.random(rows) < p).astype(int), p


def test_values_equal_those_of_scikit_learn():
    label, p = drawn()
    metrics = evaluate(label, {"m": p}, replicates=100, seed=1).metrics["m"]
    assert metrics["auc"].value == pytest.approx(roc_auc_score(label, p))
    assert metrics["brier"].value == pytest.approx(brier_score_loss(label, p))
    assert metrics["log_loss"].value == pytest.approx(log_loss(label, np.clip(p, 1e-6, 1 - 1e-6)))
    assert metrics["observed_expected"].value == pytest.approx(label.sum() / p.sum())
    assert metrics["gini"].value == pytest.approx(2 * metrics["auc"].value - 1)


def test_the_auc_interval_has_the_width_that_hanley_and_mcneil_give():
    label, p = drawn(6000, seed=3)
    auc = evaluate(label, {"m": p}, replicates=2000, seed=1).metrics["m"]["auc"]
    a, m, n = auc.value, label.sum(), len(label) - label.sum()
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
    se = math.sqrt((a * (1 - a) + (m - 1) * (q1 - a * a) + (n - 1) * (q2 - a * a)) / (m * n))
    assert (auc.high - auc.low) / (2 * 1.96) == pytest.approx(se, rel=0.2)


def test_the_same_seed_gives_the_same_interval():
    label, p = drawn()
    first = evaluate(label, {"m": p}, replicates=300, seed=5).metrics["m"]["ks"]
    assert evaluate(label, {"m": p}, replicates=300, seed=5).metrics["m"]["ks"] == first


def test_the_confidence_of_the_evaluation_is_that_of_its_differences():
    label, p = drawn()
    other = np.clip(p + np.random.default_rng(1).normal(0, 0.05, len(p)), 1e-4, 1)
    widths = []
    for confidence in (0.8, 0.99):
        d = evaluate(label, {"a": p, "b": other}, replicates=500, seed=2, confidence=confidence)
        difference = d.difference("a", "b", "auc")
        widths.append(difference.high - difference.low)
    assert widths[1] > 1.5 * widths[0]


def test_an_empty_sample_is_undefined():
    assert np.isnan(auc_value(np.array([]), np.array([])))
    assert np.isnan(ks_value(np.array([]), np.array([])))
    empty = evaluate(np.array([]), {"m": np.array([])}, replicates=100, seed=1).metrics["m"]["auc"]
    assert (empty.value, empty.status, empty.n_bad) == (None, "undefined", 0)


def test_a_model_against_itself_differs_by_nothing():
    label, p = drawn()
    evaluation = evaluate(label, {"a": p, "b": p.copy()}, replicates=200, seed=2)
    for key in METRICS:
        difference = evaluation.difference("a", "b", key)
        assert (difference.value, difference.low, difference.high) == (0.0, 0.0, 0.0)


def test_a_paired_difference_is_tighter_than_two_intervals():
    label, p = drawn(4000)
    noisy = np.clip(p + np.random.default_rng(1).normal(0, 0.01, len(p)), 1e-4, 1)
    evaluation = evaluate(label, {"a": p, "b": noisy}, replicates=500, seed=2)
    difference = evaluation.difference("a", "b", "auc")
    auc = evaluation.metrics["a"]["auc"]
    assert difference.high - difference.low < 0.5 * (auc.high - auc.low)


def test_one_class_is_undefined_and_few_bads_are_insufficient():
    label, p = drawn(300)
    only_good = evaluate(np.zeros(300, int), {"m": p}, replicates=100, seed=1).metrics["m"]["auc"]
    assert (only_good.value, only_good.status) == (None, "undefined")
    few = evaluate(label, {"m": p}, replicates=100, seed=1, minimum=int(label.sum()) + 1).metrics["m"]["auc"]
    assert few.status == "insufficient"
    assert few.value is not None


@pytest.mark.parametrize(
    ("label", "p"), [([0, 2], [0.1, 0.2]), ([0, 1], [0.1, np.nan]), ([0, 1], [0.1, 1.2]), ([0, 1], [0.1])]
)
def test_bad_input_is_refused(label, p):
    with pytest.raises(ValueError, match=r"0 or 1|probabilities"):
        evaluate(np.array(label), {"m": np.array(p)}, replicates=100, seed=1)


@settings(max_examples=30)
@given(st.integers(0, 10_000))
def test_curves_end_where_they_must_and_bins_hold_every_row(seed):
    label, p = drawn(200, seed)
    if not 0 < label.sum() < len(label):
        return
    curve = curves(label, p)
    assert (curve.false_positive[0], curve.true_positive[0]) == (1.0, 1.0)
    assert (curve.false_positive[-1], curve.true_positive[-1]) == (0.0, 0.0)
    assert curve.bin_rows.sum() == len(label)
    assert np.abs(curve.share_good - curve.share_bad).max() == pytest.approx(ks_value(label, p))

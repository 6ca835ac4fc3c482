"""Rules of DeLong's variance: a hand-worked case, a slow independent implementation, and what must not matter."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from crossrisk.metrics import Metric, auc_metric, gini_of_auc, paired_test
from crossrisk.metrics.delong import PairedTest, auc_metric_of_counts
from crossrisk.metrics.ranking import ScoreCounts, auc_of_counts, count_scores

rows_of_two_scores = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 5), st.integers(0, 5)), min_size=4, max_size=40
).filter(lambda rows: 1 < sum(row[0] for row in rows) < len(rows) - 1)


def brute_force(label, *scores):
    """AUCs (k,) and covariance (k, k) from all m n pairs, as DeLong et al. (1988) write them."""
    areas, of_bads, of_goods = [], [], []
    for score in scores:
        bads, goods = score[label == 1], score[label == 0]
        pairs = (bads[:, None] > goods[None, :]) + 0.5 * (bads[:, None] == goods[None, :])
        areas.append(pairs.mean())
        of_bads.append(pairs.mean(axis=1))
        of_goods.append(pairs.mean(axis=0))
    m, n = len(bads), len(goods)
    return np.array(areas), np.atleast_2d(np.cov(of_bads)) / m + np.atleast_2d(np.cov(of_goods)) / n


def drawn(rows, seed=0):
    rng = np.random.default_rng(seed)
    label = rng.random(rows) < 0.2
    first = rng.normal(label * 1.0)
    return label.astype(int), first, 0.8 * first + rng.normal(size=rows) * 0.6


def test_the_hand_worked_case():
    # V10 = (2/3, 1) and (1/2, 1); V01 = (1, 1, 1/2) and (1, 3/4, 1/2); variances 1/18 and 1/12, covariance 1/16
    label, first, second = [1, 1, 0, 0, 0], [3, 5, 1, 2, 4], [2, 4, 1, 2, 3]
    test = paired_test(label, first, second)
    assert test.difference == pytest.approx(5 / 6 - 3 / 4)
    assert test.standard_error == pytest.approx(np.sqrt(1 / 72))
    assert test.z == pytest.approx(np.sqrt(1 / 2))
    assert test.p == pytest.approx(2 * norm.sf(np.sqrt(1 / 2)))
    assert (test.low, test.high) == pytest.approx(1 / 12 + np.array([-1, 1]) * norm.ppf(0.975) / np.sqrt(72))
    assert (test.status, test.n_bad, test.n_good) == ("insufficient", 2, 3)
    half = norm.ppf(0.975) * np.sqrt(1 / 18) / (5 / 36)
    auc = auc_metric(label, first)
    assert (auc.low, auc.high) == pytest.approx([1 / (1 + np.exp(-(np.log(5) + sign * half))) for sign in (-1, 1)])


@given(rows_of_two_scores)
def test_paired_delong_agrees_with_all_pairs(rows):
    label, first, second = np.array(rows, float).T
    areas, V = brute_force(label, first, second)
    test = paired_test(label, first, second)
    assert test.difference == pytest.approx(areas[0] - areas[1], abs=1e-12)
    variance = V[0, 0] + V[1, 1] - 2 * V[0, 1]
    if variance > 1e-12:
        assert test.standard_error == pytest.approx(np.sqrt(variance), rel=1e-6)
        assert test.p == pytest.approx(2 * norm.sf(abs(areas[0] - areas[1]) / np.sqrt(variance)), abs=1e-6)


@given(rows_of_two_scores)
def test_the_interval_of_one_auc_agrees_with_all_pairs(rows):
    label, score, _ = np.array(rows, float).T
    areas, V = brute_force(label, score)
    found = auc_metric(label, score, confidence=0.9)
    assert found.value == pytest.approx(areas[0], abs=1e-12)
    if 0 < areas[0] < 1 and V[0, 0] > 1e-12:
        half = norm.ppf(0.95) * np.sqrt(V[0, 0]) / (areas[0] * (1 - areas[0]))
        ends = 1 / (1 + np.exp(-(np.log(areas[0] / (1 - areas[0])) + half * np.array([-1, 1]))))
        assert (found.low, found.high) == pytest.approx(tuple(ends), abs=1e-9)
        assert found.interval == "DeLong, logit scale"


def test_identical_rankings_differ_by_nothing_with_p_1():
    label, first, _ = drawn(500)
    for same in (first.copy(), np.exp(first), 3 * first - 7):
        test = paired_test(label, first, same)
        assert (test.difference, test.p, test.low, test.high) == (0.0, 1.0, 0.0, 0.0)


def test_one_swapped_pair_in_100_000_rows_is_still_seen():
    label, first, _ = drawn(100_000)
    bads, goods = np.sort(first[label == 1]), first[label == 0]
    middle = bads[len(bads) // 2]
    second = np.where(first == middle, np.nextafter(goods[goods < middle].max(), -np.inf), first)
    test = paired_test(label, first, second)
    assert test.difference == pytest.approx(1 / (len(bads) * len(goods)), rel=1e-6)
    assert test.standard_error > 0


def test_exchanging_the_scores_turns_the_sign_and_nothing_else():
    label, first, second = drawn(800)
    one, other = paired_test(label, first, second), paired_test(label, second, first)
    assert (one.difference, one.z, one.low) == (-other.difference, -other.z, -other.high)
    assert one.p == other.p


def test_the_order_of_rows_and_monotone_transforms_do_not_matter():
    label, first, second = drawn(800)
    order = np.random.default_rng(1).permutation(800)
    shuffled = paired_test(label[order], np.exp(first[order]), second[order])
    assert shuffled.z == pytest.approx(paired_test(label, first, second).z, rel=1e-9)


def test_points_of_which_more_is_safer_give_the_same_test():
    label, first, second = drawn(800)
    expected = paired_test(label, first, second)
    assert paired_test(label, -first, -second, higher_is="safer") == expected
    assert auc_metric(label, 600 - 20 * first, higher_is="safer").value == auc_metric(label, first).value


@pytest.mark.parametrize(
    ("label", "score"),
    [([1, 1, 0, 0], [3, 4, 1, 2]), ([1, 1, 0, 0], [1, 2, 3, 4]), ([1, 1, 0, 0], [5, 5, 5, 5]), ([1, 0, 0], [2, 1, 3])],
)
def test_without_a_variance_there_is_a_value_and_no_interval(label, score):
    found = auc_metric(label, score)
    assert found.value is not None
    assert (found.low, found.high, found.interval) == (None, None, None)


def test_perfect_scores_cannot_be_told_apart_from_each_other_but_only_tested_where_they_vary():
    label = [1, 1, 0, 0]
    assert paired_test(label, [3, 4, 1, 2], [30, 40, 1, 2]).p == 1.0
    opposite = paired_test(label, [3, 4, 1, 2], [1, 2, 3, 4])
    assert (opposite.difference, opposite.p, opposite.low, opposite.interval) == (1.0, None, None, None)


@pytest.mark.parametrize("label", [[], [0, 0, 0], [1, 1]])
def test_one_class_is_undefined(label):
    score = np.arange(len(label)) / 10
    assert auc_metric(label, score) == Metric(None, None, None, "undefined", sum(label), len(label) - sum(label))
    test = paired_test(label, score, score)
    assert (test.difference, test.p, test.status) == (None, None, "undefined")


def test_counts_of_billions_do_not_overflow():
    label, score, _ = drawn(300)
    counts = count_scores(label, np.round(score))
    billions = ScoreCounts(counts.risk, counts.bads * 1e9, counts.goods * 1e9)  # m n near 1e22, beyond any integer
    assert auc_of_counts(billions) == pytest.approx(auc_of_counts(counts), rel=1e-12)
    small, large = auc_metric_of_counts(counts), auc_metric_of_counts(billions)
    assert large.n_bad == counts.n_bad * 10**9
    shrunk = (np.log(small.high / (1 - small.high)) - np.log(small.low / (1 - small.low))) / (
        np.log(large.high / (1 - large.high)) - np.log(large.low / (1 - large.low))
    )
    assert shrunk == pytest.approx(np.sqrt(1e9), rel=0.02)  # up to m - 1 against m


def test_labels_of_one_byte_do_not_overflow():
    label, first, second = drawn(5000)
    assert auc_metric(label.astype(np.int8), first) == auc_metric(label, first)
    assert paired_test(label.astype(np.int8), first, second) == paired_test(label, first, second)


def test_gini_is_twice_the_auc_less_one_with_its_interval():
    label, score, _ = drawn(500)
    auc = auc_metric(label, score)
    gini = gini_of_auc(auc)
    assert (gini.value, gini.low, gini.high) == pytest.approx((2 * auc.value - 1, 2 * auc.low - 1, 2 * auc.high - 1))
    assert gini.interval == auc.interval


def test_a_test_survives_json():
    test = paired_test(*drawn(100))
    assert PairedTest(**json.loads(json.dumps(test.to_json()))) == test

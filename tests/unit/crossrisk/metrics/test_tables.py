"""Rules of the KS bucket table, lift and capture: totals, directions, ties, ugly months."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, chi2_contingency

from crossrisk.metrics import LIFT_SHARES, bucket_edges, ks_table, ks_value, lift_at

EDGES = (0.1, 0.2, 0.4)
rows_with_missing = st.lists(
    st.tuples(st.integers(0, 1), st.one_of(st.none(), st.integers(0, 12).map(lambda x: x / 10))), max_size=80
)


def drawn(rows=3000, seed=0):
    rng = np.random.default_rng(seed)
    p = rng.beta(1, 6, rows)
    return (rng.random(rows) < p).astype(int), p


# --- the bucket table ---


def test_the_table_by_hand():
    label = [1, 1, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0]
    score = [0.9, 0.5, 0.41, 0.4, 0.3, 0.21, 0.2, 0.15, 0.11, 0.1, 0.05, None]
    table = ks_table(label, score, EDGES, probability=np.arange(12) / 12)
    found = table.buckets
    assert found["low"].to_list() == [0.4, 0.2, 0.1, None]
    assert found["high"].to_list() == [None, 0.4, 0.2, 0.1]
    assert found["n"].to_list() == [3, 3, 3, 2]
    assert found["share"].to_list() == pytest.approx([3 / 12, 3 / 12, 3 / 12, 2 / 12])
    assert found["bads"].to_list() == [2, 1, 0, 1]
    assert found["goods"].to_list() == [1, 2, 3, 1]
    assert found["bad_rate"].to_list() == pytest.approx([2 / 3, 1 / 3, 0, 1 / 2])
    assert found["mean_probability"].to_list() == pytest.approx([1 / 12, 4 / 12, 7 / 12, 9.5 / 12])
    assert found["odds"].to_list() == [0.5, 2.0, None, 1.0]
    assert found["bads_from_risky"].to_list() == pytest.approx([2 / 4, 3 / 4, 3 / 4, 1])
    assert found["goods_from_risky"].to_list() == pytest.approx([1 / 7, 3 / 7, 6 / 7, 1])
    assert found["rows_from_risky"].to_list() == pytest.approx([3 / 11, 6 / 11, 9 / 11, 1])
    assert found["bads_from_safe"].to_list() == pytest.approx([1, 2 / 4, 1 / 4, 1 / 4])
    assert found["goods_from_safe"].to_list() == pytest.approx([1, 6 / 7, 4 / 7, 1 / 7])
    assert found["rows_from_safe"].to_list() == pytest.approx([1, 8 / 11, 5 / 11, 2 / 11])
    assert found["ks"].to_list() == pytest.approx([5 / 14, 9 / 28, -3 / 28, 0], abs=1e-12)
    assert found["lift"].to_list() == pytest.approx([2 / 3 / (4 / 11), 1 / 3 / (4 / 11), 0, 1 / 2 / (4 / 11)])
    assert found["cumulative_lift"].to_list() == pytest.approx([11 / 6, 11 / 8, 11 / 12, 1])
    assert found["capture"].to_list() == pytest.approx([2 / 4, 1 / 4, 0, 1 / 4])
    assert table.bucket_ks == pytest.approx(5 / 14)
    assert table.missing.to_dicts()[0]["n"] == 1
    assert table.missing["share"][0] == pytest.approx(1 / 12)
    assert table.status == "insufficient"


@given(rows_with_missing, st.sampled_from(["riskier", "safer"]))
def test_totals_reconcile_and_no_bucket_ks_exceeds_the_exact_one(rows, higher_is):
    label, score = [row[0] for row in rows], [row[1] for row in rows]
    table = ks_table(label, score, (0.25, 0.65, 0.95), higher_is=higher_is)
    for column, total in (("n", len(rows)), ("bads", sum(label)), ("goods", len(rows) - sum(label))):
        assert table.buckets[column].sum() + table.missing[column].sum() == total
    assert table.rows == len(rows)
    if rows:
        assert table.buckets["share"].sum() + table.missing["share"].sum() == pytest.approx(1)
    known = [row for row in rows if row[1] is not None]
    if 0 < sum(row[0] for row in known) < len(known):
        assert table.exact_ks == pytest.approx(ks_value(*zip(*known, strict=True)))
        assert table.bucket_ks <= table.exact_ks + 1e-12
    else:
        assert (table.bucket_ks, table.exact_ks, table.status) == (None, None, "undefined")
    json.dumps(table.to_json(), allow_nan=False)


def test_wilson_intervals_agree_with_scipy():
    label, p = drawn()
    for row in ks_table(label, p, bucket_edges(p)).buckets.iter_rows(named=True):
        expected = binomtest(row["bads"], row["n"]).proportion_ci(method="wilson")
        assert (row["bad_rate_low"], row["bad_rate_high"]) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_points_of_which_more_is_safer_fill_the_same_buckets():
    label, p = drawn()
    edges = bucket_edges(p)
    risky = ks_table(label, p, edges, probability=p)
    safe = ks_table(label, -p, [-edge for edge in reversed(edges)], probability=p, higher_is="safer")
    assert safe.buckets.drop("low", "high").equals(risky.buckets.drop("low", "high"))
    assert safe.bucket_ks == risky.bucket_ks


def test_edges_are_plain_data_and_cut_the_reference_evenly():
    _, p = drawn()
    edges = bucket_edges(p, buckets=5)
    assert json.loads(json.dumps(edges)) == list(edges)
    assert ks_table(np.zeros(len(p)), p, edges).buckets["n"].to_list() == [600] * 5


def test_tied_quantiles_share_a_bucket():
    assert len(bucket_edges(np.repeat([0.1, 0.2, 0.9], [80, 15, 5]))) == 2


def test_a_bucket_without_rows_is_shown_and_its_quotients_are_null():
    table = ks_table([1, 0, 0], [0.9, 0.05, 0.05], EDGES)
    empty = table.buckets.row(1, named=True)
    assert (empty["n"], empty["bads"], empty["share"]) == (0, 0, 0.0)
    assert [empty[name] for name in ("bad_rate", "bad_rate_low", "mean_probability", "odds", "lift")] == [None] * 5


def test_rank_breaks_are_counted_and_tested_across_empty_buckets():
    #        riskiest                       empty   safest
    sizes, bads = (100, 120, 0, 90, 200), (10, 30, 0, 9, 40)
    score = np.repeat([0.9, 0.7, 0.5, 0.3, 0.1], sizes)
    label = np.concatenate([np.arange(n) < b for n, b in zip(sizes, bads, strict=True)])
    breaks = ks_table(label, score, (0.2, 0.4, 0.6, 0.8)).breaks
    assert [(one.riskier, one.safer) for one in breaks] == [(0, 1), (3, 4)]
    for one in breaks:
        i, j = one.riskier, one.safer
        table = [[bads[i], sizes[i] - bads[i]], [bads[j], sizes[j] - bads[j]]]
        assert one.p == pytest.approx(chi2_contingency(table, correction=False).pvalue)


@pytest.mark.parametrize("edges", [(0.2, 0.2), (0.4, 0.1), (0.1, np.inf)])
def test_edges_must_ascend_and_be_finite(edges):
    with pytest.raises(ValueError, match="finite and strictly ascending"):
        ks_table([0, 1], [0.1, 0.2], edges)


def test_other_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"one score a label, \(2,\), got an array of shape \(1,\)"):
        ks_table([0, 1], [0.1], EDGES)
    with pytest.raises(ValueError, match=r"scores must be finite; 1 of 2"):
        ks_table([0, 1], [0.1, 0.2], EDGES, probability=[0.1, None])
    with pytest.raises(ValueError, match="finite reference score and 2 buckets or more"):
        bucket_edges([np.nan])
    with pytest.raises(ValueError, match="2 buckets or more, got 2 and 1"):
        bucket_edges([0.1, 0.2], buckets=1)


# --- lift and capture ---


def test_lift_and_capture_by_hand():
    # the 3 riskiest of 10: one of score 9 (bad), then 2 of the block of four 7s with one bad: 1 + 2/4
    label, score = [1, 0, 1, 0, 0, 0, 1, 0, 0, 1], [9, 7, 7, 7, 7, 5, 4, 3, 2, 1]
    found = lift_at(label, score, 0.3)
    assert found.rows == 3
    assert found.capture.value == pytest.approx(1.5 / 4)
    assert found.lift.value == pytest.approx((1.5 / 3) / (4 / 10))
    assert found.ceiling == pytest.approx(10 / 4)
    assert (found.lift.status, found.lift.n_bad, found.lift.n_good) == ("insufficient", 4, 6)


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 4)), min_size=2, max_size=40), st.integers(0, 100))
def test_ties_at_the_boundary_leave_no_room_for_the_order_of_rows(rows, seed):
    label, score = np.array(rows).T
    order = np.random.default_rng(seed).permutation(len(label))
    for share in LIFT_SHARES:
        one, other = lift_at(label, score, share), lift_at(label[order], score[order], share)
        assert one == other
        if one.lift.value is not None:
            assert 0 <= one.lift.value <= one.ceiling + 1e-12
            assert one.capture.low <= one.capture.value + 1e-12
            assert one.capture.value <= one.capture.high + 1e-12


def test_the_tied_block_brings_what_random_orders_bring_on_average():
    rng = np.random.default_rng(0)
    label, score = (rng.random(200) < 0.3).astype(int), rng.integers(0, 4, 200)
    captured = []
    for _ in range(3000):
        order = np.lexsort((rng.random(200), -score))[:20]
        captured.append(label[order].sum() / label.sum())
    assert lift_at(label, score, 0.1).capture.value == pytest.approx(np.mean(captured), abs=4 * np.std(captured) / 50)


def test_a_perfect_score_reaches_the_ceiling():
    label = np.arange(1000) < 50
    found = lift_at(label, label.astype(float), 0.05)
    assert (found.lift.value, found.ceiling, found.capture.value) == (20.0, 20.0, 1.0)


@pytest.mark.parametrize(("share", "rows"), [(0.07, 7), (0.1, 10), (0.29, 29), (0.101, 11), (1.0, 100)])
def test_the_number_of_rows_is_rounded_up_and_not_by_rounding_errors(share, rows):
    assert lift_at(np.arange(100) < 30, np.arange(100), share).rows == rows


def test_a_month_without_bads_has_no_lift_and_no_exception():
    found = lift_at(np.zeros(50), np.arange(50), 0.1)
    assert (found.lift.value, found.capture.value, found.ceiling, found.lift.status) == (None, None, None, "undefined")
    with pytest.raises(ValueError, match=r"within \(0, 1\], got 10"):
        lift_at([0, 1], [1, 2], 10)

"""The population stability index: by hand, against its definition, against its noise."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2, norm

from crossrisk.stability import (
    CategoryBins,
    Histogram,
    NumberBins,
    Stability,
    describe_categories,
    describe_numbers,
    largest_move,
    psi,
    read_histogram,
)

COUNTS = st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), min_size=1, max_size=12)
TENTHS = np.full(10, 515)
"""the 5,150 reference rows of the article's target, in tenths"""


def split(pairs):
    return [e for e, _ in pairs], [a for _, a in pairs]


# --- the index ---


def test_psi_of_two_bins_by_hand():
    # half a row in each bin: 50.5 of 101 are .5, 10.5 of 41 are .256
    found = psi([50, 50], [10, 30])
    share = 10.5 / 41
    by_hand = (share - 0.5) * math.log(share / 0.5) + (0.5 - share) * math.log((1 - share) / 0.5)
    assert found.value == pytest.approx(by_hand)
    assert (found.bins, found.n, found.n_reference) == (2, 40, 100)
    assert found.critical == pytest.approx(chi2.isf(0.05, 1) * (1 / 40 + 1 / 100))
    assert found.p == pytest.approx(chi2.sf(by_hand / (1 / 40 + 1 / 100), 1))


@given(COUNTS)
def test_psi_is_never_negative_and_symmetric(pairs):
    e, a = split(pairs)
    if sum(e) and sum(a):
        found = psi(e, a)
        assert found.value >= -1e-12
        assert found.value == pytest.approx(psi(a, e).value, abs=1e-12)


@given(COUNTS, st.randoms())
def test_psi_does_not_depend_on_the_order_of_the_bins(pairs, random):
    shuffled = list(pairs)
    random.shuffle(shuffled)
    ordered, other = psi(*split(pairs)), psi(*split(shuffled))
    assert (ordered.bins, ordered.verdict) == (other.bins, other.verdict)
    if ordered.value is not None:
        assert ordered.value == pytest.approx(other.value, abs=1e-12)


@given(COUNTS)
def test_a_bin_empty_on_both_sides_changes_nothing(pairs):
    e, a = split(pairs)
    with_empty, without = psi([*e, 0], [*a, 0]), psi(e, a)
    assert (with_empty.bins, with_empty.critical, with_empty.verdict) == (
        without.bins,
        without.critical,
        without.verdict,
    )
    assert with_empty.value == pytest.approx(without.value)


@given(st.lists(st.integers(1, 500), min_size=2, max_size=12))
def test_equal_histograms_have_no_psi(counts):
    found = psi(counts, counts)
    assert found.value == pytest.approx(0, abs=1e-12)
    assert found.p == pytest.approx(1)


def test_an_empty_decile_costs_what_the_half_row_rule_says():
    month = np.array([0, 44, 44, 44, 44, 45, 45, 45, 45, 44])
    assert psi(TENTHS, month).value == pytest.approx(0.44, abs=0.01)


@pytest.mark.parametrize(("e", "a"), [([0, 0], [3, 4]), ([3, 4], [0, 0])])
def test_without_rows_there_is_no_number_and_no_error(e, a):
    found = psi(e, a)
    assert (found.value, found.p, found.critical, found.verdict) == (None, None, None, "small sample")


def test_rows_that_all_share_one_bin_cannot_differ():
    assert psi([100, 0], [3, 0]) == Stability(0.0, 1, 1.0, 0.0, "ok", 3, 100)


@pytest.mark.parametrize(("e", "a"), [([1, 2], [1, 2, 3]), ([1, -1], [1, 1]), ([[1]], [[1]])])
def test_what_are_no_two_histograms_is_refused(e, a):
    with pytest.raises(ValueError, match="over the same bins"):
        psi(e, a)


# --- the verdict ---


def shifted(sd: float, rows: int) -> np.ndarray:
    """Expected counts in the reference's deciles after a shift of the mean, without noise."""
    ends = norm.ppf(np.linspace(0, 1, 11))
    return np.round(np.diff(norm.cdf(ends - sd)) * rows).astype(int)


@pytest.mark.parametrize(
    ("sd", "rows", "verdict"),
    [
        (0.0, 40, "small sample"),
        (0.0, 170, "small sample"),
        (0.0, 180, "ok"),
        (0.2, 400, "ok"),  # population PSI .038: within the noise of 400 rows
        (0.2, 5000, "detected, small"),
        (0.4, 500, "amber"),
        (0.4, 5000, "amber"),
        (0.6, 500, "red"),
        (1.2, 60, "red"),  # far beyond what even 60 rows can show by chance
    ],
)
def test_the_verdict_weighs_size_and_noise(sd, rows, verdict):
    assert psi(TENTHS, shifted(sd, rows)).verdict == verdict


def test_twenty_bins_need_about_320_rows():
    reference = np.full(20, 258)
    assert psi(reference, np.full(20, 15)).verdict == "small sample"
    assert psi(reference, np.full(20, 17)).verdict == "ok"


@pytest.mark.parametrize("rows", [40, 100, 400])
def test_months_without_a_shift_are_hardly_ever_coloured(rows):
    rng = np.random.default_rng(rows)
    months = [psi(TENTHS, rng.multinomial(rows, np.full(10, 0.1))) for _ in range(2000)]
    assert np.mean([month.verdict in ("amber", "red") for month in months]) < 0.015
    # and the critical value is not so wide that nothing could exceed it
    assert 0.01 < np.mean([month.value > month.critical for month in months]) < 0.06


# --- bins ---


def test_intervals_are_closed_on_the_right_and_missing_has_its_own():
    bins = NumberBins((1.0, 2.0))
    values = np.array([-np.inf, 1.0, 1.5, 2.0, 2.5, np.inf, np.nan])
    assert bins.count(values).tolist() == [2, 2, 2, 1]
    assert bins.labels == ("up to 1", "1 to 2", "above 2", "missing")


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), max_size=60), st.integers(1, 12))
def test_every_row_lands_in_exactly_one_bin(values, bins):
    reference = describe_numbers(np.array(values, np.float64), bins=bins)
    assert sum(reference.counts) == len(values)
    assert len(reference.counts) == len(reference.bins.labels)
    assert len(reference.bins.edges) <= max(bins - 1, 2)


def test_edges_are_deciles_where_values_are_distinct():
    reference = describe_numbers(np.arange(1000.0))
    assert reference.counts == (*[100] * 10, 0)


def test_edges_that_coincide_are_one():
    reference = describe_numbers(np.array([0.0] * 85 + list(range(1, 16))))
    assert reference.counts[0] == 85
    assert reference.bins.edges[0] == 0.5
    assert sum(reference.counts) == 100


def test_a_block_of_ties_stays_whole_when_it_is_computed_again_with_noise():
    leaves = np.repeat([0.01, 0.02, 0.05, 0.1, 0.2], 200)
    again = leaves + np.random.default_rng(0).normal(0, 1e-8, len(leaves))
    reference = describe_numbers(again, decimals=6)
    assert np.array_equal(reference.bins.count(leaves), reference.counts)
    assert psi(reference.counts, reference.bins.count(leaves)).value == pytest.approx(0, abs=1e-12)


def test_a_constant_that_changes_is_seen():
    reference = describe_numbers(np.full(500, 3.0))
    assert psi(reference.counts, reference.bins.count(np.full(300, 3.0))).verdict == "ok"
    assert psi(reference.counts, reference.bins.count(np.full(300, 4.0))).verdict == "red"
    assert psi(reference.counts, reference.bins.count(np.full(300, 2.0))).verdict == "red"


def test_a_reference_that_was_always_missing_sees_what_arrives():
    reference = describe_numbers(np.full(500, np.nan))
    assert reference.bins.labels == ("any", "missing")
    assert psi(reference.counts, reference.bins.count(np.full(300, 1.0))).verdict == "red"


def test_unseen_and_rare_categories_share_a_bin_and_missing_does_not():
    reference = describe_categories(["a"] * 5 + ["b"] * 3 + ["c", None], levels=2)
    assert reference.bins == CategoryBins(("a", "b"))
    assert reference.counts == (5, 3, 1, 1)
    assert reference.bins.count(["b", "new", None, None]).tolist() == [0, 1, 1, 2]


def test_equally_frequent_levels_are_taken_by_name():
    assert describe_categories(["z", "y", "x"], levels=2).bins == CategoryBins(("x", "y"))


@pytest.mark.parametrize("edges", [(2.0, 1.0), (1.0, 1.0), (math.inf,), (math.nan,)])
def test_edges_that_are_none_are_refused(edges):
    with pytest.raises(ValueError, match="strictly ascending"):
        NumberBins(edges)


# --- what is kept, and what moved ---


@pytest.mark.parametrize("histogram", [describe_numbers(np.arange(50.0)), describe_categories(["a", None, "b"])])
def test_a_histogram_survives_its_json(histogram):
    assert read_histogram(json.loads(json.dumps(histogram.to_json()))) == histogram


def test_counts_that_do_not_fit_their_bins_are_refused():
    with pytest.raises(ValueError, match="expected 3 counts"):
        read_histogram({"edges": [1.0], "counts": [1, 2]})


def test_the_bin_that_moved_most_is_named_with_its_shares():
    reference = Histogram(NumberBins((1.0,)), (45, 45, 10))
    move = largest_move(reference, np.array([30, 30, 40]))
    assert move is not None
    assert (move.label, move.share_reference, move.share) == ("missing", 0.1, 0.4)
    assert largest_move(reference, np.zeros(3, int)) is None
    with pytest.raises(ValueError, match="expected 3 counts"):
        largest_move(reference, np.zeros(2, int))

"""The population stability index: by hand, against its definition, against its noise."""

from __future__ import annotations

import json
import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2, norm

from crossrisk import stability
from crossrisk.stability import (
    ZERO_RULE,
    CategoryBins,
    Histogram,
    NumberBins,
    Stability,
    Unseen,
    describe_categories,
    describe_numbers,
    largest_move,
    points_shift,
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


@pytest.mark.parametrize("values", [[0.2, 0.8], np.array([0.2, 0.8]), [True, False], ["a", "b"]])
def test_values_are_not_taken_for_counts(values):
    with pytest.raises(ValueError, match="values are binned first"):
        psi([1, 1], values)


def test_the_zero_rule_stands_beside_the_number():
    assert psi([5, 5], [5, 5]).to_json()["zero_rule"] == ZERO_RULE == "add 1/2"


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


def test_intervals_are_closed_on_the_right_and_what_is_no_quantity_has_its_own_bin():
    bins = NumberBins((1.0, 2.0), (-9.0, 1.5))
    values = np.array([-np.inf, -9.5, -9.0, 1.0, 1.5, 1.5, 1.6, 2.0, 2.5, np.inf, np.nan])
    assert bins.count(values).tolist() == [2, 2, 1, 1, 2, 3]
    assert bins.labels == ("up to 1", "1 to 2", "above 2", "code -9", "code 1.5", "missing")


FLOATS = st.floats(allow_nan=True, allow_infinity=True)


@given(
    st.lists(FLOATS | st.sampled_from([-1.0, 0.0, 7.0]), max_size=40),
    st.lists(st.sampled_from([-1.0, 0.0, 1e-9, 7.0]) | st.floats(-9, 9), max_size=5, unique=True),
    st.lists(st.sampled_from([-1.0, 0.0, 7.0, 1e300]), max_size=3, unique=True),
)
def test_counts_are_those_of_looking_at_one_row_after_the_other(values, edges, codes):
    edges, codes = sorted(edges), sorted(codes)
    rows = [0] * (len(edges) + len(codes) + 2)
    for value in values:
        if not math.isfinite(value):
            rows[-1] += 1
        elif value in codes:
            rows[len(edges) + 1 + codes.index(value)] += 1
        else:
            rows[sum(value > edge for edge in edges)] += 1
    bins = NumberBins(tuple(edges), tuple(codes))
    assert bins.count(np.array(values, np.float64)).tolist() == rows
    assert bins.count(pl.Series(values, dtype=pl.Float64)).tolist() == rows
    assert bins.count(values).tolist() == rows


def test_a_table_is_not_taken_for_a_column():
    with pytest.raises(ValueError, match=r"one column of numbers, \(n,\), got shape \(2, 3\)"):
        NumberBins((0.0,)).count(np.zeros((2, 3)))


def test_rows_in_many_blocks_are_all_counted(monkeypatch):
    values = np.random.default_rng(1).normal(size=1000)
    values[::7], values[::11], values[::13] = np.nan, np.inf, -1.0
    bins = NumberBins((-0.5, 0.0, 0.5), (-1.0,))
    whole = bins.count(values)
    monkeypatch.setattr(stability, "_BLOCK_ROWS", 64)
    assert bins.count(values).tolist() == whole.tolist()


@given(st.lists(FLOATS | st.integers(-2, 2).map(float), max_size=60), st.integers(1, 12))
def test_every_row_of_the_reference_lands_in_exactly_one_bin(values, bins):
    reference = describe_numbers(np.array(values, np.float64), bins=bins)
    assert sum(reference.counts) == len(values)
    assert len(reference.counts) == len(reference.bins.labels)
    assert len(reference.bins.edges) <= max(bins - 1, 2)


@pytest.mark.parametrize("extreme", [-1.7976931348623157e308, 1.7976931348623157e308])
def test_a_constant_at_the_end_of_all_numbers_has_its_bin(extreme):
    reference = describe_numbers(np.full(3, extreme))
    assert sum(reference.counts) == 3
    assert max(reference.counts) == 3


def test_edges_are_deciles_where_values_are_distinct():
    reference = describe_numbers(np.arange(1000.0))
    assert reference.counts == (*[100] * 10, 0)


def test_a_block_of_ties_has_a_bin_of_its_own():
    reference = describe_numbers(np.array([0.0] * 85 + list(range(1, 16))))
    assert reference.bins.edges == (-0.5, 0.5, 5.5)
    assert reference.counts == (0, 85, 5, 10, 0)


@pytest.mark.parametrize("shares", [(5, 95), (95, 5), (5, 90, 5), (2, 96, 2)])
def test_a_value_beside_a_large_block_can_be_seen_to_move(shares):
    # quantiles alone would put the 5% before a block into the block's bin, and no change between them would show
    values = np.repeat(np.arange(len(shares)), shares).astype(float)
    reference = describe_numbers(np.tile(values, 50))
    month = np.repeat(np.arange(len(shares)), np.roll(shares, 1)).astype(float)
    assert psi(reference.counts, reference.bins.count(np.tile(month, 5))).verdict == "red"


def test_a_code_nobody_declared_does_not_hide_in_a_block_of_zeros():
    reference = describe_numbers(np.array([0.0] * 850 + list(range(1, 151))))
    month = reference.bins.count(np.array([0.0] * 400 + [-1.0] * 450 + list(range(1, 151))))
    assert psi(reference.counts, month).verdict == "red"
    assert largest_move(reference, month).label == "up to -0.5"


def test_neighbours_without_a_number_between_them_are_parted():
    low = 1.0
    high = math.nextafter(low, 2)
    reference = describe_numbers(np.repeat([low, high, 3.0], [40, 40, 20]), bins=3)
    assert low in reference.bins.edges
    assert reference.bins.count([low]).argmax() != reference.bins.count([high]).argmax()


def test_edges_of_a_large_reference_lie_at_its_quantiles_and_counts_are_of_all_rows(monkeypatch):
    monkeypatch.setattr(stability, "EDGE_SAMPLE", 10_000)
    values = np.tile(np.random.default_rng(3).normal(size=1000), 300)  # a period that every k-th row would fall in with
    reference = describe_numbers(values)
    assert sum(reference.counts) == len(values)
    assert np.array(reference.counts[:-1]) / len(values) == pytest.approx(np.full(10, 0.1), abs=0.01)
    assert describe_numbers(values) == reference


def test_labels_have_as_many_digits_as_it_takes_to_tell_them_apart():
    bins = NumberBins((0.012345, 12345.0, 12349.0), (9999998.0, 9999999.0))
    assert bins.labels[:3] == ("up to 0.01235", "0.01235 to 12340", "12340 to 12350")
    assert bins.labels[4:6] == ("code 9999998", "code 9999999")
    assert NumberBins((12345.0,)).labels[0] == "up to 12340"
    assert NumberBins((20240101.0, 20240102.0)).labels[1] == "20240101 to 20240102"
    adjacent = NumberBins((0.1, math.nextafter(0.1, 1)))
    assert len(set(adjacent.labels)) == 4


def test_codes_are_counted_apart_and_do_not_move_the_edges():
    values = np.arange(1000.0)
    plain = describe_numbers(values)
    coded = describe_numbers(np.concatenate([values, np.full(500, -1.0), np.full(70, 9999.0)]), specials=(9999, -1, -1))
    assert coded.bins == NumberBins(plain.bins.edges, (-1.0, 9999.0))
    assert coded.counts == (*plain.counts[:-1], 500, 70, 0)


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


def test_rare_unseen_and_missing_are_told_apart():
    reference = describe_categories(["a"] * 5 + ["b"] * 3 + ["c", None], levels=2)
    assert reference.bins == CategoryBins(("a", "b"), rare=("c",))
    assert reference.bins.labels == ("a", "b", "rare", "unseen", "missing")
    assert reference.counts == (5, 3, 1, 0, 1)
    assert reference.bins.count(["b", "c", "new", "new", None, None, ""]).tolist() == [0, 1, 1, 3, 2]


LEVELS = st.sampled_from(["a", "b", "c", "", "missing", "unseen", "ä", None])


@given(st.lists(LEVELS, max_size=30), st.lists(LEVELS, max_size=30), st.integers(0, 4))
def test_categories_are_counted_as_one_row_after_the_other(frozen, month, levels):
    reference = describe_categories(frozen, levels=levels)
    known = sorted({v for v in frozen if v is not None}, key=lambda v: (-frozen.count(v), v))
    named, rare = known[:levels], known[levels:]
    for values, counts in ((frozen, reference.counts), (month, reference.bins.count(month))):
        unlisted = [v for v in values if v is not None and v not in known]
        expected = [*map(values.count, named), sum(map(values.count, rare)), len(unlisted), values.count(None)]
        assert list(counts) == expected
    assert sum(reference.counts) == len(frozen)
    assert len(set(reference.bins.labels)) == len(reference.counts)


@pytest.mark.parametrize("dtype", [pl.String, pl.Categorical, pl.Enum(["a", "b", "new"])])
def test_columns_of_any_text_type_count_alike(dtype):
    reference = describe_categories(pl.Series(["a", "a", "b", None], dtype=dtype))
    assert reference == describe_categories(["a", "a", "b", None])
    assert reference.bins.count(pl.Series(["new", "a", None], dtype=dtype)).tolist() == [1, 0, 0, 1, 1]


def test_equally_frequent_levels_are_taken_by_name():
    assert describe_categories(["z", "y", "x"], levels=2).bins == CategoryBins(("x", "y"), rare=("z",))


def test_unseen_values_are_named_most_frequent_first_and_fit_to_be_shown():
    bins = CategoryBins(("a",), rare=("b",))
    month = ["a", "b", None, "x", "x", "y", "w", "v\x00\n\u202e" * 30, *["v\x00\n\u202e" * 30] * 2]
    named = bins.name_unseen(month)
    assert [one.rows for one in named] == [3, 2, 1]
    assert named[0].value.startswith("v\\u0000\\u000a\\u202e")
    assert named[0].value.isprintable()
    assert len(named[0].value) == 40
    assert named[1:] == (Unseen("x", 2), Unseen("w", 1))
    assert bins.name_unseen(["a", "b", None]) == ()
    assert bins.name_unseen(["n" * 40])[0].value == "n" * 40
    assert bins.name_unseen(["n" * 41])[0].value == "n" * 39 + "…"


def test_too_many_rare_levels_share_a_bin_with_unseen_ones_that_says_so(monkeypatch):
    monkeypatch.setattr(stability, "MOST_RARE", 3)
    values = ["a", "a", "b", "c", "d", "e"]
    assert describe_categories(values[:-1], levels=1).bins.rare == ("b", "c", "d")
    crowded = describe_categories(values, levels=1)
    assert crowded == Histogram(CategoryBins(("a",), rare=None), (2, 4, 0))
    assert crowded.bins.labels == ("a", "rare or unseen", "missing")
    assert crowded.bins.count(["a", "b", "new", None]).tolist() == [1, 2, 1]
    assert crowded.bins.name_unseen(["b", "new"]) == ()


def test_a_level_listed_twice_is_refused():
    with pytest.raises(ValueError, match="'b' is listed twice"):
        CategoryBins(("a", "b"), rare=("b",))


@pytest.mark.parametrize("edges", [(2.0, 1.0), (1.0, 1.0), (math.inf,), (math.nan,)])
def test_edges_that_are_none_are_refused(edges):
    with pytest.raises(ValueError, match="edges must be finite and strictly ascending"):
        NumberBins(edges)
    with pytest.raises(ValueError, match="specials must be finite and strictly ascending"):
        NumberBins((), edges)


# --- what is kept, and what moved ---


HISTOGRAMS = [
    describe_numbers(np.arange(50.0)),
    describe_numbers(np.arange(50.0), specials=(-1, 7)),
    describe_categories(["a", None, "b"]),
    describe_categories(["a", "a", "b"], levels=1),
    Histogram(CategoryBins(("a",), rare=None), (1, 2, 3)),
]


@pytest.mark.parametrize("histogram", HISTOGRAMS)
def test_a_histogram_survives_its_json(histogram):
    assert read_histogram(json.loads(json.dumps(histogram.to_json()))) == histogram


def test_a_histogram_of_before_codes_and_rare_levels_were_kept_is_read_as_what_it_is():
    numbers = read_histogram({"edges": [1.0, 2.0], "counts": [3, 4, 5, 6]})
    assert numbers == Histogram(NumberBins((1.0, 2.0)), (3, 4, 5, 6))
    categories = read_histogram({"levels": ["a", "b"], "counts": [3, 4, 5, 6]})
    assert categories == Histogram(CategoryBins(("a", "b"), rare=None), (3, 4, 5, 6))
    assert categories.bins.labels == ("a", "b", "rare or unseen", "missing")


def test_counts_that_do_not_fit_their_bins_are_refused():
    with pytest.raises(ValueError, match="expected 3 counts"):
        read_histogram({"edges": [1.0], "counts": [1, 2]})


def test_the_bin_that_moved_most_is_named_with_its_shares():
    reference = Histogram(NumberBins((1.0,)), (45, 45, 10))
    move = largest_move(reference, np.array([30, 30, 40]))
    assert move is not None
    assert (move.label, move.share_reference, move.share) == ("missing", 0.1, 0.4)
    assert largest_move(reference, np.zeros(3, int)) is None
    with pytest.raises(ValueError, match="over the same bins"):
        largest_move(reference, np.zeros(2, int))


def test_unseen_values_are_named_where_their_bin_moved_most_and_nowhere_else():
    reference = describe_categories(["a"] * 50 + ["b"] * 50)
    few, many = ["a"] * 10 + ["b"] * 85 + ["x"] * 2, ["a"] * 10 + ["x"] * 80 + ["y"] * 10
    labels = [
        largest_move(reference, reference.bins.count(m), reference.bins.name_unseen(m)).label for m in (few, many)
    ]
    assert labels == ["a", "unseen (x, y)"]


# --- the points-weighted shift ---


def test_points_shift_of_three_bins_by_hand():
    # shares .5 .3 .2 become .25 .25 .5: -.25 * 40 - .05 * 20 + .3 * -10
    found = points_shift([50, 30, 20], [10, 10, 20], [40, 20, -10])
    assert found.value == pytest.approx(-14.0)
    assert (found.n, found.n_reference) == (40, 100)


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(-50, 50)), min_size=1, max_size=8))
def test_points_shift_is_the_difference_of_mean_points_with_the_interval_of_welch(bins):
    e, a, points = map(list, zip(*bins, strict=True))
    before, after = (np.repeat(np.array(points, float), counts) for counts in (e, a))
    found = points_shift(e, a, points)
    if min(len(before), len(after)) == 0:
        assert (found.value, found.low, found.high) == (None, None, None)
        return
    assert found.value == pytest.approx(after.mean() - before.mean(), abs=1e-9)
    if min(len(before), len(after)) == 1:
        assert (found.low, found.high) == (None, None)
        return
    error = math.sqrt(before.var(ddof=1) / len(before) + after.var(ddof=1) / len(after))
    assert found.high - found.value == pytest.approx(norm.ppf(0.975) * error, abs=1e-9)
    assert found.value - found.low == pytest.approx(found.high - found.value, abs=1e-9)


def test_shifts_of_all_characteristics_add_up_to_that_of_the_score():
    rng = np.random.default_rng(8)
    points = rng.normal(size=(3, 4))
    before, after = rng.integers(0, 4, (3, 500)), rng.integers(1, 4, (3, 200))
    shifts = [
        points_shift(np.bincount(e, minlength=4), np.bincount(a, minlength=4), worth).value
        for e, a, worth in zip(before, after, points, strict=True)
    ]
    score = [sum(worth[bins] for worth, bins in zip(points, rows, strict=True)).mean() for rows in (before, after)]
    assert sum(shifts) == pytest.approx(score[1] - score[0])


@pytest.mark.parametrize("points", [[1.0], [1.0, math.nan], [[1.0, 2.0]]])
def test_points_that_fit_no_bins_are_refused(points):
    with pytest.raises(ValueError, match="finite points, one value a bin"):
        points_shift([1, 2], [2, 1], points)

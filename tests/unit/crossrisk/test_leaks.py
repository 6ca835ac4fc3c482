"""Rules of the leak check: what is found, what is not, and how sure it says to be."""

import itertools
from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossrisk.leaks import LEAK_AUC, find_leaks, read_columns
from crossrisk.metrics import auc_value

LABEL = "bad"


def labels(rows: int, share: float = 0.1, seed: int = 0) -> pl.Series:
    return pl.Series(LABEL, (np.random.default_rng(seed).random(rows) < share).astype(np.int8))


def reading(values: pl.Series, bad: pl.Series, kind: str = "value"):
    found = [r for r in read_columns(values.alias("x").to_frame(), bad) if r.kind == kind]
    assert len(found) == 1
    return found[0]


# --- the real data sets: known leaks on one side, every legitimate column on the other ---

LOANS = "lending_club_2007_2011/loans.parquet"
OUTCOMES = "lending_club_2007_2011/outcomes_LEAKY.parquet"
KNOWN_LEAKS = {
    "loan_status": 1.0, "recoveries": 0.994, "collection_recovery_fee": 0.836, "total_rec_prncp": 0.835,
}  # fmt: skip
STRONGEST_HONEST = {
    LOANS: ("lender_sub_grade", 0.661),
    "give_me_some_credit/cs_training.parquet": ("revolving_utilization", 0.778),
    "taiwan_credit_card/clients.parquet": ("pay_1", 0.690),
    "german_credit/german.parquet": ("status_of_existing_checking_account", 0.707),
}


@pytest.mark.data
def test_the_known_leaks_of_lending_club_are_found_and_nothing_else(real_data):
    rows = pl.read_parquet(real_data / LOANS).join(pl.read_parquet(real_data / OUTCOMES), on="row_id")
    found = find_leaks(rows.drop(LABEL), rows[LABEL])
    assert {leak.column: round(leak.auc, 3) for leak in found} == KNOWN_LEAKS
    assert all(leak.is_certain and leak.kind == "value" for leak in found)


@pytest.mark.data
@pytest.mark.parametrize("path", STRONGEST_HONEST)
def test_no_legitimate_column_of_the_four_credit_sets_is_called_a_leak(real_data, path):
    rows = pl.read_parquet(real_data / path).drop("loan_status", strict=False)
    strongest = read_columns(rows.drop(LABEL), rows[LABEL])[0]
    assert (strongest.column, round(strongest.auc, 3)) == STRONGEST_HONEST[path]
    assert not find_leaks(rows.drop(LABEL), rows[LABEL])


@pytest.mark.data
def test_total_payments_are_below_the_threshold_as_the_module_says(real_data):
    rows, outcomes = pl.read_parquet(real_data / LOANS), pl.read_parquet(real_data / OUTCOMES)
    found = read_columns(outcomes, rows[LABEL], ["total_pymnt"])
    assert [round(r.auc, 3) for r in found] == [0.746]


# --- numbers, dates ---


def test_a_number_ranks_by_its_value_in_the_better_direction():
    bad = labels(2000)
    score = pl.Series(np.random.default_rng(1).normal(size=2000) + bad.to_numpy())
    expected = auc_value(bad.to_numpy(), score.to_numpy())
    assert reading(score, bad).auc == pytest.approx(expected)
    assert reading(-score, bad).auc == pytest.approx(expected)


def test_a_date_of_the_default_is_a_leak_by_its_missingness():
    bad = labels(1000)
    written_off = pl.Series([date(2020, 1, 1) + timedelta(days=i) if b else None for i, b in enumerate(bad)])
    found = find_leaks(written_off.alias("written_off_on").to_frame(), bad)
    assert [(leak.column, leak.kind, leak.auc) for leak in found] == [("written_off_on", "missingness", 1.0)]
    assert "whether 'written_off_on' is missing" in found[0].sentence


def test_missingness_counts_nan_and_ranks_as_its_share_says():
    bad = pl.Series([1] * 40 + [0] * 60)
    values = pl.Series([np.nan] * 30 + [1.0] * 10 + [np.nan] * 6 + [1.0] * 54)
    assert reading(values, bad, "missingness").auc == pytest.approx(0.5 + (30 / 40 - 6 / 60) / 2)


@pytest.mark.parametrize("dtype", [pl.Boolean, pl.Int8, pl.Float32, pl.Decimal(10, 2), pl.Date, pl.Datetime])
def test_every_type_with_an_order_is_ranked(dtype):
    bad = labels(500)
    values = bad.cast(pl.Boolean) if dtype == pl.Boolean else bad.cast(pl.Int32).cast(dtype)
    assert reading(values, bad).auc == 1.0


# --- categories ---


@pytest.mark.parametrize("rows_a_level", [1, 2, 5, 40])
def test_levels_of_noise_rank_nothing_however_many_they_are(rows_a_level):
    for seed in range(5):
        bad = labels(2000, seed=seed)
        noise = np.random.default_rng(seed + 100).permutation(2000) // rows_a_level
        assert reading(pl.Series(noise).cast(pl.String), bad).auc < 0.56


def test_without_folds_the_same_noise_would_be_a_leak():
    bad = labels(2000)
    levels = pl.Series("level", np.random.default_rng(100).permutation(2000) // 2).cast(pl.String)
    in_sample = pl.DataFrame([levels, bad]).select(pl.col(LABEL).mean().over("level")).to_series()
    assert auc_value(bad.to_numpy(), in_sample.to_numpy()) > LEAK_AUC


def test_a_constant_category_ranks_nothing_at_all():
    assert reading(pl.Series(["only"] * 40), pl.Series([1, 0] * 20)).auc == 0.5


@pytest.mark.parametrize("dtype", [pl.String, pl.Categorical, pl.Enum(["Charged Off", "Fully Paid"])])
def test_a_category_that_says_the_outcome_is_a_leak(dtype):
    bad = labels(1000)
    status = pl.Series(["Charged Off" if b else "Fully Paid" for b in bad], dtype=dtype)
    assert [leak.auc for leak in find_leaks(status.alias("status").to_frame(), bad)] == [1.0]


def test_a_category_ranks_close_to_its_true_bad_rates():
    rng = np.random.default_rng(3)
    level = rng.integers(0, 4, 20_000)
    bad = pl.Series((rng.random(20_000) < np.array([0.02, 0.05, 0.1, 0.3])[level]).astype(np.int8))
    expected = auc_value(bad.to_numpy(), level)
    assert reading(pl.Series(level).cast(pl.String), bad).auc == pytest.approx(expected, abs=0.005)


# --- how sure ---


def test_a_high_auc_from_ten_bads_is_a_finding_that_says_it_is_insufficient():
    bad = pl.Series([1] * 10 + [0] * 500)
    (leak,) = find_leaks(pl.DataFrame({"x": np.arange(510.0)}), bad)
    assert (leak.status, leak.is_certain) == ("insufficient", False)
    assert "too few rows" in leak.sentence


def test_a_leak_is_certain_only_where_the_lower_bound_is_above_the_threshold():
    rng = np.random.default_rng(0)

    def shifted(n_bad: int) -> tuple[pl.DataFrame, pl.Series]:
        bad = np.r_[np.ones(n_bad), np.zeros(4 * n_bad)]
        return pl.DataFrame({"x": rng.normal(size=5 * n_bad) + 1.4 * bad}), pl.Series(bad)

    few, many = find_leaks(*shifted(40))[0], find_leaks(*shifted(4000))[0]
    assert few.auc == pytest.approx(many.auc, abs=0.04)
    assert not few.is_certain
    assert "suspiciously high" in few.sentence
    assert many.is_certain
    assert "implausibly high" in many.sentence


def test_the_lower_bound_is_that_of_hanley_and_mcneil_where_the_sample_is_large():
    rng = np.random.default_rng(0)
    bad = np.r_[np.ones(1000), np.zeros(4000)]
    found = reading(pl.Series(rng.normal(size=5000) + bad), pl.Series(bad))
    a, m, n = found.auc, 1000, 4000
    variance = a * (1 - a) + (m - 1) * (a / (2 - a) - a**2) + (n - 1) * (2 * a**2 / (1 + a) - a**2)
    assert found.low == pytest.approx(a - 1.96 * np.sqrt(variance / (m * n)), abs=1e-3)


# --- borders ---


def test_unknown_labels_are_not_looked_at():
    bad = pl.Series([0, 1] * 50 + [None] * 100)
    values = pl.Series(list(range(100)) + [10**9] * 100)
    found = reading(values, bad)
    assert (found.n_bad, found.n_good) == (50, 50)
    assert found.auc == pytest.approx(auc_value(bad[:100].to_numpy(), np.arange(100)))


def test_one_class_is_undefined_and_no_leak():
    found = reading(pl.Series([1.0, 2.0]), pl.Series([0, 0]))
    assert (found.auc, found.status, found.is_leak) == (None, "undefined", False)


def test_a_column_of_nothing_but_missing_has_no_reading():
    assert read_columns(pl.DataFrame({"x": [None, None]}), pl.Series([0, 1])) == ()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"label": pl.Series([1, 0, 2])}, "labels must be 0, 1 or null"),
        ({"label": pl.Series([1, 0])}, "3 rows came with 2 labels"),
        ({"columns": ["y"]}, "column 'y' is not in the frame"),
        ({"threshold": 0.5}, "threshold must be in"),
    ],
)
def test_wrong_arguments_are_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        read_columns(**{"rows": pl.DataFrame({"x": [1, 2, 3]}), "label": pl.Series([1, 0, 1])} | arguments)


@given(
    st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=60).filter(
        lambda rows: len({bad for _, bad in rows}) == 2
    )
)
def test_readings_are_auc_by_pairs_within_half_and_one(rows):
    values, bad = pl.Series([v for v, _ in rows]), pl.Series([int(b) for _, b in rows])
    pairs = itertools.product(values.filter(bad == 1), values.filter(bad == 0))
    wins = np.mean([(b > g) + 0.5 * (b == g) for b, g in pairs])
    number, category = reading(values, bad), reading(values.cast(pl.String), bad)
    assert number.auc == pytest.approx(max(wins, 1 - wins))
    for found in (number, category):
        assert 0.5 <= found.auc <= 1
        assert 0 <= found.low <= found.auc

"""The TensorFlow compiler of the feature plan gives the bits that the Polars compiler gives, whatever comes in."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl
import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st

from crossrisk.features import (
    Age,
    BinSlots,
    BinTable,
    CategoryEncoding,
    DatePart,
    Difference,
    FeaturePlan,
    FitSettings,
    LevelCodes,
    LevelTable,
    NativeView,
    NumericEncoding,
    Ratio,
    RowPlan,
    Sentinels,
    encoded_query,
    encoding_expressions,
    fit_plan,
    rowwise_expressions,
)
from models.bundle import raw_batch
from models.feature_graph import encode

ROWS = RowPlan(
    decision_date="decided_on",
    numbers=("income", "tenure"),
    categories=("region", "grade"),
    sentinels=(Sentinels(column="income", codes=(-999.0, 0.0)), Sentinels(column="debt", codes=(99.0,))),
    ratios=(Ratio(name="debt_ratio", numerator="debt", denominator="income"),),
    ages=(Age(name="account_months", date="opened_on"), Age(name="customer_months", date="born_on")),
    differences=(Difference(name="free", minuend="income", subtrahend="debt"),),
    date_parts=(
        DatePart(name="year", date="born_on", part="year"),
        DatePart(name="quarter", date="born_on", part="quarter"),
        DatePart(name="month", date="seen_on", part="month"),
        DatePart(name="day", date="seen_on", part="day"),
        DatePart(name="weekday", date="decided_on", part="weekday"),
    ),
)
LEVELS = ["north", "süd", "North", "a\0b", "1", "true", "☃"]
FINITE = st.floats(-1e6, 1e6, allow_subnormal=False)


def by_polars(plan: FeaturePlan, frame: pl.DataFrame) -> np.ndarray:
    features = frame.select(rowwise_expressions(plan.rows))
    return features.select(encoding_expressions(plan)).to_numpy()


def by_tensorflow(plan: FeaturePlan, frame: pl.DataFrame) -> np.ndarray:
    batch = raw_batch(frame, plan.rows.raw_columns)
    return encode(plan, {name: tf.constant(values) for name, values in batch.items()}).numpy()


def assert_same_bits(plan: FeaturePlan, frame: pl.DataFrame) -> None:
    polars, tensorflow = by_polars(plan, frame), by_tensorflow(plan, frame)
    assert tensorflow.dtype == polars.dtype == np.float32
    assert tensorflow.shape == polars.shape == (frame.height, len(plan.outputs))
    # standardised values below 1.2e-38 are 0 in TensorFlow's float32; nothing else may differ
    normal = [np.where(np.abs(m) < np.finfo(np.float32).tiny, np.float32(0), m) for m in (polars, tensorflow)]
    np.testing.assert_array_equal(normal[1], normal[0])


# --- any plan, any frame ---

NUMBERS = st.one_of(
    st.none(),
    st.sampled_from([-999.0, 0.0, -0.0, 99.0, 1.0, float("nan"), float("inf"), float("-inf")]),
    st.floats(),
    st.sampled_from([5e-324, -1e-310, 1e-40]),
    st.floats(-1e4, 1e4, allow_subnormal=False),
)
TEXTS = st.one_of(
    st.none(), st.sampled_from(["", "north", "süd", "north ", "North", "a\0b", "\0"]), st.text(max_size=3)
)
DATES = st.one_of(st.none(), st.dates(), st.dates(dt.date(2015, 1, 1), dt.date(2024, 12, 31)))
DATETIMES = st.one_of(st.none(), st.datetimes(dt.datetime(1900, 1, 1), dt.datetime(2100, 1, 1)))


def columns_of(values: st.SearchStrategy[Any], dtype: Any, rows: int) -> st.SearchStrategy[pl.Series]:
    return st.lists(values, min_size=rows, max_size=rows).map(lambda v: pl.Series(v, dtype=dtype))


def numbers(rows: int) -> st.SearchStrategy[pl.Series]:
    decimals = st.one_of(st.none(), st.decimals(-9999, 9999, places=2), st.just(Decimal("99.00")))
    return st.one_of(
        columns_of(NUMBERS, pl.Float64, rows),
        columns_of(st.one_of(st.none(), st.floats(width=32)), pl.Float32, rows),
        columns_of(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.just(-999)), pl.Int64, rows),
        columns_of(st.one_of(st.none(), st.integers(0, 2**64 - 1)), pl.UInt64, rows),
        columns_of(st.one_of(st.none(), st.integers(-128, 127)), pl.Int8, rows),
        columns_of(st.one_of(st.none(), st.booleans()), pl.Boolean, rows),
        columns_of(decimals, pl.Decimal(10, 2), rows),
        columns_of(st.none(), pl.Null, rows),
    )


def categories(rows: int) -> st.SearchStrategy[pl.Series]:
    return st.one_of(
        columns_of(TEXTS, pl.String, rows),
        columns_of(TEXTS, pl.Categorical, rows),
        columns_of(st.sampled_from([None, "", "north", "süd"]), pl.Enum(["", "süd", "north"]), rows),
        columns_of(st.one_of(st.none(), st.integers(0, 3)), pl.Int16, rows),
        columns_of(st.one_of(st.none(), st.booleans()), pl.Boolean, rows),
        columns_of(st.none(), pl.Null, rows),
    )


def dates(rows: int) -> st.SearchStrategy[pl.Series]:
    return st.one_of(
        columns_of(DATES, pl.Date, rows),
        columns_of(DATETIMES, pl.Datetime("us"), rows),
        columns_of(st.none(), pl.Null, rows),
    )


@st.composite
def frames(draw: st.DrawFn) -> pl.DataFrame:
    rows = draw(st.integers(0, 6))
    kinds = {"number": numbers(rows), "category": categories(rows), "date": dates(rows)}
    return pl.DataFrame({column.name: draw(kinds[column.kind]) for column in ROWS.raw_columns})


@st.composite
def numeric_encodings(draw: st.DrawFn, column: str) -> NumericEncoding:
    low, high = sorted((draw(FINITE), draw(FINITE)))
    return NumericEncoding(
        column=column,
        fill=draw(FINITE),
        low=low,
        high=high,
        log=draw(st.sampled_from(["none", "signed_log", "log1p"] if low > -1 else ["none", "signed_log"])),
        mean=draw(FINITE),
        scale=draw(st.floats(1e-3, 1e6)),
        flag=draw(st.booleans()),
    )


@st.composite
def edges(draw: st.DrawFn) -> tuple[float, ...]:
    # on the values that frames draw from as well, so that equality is met
    value = st.one_of(FINITE, st.sampled_from([0.0, 1.0, 99.0, -999.0]))
    return tuple(sorted(set(draw(st.lists(value, min_size=1, max_size=5)))))


@st.composite
def bin_slots(draw: st.DrawFn, column: str) -> BinSlots:
    cuts = draw(edges())
    fill_bin = draw(st.integers(0, len(cuts)))
    return BinSlots(column=column, edges=cuts, missing_slot=draw(st.booleans()), fill_bin=fill_bin)


@st.composite
def tables(draw: st.DrawFn, column: str, count: int) -> dict[str, Any]:
    values = draw(st.lists(FINITE, min_size=count, max_size=count))
    return {
        "name": f"{column} woe",
        "column": column,
        "meaning": "woe",
        "values": tuple(values),
        "missing": draw(FINITE),
        "mean": draw(FINITE),
        "scale": draw(st.floats(1e-3, 1e6)),
        "uses_labels": True,
    }


@st.composite
def bin_tables(draw: st.DrawFn, column: str) -> BinTable:
    cuts = draw(st.one_of(st.just(()), edges()))
    return BinTable(**draw(tables(column, len(cuts) + 1)), edges=cuts)


@st.composite
def level_tables(draw: st.DrawFn, column: str) -> LevelTable:
    levels = tuple(draw(st.lists(st.sampled_from(LEVELS), unique=True)))
    return LevelTable(**draw(tables(column, len(levels))), levels=levels, other=draw(FINITE))


def some(names: tuple[str, ...]) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(names), unique=True)


@st.composite
def plans(draw: st.DrawFn) -> FeaturePlan:
    kept = draw(st.lists(st.sampled_from(ROWS.numeric_features), unique=True))
    encoded = draw(st.lists(st.sampled_from(ROWS.categories), unique=True, min_size=0 if kept else 1))
    levels = st.lists(st.sampled_from(LEVELS), unique=True)
    return FeaturePlan(
        rows=ROWS,
        numerics=tuple(draw(numeric_encodings(name)) for name in kept),
        categories=tuple(
            CategoryEncoding(column=name, levels=tuple(draw(levels)), missing_slot=draw(st.booleans()))
            for name in encoded
        ),
        bins=tuple(draw(bin_slots(name)) for name in draw(some(ROWS.numeric_features))),
        bin_tables=tuple(draw(bin_tables(name)) for name in draw(some(ROWS.numeric_features))),
        level_tables=tuple(draw(level_tables(name)) for name in draw(some(ROWS.categories))),
    )


@settings(deadline=None, max_examples=200)
@given(plan=plans(), frame=frames())
def test_both_compilers_give_the_same_bits_on_every_row(plan: FeaturePlan, frame: pl.DataFrame) -> None:
    assert_same_bits(plan, frame)


@settings(deadline=None)
@example(values=[0.1, 0.2, 0.3])
@given(values=st.lists(st.floats(-1e9, 1e9, allow_subnormal=False), min_size=2, max_size=50))
def test_fitted_plan_gives_the_same_bits_on_its_own_training_rows(values: list[float]) -> None:
    rows = RowPlan(decision_date=None, numbers=("x",), categories=(), sentinels=(), ratios=(), ages=())
    frame = pl.DataFrame({"x": [*values, min(values) - 1.0]})
    features = frame.select(rowwise_expressions(rows))
    plan = fit_plan(features, rows, FitSettings(clip_quantiles=(0.05, 0.95), min_level_rows=2))
    if plan.outputs:
        assert_same_bits(plan, frame)


@pytest.mark.parametrize("count", [1, 2, 1_000])
def test_scaling_is_the_same_product_whatever_the_number_of_rows(count: int) -> None:
    # Polars takes x / constant for a product in long chunks and for a division in short ones.
    # Here x / 3 and x * (1 / 3) lie on either side of a tie between two float32.
    x = 3.0000001788139348
    assert np.float32(x / 3.0) != np.float32(x * (1.0 / 3.0))
    rows = RowPlan(decision_date=None, numbers=("x",), categories=(), sentinels=(), ratios=(), ages=())
    plan = FeaturePlan(rows=rows, numerics=(plain("x", scale=3.0),), categories=())
    assert_same_bits(plan, pl.DataFrame({"x": [x] * count}))


@settings(deadline=None, max_examples=100)
@given(frame=frames(), levels=st.lists(st.sampled_from(LEVELS), unique=True))
def test_both_compilers_leave_missing_and_levels_to_the_trees_in_the_same_way(
    frame: pl.DataFrame, levels: list[str]
) -> None:
    codes = tuple(LevelCodes(column=name, levels=tuple(levels)) for name in ROWS.categories)
    native = NativeView(numbers=ROWS.numeric_features, categories=codes)
    plan = FeaturePlan(rows=ROWS, native=native).served_as("native")
    polars = encoded_query(plan, frame.lazy()).collect().to_numpy()
    tensorflow = by_tensorflow(plan, frame)
    assert polars.dtype == tensorflow.dtype == np.float32
    np.testing.assert_array_equal(tensorflow, polars)
    for column, name in zip(native.categorical, ROWS.categories, strict=True):
        text = frame[name].cast(pl.String)
        known = [levels.index(t) if t in levels else (np.nan if t in (None, "") else len(levels)) for t in text]
        np.testing.assert_array_equal(tensorflow[:, column], np.array(known, np.float32))


def test_a_plan_without_a_native_view_is_not_served_as_one() -> None:
    with pytest.raises(ValueError, match=r"lineup\.boosted_inputs"):
        FeaturePlan(rows=ROWS).served_as("native")


# --- hand-worked values, so that both compilers cannot be wrong together ---


def plain(column: str, **fields: Any) -> NumericEncoding:
    values = {"fill": 0.5, "low": -100.0, "high": 100.0, "mean": 0.0, "scale": 1.0, "flag": True}
    return NumericEncoding(column=column, **{**values, **fields})


def encoded(plan: FeaturePlan, **columns: Any) -> dict[str, list[float]]:
    matrix = by_tensorflow(plan, pl.DataFrame(columns))
    return dict(zip(plan.outputs, matrix.T.tolist(), strict=True))


def test_number_is_filled_clipped_standardised_and_flagged() -> None:
    rows = RowPlan(
        decision_date=None,
        numbers=("x",),
        categories=(),
        sentinels=(Sentinels(column="x", codes=(-1.0,)),),
        ratios=(),
        ages=(),
    )
    plan = FeaturePlan(rows=rows, numerics=(plain("x", fill=6.0, high=10.0, mean=2.0, scale=4.0),), categories=())
    got = encoded(plan, x=[4.0, None, float("nan"), -1.0, float("inf"), 11.0])
    assert got == {"x": [0.5, 1.0, 1.0, 1.0, 1.0, 2.0], "x is missing": [0.0, 1.0, 1.0, 1.0, 1.0, 0.0]}


def test_ratio_is_missing_where_a_part_is_missing_or_the_denominator_zero() -> None:
    rows = RowPlan(
        decision_date=None,
        numbers=(),
        categories=(),
        sentinels=(),
        ratios=(Ratio(name="r", numerator="a", denominator="b"),),
        ages=(),
    )
    plan = FeaturePlan(rows=rows, numerics=(plain("r"),), categories=())
    got = encoded(plan, a=[1.0, None, 1.0, 1.0, 0.0], b=[4.0, 2.0, None, 0.0, -0.0])
    assert got == {"r": [0.25, 0.5, 0.5, 0.5, 0.5], "r is missing": [0.0, 1.0, 1.0, 1.0, 1.0]}


def test_age_counts_mean_months_and_is_missing_where_a_date_is() -> None:
    rows = RowPlan(
        decision_date="at", numbers=(), categories=(), sentinels=(), ratios=(), ages=(Age(name="m", date="since"),)
    )
    plan = FeaturePlan(rows=rows, numerics=(plain("m"),), categories=())
    later, earlier = dt.date(2024, 1, 1), dt.date(2020, 1, 1)
    got = encoded(plan, at=[later, earlier, None, later], since=[earlier, later, earlier, None])
    assert got == {"m": [48.0, -48.0, 0.5, 0.5], "m is missing": [0.0, 0.0, 1.0, 1.0]}


@pytest.mark.parametrize(("missing_slot", "slots"), [(True, ["is missing", "is other"]), (False, ["is other"])])
def test_category_without_its_own_slot_falls_into_other(missing_slot: bool, slots: list[str]) -> None:
    rows = RowPlan(decision_date=None, numbers=(), categories=("c",), sentinels=(), ratios=(), ages=())
    encoding = CategoryEncoding(column="c", levels=("a", "b"), missing_slot=missing_slot)
    got = encoded(FeaturePlan(rows=rows, numerics=(), categories=(encoding,)), c=["b", None, "", "new"])
    absent, new = [0.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]
    other = new if missing_slot else [0.0, 1.0, 1.0, 1.0]
    expected = {"c=a": [0.0] * 4, "c=b": [1.0, 0.0, 0.0, 0.0], "c is missing": absent, "c is other": other}
    assert got == {name: expected[name] for name in ("c=a", "c=b", *(f"c {slot}" for slot in slots))}


def test_plan_without_an_output_is_refused() -> None:
    with pytest.raises(ValueError, match="no output"):
        encode(FeaturePlan(rows=ROWS, numerics=(), categories=()), {})


def test_raw_column_that_was_not_given_is_named() -> None:
    plan = FeaturePlan(rows=ROWS, numerics=(plain("income"),), categories=())
    with pytest.raises(ValueError, match="'income' of the feature plan was not given"):
        encode(plan, {})


def test_parts_of_dates_are_those_of_the_calendar() -> None:
    days = [dt.date(1, 1, 1), dt.date(1900, 2, 28), dt.date(1969, 12, 31), dt.date(2000, 2, 29), dt.date(9999, 12, 31)]
    parts = ("year", "quarter", "month", "day", "weekday")
    rows = RowPlan(
        decision_date=None, numbers=(), categories=(), sentinels=(), ratios=(), ages=(),
        date_parts=tuple(DatePart(name=part, date="on", part=part) for part in parts),
    )  # fmt: skip
    wide = {"low": 0.0, "high": 9999.0}
    plan = FeaturePlan(rows=rows, numerics=tuple(plain(part, flag=False, **wide) for part in parts))
    got = encoded(plan, on=days)
    assert got["year"] == [d.year for d in days]
    assert got["quarter"] == [(d.month + 2) // 3 for d in days]
    assert got["month"] == [d.month for d in days]
    assert got["day"] == [d.day for d in days]
    assert got["weekday"] == [d.isoweekday() for d in days]


def test_every_day_of_eight_centuries_has_the_same_parts_in_both_compilers() -> None:
    rows = RowPlan(
        decision_date=None, numbers=(), categories=(), sentinels=(), ratios=(), ages=(),
        date_parts=tuple(DatePart(name=p, date="on", part=p) for p in ("year", "quarter", "month", "day", "weekday")),
    )  # fmt: skip
    plan = FeaturePlan(rows=rows, numerics=tuple(plain(p.name, low=0.0, high=9999.0) for p in rows.date_parts))
    assert_same_bits(plan, pl.DataFrame({"on": pl.date_range(dt.date(1600, 1, 1), dt.date(2400, 1, 1), eager=True)}))


@pytest.mark.parametrize("days", [-719_163, 2_932_897, 2**31 - 1, -(2**31) + 1])
def test_days_that_no_calendar_holds_have_no_part(days: int) -> None:
    rows = RowPlan(
        decision_date=None, numbers=(), categories=(), sentinels=(), ratios=(), ages=(),
        date_parts=(DatePart(name="year", date="on", part="year"),),
    )  # fmt: skip
    plan = FeaturePlan(rows=rows, numerics=(plain("year"),))
    frame = pl.DataFrame({"on": pl.Series([days], dtype=pl.Int32).cast(pl.Date)})
    assert_same_bits(plan, frame)
    assert by_tensorflow(plan, frame).tolist() == [[0.5, 1.0]]


@pytest.mark.parametrize("log", ["log1p", "signed_log"])
def test_logarithms_agree_on_every_one_of_many_rows(log: str) -> None:
    # two libraries' log1p differ by an ulp on a third of the rows; where the mean is subtracted that would be magnified
    rng = np.random.default_rng(5)
    x = np.concatenate(
        [rng.lognormal(8, 3, 300_000), rng.uniform(0, 2, 200_000), np.expm1(4.0) + rng.normal(0, 1e-9, 1000)]
    )
    rows = RowPlan(decision_date=None, numbers=("x",), categories=(), sentinels=(), ratios=(), ages=())
    limits = {"low": 0.0, "high": 1e12, "mean": 4.0, "scale": 1.7}
    assert_same_bits(FeaturePlan(rows=rows, numerics=(plain("x", log=log, **limits),)), pl.DataFrame({"x": x}))


def test_logarithm_is_taken_after_clipping_and_keeps_the_sign() -> None:
    rows = RowPlan(decision_date=None, numbers=("x",), categories=(), sentinels=(), ratios=(), ages=())
    plan = FeaturePlan(rows=rows, numerics=(plain("x", log="signed_log", low=-3.0, high=7.0, fill=0.0),))
    assert encoded(plan, x=[-50.0, -3.0, None, 1.0, 7.0, 50.0])["x"] == pytest.approx(
        [-np.log(4), -np.log(4), 0.0, np.log(2), np.log(8), np.log(8)], rel=1e-6
    )


def test_bins_are_closed_on_the_right_and_missing_has_its_slot_or_that_of_the_median() -> None:
    rows = RowPlan(decision_date=None, numbers=("x",), categories=(), sentinels=(), ratios=(), ages=())
    slots = {"column": "x", "edges": (1.0, 2.0), "fill_bin": 1}
    x = [1.0, 1.5, 2.0, 2.5, None]
    with_slot = encoded(FeaturePlan(rows=rows, bins=(BinSlots(**slots, missing_slot=True),)), x=x)
    assert with_slot == {
        "x up to 1.0": [1, 0, 0, 0, 0],
        "x in (1.0, 2.0]": [0, 1, 1, 0, 0],
        "x above 2.0": [0, 0, 0, 1, 0],
        "x in no bin": [0, 0, 0, 0, 1],
    }
    without = encoded(FeaturePlan(rows=rows, bins=(BinSlots(**slots, missing_slot=False),)), x=x)
    assert without["x in (1.0, 2.0]"] == [0, 1, 1, 0, 1]


def test_tables_know_levels_bins_missing_and_unseen() -> None:
    rows = RowPlan(decision_date=None, numbers=("x",), categories=("c",), sentinels=(), ratios=(), ages=())
    values = {"values": (10.0, 20.0), "missing": 7.0, "mean": 0.0, "scale": 10.0, "uses_labels": False}
    levels = LevelTable(name="c mean", column="c", meaning="mean of x", levels=("a", "b"), other=5.0, **values)
    bins = BinTable(name="x woe", column="x", meaning="woe", edges=(0.0,), **values)
    plan = FeaturePlan(rows=rows, bin_tables=(bins,), level_tables=(levels,))
    got = encoded(plan, x=[0.0, 0.1, None, float("nan")], c=["b", "mars", "", None])
    assert got["c mean"] == pytest.approx([2.0, 0.5, 0.7, 0.7])
    assert got["x woe"] == pytest.approx([1.0, 2.0, 0.7, 0.7])


def test_subnormal_numbers_are_zero_to_both_compilers() -> None:
    rows = RowPlan(
        decision_date=None, numbers=("x",), categories=(), sentinels=(), ages=(),
        ratios=(Ratio(name="r", numerator="y", denominator="x"),),
    )  # fmt: skip
    bins = BinSlots(column="x", edges=(0.0,), missing_slot=True, fill_bin=0)
    plan = FeaturePlan(rows=rows, numerics=(plain("r"),), bins=(bins,))
    frame = pl.DataFrame({"x": [5e-324, -5e-324, 1e-310, 0.0, 1e-300], "y": [1.0, 1.0, 1e-310, 0.0, 1e-300]})
    assert_same_bits(plan, frame)
    got = encoded(plan, **{name: frame[name] for name in frame.columns})
    assert got["r is missing"] == [1, 1, 1, 1, 0]
    assert got["x up to 0.0"] == [1, 1, 1, 1, 0]

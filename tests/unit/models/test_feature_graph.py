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
    CategoryEncoding,
    FeaturePlan,
    NumericEncoding,
    Ratio,
    RowPlan,
    Sentinels,
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
)


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
    # TensorFlow's kernels take subnormal numbers for zero; nothing else may differ
    normal = [np.where(np.abs(m) < np.finfo(np.float32).tiny, np.float32(0), m) for m in (polars, tensorflow)]
    np.testing.assert_array_equal(normal[1], normal[0])


# --- any plan, any frame ---

NUMBERS = st.one_of(
    st.none(),
    st.sampled_from([-999.0, 0.0, -0.0, 99.0, 1.0, float("nan"), float("inf"), float("-inf")]),
    st.floats(allow_subnormal=False),
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
        columns_of(st.one_of(st.none(), st.floats(width=32, allow_subnormal=False)), pl.Float32, rows),
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
    finite = st.floats(-1e6, 1e6, allow_subnormal=False)
    low, high = sorted((draw(finite), draw(finite)))
    scale = draw(st.floats(1e-3, 1e6))
    return NumericEncoding(
        column=column, fill=draw(finite), low=low, high=high, mean=draw(finite), scale=scale, flag=draw(st.booleans())
    )


@st.composite
def plans(draw: st.DrawFn) -> FeaturePlan:
    kept = draw(st.lists(st.sampled_from(ROWS.numeric_features), unique=True))
    encoded = draw(st.lists(st.sampled_from(ROWS.categories), unique=True, min_size=0 if kept else 1))
    levels = st.lists(st.sampled_from(["north", "süd", "North", "a\0b", "1", "true", "☃"]), unique=True)
    return FeaturePlan(
        rows=ROWS,
        numerics=tuple(draw(numeric_encodings(name)) for name in kept),
        categories=tuple(
            CategoryEncoding(column=name, levels=tuple(draw(levels)), missing_slot=draw(st.booleans()))
            for name in encoded
        ),
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
    plan = fit_plan(features, rows, clip_quantiles=(0.05, 0.95), min_level_rows=2)
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

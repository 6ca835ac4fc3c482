"""The first compiler: the feature plan as Polars expressions, for one lazy query over any number of rows.

Every expression is row by row and native, so that the query streams, reads only the columns it needs and runs no
Python. What `models.feature_graph` does must be the same, operation by operation and in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import polars as pl

from crossrisk.features.plan import BinSlots, BinTable, CategoryEncoding, FeaturePlan, LevelTable, NumericEncoding
from crossrisk.features.rows import (
    DAYS_PER_MONTH,
    FIRST_DAY,
    LAST_DAY,
    SMALLEST_NORMAL,
    SMALLEST_NORMAL_32,
    Age,
    DatePart,
    Difference,
    Ratio,
    RowPlan,
)

_BESIDE = "beside "
"""A raw column may be both a feature and beside the matrix: until the matrix is made it has another name."""
_PARTS: dict[str, Callable[[pl.Expr], pl.Expr]] = {
    "year": lambda date: date.dt.year(),
    "quarter": lambda date: date.dt.quarter(),
    "month": lambda date: date.dt.month(),
    "day": lambda date: date.dt.day(),
    "weekday": lambda date: date.dt.weekday(),
}


def encoded_query(plan: FeaturePlan, raw: pl.LazyFrame, *, beside: Sequence[str] = ()) -> pl.LazyFrame:
    """The whole plan as one query: raw columns in, the matrix `plan.columns` out, in the order of the rows.

    Args:
        plan: fitted.
        raw: holds `plan.rows.raw_columns` and the columns beside; others are never read.
        beside: columns that are kept as they are in front of the matrix, such as an id.
    """
    features = raw.select(
        *(pl.col(name).alias(f"{_BESIDE}{i}") for i, name in enumerate(beside)), *rowwise_expressions(plan.rows)
    )
    kept = (pl.col(f"{_BESIDE}{i}").alias(name) for i, name in enumerate(beside))
    matrix = encoding_expressions(plan) if plan.view == "encoded" else native_expressions(plan)
    return features.select(*kept, *matrix)


# --- row-wise part: raw columns -> features ---


def rowwise_expressions(rows: RowPlan) -> list[pl.Expr]:
    """One expression a feature over the raw columns: numbers as float64, categories as strings, missing as null.

    Numbers come before categories, each in the order of the plan.
    """
    codes = {s.column: s.codes for s in rows.sentinels}

    def number(name: str) -> pl.Expr:
        value = _finite(pl.col(name).cast(pl.Float64))
        return value if name not in codes else pl.when(~value.is_in(codes[name])).then(value)

    def ratio(r: Ratio) -> pl.Expr:
        denominator = number(r.denominator)
        return _finite(pl.when(denominator != 0).then(number(r.numerator) / denominator))

    def difference(d: Difference) -> pl.Expr:
        return _finite(number(d.minuend) - number(d.subtrahend))

    def age(a: Age) -> pl.Expr:
        days = _day_number(str(rows.decision_date)) - _day_number(a.date)
        # a product, because Polars takes x / constant for one where a chunk has several rows, and not where it has one
        return days.cast(pl.Float64) * (1.0 / DAYS_PER_MONTH)

    return [
        *(number(name).alias(name) for name in rows.numbers),
        *(ratio(r).alias(r.name) for r in rows.ratios),
        *(age(a).alias(a.name) for a in rows.ages),
        *(difference(d).alias(d.name) for d in rows.differences),
        *(_date_part(p).alias(p.name) for p in rows.date_parts),
        *(_category(name).alias(name) for name in rows.categories),
    ]


def _finite(value: pl.Expr) -> pl.Expr:
    return pl.when(value.is_finite()).then(_normal(value, SMALLEST_NORMAL))


def _normal(value: pl.Expr, smallest: float) -> pl.Expr:
    """The value, and 0 where it is subnormal: what TensorFlow's kernels take it for."""
    return pl.when(value.abs() < smallest).then(0.0).otherwise(value)


def _category(name: str) -> pl.Expr:
    text = pl.col(name).cast(pl.String)
    return pl.when(text != "").then(text)


def _date_part(p: DatePart) -> pl.Expr:
    is_known = _day_number(p.date).is_between(FIRST_DAY, LAST_DAY)
    return pl.when(is_known).then(_PARTS[p.part](pl.col(p.date).cast(pl.Date)).cast(pl.Float64))


def _day_number(column: str) -> pl.Expr:
    return pl.col(column).cast(pl.Date).cast(pl.Int32)


# --- fitted part: features -> encoded matrix ---


def encoding_expressions(plan: FeaturePlan) -> list[pl.Expr]:
    """One float32 expression for each of plan.outputs, over the row-wise features; no output is ever null."""
    expressions = [
        *(e for numeric in plan.numerics for e in _numeric(numeric)),
        *(e for category in plan.categories for e in _slots_of_levels(category)),
        *(e for bins in plan.bins for e in _slots_of_bins(bins)),
        *(_bin_value(table) for table in plan.bin_tables),
        *(_level_value(table) for table in plan.level_tables),
    ]
    names = plan.outputs
    return [expression.cast(pl.Float32).alias(name) for name, expression in zip(names, expressions, strict=True)]


def native_expressions(plan: FeaturePlan) -> list[pl.Expr]:
    """One float32 expression for each column of the native view, missing as NaN; none where the plan has no such view.

    A code is 0, 1, ... in the order of the levels, their number for any other level.
    """
    if plan.native is None:
        return []
    expressions = [_normal(pl.col(name), SMALLEST_NORMAL_32).cast(pl.Float32) for name in plan.native.numbers]
    for one in plan.native.categories:
        column, other = pl.col(one.column), pl.lit(float(len(one.levels)), pl.Float32)
        codes = pl.Series(range(len(one.levels)), dtype=pl.Float32)
        known = column.replace_strict(list(one.levels), codes, default=other, return_dtype=pl.Float32)
        expressions.append(pl.when(column.is_not_null()).then(known if one.levels else other))
    names = plan.native.outputs
    return [e.fill_null(float("nan")).alias(name) for name, e in zip(names, expressions, strict=True)]


def filled_and_clipped(n: NumericEncoding) -> pl.Expr:
    """The number with missing filled, held within its limits, and logged: what is standardised."""
    held = pl.col(n.column).fill_null(n.fill).clip(n.low, n.high)
    match n.log:
        case "none":
            return held
        case "log1p":
            return _rounded(held.log1p())
        case "signed_log":
            return _rounded(held.sign() * held.abs().log1p())


def _rounded(logarithm: pl.Expr) -> pl.Expr:
    return logarithm.cast(pl.Float32).cast(pl.Float64)


def _numeric(n: NumericEncoding) -> Iterator[pl.Expr]:
    yield (filled_and_clipped(n) - n.mean) * (1.0 / n.scale)  # a product: see age above
    if n.flag:
        yield pl.col(n.column).is_null()


def _slots_of_levels(c: CategoryEncoding) -> Iterator[pl.Expr]:
    column = pl.col(c.column)
    yield from (column.eq_missing(level) for level in c.levels)
    named = column.is_in(list(c.levels)).fill_null(False)
    if c.missing_slot:
        yield column.is_null()
        named = named | column.is_null()
    yield ~named


def _slots_of_bins(b: BinSlots) -> Iterator[pl.Expr]:
    column = pl.col(b.column)
    inner = ((column > low) & (column <= high) for low, high in pairwise(b.edges))
    for position, within in enumerate((column <= b.edges[0], *inner, column > b.edges[-1])):
        yield within.fill_null(not b.missing_slot and position == b.fill_bin)
    if b.missing_slot:
        yield column.is_null()


def _bin_value(t: BinTable) -> pl.Expr:
    column = pl.col(t.column)
    found: pl.Expr = _constant(t, t.values[-1])
    for edge, value in zip(reversed(t.edges), reversed(t.values[:-1]), strict=True):
        found = pl.when(column <= edge).then(_constant(t, value)).otherwise(found)
    return pl.when(column.is_null()).then(_constant(t, t.missing)).otherwise(found)


def _level_value(t: LevelTable) -> pl.Expr:
    column = pl.col(t.column)
    other = _constant(t, t.other)
    if t.levels:
        values = pl.Series([t.standardised(value) for value in t.values], dtype=pl.Float32)
        known: pl.Expr = column.replace_strict(list(t.levels), values, default=other, return_dtype=pl.Float32)
    else:
        known = other
    return pl.when(column.is_null()).then(_constant(t, t.missing)).otherwise(known)


def _constant(t: BinTable | LevelTable, value: float) -> pl.Expr:
    return pl.lit(t.standardised(value), pl.Float32)

"""The feature plan as TensorFlow operations: the second compiler of `crossrisk.features`.

Operation by operation what `rowwise_expressions` and `encoding_expressions` do in Polars: float64 throughout, in the
same order, one rounding to float32 at the end, so that both give the same bits. (One caveat: TensorFlow's kernels
take subnormal floats, below 2.2e-308, for zero.) Columns of one treatment are stacked and treated together: a plan
of 300 numbers is a handful of operations, not 3,000. Nothing is fitted here and nothing is read from files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from crossrisk.features import (
    DAYS_PER_MONTH,
    BinSlots,
    BinTable,
    CategoryEncoding,
    DatePart,
    FeaturePlan,
    LevelTable,
    NumericEncoding,
    RowPlan,
)
from crossrisk.features.rows import FIRST_DAY, LAST_DAY

DATE_MISSING = int(np.iinfo(np.int32).min)
"""A missing date, as days since 1970-01-01."""


def encode(plan: FeaturePlan, raw: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """The matrix (n, d) float32 of n rows of raw columns, d = len(plan.columns).

    The encoded view is finite wherever scales are; in the native view missing is NaN.

    Args:
        plan: the fitted plan; its view says which matrix.
        raw: one (n,) tensor for each of `plan.rows.raw_columns`: numbers float64 with NaN for missing, categories
            string with "" for missing, dates int32 days since 1970-01-01 with DATE_MISSING for missing.

    Raises:
        ValueError: the plan has no output, or a raw column is not in `raw`.
    """
    if not plan.columns:
        raise ValueError("the feature plan has no output: no column varies among its training rows")
    absent = [column.name for column in plan.rows.raw_columns if column.name not in raw]
    if absent:
        raise ValueError(f"raw column {absent[0]!r} of the feature plan was not given; given: {sorted(raw)}")
    numbers = _numeric_features(plan.rows, raw)
    blocks = _encoded_blocks(plan, raw, numbers) if plan.view == "encoded" else _native_blocks(plan, raw, numbers)
    return tf.concat(list(blocks), axis=1)


def _encoded_blocks(plan: FeaturePlan, raw: Mapping[str, tf.Tensor], numbers: _Numbers) -> Iterator[tf.Tensor]:
    if plan.numerics:
        yield _encode_numerics(plan.numerics, numbers)
    yield from (_encode_category(category, raw[category.column]) for category in plan.categories)
    yield from (_encode_bins(bins, numbers) for bins in plan.bins)
    yield from (_bin_values(table, numbers) for table in plan.bin_tables)
    yield from (_level_values(table, raw[table.column]) for table in plan.level_tables)


def _native_blocks(plan: FeaturePlan, raw: Mapping[str, tf.Tensor], numbers: _Numbers) -> Iterator[tf.Tensor]:
    assert plan.native is not None  # plan.columns has asked for it
    yield tf.transpose(tf.cast(numbers.of(plan.native.numbers), tf.float32))
    for one in plan.native.categories:
        count = len(one.levels)
        position = _level_positions(one.levels, raw[one.column])
        code = tf.cast(tf.minimum(position, count), tf.float32)  # all else follows missing there, and the levels here
        yield tf.where(tf.equal(position, count), np.nan, code)[:, tf.newaxis]


@dataclass(frozen=True)
class _Numbers:
    """Numbers (k, n) float64, missing as NaN, a row a name: what is done to a column then runs along memory."""

    values: tf.Tensor
    names: tuple[str, ...]

    def of(self, names: Sequence[str]) -> tf.Tensor:
        """The rows (m, n) of these names."""
        if tuple(names) == self.names:
            return self.values
        position = {name: i for i, name in enumerate(self.names)}
        return tf.gather(self.values, _int32([position[name] for name in names]))


# --- row-wise part: raw columns -> numeric features, missing as NaN ---


def _numeric_features(rows: RowPlan, raw: Mapping[str, tf.Tensor]) -> _Numbers:
    """The features of rows.numeric_features."""
    given = _raw_numbers(rows, raw)
    blocks = [given.of(rows.numbers)]
    if rows.ratios:
        numerators = given.of([r.numerator for r in rows.ratios])
        denominators = given.of([r.denominator for r in rows.ratios])
        blocks.append(_finite_or_nan(tf.where(tf.equal(denominators, 0.0), _nan(), numerators / denominators)))
    if rows.ages:
        blocks.append(_ages(rows, raw))
    if rows.differences:
        subtrahends = given.of([d.subtrahend for d in rows.differences])
        blocks.append(_finite_or_nan(given.of([d.minuend for d in rows.differences]) - subtrahends))
    blocks += [_date_part(part, raw[part.date])[tf.newaxis] for part in rows.date_parts]
    return _Numbers(blocks[0] if len(blocks) == 1 else tf.concat(blocks, axis=0), rows.numeric_features)


def _raw_numbers(rows: RowPlan, raw: Mapping[str, tf.Tensor]) -> _Numbers:
    """The numeric raw columns, with infinities and missing codes as NaN."""
    names = tuple(column.name for column in rows.raw_columns if column.kind == "number")
    if not names:  # a plan of categories and dates alone; the rows still have to be counted
        return _Numbers(tf.zeros([0, tf.shape(next(iter(raw.values())))[0]], tf.float64), names)
    finite = _finite_or_nan(tf.stack([raw[name] for name in names]))
    return _Numbers(_without_sentinels(rows, names, finite), names)


def _finite_or_nan(numbers: tf.Tensor) -> tf.Tensor:
    return tf.where(tf.math.is_finite(numbers), numbers, _nan())


def _without_sentinels(rows: RowPlan, names: Sequence[str], numbers: tf.Tensor) -> tf.Tensor:
    """Numbers (k, n) with the missing codes of each row made NaN."""
    codes = {s.column: s.codes for s in rows.sentinels}
    for slot in range(max((len(c) for c in codes.values()), default=0)):
        # one code a column at a time: the (k, n, codes) cube of all comparisons at once would not fit a large batch
        code = [codes[name][slot] if slot < len(codes.get(name, ())) else np.nan for name in names]
        numbers = tf.where(tf.equal(numbers, _upright(code)), _nan(), numbers)
    return numbers


def _ages(rows: RowPlan, raw: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """Months (a, n) from each age's date to the decision date."""
    decision = raw[str(rows.decision_date)]
    dates = tf.stack([raw[age.date] for age in rows.ages])
    missing = tf.equal(dates, DATE_MISSING) | tf.equal(decision, DATE_MISSING)
    # a product with the reciprocal, as in crossrisk.features: the same to the last bit
    months = tf.cast(decision - dates, tf.float64) * (1.0 / DAYS_PER_MONTH)
    return tf.where(missing, _nan(), months)


def _date_part(wanted: DatePart, days: tf.Tensor) -> tf.Tensor:
    """The part (n,) float64 of days since 1970-01-01, proleptic Gregorian; missing beyond the years 1 to 9999.

    Counted from 0000-03-01, in eras of 400 years, so that a leap day is the last of its year.
    """
    is_known = (days >= FIRST_DAY) & (days <= LAST_DAY)
    since_march = tf.where(is_known, tf.cast(days, tf.int64), 0) + 719_468
    era, day_of_era = since_march // 146_097, since_march % 146_097
    leap_days = day_of_era // 1_460 - day_of_era // 36_524 + day_of_era // 146_096
    year_of_era = (day_of_era - leap_days) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month_from_march = (5 * day_of_year + 2) // 153
    month = tf.where(month_from_march < 10, month_from_march + 3, month_from_march - 9)
    match wanted.part:
        case "year":
            found = era * 400 + year_of_era + tf.cast(month <= 2, tf.int64)
        case "quarter":
            found = (month + 2) // 3
        case "month":
            found = month
        case "day":
            found = day_of_year - (153 * month_from_march + 2) // 5 + 1
        case "weekday":
            found = (since_march + 2) % 7 + 1  # 0000-03-01 was a Wednesday
    return tf.where(is_known, tf.cast(found, tf.float64), _nan())


# --- fitted part: features -> encoded matrix ---


def _encode_numerics(encodings: Sequence[NumericEncoding], numbers: _Numbers) -> tf.Tensor:
    """The numeric outputs (n, k + flags) float32, each flag behind its number."""

    def constant(field: str) -> tf.Tensor:
        return _upright([getattr(e, field) for e in encodings])

    x = numbers.of([e.column for e in encodings])
    missing = tf.math.is_nan(x)
    held = tf.minimum(tf.maximum(tf.where(missing, constant("fill"), x), constant("low")), constant("high"))
    reciprocals = _upright([1.0 / e.scale for e in encodings])  # as in _ages
    standardised = tf.cast((_logged(encodings, held) - constant("mean")) * reciprocals, tf.float32)

    flagged = [i for i, e in enumerate(encodings) if e.flag]
    flags = tf.cast(tf.gather(missing, _int32(flagged)), tf.float32)
    flag_position = {i: len(encodings) + j for j, i in enumerate(flagged)}
    order = [p for i in range(len(encodings)) for p in (i, flag_position.get(i)) if p is not None]
    return tf.transpose(tf.gather(tf.concat([standardised, flags], axis=0), _int32(order)))


def _logged(encodings: Sequence[NumericEncoding], held: tf.Tensor) -> tf.Tensor:
    """The rows (k, n) with the logarithm taken of those that have one."""
    logged = [i for i, e in enumerate(encodings) if e.log != "none"]
    if not logged:
        return held
    x = tf.gather(held, _int32(logged))
    is_signed = tf.constant([[encodings[i].log == "signed_log"] for i in logged])
    logarithm = tf.where(is_signed, tf.sign(x) * tf.math.log1p(tf.abs(x)), tf.math.log1p(x))
    # rounded here, as in crossrisk.features: see NumericEncoding.log
    rounded = tf.cast(tf.cast(logarithm, tf.float32), tf.float64)
    place = {i: len(encodings) + j for j, i in enumerate(logged)}
    return tf.gather(tf.concat([held, rounded], axis=0), _int32([place.get(i, i) for i in range(len(encodings))]))


def _encode_category(encoding: CategoryEncoding, text: tf.Tensor) -> tf.Tensor:
    """The outputs (n, levels + 1 or 2) float32 of one category (n,)."""
    position = _level_positions(encoding.levels, text)
    count = len(encoding.levels)
    if encoding.missing_slot:
        return tf.one_hot(position, count + 2, dtype=tf.float32)
    return tf.one_hot(tf.minimum(position, count), count + 1, dtype=tf.float32)


def _encode_bins(bins: BinSlots, numbers: _Numbers) -> tf.Tensor:
    """The outputs (n, bins, perhaps + 1) float32 of one binned number."""
    count = len(bins.edges) + 1
    missing_position = count if bins.missing_slot else bins.fill_bin
    position = _bin_positions(bins.column, bins.edges, missing_position, numbers)
    return tf.one_hot(position, count + bins.missing_slot, dtype=tf.float32)


def _bin_values(table: BinTable, numbers: _Numbers) -> tf.Tensor:
    """The output (n, 1) float32 of a table of bins."""
    values = _constants(table, [*table.values, table.missing])
    return tf.gather(values, _bin_positions(table.column, table.edges, len(table.values), numbers))[:, tf.newaxis]


def _bin_positions(column: str, edges: Sequence[float], missing_position: int, numbers: _Numbers) -> tf.Tensor:
    """The bin (n,) int32 of each row: how many edges lie below it."""
    x = numbers.of([column])[0]
    below = tf.searchsorted(tf.constant(edges, tf.float64, shape=(len(edges),)), x, side="left")
    return tf.where(tf.math.is_nan(x), missing_position, below)


def _level_values(table: LevelTable, text: tf.Tensor) -> tf.Tensor:
    """The output (n, 1) float32 of a table of levels."""
    values = _constants(table, [*table.values, table.missing, table.other])
    return tf.gather(values, _level_positions(table.levels, text))[:, tf.newaxis]


def _level_positions(levels: Sequence[str], text: tf.Tensor) -> tf.Tensor:
    """The position (n,) int32 of each row's level, L for missing, L + 1 for all else.

    Only the texts that differ are compared with the levels. No lookup table does it, for it would need initialising.
    """
    distinct, which = tf.unique(text)
    keys = [*levels, ""]  # missing is a key like any other
    is_key = tf.equal(distinct[:, tf.newaxis], tf.constant(keys, tf.string, shape=(1, len(keys))))
    return tf.gather(tf.reduce_min(tf.where(is_key, tf.range(len(keys)), len(keys)), axis=1), which)


def _constants(table: BinTable | LevelTable, values: Sequence[float]) -> tf.Tensor:
    """The values as they stand in the matrix; standardised in Python once, so that no rounding is left to differ."""
    return tf.constant(np.array([table.standardised(value) for value in values], np.float32))


def _upright(values: Sequence[float]) -> tf.Tensor:
    """One float64 a row: (k, 1)."""
    return tf.constant(values, tf.float64, shape=(len(values), 1))


def _int32(positions: Sequence[int]) -> tf.Tensor:
    return tf.constant(positions, tf.int32, shape=(len(positions),))


def _nan() -> tf.Tensor:
    return tf.constant(np.nan, tf.float64)

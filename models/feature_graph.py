"""The feature plan as TensorFlow operations: the second compiler of `crossrisk.features`.

Operation by operation what `rowwise_expressions` and `encoding_expressions` do in Polars: float64 throughout, in the
same order, one rounding to float32 at the end, so that both give the same bits. (One caveat: TensorFlow's kernels
take subnormal floats, below 2.2e-308, for zero.) Columns of one treatment are stacked and treated together: a plan
of 300 numbers is a handful of operations, not 3,000. Nothing is fitted here and nothing is read from files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from crossrisk.features import DAYS_PER_MONTH, CategoryEncoding, FeaturePlan, NumericEncoding, RowPlan

DATE_MISSING = int(np.iinfo(np.int32).min)
"""A missing date, as days since 1970-01-01."""


def encode(plan: FeaturePlan, raw: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """The encoded matrix (n, d) float32 of n rows of raw columns, d = len(plan.outputs); finite wherever scales are.

    Args:
        plan: the fitted plan.
        raw: one (n,) tensor for each of `plan.rows.raw_columns`: numbers float64 with NaN for missing, categories
            string with "" for missing, dates int32 days since 1970-01-01 with DATE_MISSING for missing.

    Raises:
        ValueError: the plan has no output, or a raw column is not in `raw`.
    """
    if not plan.outputs:
        raise ValueError("the feature plan has no output: no column varies among its training rows")
    absent = [column.name for column in plan.rows.raw_columns if column.name not in raw]
    if absent:
        raise ValueError(f"raw column {absent[0]!r} of the feature plan was not given; given: {sorted(raw)}")
    blocks = [_encode_category(category, raw[category.column]) for category in plan.categories]
    if plan.numerics:
        blocks.insert(0, _encode_numerics(plan.numerics, _numeric_features(plan.rows, raw), plan.rows.numeric_features))
    return tf.concat(blocks, axis=1)


# --- row-wise part: raw columns -> numeric features, missing as NaN ---


def _numeric_features(rows: RowPlan, raw: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """Features (n, k) float64 in the order of rows.numeric_features."""
    blocks = []
    names = [column.name for column in rows.raw_columns if column.kind == "number"]
    if names:
        finite = _finite_or_nan(tf.stack([raw[name] for name in names], axis=1))
        numbers = _without_sentinels(rows, names, finite)
        position = {name: i for i, name in enumerate(names)}
        blocks.append(tf.gather(numbers, _int32([position[name] for name in rows.numbers]), axis=1))
        numerators = tf.gather(numbers, _int32([position[r.numerator] for r in rows.ratios]), axis=1)
        denominators = tf.gather(numbers, _int32([position[r.denominator] for r in rows.ratios]), axis=1)
        blocks.append(_finite_or_nan(tf.where(tf.equal(denominators, 0.0), _nan(), numerators / denominators)))
    if rows.ages:
        blocks.append(_ages(rows, raw))
    return tf.concat(blocks, axis=1)


def _finite_or_nan(numbers: tf.Tensor) -> tf.Tensor:
    return tf.where(tf.math.is_finite(numbers), numbers, _nan())


def _without_sentinels(rows: RowPlan, names: Sequence[str], numbers: tf.Tensor) -> tf.Tensor:
    """Numbers (n, k) with the k columns' missing codes made NaN."""
    codes = {s.column: s.codes for s in rows.sentinels}
    for slot in range(max((len(c) for c in codes.values()), default=0)):
        # one code a column at a time: the (n, k, codes) cube of all comparisons at once would not fit a large batch
        code = [codes[name][slot] if slot < len(codes.get(name, ())) else np.nan for name in names]
        numbers = tf.where(tf.equal(numbers, tf.constant(code, tf.float64)), _nan(), numbers)
    return numbers


def _ages(rows: RowPlan, raw: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """Months (n, a) from each age's date to the decision date."""
    decision = raw[str(rows.decision_date)][:, tf.newaxis]
    dates = tf.stack([raw[age.date] for age in rows.ages], axis=1)
    missing = tf.equal(dates, DATE_MISSING) | tf.equal(decision, DATE_MISSING)
    # a product with the reciprocal, as in crossrisk.features: the same to the last bit
    months = tf.cast(decision - dates, tf.float64) * (1.0 / DAYS_PER_MONTH)
    return tf.where(missing, _nan(), months)


# --- fitted part: features -> encoded matrix ---


def _encode_numerics(
    encodings: Sequence[NumericEncoding], features: tf.Tensor, feature_names: Sequence[str]
) -> tf.Tensor:
    """The numeric outputs (n, k + flags) float32, each flag behind its number, of the features (n, f)."""

    def constant(field: str) -> tf.Tensor:
        return tf.constant([getattr(e, field) for e in encodings], tf.float64)

    position = {name: i for i, name in enumerate(feature_names)}
    x = tf.gather(features, _int32([position[e.column] for e in encodings]), axis=1)
    missing = tf.math.is_nan(x)
    clipped = tf.clip_by_value(tf.where(missing, constant("fill"), x), constant("low"), constant("high"))
    reciprocals = tf.constant([1.0 / e.scale for e in encodings], tf.float64)  # as in _ages
    standardised = tf.cast((clipped - constant("mean")) * reciprocals, tf.float32)

    flagged = [i for i, e in enumerate(encodings) if e.flag]
    flags = tf.cast(tf.gather(missing, _int32(flagged), axis=1), tf.float32)
    flag_position = {i: len(encodings) + j for j, i in enumerate(flagged)}
    order = [p for i in range(len(encodings)) for p in (i, flag_position.get(i)) if p is not None]
    return tf.gather(tf.concat([standardised, flags], axis=1), _int32(order), axis=1)


def _encode_category(encoding: CategoryEncoding, text: tf.Tensor) -> tf.Tensor:
    """The outputs (n, levels + 1 or 2) float32 of one category (n,); no lookup table, which would need initialising."""
    text = text[:, tf.newaxis]
    one_hot = tf.equal(text, tf.constant(encoding.levels, tf.string, shape=(1, len(encoding.levels))))
    named = tf.reduce_any(one_hot, axis=1, keepdims=True)
    slots = [one_hot]
    if encoding.missing_slot:
        missing = tf.equal(text, "")
        slots.append(missing)
        named |= missing
    return tf.cast(tf.concat([*slots, ~named], axis=1), tf.float32)


def _int32(positions: Sequence[int]) -> tf.Tensor:
    return tf.constant(positions, tf.int32, shape=(len(positions),))


def _nan() -> tf.Tensor:
    return tf.constant(np.nan, tf.float64)

"""The feature plan: what becomes of the raw columns, as plain data, fitted on training rows only.

One plan, two compilers: `rowwise_expressions` and `encoding_expressions` here make Polars expressions of it for
batches; `models.feature_graph` makes TensorFlow ops of it for the SavedModel. Both compute in float64 and round once
to float32, so that they agree to the last bit. Reading and writing files stays in `tasks.features`.

Row-wise part (nothing fitted): sentinel codes, NaN and infinities become missing; ratios, ages in months at the
decision date. Fitted part: numbers are imputed with the median (with a missing flag), clipped, standardised; categories
are one-hot with a slot for missing and a slot for levels unseen or rare in training.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import polars as pl
from pydantic import BaseModel, ConfigDict

DAYS_PER_MONTH = 30.4375
"""365.25 / 12: the mean month, so that an age does not jump with February"""

_TAKEN_NAMES = frozenset({"self", "probability", "score"})


class _Plain(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class RawColumn(_Plain):
    """A column as a server receives it. Missing is NaN (number), "" (category) or INT32_MIN (date)."""

    name: str
    kind: Literal["number", "category", "date"]


def check_servable_names(columns: Sequence[RawColumn]) -> None:
    """Refuse raw columns that a SavedModel's signature cannot carry under their own name.

    TensorFlow rewrites names that are no Python identifiers (`arg_1st`), in one of its two readers only, and fails
    without naming the column on keywords and on names that differ in case alone.

    Raises:
        ValueError: names the first such column.
    """
    seen: dict[str, str] = {}
    for name in (column.name for column in columns):
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) or keyword.iskeyword(name) or name in _TAKEN_NAMES:
            raise ValueError(
                f"raw column {name!r} cannot be an input of the SavedModel: expected a letter, then letters, digits "
                f"and underscores, no Python keyword, and none of {', '.join(sorted(_TAKEN_NAMES))}; rename the column"
            )
        twin = seen.setdefault(name.lower(), name)
        if twin != name:
            raise ValueError(f"raw columns {twin!r} and {name!r} differ in case alone; rename one of them")


class Sentinels(_Plain):
    """Codes of a numeric column that mean missing."""

    column: str
    codes: tuple[float, ...]


class Ratio(_Plain):
    """numerator / denominator of two numeric raw columns; missing where either is missing or the denominator is 0."""

    name: str
    numerator: str
    denominator: str


class Age(_Plain):
    """Months from a date column to the decision date."""

    name: str
    date: str


class RowPlan(_Plain):
    """The row-wise part: it follows from the config alone."""

    decision_date: str | None
    numbers: tuple[str, ...]
    categories: tuple[str, ...]
    sentinels: tuple[Sentinels, ...]
    ratios: tuple[Ratio, ...]
    ages: tuple[Age, ...]

    @property
    def raw_columns(self) -> tuple[RawColumn, ...]:
        """The raw columns a server must be fed, in a fixed order: numbers, categories, dates."""
        numbers = dict.fromkeys([*self.numbers, *(c for r in self.ratios for c in (r.numerator, r.denominator))])
        dates = dict.fromkeys([*(a.date for a in self.ages), *([self.decision_date] if self.ages else [])])
        return (
            *(RawColumn(name=name, kind="number") for name in numbers),
            *(RawColumn(name=name, kind="category") for name in self.categories),
            *(RawColumn(name=name, kind="date") for name in dates if name is not None),
        )

    @property
    def numeric_features(self) -> tuple[str, ...]:
        """Names of the numeric features after the row-wise part: raw numbers, ratios, ages."""
        return (*self.numbers, *(r.name for r in self.ratios), *(a.name for a in self.ages))


class NumericEncoding(_Plain):
    """(clip(x or fill, low, high) - mean) / scale, and a flag where x is missing.

    Of columns that were missing on exactly the same training rows, the first alone has the flag.
    """

    column: str
    fill: float
    low: float
    high: float
    mean: float
    scale: float
    flag: bool


class CategoryEncoding(_Plain):
    """One output a level, then (where training held enough of them) one for missing, then one for all else."""

    column: str
    levels: tuple[str, ...]
    missing_slot: bool


class FeaturePlan(_Plain):
    """Row-wise part and fitted part together: all that scoring needs to know about features."""

    schema_version: Literal[1] = 1
    rows: RowPlan
    numerics: tuple[NumericEncoding, ...]
    categories: tuple[CategoryEncoding, ...]
    dropped: tuple[str, ...] = ()
    """numeric features without variation among the training rows"""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the columns of the encoded matrix, in order."""
        return tuple(_output_names(self))

    @property
    def features_of_outputs(self) -> tuple[str, ...]:
        """For each of `outputs` the row-wise feature that it was made of: what a reason is named by."""
        return tuple(_features_of_outputs(self))


def missing_flag(column: str) -> str:
    """Name of the output that says the column was missing."""
    return f"{column} is missing"


def other_slot(column: str) -> str:
    """Name of the output for levels unseen or rare in training."""
    return f"{column} is other"


def _output_names(plan: FeaturePlan) -> Iterator[str]:
    for numeric in plan.numerics:
        yield numeric.column
        if numeric.flag:
            yield missing_flag(numeric.column)
    for category in plan.categories:
        yield from (f"{category.column}={level}" for level in category.levels)
        if category.missing_slot:
            yield missing_flag(category.column)
        yield other_slot(category.column)


def _features_of_outputs(plan: FeaturePlan) -> Iterator[str]:
    for numeric in plan.numerics:
        yield from [numeric.column] * (2 if numeric.flag else 1)
    for category in plan.categories:
        yield from [category.column] * (len(category.levels) + category.missing_slot + 1)


# --- row-wise part: raw columns -> features ---


def rowwise_expressions(rows: RowPlan) -> list[pl.Expr]:
    """One expression a feature over the raw columns: numbers as float64, categories as strings, missing as null."""
    codes = {s.column: s.codes for s in rows.sentinels}

    def finite(value: pl.Expr) -> pl.Expr:
        return pl.when(value.is_finite()).then(value)

    def number(name: str) -> pl.Expr:
        value = finite(pl.col(name).cast(pl.Float64))
        return value if name not in codes else pl.when(~value.is_in(codes[name])).then(value)

    def ratio(r: Ratio) -> pl.Expr:
        denominator = number(r.denominator)
        return finite(pl.when(denominator != 0).then(number(r.numerator) / denominator))

    def age(a: Age) -> pl.Expr:
        days = _day_number(str(rows.decision_date)) - _day_number(a.date)
        # a product, because Polars takes x / constant for one where a chunk has several rows, and not where it has one
        return days.cast(pl.Float64) * (1.0 / DAYS_PER_MONTH)

    def category(name: str) -> pl.Expr:
        text = pl.col(name).cast(pl.String)
        return pl.when(text != "").then(text)

    return [
        *(number(name).alias(name) for name in rows.numbers),
        *(ratio(r).alias(r.name) for r in rows.ratios),
        *(age(a).alias(a.name) for a in rows.ages),
        *(category(name).alias(name) for name in rows.categories),
    ]


def _day_number(column: str) -> pl.Expr:
    return pl.col(column).cast(pl.Date).cast(pl.Int32)


# --- fitted part: features -> encoded matrix ---


def fit_plan(
    features: pl.DataFrame,
    rows: RowPlan,
    *,
    clip_quantiles: tuple[float, float],
    min_level_rows: int,
) -> FeaturePlan:
    """Fit the encodings on training rows.

    Args:
        features: the row-wise features of the training rows, and only theirs, in an order that does not change.
        rows: the row-wise part that made them.
        clip_quantiles: shares in [0, 1] below and above which numbers are clipped.
        min_level_rows: a level, or a missing flag, gets its own output from this many training rows on.

    Raises:
        ValueError: no training row, or two outputs of one name.
    """
    facts = features.select(
        pl.len().alias("rows"), *_numeric_facts(rows.numeric_features, clip_quantiles)
    ).row(0, named=True)  # fmt: skip
    if facts["rows"] == 0:
        raise ValueError("no training row to fit the feature plan on; widen split or the population rules")
    numerics, dropped = _fit_numerics(features, rows.numeric_features, facts, min_level_rows)
    categories = [_fit_category(features, name, min_level_rows) for name in rows.categories]
    plan = FeaturePlan(rows=rows, numerics=tuple(numerics), categories=tuple(categories), dropped=tuple(dropped))
    outputs = plan.outputs
    twice = sorted({name for name in outputs if outputs.count(name) > 1}) if len(set(outputs)) < len(outputs) else []
    if twice:
        raise ValueError(f"two outputs of the feature plan are called {twice[0]!r}; rename one of the columns")
    return plan


def _numeric_facts(names: Sequence[str], clip_quantiles: tuple[float, float]) -> Iterator[pl.Expr]:
    low, high = clip_quantiles
    for name in names:
        column = pl.col(name)
        yield column.median().alias(f"median {name}")
        yield column.quantile(low, "nearest").alias(f"low {name}")
        yield column.quantile(high, "nearest").alias(f"high {name}")
        yield column.null_count().alias(f"missing {name}")


def _fit_numerics(
    features: pl.DataFrame, names: Sequence[str], facts: Mapping[str, Any], min_level_rows: int
) -> tuple[list[NumericEncoding], list[str]]:
    """Encodings of the numbers that vary; mean and scale are those of the filled and clipped values."""
    seen = [name for name in names if facts[f"median {name}"] is not None]
    filled = {
        name: pl.col(name).fill_null(facts[f"median {name}"]).clip(facts[f"low {name}"], facts[f"high {name}"])
        for name in seen
    }
    moments = features.select(
        *(expression.mean().alias(f"mean {name}") for name, expression in filled.items()),
        *(expression.std(ddof=0).alias(f"scale {name}") for name, expression in filled.items()),
    ).row(0, named=True)  # fmt: skip
    encodings: list[NumericEncoding] = []
    dropped = [name for name in names if name not in filled]
    flagged = _distinct_gaps(features, [name for name in seen if facts[f"missing {name}"] >= min_level_rows])
    for name in seen:
        low, high, mean = facts[f"low {name}"], facts[f"high {name}"], moments[f"mean {name}"]
        flag = name in flagged
        varies = low != high
        if not varies and not flag:
            dropped.append(name)
            continue
        encodings.append(
            NumericEncoding(
                column=name,
                fill=facts[f"median {name}"],
                low=low,
                high=high,
                mean=mean,
                scale=(moments[f"scale {name}"] or 1.0) if varies else 1.0,
                flag=flag,
            )
        )
    return encodings, dropped


def _distinct_gaps(features: pl.DataFrame, names: Sequence[str]) -> set[str]:
    """The first of every group of columns that are missing on exactly the same rows.

    Columns from one source go missing together; k copies of one flag would weaken a ridge penalty on it k-fold.
    """
    gaps: dict[bytes, str] = {}
    for name in names:
        gaps.setdefault(features[name].is_null().to_numpy().tobytes(), name)
    return set(gaps.values())


def _fit_category(features: pl.DataFrame, name: str, min_level_rows: int) -> CategoryEncoding:
    counts = features.group_by(name).len().filter(pl.col("len") >= min_level_rows).sort(name)
    levels = counts[name].to_list()
    return CategoryEncoding(
        column=name,
        levels=tuple(level for level in levels if level is not None),
        missing_slot=None in levels,
    )


def encoding_expressions(plan: FeaturePlan) -> list[pl.Expr]:
    """One float32 expression for each of plan.outputs, over the row-wise features; no output is ever null."""
    expressions: list[pl.Expr] = []
    for n in plan.numerics:
        column = pl.col(n.column)
        standardised = (column.fill_null(n.fill).clip(n.low, n.high) - n.mean) * (1.0 / n.scale)  # see age above
        expressions.append(standardised.cast(pl.Float32).alias(n.column))
        if n.flag:
            expressions.append(column.is_null().cast(pl.Float32).alias(missing_flag(n.column)))
    for c in plan.categories:
        column = pl.col(c.column)
        expressions += [(column.eq_missing(level)).cast(pl.Float32).alias(f"{c.column}={level}") for level in c.levels]
        named = column.is_in(list(c.levels)).fill_null(False)
        if c.missing_slot:
            expressions.append(column.is_null().cast(pl.Float32).alias(missing_flag(c.column)))
            named = named | column.is_null()
        expressions.append((~named).cast(pl.Float32).alias(other_slot(c.column)))
    return expressions

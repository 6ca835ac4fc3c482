"""Values a level or bin: weights of evidence, target means, frequencies, aggregates of another number; cross-fitting.

Counts of training rows in, tables of the plan out. A row's own label must not be in the value that it is trained on:
`crossfit` gives training rows the values that the other folds' labels make. Scoring never cross-fits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from crossrisk.features.plan import BinTable, FeaturePlan, LevelTable
from crossrisk.features.rows import Plain
from crossrisk.metrics.woe import information_value

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
Meaning = Literal["woe", "target_mean"]
Statistic = Literal["mean", "median", "min", "max", "count"]


class Aggregate(Plain):
    """A statistic of a number among the training rows of the same level, such as the mean income of a region."""

    name: str
    number: str
    statistic: Statistic
    by: str


@dataclass(frozen=True)
class Keys:
    """Rows as positions in a table: the levels or bins in order, then (levels only) other, then missing."""

    codes: Codes
    """(n,) in [0, size)"""
    size: int


def level_keys(values: pl.Series, levels: Sequence[str]) -> Keys:
    """Levels 0..L-1 in order, L for any other, L + 1 for missing."""
    positions = pl.Series(range(len(levels)), dtype=pl.Int64)
    codes = values.replace_strict(list(levels), positions, default=len(levels), return_dtype=pl.Int64)
    is_missing = values.is_null().to_numpy()
    return Keys(np.where(is_missing, len(levels) + 1, codes.fill_null(0).to_numpy()), len(levels) + 2)


def bin_keys(values: pl.Series, edges: Sequence[float]) -> Keys:
    """Bins 0..k in order, closed on the right, k + 1 for missing."""
    is_missing = values.is_null().to_numpy()
    codes = np.searchsorted(np.asarray(edges, np.float64), values.fill_null(0.0).to_numpy(), side="left")
    return Keys(np.where(is_missing, len(edges) + 1, codes), len(edges) + 2)


def count_labels(keys: Keys, label: NDArray[np.int8]) -> tuple[Codes, Codes]:
    """Bads and goods (size,) of each key; rows whose label is neither 0 nor 1 count for neither."""
    return tuple(np.bincount(keys.codes[label == kind], minlength=keys.size) for kind in (1, 0))  # type: ignore[return-value]


def label_values(bads: Codes, goods: Codes, meaning: Meaning, smoothing: float) -> Floats:
    """The value (size,) of each key.

    woe: ln(p_b / p_g), p = (count + 1/2) / (total + K/2), as everywhere here (`crossrisk.metrics.woe`); 0 of a key
    without rows. target_mean: (bads + s * prior) / (rows + s), with `smoothing` s rows of the overall bad rate
    (Micci-Barreca, ACM SIGKDD Explorations 3(1), 2001, as an m-estimate); the prior of a key without rows.
    """
    if meaning == "woe":
        names = [""] * len(bads)
        bins = information_value(bads, goods, names=names, sign="ln(bad/good)").bins
        return np.array([each.woe or 0.0 for each in bins], np.float64)
    prior = bads.sum() / max(1, bads.sum() + goods.sum())
    return np.asarray((bads + smoothing * prior) / (bads + goods + smoothing), np.float64)


def frequencies(keys: Keys) -> Floats:
    """Share of rows (size,) with each key."""
    return np.asarray(np.bincount(keys.codes, minlength=keys.size) / max(1, len(keys.codes)), np.float64)


def aggregate_values(keys: Keys, number: pl.Series, statistic: Statistic) -> Floats:
    """The statistic (size,) of the known numbers of each key; that of all rows where a key has none."""
    expressions: dict[Statistic, pl.Expr] = {
        "mean": pl.col("number").mean(),
        "median": pl.col("number").median(),
        "min": pl.col("number").min(),
        "max": pl.col("number").max(),
        "count": pl.col("number").len().cast(pl.Float64),
    }
    known = pl.DataFrame({"key": keys.codes, "number": number}).drop_nulls("number")
    overall = known.select(expressions[statistic]).item() or 0.0
    by_key = known.group_by("key").agg(expressions[statistic])
    values = np.full(keys.size, 0.0 if statistic == "count" else overall, np.float64)
    values[by_key["key"].to_numpy()] = by_key["number"].to_numpy()
    return values


def spread_of(keys: Keys, values: Floats) -> tuple[float, float]:
    """Mean and standard deviation of a table's values over the rows that have them."""
    of_rows = values[keys.codes]
    return float(of_rows.mean()), float(of_rows.std())


def keys_of(table: BinTable | LevelTable, features: pl.DataFrame) -> Keys:
    """The rows of a frame as positions in a table of the plan."""
    values = features[table.column]
    return level_keys(values, table.levels) if isinstance(table, LevelTable) else bin_keys(values, table.edges)


def crossfit(
    plan: FeaturePlan, features: pl.DataFrame, label: NDArray[np.int8], fold: NDArray[np.int64], *, smoothing: float
) -> pl.DataFrame:
    """What training rows are trained on in the place of `plan.label_outputs`: values of the other folds' labels.

    Levels, edges and standardisation stay the plan's. A row's label does not enter its own value, nor does that of any
    row of its fold: give the rows of one customer one fold.

    Args:
        plan: fitted on these rows.
        features: (n, ...) row-wise features of labelled training rows.
        label: (n,) 0 or 1.
        fold: (n,) 0, 1, ...: at least two.
        smoothing: as the plan was fitted with.

    Returns:
        (n, len(plan.label_outputs)) float32, in the order of `features`.

    Raises:
        ValueError: labels or folds are of another length, or there is one fold alone.
    """
    if not len(label) == len(fold) == features.height:
        raise ValueError(f"expected {features.height} labels and folds, got {len(label)} and {len(fold)}")
    if len(fold) and fold.min() == fold.max():
        raise ValueError("expected at least two folds: with one, no row has another whose label it may see")
    columns: dict[str, Any] = {}
    tables: tuple[BinTable | LevelTable, ...] = (*plan.bin_tables, *plan.level_tables)
    for table in tables:
        if table.uses_labels:
            values = _crossfitted_values(keys_of(table, features), label, fold, _meaning_of(table), smoothing)
            columns[table.name] = ((values - table.mean) * (1.0 / table.scale)).astype(np.float32)
    return pl.DataFrame(columns)


def _crossfitted_values(
    keys: Keys, label: NDArray[np.int8], fold: NDArray[np.int64], meaning: Meaning, smoothing: float
) -> Floats:
    values = np.empty(len(label), np.float64)
    for held_out in np.unique(fold):
        inside = fold == held_out
        counts = count_labels(Keys(keys.codes[~inside], keys.size), label[~inside])
        values[inside] = label_values(*counts, meaning, smoothing)[keys.codes[inside]]
    return values


def _meaning_of(table: BinTable | LevelTable) -> Meaning:
    return "woe" if table.meaning == "woe" else "target_mean"

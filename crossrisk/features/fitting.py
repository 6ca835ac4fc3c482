"""Fitting the feature plan on training rows, and on no others.

Which rows these are, and whose labels may be seen, is the caller's business (`tasks.features`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from crossrisk.features.plan import (
    BinSlots,
    BinTable,
    CategoryEncoding,
    Dropped,
    FeaturePlan,
    LevelCodes,
    LevelTable,
    NativeView,
    NumericEncoding,
)
from crossrisk.features.query import filled_and_clipped
from crossrisk.features.rows import RowPlan
from crossrisk.features.selection import frequent_levels, quantile_edges, select
from crossrisk.features.settings import EncodingName, FitSettings, check_settings
from crossrisk.features.tables import (
    Floats,
    Keys,
    Meaning,
    aggregate_values,
    bin_keys,
    count_labels,
    frequencies,
    label_values,
    level_keys,
    spread_of,
)

MOST_CODES = 254
"""Levels with a code of their own: scikit-learn's boosting takes 255 codes of a category, and one is for the rest."""


@dataclass(frozen=True)
class _Training:
    """Training rows with what the fits share."""

    features: pl.DataFrame
    settings: FitSettings
    label: NDArray[np.int8] | None
    """(n,) 0, 1, or -1 where training may not see it"""


def fit_plan(
    features: pl.DataFrame,
    rows: RowPlan,
    settings: FitSettings,
    *,
    label: pl.Series | None = None,
    is_target: pl.Series | None = None,
) -> FeaturePlan:
    """Fit the plan on training rows.

    Args:
        features: the row-wise features of the training rows, and only theirs, in an order that does not change.
        rows: the row-wise part that made them.
        settings: clip_quantiles are shares in [0, 1] below and above which numbers are clipped; a level, or a missing
            flag, gets its own output from min_level_rows training rows on.
        label: (n,) 0, 1, or null where training may not see it; needed where the settings ask for labels.
        is_target: (n,) whether the row is of the target; needed for a rule on the PSI between the populations.

    Raises:
        ValueError: no training row, a setting for a feature that does not exist or has no such encoding, labels needed
            and not given, a logarithm of values that have none, or two outputs of one name.
    """
    if features.is_empty():
        raise ValueError("no training row to fit the feature plan on; widen split or the population rules")
    numbers, categories = rows.numeric_features, rows.categories
    check_settings(settings, numbers, categories)
    known = None if label is None else label.fill_null(-1).cast(pl.Int8).to_numpy()
    if settings.needs_labels and (known is None or not {0, 1} <= set(known.tolist())):
        raise ValueError("woe, target_mean and iv_above_noise need training rows with labels of both classes")
    dropped = select(
        features,
        numbers,
        categories,
        settings.select,
        bins=settings.bins,
        min_level_rows=settings.min_level_rows,
        label=known,
        is_target=None if is_target is None else is_target.to_numpy(),
    )
    out = {one.feature for one in dropped}
    training = _Training(features, settings, known)

    def chosen(names: Sequence[str], encoding: EncodingName, *, is_number: bool) -> list[str]:
        return [
            n for n in names if n not in out and encoding in settings.encodings_of(n, is_number=is_number)
        ]  # fmt: skip

    plan = FeaturePlan(
        rows=rows,
        numerics=tuple(_fit_numerics(training, chosen(numbers, "standard", is_number=True))),
        categories=tuple(_fit_category(training, name) for name in chosen(categories, "one_hot", is_number=False)),
        bins=tuple(_fit_bins(training, chosen(numbers, "bins", is_number=True))),
        bin_tables=tuple(
            table
            for meaning in ("woe", "target_mean")
            for table in _fit_bin_tables(training, chosen(numbers, meaning, is_number=True), meaning)
        ),
        level_tables=(
            *(
                table
                for meaning in ("woe", "target_mean")
                for table in _fit_label_tables(training, chosen(categories, meaning, is_number=False), meaning)
            ),
            *_fit_frequencies(training, chosen(categories, "frequency", is_number=False)),
            *_fit_aggregates(training),
        ),
        native=_fit_native(training, [n for n in numbers if n not in out], [n for n in categories if n not in out])
        if settings.native
        else None,
        dropped=tuple(dropped),
    )
    _refuse_twins(plan.outputs)
    gone = [name for name in (*numbers, *categories) if name not in {*plan.features_of_outputs, *out}]
    constant = (Dropped(feature=name, reason="does not vary among training rows") for name in gone)
    return plan.model_copy(update={"dropped": (*plan.dropped, *constant)})


def _refuse_twins(outputs: Sequence[str]) -> None:
    twice = sorted({name for name in outputs if outputs.count(name) > 1}) if len(set(outputs)) < len(outputs) else []
    if twice:
        raise ValueError(f"two outputs of the feature plan are called {twice[0]!r}; rename one of the columns")


# --- numbers ---


def _fit_numerics(training: _Training, names: Sequence[str]) -> Iterator[NumericEncoding]:
    """Encodings of the numbers that vary.

    Mean and scale are those of the filled, clipped and logged values.
    """
    features, settings = training.features, training.settings
    facts = features.select(*_numeric_facts(names, settings.clip_quantiles)).row(0, named=True) if names else {}
    seen = [name for name in names if facts[f"median {name}"] is not None]
    enough = [name for name in seen if facts[f"missing {name}"] >= settings.min_level_rows]
    flagged = _distinct_gaps(features, enough)
    drafts = {name: _draft(name, facts, settings, flag=name in flagged) for name in seen}
    held = {name: filled_and_clipped(draft) for name, draft in drafts.items()}
    moments = features.select(
        *(expression.mean().alias(f"mean {name}") for name, expression in held.items()),
        *(expression.std(ddof=0).alias(f"scale {name}") for name, expression in held.items()),
    ).row(0, named=True) if held else {}  # fmt: skip
    for name, draft in drafts.items():
        varies = draft.low != draft.high
        if not varies and not draft.flag:
            continue
        mean, scale = moments[f"mean {name}"], (moments[f"scale {name}"] or 1.0) if varies else 1.0
        if not (math.isfinite(mean) and math.isfinite(scale)):
            raise ValueError(
                f"{name}: values from {draft.low:g} to {draft.high:g} have no mean or deviation in 64 bits; declare "
                "what stands for missing under features.sentinels, or clip more (features.clip_quantiles)"
            )
        yield draft.model_copy(update={"mean": mean, "scale": scale})


def _numeric_facts(names: Sequence[str], clip_quantiles: tuple[float, float]) -> Iterator[pl.Expr]:
    low, high = clip_quantiles
    for name in names:
        column = pl.col(name)
        yield column.median().alias(f"median {name}")
        yield column.quantile(low, "nearest").alias(f"low {name}")
        yield column.quantile(high, "nearest").alias(f"high {name}")
        yield column.null_count().alias(f"missing {name}")


def _draft(name: str, facts: Mapping[str, Any], settings: FitSettings, *, flag: bool) -> NumericEncoding:
    """All of an encoding but its moments."""
    low, high, fill = facts[f"low {name}"], facts[f"high {name}"], facts[f"median {name}"]
    if name in settings.constants:
        # outside what training held it would be clipped away: it widens the limits instead
        fill = settings.constants[name]
        low, high = min(low, fill), max(high, fill)
    log = settings.logs.get(name, "none")
    if log == "log1p" and low <= -1:
        raise ValueError(
            f"features.logs.{name}: log1p needs values above -1, training rows go down to {low:g}; take signed_log"
        )
    return NumericEncoding(column=name, fill=fill, low=low, high=high, log=log, mean=0.0, scale=1.0, flag=flag)


def _distinct_gaps(features: pl.DataFrame, names: Sequence[str]) -> set[str]:
    """The first of every group of columns that are missing on exactly the same rows.

    Columns from one source go missing together; k copies of one flag would weaken a ridge penalty on it k-fold.
    """
    gaps: dict[bytes, str] = {}
    for name in names:
        gaps.setdefault(features[name].is_null().to_numpy().tobytes(), name)
    return set(gaps.values())


def _fit_bins(training: _Training, names: Sequence[str]) -> Iterator[BinSlots]:
    for name in names:
        known = training.features[name].drop_nulls()
        edges = quantile_edges(known, training.settings.bins)
        if edges:
            missing = training.features.height - known.len()
            middle = bin_keys(pl.Series([known.median()], dtype=pl.Float64), edges).codes[0]
            has_slot = missing >= training.settings.min_level_rows
            yield BinSlots(column=name, edges=edges, missing_slot=has_slot, fill_bin=int(middle))


def _fit_bin_tables(training: _Training, names: Sequence[str], meaning: Meaning) -> Iterator[BinTable]:
    for name in names:
        values = training.features[name]
        edges = quantile_edges(values.drop_nulls(), training.settings.bins)
        keys = bin_keys(values, edges)
        found = _label_values(training, keys, meaning)
        mean, scale = spread_of(keys, found)
        if scale > 0:
            yield BinTable(
                name=table_name(name, meaning),
                column=name,
                meaning=meaning,
                edges=edges,
                values=tuple(found[:-1].tolist()),
                missing=float(found[-1]),
                mean=mean,
                scale=scale,
                uses_labels=True,
            )


# --- the native view ---


def _fit_native(training: _Training, numbers: Sequence[str], categories: Sequence[str]) -> NativeView:
    """Numbers that vary or go missing, and categories with at most MOST_CODES levels of their own."""
    varying = [name for name in numbers if training.features[name].n_unique() > 1]
    codes = (LevelCodes(column=name, levels=_coded_levels(training, name)) for name in categories)
    return NativeView(numbers=tuple(varying), categories=tuple(codes))


def _coded_levels(training: _Training, name: str) -> tuple[str, ...]:
    values = training.features[name]
    counts = values.drop_nulls().value_counts(name="rows").sort(["rows", name], descending=[True, False])
    frequent = counts.filter(pl.col("rows") >= training.settings.min_level_rows)[name]
    return tuple(frequent.head(MOST_CODES).sort())


# --- categories ---


def _fit_category(training: _Training, name: str) -> CategoryEncoding:
    values, least = training.features[name], training.settings.min_level_rows
    return CategoryEncoding(
        column=name, levels=frequent_levels(values, least), missing_slot=values.null_count() >= least
    )


def _fit_label_tables(training: _Training, names: Sequence[str], meaning: Meaning) -> Iterator[LevelTable]:
    for name in names:
        levels, keys = _levels_and_keys(training, name)
        found = _label_values(training, keys, meaning)
        yield from _level_table(table_name(name, meaning), name, meaning, levels, keys, found, uses_labels=True)


def _fit_frequencies(training: _Training, names: Sequence[str]) -> Iterator[LevelTable]:
    for name in names:
        levels, keys = _levels_and_keys(training, name)
        shares = frequencies(keys)
        yield from _level_table(table_name(name, "frequency"), name, "frequency", levels, keys, shares)


def _fit_aggregates(training: _Training) -> Iterator[LevelTable]:
    for one in training.settings.aggregates:
        levels, keys = _levels_and_keys(training, one.by)
        found = aggregate_values(keys, training.features[one.number], one.statistic)
        yield from _level_table(one.name, one.by, f"{one.statistic} of {one.number}", levels, keys, found)


def _levels_and_keys(training: _Training, name: str) -> tuple[tuple[str, ...], Keys]:
    values = training.features[name]
    levels = frequent_levels(values, training.settings.min_level_rows)
    return levels, level_keys(values, levels)


def _level_table(
    name: str, column: str, meaning: str, levels: tuple[str, ...], keys: Keys, found: Floats, uses_labels: bool = False
) -> Iterator[LevelTable]:
    """The table, or nothing where its values do not vary."""
    mean, scale = spread_of(keys, found)
    if scale > 0:
        yield LevelTable(
            name=name,
            column=column,
            meaning=meaning,
            levels=levels,
            values=tuple(found[:-2].tolist()),
            other=float(found[-2]),
            missing=float(found[-1]),
            mean=mean,
            scale=scale,
            uses_labels=uses_labels,
        )


def _label_values(training: _Training, keys: Keys, meaning: Meaning) -> Floats:
    assert training.label is not None  # fit_plan has asked for it
    return label_values(*count_labels(keys, training.label), meaning, training.settings.smoothing)


def table_name(column: str, meaning: str) -> str:
    """Name of the output of a table."""
    return f"{column} {meaning}"

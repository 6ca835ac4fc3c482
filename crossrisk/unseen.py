"""Levels of categories that a version was not trained on: which it knows, and how many new rows have others.

A level may be new, or written in another way than for training: a flag that was `true` there and comes as 1 is scored
as if rare, and no rule need notice. Known is what the served plan names and what the reference counted, rare levels
included. What is said about such rows stays out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from crossrisk.errors import PublishError
from crossrisk.features import CategoryEncoding, FeaturePlan, LevelCodes, LevelTable, RawColumn
from crossrisk.registry import Champion, Registry
from crossrisk.registry.asking import PLAN, REFERENCE, raw_columns_of
from crossrisk.stability import CategoryBins, Histogram, read_histogram
from crossrisk.store import read_json

MOST_KEPT = 50
"""Values named of a column while rows are counted: in a free text every row has one of its own."""


# --- what a version knows ---


def read_known_levels(registry: Registry, answering: Champion) -> dict[str, CategoryBins]:
    """As `known_levels`, of a published version; nothing can be told where an earlier release kept no plan beside it.

    Raises:
        PublishError: its reference or its plan is not what was published.
    """
    plan, reference = (registry.companion_path(answering.version, name) for name in (PLAN, REFERENCE))
    if not (plan.exists() and reference.exists()):
        return untold_levels(raw_columns_of(answering))
    try:
        features = {name: read_histogram(one) for name, one in read_json(reference)["features"].items()}
        served = read_json(plan)
        if served["schema_version"] != FeaturePlan.model_fields["schema_version"].default:  # of an earlier release
            return untold_levels(raw_columns_of(answering))
        return known_levels(features, FeaturePlan.model_validate(served))
    except (ValueError, KeyError) as error:
        raise PublishError(
            f"{reference} or {plan.name} beside it cannot be read: {error}; restore both from a backup"
        ) from error


def untold_levels(columns: Iterable[RawColumn]) -> dict[str, CategoryBins]:
    """Bins of category columns of which nothing is known."""
    return {column.name: CategoryBins((), None) for column in columns if column.kind == "category"}


def known_levels(reference: Mapping[str, Histogram], plan: FeaturePlan) -> dict[str, CategoryBins]:
    """The levels known of each category column that the score depends on; `rare` is None where not all are known.

    The reference counts the target's rows alone: a level of the source that it lacks is in the plan.

    Args:
        reference: of each row-wise feature, as `tasks.reference` describes it.
        plan: as it is served.
    """
    used = set(plan.features_of_columns)
    return {name: _known(reference.get(name), _levels_of(plan, name)) for name in plan.rows.categories if name in used}


def _known(histogram: Histogram | None, of_plan: set[str]) -> CategoryBins:
    if histogram is None or not isinstance(histogram.bins, CategoryBins):
        return CategoryBins(tuple(sorted(of_plan)), None)
    bins = histogram.bins
    rare = bins.rare
    if rare is None and not histogram.counts[len(bins.levels)]:
        rare = ()  # not listed, but no row of the reference had any
    # an empty text is missing to a model, and no level that training did not know
    known = {*bins.levels, *(rare or ()), *of_plan, ""}
    return CategoryBins(tuple(sorted(known)), None if rare is None else ())


def _levels_of(plan: FeaturePlan, column: str) -> set[str]:
    native = plan.native.categories if plan.native else ()
    holders: tuple[CategoryEncoding | LevelTable | LevelCodes, ...] = (*plan.categories, *plan.level_tables, *native)
    return {level for one in holders if one.column == column for level in one.levels}


# --- counting ---


@dataclass(frozen=True)
class UnseenCount:
    """Rows of one column whose level is not known."""

    rows: int = 0
    values: Mapping[str, int] = field(default_factory=dict)
    """rows by value as it may be shown, most rows first, then by name; at most `MOST_KEPT`, so that of several counts
    added up these may not be quite the most frequent"""

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"rows": self.rows, "values": dict(self.values)}


def count_unseen(values: pl.Series, known: CategoryBins) -> UnseenCount:
    """The rows of (n,) values whose level is not known; null and the empty text are missing, and no level.

    Args:
        values: text, booleans or integers; these are read as the text that the model is given.
        known: with all known levels, as `known_levels` gives them.

    Raises:
        ValueError: not all known levels are listed.
    """
    if known.rare is None:
        raise ValueError("expected bins that list all known levels: an unseen level cannot be told from a rare one")
    rows = int(known.count(values)[-2])
    return UnseenCount(rows, {one.value: one.rows for one in known.name_unseen(values, MOST_KEPT)} if rows else {})


def add_up(counts: Iterable[UnseenCount]) -> UnseenCount:
    """One count of the rows of all."""
    rows, values = 0, Counter[str]()
    for one in counts:
        rows += one.rows
        values.update(one.values)
    most_first = sorted(values.items(), key=lambda item: (-item[1], item[0]))
    return UnseenCount(rows, dict(most_first[:MOST_KEPT]))

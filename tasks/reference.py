"""What publication keeps for the months to come: how score and features of the champion lay on its own target rows.

`manifests/<version>.reference.json` holds, beside the row-wise part of the champion's feature plan, one histogram of
the probability and one of every row-wise feature, over the target rows that it was fitted, chosen and judged on. Bins
are frozen there; comparing a month with them is `tasks.monitor`'s.

To a model a special code ("-1 = no bureau record") is missing; here it is not, for the two drift for different reasons.
So numbers with such codes are counted as they came, codes and all. A ratio with a code in it has no value: missing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from crossrisk.config import Loaded
from crossrisk.features import RowPlan, rowwise_expressions
from crossrisk.labels import TARGET
from crossrisk.registry import Registry
from crossrisk.registry.asking import REFERENCE
from crossrisk.stability import (
    Histogram,
    NumberBins,
    as_floats,
    describe_categories,
    describe_numbers,
    read_histogram,
)
from crossrisk.store import Stage, read_json
from tasks.calibrate import PREDICTIONS
from tasks.features import ROWS, load_plan
from tasks.ingest import scan_ingested
from tasks.split import ASSIGNMENT

SCORE_DECIMALS = 6
"""The served model and the fitted one may differ by 1e-7: probabilities that agree so far are one value to the bins."""


@dataclass(frozen=True)
class Reference:
    """How the champion's score and features lay when it was published."""

    plan: RowPlan
    """raw columns -> the features of `features`"""
    rows: int
    first_month: str | None
    last_month: str | None
    score: Histogram
    """of the probability of bad"""
    features: Mapping[str, Histogram]


def reference_path(registry: Registry, version: int) -> Path:
    """Where the reference of a version lies."""
    return registry.companion_path(version, REFERENCE)


def describe_reference(loaded: Loaded, stages: Mapping[str, Stage], contender: str) -> dict[str, Any]:
    """The reference of a contender as plain data, schema_version 1.

    Args:
        loaded: the portfolio and where its raw rows lie, which alone still hold the special codes.
        stages: `ingest`, `rows`, `plan`, `split` and `calibrated` of the run that fitted it.
        contender: a column of the predictions.
    """
    is_target = pl.col("part").str.starts_with(TARGET)
    predictions = pl.scan_parquet(stages["calibrated"].folder / PREDICTIONS).filter(is_target)
    score = predictions.select("id", contender).sort("id").collect()
    months = pl.scan_parquet(stages["split"].folder / ASSIGNMENT).filter(is_target).select("month").collect()["month"]
    plan = load_plan(stages["plan"]).rows
    codes = {s.column: s.codes for s in plan.sentinels if s.codes and s.column in plan.numbers}
    rows = pl.scan_parquet(stages["rows"].folder / ROWS)
    if codes:
        key = pl.col(loaded.portfolio.data.id).alias("id")
        rows = scan_ingested(loaded, stages["ingest"]).select(key, *countable_expressions(plan, codes))
    features = rows.join(score.lazy().select("id"), on="id", how="semi")
    frame = features.select(*plan.numeric_features, *plan.categories).collect()
    numbers = {name: describe_numbers(frame[name], specials=codes.get(name, ())) for name in plan.numeric_features}
    categories = {name: describe_categories(frame[name]) for name in plan.categories}
    return {
        "schema_version": 1,
        "plan": plan.model_dump(mode="json"),
        "rows": score.height,
        "first_month": months.min(),
        "last_month": months.max(),
        "score": describe_numbers(as_floats(score[contender]), decimals=SCORE_DECIMALS).to_json(),
        "features": {name: one.to_json() for name, one in {**numbers, **categories}.items()},
    }


def countable_expressions(plan: RowPlan, coded: Collection[str]) -> list[pl.Expr]:
    """The row-wise features over the raw columns, with the special codes of the numbers named left as they came."""
    as_they_came = RowPlan(
        decision_date=None, numbers=tuple(coded), categories=(), sentinels=(), ratios=(), ages=()
    )  # fmt: skip
    others = tuple(name for name in plan.numbers if name not in coded)
    return [*rowwise_expressions(plan.model_copy(update={"numbers": others})), *rowwise_expressions(as_they_came)]


def coded_numbers(features: Mapping[str, Histogram]) -> tuple[str, ...]:
    """The features whose bins tell special codes from missing."""
    return tuple(name for name, one in features.items() if isinstance(one.bins, NumberBins) and one.bins.specials)


def read_reference(path: Path) -> Reference:
    """Read what `describe_reference` made.

    Raises:
        ValueError: another schema_version, or counts that do not fit their bins.
    """
    document = read_json(path)
    if document["schema_version"] != 1:
        raise ValueError(f"{path}: reference of schema_version {document['schema_version']}, expected 1")
    return Reference(
        plan=RowPlan.model_validate(document["plan"]),
        rows=document["rows"],
        first_month=document["first_month"],
        last_month=document["last_month"],
        score=read_histogram(document["score"]),
        features={name: read_histogram(one) for name, one in document["features"].items()},
    )

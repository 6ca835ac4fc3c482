"""What publication keeps for the months to come: how score and features of the champion lay on its own target rows.

`manifests/<version>.reference.json` holds, beside the row-wise part of the champion's feature plan, one histogram of
the probability and one of every row-wise feature, over the target rows that it was fitted, chosen and judged on. Bins
are frozen there; comparing a month with them is `tasks.monitor`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from crossrisk.features import RowPlan
from crossrisk.labels import TARGET
from crossrisk.registry import Registry
from crossrisk.stability import Floats, Histogram, describe_categories, describe_numbers, read_histogram
from crossrisk.store import Stage, read_json
from tasks.calibrate import PREDICTIONS
from tasks.features import ROWS, load_plan
from tasks.split import ASSIGNMENT

REFERENCE = "reference.json"
"""companion of a version"""

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


def describe_reference(stages: Mapping[str, Stage], contender: str) -> dict[str, Any]:
    """The reference of a contender as plain data, schema_version 1.

    Args:
        stages: `rows`, `plan`, `split` and `calibrated` of the run that fitted it.
        contender: a column of the predictions.
    """
    is_target = pl.col("part").str.starts_with(TARGET)
    predictions = pl.scan_parquet(stages["calibrated"].folder / PREDICTIONS).filter(is_target)
    score = predictions.select("id", contender).sort("id").collect()
    months = pl.scan_parquet(stages["split"].folder / ASSIGNMENT).filter(is_target).select("month").collect()["month"]
    rows = load_plan(stages["plan"]).rows
    features = pl.scan_parquet(stages["rows"].folder / ROWS).join(score.lazy().select("id"), on="id", how="semi")
    frame = features.select(*rows.numeric_features, *rows.categories).collect()
    return {
        "schema_version": 1,
        "plan": rows.model_dump(mode="json"),
        "rows": score.height,
        "first_month": months.min(),
        "last_month": months.max(),
        "score": describe_numbers(as_floats(score[contender]), decimals=SCORE_DECIMALS).to_json(),
        "features": {
            **{name: describe_numbers(as_floats(frame[name])).to_json() for name in rows.numeric_features},
            **{name: describe_categories(frame[name].to_list()).to_json() for name in rows.categories},
        },
    }


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


def as_floats(values: pl.Series) -> Floats:
    """(n,) float64 with NaN for missing."""
    return values.cast(pl.Float64).fill_null(float("nan")).to_numpy()

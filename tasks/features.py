"""Feature engineering on Parquet: row-wise features, encodings fitted on training rows, the encoded matrix.

Three tasks around the pure plan of `crossrisk.features`. Each writes one file, sorted by id:

rows.parquet     id and the row-wise features (nothing fitted), of every row that has a label line
plan.json        the fitted feature plan
encoded.parquet  id, population, part, month, label (null where training may not see it), float32 features
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import polars as pl
from prefect import task
from prefect.cache_policies import NO_CACHE

from crossrisk.config import Loaded
from crossrisk.errors import InputError
from crossrisk.features import FeaturePlan, encoding_expressions, fit_plan, rowwise_expressions
from crossrisk.store import Stage, stage, write_text
from tasks.ingest import scan_ingested
from tasks.labels import LABELS
from tasks.split import ASSIGNMENT, SOURCE_FIT, TARGET_FIT, TARGET_UNLABELLED

logger = logging.getLogger("crossrisk.features")

ROWS, PLAN, ENCODED = "rows.parquet", "plan.json", "encoded.parquet"
KEYS = ("id", "population", "part", "month", "label")
"""what stands beside the features in encoded.parquet"""


@task(name="make row-wise features", cache_policy=NO_CACHE)
def make_row_features(loaded: Loaded, ingested: Stage, labels: Stage) -> Stage:
    """Write rows.parquet: ratios, ages, sentinel codes as missing; no statistic of any row enters another."""
    portfolio = loaded.portfolio
    rows = portfolio.row_plan

    def build(folder: Path) -> dict[str, Any]:
        features = scan_ingested(loaded, ingested).select(
            pl.col(portfolio.data.id).alias("id"), *rowwise_expressions(rows)
        )
        kept = features.join(pl.scan_parquet(labels.folder / LABELS).select("id"), on="id", how="semi")
        kept.sort("id").sink_parquet(folder / ROWS, compression="zstd")
        written = pl.scan_parquet(folder / ROWS)
        missing = written.select(pl.exclude("id").null_count()).collect().row(0, named=True)
        count = int(written.select(pl.len()).collect().item())
        shares = {name: round(n / count, 4) for name, n in missing.items() if n}
        return {"rows": count, "features": len(missing), "missing_share": shares}

    inputs = {"ingest": ingested.digest, "labels": labels.digest, "plan": rows.model_dump(mode="json")}
    made = stage(loaded.folders.stages, "rows", inputs, build)
    logger.info("%d rows, %d row-wise features", made.facts["rows"], made.facts["features"])
    return made


@task(name="fit encodings", cache_policy=NO_CACHE)
def fit_encodings(loaded: Loaded, rows: Stage, split: Stage) -> Stage:
    """Write plan.json, fitted on the rows of source_fit and target_fit (features only) and no others."""
    features = loaded.portfolio.features

    def build(folder: Path) -> dict[str, Any]:
        is_training = pl.col("part").is_in([SOURCE_FIT, TARGET_FIT, TARGET_UNLABELLED])
        # in memory and in one order: sums of floats, and with them every digest downstream, depend on it
        training = _with_part(rows, split).filter(is_training).sort("id").collect()
        plan = fit_plan(
            training,
            loaded.portfolio.row_plan,
            clip_quantiles=features.clip_quantiles,
            min_level_rows=features.min_level_rows,
        )
        if not plan.outputs:
            raise InputError(
                "no feature varies among the training rows; check features.numeric and features.categorical"
            )
        write_text(folder / PLAN, plan.model_dump_json(indent=1))
        return {"outputs": len(plan.outputs), "dropped": list(plan.dropped)}

    inputs = {
        "rows": rows.digest,
        "split": split.digest,
        "clip_quantiles": features.clip_quantiles,
        "min_level_rows": features.min_level_rows,
    }
    made = stage(loaded.folders.stages, "plan", inputs, build)
    logger.info("%d encoded features; without variation: %s", made.facts["outputs"], made.facts["dropped"] or "none")
    return made


@task(name="apply encodings", cache_policy=NO_CACHE)
def apply_encodings(loaded: Loaded, rows: Stage, split: Stage, fitted: Stage) -> Stage:
    """Write encoded.parquet: one float32 matrix for all contenders."""

    def build(folder: Path) -> dict[str, Any]:
        plan = load_plan(fitted)
        visible = pl.when(pl.col("label_used")).then(pl.col("label")).alias("label")
        encoded = _with_part(rows, split).select(
            "id", "population", "part", "month", visible, *encoding_expressions(plan)
        )
        encoded.sort("id").sink_parquet(folder / ENCODED, compression="zstd")
        return {"rows": int(pl.scan_parquet(folder / ENCODED).select(pl.len()).collect().item())}

    made = stage(loaded.folders.stages, "encoded", {"plan": fitted.digest, "split": split.digest}, build)
    logger.info("%d rows encoded", made.facts["rows"])
    return made


def load_plan(fitted: Stage) -> FeaturePlan:
    """The fitted plan of a stage."""
    return FeaturePlan.model_validate_json((fitted.folder / PLAN).read_text(encoding="utf-8"))


def _with_part(rows: Stage, split: Stage) -> pl.LazyFrame:
    assignment = pl.scan_parquet(split.folder / ASSIGNMENT).select(
        "id", "population", "part", "month", "label", "label_used"
    )
    return pl.scan_parquet(rows.folder / ROWS).join(assignment, on="id")

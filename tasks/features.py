"""Feature engineering on Parquet: row-wise features, encodings fitted on training rows, the encoded matrix.

Three tasks around the pure plan of `crossrisk.features`. Each writes one file, sorted by id:

rows.parquet     id and the row-wise features (nothing fitted), of every row that has a label line
plan.json        the fitted feature plan
encoded.parquet  id, population, part, month, label (null where training may not see it), float32 features of
                 every view that a contender is fitted on

Encodings of labels (woe, target_mean) see those of source_fit alone, where labels are plenty: a contender that is
fitted on the target's labels then never meets one of them twice. The rows of source_fit get cross-fitted values.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from prefect import task
from prefect.cache_policies import NO_CACHE

from crossrisk.config import Loaded
from crossrisk.errors import InputError
from crossrisk.features import (
    FeaturePlan,
    crossfit,
    encoding_expressions,
    fit_plan,
    native_expressions,
    rowwise_expressions,
)
from crossrisk.labels import TARGET
from crossrisk.registry.asking import PLAN
from crossrisk.store import Stage, stage, write_text
from tasks.ingest import scan_ingested
from tasks.labels import LABELS
from tasks.split import ASSIGNMENT, SOURCE_FIT, TARGET_FIT, TARGET_UNLABELLED, keyed_hash

logger = logging.getLogger("crossrisk.features")

ROWS, ENCODED = "rows.parquet", "encoded.parquet"
_CROSSFITTED = " (cross-fitted)"


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
    """Write plan.json, fitted on the rows of source_fit and target_fit and no others; on labels of source_fit alone.

    Raises:
        InputError: no feature is left, or the rows cannot be fitted as `[features]` says.
    """
    settings = loaded.portfolio.fit_settings

    def build(folder: Path) -> dict[str, Any]:
        is_training = pl.col("part").is_in([SOURCE_FIT, TARGET_FIT, TARGET_UNLABELLED])
        # in memory and in one order: sums of floats, and with them every digest downstream, depend on it
        training = _with_part(rows, split).filter(is_training).sort("id").collect()
        try:
            plan = fit_plan(
                training,
                loaded.portfolio.row_plan,
                settings,
                label=training.select(pl.when(_has_source_label()).then("label")).to_series(),
                is_target=training["population"] == TARGET,
            )
        except ValueError as error:
            raise InputError(f"the feature plan cannot be fitted: {error}") from error
        if not plan.outputs:
            raise InputError(
                "no feature varies among the training rows; check features.numeric, features.categorical and "
                f"features.select ({len(plan.dropped)} were dropped)"
            )
        write_text(folder / PLAN, plan.model_dump_json(indent=1))
        reasons = {one.feature: one.reason for one in plan.dropped}
        return {"outputs": len(plan.outputs), "dropped": list(reasons), "reasons": reasons}

    inputs = {"rows": rows.digest, "split": split.digest, "settings": settings.model_dump(mode="json")}
    made = stage(loaded.folders.stages, "plan", inputs, build)
    logger.info("%d encoded features, %d dropped", made.facts["outputs"], len(made.facts["dropped"]))
    for feature, reason in made.facts["reasons"].items():
        logger.info("dropped %s: %s", feature, reason)
    return made


@task(name="apply encodings", cache_policy=NO_CACHE)
def apply_encodings(loaded: Loaded, rows: Stage, split: Stage, fitted: Stage) -> Stage:
    """Write encoded.parquet: one float32 matrix for all contenders."""

    def build(folder: Path) -> dict[str, Any]:
        plan = load_plan(fitted)
        encode = (*encoding_expressions(plan), *native_expressions(plan))
        visible = pl.when(pl.col("label_used")).then(pl.col("label")).alias("label")
        encoded = _with_part(rows, split).select("id", "population", "part", "month", visible, *encode)
        if plan.label_outputs:
            encoded = _with_crossfitted(encoded, _crossfit_source(loaded, plan, _with_part(rows, split)), plan)
        encoded.sort("id").sink_parquet(folder / ENCODED, compression="zstd")
        return {"rows": int(pl.scan_parquet(folder / ENCODED).select(pl.len()).collect().item())}

    features = loaded.portfolio.features
    folds = {"folds": features.crossfit_folds, "smoothing": features.smoothing, "seed": loaded.portfolio.split.seed}
    inputs = {"plan": fitted.digest, "split": split.digest, "crossfit": folds}
    made = stage(loaded.folders.stages, "encoded", inputs, build)
    logger.info("%d rows encoded", made.facts["rows"])
    return made


def load_plan(fitted: Stage) -> FeaturePlan:
    """The fitted plan of a stage."""
    return FeaturePlan.model_validate_json((fitted.folder / PLAN).read_text(encoding="utf-8"))


def _with_part(rows: Stage, split: Stage) -> pl.LazyFrame:
    assignment = pl.scan_parquet(split.folder / ASSIGNMENT).select(
        "id", "customer", "population", "part", "month", "label", "label_used"
    )
    return pl.scan_parquet(rows.folder / ROWS).join(assignment, on="id")


def _has_source_label() -> pl.Expr:
    return (pl.col("part") == SOURCE_FIT) & pl.col("label_used") & pl.col("label").is_not_null()


def _crossfit_source(loaded: Loaded, plan: FeaturePlan, rows: pl.LazyFrame) -> pl.DataFrame:
    """id and the cross-fitted label_outputs of the labelled rows of source_fit; folds are drawn by customer."""
    features = loaded.portfolio.features
    training = rows.filter(_has_source_label()).sort("id").collect()
    fold = (keyed_hash(training["customer"], loaded.portfolio.split.seed) % features.crossfit_folds).astype(np.int64)
    values = crossfit(plan, training, training["label"].to_numpy(), fold, smoothing=features.smoothing)
    return training.select("id").hstack(values)


def _with_crossfitted(encoded: pl.LazyFrame, crossfitted: pl.DataFrame, plan: FeaturePlan) -> pl.LazyFrame:
    joined = encoded.join(crossfitted.lazy(), on="id", how="left", suffix=_CROSSFITTED)
    names = plan.label_outputs
    chosen = (pl.coalesce(f"{name}{_CROSSFITTED}", name).alias(name) for name in names)
    return joined.with_columns(chosen).drop(f"{name}{_CROSSFITTED}" for name in names)

"""Mature labels: one small table of who every row is, when it came, and what is known of it at as_of.

`labels.parquet` holds id, customer, population, month, label (null = unknown at as_of), one row each, sorted by id;
rows later than as_of, of no population, or quarantined are not in it, and are counted.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import polars as pl
from prefect import task
from prefect.cache_policies import NO_CACHE

from crossrisk.config import Loaded, Portfolio
from crossrisk.errors import InputError
from crossrisk.labels import SOURCE, TARGET, matured_label, month, population
from crossrisk.store import Stage, stage
from tasks.ingest import scan_ingested

logger = logging.getLogger("crossrisk.labels")

LABELS, QUARANTINE = "labels.parquet", "quarantine.parquet"


@task(name="mature labels", cache_policy=NO_CACHE)
def mature_labels(loaded: Loaded, ingested: Stage, validated: Stage) -> Stage:
    """Write labels.parquet. Facts: rows left out with the reason, matured rows and bads of each population.

    Args:
        loaded: the portfolio and its folders.
        ingested: the input's stage.
        validated: the validation's stage; the rows it set aside stay out.

    Raises:
        InputError: a population whose matured labels hold one class only.
    """
    portfolio = loaded.portfolio

    def build(folder: Path) -> dict[str, Any]:
        rows = without_quarantined(scan_ingested(loaded, ingested), portfolio.data.id, validated)
        described = describe_rows(rows, portfolio)
        facts = _left_out(described, portfolio)
        kept = described.filter(pl.col("population").is_in([SOURCE, TARGET]), ~pl.col("is_future")).drop("is_future")
        kept.sort("id").sink_parquet(folder / LABELS, compression="zstd")
        return facts | {"populations": _summarise(pl.scan_parquet(folder / LABELS))}

    inputs = {"ingest": ingested.digest, "validation": validated.digest}
    made = stage(loaded.folders.stages, "labels", inputs, build)
    logger.info("matured at %s: %s; left out: %s", portfolio.as_of, made.facts["populations"], made.facts["left_out"])
    _refuse_one_class(made, portfolio)
    return made


def without_quarantined(rows: pl.LazyFrame, id_column: str, validated: Stage) -> pl.LazyFrame:
    """The rows whose id is not among those that validation set aside."""
    quarantine = validated.folder / QUARANTINE
    if not quarantine.exists():
        return rows
    ids = pl.scan_parquet(quarantine).select(id_column).unique()
    return rows.join(ids, on=id_column, how="anti")


def describe_rows(rows: pl.LazyFrame, portfolio: Portfolio) -> pl.LazyFrame:
    """id, customer, population, month, label (null = unknown), is_future (decided after as_of)."""
    data = portfolio.data
    decision_date = pl.col(data.decision_date).cast(pl.Date) if data.decision_date else pl.lit(None, pl.Date)
    return rows.select(
        pl.col(data.id).alias("id"),
        pl.col(data.customer or data.id).cast(pl.String).alias("customer"),
        population(portfolio).alias("population"),
        month(portfolio).alias("month"),
        matured_label(portfolio).alias("label"),
        (decision_date > portfolio.as_of).fill_null(False).alias("is_future"),
    )


def _left_out(described: pl.LazyFrame, portfolio: Portfolio) -> dict[str, Any]:
    in_population = pl.col("population").is_in([SOURCE, TARGET])
    counts = described.select(
        (~in_population).sum().alias("of no population"),
        (in_population & pl.col("is_future")).sum().alias(f"decided after {portfolio.as_of}"),
    ).collect(engine="streaming")  # fmt: skip
    return {"left_out": {reason: n for reason, n in counts.row(0, named=True).items() if n}}


def _summarise(labels: pl.LazyFrame) -> dict[str, dict[str, int]]:
    table = labels.group_by("population").agg(
        pl.len().alias("rows"),
        pl.col("label").is_not_null().sum().alias("matured"),
        (pl.col("label") == 1).sum().alias("bads"),
    ).sort("population").collect()  # fmt: skip
    return {row.pop("population"): row for row in table.to_dicts()}


def _refuse_one_class(made: Stage, portfolio: Portfolio) -> None:
    populations = made.facts["populations"]
    for name in (SOURCE, TARGET):
        if name not in populations:
            raise InputError(
                f"population {name!r} has no row left at {portfolio.as_of} after quarantine; "
                f"correct population.{name}, as_of or the quarantine rules"
            )
    matured, bads = populations[SOURCE]["matured"], populations[SOURCE]["bads"]
    if bads in (0, matured):
        raise InputError(
            f"the source has {bads} bads among {matured} matured rows at {portfolio.as_of}; both classes are needed to "
            "train; check label.column, label.window_months and population.source"
        )

"""Mature labels: one small table of who every row is, when it came, and what is known of it at as_of.

`labels.parquet` holds id, customer, population, month, label (null = unknown at as_of) and why_unknown (null where it
is known), one row each, sorted by id; rows later than as_of, of no population, or quarantined are not in it, and are
counted. `vintages.parquet` is the table of `crossrisk.vintages` on the same rows, where the portfolio has the dates for
it. Features that were known only after the decision end the run here, before anything is fitted.
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
from crossrisk.labels import (
    REASONS,
    SOURCE,
    TARGET,
    booked_accounts,
    born_too_late,
    known_too_late,
    matured_label,
    month,
    population,
    why_unknown,
)
from crossrisk.store import Stage, stage
from crossrisk.vintages import build_vintages, describe_vintages
from tasks.ingest import scan_ingested

logger = logging.getLogger("crossrisk.labels")

LABELS, QUARANTINE, VINTAGES = "labels.parquet", "quarantine.parquet", "vintages.parquet"


@task(name="mature labels", cache_policy=NO_CACHE)
def mature_labels(loaded: Loaded, ingested: Stage, validated: Stage) -> Stage:
    """Write labels.parquet and vintages.parquet.

    Facts: `left_out` (rows, with the reason), `populations` (rows, matured, bads of each, and `unknown`: rows by the
    reason why their label is), `dates_after_decision` (rows by date column of [features.ages] that lie after the
    decision: counted, not refused).

    Args:
        loaded: the portfolio and its folders.
        ingested: the input's stage.
        validated: the validation's stage; the rows it set aside stay out.

    Raises:
        InputError: a feature known only after the decision date; a population whose matured labels hold one class only.
    """
    portfolio = loaded.portfolio

    def build(folder: Path) -> dict[str, Any]:
        rows = without_quarantined(scan_ingested(loaded, ingested), portfolio.data.id, validated)
        facts = _left_out(describe_rows(rows, portfolio), portfolio)
        used = rows.filter(population(portfolio).is_in([SOURCE, TARGET]), ~_is_future(portfolio))
        _refuse_late_features(used, portfolio)
        describe_rows(used, portfolio).drop("is_future").sort("id").sink_parquet(folder / LABELS, compression="zstd")
        _write_vintages(used, portfolio, folder)
        return facts | {
            "populations": _summarise(pl.scan_parquet(folder / LABELS)),
            "dates_after_decision": _count(used, born_too_late(portfolio)),
        }

    inputs = {"ingest": ingested.digest, "validation": validated.digest}
    made = stage(loaded.folders.stages, "labels", inputs, build)
    logger.info("matured at %s: %s; left out: %s", portfolio.as_of, made.facts["populations"], made.facts["left_out"])
    for column, n in made.facts["dates_after_decision"].items():
        logger.warning("%s lies after the decision date in %d rows: a negative age, as the file has it", column, n)
    _refuse_one_class(made, portfolio)
    return made


def read_vintages(labels: Stage, portfolio: Portfolio) -> dict[str, Any] | None:
    """The vintages of a labels stage as plain data (`crossrisk.vintages.describe_vintages`); None where there are none.

    Curves are compared at the label's window, or at twelve months where it has none.
    """
    path = labels.folder / VINTAGES
    if not path.exists():
        return None
    return describe_vintages(pl.read_parquet(path), months=portfolio.label.window_months or None)


def without_quarantined(rows: pl.LazyFrame, id_column: str, validated: Stage) -> pl.LazyFrame:
    """The rows whose id is not among those that validation set aside."""
    quarantine = validated.folder / QUARANTINE
    if not quarantine.exists():
        return rows
    ids = pl.scan_parquet(quarantine).select(id_column).unique()
    return rows.join(ids, on=id_column, how="anti")


def describe_rows(rows: pl.LazyFrame, portfolio: Portfolio) -> pl.LazyFrame:
    """id, customer, population, month, label (null = unknown), why_unknown, is_future (decided after as_of)."""
    data = portfolio.data
    return rows.select(
        pl.col(data.id).alias("id"),
        pl.col(data.customer or data.id).cast(pl.String).alias("customer"),
        population(portfolio).alias("population"),
        month(portfolio).alias("month"),
        matured_label(portfolio).alias("label"),
        why_unknown(portfolio).alias("why_unknown"),
        _is_future(portfolio).alias("is_future"),
    )


def _is_future(portfolio: Portfolio) -> pl.Expr:
    if portfolio.data.decision_date is None:
        return pl.lit(False)
    return (pl.col(portfolio.data.decision_date).cast(pl.Date) > portfolio.as_of).fill_null(False)


def _left_out(described: pl.LazyFrame, portfolio: Portfolio) -> dict[str, Any]:
    in_population = pl.col("population").is_in([SOURCE, TARGET])
    counts = described.select(
        (~in_population).sum().alias("of no population"),
        (in_population & pl.col("is_future")).sum().alias(f"decided after {portfolio.as_of}"),
    ).collect(engine="streaming")  # fmt: skip
    return {"left_out": {reason: n for reason, n in counts.row(0, named=True).items() if n}}


def _summarise(labels: pl.LazyFrame) -> dict[str, dict[str, Any]]:
    table = labels.group_by("population").agg(
        pl.len().alias("rows"),
        pl.col("label").is_not_null().sum().alias("matured"),
        (pl.col("label") == 1).sum().alias("bads"),
        *((pl.col("why_unknown") == reason).sum().alias(reason) for reason in REASONS),
    ).sort("population").collect()  # fmt: skip
    summary: dict[str, dict[str, Any]] = {}
    for row in table.to_dicts():
        name, unknown = row.pop("population"), {reason: n for reason in REASONS if (n := row.pop(reason))}
        summary[name] = row | {"unknown": unknown}
    return summary


def _write_vintages(rows: pl.LazyFrame, portfolio: Portfolio, folder: Path) -> None:
    columns = booked_accounts(portfolio)
    if columns is not None:
        table = build_vintages(
            rows.select(columns), as_of=portfolio.as_of, reporting_lag_days=portfolio.label.reporting_lag_days
        )
        table.write_parquet(folder / VINTAGES, compression="zstd")


def _refuse_late_features(rows: pl.LazyFrame, portfolio: Portfolio) -> None:
    late = _count(rows, known_too_late(portfolio))
    if late:
        column, n = next(iter(late.items()))
        timestamp, decided = portfolio.features.timestamps[column], portfolio.data.decision_date
        more = f" (and {', '.join(list(late)[1:])})" if len(late) > 1 else ""
        raise InputError(
            f"feature {column!r}{more} was known only after the decision: {timestamp} is later than {decided} in {n:,} "
            "rows. A model cannot be fed what is not known yet: deliver the value as it stood at the decision, or take "
            f"{column!r} out of [features]"
        )


def _count(rows: pl.LazyFrame, conditions: dict[str, pl.Expr]) -> dict[str, int]:
    """Rows that meet each condition, without those that none meets."""
    if not conditions:
        return {}
    counts = rows.select(condition.sum().alias(name) for name, condition in conditions.items())
    return {name: n for name, n in counts.collect(engine="streaming").row(0, named=True).items() if n}


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

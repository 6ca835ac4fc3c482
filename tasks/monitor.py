"""The monthly watch of the champion: collect its months, score them through its SavedModel, measure, set the light.

Nothing is decided or published here, and the ledger is not touched. PSI, metrics and lights are computed in
`crossrisk.stability`, `crossrisk.metrics` and `crossrisk.monitoring`; what a month is compared with was written when
the champion was published (`tasks.reference`).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl
from prefect import task
from prefect.cache_policies import NO_CACHE

from crossrisk.config import Loaded, Portfolio
from crossrisk.errors import InputError
from crossrisk.labels import TARGET, matured_label, month, population
from crossrisk.metrics import Metric, evaluate
from crossrisk.monitoring import (
    Cohort,
    Signal,
    judge_auc,
    judge_calibration,
    judge_features,
    judge_score,
    months_up_to,
    newest_sufficient,
    overall,
)
from crossrisk.registry import Champion, Registry
from crossrisk.stability import CategoryBins, Counts, Histogram, Stability, largest_move, psi
from crossrisk.store import Stage, stage
from models.child import run_worker
from tasks.ingest import scan_ingested
from tasks.reference import Reference, coded_numbers, countable_expressions, read_reference, reference_path

logger = logging.getLogger("crossrisk.monitor")

MONTHS, SCORES = "months.parquet", "scores.parquet"
SHOWN_METRICS = ("auc", "ks", "observed_expected")
_BATCH_ROWS = 20_000


@dataclass(frozen=True)
class Watched:
    """The version in production and how things lay when it was published."""

    champion: Champion
    reference: Reference
    seen: Path
    """Parquet of the ids whose labels it was fitted or chosen on"""


def watched_champion(loaded: Loaded) -> Watched:
    """The champion with its reference.

    Raises:
        InputError: no champion yet, or one that was published without a reference.
        PublishError: its files are not those of its manifest.
    """
    registry = Registry(loaded.folders.registry)
    champion = registry.champion()
    if champion is None:
        raise InputError(
            f"portfolio {loaded.portfolio.name} has no champion to watch below {registry.models}; "
            "publish one first: crossrisk retrain CONFIG"
        )
    path = reference_path(registry, champion.version)
    if not path.exists():
        raise InputError(
            f"version {champion.version} has no reference at {path}: it was published before references were kept; "
            "watch the next version, or restore the file from a backup"
        )
    seen = registry.manifest_path(champion.version).with_suffix(".rows.parquet")
    return Watched(champion, read_reference(path), seen)


@task(name="collect months", cache_policy=NO_CACHE)
def collect_months(loaded: Loaded, ingested: Stage, watched: Watched, watched_month: str) -> Stage:
    """Write months.parquet: target rows of the months up to the watched one that were decided on or before as_of.

    Columns: id, month, label (null where not known at as_of), is_seen (label seen in training), the raw columns of the
    champion. What validation would set aside is kept: the champion scored it in production too.

    Raises:
        InputError: the data lack a raw column of the champion.
    """
    raw = [column.name for column in watched.reference.plan.raw_columns]

    def build(folder: Path) -> dict[str, Any]:
        rows = scan_ingested(loaded, ingested)
        absent = sorted(set(raw) - set(rows.collect_schema().names()))
        if absent:
            raise InputError(
                f"version {watched.champion.version} needs {len(raw)} raw columns; the data lack {', '.join(absent)}: "
                "deliver them, or retrain without them"
            )
        seen = pl.scan_parquet(watched.seen).select("id", pl.lit(True).alias("is_seen"))
        kept = _target_rows(rows, loaded.portfolio, months_up_to(watched_month), raw)
        marked = kept.join(seen, on="id", how="left").with_columns(pl.col("is_seen").fill_null(False))
        marked.sort("month", "id").sink_parquet(folder / MONTHS, compression="zstd")
        ids = pl.scan_parquet(folder / MONTHS).select(pl.len().alias("rows"), pl.col("id").n_unique().alias("ids"))
        counts = ids.collect().row(0, named=True)
        return {"rows": counts["rows"], "repeated_ids": counts["rows"] - counts["ids"]}

    inputs = {
        "ingest": ingested.digest,
        "month": watched_month,
        "champion": watched.champion.version,
        "raw_columns": raw,
    }
    made = stage(loaded.folders.stages, "watched_months", inputs, build)
    logger.info("%d target rows up to %s", made.facts["rows"], watched_month)
    return made


def _target_rows(rows: pl.LazyFrame, portfolio: Portfolio, months: Sequence[str], raw: Sequence[str]) -> pl.LazyFrame:
    decided = pl.col(str(portfolio.data.decision_date)).cast(pl.Date)
    wanted = rows.filter(
        population(portfolio) == TARGET, month(portfolio).is_in(list(months)), decided <= portfolio.as_of
    )
    return wanted.select(
        pl.col(portfolio.data.id).alias("id"),
        month(portfolio).alias("month"),
        matured_label(portfolio).alias("label"),
        *raw,
    )


@task(name="score months", cache_policy=NO_CACHE)
def score_months(loaded: Loaded, watched: Watched, collected: Stage) -> Stage:
    """Write scores.parquet: what the published SavedModel says of every collected row, in the rows' order."""

    def build(folder: Path) -> dict[str, Any]:
        spec = {
            "mode": "score",
            "directory": str(watched.champion.folder),
            "input": str(collected.folder / MONTHS),
            "id_column": "id",
            "output": str(folder / SCORES),
            "batch_rows": _BATCH_ROWS,
        }
        return {"rows": run_worker("models.export_worker", spec, workdir=folder)["rows"]}

    inputs = {"months": collected.digest, "champion": watched.champion.manifest["files"]}
    return stage(loaded.folders.stages, "watched_scores", inputs, build)


# --- measuring ---


@task(name="measure months", cache_policy=NO_CACHE)
def measure_months(loaded: Loaded, watched: Watched, collected: Stage, scored: Stage, watched_month: str) -> Stage:
    """Measure every month, and the watched one feature by feature.

    Facts: `months` (rows, labels, mean probability, score PSI, performance of each), `score` (bins and counts of the
    watched month), `features` (PSI, largest first), `judged` (performance of the newest months that together hold
    enough bads), `left_out` (rows with a known label that training has seen: they judge nothing).
    """

    def build(folder: Path) -> dict[str, Any]:
        rows = _scored_rows(collected, scored)
        months = months_up_to(watched_month)
        unseen = rows.filter(pl.col("label").is_not_null(), ~pl.col("is_seen"))
        judged = newest_sufficient(_cohorts(unseen, months), loaded.portfolio.gate.min_test_bads)
        bins = watched.reference.score
        counts = _count(bins, rows.filter(pl.col("month") == watched_month)["probability"])
        return {
            "months": [_measure(rows, unseen, one, watched.reference, loaded.portfolio) for one in months],
            "score": {"labels": bins.bins.labels, "reference": bins.counts, "month": counts.tolist()},
            "features": _measure_features(collected, watched.reference, watched_month),
            "judged": {"months": judged, "metrics": _judge(unseen.filter(_is_in(judged)), loaded.portfolio)},
            "left_out": int(rows["label"].is_not_null().sum()) - unseen.height,
        }

    gate, reference = loaded.portfolio.gate.model_dump(mode="json"), watched.reference
    histograms = {name: one.to_json() for name, one in {"": reference.score, **reference.features}.items()}
    inputs = {
        "months": collected.digest,
        "scores": scored.digest,
        "gate": gate,
        "seed": loaded.portfolio.split.seed,
        "reference": histograms,
    }
    made = stage(loaded.folders.stages, "watched_measures", inputs, build)
    logger.info("performance on %s", made.facts["judged"]["months"] or "no month: no label is known yet")
    return made


def _scored_rows(collected: Stage, scored: Stage) -> pl.DataFrame:
    """id, month, label, is_seen, probability of every collected row."""
    rows = pl.read_parquet(collected.folder / MONTHS, columns=["id", "month", "label", "is_seen"])
    scores = pl.read_parquet(scored.folder / SCORES, columns=["id", "probability"])
    if not rows["id"].equals(scores["id"]):  # side by side and not joined: an id may be there twice
        raise AssertionError(f"{scored.folder / SCORES} does not hold the rows of {collected.folder / MONTHS}")
    return rows.with_columns(scores["probability"])


def _is_in(months: Sequence[str]) -> pl.Expr:
    return pl.col("month").is_in(list(months))


def _cohorts(unseen: pl.DataFrame, months: Sequence[str]) -> list[Cohort]:
    counts = unseen.group_by("month").agg((pl.col("label") == 1).sum(), (pl.col("label") == 0).sum().alias("goods"))
    found = {one: (bads, goods) for one, bads, goods in counts.iter_rows()}
    return [Cohort(one, *found.get(one, (0, 0))) for one in months]


def _measure(
    rows: pl.DataFrame, unseen: pl.DataFrame, one: str, reference: Reference, portfolio: Portfolio
) -> dict[str, Any]:
    of_month = rows.filter(pl.col("month") == one)
    return {
        "month": one,
        "rows": of_month.height,
        "matured": int(of_month["label"].is_not_null().sum()),
        "bads": int((of_month["label"] == 1).sum()),
        "mean_probability": of_month["probability"].mean(),
        "score_psi": psi(reference.score.counts, _count(reference.score, of_month["probability"])).to_json(),
        "metrics": _judge(unseen.filter(pl.col("month") == one), portfolio),
    }


def _judge(unseen: pl.DataFrame, portfolio: Portfolio) -> dict[str, Any]:
    """AUC, KS and observed/expected of rows with labels; None each where there is no such row."""
    if unseen.is_empty():
        return dict.fromkeys(SHOWN_METRICS)
    gate = portfolio.gate
    evaluation = evaluate(
        unseen["label"].to_numpy(),
        {"champion": unseen["probability"].to_numpy()},
        replicates=gate.replicates,
        seed=portfolio.split.seed,
        confidence=gate.confidence,
        minimum=gate.min_test_bads,
    )
    return {key: evaluation.metrics["champion"][key].to_json() for key in SHOWN_METRICS}


def _measure_features(collected: Stage, reference: Reference, watched_month: str) -> list[dict[str, Any]]:
    """PSI of every feature of the champion with the bin that moved most and unseen categories, largest PSI first."""
    rows = pl.scan_parquet(collected.folder / MONTHS).filter(pl.col("month") == watched_month)
    features = rows.select(countable_expressions(reference.plan, coded_numbers(reference.features))).collect()
    measured = []
    for name, histogram in reference.features.items():
        counts = _count(histogram, features[name])
        bins = histogram.bins
        unseen = bins.name_unseen(features[name]) if isinstance(bins, CategoryBins) else ()
        move = largest_move(histogram, counts, unseen)
        found = psi(histogram.counts, counts).to_json()
        measured.append(
            {
                "feature": name,
                **found,
                "moved": asdict(move) if move else None,
                "unseen": [asdict(one) for one in unseen],
            }
        )
    return sorted(measured, key=lambda one: (-(one["value"] or 0.0), one["feature"]))


def _count(histogram: Histogram, values: pl.Series) -> Counts:
    """Rows in each bin of a reference."""
    return histogram.bins.count(values)


# --- concluding ---


@task(name="set the light", cache_policy=NO_CACHE)
def set_light(loaded: Loaded, watched: Watched, measured: Stage) -> tuple[Signal, ...]:
    """What each thing looked at says of the watched month, with one sentence of reason."""
    facts, gate = measured.facts, loaded.portfolio.gate
    judged = facts["judged"]
    metrics = {key: Metric(**found) if found else None for key, found in judged["metrics"].items()}
    features = {one["feature"]: _stability(one) for one in facts["features"]}
    recorded = watched.champion.manifest["metrics"]["auc"]["value"]
    signals = (
        judge_score(_stability(facts["months"][-1]["score_psi"])),
        judge_features(features),
        judge_auc(metrics["auc"], recorded, gate, judged["months"]),
        judge_calibration(metrics["observed_expected"], gate, judged["months"]),
    )
    logger.info("%s: %s", overall(signals), "; ".join(signal.reason for signal in signals))
    return signals


def _stability(found: Mapping[str, Any]) -> Stability:
    return Stability(**{key: value for key, value in found.items() if key in Stability.__dataclass_fields__})

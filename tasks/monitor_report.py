"""The watched month told as one JSON document, one page made from it alone, and Prefect artifacts.

What was measured comes from `tasks.monitor`; the page is drawn by `crossrisk.pages.monitor_page`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from prefect import task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.context import TaskRunContext

from crossrisk.config import Loaded, Portfolio
from crossrisk.labels import TARGET
from crossrisk.monitoring import Signal, overall
from crossrisk.pages.monitor_page import feature_rows, month_rows, render_month, summarise_month
from crossrisk.store import Stage, write_json, write_text
from tasks.monitor import Watched

logger = logging.getLogger("crossrisk.monitor")


@task(name="report month", cache_policy=NO_CACHE)
def report_month(
    loaded: Loaded,
    run_id: str,
    watched: Watched,
    ingested: Stage,
    collected: Stage,
    measured: Stage,
    hidden: Stage,
    signals: Sequence[Signal],
) -> dict[str, Any]:
    """Write runs/<run_id>/monitor.html and monitor.json; the JSON document is the run's result."""
    folder = loaded.folders.runs / run_id
    result = build_month(loaded, run_id, watched, ingested, collected, measured, hidden, signals)
    result["paths"] = {"report": str(folder / "monitor.html"), "json": str(folder / "monitor.json")}
    write_text(folder / "monitor.html", render_month(result))
    write_json(folder / "monitor.json", result)
    if TaskRunContext.get() is not None:
        _tell_prefect(result)
    logger.info("report at %s", folder / "monitor.html")
    return result


def build_month(
    loaded: Loaded,
    run_id: str,
    watched: Watched,
    ingested: Stage,
    collected: Stage,
    measured: Stage,
    hidden: Stage,
    signals: Sequence[Signal],
) -> dict[str, Any]:
    """Everything that the page shows, as plain data; schema_version 1."""
    portfolio, facts = loaded.portfolio, measured.facts
    months, latest = facts["months"], facts["months"][-1]
    counted = ("month", "rows", "matured", "bads", "mean_probability")
    return {
        "schema_version": 1,
        "run_id": run_id,
        "portfolio": portfolio.name,
        "as_of": portfolio.as_of.isoformat(),
        "month": latest["month"],
        "champion": _champion_facts(watched),
        "light": overall(signals),
        "reasons": [signal.reason for signal in signals],
        "signals": [asdict(signal) for signal in signals],
        "volumes": {
            **{key: latest[key] for key in counted[1:]},
            "last_month_with_rows": _last_month_with_rows(portfolio, ingested),
            "months": [{key: one[key] for key in counted} for one in months],
        },
        "score_psi": {
            **_verdict_of_rows(latest["score_psi"]),
            "months": [{"month": one["month"], **_verdict_of_rows(one["score_psi"])} for one in months],
            "histogram": facts["score"],
        },
        "hidden": dict(hidden.facts),
        "feature_psi": [_verdict_of_rows(one) for one in facts["features"]],
        "performance": {
            "judged_months": facts["judged"]["months"],
            **facts["judged"]["metrics"],
            "recorded_auc": watched.champion.manifest["metrics"]["auc"]["value"],
            "left_out": facts["left_out"],
            "months": [{"month": one["month"], **one["metrics"]} for one in months],
        },
        "gate": portfolio.gate.model_dump(mode="json"),
        "gate_confidence": portfolio.gate.confidence,
        "notes": _notes(portfolio, watched, collected, facts),
        "warnings": ingested.facts["warnings"],
        "files": ingested.facts["files"],
    }


def _last_month_with_rows(portfolio: Portfolio, ingested: Stage) -> str | None:
    """The newest month up to as_of with a row of the target, also of those that are not shown."""
    of_target = (one["month"] for one in ingested.facts["months"] if one["population"] == TARGET and one["rows"])
    return max((month for month in of_target if month and month <= f"{portfolio.as_of:%Y-%m}"), default=None)


def _verdict_of_rows(psi: Mapping[str, Any]) -> dict[str, Any]:
    """A PSI, its verdict None where there is no row: nothing was looked at, so nothing is too small either."""
    return {**psi, "verdict": psi["verdict"] if psi["n"] else None}


def _champion_facts(watched: Watched) -> dict[str, Any]:
    manifest, reference = watched.champion.manifest, watched.reference
    return {
        "version": watched.champion.version,
        "contender": manifest["contender"],
        "as_of": manifest["as_of"],
        "reference_rows": reference.rows,
        "reference_months": [reference.first_month, reference.last_month],
    }


def _notes(portfolio: Portfolio, watched: Watched, collected: Stage, facts: Mapping[str, Any]) -> list[str]:
    latest, reference = facts["months"][-1]["month"], watched.reference
    notes = []
    if reference.last_month is not None and latest <= reference.last_month:
        notes.append(f"the reference runs to {reference.last_month}: {latest} is not new to the champion")
    if latest == f"{portfolio.as_of:%Y-%m}":
        notes.append(f"{latest} is seen up to {portfolio.as_of} only")
    if collected.facts["repeated_ids"]:
        notes.append(
            f"{collected.facts['repeated_ids']:,} rows repeat the id of another and count as rows of their own"
        )
    known = [month for month in facts["judged"]["months"] if reference.last_month and month <= reference.last_month]
    if known:
        notes.append(f"performance of {', '.join(known)} is on rows that were there when the champion was published")
    if facts["left_out"]:
        notes.append(
            f"{facts['left_out']:,} rows with a known label judge nothing: the champion was fitted or chosen on them"
        )
    return notes


def _tell_prefect(result: Mapping[str, Any]) -> None:
    key = f"{result['portfolio'].replace('_', '-')}-monitor"
    create_markdown_artifact(summarise_month(result), key=f"{key}-light", description="Light and its reasons")
    create_table_artifact(month_rows(result), key=f"{key}-months", description="Rows, score PSI, performance by month")
    create_table_artifact(feature_rows(result), key=f"{key}-features", description="Features by PSI, largest first")

"""The run told as one JSON document, pages made from it alone, and Prefect artifacts.

`build_result` gathers what the stages found; page, decision memo and model card are drawn from that document by
`crossrisk.pages`. Nothing is computed here that the decision rests on.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from prefect import task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.context import TaskRunContext

from crossrisk.config import Loaded, Portfolio, expiry
from crossrisk.contenders import NETWORKS, POOLED
from crossrisk.labels import SOURCE, TARGET
from crossrisk.metrics import curves
from crossrisk.pages.memo import build_memo, render_memo_html, render_memo_markdown
from crossrisk.pages.model_card import build_card, render_card_html, render_card_markdown
from crossrisk.pages.reporting import contender_rows, render_report, summarise
from crossrisk.registry import Registry, read_manifest
from crossrisk.store import Stage, code_digest, read_json, write_json, write_text
from tasks.breakdowns import CHAMPION
from tasks.calibrate import PREDICTIONS
from tasks.compare import JUDGED
from tasks.decide import Decided
from tasks.labels import read_vintages
from tasks.publish import Publication
from tasks.train_network import HISTORY

logger = logging.getLogger("crossrisk.report")

HISTOGRAM_BINS = 30


@task(name="report", cache_policy=NO_CACHE)
def report(
    loaded: Loaded,
    run_id: str,
    stages: Mapping[str, Stage],
    trained: Mapping[str, Stage],
    decided: Decided,
    published: Publication,
    requested_by: str,
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    """Write report, decision memo and model card into runs/<run_id>/; report.json is the run's result.

    Memo and card are HTML, Markdown and JSON each, made from the result alone.
    """
    folder = loaded.folders.runs / run_id
    result = build_result(loaded, run_id, stages, trained, decided, published, requested_by, seconds)
    result["paths"] = {
        "model": str(published.path) if published.path else None,
        "pending": str(published.pending) if published.pending else None,
        "report": str(folder / "report.html"),
        "json": str(folder / "report.json"),
        "validation": str(folder / "validation.html"),
        "memo": str(folder / "memo.html"),
        "memo.md": str(folder / "memo.md"),
        "memo.json": str(folder / "memo.json"),
        "card": str(folder / "model_card.html"),
        "card.md": str(folder / "model_card.md"),
        "card.json": str(folder / "model_card.json"),
    }
    _write_memo_and_card(result, folder)
    write_text(folder / "report.html", render_report(result))
    write_json(folder / "report.json", result)
    if TaskRunContext.get() is not None:
        _tell_prefect(result)
    logger.info("report at %s", folder / "report.html")
    return result


def _write_memo_and_card(result: Mapping[str, Any], folder: Path) -> None:
    memo, card = build_memo(result), build_card(result)
    write_text(folder / "memo.html", render_memo_html(memo))
    write_text(folder / "memo.md", render_memo_markdown(memo))
    write_json(folder / "memo.json", memo)
    write_text(folder / "model_card.html", render_card_html(card))
    write_text(folder / "model_card.md", render_card_markdown(card))
    write_json(folder / "model_card.json", card)


def build_result(
    loaded: Loaded,
    run_id: str,
    stages: Mapping[str, Stage],
    trained: Mapping[str, Stage],
    decided: Decided,
    published: Publication,
    requested_by: str,
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    """Everything that the page shows, as plain data; schema_version 1."""
    portfolio = loaded.portfolio
    facts = {name: made.facts for name, made in stages.items()}
    compared, decision = facts["compared"], decided.decision
    return {
        "schema_version": 1,
        "run_id": run_id,
        "portfolio": portfolio.name,
        "as_of": portfolio.as_of.isoformat(),
        "preset": portfolio.preset,
        "verdict": decision.verdict,
        "reasons": list(decision.reasons),
        "challenger": decision.challenger,
        "version": published.version,
        "decided_by": published.decided_by,
        "serving": published.serving,
        "champion": {
            "before": compared["champion"],
            "before_contender": compared["champion_contender"],
            "manifest": _champion_facts(loaded, compared["champion"]),
            "after": published.champion,
        },
        "verified_difference": facts["candidate"]["largest_difference"],
        "checks": [check.to_json() for check in decision.checks],
        "evidence": decided.evidence.to_json(),
        "candidate": {key: facts["candidate"][key] for key in ("size_mb", "latency", "files")},
        "code": code_digest(),
        "diagnosis": facts["diagnosed"],
        "leaks": facts["leaks"],
        "contenders": compared["metrics"],
        "contender_facts": _contender_facts(portfolio, trained, facts),
        "differences": compared["differences"],
        "judged": {key: compared[key] for key in ("part", "rows", "bads", "months", "look", "notes")},
        "forest_spread": compared["forest_spread"],
        "article": compared["article"],
        "segments": compared["segments"],
        "protected": compared["protected"],
        "swap_set": compared["swap_set"],
        "population_psi": compared["population_psi"],
        "calibration_slope": compared["slope"],
        "config": portfolio.model_dump(mode="json"),
        "expires": expiry(portfolio).isoformat(),
        "requested_by": published.requested_by or requested_by,
        "cutoff": {"probability": portfolio.use.cutoff_probability, "table": compared["cutoff"]},
        "gate": portfolio.gate.model_dump(mode="json"),
        "gate_confidence": portfolio.gate.confidence,
        "input": {key: facts["ingest"][key] for key in ("rows", "files", "populations", "months", "warnings")},
        "validation": facts["validate"],
        "labels": facts["labels"],
        "vintages": read_vintages(stages["labels"], portfolio),
        "split": facts["split"],
        "features": facts["plan"],
        "curves": _curves(stages["compared"].folder, decision.challenger),
        "histograms": _histograms(stages["calibrated"].folder, stages["compared"].folder, decision.challenger),
        "trainings": {
            name: read_json(made.folder / HISTORY)
            for name, made in trained.items()
            if name in NETWORKS and made.facts["fitted"]
        },
        "reused": sorted(name for name, made in {**stages, **trained}.items() if made.reused),
        "seconds": dict(seconds),
    }


def _champion_facts(loaded: Loaded, version: int | None) -> dict[str, Any] | None:
    """What memo and card say of the version before; of one that an earlier release published, some may be None."""
    if version is None:
        return None
    manifest = read_manifest(Registry(loaded.folders.registry), version)
    return {key: manifest.get(key) for key in ("as_of", "run_id", "expires", "metrics", "config")}


def _contender_facts(
    portfolio: Portfolio, trained: Mapping[str, Stage], facts: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    return {
        name: {
            "fitted": made.facts["fitted"],
            "reason": made.facts.get("reason"),
            "publishable": name not in POOLED or portfolio.lineup.pooling == "allowed",
            "select_auc": facts["compared"]["select_auc"].get(name),
            "calibration": facts["calibrated"]["calibrations"].get(name),
        }
        for name, made in trained.items()
    }


def _curves(folder: Path, challenger: str) -> dict[str, Any]:
    """ROC, KS and calibration of the challenger, and of the champion where there is one."""
    judged = pl.read_parquet(folder / JUDGED)
    if not 0 < judged["label"].sum() < judged.height:
        return {}
    drawn = [challenger, *([CHAMPION] if CHAMPION in judged.columns else [])]
    label = judged["label"].to_numpy()
    found = {name: curves(label, judged[name].to_numpy()) for name in drawn}
    return {name: {key: values.tolist() for key, values in vars(curve).items()} for name, curve in found.items()}


def _histograms(calibrated: Path, compared: Path, challenger: str) -> dict[str, Any]:
    """Shares of rows by predicted probability: all of the source, all of the target, and the target rows that judge."""
    predictions = pl.read_parquet(calibrated / PREDICTIONS, columns=["id", "part", challenger])
    judged = pl.read_parquet(compared / JUDGED, columns=[challenger])[challenger].to_numpy()
    upper = float(predictions[challenger].quantile(0.995, "linear") or 1.0)
    edges = np.linspace(0.0, max(upper, 1e-6), HISTOGRAM_BINS + 1)
    samples = {
        population: predictions.filter(pl.col("part").str.starts_with(population))[challenger].to_numpy()
        for population in (SOURCE, TARGET)
    }
    samples["judged"] = judged
    shares = {
        name: (np.histogram(np.minimum(values, edges[-1]), edges)[0] / max(len(values), 1)).tolist()
        for name, values in samples.items()
    }
    return {"edges": edges.tolist(), "shares": shares}


def _tell_prefect(result: Mapping[str, Any]) -> None:
    key = result["portfolio"].replace("_", "-")
    create_markdown_artifact(summarise(result), key=f"{key}-decision", description="Decision and its reasons")
    create_table_artifact(contender_rows(result), key=f"{key}-contenders", description="Contenders on untouched rows")
    months = [
        {k: row[k] for k in ("population", "month", "rows", "matured", "bads")} for row in result["input"]["months"]
    ]
    create_table_artifact(months, key=f"{key}-months", description="Rows, matured labels and bads by month")

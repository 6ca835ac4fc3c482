"""Champion/challenger comparison: one challenger, chosen on target_select; one verdict, on rows nobody was fitted on.

The champion is scored again through its published SavedModel. A metric of the comparison on a row that was used to
fit or to choose is refused here, by code.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
from prefect import task
from prefect.cache_policies import NO_CACHE

from crossrisk.config import POOLED, SOURCE_ONLY, Loaded, Portfolio
from crossrisk.errors import InputError, TrainingError
from crossrisk.metrics import Difference, Evaluation, Metric, auc_value, evaluate, ks_value
from crossrisk.policy import Decision, Evidence, decide, decide_as_article
from crossrisk.registry import Champion, Registry
from crossrisk.store import Stage, stage
from models.child import run_worker
from models.fitted import Trees, load_contender
from models.shallow.trees import split_by_seed
from tasks.breakdowns import CHAMPION, article_figures, cutoff_table, finite, segment_table
from tasks.calibrate import PREDICTIONS
from tasks.features import ENCODED, load_plan
from tasks.ingest import scan_ingested
from tasks.matrix import read_parts
from tasks.split import ASSIGNMENT, SOURCE_STOP, TARGET_SELECT, judging_part
from tasks.train_baselines import forest_settings

logger = logging.getLogger("crossrisk.compare")

RAW_ROWS, JUDGED = "raw_rows.parquet", "judged.parquet"
SEEN_ROWS = "rows.parquet"
"""companion of a version: ids of the rows whose labels it has seen"""
SOURCE_ONLY_NETWORK = "source_only"
"""folder of what the guardrail compares, among the network's files"""


def current_champion(loaded: Loaded) -> Champion | None:
    """The version in production, its files checked against its manifest."""
    return Registry(loaded.folders.registry).champion()


@task(name="compare champion and challenger", cache_policy=NO_CACHE)
def compare(
    loaded: Loaded,
    ingested: Stage,
    encoded: Stage,
    fitted: Stage,
    split: Stage,
    calibrated: Stage,
    network: Stage | None,
) -> Stage:
    """Judge all contenders, and the champion, on the same untouched target rows.

    Files: judged.parquet (id, label, one column of probabilities a contender, `champion` too), raw_rows.parquet (the
    raw columns of those rows: what a server would be fed). Facts: metrics with intervals, challenger, paired
    differences, AUC on target_select, seed spread of the forest, article figures, segments.
    """
    portfolio, champion = loaded.portfolio, current_champion(loaded)
    # the lineup's order, which is that of preference; facts come back from JSON with their keys sorted
    names = [name for name in portfolio.contenders if name in calibrated.facts["calibrations"]]

    def build(folder: Path) -> dict[str, Any]:
        part = judging_part(portfolio)
        predictions = _with_labels(calibrated, split)
        judged = _untouched(predictions.filter(pl.col("label").is_not_null()), part)
        notes: list[str] = []
        _write_raw_rows(loaded, ingested, fitted, champion, judged["id"], folder)
        if champion is not None:
            judged, notes = _score_champion(loaded, champion, judged, folder)
        judged.write_parquet(folder / JUDGED, compression="zstd")
        evaluation = evaluate(
            judged["label"].to_numpy(),
            {name: judged[name].to_numpy() for name in [*names, *([CHAMPION] if champion else [])]},
            replicates=portfolio.gate.replicates,
            seed=portfolio.split.seed,
            confidence=portfolio.gate.confidence,
            minimum=portfolio.gate.min_test_bads,
        )
        select = predictions.filter(pl.col("part") == TARGET_SELECT, pl.col("label").is_not_null())
        chosen_on = evaluate(
            select["label"].to_numpy(),
            {name: select[name].to_numpy() for name in names},
            replicates=portfolio.gate.replicates,
            seed=portfolio.split.seed + 1,
            confidence=portfolio.gate.confidence,
        )
        bads = int(judged["label"].sum())
        challenger = choose_challenger(names, chosen_on, portfolio, test_bads=bads)
        return {
            "part": part,
            "rows": judged.height,
            "bads": bads,
            "metrics": {n: {k: m.to_json() for k, m in by.items()} for n, by in evaluation.metrics.items()},
            "select_auc": {name: chosen_on.metrics[name]["auc"].value for name in names},
            "challenger": challenger,
            "champion": champion.version if champion else None,
            "champion_contender": champion.manifest["contender"] if champion else None,
            "differences": _differences(evaluation, challenger, champion),
            "source_auc_fall": _source_auc_fall(challenger, encoded, fitted, network),
            "forest_spread": _forest_spread(loaded, encoded, fitted, calibrated, judged),
            "article": article_figures(predictions) if portfolio.preset == "article" and "dan" in names else None,
            "segments": segment_table(pl.read_parquet(folder / RAW_ROWS), judged, challenger, portfolio),
            "cutoff": cutoff_table(judged, challenger, portfolio),
            "notes": notes,
        }

    inputs = {
        "calibrated": calibrated.digest,
        "split": split.digest,
        "champion": champion.manifest["files"] if champion else None,
        "lineup": names,
        "gate": portfolio.gate.model_dump(mode="json"),
        "pooling": portfolio.lineup.pooling,
        "use": portfolio.use.model_dump(mode="json"),
    }
    made = stage(loaded.folders.stages, "compared", inputs, build)
    logger.info(
        "challenger %s, judged on %d rows with %d bads",
        made.facts["challenger"],
        made.facts["rows"],
        made.facts["bads"],
    )
    return made


@task(name="decide", cache_policy=NO_CACHE)
def make_decision(loaded: Loaded, compared: Stage) -> Decision:
    """Apply the gate to the comparison; under preset `article` the network is published whatever it says."""
    facts = compared.facts
    challenger = facts["challenger"]
    evidence = Evidence(
        challenger=challenger,
        metrics={key: Metric(**value) for key, value in facts["metrics"][challenger].items()},
        champion=facts["champion"],
        differences={key: Difference(**value) for key, value in facts["differences"].items()},
        source_only=challenger in SOURCE_ONLY,
        is_network=challenger == "dan" and loaded.portfolio.preset == "honest",
        source_auc_fall=facts["source_auc_fall"],
    )
    rule = decide_as_article if loaded.portfolio.preset == "article" and challenger == "dan" else decide
    decision = rule(evidence, loaded.portfolio.gate)
    logger.info("%s: %s", decision.verdict, "; ".join(decision.reasons))
    return decision


def choose_challenger(names: Sequence[str], chosen_on: Evaluation, portfolio: Portfolio, *, test_bads: int) -> str:
    """The first publishable contender of the lineup that target_select cannot tell from its best.

    The best has the highest AUC on target_select; a contender cannot be told from it where the interval of their paired
    difference, at the gate's confidence, reaches zero. With a few dozen bads the highest of nine AUCs is mostly luck;
    the lineup's order is what is known without it.

    With fewer bads in the test than the gate needs, only contenders fitted on the source alone may be chosen: nothing
    can be claimed about the target. Under preset `article` it is the network, as in the article.
    """
    publishable = [n for n in names if n not in POOLED or portfolio.lineup.pooling == "allowed"]
    if not publishable:
        raise TrainingError(
            f"no contender that may be published was fitted; fitted: {', '.join(names) or 'none'}. Add a source_* "
            "contender to lineup.contenders, or wait for more matured target bads"
        )
    if portfolio.preset == "article" and "dan" in publishable:
        return "dan"
    if test_bads < portfolio.gate.min_test_bads:
        publishable = [n for n in publishable if n in SOURCE_ONLY] or publishable
    auc = {name: chosen_on.metrics[name]["auc"].value for name in publishable}
    ranked = [name for name in publishable if auc[name] is not None]
    if not ranked:
        return publishable[0]
    best = max(ranked, key=lambda name: auc[name] or 0.0)
    for name in ranked:
        lead = chosen_on.difference(best, name, "auc")
        if lead.low is None or lead.low <= 0.0:
            return name
    raise AssertionError("the best is no further from itself than zero")


def _with_labels(calibrated: Stage, split: Stage) -> pl.DataFrame:
    labels = pl.read_parquet(split.folder / ASSIGNMENT, columns=["id", "label", "label_used"])
    return pl.read_parquet(calibrated.folder / PREDICTIONS).join(labels, on="id").sort("id")


def _untouched(predictions: pl.DataFrame, part: str) -> pl.DataFrame:
    """The rows of the judging part; refuses any whose label training could see."""
    judged = predictions.filter(pl.col("part") == part)
    if judged["label_used"].any():
        raise AssertionError(f"part {part} holds rows whose labels were used to fit or to choose: not a test")
    return judged.drop("part", "label_used")


def _write_raw_rows(
    loaded: Loaded, ingested: Stage, fitted: Stage, champion: Champion | None, ids: pl.Series, folder: Path
) -> None:
    """Raw columns of the judged rows, as servers of challenger and champion would be fed, and the segments."""
    portfolio = loaded.portfolio
    wanted = [c.name for c in load_plan(fitted).rows.raw_columns] + list(portfolio.use.segments)
    rows = scan_ingested(loaded, ingested)
    if champion is not None:
        needed = [c.name for c in Portfolio.model_validate(champion.manifest["config"]).row_plan.raw_columns]
        gone = sorted(set(needed) - set(rows.collect_schema().names()))
        if gone:
            raise InputError(
                f"champion {champion.version} needs the raw column {gone[0]!r}, which the data no longer hold; deliver "
                "it until the champion is replaced, or start anew with another publish.registry"
            )
        wanted += needed
    kept = rows.filter(pl.col(portfolio.data.id).is_in(ids.implode()))
    kept.select(pl.col(portfolio.data.id).alias("id"), *dict.fromkeys(wanted)).sort("id").sink_parquet(
        folder / RAW_ROWS
    )


def _score_champion(
    loaded: Loaded, champion: Champion, judged: pl.DataFrame, folder: Path
) -> tuple[pl.DataFrame, list[str]]:
    """Add the champion's probabilities; rows whose labels it was fitted or chosen on are left out, and counted."""
    output = folder / "champion.parquet"
    run_worker(
        "models.export_worker",
        {
            "mode": "score",
            "directory": str(champion.folder),
            "input": str(folder / RAW_ROWS),
            "id_column": "id",
            "output": str(output),
            "batch_rows": 20_000,
        },
        workdir=folder,
    )
    scored = judged.join(pl.read_parquet(output).select("id", pl.col("probability").alias(CHAMPION)), on="id")
    output.unlink()
    seen = Registry(loaded.folders.registry).companion_path(champion.version, SEEN_ROWS)
    kept = scored.join(pl.read_parquet(seen), on="id", how="anti")
    lost = scored.height - kept.height
    notes = [f"{lost} rows left out of the comparison: the champion was fitted on their labels"] if lost else []
    return kept.sort("id"), notes


def _differences(evaluation: Evaluation, challenger: str, champion: Champion | None) -> dict[str, Any]:
    if champion is None:
        return {}
    return {key: evaluation.difference(challenger, CHAMPION, key).to_json() for key in evaluation.metrics[challenger]}


def _source_auc_fall(challenger: str, encoded: Stage, fitted: Stage, network: Stage | None) -> float | None:
    """AUC on source_stop of the network trained on the source alone minus that of the adapted one, seed for seed.

    None for other contenders, and where source_stop lacks a class.
    """
    if challenger != "dan" or network is None or not (network.folder / SOURCE_ONLY_NETWORK).exists():
        return None
    x, label = read_parts(encoded.folder / ENCODED, load_plan(fitted).outputs, [SOURCE_STOP]).labelled
    alone, chosen = (load_contender(network.folder / SOURCE_ONLY_NETWORK / name) for name in ("alone", "chosen"))
    return finite(auc_value(label, alone.raw_logit(x)) - auc_value(label, chosen.raw_logit(x)))


def _forest_spread(
    loaded: Loaded, encoded: Stage, fitted: Stage, calibrated: Stage, judged: pl.DataFrame
) -> list[dict[str, float | None]]:
    """AUC and KS of the forest of each seed alone, on the rows that judge."""
    if "source_forest" not in calibrated.facts["calibrations"]:
        return []
    contender = load_contender(calibrated.folder / "source_forest")
    assert isinstance(contender.form, Trees)
    rows = read_parts(encoded.folder / ENCODED, load_plan(fitted).outputs, [judging_part(loaded.portfolio)])
    keep = rows.ids.is_in(judged["id"].implode()).to_numpy()
    label = judged["label"].to_numpy()
    spread = []
    for forest in split_by_seed(contender.form, forest_settings(loaded)):
        raw = forest.raw_logit(rows.x[keep])
        spread.append({"auc": finite(auc_value(label, raw)), "ks": finite(ks_value(label, raw))})
    return spread

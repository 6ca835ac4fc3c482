"""Champion/challenger comparison: one challenger, chosen on target_select; one verdict, on rows nobody was fitted on.

The champion is scored again through its published SavedModel. A metric of the comparison on a row that was used to
fit or to choose is refused here, by code.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from prefect import task
from prefect.cache_policies import NO_CACHE

from crossrisk.config import Loaded, Portfolio
from crossrisk.contenders import NETWORKS, POOLED, SOURCE_ONLY, TAUGHT_BY_TARGET
from crossrisk.errors import InputError, TrainingError
from crossrisk.looks import count_look
from crossrisk.metrics import Evaluation, auc_value, evaluate, ks_value
from crossrisk.metrics.calibration import calibration_slope
from crossrisk.metrics.rows import scored
from crossrisk.periods import find_decision
from crossrisk.registry import Champion, Registry, read_manifest
from crossrisk.schema import tabled_columns
from crossrisk.store import Stage, digest_of, stage
from models.child import run_worker
from models.fitted import Trees, load_contender
from models.shallow.trees import split_by_seed
from tasks.breakdowns import CHAMPION, article_figures, cutoff_table, finite, group_table, swap_set
from tasks.calibrate import PREDICTIONS
from tasks.features import ENCODED, load_plan
from tasks.guardrails import (
    alternative_differences,
    population_psi,
    primary_differences,
    score_psi,
    segment_differences,
)
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


@task(name="compare champion and challenger", cache_policy=NO_CACHE)
def compare(
    loaded: Loaded,
    ingested: Stage,
    encoded: Stage,
    fitted: Stage,
    split: Stage,
    calibrated: Stage,
    diagnosed: Stage,
    trained: Mapping[str, Stage],
    question: str,
) -> Stage:
    """Judge all contenders, and the champion, on the same untouched target rows.

    The champion is the one of now; of a question that was decided before, the one that it was compared with then.

    Files: judged.parquet (id, label, month, one column of probabilities a contender, `champion` too), raw_rows.parquet
    (the raw columns of those rows: what a server would be fed; segments and protected columns). Facts: metrics with
    intervals, challenger, paired differences at the alpha of this look, what the guardrails need, AUC on target_select,
    seed spread of the forest, article figures, tables by segment, group and cut-off.
    """
    portfolio, registry = loaded.portfolio, Registry(loaded.folders.registry)
    records = registry.records()
    told = find_decision(records, question)
    champion = _compared_with(registry, told)
    # the lineup's order, which is that of preference; facts come back from JSON with their keys sorted
    names = [name for name in portfolio.contenders if name in calibrated.facts["calibrations"]]
    part = judging_part(portfolio)
    predictions = _with_labels(calibrated, split)
    untouched = _untouched(predictions.filter(pl.col("label").is_not_null()), part)
    version = champion.version if champion else None
    months = sorted(untouched["month"].drop_nulls().unique().to_list())
    comparison = digest_of({"calibrated": calibrated.digest, "champion": version})
    look = count_look(records, champion=version, months=months, comparison=comparison)
    if told is not None:
        look = told["judged"]["look"]  # what came after it is no reason to judge it otherwise

    drivers_differ = diagnosed.facts["blocks_transfer"]

    def build(folder: Path) -> dict[str, Any]:
        _write_raw_rows(loaded, ingested, fitted, champion, untouched["id"], folder)
        judged, notes = untouched, list[str]()
        if champion is not None:
            judged, notes = _score_champion(loaded, champion, judged, folder)
        judged.write_parquet(folder / JUDGED, compression="zstd")
        evaluation = _evaluate(judged, [*names, *([CHAMPION] if champion else [])], portfolio, portfolio.split.seed)
        select = predictions.filter(pl.col("part") == TARGET_SELECT, pl.col("label").is_not_null())
        chosen_on = _evaluate(select, names, portfolio, portfolio.split.seed + 1)
        bads = int(judged["label"].sum())
        if drivers_differ:
            notes = [
                *notes,
                "risk drivers differ: what target labels did not teach is chosen only where it leads beyond noise",
            ]
        challenger = choose_challenger(names, chosen_on, portfolio, test_bads=bads, drivers_differ=drivers_differ)
        raw = pl.read_parquet(folder / RAW_ROWS)
        return {
            "part": part,
            "rows": judged.height,
            "bads": bads,
            "months": months,
            "judged_ids": digest_of(judged["id"].to_list()),
            "comparison": comparison,
            "look": look,
            "metrics": {n: {k: m.to_json() for k, m in by.items()} for n, by in evaluation.metrics.items()},
            "select_auc": {name: chosen_on.metrics[name]["auc"].value for name in names},
            "challenger": challenger,
            "champion": version,
            "champion_contender": champion.manifest["contender"] if champion else None,
            "differences": primary_differences(evaluation, challenger, portfolio.gate, look=look),
            "alternatives": alternative_differences(evaluation, challenger, names, portfolio),
            "segment_differences": segment_differences(raw, judged, challenger, portfolio),
            "score_psi": score_psi(judged, challenger),
            "population_psi": population_psi(predictions, judged, challenger),
            "slope": _slope(judged, challenger, portfolio),
            "source_auc_fall": _source_auc_fall(challenger, encoded, fitted, trained),
            "forest_spread": _forest_spread(loaded, encoded, fitted, calibrated, judged),
            "article": article_figures(predictions) if portfolio.preset == "article" and "dan" in names else None,
            "segments": group_table(raw, judged, challenger, portfolio.use.segments, portfolio),
            "protected": group_table(raw, judged, challenger, portfolio.features.protected, portfolio),
            "cutoff": cutoff_table(judged, challenger, portfolio),
            "swap_set": swap_set(judged, challenger, portfolio),
            "notes": notes,
        }

    inputs = {
        "calibrated": calibrated.digest,
        "split": split.digest,
        "champion": champion.manifest["files"] if champion else None,
        "look": look,
        "drivers_differ": drivers_differ,
        "lineup": names,
        "gate": portfolio.gate.model_dump(mode="json"),
        "pooling": portfolio.lineup.pooling,
        "use": portfolio.use.model_dump(mode="json"),
        "protected": portfolio.features.protected,
    }
    made = stage(loaded.folders.stages, "compared", inputs, build)
    facts = made.facts
    logger.info("challenger %s, judged on %d rows with %d bads", facts["challenger"], facts["rows"], facts["bads"])
    return made


def _compared_with(registry: Registry, told: Mapping[str, Any] | None) -> Champion | None:
    if told is None:
        return registry.champion()
    before = told["compared_with"]
    if before is None:
        return None
    if before in registry.versions():
        return registry.version(before)
    # pruned since: its manifest stays, and where the comparison was kept nothing else is asked of it
    return Champion(before, registry.models / str(before), read_manifest(registry, before))


def _evaluate(rows: pl.DataFrame, names: Sequence[str], portfolio: Portfolio, seed: int) -> Evaluation:
    return evaluate(
        rows["label"].to_numpy(),
        {name: rows[name].to_numpy() for name in names},
        replicates=portfolio.gate.replicates,
        seed=seed,
        confidence=portfolio.gate.confidence,
        minimum=portfolio.gate.min_test_bads,
    )


def _slope(judged: pl.DataFrame, challenger: str, portfolio: Portfolio) -> dict[str, Any]:
    rows = scored(judged["label"].to_numpy(), judged[challenger].to_numpy())
    gate = portfolio.gate
    return calibration_slope(rows, confidence=gate.confidence, minimum=gate.min_test_bads).to_json()


def choose_challenger(
    names: Sequence[str], chosen_on: Evaluation, portfolio: Portfolio, *, test_bads: int, drivers_differ: bool = False
) -> str:
    """The first publishable contender of the lineup that target_select cannot tell from its best.

    The best has the highest AUC on target_select; a contender cannot be told from it where the interval of their paired
    difference, at the gate's confidence, reaches zero. With a few dozen bads the highest of nine AUCs is mostly luck;
    the lineup's order is what is known without it.

    Where the diagnosis says that risk drivers differ between the populations, what is known beforehand speaks against
    borrowing: contenders that do stand behind those that the target's labels taught, and are chosen where they lead
    these beyond noise.

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
    if drivers_differ:
        ranked.sort(key=lambda name: name not in TAUGHT_BY_TARGET)  # stable: else the lineup's order
    best = max(ranked, key=lambda name: auc[name] or 0.0)
    for name in ranked:
        lead = chosen_on.difference(best, name, "auc")
        if lead.low is None or lead.low <= 0.0:
            return name
    raise AssertionError("the best is no further from itself than zero")


def _with_labels(calibrated: Stage, split: Stage) -> pl.DataFrame:
    labels = pl.read_parquet(split.folder / ASSIGNMENT, columns=["id", "month", "label", "label_used"])
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
    """Raw columns of the judged rows, as servers of challenger and champion would be fed, and those of the tables."""
    portfolio = loaded.portfolio
    wanted = [c.name for c in load_plan(fitted).rows.raw_columns] + list(tabled_columns(portfolio))
    rows = scan_ingested(loaded, ingested)
    if champion is not None:
        needed = [column["name"] for column in champion.manifest["raw_columns"]]
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
    if not champion.folder.is_dir():
        raise InputError(
            f"version {champion.version}, with which this question was compared, was pruned, and the comparison is not "
            "kept: restore either from a backup, or ask another question (another as_of)"
        )
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


def _source_auc_fall(challenger: str, encoded: Stage, fitted: Stage, trained: Mapping[str, Stage]) -> float | None:
    """AUC on source_stop of the networks trained on the source alone minus that of the adapted ones of the same seeds.

    None for other contenders, and where source_stop lacks a class.
    """
    if challenger not in NETWORKS:
        return None
    folder = trained[challenger].folder / SOURCE_ONLY_NETWORK
    if not folder.exists():  # preset article
        return None
    x, label = read_parts(encoded.folder / ENCODED, load_plan(fitted).outputs, [SOURCE_STOP]).labelled
    alone, chosen = (load_contender(folder / name) for name in ("alone", "chosen"))
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

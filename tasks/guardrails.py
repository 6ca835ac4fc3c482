"""What the gate needs beside the table of contenders: paired differences, in segments too, and how the score moved.

Frames in, plain data out, in the form of `crossrisk.evidence`. Where several differences are looked at for one rule,
each has the interval at its share of alpha (Bonferroni), so that looking at many refuses no good challenger.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import polars as pl

from crossrisk.config import GateConfig, Portfolio
from crossrisk.contenders import POOLED, SOURCE_ONLY, TARGET_ONLY
from crossrisk.labels import SOURCE, TARGET
from crossrisk.metrics import Evaluation, evaluate
from crossrisk.rules import alpha_of_look
from crossrisk.stability import describe_numbers, psi
from tasks.breakdowns import CHAMPION

MISSING = "missing"
"""segment of the rows without a value"""


def primary_differences(evaluation: Evaluation, challenger: str, gate: GateConfig, *, look: int) -> dict[str, Any]:
    """metric -> challenger - champion, at the alpha that this look may spend; empty without a champion."""
    if CHAMPION not in evaluation.metrics:
        return {}
    at_look = replace(evaluation, confidence=1 - alpha_of_look(gate.alpha, look))
    return {key: at_look.difference(challenger, CHAMPION, key).to_json() for key in evaluation.metrics[challenger]}


def alternative_differences(
    evaluation: Evaluation, challenger: str, names: Sequence[str], portfolio: Portfolio
) -> dict[str, Any]:
    """Contender -> AUC of challenger - contender, for what could have been published instead without a network."""
    pooled = POOLED if portfolio.lineup.pooling == "allowed" else ()
    others = [name for name in names if name in {*SOURCE_ONLY, *TARGET_ONLY, *pooled} and name != challenger]
    shared = replace(evaluation, confidence=1 - portfolio.gate.alpha / max(len(others), 1))
    return {name: shared.difference(challenger, name, "auc").to_json() for name in others}


def segment_differences(
    raw: pl.DataFrame, judged: pl.DataFrame, challenger: str, portfolio: Portfolio
) -> list[dict[str, Any]]:
    """Every segment with its bads and goods and, where it is large enough and there is a champion, the difference."""
    found = list(_segments(raw, judged, portfolio.use.segments))
    enough = [rows for _, rows in found if _smaller_class(rows) >= portfolio.gate.min_segment_bads]
    confidence = 1 - portfolio.gate.alpha / max(len(enough), 1)
    return [
        {
            "name": name,
            "n_bad": int(rows["label"].sum()),
            "n_good": rows.height - int(rows["label"].sum()),
            "difference": _difference(rows, challenger, portfolio, confidence)
            if CHAMPION in rows.columns and _smaller_class(rows) >= portfolio.gate.min_segment_bads
            else None,
        }
        for name, rows in found
    ]


def _segments(raw: pl.DataFrame, judged: pl.DataFrame, columns: Sequence[str]) -> Iterator[tuple[str, pl.DataFrame]]:
    for column in columns:
        segment = pl.col(column).cast(pl.String).fill_null(MISSING).alias("segment")
        joined = judged.join(raw.select("id", segment), on="id").sort("segment", "id")
        for rows in joined.partition_by("segment", maintain_order=True):
            yield f"{column} = {rows['segment'][0]}", rows


def _smaller_class(rows: pl.DataFrame) -> int:
    bads = int(rows["label"].sum())
    return min(bads, rows.height - bads)


def _difference(rows: pl.DataFrame, challenger: str, portfolio: Portfolio, confidence: float) -> Mapping[str, Any]:
    evaluation = evaluate(
        rows["label"].to_numpy(),
        {name: rows[name].to_numpy() for name in (challenger, CHAMPION)},
        replicates=100,  # none of them is read: the AUCs have DeLong's intervals
        seed=portfolio.split.seed,
        confidence=confidence,
        minimum=portfolio.gate.min_segment_bads,
    )
    return evaluation.difference(challenger, CHAMPION, "auc").to_json()


def score_psi(judged: pl.DataFrame, challenger: str) -> float | None:
    """PSI of the challenger's probabilities against the champion's on the same rows, in tenths of the champion's."""
    if CHAMPION not in judged.columns:
        return None
    of_champion = describe_numbers(judged[CHAMPION])
    return psi(of_champion.counts, of_champion.bins.count(judged[challenger])).value


def population_psi(predictions: pl.DataFrame, judged: pl.DataFrame, challenger: str) -> dict[str, Any]:
    """PSI of the challenger's probabilities: target against source, and judged rows against the target's others.

    Args:
        predictions: part and the challenger's probabilities of every row of the run.
        judged: those of the rows that judge.
        challenger: column of both.
    """
    is_target = pl.col("part").str.starts_with(TARGET)
    samples = {
        SOURCE: predictions.filter(~is_target)[challenger],
        TARGET: predictions.filter(is_target)[challenger],
        "fitting": predictions.filter(is_target, ~pl.col("id").is_in(judged["id"].implode()))[challenger],
        "test": judged[challenger],
    }
    pairs = {"target against source": (SOURCE, TARGET), "test against fitting": ("fitting", "test")}
    found = {}
    for name, (reference, actual) in pairs.items():
        histogram = describe_numbers(samples[reference])
        found[name] = psi(histogram.counts, histogram.bins.count(samples[actual])).to_json()
    return found

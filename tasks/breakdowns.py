"""Breakdowns of a comparison for the report: by segment, at the cut-off, and the figures as the article reports them.

Frames in, plain tables out. None of them enters the decision.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from crossrisk.config import Portfolio
from crossrisk.metrics import auc_value, ks_value
from crossrisk.metrics.comparison import GroupEvaluation, evaluate_groups
from tasks.split import TARGET_SELECT

CHAMPION = "champion"
"""column of the champion's probabilities in judged.parquet"""


def article_figures(predictions: pl.DataFrame) -> dict[str, dict[str, float | int | None]]:
    """AUC and KS as the article reports them, and on the rows it does not report: its cleanest estimate."""
    target = predictions.filter(pl.col("part").str.starts_with("target_"), pl.col("label").is_not_null())
    samples = {
        "test (the 30% that chose the stop)": target.filter(pl.col("part") == TARGET_SELECT),
        "total target": target,
        "unlabelled 70%": target.filter(pl.col("part") != TARGET_SELECT),
    }
    return {
        name: {
            "auc": finite(auc_value(rows["label"].to_numpy(), rows["dan"].to_numpy())),
            "ks": finite(ks_value(rows["label"].to_numpy(), rows["dan"].to_numpy())),
            "rows": rows.height,
        }
        for name, rows in samples.items()
    }


def group_table(
    raw: pl.DataFrame, judged: pl.DataFrame, challenger: str, columns: Sequence[str], portfolio: Portfolio
) -> list[dict[str, Any]]:
    """Rows, bads, AUC, observed/expected and approval by the challenger in each group of each column.

    A group with fewer bads or goods than gate.min_segment_bads has the status `insufficient`. `approved_share` and the
    shares of goods and bads approved are there where the portfolio has a cut-off; `approval_ratio` is the group's
    approved share over that of the column's group with the most rows.

    Args:
        raw: of the judged rows, with the columns.
        judged: id, label and the challenger's probabilities.
        challenger: column of judged.
        columns: segments or protected attributes.
        portfolio: cut-off, minimum, seed.
    """
    table: list[dict[str, Any]] = []
    for column in columns:
        joined = judged.join(raw.select("id", pl.col(column).cast(pl.String).alias("group")), on="id")
        groups = evaluate_groups(
            joined["group"],
            joined["label"],
            joined[challenger],
            replicates=portfolio.gate.replicates,
            seed=portfolio.split.seed,
            confidence=portfolio.gate.confidence,
            minimum=portfolio.gate.min_segment_bads,
        )
        lines = [_group_line(column, one, joined, challenger, portfolio.use.cutoff_probability) for one in groups]
        largest = max(lines, key=lambda line: line["rows"], default=None)
        for line in lines:
            line["approval_ratio"] = _ratio(line["approved_share"], largest["approved_share"] if largest else None)
        table += lines
    return sorted(table, key=lambda row: (row["column"], -row["rows"], row["segment"]))


def _group_line(
    column: str, group: GroupEvaluation, joined: pl.DataFrame, challenger: str, cutoff: float | None
) -> dict[str, Any]:
    rows = joined.filter(pl.col("group").eq_missing(pl.lit(group.group)))
    auc = group.metrics["auc"]
    line = {
        "column": column,
        "segment": "missing" if group.group is None else group.group,
        "rows": group.rows,
        "bads": auc.n_bad,
        "bad_rate": auc.n_bad / group.rows,
        "mean_probability": rows[challenger].mean(),
        "status": auc.status,
        "auc": auc.to_json(),
        "observed_expected": group.metrics["observed_expected"].to_json(),
    }
    approved = None if cutoff is None else rows[challenger] <= cutoff
    return {
        **line,
        "approved_share": _share(approved),
        "goods_approved": _share(None if approved is None else approved.filter(rows["label"] == 0)),
        "bads_approved": _share(None if approved is None else approved.filter(rows["label"] == 1)),
    }


def _share(flags: pl.Series | None) -> float | None:
    return None if flags is None or flags.is_empty() else float(flags.sum()) / len(flags)


def _ratio(value: float | None, reference: float | None) -> float | None:
    return None if value is None or not reference else value / reference


def swap_set(judged: pl.DataFrame, challenger: str, portfolio: Portfolio) -> list[dict[str, Any]]:
    """Who changes sides at the portfolio's cut-off when the challenger replaces the champion, and how bad they were.

    Both models decline applicants above the cut-off. All rows here were approved when they came (nothing is known of
    those who were not), so `swapped in` are accounts that the champion would decline today.
    """
    cutoff = portfolio.use.cutoff_probability
    if cutoff is None or CHAMPION not in judged.columns:
        return []
    new, old = pl.col(challenger) <= cutoff, pl.col(CHAMPION) <= cutoff
    sets = {"approved by both": new & old, "swapped in": new & ~old, "swapped out": ~new & old, "declined": ~new & ~old}
    table = []
    for name, chosen in sets.items():
        rows = judged.filter(chosen)
        table.append(
            {
                "set": name,
                "rows": rows.height,
                "bads": int(rows["label"].sum()),
                "bad_rate": rows["label"].mean(),
                "mean_probability": rows[challenger].mean(),
            }
        )
    return table


def cutoff_table(judged: pl.DataFrame, challenger: str, portfolio: Portfolio) -> list[dict[str, Any]]:
    """Who would be approved at the portfolio's cut-off, by challenger and champion, and how bad they were."""
    cutoff = portfolio.use.cutoff_probability
    if cutoff is None:
        return []
    table = []
    for name in [challenger, *([CHAMPION] if CHAMPION in judged.columns else [])]:
        approved = judged.filter(pl.col(name) <= cutoff)
        table.append(
            {
                "model": name,
                "approved_share": approved.height / max(judged.height, 1),
                "approved_bad_rate": float(approved["label"].mean()) if approved.height else None,  # type: ignore[arg-type]
            }
        )
    return table


def finite(value: float) -> float | None:
    """The value, or None where it is undefined: JSON knows no NaN."""
    return value if np.isfinite(value) else None

"""Breakdowns of a comparison for the report: by segment, at the cut-off, and the figures as the article reports them.

Frames in, plain tables out. None of them enters the decision.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from crossrisk.config import Portfolio
from crossrisk.metrics import auc_value, ks_value
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


def segment_table(
    raw: pl.DataFrame, judged: pl.DataFrame, challenger: str, portfolio: Portfolio
) -> list[dict[str, Any]]:
    """Rows, bads, AUC and observed/expected of the challenger in each segment."""
    table: list[dict[str, Any]] = []
    for column in portfolio.use.segments:
        joined = judged.join(raw.select("id", pl.col(column).cast(pl.String).alias("segment")), on="id")
        for (segment,), rows in joined.group_by("segment", maintain_order=True):
            label, p = rows["label"].to_numpy(), rows[challenger].to_numpy()
            bads = int(label.sum())
            enough = min(bads, len(label) - bads) >= portfolio.gate.min_test_bads
            table.append(
                {
                    "column": column,
                    "segment": "missing" if segment is None else str(segment),
                    "rows": rows.height,
                    "bads": bads,
                    "bad_rate": bads / rows.height,
                    "mean_probability": float(p.mean()),
                    "auc": finite(auc_value(label, p)) if enough else None,
                    "observed_expected": bads / float(p.sum()),
                }
            )
    return sorted(table, key=lambda row: (row["column"], -row["rows"], row["segment"]))


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

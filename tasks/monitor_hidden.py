"""Whether the watched month lies where the champion's hidden features lay: for networks, by MMD and a permutation test.

A shift that no single feature shows (two that move together) shows here, and in the very space that the adaptation
aligned. It sets no light: which discrepancy matters for a probability is not known, only which one is noise.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import polars as pl
from prefect import task
from prefect.cache_policies import NO_CACHE

from crossrisk.config import Loaded
from crossrisk.registry import Registry
from crossrisk.store import Stage, stage
from models.child import run_worker
from tasks.monitor import MONTHS, Watched
from tasks.publish import GOLDEN

logger = logging.getLogger("crossrisk.monitor")

MOST_ROWS, PERMUTATIONS = 1_000, 499
"""The golden batch has 1,000 rows, and as many of the month see a shift of .15 standard deviations nearly always."""
NO_NETWORK, NO_REFERENCE = "no network", "no golden batch"


@task(name="compare hidden features", cache_policy=NO_CACHE)
def compare_hidden(loaded: Loaded, watched: Watched, collected: Stage, watched_month: str) -> Stage:
    """Compare the champion's golden batch with rows of the watched month in its last hidden layer.

    Facts: `status` ("ok", "small sample", "no network", "no golden batch") and, where ok, the fields of
    `models.two_sample.TwoSample`.
    """
    champion = watched.champion
    golden = Registry(loaded.folders.registry).companion_path(champion.version, GOLDEN)
    has_hidden = "embedding" in champion.manifest.get("signatures", ())

    def build(folder: Path) -> dict[str, Any]:
        if not has_hidden:
            return {"status": NO_NETWORK}
        if not golden.exists():
            return {"status": NO_REFERENCE}
        rows = folder / "rows.parquet"
        pl.scan_parquet(collected.folder / MONTHS).filter(pl.col("month") == watched_month).sink_parquet(rows)
        spec = {
            "directory": str(champion.folder),
            "reference": str(golden),
            "rows": str(rows),
            "most_rows": MOST_ROWS,
            "permutations": PERMUTATIONS,
            "seed": loaded.portfolio.split.seed,
        }
        found = run_worker("models.hidden_worker", spec, workdir=folder)
        rows.unlink()
        return found

    inputs = {
        "months": collected.digest,
        "month": watched_month,
        "champion": champion.manifest["files"],
        "has_golden": golden.exists(),
        "seed": loaded.portfolio.split.seed,
    }
    made = stage(loaded.folders.stages, "watched_hidden", inputs, build)
    logger.info("hidden features: %s", made.facts)
    return made

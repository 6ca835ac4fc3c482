"""The leak check of a run: features that alone rank the bads too well to have been known at the decision.

Each population is read by itself, on the rows whose labels training sees: between populations a feature may rank by
where a row comes from. Measuring is `crossrisk.leaks`; a finding stops nothing, it asks for a person at the gate.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import polars as pl
from prefect import task
from prefect.cache_policies import NO_CACHE

from crossrisk.config import Loaded
from crossrisk.labels import SOURCE, TARGET
from crossrisk.leaks import read_columns
from crossrisk.store import Stage, stage
from tasks.features import ROWS
from tasks.split import ASSIGNMENT

logger = logging.getLogger("crossrisk.leaks")

SHOWN = 5
"""strongest readings of each population that are kept, leak or not: the check says how near the best came"""


@task(name="check leaks", cache_policy=NO_CACHE)
def check_leaks(loaded: Loaded, rows: Stage, split: Stage) -> Stage:
    """Read every row-wise feature alone. Facts: `leaks` (a sentence each), `strongest` (readings by population)."""

    def build(folder: Path) -> dict[str, Any]:
        seen = pl.scan_parquet(split.folder / ASSIGNMENT).filter("label_used").select("id", "population", "label")
        joined = pl.scan_parquet(rows.folder / ROWS).join(seen, on="id", suffix="_assigned").collect()
        features = [*loaded.portfolio.row_plan.numeric_features, *loaded.portfolio.row_plan.categories]
        leaks: list[str] = []
        strongest: dict[str, Any] = {}
        for population in (SOURCE, TARGET):
            of_one = joined.filter(pl.col("population") == population)
            readings = read_columns(of_one, of_one["label"], features)
            leaks += [f"{population}: {one.sentence}" for one in readings if one.is_leak and one.status == "ok"]
            strongest[population] = [one.to_json() for one in readings[:SHOWN]]
        return {"leaks": leaks, "strongest": strongest}

    made = stage(loaded.folders.stages, "leaks", {"rows": rows.digest, "split": split.digest}, build)
    for leak in made.facts["leaks"]:
        logger.warning(leak)
    return made

"""Baselines: trees, logistic regressions and stacking, one task run a contender."""

from __future__ import annotations

import logging
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from crossrisk.config import Loaded
from crossrisk.store import Stage, stage
from models.fitted import save_contender
from models.lineup import TrainingRows, fit_baseline, needs_target_labels
from models.shallow.trees import ForestSettings
from tasks.features import ENCODED, load_plan
from tasks.matrix import read_parts
from tasks.split import SOURCE_FIT, TARGET_FIT

logger = logging.getLogger("crossrisk.baselines")


def forest_settings(loaded: Loaded) -> ForestSettings:
    """The forests of this portfolio's lineup."""
    lineup = loaded.portfolio.lineup
    return ForestSettings(seeds=tuple(range(lineup.seed, lineup.seed + lineup.forest_seeds)), depth=lineup.forest_depth)


@task(name="train baseline", task_run_name="train {name}", cache_policy=NO_CACHE)
def train_baseline(loaded: Loaded, name: str, encoded: Stage, fitted: Stage) -> Stage:
    """Fit one shallow contender on the labelled rows of source_fit and target_fit.

    Facts: `fitted`, and `reason` where it is False because too few target bads have matured.
    """
    lineup = loaded.portfolio.lineup
    forest, view = forest_settings(loaded), loaded.portfolio.view_of(name)

    def build(folder: Path) -> dict[str, Any]:
        plan = load_plan(fitted)
        columns = plan.columns_of(view)
        x_source, y_source = read_parts(encoded.folder / ENCODED, columns, [SOURCE_FIT]).labelled
        x_target, y_target = read_parts(encoded.folder / ENCODED, columns, [TARGET_FIT]).labelled
        categorical = plan.native.categorical if plan.native and view == "native" else ()
        rows = TrainingRows(x_source, y_source, x_target, y_target, view, categorical)
        if needs_target_labels(name) and rows.target_bads < lineup.min_target_bads:
            reason = f"{rows.target_bads} matured target bads to fit on, at least {lineup.min_target_bads} needed"
            return {"fitted": False, "reason": reason}
        baseline = fit_baseline(name, rows, seed=lineup.seed, forest=forest, threads=os.cpu_count() or 1)
        save_contender(baseline.contender, folder)
        return {"fitted": True, **baseline.facts}

    inputs = {
        "name": name,
        "encoded": encoded.digest,
        "view": view,
        "seed": lineup.seed,
        "min_target_bads": lineup.min_target_bads,
        "forest": asdict(forest) if name == "source_forest" else None,
    }
    made = stage(loaded.folders.stages, f"train-{name}", inputs, build)
    logger.info("%s %s", name, "fitted" if made.facts["fitted"] else f"not fitted: {made.facts['reason']}")
    return made

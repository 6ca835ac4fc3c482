"""The Deep Adaptation Network, trained in a child process: its memory ends with it, a crash there is a failed task."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
from prefect import task
from prefect.cache_policies import NO_CACHE

from crossrisk.config import Loaded
from crossrisk.store import Stage, stage
from models.child import run_worker
from tasks.features import ENCODED, load_plan
from tasks.matrix import Part, read_parts
from tasks.progress import progress
from tasks.split import SOURCE_FIT, SOURCE_STOP, TARGET_FIT, TARGET_SELECT, TARGET_UNLABELLED

logger = logging.getLogger("crossrisk.dan")

HISTORY = "history.json"
MIN_BADS_TO_STOP = 30
"""Fewer bads in target_select do not decide a stop: source_stop does."""


@task(name="train DAN", cache_policy=NO_CACHE)
def train_dan(loaded: Loaded, encoded: Stage, fitted: Stage) -> Stage:
    """Train the preset's network for every mmd_weight and seed; keep the weight that ranks target_select best.

    Files: the contender, history.json with every curve. Facts: chosen mmd_weight, its AUC on the stop rows, how many
    these are, and how many more had no known label and were left out.

    Raises:
        TrainingError: the loss diverged, or the child was killed.
    """
    matrix = encoded.folder / ENCODED
    columns = load_plan(fitted).outputs
    target = read_parts(matrix, columns, [TARGET_FIT, TARGET_SELECT])
    spec = _worker_spec(loaded, target)

    def build(folder: Path) -> dict[str, Any]:
        with progress("DAN") as report:
            facts = run_worker(
                "models.dan_worker",
                {**spec, "matrix": str(matrix), "columns": list(columns), "out": str(folder)},
                workdir=folder,
                on_event=lambda event: report(event["done"], event["total"], event["message"]),
            )
        used_target_labels = spec["overrides"].get("use_target_labels", False)
        return {"fitted": True, "used_target_labels": used_target_labels, **facts}

    made = stage(loaded.folders.stages, "train-dan", {"encoded": encoded.digest, "spec": spec}, build)
    logger.info("dan fitted: %s", {k: v for k, v in made.facts.items() if k != "fitted"})
    if made.facts["stop_rows_unknown"]:
        logger.info(
            "%d rows of %s have no known label and decided no stop; %d did",
            made.facts["stop_rows_unknown"],
            " and ".join(spec["parts"]["stop"]),
            made.facts["stop_rows"],
        )
    return made


def _worker_spec(loaded: Loaded, target: Part) -> dict[str, Any]:
    """All but the paths of what the child is told."""
    portfolio = loaded.portfolio
    dan, seed = portfolio.lineup.dan, portfolio.lineup.seed
    article = portfolio.preset == "article"
    overrides: dict[str, Any] = {} if dan.max_steps is None else {"max_steps": dan.max_steps}
    fit_labels = target.label[(target.parts == TARGET_FIT).to_numpy() & ~np.isnan(target.label)]
    enough = fit_labels.sum() >= portfolio.lineup.min_target_bads
    select_bads = np.nansum(target.label[(target.parts == TARGET_SELECT).to_numpy()])
    if not article:
        overrides["use_target_labels"] = bool(dan.use_target_labels and enough)
    return {
        "name": "dan",
        "preset": "article" if article else "dan",
        "overrides": overrides,
        "parts": {
            "source_fit": [SOURCE_FIT],
            "target_fit": [TARGET_UNLABELLED if article else TARGET_FIT],
            "stop": [TARGET_SELECT if article or select_bads >= MIN_BADS_TO_STOP else SOURCE_STOP],
        },
        "mmd_weights": [1.0] if article else list(dan.mmd_weights),
        "seeds": [seed] if article else list(range(seed, seed + dan.seeds)),
        "target_prior": float(fit_labels.mean()) if not article and enough else None,
    }

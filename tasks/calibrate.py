"""Calibrate every fitted contender on target_select, and score all rows with it.

Files: one folder a contender (what is published comes from there) and predictions.parquet: id, part, and a column of
calibrated probabilities a contender.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from prefect import task
from prefect.cache_policies import NO_CACHE

from crossrisk.config import Loaded
from crossrisk.features import View
from crossrisk.store import Stage, stage
from models.calibration import fit_calibration, prior_shift_of
from models.fitted import Matrix, load_contender, save_contender, sigmoid
from tasks.features import ENCODED, load_plan
from tasks.matrix import Part, read_parts
from tasks.split import SOURCE_FIT, TARGET_FIT, TARGET_SELECT

logger = logging.getLogger("crossrisk.calibrate")

PREDICTIONS = "predictions.parquet"


@task(name="calibrate", cache_policy=NO_CACHE)
def calibrate(loaded: Loaded, encoded: Stage, fitted: Stage, trained: Mapping[str, Stage]) -> Stage:
    """Prior correction, then slope and intercept on the labelled rows of target_select.

    Facts: for each contender the calibration; contenders that were not fitted are left out.
    """
    present = {name: made for name, made in trained.items() if made.facts["fitted"]}

    def build(folder: Path) -> dict[str, Any]:
        plan = load_plan(fitted)
        rows = read_parts(encoded.folder / ENCODED, plan.outputs)
        native = read_parts(encoded.folder / ENCODED, plan.columns_of("native")).x if plan.native else rows.x[:, :0]
        matrices: dict[View, Matrix] = {"encoded": rows.x, "native": native}
        columns: dict[str, Any] = {"id": rows.ids, "part": rows.parts}
        facts: dict[str, Any] = {}
        chooses = (rows.parts == TARGET_SELECT).to_numpy() & ~np.isnan(rows.label)
        for name, made in present.items():
            contender = load_contender(made.folder)
            raw = contender.raw_logit(matrices[contender.view])
            shift = _prior_shift(name, rows, made)
            calibration = fit_calibration(raw[chooses], rows.label[chooses].astype(np.int8), shift=shift)
            (folder / name).mkdir()
            save_contender(dataclasses.replace(contender, calibration=calibration), folder / name)
            columns[name] = sigmoid(calibration.intercept + calibration.slope * raw)
            facts[name] = {**dataclasses.asdict(calibration), "prior_shift": shift}
        pl.DataFrame(columns).write_parquet(folder / PREDICTIONS, compression="zstd")
        return {"calibrations": facts, "select_bads": int(rows.label[chooses].sum())}

    inputs = {
        "encoded": encoded.digest,
        "contenders": {name: made.digest for name, made in present.items()},
    }
    made = stage(loaded.folders.stages, "calibrated", inputs, build)
    logger.info("%d contenders calibrated on %d bads", len(present), made.facts["select_bads"])
    return made


def _prior_shift(name: str, rows: Part, made: Stage) -> float:
    """Logit of the target's bad rate minus that of the rows the contender's loss saw; 0 where it saw the target's."""
    bad_rates = {}
    for part in (SOURCE_FIT, TARGET_FIT):
        labels = rows.label[(rows.parts == part).to_numpy()]
        known = labels[~np.isnan(labels)]
        if not 0 < known.sum() < len(known):
            return 0.0  # without labels of both classes there is no prior to correct by
        bad_rates[part] = float(known.mean())
    return prior_shift_of(
        name,
        source_rate=bad_rates[SOURCE_FIT],
        target_rate=bad_rates[TARGET_FIT],
        target_weight=made.facts.get("target_loss_weight", 0.0),
    )

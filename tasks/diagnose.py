"""Shift diagnosis: how source and target differ, before any transfer between them is trusted.

Labels of the rows that judge are never read. What the findings mean is decided in `crossrisk.shift`; what the gate
makes of them stays in `crossrisk.policy`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from prefect import task
from prefect.cache_policies import NO_CACHE

from crossrisk.config import Loaded
from crossrisk.contenders import SOURCE_ONLY
from crossrisk.features import FeaturePlan, encoding_expressions
from crossrisk.shift import (
    Diagnosis,
    Support,
    concept_shift,
    estimate_label_shift,
    level_shift,
    measure_home_error,
    support_of,
)
from crossrisk.store import Stage, stage
from models.fitted import Floats, Matrix, load_contender
from models.shallow.domain import tell_apart
from tasks.features import ENCODED, ROWS, load_plan
from tasks.matrix import Part, read_parts
from tasks.split import SOURCE_FIT, SOURCE_STOP, TARGET_FIT, TARGET_SELECT, TARGET_UNLABELLED

logger = logging.getLogger("crossrisk.diagnose")

FITTING = (TARGET_FIT, TARGET_UNLABELLED)
"""the target's part whose features training sees, under either preset"""


@task(name="diagnose shift", cache_policy=NO_CACHE)
def diagnose(loaded: Loaded, rows: Stage, encoded: Stage, fitted: Stage, calibrated: Stage) -> Stage:
    """Compare source_fit with target_fit by their features, and hold a source-only contender against target_select.

    source_stop, held out from that contender, is its home. Facts: `crossrisk.shift.Diagnosis` as plain data; findings
    without the rows or the contender they need have a status that says so.
    """
    seed = loaded.portfolio.split.seed
    name = next((name for name in SOURCE_ONLY if name in calibrated.facts["calibrations"]), None)

    def build(folder: Path) -> dict[str, Any]:
        plan = load_plan(fitted)
        matrix, read = encoded.folder / ENCODED, [SOURCE_FIT, SOURCE_STOP, TARGET_SELECT, *FITTING]
        parts = read_parts(matrix, plan.outputs, read)
        raw = None
        if name is not None:
            contender = load_contender(calibrated.folder / name)
            of_its_view = read_parts(matrix, plan.columns_of(contender.view), read)
            raw = contender.raw_logit(of_its_view.x)
        home, target = (_score(parts, part, raw) for part in (SOURCE_STOP, TARGET_SELECT))
        x_source = _as_served(rows, plan, parts, SOURCE_FIT)
        y_fit = parts.label[_of(parts, SOURCE_FIT)]
        home, known = home.labelled, target.labelled
        return Diagnosis(
            contender=name,
            domain=tell_apart(x_source, parts.x[_of(parts, *FITTING)], plan.outputs, seed=seed),
            support=_compare_support(rows, parts, plan),
            label=estimate_label_shift(home.raw, home.label, target.raw, target.label),
            level=level_shift(home.raw, home.label, known.raw, known.label),
            concept=concept_shift(
                known.x,
                known.raw,
                known.label,
                plan.outputs,
                seed=seed,
                home=measure_home_error(home.x, home.raw, home.label, y_fit[~np.isnan(y_fit)]),
            ),
        ).to_json()

    inputs = {"rows": rows.digest, "encoded": encoded.digest, "calibrated": calibrated.digest, "seed": seed}
    made = stage(loaded.folders.stages, "diagnosed", inputs, build)
    logger.info("%s %s", made.facts["meaning"], " ".join(made.facts["sentences"]))
    return made


@dataclass(frozen=True)
class _Scored:
    """Rows of a part with a contender's raw logits; no row where there is no contender."""

    x: Matrix
    """(n, d)"""
    raw: Floats
    """(n,)"""
    label: Floats
    """(n,) 0, 1, or NaN where training may not see it"""

    @property
    def labelled(self) -> _Scored:
        known = ~np.isnan(self.label)
        return _Scored(self.x[known], self.raw[known], self.label[known])


def _score(parts: Part, part: str, raw: Floats | None) -> _Scored:
    rows = _of(parts, part)
    if raw is None:
        return _Scored(parts.x[:0], np.empty(0), np.empty(0))
    return _Scored(parts.x[rows], raw[rows], parts.label[rows])


def _of(parts: Part, *names: str) -> NDArray[np.bool_]:
    """Which rows belong to one of the parts."""
    return parts.parts.is_in(names).to_numpy()


def _as_served(rows: Stage, plan: FeaturePlan, parts: Part, part: str) -> Matrix:
    """The rows (n, d) of a part as scoring would encode them.

    What labels went into is cross-fitted on the rows that are trained on: values that no other row has, by which a
    classifier would tell the populations apart wherever they lie.
    """
    mask = _of(parts, part)
    x = parts.x[mask]
    if not plan.label_outputs:
        return x
    place = pl.LazyFrame({"id": parts.ids.filter(pl.Series(mask)), "row": np.arange(len(x))})
    tables = plan.model_copy(update={"numerics": (), "categories": (), "bins": ()})
    kept = pl.scan_parquet(rows.folder / ROWS).join(place, on="id").sort("row")
    encoded = kept.select(encoding_expressions(tables)).select(plan.label_outputs).collect()
    x[:, [plan.outputs.index(name) for name in plan.label_outputs]] = encoded.to_numpy()
    return x


def _compare_support(rows: Stage, parts: Part, plan: FeaturePlan) -> Support:
    """Support in the row-wise features that enter: the encoding clips numbers and lets rare levels share a slot."""
    out = {one.feature for one in plan.dropped}
    names = [name for name in (*plan.rows.numeric_features, *plan.rows.categories) if name not in out]
    place = pl.LazyFrame({"id": parts.ids, "part": parts.parts})
    frame = pl.scan_parquet(rows.folder / ROWS).select("id", *names).join(place, on="id").collect()
    source, home, target = (
        _columns(frame.filter(pl.col("part").is_in(part)), names) for part in ([SOURCE_FIT], [SOURCE_STOP], FITTING)
    )
    return support_of(source, target, home=home)


def _columns(frame: pl.DataFrame, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Numbers with NaN for missing, categories as objects."""
    return {name: frame[name].to_numpy() for name in names}

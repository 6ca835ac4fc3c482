"""The challenger as it would be served: exported, verified by every reader in another process, timed, measured.

The gate reads size and latency from here, and publication only copies what lies here: nothing is exported after the
decision. A challenger that cannot be exported or verified ends the run; nothing numbered exists then.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from prefect import task
from prefect.cache_policies import NO_CACHE

from crossrisk.config import Loaded
from crossrisk.errors import PublishError
from crossrisk.features import FeaturePlan
from crossrisk.registry import digest_tree
from crossrisk.registry.asking import PLAN
from crossrisk.scoring import Scaling
from crossrisk.store import Stage, stage, write_text
from models.child import run_worker
from models.fitted import Matrix, Network, load_contender
from tasks.compare import JUDGED, RAW_ROWS
from tasks.features import ENCODED, load_plan
from tasks.matrix import read_parts
from tasks.split import TARGET_FIT, TARGET_UNLABELLED

logger = logging.getLogger("crossrisk.candidate")

MODEL, GOLDEN, REFERENCE_ROW = "model", "golden.parquet", "reference_row.npy"
TOLERANCE = 1e-6
"""Largest difference in probability between what was judged and what the SavedModel says; networks leave some 1e-7."""
MAX_GOLDEN_ROWS = 20_000
READERS = ("graph_reader", "object_reader", "article_reader")
"""Keys of a verification: the last is there where the export carries the article's tensor names."""


@task(name="stage the candidate", cache_policy=NO_CACHE)
def stage_candidate(loaded: Loaded, fitted: Stage, encoded: Stage, calibrated: Stage, compared: Stage) -> Stage:
    """Export the challenger and verify it.

    Files: model/ (the SavedModel), plan.json (the feature plan as it is served), golden.parquet (raw columns of judged
    rows beside the probability that was judged), reference_row.npy (the mean encoded row of the target rows that the
    run fitted on: what reasons compare with).
    Facts: digests of the model's files, size_mb, latency of one row, largest difference to what was judged, golden
    rows on which the SavedModel's features are not those of Polars (0), number of warm-up requests.

    Raises:
        PublishError: the export fails, a reader says something else than what was judged, or a golden row has other
            features in the SavedModel than in Polars.
    """
    challenger = compared.facts["challenger"]
    folder_of_contender = calibrated.folder / challenger
    plan = load_plan(fitted).served_as(load_contender(folder_of_contender).view)
    article_names = _takes_article_names(loaded, folder_of_contender)
    use = loaded.portfolio.use
    scaling = Scaling(score_at_odds=use.score_at_odds, odds=use.odds, points_to_double=use.points_to_double).to_json()

    def build(folder: Path) -> dict[str, Any]:
        _write_golden(compared, challenger, folder / GOLDEN)
        write_text(folder / PLAN, plan.model_dump_json(indent=1))
        np.save(folder / REFERENCE_ROW, _mean_target_row(encoded, plan), allow_pickle=False)
        both = {
            "directory": str(folder / MODEL),
            "plan": str(folder / PLAN),
            "article_names": article_names,
        }
        of_export = {
            "contender": str(folder_of_contender),
            "reference": str(folder / REFERENCE_ROW),
            "scaling": scaling,
        }
        export = {**both, **of_export, "mode": "export"}
        run_worker("models.export_worker", export, workdir=folder, failure=PublishError)
        verify = {**both, "mode": "verify", "golden": str(folder / GOLDEN), "tolerance": TOLERANCE}
        verified = run_worker("models.export_worker", verify, workdir=folder, failure=PublishError)
        model = folder / MODEL
        return {
            "challenger": challenger,
            "files": digest_tree(model),
            "size_mb": sum(file.stat().st_size for file in model.rglob("*") if file.is_file()) / 1e6,
            "signatures": verified["signatures"],
            "latency": verified["latency"],
            "rows_with_other_features": verified["differing_rows"],
            "warm_up_requests": verified["warm_up_requests"],
            "largest_difference": max(float(verified[reader]) for reader in READERS if reader in verified),
        }

    inputs = {
        "judged": compared.facts["judged_ids"],  # and not the comparison's digest: another gate exports nothing else
        "challenger": challenger,
        "calibrated": calibrated.digest,
        "plan": fitted.digest,
        "encoded": encoded.digest,
        "scaling": scaling,
        "article_names": article_names,
    }
    made = stage(loaded.folders.stages, "candidate", inputs, build)
    facts = made.facts
    logger.info(
        "%s: %.1f MB, one row in %.1f ms (95%%), %.1e off what was judged",
        challenger,
        facts["size_mb"],
        facts["latency"]["p95_ms"],
        facts["largest_difference"],
    )
    return made


def _takes_article_names(loaded: Loaded, contender: Path) -> bool:
    """Whether the version can also be read the article's way: under preset `article`, where a network is published."""
    return loaded.portfolio.preset == "article" and isinstance(load_contender(contender).form, Network)


def _mean_target_row(encoded: Stage, plan: FeaturePlan) -> Matrix:
    """The mean (d,) float32 of the target rows that anything was fitted on, their labels never looked at.

    Missing values of the native view are left out; a column of nothing else has 0.
    """
    parts = [TARGET_FIT, TARGET_UNLABELLED]
    x = read_parts(encoded.folder / ENCODED, plan.columns, parts).x
    if len(x) == 0:
        raise PublishError(
            f"no row of {' or '.join(parts)} in {encoded.folder / ENCODED}: reasons have nobody to compare a customer "
            "with; widen the target population or split"
        )
    known = np.count_nonzero(~np.isnan(x), axis=0)
    return np.asarray(np.nansum(x, axis=0, dtype=np.float64) / np.maximum(known, 1), np.float32)


def _write_golden(compared: Stage, challenger: str, golden: Path) -> None:
    judged = pl.scan_parquet(compared.folder / JUDGED).select("id", pl.col(challenger).alias("probability"))
    raw = pl.scan_parquet(compared.folder / RAW_ROWS)
    raw.join(judged, on="id").sort("id").head(MAX_GOLDEN_ROWS).collect().write_parquet(golden)

"""Publication: export, verify in a fresh process with two readers, one rename. Nothing numbered exists before that.

Every decision, also one that publishes nothing, is a line of the ledger.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from prefect import task
from prefect.cache_policies import NO_CACHE

from crossrisk.config import Loaded
from crossrisk.errors import PublishError
from crossrisk.policy import Decision
from crossrisk.registry import Registry, append_ledger, locked, place_version, staging_folder
from crossrisk.store import Stage, code_digest, whole_file
from models.child import run_worker
from tasks.compare import JUDGED, RAW_ROWS
from tasks.features import PLAN
from tasks.split import ASSIGNMENT

logger = logging.getLogger("crossrisk.publish")

TOLERANCE = 1e-5
"""Largest difference in probability between what was judged and what the SavedModel says."""
MAX_GOLDEN_ROWS = 20_000


@dataclass(frozen=True)
class Publication:
    """What became of a decision."""

    version: int | None
    """the new version; None where nothing was published"""
    champion: int | None
    """the version in production afterwards"""
    path: Path | None
    """folder of the version in production"""
    largest_difference: float | None
    """in probability between judged and served, over both readers"""


@task(name="publish", cache_policy=NO_CACHE)
def publish(
    loaded: Loaded,
    decision: Decision,
    stages: Mapping[str, Stage],
    run_id: str,
) -> Publication:
    """Publish the challenger if the decision says so, and write the decision into the ledger.

    Args:
        loaded: the portfolio and its folders.
        decision: made before; publishing only obeys.
        stages: `ingest`, `plan`, `split`, `calibrated` and `compared` of this run.
        run_id: for the ledger.

    Raises:
        PublishError: the champion has changed since the comparison, or the staged model does not say what was judged.
    """
    registry = Registry(loaded.folders.registry)
    with locked(registry):
        champion = registry.champion()
        judged_against = stages["compared"].facts["champion"]
        if (champion.version if champion else None) != judged_against:
            raise PublishError(
                f"compared with champion {judged_against}, but the champion is now {champion and champion.version}: "
                "another run has published meanwhile; run again"
            )
        difference: float | None = None
        placed = None
        if decision.publishes:
            with staging_folder(registry) as folder:
                difference = _stage_model(loaded, decision.challenger, stages, folder)
                manifest = _manifest(loaded, decision, stages, run_id, difference)
                placed = place_version(registry, folder / "model", manifest, now=time.time())
            _keep_training_ids(registry, placed.version, stages["split"])
        in_place = placed or champion
        append_ledger(
            registry,
            {
                "run_id": run_id,
                "as_of": loaded.portfolio.as_of.isoformat(),
                "preset": loaded.portfolio.preset,
                "decision": decision.to_json(),
                "compared_with": judged_against,
                "version": placed.version if placed else None,
                "at_unix_s": int(time.time()),
                "digests": {name: made.digest for name, made in stages.items()},
            },
        )
    if placed:
        logger.info("version %d published; largest difference to what was judged %.1e", placed.version, difference)
    return Publication(
        version=placed.version if placed else None,
        champion=in_place.version if in_place else None,
        path=in_place.folder if in_place else None,
        largest_difference=difference,
    )


def _stage_model(loaded: Loaded, challenger: str, stages: Mapping[str, Stage], folder: Path) -> float:
    """Export into folder/model and verify it in another process; the largest difference found."""
    use = loaded.portfolio.use
    exported = folder / "model"
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        golden = Path(scratch) / "golden.parquet"
        _write_golden(stages["compared"], challenger, golden)
        run_worker(
            "models.export_worker",
            {
                "mode": "export",
                "plan": str(stages["plan"].folder / PLAN),
                "contender": str(stages["calibrated"].folder / challenger),
                "scaling": {
                    "score_at_odds": use.score_at_odds,
                    "odds": use.odds,
                    "points_to_double": use.points_to_double,
                },
                "directory": str(exported),
            },
            workdir=Path(scratch),
            failure=PublishError,
        )
        verified = run_worker(
            "models.export_worker",
            {"mode": "verify", "directory": str(exported), "golden": str(golden), "tolerance": TOLERANCE},
            workdir=Path(scratch),
            failure=PublishError,
        )
    return max(float(verified["graph_reader"]), float(verified["object_reader"]))


def _write_golden(compared: Stage, challenger: str, golden: Path) -> None:
    """Raw columns of the judged rows beside the probability that was judged."""
    judged = pl.scan_parquet(compared.folder / JUDGED).select("id", pl.col(challenger).alias("probability"))
    raw = pl.scan_parquet(compared.folder / RAW_ROWS)
    raw.join(judged, on="id").sort("id").head(MAX_GOLDEN_ROWS).collect().write_parquet(golden)


def _manifest(
    loaded: Loaded, decision: Decision, stages: Mapping[str, Stage], run_id: str, difference: float
) -> dict[str, Any]:
    portfolio = loaded.portfolio
    return {
        "portfolio": portfolio.name,
        "as_of": portfolio.as_of.isoformat(),
        "run_id": run_id,
        "contender": decision.challenger,
        "decision": decision.to_json(),
        "metrics": stages["compared"].facts["metrics"][decision.challenger],
        "input": stages["ingest"].facts["files"],
        "digests": {name: made.digest for name, made in stages.items()},
        "code": code_digest(),
        "verified_difference": difference,
        "config": portfolio.model_dump(mode="json"),
    }


def _keep_training_ids(registry: Registry, version: int, split: Stage) -> None:
    """Ids whose labels the version has seen: a later comparison leaves them out."""
    seen = pl.scan_parquet(split.folder / ASSIGNMENT).filter("label_used").select("id")
    with whole_file(registry.manifest_path(version).with_suffix(".rows.parquet")) as temporary:
        seen.collect().write_parquet(temporary, compression="zstd")

"""Publication: export, verify in a fresh process with every reader, one rename. Nothing numbered exists before that.

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
from crossrisk.store import Stage, code_digest, write_json
from models.child import run_worker
from models.fitted import Network, load_contender
from tasks.compare import JUDGED, RAW_ROWS, SEEN_ROWS
from tasks.features import PLAN, load_plan
from tasks.reference import REFERENCE, describe_reference
from tasks.split import ASSIGNMENT

logger = logging.getLogger("crossrisk.publish")

TOLERANCE = 1e-5
"""Largest difference in probability between what was judged and what the SavedModel says."""
MAX_GOLDEN_ROWS = 20_000
READERS = ("graph_reader", "object_reader", "article_reader")
"""Keys of a verification: the last is there where the export carries the article's tensor names."""


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
    """in probability between judged and served, over all readers that were asked"""


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
        stages: `ingest`, `rows`, `plan`, `split`, `calibrated` and `compared` of this run.
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
            reference = describe_reference(loaded, stages, decision.challenger)
            with staging_folder(registry) as folder:
                difference = _stage_model(loaded, decision.challenger, stages, folder)
                manifest = _manifest(loaded, decision, stages, run_id, difference)
                companions = {SEEN_ROWS: folder / SEEN_ROWS, REFERENCE: write_json(folder / REFERENCE, reference)}
                _write_seen_rows(stages["split"], companions[SEEN_ROWS])
                placed = place_version(registry, folder / "model", manifest, now=time.time(), companions=companions)
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
    contender = stages["calibrated"].folder / challenger
    both = {
        "directory": str(folder / "model"),
        "plan": str(stages["plan"].folder / PLAN),
        "article_names": _takes_article_names(loaded, contender),
    }
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        golden = Path(scratch) / "golden.parquet"
        _write_golden(stages["compared"], challenger, golden)
        run_worker(
            "models.export_worker",
            {
                **both,
                "mode": "export",
                "contender": str(contender),
                "scaling": {
                    "score_at_odds": use.score_at_odds,
                    "odds": use.odds,
                    "points_to_double": use.points_to_double,
                },
            },
            workdir=Path(scratch),
            failure=PublishError,
        )
        verified = run_worker(
            "models.export_worker",
            {**both, "mode": "verify", "golden": str(golden), "tolerance": TOLERANCE},
            workdir=Path(scratch),
            failure=PublishError,
        )
    return max(float(verified[reader]) for reader in READERS if reader in verified)


def _takes_article_names(loaded: Loaded, contender: Path) -> bool:
    """Whether the version can also be read the article's way: under preset `article`, where a network is published."""
    return loaded.portfolio.preset == "article" and isinstance(load_contender(contender).form, Network)


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
        "raw_columns": [column.model_dump() for column in load_plan(stages["plan"]).rows.raw_columns],
        "decision": decision.to_json(),
        "metrics": stages["compared"].facts["metrics"][decision.challenger],
        "input": stages["ingest"].facts["files"],
        "digests": {name: made.digest for name, made in stages.items()},
        "code": code_digest(),
        "verified_difference": difference,
        "config": portfolio.model_dump(mode="json"),
    }


def _write_seen_rows(split: Stage, path: Path) -> None:
    """Ids whose labels the version has seen: a later comparison leaves them out."""
    seen = pl.scan_parquet(split.folder / ASSIGNMENT).filter("label_used").select("id")
    seen.collect().write_parquet(path, compression="zstd")

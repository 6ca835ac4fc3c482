"""The challenger as it would be served: exported, verified by every reader in another process, timed, measured.

The gate reads size and latency from here, and publication only copies what lies here: nothing is exported after the
decision. A challenger that cannot be exported or verified ends the run; nothing numbered exists then.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import polars as pl
from prefect import task
from prefect.cache_policies import NO_CACHE

from crossrisk.config import Loaded
from crossrisk.errors import PublishError
from crossrisk.registry import digest_tree
from crossrisk.scoring import Scaling
from crossrisk.store import Stage, stage
from models.child import run_worker
from models.fitted import Network, load_contender
from tasks.compare import JUDGED, RAW_ROWS
from tasks.features import PLAN

logger = logging.getLogger("crossrisk.candidate")

MODEL, GOLDEN = "model", "golden.parquet"
TOLERANCE = 1e-5
"""Largest difference in probability between what was judged and what the SavedModel says."""
MAX_GOLDEN_ROWS = 20_000
READERS = ("graph_reader", "object_reader", "article_reader")
"""Keys of a verification: the last is there where the export carries the article's tensor names."""


@task(name="stage the candidate", cache_policy=NO_CACHE)
def stage_candidate(loaded: Loaded, fitted: Stage, calibrated: Stage, compared: Stage) -> Stage:
    """Export the challenger and verify it.

    Files: model/ (the SavedModel), golden.parquet (raw columns of judged rows beside the probability that was judged).
    Facts: digests of the model's files, size_mb, latency of one row, largest difference to what was judged.

    Raises:
        PublishError: the export fails, or a reader says something else than what was judged.
    """
    challenger = compared.facts["challenger"]
    folder_of_contender = calibrated.folder / challenger
    article_names = _takes_article_names(loaded, folder_of_contender)
    use = loaded.portfolio.use
    scaling = Scaling(score_at_odds=use.score_at_odds, odds=use.odds, points_to_double=use.points_to_double).to_json()

    def build(folder: Path) -> dict[str, Any]:
        _write_golden(compared, challenger, folder / GOLDEN)
        both = {
            "directory": str(folder / MODEL),
            "plan": str(fitted.folder / PLAN),
            "article_names": article_names,
        }
        export = {**both, "mode": "export", "contender": str(folder_of_contender), "scaling": scaling}
        run_worker("models.export_worker", export, workdir=folder, failure=PublishError)
        verify = {**both, "mode": "verify", "golden": str(folder / GOLDEN), "tolerance": TOLERANCE}
        verified = run_worker("models.export_worker", verify, workdir=folder, failure=PublishError)
        model = folder / MODEL
        return {
            "challenger": challenger,
            "files": digest_tree(model),
            "size_mb": sum(file.stat().st_size for file in model.rglob("*") if file.is_file()) / 1e6,
            "latency": verified["latency"],
            "largest_difference": max(float(verified[reader]) for reader in READERS if reader in verified),
        }

    inputs = {
        "judged": compared.facts["judged_ids"],  # and not the comparison's digest: another gate exports nothing else
        "challenger": challenger,
        "calibrated": calibrated.digest,
        "plan": fitted.digest,
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


def _write_golden(compared: Stage, challenger: str, golden: Path) -> None:
    judged = pl.scan_parquet(compared.folder / JUDGED).select("id", pl.col(challenger).alias("probability"))
    raw = pl.scan_parquet(compared.folder / RAW_ROWS)
    raw.join(judged, on="id").sort("id").head(MAX_GOLDEN_ROWS).collect().write_parquet(golden)

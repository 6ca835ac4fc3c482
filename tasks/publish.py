"""Publication: the verified candidate becomes a version by one rename, or waits under `pending/`. Nothing is exported.

Every decision, also one that publishes nothing, is a line of the ledger; so is what a person makes of it later.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from prefect import task
from prefect.cache_policies import NO_CACHE

from crossrisk.config import Loaded, expiry
from crossrisk.errors import InputError, PublishError
from crossrisk.pending import (
    COMPANIONS,
    DECISION,
    GOLDEN,
    MANIFEST,
    MODEL,
    Bundle,
    drop_settled,
    find_pending,
    keep_pending,
    read_bundle,
)
from crossrisk.policy import Decision, Ruling, read_decision, settle
from crossrisk.registry import Champion, Registry, append_ledger, digest_tree, locked, place_version, staging_folder
from crossrisk.store import Stage, code_digest, write_json
from models.child import run_worker
from tasks import candidate
from tasks.compare import SEEN_ROWS
from tasks.decide import Decided
from tasks.features import load_plan
from tasks.reference import REFERENCE, describe_reference
from tasks.split import ASSIGNMENT

logger = logging.getLogger("crossrisk.publish")


@dataclass(frozen=True)
class Publication:
    """What became of a decision."""

    version: int | None
    """the new version; None where nothing was published"""
    champion: int | None
    """the version in production afterwards"""
    path: Path | None
    """folder of the version in production"""
    pending: Path | None = None
    """where the challenger waits, or is kept, where nothing was published"""


@task(name="publish", cache_policy=NO_CACHE)
def publish(
    loaded: Loaded,
    decided: Decided,
    stages: Mapping[str, Stage],
    run_id: str,
    requested_by: str,
) -> Publication:
    """Publish the challenger if the decision says so, and write the decision into the ledger.

    Args:
        loaded: the portfolio and its folders.
        decided: made before; publishing only obeys.
        stages: `ingest`, `rows`, `plan`, `split`, `calibrated`, `compared` and `candidate` of this run.
        run_id: for the ledger.
        requested_by: who asked for the run: not the one who may approve it.

    Raises:
        PublishError: the champion has changed since the comparison, or the staged copy is not what was verified.
    """
    registry, decision = Registry(loaded.folders.registry), decided.decision
    compared = stages["compared"].facts
    with locked(registry):
        champion = registry.champion()
        _refuse_if_changed(champion, compared["champion"])
        with staging_folder(registry) as folder:
            _write_bundle(folder, loaded, decided, stages, run_id, requested_by)
            if decision.publishes:
                drop_settled(registry)
                placed = _place(registry, read_bundle(folder))
            else:
                placed = None
                keep_pending(registry, run_id, folder)
        append_ledger(
            registry,
            {
                "run_id": run_id,
                "as_of": loaded.portfolio.as_of.isoformat(),
                "preset": loaded.portfolio.preset,
                "requested_by": requested_by,
                "decision": decision.to_json(),
                "compared_with": compared["champion"],
                "judged": {
                    "months": compared["months"],
                    "comparison": compared["comparison"],
                    "look": compared["look"],
                },
                "version": placed.version if placed else None,
                "at_unix_s": int(time.time()),
                "digests": {name: made.digest for name, made in stages.items()},
            },
        )
    if placed:
        logger.info("version %d published", placed.version)
    return _publication(placed, champion, pending=None if placed else registry.root / "pending" / run_id)


def settle_pending(loaded: Loaded, run_id: str, ruling: Ruling, *, by: str, reason: str) -> Publication:
    """Carry out what a named person makes of a decision that published nothing.

    The name is typed, not authenticated; it may not be that of the one who asked for the run. What is published is
    verified again, against the same golden rows, in a fresh process.

    Raises:
        InputError: nothing is pending under that run, or a ruling that the decision does not wait for.
        PublishError: the champion has changed since the comparison, or the model is not what was verified.
    """
    registry = Registry(loaded.folders.registry)
    with locked(registry):
        bundle = find_pending(registry, run_id)
        asked = bundle.decision["requested_by"]
        if by.strip().casefold() == asked.strip().casefold():
            raise InputError(f"{by!r} asked for run {run_id} and may not decide about it; somebody else must")
        compared_with = bundle.decision["compared_with"]
        try:
            decision = settle(
                read_decision(bundle.decision["decision"]),
                ruling,
                by=by,
                reason=reason,
                bootstraps=compared_with is None,
            )
        except ValueError as error:
            raise InputError(str(error)) from error
        champion = registry.champion()
        placed = None
        if decision.publishes:
            _refuse_if_changed(champion, compared_with)
            _verify_again(bundle)
            write_json(bundle.folder / MANIFEST, {**bundle.manifest, "decision": decision.to_json(), "approved_by": by})
            placed = _place(registry, read_bundle(bundle.folder))
        append_ledger(
            registry,
            {
                "run_id": run_id,
                "as_of": bundle.manifest["as_of"],
                "settles": bundle.decision["decision"]["verdict"],
                "ruling": {"ruling": ruling, "by": by.strip(), "reason": reason.strip(), "requested_by": asked},
                "decision": decision.to_json(),
                "compared_with": compared_with,
                "version": placed.version if placed else None,
                "at_unix_s": int(time.time()),
            },
        )
        shutil.rmtree(bundle.folder)
    return _publication(placed, champion)


def _publication(placed: Champion | None, champion: Champion | None, pending: Path | None = None) -> Publication:
    in_place = placed or champion
    return Publication(
        version=placed.version if placed else None,
        champion=in_place.version if in_place else None,
        path=in_place.folder if in_place else None,
        pending=pending,
    )


def _refuse_if_changed(champion: Champion | None, compared_with: int | None) -> None:
    version = champion.version if champion else None
    if version != compared_with:
        raise PublishError(
            f"compared with champion {compared_with}, but the champion is now {version}: another run has published "
            "meanwhile; run again"
        )


def _write_bundle(
    folder: Path,
    loaded: Loaded,
    decided: Decided,
    stages: Mapping[str, Stage],
    run_id: str,
    requested_by: str,
) -> None:
    """Everything that a version needs, in one folder on the registry's file system."""
    made, decision = stages["candidate"], decided.decision
    shutil.copytree(made.folder / candidate.MODEL, folder / MODEL)
    shutil.copyfile(made.folder / candidate.GOLDEN, folder / GOLDEN)
    companions = folder / COMPANIONS
    companions.mkdir()
    write_json(companions / REFERENCE, describe_reference(loaded, stages, decision.challenger))
    seen = pl.scan_parquet(stages["split"].folder / ASSIGNMENT).filter("label_used").select("id")
    seen.collect().write_parquet(companions / SEEN_ROWS, compression="zstd")  # a later comparison leaves them out
    write_json(folder / MANIFEST, _manifest(loaded, decision, stages, run_id))
    write_json(
        folder / DECISION,
        {
            "decision": decision.to_json(),
            "evidence": decided.evidence.to_json(),
            "compared_with": stages["compared"].facts["champion"],
            "requested_by": requested_by,
        },
    )


def _place(registry: Registry, bundle: Bundle) -> Champion:
    """Make the bundle's model a version, if it still is what was verified."""
    _refuse_if_touched(bundle)
    return place_version(
        registry, bundle.folder / MODEL, bundle.manifest, now=time.time(), companions=bundle.companions
    )


def _refuse_if_touched(bundle: Bundle) -> None:
    model = bundle.folder / MODEL
    if digest_tree(model) != bundle.manifest["verified_files"]:
        raise PublishError(f"{model} is not what was verified; nothing was published, run again")


def _verify_again(bundle: Bundle) -> None:
    _refuse_if_touched(bundle)
    spec = {
        "mode": "verify",
        "directory": str(bundle.folder / MODEL),
        "golden": str(bundle.folder / GOLDEN),
        "tolerance": candidate.TOLERANCE,
    }
    run_worker("models.export_worker", spec, workdir=bundle.folder, failure=PublishError)


def _manifest(loaded: Loaded, decision: Decision, stages: Mapping[str, Stage], run_id: str) -> dict[str, Any]:
    portfolio, verified = loaded.portfolio, stages["candidate"].facts
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
        "verified_difference": verified["largest_difference"],
        "verified_files": verified["files"],
        "latency": verified["latency"],
        "expires": expiry(portfolio).isoformat(),
        "config": portfolio.model_dump(mode="json"),
    }

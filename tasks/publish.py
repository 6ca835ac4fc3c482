"""Publication: the verified candidate becomes a version by one rename, or waits under `pending/`. Nothing is exported.

Every decision, also one that publishes nothing, is a line of the ledger; so is what a person makes of it later.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
from prefect import task
from prefect.cache_policies import NO_CACHE

from crossrisk.config import Loaded, expiry
from crossrisk.errors import InputError, PublishError
from crossrisk.features import RawColumn
from crossrisk.periods import find_decision, setting_of, version_made
from crossrisk.policy import Decision, Ruling, read_decision, settle
from crossrisk.provenance import code_version
from crossrisk.registry import Champion, Registry, digest_tree, locked, publish_version, staging_folder
from crossrisk.registry.asking import PLAN, REFERENCE
from crossrisk.registry.layout import COMPANIONS, MODEL
from crossrisk.registry.pending import DECISION, MANIFEST, drop_settled, drop_undecided, find_pending, keep_pending
from crossrisk.registry.protocol import enter_record
from crossrisk.store import Stage, digest_file, digest_of, write_json
from models.child import run_worker
from tasks import candidate
from tasks.compare import SEEN_ROWS
from tasks.decide import Decided
from tasks.features import load_plan
from tasks.reference import describe_reference
from tasks.serving import follow_publication
from tasks.split import ASSIGNMENT

logger = logging.getLogger("crossrisk.publish")

GOLDEN = "golden.parquet"
"""companion of a version: raw columns of judged rows beside what the model must say of them"""
GOLDEN_ROWS = 1_000
"""Rows of that batch: enough to find a model that answers otherwise, few enough to keep for every version."""


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
    decided_by: str | None = None
    """the earlier run whose decision this is, where the same question was decided before"""
    requested_by: str | None = None
    """who asked for that run, and so may not approve it"""
    serving: str | None = None
    """whether the portfolio's server serves the new version, in words; None where there is none of either"""


@task(name="publish", cache_policy=NO_CACHE)
def publish(
    loaded: Loaded,
    decided: Decided,
    stages: Mapping[str, Stage],
    run_id: str,
    requested_by: str,
    question: str,
) -> Publication:
    """Publish the challenger if the decision says so, and write the decision into the ledger.

    A question that was decided before is not decided again: what became of it is returned, and nothing is written.

    Args:
        loaded: the portfolio and its folders.
        decided: made before; publishing only obeys.
        stages: `ingest`, `rows`, `plan`, `split`, `calibrated`, `compared` and `candidate` of this run.
        run_id: for the ledger.
        requested_by: who asked for the run: not the one who may approve it.
        question: of `crossrisk.periods`.

    Raises:
        PublishError: the champion has changed since the comparison, or the staged copy is not what was verified.
    """
    registry, decision = Registry(loaded.folders.registry), decided.decision
    with locked(registry):
        told = find_decision(registry.records(), question)
        if told is not None:
            logger.info("decided before, by run %s; nothing is written", told["run_id"])
            published = _told(registry, told)
        else:
            champion, placed = registry.champion(), None
            _refuse_if_changed(champion, stages["compared"].facts["champion"])
            record = _record(loaded, decision, stages, run_id, requested_by, question)
            with staging_folder(registry) as folder:
                manifest = _write_bundle(folder, loaded, decided, stages, run_id, requested_by)
                if decision.publishes:
                    placed = _place(registry, folder, manifest, record, champion)
                else:
                    keep_pending(registry, run_id, folder)
                    enter_record(registry, {**record, "version": None})
            if placed:
                drop_settled(registry)
                logger.info("version %d published", placed.version)
            published = _publication(placed, champion, pending=None if placed else registry.pending / run_id)
    return replace(published, serving=follow_publication(loaded)) if published.version else published


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
        record = {
            "kind": "ruling",
            "run_id": run_id,
            "as_of": bundle.manifest["as_of"],
            "settles": bundle.decision["decision"]["verdict"],
            "ruling": {"ruling": ruling, "by": by.strip(), "reason": reason.strip(), "requested_by": asked},
            "decision": decision.to_json(),
            "compared_with": compared_with,
            "at_unix_s": int(time.time()),
        }
        placed = None
        if decision.publishes:
            _refuse_if_changed(champion, compared_with)
            manifest = {**bundle.manifest, "decision": decision.to_json(), "approved_by": by.strip()}
            with staging_folder(registry) as folder:
                shutil.copytree(bundle.folder, folder, dirs_exist_ok=True)  # it stays whole until the version stands
                placed = _place(registry, folder, manifest, record, champion)
        else:
            enter_record(registry, {**record, "version": None})
        drop_undecided(registry)
    published = _publication(placed, champion)
    return replace(published, serving=follow_publication(loaded)) if placed else published


def _publication(placed: Champion | None, champion: Champion | None, pending: Path | None = None) -> Publication:
    in_place = placed or champion
    return Publication(
        version=placed.version if placed else None,
        champion=in_place.version if in_place else None,
        path=in_place.folder if in_place else None,
        pending=pending,
    )


def _told(registry: Registry, told: Mapping[str, Any]) -> Publication:
    """What became of an earlier run's decision."""
    run_id = told["run_id"]
    champion, pending = registry.champion(), registry.pending / run_id
    return Publication(
        version=version_made(registry.records(), run_id),
        champion=champion.version if champion else None,
        path=champion.folder if champion else None,
        pending=pending if pending.exists() else None,
        decided_by=run_id,
        requested_by=told["requested_by"],
    )


def _refuse_if_changed(champion: Champion | None, compared_with: int | None) -> None:
    version = champion.version if champion else None
    if version != compared_with:
        raise PublishError(
            f"compared with champion {compared_with or 'none'}, but the champion is now {version}: it has changed "
            "meanwhile. Run the retrain again: it is compared with the champion of now"
        )


def _record(
    loaded: Loaded, decision: Decision, stages: Mapping[str, Stage], run_id: str, requested_by: str, question: str
) -> dict[str, Any]:
    """The decision's line of the ledger, without the version."""
    compared = stages["compared"].facts
    return {
        "kind": "decision",
        "run_id": run_id,
        "as_of": loaded.portfolio.as_of.isoformat(),
        "preset": loaded.portfolio.preset,
        "question": question,
        "setting": setting_of(loaded.portfolio),
        "requested_by": requested_by,
        "decision": decision.to_json(),
        "compared_with": compared["champion"],
        "judged": {key: compared[key] for key in ("months", "comparison", "look")},
        "at_unix_s": int(time.time()),
        "digests": {name: made.digest for name, made in stages.items()},
    }


def _write_bundle(
    folder: Path,
    loaded: Loaded,
    decided: Decided,
    stages: Mapping[str, Stage],
    run_id: str,
    requested_by: str,
) -> dict[str, Any]:
    """Everything that a version needs, in one folder on the registry's file system; returns the manifest."""
    made, decision = stages["candidate"], decided.decision
    shutil.copytree(made.folder / candidate.MODEL, folder / MODEL)
    companions = folder / COMPANIONS
    companions.mkdir()
    _write_golden(made.folder / candidate.GOLDEN, load_plan(stages["plan"]).rows.raw_columns, companions / GOLDEN)
    shutil.copyfile(made.folder / PLAN, companions / PLAN)
    write_json(companions / REFERENCE, describe_reference(loaded, stages, decision.challenger))
    seen = pl.scan_parquet(stages["split"].folder / ASSIGNMENT).filter("label_used").select("id")
    seen.collect().write_parquet(companions / SEEN_ROWS, compression="zstd")  # a later comparison leaves them out
    manifest = _manifest(loaded, decision, stages, run_id)
    write_json(folder / MANIFEST, manifest)
    write_json(
        folder / DECISION,
        {
            "decision": decision.to_json(),
            "evidence": decided.evidence.to_json(),
            "compared_with": stages["compared"].facts["champion"],
            "requested_by": requested_by,
        },
    )
    return manifest


def _write_golden(verified: Path, columns: Sequence[RawColumn], golden: Path) -> None:
    """The first rows of what was verified, without the ids of the customers."""
    kept = [*(column.name for column in columns), "probability"]
    pl.scan_parquet(verified).select(kept).head(GOLDEN_ROWS).collect().write_parquet(golden, compression="zstd")


def _place(
    registry: Registry,
    bundle: Path,
    manifest: Mapping[str, Any],
    record: Mapping[str, Any],
    live: Champion | None,
) -> Champion:
    """Make a bundle the champion, if it still is what was verified."""
    if digest_tree(bundle / MODEL) != manifest["verified_files"]:
        raise PublishError(f"{bundle / MODEL} is not what was verified; nothing was published, run again")
    return publish_version(registry, bundle, manifest, record, now=time.time(), verify=verify_bundle, live=live)


def verify_bundle(bundle: Path) -> None:
    """Load the model of a bundle with both readers in a fresh process and compare it with its golden batch.

    Raises:
        PublishError: it cannot be loaded, its signature is not ours, or it answers otherwise than it did.
    """
    companions = bundle / COMPANIONS
    verify_model(bundle / MODEL, companions / GOLDEN, companions / PLAN, workdir=bundle)


def verify_model(model: Path, golden: Path, plan: Path, *, workdir: Path) -> dict[str, Any]:
    """Likewise, of a model anywhere; `workdir` is a folder to write to. Returns the fields of the verification.

    Where the feature plan is there (an earlier release kept none), the features of the golden batch are computed with
    it anew, and must be those of the model, number for number.
    """
    spec: dict[str, Any] = {"directory": str(model), "golden": str(golden), "tolerance": candidate.TOLERANCE}
    spec |= {"mode": "verify", **({"plan": str(plan)} if plan.exists() else {})}
    return run_worker("models.export_worker", spec, workdir=workdir, failure=PublishError)


def identify(stages: Mapping[str, Stage], contender: str) -> dict[str, str]:
    """Digests of what a version is, its config apart: input, plan and weights."""
    return {
        "input": digest_of(stages["ingest"].facts["files"]),
        "plan": digest_file(stages["plan"].folder / PLAN),
        "weights": digest_of(digest_tree(stages["calibrated"].folder / contender)),
    }


def _manifest(loaded: Loaded, decision: Decision, stages: Mapping[str, Stage], run_id: str) -> dict[str, Any]:
    portfolio, verified = loaded.portfolio, stages["candidate"].facts
    config = portfolio.model_dump(mode="json")
    identity = {"config": digest_of(config), **identify(stages, decision.challenger)}
    return {
        "portfolio": portfolio.name,
        "as_of": portfolio.as_of.isoformat(),
        "run_id": run_id,
        "contender": decision.challenger,
        "identity": digest_of(identity),
        "identity_of": identity,
        "raw_columns": [column.model_dump() for column in load_plan(stages["plan"]).rows.raw_columns],
        "decision": decision.to_json(),
        "approved_by": None,
        "metrics": stages["compared"].facts["metrics"][decision.challenger],
        "compared_with": stages["compared"].facts["champion"],
        "input": stages["ingest"].facts["files"],
        "digests": {name: made.digest for name, made in stages.items()},
        "code": code_version(),
        "signatures": verified["signatures"],
        "verified_difference": verified["largest_difference"],
        "verified_files": verified["files"],
        "latency": verified["latency"],
        "expires": expiry(portfolio).isoformat(),
        "config": config,
    }

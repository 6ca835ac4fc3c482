"""Challengers that were not published, kept whole until a person or a later run decides: `pending/<run_id>/`.

    model/          the SavedModel, as it was verified
    companions/     files that go with a version made of it, the golden batch among them
    manifest.json   what a version made of it would be
    decision.json   what the gate said, on which evidence, and who asked

A bundle is written in staging and moved by one rename, before its decision is entered into the ledger: what a dead
process left without that line is dropped by the next holder of the lock, which everything here needs.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossrisk.artefacts import refuse_links
from crossrisk.errors import InputError
from crossrisk.registry.layout import Registry
from crossrisk.registry.ledger import kind_of
from crossrisk.store import make_private, read_json

logger = logging.getLogger("crossrisk.pending")

MANIFEST, DECISION = "manifest.json", "decision.json"
WAITS = "needs_approval"


@dataclass(frozen=True)
class Bundle:
    """A challenger ready to be published."""

    folder: Path
    manifest: Mapping[str, Any]
    decision: Mapping[str, Any]
    """decision, evidence, compared_with, requested_by"""


def read_bundle(folder: Path) -> Bundle:
    """A bundle as it was written."""
    return Bundle(folder, read_json(folder / MANIFEST), read_json(folder / DECISION))


def keep_pending(registry: Registry, run_id: str, folder: Path) -> None:
    """Move a bundle to `pending/<run_id>`; of earlier runs, only those that wait for a person stay."""
    drop_settled(registry)
    registry.pending.mkdir(parents=True, exist_ok=True)
    make_private(registry.pending)
    folder.rename(registry.pending / run_id)


def drop_settled(registry: Registry) -> None:
    """Remove bundles that wait for nobody: they were kept in case someone overrides the last decision."""
    for folder in _folders(registry):
        if read_bundle(folder).decision["decision"]["verdict"] != WAITS:
            _drop(folder)


def drop_undecided(registry: Registry) -> None:
    """Remove bundles whose decision never came into the ledger, and those that a person has ruled on since."""
    if not _folders(registry):
        return
    records = registry.records()
    decided = {record["run_id"] for record in records if kind_of(record) == "decision"}
    ruled = {record["run_id"] for record in records if kind_of(record) == "ruling"}
    for folder in _folders(registry):
        if folder.name not in decided - ruled:
            _drop(folder)


def _drop(folder: Path) -> None:
    """Remove a bundle that nobody can want; one that cannot be removed stands in nobody's way."""
    try:
        shutil.rmtree(folder)
        logger.info("%s dropped: it waits for nobody", folder)
    except OSError as error:
        logger.warning("%s waits for nobody and cannot be removed: %s", folder, error)


def find_pending(registry: Registry, run_id: str) -> Bundle:
    """The bundle of a run.

    Raises:
        InputError: there is none; names those that are there.
        PublishError: it holds a link.
    """
    there = [folder.name for folder in _folders(registry)]
    if run_id not in there:
        raise InputError(
            f"run {run_id!r} has nothing pending in {registry.pending}; pending: {', '.join(there) or 'none'}. What "
            "was published is the champion, and of decisions that wait for nobody only the last is kept"
        )
    refuse_links(registry.pending / run_id)
    return read_bundle(registry.pending / run_id)


def _folders(registry: Registry) -> list[Path]:
    """What has the form of a bundle; anything else that lies there is not ours to touch."""
    return sorted(path.parent for path in registry.pending.glob(f"*/{DECISION}"))

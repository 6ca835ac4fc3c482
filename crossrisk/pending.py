"""Challengers that were not published, kept whole until a person or a later run decides: `pending/<run_id>/`.

    model/          the SavedModel, as it was verified
    golden.parquet  what it must say
    manifest.json   what a version made of it would be
    companions/     files that go with such a version
    decision.json   what the gate said, on which evidence, and who asked

A bundle is written beside the registry's base path and moved by one rename; needs the registry's lock throughout.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossrisk.errors import InputError
from crossrisk.registry import Registry
from crossrisk.store import read_json

MODEL, GOLDEN, MANIFEST, COMPANIONS, DECISION = (
    "model",
    "golden.parquet",
    "manifest.json",
    "companions",
    "decision.json",
)
WAITS = "needs_approval"


@dataclass(frozen=True)
class Bundle:
    """A challenger ready to be published."""

    folder: Path
    manifest: Mapping[str, Any]
    decision: Mapping[str, Any]
    """decision, evidence, compared_with, requested_by"""

    @property
    def companions(self) -> dict[str, Path]:
        """Name -> file that goes with the version."""
        return {file.name: file for file in sorted((self.folder / COMPANIONS).iterdir())}


def read_bundle(folder: Path) -> Bundle:
    """A bundle as it was written."""
    return Bundle(folder, read_json(folder / MANIFEST), read_json(folder / DECISION))


def keep_pending(registry: Registry, run_id: str, folder: Path) -> None:
    """Move a bundle to `pending/<run_id>`; of earlier runs, only those that wait for a person stay."""
    pending = registry.root / "pending"
    pending.mkdir(parents=True, exist_ok=True)
    drop_settled(registry)
    shutil.rmtree(pending / run_id, ignore_errors=True)  # the same run, told again
    folder.rename(pending / run_id)


def drop_settled(registry: Registry) -> None:
    """Remove bundles that wait for nobody: they were kept in case someone overrides the last decision."""
    for folder in (registry.root / "pending").glob("*"):
        if read_bundle(folder).decision["decision"]["verdict"] != WAITS:
            shutil.rmtree(folder)


def find_pending(registry: Registry, run_id: str) -> Bundle:
    """The bundle of a run.

    Raises:
        InputError: there is none; names those that are there.
    """
    pending = registry.root / "pending"
    there = sorted(folder.name for folder in pending.glob("*")) if pending.is_dir() else []
    if run_id not in there:
        raise InputError(
            f"run {run_id!r} has nothing pending in {pending}; pending: {', '.join(there) or 'none'}. What was "
            "published is the champion, and of decisions that wait for nobody only the last is kept"
        )
    return read_bundle(pending / run_id)

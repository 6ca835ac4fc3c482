"""The way back: an earlier version answers again, under a new and higher number, after it was verified.

The old bytes reappear, so that every reader that takes the newest version follows; the version that is taken back
stays where it is. Clock and names arrive as arguments.
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

from crossrisk.errors import InputError, PublishError
from crossrisk.registry import Champion, Registry, locked, publish_version, staging_folder
from crossrisk.registry.layout import COMPANIONS, MODEL
from crossrisk.registry.ledger import versions_in
from crossrisk.registry.pruning import fallback_of
from crossrisk.store import digest_file
from tasks.publish import GOLDEN, verify_bundle

logger = logging.getLogger("crossrisk.rollback")


@dataclass(frozen=True)
class Rollback:
    """What a rollback did."""

    version: int
    """the champion afterwards"""
    restores: int
    """the version whose bytes it has"""
    taken_back: int | None
    """the version that answered before; None where nothing was done"""


def roll_back(registry: Registry, *, to: int | None, by: str, reason: str, now: float) -> Rollback:
    """Make an earlier version the champion again.

    Where the wanted version's content answers already, nothing is done: a rollback that is typed twice is one rollback.

    Args:
        registry: of the portfolio. Its champion may be damaged or gone: that is what one rolls back from.
        to: the version wanted; None for the champion before the last that a decision published.
        by: who wants it; typed, not authenticated.
        reason: kept in the ledger.
        now: Unix seconds.

    Raises:
        InputError: no name or reason, no such version, or none before the champion.
        PublishError: the wanted version is damaged, or does not answer as it did when it was published.
    """
    if not by.strip() or not reason.strip():
        raise InputError("a rollback needs a name (--by) and a reason (--reason): both are kept in the ledger")
    with locked(registry):
        wanted = registry.version(_target(registry, to))
        current = max(versions_in(registry.records()))
        restores = wanted.manifest.get("restores", wanted.version)
        if _answers_already(registry, wanted):
            logger.info("version %d answers already; nothing is done", current)
            return Rollback(current, restores, None)
        record = {
            "kind": "rollback",
            "run_id": wanted.manifest.get("run_id"),
            "as_of": wanted.manifest.get("as_of"),
            "from": current,
            "restores": restores,
            "by": by.strip(),
            "reason": reason.strip(),
            "at_unix_s": int(now),
        }
        with staging_folder(registry) as folder:
            _copy_version(registry, wanted, folder)
            manifest = {**wanted.manifest, "restores": restores, "rollback": record}
            placed = publish_version(registry, folder, manifest, record, now=now, verify=_verify_restored)
    logger.info("version %d published: version %d again", placed.version, restores)
    return Rollback(placed.version, restores, current)


def _target(registry: Registry, to: int | None) -> int:
    published = set(versions_in(registry.records()))
    present = [version for version in registry.versions() if version in published]  # what others laid there is not ours
    newest_first = ", ".join(str(version) for version in reversed(present)) or "none"
    if to is not None:
        if to not in present:
            raise InputError(
                f"expected --to to be a version that was published and is in {registry.models}: {newest_first}; "
                f"got {to}"
            )
        return to
    target = fallback_of(registry.records())
    if target is None:
        raise InputError(
            f"no decision of {registry.root} had a champion before it: there is nothing to go back to. Versions: "
            f"{newest_first}; name one with --to"
        )
    if target not in present:
        raise InputError(
            f"the version before, {target}, is no longer in {registry.models} (pruned, or removed by hand); present, "
            f"newest first: {newest_first}; name one with --to"
        )
    return target


def _answers_already(registry: Registry, wanted: Champion) -> bool:
    """Whether the champion is whole and has the wanted content."""
    try:
        champion = registry.champion()
    except PublishError:
        return False
    return champion is not None and champion.manifest["files"] == wanted.manifest["files"]


def _copy_version(registry: Registry, version: Champion, bundle: Path) -> None:
    shutil.copytree(version.folder, bundle / MODEL)
    (bundle / COMPANIONS).mkdir()
    expected = version.manifest.get("companions", {})
    there = registry.companions(version.version)
    if missing := sorted(set(expected) - set(there)):
        raise PublishError(f"version {version.version} has lost {', '.join(missing)} from manifests/; restore them")
    for name, digest in expected.items():
        if digest_file(there[name]) != digest:
            raise PublishError(f"{there[name]} is not what was published with version {version.version}; restore it")
        shutil.copyfile(there[name], bundle / COMPANIONS / name)


def _verify_restored(bundle: Path) -> None:
    if not (bundle / COMPANIONS / GOLDEN).exists():
        raise PublishError(
            "the version was published by an earlier release, without a golden batch: it cannot be shown to answer as "
            "it did; retrain, or name a later version with --to"
        )
    verify_bundle(bundle)

"""The one way out of a registry: old versions, never one that answers, may have to answer, or is being read.

A pruned version is moved to a name that is no number, entered into the ledger, and only then removed; its manifest
stays, so that what it was can still be read. Clock and names arrive as arguments.
"""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from crossrisk.failpoints import reach
from crossrisk.registry.layout import Registry
from crossrisk.registry.ledger import append_ledger
from crossrisk.store import locked_if_free


@dataclass(frozen=True)
class Pruning:
    """What to remove and what stays."""

    removed: tuple[int, ...]
    kept: Mapping[int, str]
    """version -> why it stays"""


def choose_versions(
    present: Sequence[int],
    records: Sequence[Mapping[str, Any]],
    *,
    keep: int,
    labelled: Collection[int] = (),
    is_read: Collection[int] = (),
) -> Pruning:
    """Which versions may go.

    Args:
        present: versions in the base path.
        records: of the ledger.
        keep: how many of the newest stay, at least the champion and the one before.
        labelled: versions that a server's configuration names.
        is_read: versions that somebody reads at this moment.

    Raises:
        ValueError: keep is below 2.
    """
    if keep < 2:
        raise ValueError(f"expected to keep at least 2 versions, the champion and the one before; got {keep}")
    newest = sorted(present, reverse=True)
    why = {version: f"one of the newest {keep}" for version in newest[:keep]}
    why |= {version: "a server's configuration names it" for version in labelled}
    why |= {version: "it is being read" for version in is_read}
    fallback = fallback_of(records)
    why |= {version: "a rollback goes there" for version in present if version == fallback}
    why |= {version: "the version before the champion" for version in newest[1:2]}
    why |= {version: "the champion" for version in newest[:1]}
    removed = tuple(version for version in sorted(present) if version not in why)
    return Pruning(removed, {version: why[version] for version in sorted(present) if version in why})


def fallback_of(records: Sequence[Mapping[str, Any]]) -> int | None:
    """The version to which a rollback goes by itself: the champion before the last that a decision published.

    So a second rollback goes to the same version, and not back to the one that was taken back. None where no decision
    had a champion before it.
    """
    published = [record for record in records if record.get("version") is not None]
    for place in range(len(published) - 1, 0, -1):
        if published[place].get("kind") != "rollback":
            return int(published[place - 1]["version"])
    return None


@contextmanager
def held(registry: Registry, versions: Sequence[int]) -> Iterator[set[int]]:
    """Keep readers away from versions within the block (flock, exclusive, on their manifests); those that nobody reads.

    A version that a process holds open with `Registry.reading` is not among them.
    """
    with ExitStack() as stack:
        free = {
            version
            for version in versions
            if stack.enter_context(locked_if_free(registry.manifest_path(version), fcntl.LOCK_EX))
        }
        yield free


def finish(registry: Registry, versions: Sequence[int], record: Mapping[str, Any]) -> None:
    """Move versions out of the base path, enter it into the ledger, remove them. Any part may have been done before."""
    registry.trash.mkdir(exist_ok=True)
    for version in versions:
        folder = registry.models / str(version)
        if folder.is_dir():
            folder.rename(registry.trash / f"pruned-{version}")
        reach("prune.moved")
    if not _is_entered(registry, versions):
        append_ledger(registry.ledger, record)
    reach("prune.committed")
    for version in versions:
        for path in registry.companions(version).values():
            path.unlink()
    shutil.rmtree(registry.trash)
    reach("prune.removed")


def _is_entered(registry: Registry, versions: Sequence[int]) -> bool:
    gone = {version for record in registry.records() for version in record.get("pruned", ())}
    return set(versions) <= gone

"""Where everything of a registry lies, its versions, and whether what lies there agrees. Nothing is written here.

What lies there is believed only where it agrees: an emptied folder or a lost ledger is refused, never read as a start.
Readers take no lock: they read in an order in which a publisher at work cannot contradict itself.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossrisk.artefacts import refuse_foreign_names, refuse_links
from crossrisk.errors import PublishError
from crossrisk.registry.ledger import Record, champion_in, read_ledger, refuse_newer, versions_in
from crossrisk.store import digest_file, read_json

FIRST_VERSION, LAST_VERSION = 1_000_000_000, 9_999_999_999
"""Ten digits: within them the order of names is the order of numbers. 2001 to 2286 as Unix seconds."""
MODEL, COMPANIONS = "model", "companions"
"""folders of a bundle: what becomes a version, and the files that go with it"""


@dataclass(frozen=True)
class Champion:
    """A version with its manifest; that in production, where nothing else is said."""

    version: int
    folder: Path
    manifest: Mapping[str, Any]


@dataclass(frozen=True)
class Registry:
    """The folders of one portfolio's registry."""

    root: Path

    @property
    def models(self) -> Path:
        """Base path for TF Serving: integer names only."""
        return self.root / "models"

    @property
    def ledger(self) -> Path:
        """Append-only record of decisions."""
        return self.root / "ledger.jsonl"

    @property
    def pointer(self) -> Path:
        """Champion and head of the ledger, for readers that do not list folders."""
        return self.root / "champion.json"

    @property
    def intent(self) -> Path:
        """What a publisher is about to do."""
        return self.root / "intent.json"

    @property
    def pending(self) -> Path:
        """Challengers that were not published."""
        return self.root / "pending"

    @property
    def canary(self) -> Path:
        """Base path for TF Serving of a challenger on trial: integer names only."""
        return self.root / "canary"

    @property
    def serving(self) -> Path:
        """What is generated for a server."""
        return self.root / "serving"

    @property
    def trash(self) -> Path:
        """Versions on their way out."""
        return self.root / "trash"

    def manifest_path(self, version: int) -> Path:
        """Where the manifest of a version lies."""
        return self.root / "manifests" / f"{version}.json"

    def companion_path(self, version: int, name: str) -> Path:
        """Where a file that goes with a version lies."""
        return self.root / "manifests" / f"{version}.{name}"

    def companions(self, version: int) -> dict[str, Path]:
        """Name -> file of all that goes with a version, its manifest apart."""
        found = sorted(self.manifest_path(version).parent.glob(f"{version}.*"))
        return {p.name.removeprefix(f"{version}."): p for p in found if p != self.manifest_path(version)}

    def records(self) -> list[Record]:
        """All lines of the ledger, oldest first.

        Raises:
            PublishError: the chain does not hold, or lines were taken away since the pointer was written.
        """
        pointer = _read_pointer(self)  # before the ledger, which may grow meanwhile
        records = read_ledger(self.ledger)
        _check_head(self, pointer, records)
        return records

    def versions(self) -> list[int]:
        """Versions present, ascending: folders that hold something, named by a plain number of at most ten digits."""
        found = (number for name, number in self.numbered().items() if name == str(number) and self._is_filled(name))
        return sorted(number for number in found if number <= LAST_VERSION)

    def _is_filled(self, name: str) -> bool:
        folder = self.models / name
        return folder.is_dir() and any(folder.iterdir())

    def numbered(self) -> dict[str, int]:
        """Every name in the base path that a server reads as a number (`7`, `0007`, `+7`, of folders and files)."""
        names = sorted(p.name for p in self.models.iterdir()) if self.models.is_dir() else []
        found = {name: as_server_reads(name) for name in names}
        return {name: number for name, number in found.items() if number is not None}

    def champion(self) -> Champion | None:
        """The largest version; None before the first.

        Raises:
            PublishError: its files are not those of its manifest, or the registry contradicts itself: a version that
                was published is gone, or lies there without a decision in the ledger.
        """
        _check_agreement(self)
        versions = self.versions()
        return self.version(versions[-1]) if versions else None

    def version(self, number: int) -> Champion:
        """One of `versions()`, its files checked against its manifest, and that against the ledger.

        Raises:
            PublishError: it has no manifest that can be read, its files are not those of its manifest, or the manifest
                is not the one that was published.
        """
        folder, manifest = self.models / str(number), read_manifest(self, number)
        check_manifest(self, number)
        if not folder.is_dir():
            raise PublishError(
                f"version {number} is not in {self.models}: it was pruned or removed; restore it from a backup"
            )
        refuse_links(folder)
        found = digest_tree(folder)
        if found != manifest["files"]:
            raise PublishError(
                f"version {number} differs from its manifest in {_differing(found, manifest['files'])}; {_WAYS_BACK}"
            )
        return Champion(number, folder, manifest)

    @contextmanager
    def reading(self, number: int) -> Iterator[None]:
        """Keep a version from being pruned while this block reads it (flock, shared, on its manifest).

        Raises:
            PublishError: it was pruned before.
        """
        with self.manifest_path(number).open() as handle:
            fcntl.flock(handle, fcntl.LOCK_SH)
            if not (self.models / str(number)).is_dir():
                raise PublishError(f"version {number} has just been pruned; ask a later one")
            yield


_WAYS_BACK = "restore it from a backup, or let an earlier version answer: crossrisk rollback"


def as_server_reads(name: str) -> int | None:
    """The version that TF Serving takes a name in its base path for; None where it passes over it.

    It parses names as signed 64-bit integers; leading zeros, signs and spaces around them are no hindrance to it
    (file_system_storage_path_source.cc, strings::safe_strto64).
    """
    name = name.strip(" \t\n\v\f\r")
    digits = name[1:] if name[:1] in ("+", "-") else name
    if not (digits.isascii() and digits.isdigit()):
        return None
    number = int(name)
    return number if 0 <= number < 2**63 else None


def read_manifest(registry: Registry, version: int) -> dict[str, Any]:
    """What a version is.

    Raises:
        PublishError: it has no manifest, one that cannot be read, or one that a newer release wrote.
    """
    path = registry.manifest_path(version)
    if not path.exists():
        raise PublishError(
            f"version {version} has no manifest at {path}: it was not published by this tool, or the file was lost; "
            f"{_WAYS_BACK}"
        )
    manifest = read_object(path)
    if not isinstance(manifest.get("files"), dict):
        raise PublishError(
            f"{path} is no manifest: expected the digests of the version's `files`, found the keys "
            f"{sorted(manifest)}; {_WAYS_BACK}"
        )
    refuse_foreign_names(manifest["files"], where=str(path))
    return manifest


def check_manifest(registry: Registry, version: int) -> None:
    """Compare a manifest with the digest in the line that published it; those of the first release have none.

    Raises:
        PublishError: it is not what was published.
    """
    lines = [record for record in registry.records() if record.get("version") == version]
    expected = lines[-1].get("manifest_sha256") if lines else None
    if expected is not None and digest_file(registry.manifest_path(version)) != expected:
        raise PublishError(
            f"{registry.manifest_path(version)} was changed after version {version} was published: see the ledger; "
            f"{_WAYS_BACK}"
        )


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object of a registry.

    Raises:
        PublishError: it is none, or a newer release wrote it.
    """
    try:
        document = read_json(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise PublishError(f"{path} cannot be read: {error.strerror}; restore it from a backup") from error
    except (ValueError, RecursionError) as error:
        raise PublishError(f"{path} is no JSON: {error}; restore it from a backup") from error
    if not isinstance(document, dict):
        raise PublishError(f"{path}: expected a JSON object, found {type(document).__name__}; restore it from a backup")
    refuse_newer(document, str(path))
    return document


def digest_tree(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, by relative path."""
    return {str(p.relative_to(folder)): digest_file(p) for p in sorted(folder.rglob("*")) if p.is_file()}


def _differing(found: Mapping[str, str], expected: Mapping[str, str]) -> str:
    return ", ".join(sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name)))


# --- agreement ---


def _check_agreement(registry: Registry) -> None:
    """The newest version that anything names is there, and none that a server would take lies above it undecided.

    A version older than the champion may be gone: nobody needs it to answer. What is named is read before the folder
    and what decides after it: a version that a publisher places in between is then named by its intent or its line.
    """
    named = {"the ledger": versions_in(registry.records()), "champion.json": _pointed(registry)}
    present = set(registry.versions())
    intended = intended_version(registry)
    records = registry.records()
    decided = {*versions_in(records), *intended}
    manifests = [int(p.stem) for p in (registry.root / "manifests").glob("*.json") if p.stem.isdigit()]
    named["a manifest"] = [version for version in manifests if version not in intended]
    newest = max((version for versions in named.values() for version in versions), default=0)
    if newest > max(present, default=0):
        who = " and ".join(name for name, versions in named.items() if newest in versions)
        raise PublishError(
            f"{registry.root} contradicts itself: version {newest} was published, as {who} says, but models holds "
            f"{_listed(present)}; restore models/{newest} from a backup, or let an earlier version answer: crossrisk "
            f"rollback; to start anew, move {registry.root} aside"
        )
    strange = present - decided
    champion = max(decided, default=0)
    undecided = sorted(v for v in strange if v > champion or v in manifests)  # else junk that no server would take
    if undecided:
        ledger = f"holds {len(records)} lines and none that published it" if records else "is empty or not there"
        raise PublishError(
            f"{registry.root} contradicts itself: models holds version {undecided[-1]}, but ledger.jsonl {ledger}; "
            f"restore it from a backup. A version that this tool did not publish does not belong into {registry.models}"
            f": move it out of there; to start anew, move {registry.root} aside"
        )


def _read_pointer(registry: Registry) -> dict[str, Any]:
    return read_object(registry.pointer) if registry.pointer.exists() else {}


def _pointed(registry: Registry) -> list[int]:
    """The version that champion.json names."""
    pointer = _read_pointer(registry)
    if registry.pointer.exists() and not isinstance(pointer.get("version", ""), int | None):
        raise PublishError(f"{registry.pointer} names no version; restore it from a backup")
    return [pointer["version"]] if pointer.get("version") is not None else []


def _check_head(registry: Registry, pointer: Mapping[str, Any], records: list[Record]) -> None:
    """The ledger still holds the line that was its last when the pointer was written; its champion of then is named.

    The pointer may be behind: it is written after the line. The first release wrote no head.
    """
    if pointer.get("schema_version", 1) < 2:
        return
    head = pointer.get("ledger")
    if not isinstance(head, dict) or not isinstance(head.get("lines"), int) or head["lines"] < 1:
        raise PublishError(f"{registry.pointer} names no line of the ledger as its last; {_POINTER_BACK}")
    lines = head["lines"]
    if len(records) < lines or records[lines - 1]["digest"] != head.get("digest"):
        raise PublishError(
            f"{registry.ledger} holds {len(records)} lines and not the one that champion.json names as its last of "
            f"{lines}: lines were taken away; restore the ledger from a backup"
        )
    champion = champion_in(records[:lines])
    if (pointer.get("version"), pointer.get("path")) != (champion, path_in_registry(champion)):
        raise PublishError(
            f"{registry.pointer} names version {pointer.get('version')} at {pointer.get('path')}, the ledger version "
            f"{champion}; {_POINTER_BACK}"
        )


_POINTER_BACK = "restore it from a backup, or move it away: whoever takes the lock next writes it anew"


def path_in_registry(version: int | None) -> str | None:
    """Where a version lies, for readers that know the registry's folder."""
    return None if version is None else f"models/{version}"


def read_intent(registry: Registry) -> dict[str, Any] | None:
    """What a publisher is doing, or was when it died; None where there is nothing.

    Raises:
        PublishError: it is no intent.
    """
    try:
        intent = read_object(registry.intent)
    except FileNotFoundError:
        return None
    is_of_us = isinstance(intent.get("record"), dict) and (
        isinstance(intent.get("version"), int) or isinstance(intent.get("prune"), list)
    )
    if not is_of_us:
        raise PublishError(f"{registry.intent} tells of no publication and no pruning; move it away and look at verify")
    return intent


def intended_version(registry: Registry) -> set[int]:
    """The version that a publisher is placing at this moment, or was when it died."""
    intent = read_intent(registry)
    return {intent["version"]} if intent is not None and "version" in intent else set()


def _listed(versions: set[int]) -> str:
    return f"{len(versions)}, the newest {max(versions)}" if versions else "no version"

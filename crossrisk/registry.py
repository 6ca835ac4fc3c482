"""Versions, ledger and champion of a portfolio, on a file system with atomic rename.

    registry/<portfolio>/models/<Unix seconds>/   SavedModels and nothing else: the largest name is the champion
    registry/<portfolio>/manifests/<version>.json what each version is, with the digest of every file of it
    registry/<portfolio>/staging/                 where a version is built; emptied by the next publisher
    registry/<portfolio>/ledger.jsonl             append-only, hash-chained: one line a decision
    registry/<portfolio>/champion.json            pointer, replaced whole
    registry/<portfolio>/lock                     held (flock) while a publisher works; freed by its death
    registry/<portfolio>/withdrawn-<version>/     a version that a person has taken back: the one before answers again

What lies there is believed only where it agrees: an emptied folder or a lost ledger is refused, never read as a start.
Building and verifying a SavedModel stays in `models.bundle`; deciding in `crossrisk.policy`.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossrisk.errors import PublishError
from crossrisk.store import canonical_json, digest_file, locked_if_free, read_json, write_json

LOCK_TIMEOUT_S = 600.0
PLACING_S = 2.0
"""A publisher places a version and then writes its line of the ledger: milliseconds in which the two disagree."""
_GENESIS = "0" * 64


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

    def manifest_path(self, version: int) -> Path:
        """Where the manifest of a version lies."""
        return self.root / "manifests" / f"{version}.json"

    def companion_path(self, version: int, name: str) -> Path:
        """Where a file that goes with a version lies."""
        return self.root / "manifests" / f"{version}.{name}"

    def versions(self) -> list[int]:
        """Versions present, ascending. A name that is no plain positive integer is no version."""
        if not self.models.is_dir():
            return []
        names = [p.name for p in self.models.iterdir() if p.is_dir()]
        return sorted(int(name) for name in names if name.isascii() and name.isdigit() and name == str(int(name)))

    def withdrawn(self) -> set[int]:
        """Versions that a person has moved out of the base path, to `withdrawn-<version>` beside it."""
        names = (p.name.removeprefix("withdrawn-") for p in self.root.glob("withdrawn-*") if p.is_dir())
        return {int(name) for name in names if name.isascii() and name.isdigit()}

    def champion(self) -> Champion | None:
        """The largest version; None before the first, and where all were withdrawn.

        Raises:
            PublishError: its files are not those of its manifest, or the registry contradicts itself: a version that
                was published is gone, or lies there without a decision in the ledger.
        """
        versions = self.versions()
        found = self.version(versions[-1]) if versions else None
        _await_agreement(self)
        return found

    def version(self, number: int) -> Champion:
        """One of `versions()`, its files checked against its manifest.

        Raises:
            PublishError: it has no manifest that can be read, or its files are not those of its manifest.
        """
        folder, manifest = self.models / str(number), read_manifest(self, number)
        found = digest_tree(folder)
        if found != manifest["files"]:
            changed = sorted(
                name for name in {*found, *manifest["files"]} if found.get(name) != manifest["files"].get(name)
            )
            raise PublishError(
                f"version {number} differs from its manifest in {', '.join(changed)}; restore them from a backup, or "
                f"{_withdraw(self, number)} so that the version before answers"
            )
        return Champion(number, folder, manifest)


def read_manifest(registry: Registry, version: int) -> dict[str, Any]:
    """What a version is.

    Raises:
        PublishError: it has no manifest, or one that cannot be read.
    """
    path = registry.manifest_path(version)
    if not path.exists():
        raise PublishError(
            f"version {version} has no manifest at {path}: it was not published by this tool, or the file was lost; "
            f"restore it from a backup, or {_withdraw(registry, version)}"
        )
    manifest = _read_object(path)
    if not isinstance(manifest.get("files"), dict):
        raise PublishError(
            f"{path} is no manifest: expected the digests of the version's `files`, found the keys "
            f"{sorted(manifest)}; restore it from a backup, or {_withdraw(registry, version)}"
        )
    return manifest


def _read_object(path: Path) -> dict[str, Any]:
    try:
        document = read_json(path)
    except ValueError as error:
        raise PublishError(f"{path} is no JSON: {error}; restore it from a backup") from error
    if not isinstance(document, dict):
        raise PublishError(f"{path}: expected a JSON object, found {type(document).__name__}; restore it from a backup")
    return document


def _withdraw(registry: Registry, version: int) -> str:
    """The move that takes a version out of the base path and says that it was meant."""
    return f"move {registry.models / str(version)} to {registry.root / f'withdrawn-{version}'}"


def digest_tree(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, by relative path."""
    return {str(p.relative_to(folder)): digest_file(p) for p in sorted(folder.rglob("*")) if p.is_file()}


# --- agreement ---


def _await_agreement(registry: Registry) -> None:
    """Refuse a registry that contradicts itself, also after a publisher that is at work has had time to finish."""
    deadline = time.monotonic() + PLACING_S
    while True:
        with locked_if_free(registry.root / "lock", fcntl.LOCK_SH) as is_settled:  # no publisher, who may be ourselves
            try:
                _check_agreement(registry)
            except PublishError:
                if is_settled or time.monotonic() > deadline:
                    raise
            else:
                return
        time.sleep(0.05)


def _check_agreement(registry: Registry) -> None:
    """Every version has its decision in the ledger; the newest that anything names is there, or was withdrawn.

    A version older than the champion may be gone: nobody needs it to answer.
    """
    present, withdrawn = set(registry.versions()), registry.withdrawn()
    records = read_ledger(registry)
    decided = {record["version"] for record in records if record.get("version") is not None}
    named = {"the ledger": decided, "champion.json": _pointed(registry), "a manifest": _placed(registry, decided)}
    newest = max(set().union(*named.values()) - withdrawn, default=0)
    if newest > max(present, default=0):
        who = " and ".join(name for name, versions in named.items() if newest in versions)
        raise PublishError(
            f"{registry.root} contradicts itself: version {newest} was published, as {who} says, but models holds "
            f"{_listed(present)}; restore models/{newest} from a backup. Where it was removed on purpose, say so with "
            f"an empty folder withdrawn-{newest} beside models; to start anew, move {registry.root} aside"
        )
    undecided = sorted(present - decided)
    if undecided:
        ledger = f"holds {len(records)} decisions and none that published it" if records else "is empty or not there"
        raise PublishError(
            f"{registry.root} contradicts itself: models holds version {undecided[-1]}, but ledger.jsonl {ledger}; "
            "restore it from a backup. Where a publication was interrupted, "
            f"{_withdraw(registry, undecided[-1])}; to start anew, move {registry.root} aside"
        )


def _pointed(registry: Registry) -> set[int]:
    """The version that champion.json names."""
    path = registry.root / "champion.json"
    if not path.exists():
        return set()
    version = _read_object(path).get("version")
    if not isinstance(version, int):
        raise PublishError(f"{path} names no version; restore it from a backup")
    return {version}


def _placed(registry: Registry, decided: set[int]) -> set[int]:
    """Versions with a manifest, without the newest where nothing else knows it: its publication was interrupted."""
    versions = set(_published_versions(registry))
    known = decided | _pointed(registry) | registry.withdrawn() | set(registry.versions())
    return versions - ({max(versions, default=0)} - known)


def _listed(versions: set[int]) -> str:
    return f"{len(versions)}, the newest {max(versions)}" if versions else "no version"


# --- lock, staging, publication ---


@contextmanager
def locked(registry: Registry, *, timeout_s: float = LOCK_TIMEOUT_S) -> Iterator[None]:
    """Hold the portfolio's lock. A dead holder's lock is free; a live one is waited for.

    Raises:
        PublishError: still held after timeout_s.
    """
    registry.root.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + timeout_s
    with (registry.root / "lock").open("a") as handle:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise PublishError(
                        f"another publisher holds {registry.root / 'lock'} since {timeout_s:.0f} s; wait, or end it"
                    ) from None
                time.sleep(0.1)
        yield


@contextmanager
def staging_folder(registry: Registry) -> Iterator[Path]:
    """An empty folder on the registry's file system; gone afterwards unless it was moved into place. Needs the lock."""
    staging = registry.root / "staging"
    shutil.rmtree(staging, ignore_errors=True)  # only the dead leave something: we hold the lock
    folder = staging / uuid.uuid4().hex
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def place_version(
    registry: Registry,
    staged: Path,
    manifest: Mapping[str, Any],
    *,
    now: float,
    companions: Mapping[str, Path] | None = None,
) -> Champion:
    """Make a staged and verified SavedModel the champion: one rename, after all else is in place. Needs the lock.

    The number is max(now in Unix seconds, last + 1), so that string order, number order and time order agree.

    Args:
        registry: of the portfolio.
        staged: folder of the SavedModel, on the registry's file system.
        manifest: what the version is; number and digests are added.
        now: Unix seconds.
        companions: name -> staged file that later runs need beside the manifest; moved to `manifests/<version>.<name>`.

    Raises:
        PublishError: the base path holds something that is no version of ours and that readers would take for one.
    """
    _refuse_strangers(registry)
    last = max([*registry.versions(), *_published_versions(registry)], default=0)
    version = max(int(now), last + 1)
    files = digest_tree(staged)
    _fsync_tree(staged)
    moved = {name: digest_file(path) for name, path in (companions or {}).items()}
    for name, path in (companions or {}).items():
        target = registry.companion_path(version, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)
    full = {**manifest, "schema_version": 1, "version": version, "files": files, "companions": moved}
    write_json(registry.manifest_path(version), full)
    registry.models.mkdir(parents=True, exist_ok=True)
    folder = registry.models / str(version)
    staged.rename(folder)
    _fsync_folder(registry.models)
    write_json(registry.root / "champion.json", {"version": version, "path": f"models/{version}"})
    return Champion(version, folder, full)


def _refuse_strangers(registry: Registry) -> None:
    if not registry.models.is_dir():
        return
    known = {str(version) for version in registry.versions()}
    strange = sorted(p.name for p in registry.models.iterdir() if p.name not in known)
    if strange:
        raise PublishError(
            f"{registry.models} holds {', '.join(strange)}, which is no version of ours; readers may take it for one: "
            "move it out of the base path"
        )


def _published_versions(registry: Registry) -> list[int]:
    return [int(p.stem) for p in (registry.root / "manifests").glob("*.json") if p.stem.isdigit()]


def _fsync_tree(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as handle:
                os.fsync(handle.fileno())
    for path in [folder, *(p for p in folder.rglob("*") if p.is_dir())]:
        _fsync_folder(path)


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- ledger ---


def append_ledger(registry: Registry, record: Mapping[str, Any]) -> dict[str, Any]:
    """Append a record, chained to the line before by its SHA-256. Needs the lock."""
    before = read_ledger(registry)
    line = {**record, "previous": before[-1]["digest"] if before else _GENESIS}
    line["digest"] = hashlib.sha256(canonical_json(line).encode()).hexdigest()
    with registry.ledger.open("a", encoding="utf-8") as handle:
        handle.write(canonical_json(line) + "\n")
        handle.flush()
        os.fsync(handle.fileno())
    return line


def read_ledger(registry: Registry) -> list[dict[str, Any]]:
    """All records, oldest first.

    Raises:
        PublishError: a line is broken or the chain does not hold.
    """
    if not registry.ledger.exists():
        return []
    records: list[dict[str, Any]] = []
    previous = _GENESIS
    for number, text in enumerate(registry.ledger.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            record = json.loads(text)
            body = {key: value for key, value in record.items() if key != "digest"}
            holds = hashlib.sha256(canonical_json(body).encode()).hexdigest() == record["digest"]
        except (ValueError, KeyError, TypeError) as error:
            raise PublishError(f"{registry.ledger} line {number} is no ledger record: {error}") from error
        if not holds or record["previous"] != previous:
            raise PublishError(
                f"{registry.ledger} line {number} was changed after it was written; restore the ledger from a backup"
            )
        records.append(record)
        previous = record["digest"]
    return records

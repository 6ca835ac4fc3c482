"""The one way into a registry: lock, stage, verify, intend, rename, commit; and recovery from every death in between.

A publication is whole or absent. Before its rename nothing outside staging/ counts; from its rename on it stands, and
whoever takes the lock next finishes what its publisher could not (`recover`). Every step is named in `STEPS`, and a
test kills a publisher at each of them.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from crossrisk.artefacts import refuse_links
from crossrisk.errors import PublishError
from crossrisk.failpoints import reach
from crossrisk.registry import ledger, pending, pruning, serving
from crossrisk.registry.layout import (
    COMPANIONS,
    MODEL,
    SCHEMA_VERSION,
    Champion,
    Registry,
    digest_tree,
    read_object,
)
from crossrisk.store import digest_file, make_private, write_json

LOCK_TIMEOUT_S = 600.0
FIRST_VERSION, LAST_VERSION = 1_000_000_000, 9_999_999_999
"""Ten digits: within them the order of names is the order of numbers. 2001 to 2286 as Unix seconds."""

STEPS = (
    "locked",
    "staged",
    "synced",
    "verified",
    "intended",
    "manifested",
    "renamed",
    "placed",
    "committed",
    "pointed",
    "configured",
    "ended",
)
"""of a publication, in order: places of `crossrisk.failpoints`, as `publish.<step>`"""

Verify = Callable[[Path], None]
"""Loads and queries the model of a staged bundle in another process; raises PublishError"""


# --- lock and staging ---


@contextmanager
def locked(registry: Registry, *, timeout_s: float = LOCK_TIMEOUT_S) -> Iterator[None]:
    """Hold the portfolio's lock, after finishing or sweeping what a dead holder left.

    A dead holder's lock is free at once; a live one is waited for.

    Raises:
        PublishError: still held after timeout_s; names the holder. Or what lies there cannot be recovered, or an
            OSError (a full disk, a read-only folder) came out of the block.
    """
    with _lock_file(registry) as handle:
        _await_lock(handle, registry.root / "lock", timeout_s)
        try:
            handle.truncate(0)
            since = time.strftime("%Y-%m-%d %H:%M:%S %Z")
            handle.write(f"process {os.getpid()} on {os.uname().nodename} since {since}")
            handle.flush()
            recover(registry)
            reach("publish.locked")
            yield
        except OSError as error:
            raise PublishError(_cannot(registry, error)) from error


def _lock_file(registry: Registry) -> IO[str]:
    try:
        registry.root.mkdir(parents=True, exist_ok=True)
        return (registry.root / "lock").open("a+")
    except OSError as error:
        raise PublishError(_cannot(registry, error)) from error


def _await_lock(handle: IO[str], path: Path, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                handle.seek(0)
                holder = handle.read() or "unknown"
                raise PublishError(
                    f"another publisher holds {path} ({holder}), waited for {timeout_s:.0f} s; wait, or end it"
                ) from None
            time.sleep(0.05)


@contextmanager
def staging_folder(registry: Registry) -> Iterator[Path]:
    """An empty folder on the registry's file system, gone afterwards. Needs the lock."""
    folder = registry.root / "staging" / uuid.uuid4().hex
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(registry.root / "staging", ignore_errors=True)


# --- publication ---


def publish_version(
    registry: Registry,
    bundle: Path,
    manifest: Mapping[str, Any],
    record: Mapping[str, Any],
    *,
    now: float,
    verify: Verify,
    live: Champion | None = None,
) -> Champion:
    """Make a bundle the champion and write its line into the ledger. Needs the lock.

    The number is max(now in Unix seconds, last + 1), so that string order, number order and time order agree. Where
    the live version already has the manifest's identity nothing is done, and it is returned as it is.

    Args:
        registry: of the portfolio.
        bundle: folder below staging/: model/ (the SavedModel) and companions/ (files that later runs need).
        manifest: what the version is, `identity` among it; number and digests are added.
        record: of the ledger; the number is added.
        now: Unix seconds.
        verify: loads and queries the staged model.
        live: the champion, whose content is not published a second time.

    Raises:
        PublishError: the model holds links, does not verify, or cannot be written; or the clock is far off. Nothing
            numbered exists then, or, where the rename had succeeded, a whole version that the next publisher commits.
    """
    if live is not None and live.manifest.get("identity", "") == manifest["identity"]:
        return live
    version = _next_number(registry, now)
    model, companions = bundle / MODEL, bundle / COMPANIONS
    refuse_links(bundle)
    full = {
        **manifest,
        "schema_version": SCHEMA_VERSION,
        "version": version,
        "files": digest_tree(model),
        "companions": {path.name: digest_file(path) for path in sorted(companions.iterdir())},
    }
    reach("publish.staged")
    try:
        written = write_json(bundle / "manifest.json", full)
        _sync_tree(bundle)
        reach("publish.synced")
        verify(bundle)
        reach("publish.verified")
        _place(registry, bundle, version, {**record, "version": version, "manifest_sha256": digest_file(written)})
    except OSError as error:
        raise PublishError(_cannot(registry, error, version)) from error
    return registry.version(version)  # the probe: what readers see is what was staged


def _place(registry: Registry, bundle: Path, version: int, record: Mapping[str, Any]) -> None:
    _write_synced(registry.intent, {"version": version, "record": record})
    try:
        reach("publish.intended")
        manifests = registry.manifest_path(version).parent
        manifests.mkdir(exist_ok=True)
        for path in sorted((bundle / COMPANIONS).iterdir()):
            make_private(path)  # ids and raw rows of customers; a server needs none of them
            path.rename(registry.companion_path(version, path.name))
        (bundle / "manifest.json").rename(registry.manifest_path(version))
        _sync_folder(manifests)
        reach("publish.manifested")
        registry.models.mkdir(exist_ok=True)
        (bundle / MODEL).rename(registry.models / str(version))
        reach("publish.renamed")
        _finish(registry, version, record)
    except BaseException:  # also a signal: the version stands or is swept, and its publisher ends as it was told to
        recover(registry)
        raise


def _cannot(registry: Registry, error: OSError, version: int | None = None) -> str:
    where = f" ({error.filename})" if error.filename else ""
    became = "nothing was published and the champion is as it was; mend that and run again"
    if version is not None and (registry.models / str(version)).exists():
        became = f"version {version} is in place and whole; whoever takes the lock next writes what is missing"
    if error.errno == errno.EXDEV:
        became += f". models and staging must lie on one file system: {registry.models} is a link or a mount"
    return f"publishing in {registry.root} ended early: {error.strerror or error}{where}; {became}"


def _next_number(registry: Registry, now: float) -> int:
    last = max([*registry.numbered().values(), *ledger.versions_in(registry.records())], default=0)
    version = max(int(now), last + 1)
    if version < FIRST_VERSION:
        raise PublishError(
            f"the clock says {time.strftime('%Y-%m-%d', time.gmtime(now))}: a version numbered so would stay below "
            "every later one; set the clock and run again"
        )
    if version > LAST_VERSION:
        highest = max(registry.numbered(), key=lambda name: registry.numbered()[name], default="")
        raise PublishError(
            f"no number of ten digits lies above {last}; {registry.models} holds {highest!r}, which is no version of "
            "ours: move it out of the base path (or set the clock)"
        )
    return version


# --- commit, and recovery ---


def _finish(registry: Registry, version: int, record: Mapping[str, Any]) -> None:
    """From a placed folder to a champion on record; every part may have been done before."""
    _sync_folder(registry.models)
    reach("publish.placed")
    if version not in ledger.versions_in(registry.records()):
        ledger.append_ledger(registry.ledger, record)
    reach("publish.committed")
    point(registry)
    reach("publish.pointed")
    serving.write_configuration(registry)
    reach("publish.configured")
    registry.intent.unlink(missing_ok=True)
    reach("publish.ended")


def recover(registry: Registry) -> None:
    """Finish or sweep what a dead publisher left. Needs the lock; does nothing where nobody died.

    An intent whose version is in place and whole is committed; one whose version is not is taken back. Staging is the
    dead's: we hold the lock.

    Raises:
        PublishError: a version was placed and differs from its manifest.
    """
    shutil.rmtree(registry.root / "staging", ignore_errors=True)
    ledger.mend_end(registry.ledger)
    if registry.intent.exists():
        intent = read_object(registry.intent)
        if "prune" in intent:
            pruning.finish(registry, intent["prune"], intent["record"])
            point(registry)
            registry.intent.unlink()
        else:
            _recover_publication(registry, intent["version"], intent["record"])
    pending.drop_undecided(registry)


def _recover_publication(registry: Registry, version: int, record: Mapping[str, Any]) -> None:
    if (registry.models / str(version)).is_dir():
        registry.version(version)
        _finish(registry, version, record)
        return
    for path in registry.companions(version).values():
        path.unlink()
    registry.manifest_path(version).unlink(missing_ok=True)
    registry.intent.unlink()


def prune_versions(registry: Registry, versions: Sequence[int], record: Mapping[str, Any]) -> None:
    """Remove versions that `pruning.choose_versions` chose, and enter the record. Needs the lock."""
    _write_synced(registry.intent, {"prune": list(versions), "record": record})
    recover(registry)  # the way a pruning that died is finished is the way it is done


def enter_record(registry: Registry, record: Mapping[str, Any]) -> None:
    """Append to the ledger what publishes nothing, and move its head. Needs the lock."""
    ledger.append_ledger(registry.ledger, record)
    point(registry)


def point(registry: Registry) -> None:
    """Replace the pointer: champion and head of the ledger. Needs the lock."""
    records = registry.records()
    version = max(ledger.versions_in(records), default=None)
    head = {"lines": len(records), "digest": records[-1]["digest"]}
    path = f"models/{version}" if version is not None else None
    _write_synced(registry.pointer, {"version": version, "path": path, "ledger": head})


def _write_synced(path: Path, document: Mapping[str, Any]) -> None:
    write_json(path, {"schema_version": SCHEMA_VERSION, **document})
    _sync_folder(path.parent)


def _sync_tree(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as handle:
                os.fsync(handle.fileno())
    for path in [folder, *(p for p in folder.rglob("*") if p.is_dir())]:
        _sync_folder(path)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

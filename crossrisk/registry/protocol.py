"""The one way into a registry: lock, stage, verify, intend, rename, commit; and recovery from every death in between.

A publication is whole or absent. Before its rename nothing outside staging/ counts; from its rename on it stands, and
whoever takes the lock next finishes what its publisher could not (`recover`). Every step is named in `STEPS`, and a
test kills a publisher at each of them.
"""

from __future__ import annotations

import errno
import fcntl
import logging
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
    FIRST_VERSION,
    LAST_VERSION,
    MODEL,
    Champion,
    Registry,
    digest_tree,
    path_in_registry,
    read_intent,
    read_object,
)
from crossrisk.registry.ledger import SCHEMA_VERSION
from crossrisk.store import digest_file, make_private, write_json

logger = logging.getLogger("crossrisk.registry")

LOCK_TIMEOUT_S = 600.0
FAR_AHEAD_S = 86_400
"""A foreign number that lies further ahead of the clock is not passed: all later numbers would lie above it."""

DAMAGED = "damaged-"
"""Beside models: what was placed, damaged, and never on record; kept for whoever wants to know why."""

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
        before = None
        try:
            handle.truncate(0)
            since = time.strftime("%Y-%m-%d %H:%M:%S %Z")
            handle.write(f"process {os.getpid()} on {os.uname().nodename} since {since}")
            handle.flush()
            recover(registry)
            reach("publish.locked")
            before = len(registry.records())
            yield
        except OSError as error:
            raise PublishError(_cannot(registry, error, lines_before=before)) from error


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
    the live version already has the manifest's identity it goes on answering and is returned as it is; a record that
    is not in the ledger yet is entered, without a version of its own.

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
        if not _is_on_record(registry, record):
            enter_record(registry, {**record, "version": None, "answers_already": live.version})
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
        sync_tree(bundle)
        reach("publish.synced")
        verify(bundle)
        reach("publish.verified")
        _place(registry, bundle, version, {**record, "version": version, "manifest_sha256": digest_file(written)})
    except OSError as error:
        raise PublishError(_cannot(registry, error, version)) from error
    return registry.version(version)  # the probe: what readers see is what was staged


def _is_on_record(registry: Registry, record: Mapping[str, Any]) -> bool:
    same = ("kind", "run_id")
    return any([line.get(key) for key in same] == [record.get(key) for key in same] for line in registry.records())


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
        sync_folder(manifests)
        reach("publish.manifested")
        registry.models.mkdir(exist_ok=True)
        (bundle / MODEL).rename(registry.models / str(version))
        reach("publish.renamed")
        _finish(registry, version, record)
    except BaseException:  # also a signal: the version stands or is swept, and its publisher ends as it was told to
        recover(registry)
        if (registry.models / str(version)).exists():
            logger.warning("version %d is published: it was in place when its publisher was ended", version)
        raise


def _cannot(registry: Registry, error: OSError, version: int | None = None, *, lines_before: int | None = None) -> str:
    where = f" ({error.filename})" if error.filename else ""
    became = "nothing was published and the champion is as it was; mend that and run again"
    if version is not None and (registry.models / str(version)).exists():
        became = f"version {version} is in place and whole; whoever takes the lock next writes what is missing"
    if lines_before is not None and len(records := registry.records()) > lines_before:
        line = records[-1]
        what = f"version {line['version']} stands" if line.get("version") else f"the {ledger.kind_of(line)} stands"
        became = f"{what} and is on record; only the tidying after it is undone"
    if error.errno == errno.EXDEV:
        became += f". models and staging must lie on one file system: {registry.models} is a link or a mount"
    return f"work on {registry.root} ended early: {error.strerror or error}{where}; {became}"


def _next_number(registry: Registry, now: float) -> int:
    published = ledger.versions_in(registry.records())
    foreign = {name: number for name, number in registry.numbered().items() if number not in published}
    aside = (path.name.removeprefix(DAMAGED) for path in registry.root.glob(f"{DAMAGED}*"))
    damaged = [int(name) for name in aside if name.isascii() and name.isdigit()]
    last = max([*foreign.values(), *published, *damaged], default=0)
    if foreign and last > max([*published, int(now) + FAR_AHEAD_S]):
        name = max(foreign, key=lambda name: foreign[name])
        raise PublishError(
            f"{registry.models} holds {name!r}, which this tool did not publish; every later number would have to lie "
            "above it: move it out of the base path"
        )
    version = max(int(now), last + 1)
    if version < FIRST_VERSION:
        raise PublishError(
            f"the clock says {time.strftime('%Y-%m-%d', time.gmtime(now))}: a version numbered so would stay below "
            "every later one; set the clock and run again"
        )
    if version > LAST_VERSION:
        raise PublishError(
            f"the clock says {now:.0f}, beyond the last number of ten digits; set the clock and run again"
        )
    return version


# --- commit, and recovery ---


def _finish(registry: Registry, version: int, record: Mapping[str, Any]) -> None:
    """From a placed folder to a champion on record; every part may have been done before."""
    sync_folder(registry.models)
    reach("publish.placed")
    if version not in ledger.versions_in(registry.records()):
        ledger.append_ledger(registry.ledger, record)
    reach("publish.committed")
    point(registry)
    reach("publish.pointed")
    try:
        serving.write_configuration(registry)
    except PublishError:  # of files beside the version, which stands; crossrisk verify names them
        logger.exception("the server's configuration could not be written")
    reach("publish.configured")
    registry.intent.unlink(missing_ok=True)
    reach("publish.ended")


def recover(registry: Registry) -> None:
    """Finish or sweep what a dead publisher left. Needs the lock; does nothing where nobody died.

    An intent whose version is in place and whole is committed; one whose version is not is taken back. Staging is the
    dead's: we hold the lock.

    Raises:
        PublishError: the ledger, the pointer or the intent was changed by others.
    """
    shutil.rmtree(registry.root / "staging", ignore_errors=True)
    ledger.mend_end(registry.ledger)
    intent = read_intent(registry)
    if intent is not None and "prune" in intent:
        pruning.finish(registry, intent["prune"], intent["record"])
        registry.intent.unlink()
    elif intent is not None:
        _recover_publication(registry, intent["version"], intent["record"])
    if _is_pointer_behind(registry):
        point(registry)
    pending.drop_undecided(registry)


def _recover_publication(registry: Registry, version: int, record: Mapping[str, Any]) -> None:
    folder = registry.models / str(version)
    if folder.is_dir() and _is_whole(registry, version):
        _finish(registry, version, record)
        return
    if folder.is_dir():  # damaged before it was on record: it never answered for anybody
        folder.rename(registry.root / f"{DAMAGED}{version}")
        logger.error("version %d was damaged before it was on record; it lies in %s%d now", version, DAMAGED, version)
    for path in registry.companions(version).values():
        path.unlink()
    registry.manifest_path(version).unlink(missing_ok=True)
    registry.intent.unlink()


def _is_whole(registry: Registry, version: int) -> bool:
    try:
        registry.version(version)
    except PublishError:
        if version in ledger.versions_in(registry.records()):
            raise  # on record: a damage that a person must know of
        return False
    return True


def _is_pointer_behind(registry: Registry) -> bool:
    """Whether lines came into the ledger after the pointer was written, whose writer died; or there is no pointer."""
    records = registry.records()
    if not records or not registry.pointer.exists():
        return bool(records)
    head = read_object(registry.pointer).get("ledger")
    return head is None or head["lines"] < len(records)


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
    version = ledger.champion_in(records)
    head = {"lines": len(records), "digest": records[-1]["digest"]}
    _write_synced(registry.pointer, {"version": version, "path": path_in_registry(version), "ledger": head})


def _write_synced(path: Path, document: Mapping[str, Any]) -> None:
    write_json(path, {"schema_version": SCHEMA_VERSION, **document})
    sync_folder(path.parent)


def sync_tree(folder: Path) -> None:
    """Have every file and folder of a tree on the disk."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as handle:
                os.fsync(handle.fileno())
    for path in [folder, *(p for p in folder.rglob("*") if p.is_dir())]:
        sync_folder(path)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""A challenger on trial: served as a second model, `<portfolio>_canary`, beside the champion and without touching it.

Its base path is the registry's `canary/`, with numbers that never appear in `models/`. What counts is the ledger: a
canary that it does not know as begun, or knows as ended, is not configured, and is removed by the next command here.
Clock and names arrive as arguments.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass

from crossrisk.artefacts import refuse_links
from crossrisk.errors import InputError, PublishError
from crossrisk.registry import Registry, digest_tree, locked, staging_folder
from crossrisk.registry.layout import COMPANIONS, MODEL
from crossrisk.registry.ledger import SCHEMA_VERSION, Record, kind_of, signed
from crossrisk.registry.pending import Bundle, find_pending
from crossrisk.registry.protocol import enter_record, sync_folder, sync_tree
from crossrisk.registry.serving import canary_name, running_canary, write_configuration
from crossrisk.store import write_json
from tasks.publish import verify_bundle

logger = logging.getLogger("crossrisk.canary")


@dataclass(frozen=True)
class Canary:
    """A challenger on trial."""

    number: int
    """Unix seconds: its version in the second model"""
    model: str
    """name to ask a server for"""
    run_id: str
    """the run that it came from"""


def begin_canary(registry: Registry, run_id: str, *, by: str, now: float) -> Canary:
    """Serve a pending challenger beside the champion. The pending bundle stays, for `crossrisk promote`.

    Args:
        registry: of the portfolio.
        run_id: what waits under pending/.
        by: who wants it; typed, not authenticated.
        now: Unix seconds.

    Raises:
        InputError: no name, nothing pending under that run, no champion yet, or there is a canary already.
        PublishError: the challenger is not what was verified, or does not answer as it did.
    """
    by = signed(by, "a canary")
    with locked(registry):
        records = registry.records()
        _sweep(registry, records)
        running = running_canary(registry, records)
        if running is not None:
            raise InputError(f"canary {running} is on trial; end it first: crossrisk canary CONFIG --end --by NAME")
        if registry.champion() is None:
            raise InputError(f"{registry.root} has no champion that a canary could be held against; promote it instead")
        bundle = find_pending(registry, run_id)
        canary = Canary(max(int(now), _last_number(records) + 1), canary_name(registry), run_id)
        _place(registry, bundle, canary.number)
        _enter(registry, canary, by=by, now=now, ended=False)
    logger.info("canary %d: the challenger of run %s", canary.number, run_id)
    return canary


def end_canary(registry: Registry, *, by: str, now: float) -> Canary:
    """Take the challenger on trial out of service and remove its copy.

    The base path stays, empty: while a server still lists a base path that is gone, it reads no other either.

    Raises:
        InputError: no name, or there is no canary.
    """
    by = signed(by, "a canary")
    with locked(registry):
        records = registry.records()
        number = running_canary(registry, records)
        if number is None:
            _sweep(registry, records)
            raise InputError(f"there is no canary in {registry.canary}")
        run_id = next(str(record["run_id"]) for record in reversed(records) if record.get("canary") == number)
        canary = Canary(number, canary_name(registry), run_id)
        _enter(registry, canary, by=by, now=now, ended=True)
        _sweep(registry, registry.records())
    logger.info("canary %d ended", number)
    return canary


def _last_number(records: Sequence[Record]) -> int:
    return max((int(record["canary"]) for record in records if kind_of(record) == "canary"), default=0)


def _place(registry: Registry, bundle: Bundle, number: int) -> None:
    """Copy a bundle's model, verify the copy, and let it appear by one rename."""
    with staging_folder(registry) as folder:
        for name in (MODEL, COMPANIONS):
            shutil.copytree(bundle.folder / name, folder / name, symlinks=True)
        refuse_links(folder)
        files = digest_tree(folder / MODEL)
        if files != bundle.manifest["verified_files"]:
            raise PublishError(f"{bundle.folder / MODEL} is not what was verified; no canary was begun, run again")
        verify_bundle(folder)
        manifest = {**bundle.manifest, "schema_version": SCHEMA_VERSION, "canary": number, "files": files}
        write_json(registry.manifest_path(0).with_name(f"canary-{number}.json"), manifest)
        registry.canary.mkdir(exist_ok=True)
        sync_tree(folder)  # the files before their name
        (folder / MODEL).rename(registry.canary / str(number))
        sync_folder(registry.canary)


def _enter(registry: Registry, canary: Canary, *, by: str, now: float, ended: bool) -> None:
    """The ledger first: the configuration follows what it says."""
    record = {"kind": "canary", "version": None, "canary": canary.number, "run_id": canary.run_id, "ended": ended}
    enter_record(registry, {**record, "by": by, "at_unix_s": int(now)})
    write_configuration(registry)


def _sweep(registry: Registry, records: Sequence[Record]) -> None:
    """Remove every canary that is not on trial; first by a rename to a name that is no number."""
    running = running_canary(registry, records)
    registry.trash.mkdir(exist_ok=True)
    for folder in sorted(registry.canary.iterdir()) if registry.canary.is_dir() else ():
        if folder.name != str(running):
            folder.rename(registry.trash / f"canary-{folder.name}")
    shutil.rmtree(registry.trash)

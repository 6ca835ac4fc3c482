"""A portfolio as it was when a version was decided on: config, files, champion of that time, assignment that bound.

Read from the manifest, the ledger and data.root, and laid out in a folder of its own, where the steps of a run find
everything as it was and leave the real registry alone. Nothing is guessed: what is gone or changed is named, all of
it, before anything is computed. Running the steps is `flows.reproduce`'s.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossrisk.config import Folders, Loaded, Portfolio, parse_portfolio
from crossrisk.errors import InputError
from crossrisk.registry import Registry, read_manifest
from crossrisk.registry.audit import check_version
from crossrisk.registry.layout import check_manifest
from crossrisk.registry.ledger import Record, kind_of
from crossrisk.store import digest_file, read_json
from tasks.compare import SEEN_ROWS

logger = logging.getLogger("crossrisk.past")


@dataclass(frozen=True)
class Past:
    """What a version was made from, and where all of it lies now."""

    version: int
    manifest: Mapping[str, Any]
    portfolio: Portfolio
    """the config of then"""
    lines_before: int
    """of the ledger, before the line of the decision"""
    champion: int | None
    """the version that it was compared with"""
    bound_by: Path | None
    """the earlier assignment whose customers kept their side of the split"""
    notes: tuple[str, ...]


def read_past(loaded: Loaded, version: int) -> Past:
    """Find what a version was made from.

    Args:
        loaded: today's portfolio: where registry, data and suites lie; its other values are not looked at.
        version: published once; its model may have been pruned since, its manifest stays.

    Raises:
        InputError: no such version, or an input of it is gone or has changed; names each.
        PublishError: the ledger or the manifest was changed after it was written.
    """
    registry = Registry(loaded.folders.registry)
    records = registry.records()
    manifest = _published_manifest(registry, records, version)
    place = _place_of_decision(registry, records, manifest)
    champion = records[place]["compared_with"]
    logger.info("version %d: %d input files", version, len(manifest["input"]))
    gone = [
        *_missing_files(manifest, loaded.folders.data_root),
        *_missing_suites(manifest["config"], loaded.folders.config),
        *_missing_champion(registry, champion),
    ]
    if gone:
        raise InputError(f"version {version} cannot be re-derived from what is left: {'; '.join(gone)}")
    bound_by, note = _bound_by(loaded.folders.registry, manifest)
    return Past(
        version=version,
        manifest=manifest,
        portfolio=parse_portfolio(manifest["config"], where=f"manifest of version {version}"),
        lines_before=place,
        champion=champion,
        bound_by=bound_by,
        notes=(note,) if note else (),
    )


def lay_out(past: Past, loaded: Loaded, folder: Path, *, may_link: bool = True) -> Loaded:
    """Put everything into a folder as it was before the run that made the version: data, registry, and an empty work.

    Data are linked where they may be and the file system allows it, else copied: whoever removes the folder removes
    no data. Where the folder stays they may not: an edit there would be one of the original.
    """
    folders = Folders(
        data_root=folder / "data", work=folder / "work", registry=folder / "registry", config=loaded.folders.config
    )
    for name in dict.fromkeys(entry["path"] for entry in past.manifest["input"]):
        place = _link_or_copy if may_link else _copy
        place((loaded.folders.data_root / name).resolve(), folders.data_root / name)
    _lay_out_registry(past, Registry(loaded.folders.registry), Registry(folders.registry))
    return Loaded(past.portfolio, folders)


def _lay_out_registry(past: Past, now: Registry, then: Registry) -> None:
    """The ledger up to the decision, the champion of then with what goes with it, and the assignment that bound."""
    then.root.mkdir(parents=True)
    lines = now.ledger.read_bytes().splitlines(keepends=True)
    then.ledger.write_bytes(b"".join(lines[: past.lines_before]))
    if past.champion is not None:
        with now.reading(past.champion):
            shutil.copytree(now.models / str(past.champion), then.models / str(past.champion))
            then.manifest_path(past.champion).parent.mkdir()
            for path in (now.manifest_path(past.champion), *now.companions(past.champion).values()):
                shutil.copyfile(path, then.manifest_path(past.champion).with_name(path.name))
    if past.bound_by is not None:
        splits = then.root / past.bound_by.parent.relative_to(now.root)
        splits.mkdir(parents=True)
        for path in (past.bound_by, past.bound_by.with_suffix(".json")):
            shutil.copyfile(path, splits / path.name)


def _copy(file: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, to)


def _link_or_copy(file: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(file, to)
    except OSError:  # another file system, or the file is another user's
        _copy(file, to)


# --- manifest and ledger ---


def _published_manifest(registry: Registry, records: list[Record], version: int) -> Mapping[str, Any]:
    lines = [record for record in records if record.get("version") == version]
    if not lines:
        known = ", ".join(str(record["version"]) for record in reversed(records) if record.get("version")) or "none"
        raise InputError(f"no line of {registry.ledger} published version {version}; published, newest first: {known}")
    manifest = read_manifest(registry, version)
    check_manifest(registry, version)
    return manifest


def _place_of_decision(registry: Registry, records: list[Record], manifest: Mapping[str, Any]) -> int:
    """Where the ledger holds the decision that made a version; an approval or a rollback of it comes later."""
    for place, record in enumerate(records):
        if kind_of(record) == "decision" and record["run_id"] == manifest["run_id"]:
            return place
    raise InputError(f"{registry.ledger} holds no decision of run {manifest['run_id']}, which made the version")


# --- what is gone ---


def _missing_files(manifest: Mapping[str, Any], root: Path) -> Iterator[str]:
    for entry in manifest["input"]:
        file = root / entry["path"]
        if not file.resolve().is_relative_to(root.resolve()):
            yield f"{entry['path']} leads outside data.root"
        elif not file.is_file():
            yield f"{entry['path']} is gone from {root}"
        elif (found := digest_file(file)) != entry["sha256"]:
            yield f"{entry['path']} has changed (SHA-256 {entry['sha256'][:12]}… then, {found[:12]}… now)"


def _missing_suites(config: Mapping[str, Any], beside: Path) -> Iterator[str]:
    for name in config["data"]["expectations"]:
        if name.endswith(".json") and not (beside / name).is_file():
            yield f"the suite {name} is gone from {beside}"


def _missing_champion(registry: Registry, champion: int | None) -> Iterator[str]:
    if champion is None:
        return
    broken = [finding.said for finding in check_version(registry, champion) if not finding.holds]
    if not broken and SEEN_ROWS not in registry.companions(champion):
        broken = [f"{registry.companion_path(champion, SEEN_ROWS)} is gone"]
    if broken:
        yield f"champion {champion}, with which it was compared: {'; '.join(broken)}"


# --- the assignment that bound the split ---


def _bound_by(registry: Path, manifest: Mapping[str, Any]) -> tuple[Path | None, str | None]:
    """The assignment that the split of then went out from, None where it was the first; and what is uncertain of it.

    `tasks.split` keeps one for every as_of: what was made last, and from which earlier one. That of the version itself
    says what bound it; where another run as of the same day has written over it, the newest before that day is taken.
    """
    config, as_of = manifest["config"], manifest["as_of"]
    kept = registry / "splits" / f"{config['preset']}-{config['split']['generation']}"
    before = sorted(path for path in kept.glob("*.parquet") if path.stem < as_of)
    own = kept / f"{as_of}.parquet"
    made_from = read_json(own.with_suffix(".json")) if own.with_suffix(".json").exists() else {}
    bound = made_from.pop("earlier", None)
    if made_from != {"labels": manifest["digests"]["labels"], "split": config["split"], "preset": config["preset"]}:
        taken = before[-1] if before else None
        note = f"the assignment as of {as_of} is no longer the version's own: its split was drawn anew"
        return taken, f"{note}, bound by that of {taken.stem}" if taken else note
    if bound is None:
        return None, None
    # One that was replaced since lives on in the version's own, whose customers have kept its sides.
    return next((path for path in before if digest_file(path) == bound), own), None

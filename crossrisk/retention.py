"""How long what runs made is left lying below `work/<portfolio>/`: which stages and runs may go, and their removal.

    work/<portfolio>/stages/       gone when unused for `retention.stages_days`; rows of customers lie there
    work/<portfolio>/runs/         gone `retention.runs_days` after the run ended, its pages with it
    work/<portfolio>/reproducing/  what `crossrisk reproduce` needed; gone after a day where its process died
    work/<portfolio>/trash/        on their way out
    work/<portfolio>/clean.lock    held (flock) by who removes

Choosing is pure; finding and removing are here too, because what is removed must be what was chosen. Nothing of the
registry is touched: versions go by `crossrisk.registry.pruning`.
"""

from __future__ import annotations

import fcntl
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from crossrisk.config import Folders, Loaded, RetentionConfig
from crossrisk.errors import InputError
from crossrisk.registry import Registry
from crossrisk.registry.ledger import versions_in
from crossrisk.runs import LOCK, RECORD, Run, read_runs
from crossrisk.store import STAGE, locked_if_free

REPRODUCING = "reproducing"
"""below work/<portfolio>: one folder a reproduction, with a lock as that of a run"""
DEAD_AFTER_DAYS = 1
"""What a killed process left half made goes a day later: time to look at it."""
_DAY_S = 86_400

Kind = Literal["stage", "half made stage", "run", "reproduction"]


@dataclass(frozen=True)
class Leftover:
    """A folder that a run made."""

    kind: Kind
    path: Path
    used_unix_s: float
    """when a stage was last used, a run ended, anything else was last written"""
    size_bytes: int

    @property
    def megabytes(self) -> float:
        """Of its files."""
        return self.size_bytes / 1e6

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "kind": self.kind,
            "path": str(self.path),
            "used_unix_s": self.used_unix_s,
            "megabytes": round(self.megabytes, 3),
        }


@dataclass(frozen=True)
class Cleaning:
    """What may go, and what is old enough but stays."""

    removed: tuple[Leftover, ...]
    kept: Mapping[Path, str]
    """folder -> why it stays"""


# --- choosing: pure ---


def choose_leftovers(
    found: Sequence[Leftover],
    retention: RetentionConfig,
    *,
    now: float,
    running_since: float | None,
    needed_runs: Mapping[str, str],
) -> Cleaning:
    """Which folders may go.

    Args:
        found: what lies there, without what belongs to a process that lives.
        retention: days that stages and runs are kept.
        now: Unix seconds.
        running_since: when the run that lives the longest was started; None where none lives. A stage that was used
            since may be one that it needs.
        needed_runs: ids of runs that the registry points to -> why they stay.
    """
    days: dict[Kind, int] = {
        "stage": retention.stages_days,
        "half made stage": DEAD_AFTER_DAYS,
        "run": retention.runs_days,
        "reproduction": DEAD_AFTER_DAYS,
    }
    old = [one for one in found if now - one.used_unix_s > days[one.kind] * _DAY_S]
    why = {one.path: _why_kept(one, running_since, needed_runs) for one in old}
    kept = {path: reason for path, reason in why.items() if reason}
    return Cleaning(tuple(one for one in old if one.path not in kept), kept)


def _why_kept(one: Leftover, running_since: float | None, needed_runs: Mapping[str, str]) -> str | None:
    if one.kind == "run":
        return needed_runs.get(one.path.name)
    of_stages = one.kind in ("stage", "half made stage")
    if of_stages and running_since is not None and one.used_unix_s >= running_since:
        return "a run that lives may need it"
    return None


# --- finding ---


def find_leftovers(folders: Folders) -> list[Leftover]:
    """What lies below a portfolio's work folder and belongs to no process that lives, stages first."""
    return [*_stages(folders.stages), *_ended_runs(folders.runs), *_reproductions(folders.work / REPRODUCING)]


def plan_cleaning(loaded: Loaded, *, now: float) -> Cleaning:
    """Which folders of a portfolio may go at this moment (now, in Unix seconds). Removes nothing.

    Raises:
        PublishError: the ledger is damaged: nobody knows which runs it points to.
    """
    return choose_leftovers(
        find_leftovers(loaded.folders),
        loaded.portfolio.retention,
        now=now,
        running_since=living_since(loaded.folders),
        needed_runs=runs_pointed_to(Registry(loaded.folders.registry)),
    )


def living_since(folders: Folders) -> float | None:
    """Unix seconds at which the run that lives the longest was started; None where none lives."""
    return min((run.started_unix_s for run in read_runs(folders.runs) if run.state == "running"), default=None)


def runs_pointed_to(registry: Registry) -> dict[str, str]:
    """Ids of the runs that champion and pending challengers came from -> why they stay.

    Raises:
        PublishError: the ledger is damaged: nobody knows what it pointed to.
    """
    records = registry.records()
    champion = max(versions_in(records), default=None)
    published = [record for record in records if champion is not None and record.get("version") == champion]
    pending = sorted(registry.pending.iterdir()) if registry.pending.is_dir() else []
    why = {folder.name: "its challenger is pending" for folder in pending}
    return why | {str(record.get("run_id")): f"champion {champion} came from it" for record in published}


def _stages(stages: Path) -> Iterator[Leftover]:
    for folder in sorted(path for path in stages.glob("*/*") if path.is_dir()):
        with suppress(FileNotFoundError):  # finished, and so renamed, at this moment
            if (folder / STAGE).exists():
                yield _leftover("stage", folder, (folder / STAGE).stat().st_mtime)
            else:
                yield _leftover("half made stage", folder, folder.stat().st_mtime)


def _ended_runs(runs: Path) -> Iterator[Leftover]:
    named = {run.run_id: run for run in read_runs(runs)}  # a record cannot lead out of the folder that it lies in
    for folder in sorted(path.parent for path in runs.glob(f"*/{RECORD}")):
        run = named.get(folder.name)
        if run is not None and run.state != "running":
            yield _leftover("run", folder, _ended(run))


def _ended(run: Run) -> float:
    """A run that was killed has no end of its own before somebody has looked."""
    return run.started_unix_s if run.ended_unix_s is None else run.ended_unix_s


def _reproductions(reproducing: Path) -> Iterator[Leftover]:
    for folder in sorted(reproducing.glob("*")):
        with suppress(FileNotFoundError), locked_if_free(folder / LOCK, fcntl.LOCK_EX) as is_dead:
            if is_dead:
                yield _leftover("reproduction", folder, folder.stat().st_mtime)


def _leftover(kind: Kind, folder: Path, used_unix_s: float) -> Leftover:
    files = (path.lstat() for path in folder.rglob("*") if path.is_symlink() or path.is_file())
    return Leftover(kind, folder, used_unix_s, sum(file.st_size for file in files))


# --- removing ---


@contextmanager
def _cleaning(folders: Folders) -> Iterator[None]:
    """Be the only one who removes from a portfolio's work folder; what a dead one had moved away is removed first.

    Raises:
        InputError: somebody else removes at this moment, or the trash is a link.
    """
    folders.work.mkdir(parents=True, exist_ok=True)
    with (folders.work / "clean.lock").open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"another crossrisk clean is at work in {folders.work}; wait for it") from None
        trash = folders.work / "trash"
        if trash.is_symlink() or (trash.exists() and not trash.is_dir()):
            raise InputError(f"{trash} is no folder of its own, and nothing was removed; move it away, and run again")
        _empty(trash)
        yield


def remove_leftovers(chosen: Sequence[Leftover], folders: Folders) -> tuple[Leftover, ...]:
    """Remove what was chosen, and say what is gone.

    A folder is moved away by one rename before anything in it is removed, so that no stage is ever half there; one
    that was used after it was looked at is moved back. Where one cannot be moved, all stay.

    Raises:
        InputError: somebody else removes at this moment, or one lies on another disk or in a folder that may not be
            changed.
    """
    trash = folders.work / "trash"
    with _cleaning(folders):
        trash.mkdir(exist_ok=True)
        gone: dict[Path, Leftover] = {}
        for one in chosen:
            to = trash / uuid.uuid4().hex
            try:
                if _move_away(one, to):
                    gone[to] = one
            except OSError as error:
                _move_back(gone)
                raise InputError(
                    f"{one.path} cannot be moved to {trash} ({error.strerror}), and nothing was removed: both must lie "
                    "on one disk and belong to who cleans"
                ) from error
        _empty(trash)
    return tuple(gone.values())


def _move_back(gone: Mapping[Path, Leftover]) -> None:
    for to, one in gone.items():
        with suppress(OSError):  # made again meanwhile: then the copy here is the one too many
            to.rename(one.path)


def _move_away(one: Leftover, to: Path) -> bool:
    try:
        one.path.rename(to)
    except FileNotFoundError:  # a half made stage that was finished, or swept, meanwhile
        return False
    if one.kind == "stage" and (to / STAGE).stat().st_mtime > one.used_unix_s:
        with suppress(OSError):  # whoever used it has found it gone, and made it again
            to.rename(one.path)
        return False
    return True


def _empty(trash: Path) -> None:
    if trash.is_dir():
        shutil.rmtree(trash)

"""What every run leaves, however it was started and however it ended: a folder with one record and one page.

    work/<portfolio>/runs/<run_id>/run.json   what it was, when, how far it came, what came of it
    work/<portfolio>/runs/<run_id>/lock       held (flock) while the run lives: a record that says `running` with a free
                                              lock is of a run that was killed

A process that is killed ends nothing: whoever looks next ends its record for it (`end_killed`). What a run decided is
in the registry's ledger; the page itself is drawn elsewhere.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from crossrisk.store import locked_if_free, make_private, read_json, write_json

RECORD, LOCK = "run.json", "lock"
SCHEMA_VERSION = 1

State = Literal["running", "completed", "skipped", "blocked", "failed", "killed"]
"""`skipped`: a scheduled run whose period has a result, or was superseded. `killed`: its process did not live to end
the record; written by another, or read off the free lock before that."""


@dataclass(frozen=True)
class Run:
    """One run of a flow."""

    run_id: str
    kind: str
    """retrain, monitor or score"""
    portfolio: str
    as_of: str
    state: State
    started_unix_s: float
    ended_unix_s: float | None = None
    outcome: str | None = None
    """verdict of a retrain, light of a watched month, rows scored"""
    subject: str | None = None
    """the watched month, the folder that scores were written to"""
    step: str | None = None
    """where it is, or was when it ended early"""
    message: str | None = None
    """why it ended early"""
    page: str | None = None
    """name of its page in its folder"""
    seconds: Mapping[str, float] | None = None
    """of each step"""

    @property
    def started(self) -> str:
        """YYYY-MM-DD HH:MM UTC"""
        return time.strftime("%Y-%m-%d %H:%M", time.gmtime(self.started_unix_s)) + " UTC"


@dataclass(frozen=True)
class Records:
    """What a folder of runs holds."""

    runs: tuple[Run, ...]
    """the last started first"""
    unreadable: tuple[Path, ...]
    """records that are none: broken, or of another release"""


_RUN = TypeAdapter(Run)


def keep_run(folder: Path, run: Run) -> None:
    """Write a run's record, whole."""
    write_json(folder / RECORD, {"schema_version": SCHEMA_VERSION, **asdict(run)})


def read_runs(runs: Path) -> list[Run]:
    """All runs below a folder of runs whose record can be read, the last started first."""
    return list(read_records(runs).runs)


def read_records(runs: Path) -> Records:
    """All runs below a folder of runs, and the records that hide one. A folder without a record is no run of ours."""
    found, unreadable = [], []
    for record in sorted(runs.glob(f"*/{RECORD}")):
        try:
            found.append(_read(record))
        except (OSError, ValueError):  # one broken file must not hide all others; it is named
            unreadable.append(record)
    found.sort(key=lambda run: (run.started_unix_s, run.run_id), reverse=True)
    return Records(tuple(found), tuple(unreadable))


def _read(record: Path) -> Run:
    with locked_if_free(record.with_name(LOCK), fcntl.LOCK_EX) as is_dead:
        run = _written(record)  # not before: a run may end, and free its lock, in between
    return replace(run, state="killed") if is_dead and run.state == "running" else run


def _written(record: Path) -> Run:
    """The record as it stands. Raises ValueError where it is none of ours."""
    document = read_json(record)
    if not isinstance(document, dict) or document.pop("schema_version", None) != SCHEMA_VERSION:
        raise ValueError(f"{record}: expected an object of schema_version {SCHEMA_VERSION}")
    return _RUN.validate_python(document)


def end_killed(runs: Path, write_page: Callable[[Path, Run], None]) -> None:
    """End the records of runs that were killed; a record that cannot be read is left as it is.

    The run's lock is held meanwhile, so that a run which starts again in the same folder waits and has the last word.

    Args:
        runs: folder of runs.
        write_page: is given folder and ended run, before the record is kept: whoever dies in between leaves both to the
            next.

    Raises:
        OSError: the folder may be read only.
    """
    for record in sorted(runs.glob(f"*/{RECORD}")):
        with locked_if_free(record.with_name(LOCK), fcntl.LOCK_EX) as is_dead:
            if is_dead:
                _end(record, write_page)


def _end(record: Path, write_page: Callable[[Path, Run], None]) -> None:
    """End a record of which nobody alive holds the lock. One that cannot be read is named by `read_records`."""
    try:
        run = _written(record)
    except (OSError, ValueError):
        return
    if run.state == "running":
        ended = replace(run, state="killed")
        write_page(record.parent, ended)
        keep_run(record.parent, ended)


@contextmanager
def alive(folder: Path) -> Iterator[None]:
    """Hold the run's lock for as long as its process lives."""
    make_private(folder.parent)  # pages hold examples of values, and groups of few customers
    folder.mkdir(exist_ok=True)
    with (folder / LOCK).open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_SH)
        yield

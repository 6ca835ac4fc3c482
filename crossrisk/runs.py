"""What every run leaves, however it was started and however it ended: a folder with one record and one page.

    work/<portfolio>/runs/<run_id>/run.json   what it was, when, how far it came, what came of it
    work/<portfolio>/runs/<run_id>/lock       held (flock) while the run lives: a record that says `running` with a free
                                              lock is of a run that was killed

What a run decided is in the registry's ledger; the page itself is drawn elsewhere.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from crossrisk.store import read_json, write_json

RECORD, LOCK = "run.json", "lock"

State = Literal["running", "completed", "blocked", "failed", "killed"]
"""`killed` is never written: it is what `read_runs` makes of a record that its process did not live to end."""


@dataclass(frozen=True)
class Run:
    """One run of a flow."""

    run_id: str
    kind: str
    """retrain or monitor"""
    portfolio: str
    as_of: str
    state: State
    started_unix_s: float
    ended_unix_s: float | None = None
    outcome: str | None = None
    """verdict of a retrain, light of a watched month"""
    subject: str | None = None
    """the watched month"""
    step: str | None = None
    """where it is, or was when it ended early"""
    message: str | None = None
    """why it ended early"""
    page: str | None = None
    """name of its page in its folder"""
    seconds: Mapping[str, float] | None = None
    """of each step"""


def keep_run(folder: Path, run: Run) -> None:
    """Write a run's record, whole."""
    write_json(folder / RECORD, {"schema_version": 1, **asdict(run)})


def read_runs(runs: Path) -> list[Run]:
    """All runs below a folder of runs, the last started first. A folder without a record is no run of ours."""
    found = [_read(record) for record in runs.glob(f"*/{RECORD}")]
    return sorted(found, key=lambda run: (run.started_unix_s, run.run_id), reverse=True)


def _read(record: Path) -> Run:
    document: dict[str, Any] = read_json(record)
    document.pop("schema_version")
    if document["state"] == "running" and not _is_held(record.with_name(LOCK)):
        document["state"] = "killed"
    return Run(**document)


@contextmanager
def alive(folder: Path) -> Iterator[None]:
    """Hold the run's lock for as long as its process lives."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_SH)
        yield


def _is_held(lock: Path) -> bool:
    if not lock.exists():
        return False
    with lock.open() as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False

"""One line about a portfolio: champion, age and expiry, last and next run, last verdict, light of the newest month.

Read from the registry and from the runs' records; when a server will start the next run is asked elsewhere and comes as
an argument. What is damaged is said in the line, and hides nothing else. Only records and pages of runs that were
killed are written here: their own process could not.
"""

from __future__ import annotations

import fcntl
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from crossrisk.config import Loaded
from crossrisk.errors import PublishError
from crossrisk.registry import Registry, read_manifest
from crossrisk.runs import Run, end_killed, read_records
from crossrisk.store import locked_if_free

logger = logging.getLogger("crossrisk.status")

_DAY_S = 86_400
_PATHS_SHOWN = 3

T = TypeVar("T")


@dataclass(frozen=True)
class NextRun:
    """When a server starts the portfolio's next run, or why nobody knows."""

    at: str | None
    """YYYY-MM-DD HH:MM UTC"""
    deployment: str | None
    why_not: str | None = None

    def __str__(self) -> str:
        return f"{self.at} ({self.deployment})" if self.at else str(self.why_not)


@dataclass(frozen=True)
class PortfolioStatus:
    """What one would ask first."""

    portfolio: str
    champion: int | None
    contender: str | None
    trained_as_of: str | None
    published: str | None
    """date, UTC"""
    age_days: int | None
    """days since publication"""
    expires: str | None
    """date from which the champion is due for review"""
    days_left: int | None
    """until then; zero or less: it has expired"""
    last_run: Run | None
    last_verdict: str | None
    """of the ledger's last decision"""
    decided_as_of: str | None
    last_light: str | None
    """of the newest month that was watched to the end"""
    watched_month: str | None
    next_run: NextRun
    damage: str | None
    """what is wrong with the registry, and the next move"""
    unfinished: bool
    """whether a publisher died half way: nothing is damaged, the next one finishes or sweeps it"""
    unreadable: tuple[str, ...]
    """paths of records of runs that cannot be read"""

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"schema_version": 1, **asdict(self)}


def read_status(loaded: Loaded, *, now: float, next_run: NextRun) -> PortfolioStatus:
    """The status of a portfolio, however damaged its registry or records are.

    Args:
        loaded: the portfolio and its folders.
        now: Unix seconds.
        next_run: as a server knows it.
    """
    registry, damage = Registry(loaded.folders.registry), list[str]()
    versions = registry.versions()
    champion = versions[-1] if versions else None
    _or_note(damage, registry.champion, None)
    manifest: dict[str, Any] = {}
    if champion is not None:
        manifest = _or_note(damage, partial(read_manifest, registry, champion), manifest)
    lines: list[dict[str, Any]] = _or_note(damage, registry.records, [])
    expires = _or_note(damage, partial(_expiry, manifest, registry), None)
    _end_killed(loaded.folders.runs, champion)
    records = read_records(loaded.folders.runs)
    watched = _newest_watched(records.runs)
    last = next((record for record in reversed(lines) if "decision" in record), None)
    return PortfolioStatus(
        portfolio=loaded.portfolio.name,
        champion=champion,
        contender=manifest.get("contender"),
        trained_as_of=manifest.get("as_of"),
        published=_day(champion) if champion else None,
        age_days=max(int(now - champion) // _DAY_S, 0) if champion else None,
        expires=expires.isoformat() if expires else None,
        days_left=(expires - datetime.fromtimestamp(now, UTC).date()).days if expires else None,
        last_run=records.runs[0] if records.runs else None,
        last_verdict=last["decision"]["verdict"] if last else None,
        decided_as_of=last["as_of"] if last else None,
        last_light=watched.outcome if watched else None,
        watched_month=watched.subject if watched else None,
        next_run=next_run,
        damage="; ".join(damage) or None,
        unfinished=_is_unfinished(registry),
        unreadable=tuple(str(path) for path in records.unreadable),
    )


def _or_note(damage: list[str], read: Callable[[], T], otherwise: T) -> T:
    """What is read, or `otherwise` and why it could not be."""
    try:
        return read()
    except PublishError as error:
        if str(error) not in damage:
            damage.append(str(error))
        return otherwise


def _expiry(manifest: dict[str, Any], registry: Registry) -> date | None:
    """Raises PublishError where what the manifest says is no date."""
    try:
        return date.fromisoformat(manifest["expires"]) if "expires" in manifest else None
    except (TypeError, ValueError) as error:
        raise PublishError(
            f"a manifest in {registry.root} says that it expires {manifest['expires']!r}, which is no date; restore it "
            "from a backup"
        ) from error


def _is_unfinished(registry: Registry) -> bool:
    """Whether an intent lies there and nobody is at work on it; while the lock is ours no publisher can begin."""
    with locked_if_free(registry.root / "lock", fcntl.LOCK_SH) as nobody_publishes:
        return nobody_publishes and registry.intent.exists()


def _end_killed(runs: Path, champion: int | None) -> None:
    def write_page(folder: Path, run: Run) -> None:
        from crossrisk.pages.run_page import write_killed_page  # draws: a second that no other status needs

        write_killed_page(folder, run, champion=champion)

    try:
        end_killed(runs, write_page)
    except OSError as error:  # who may only read is still told that the run was killed
        logger.warning("record and page of a killed run stay as they are: %s", error)


def _newest_watched(runs: Sequence[Run]) -> Run | None:
    """The last watch of the newest month: that of an older one, watched again later, does not hide it."""
    finished = (run for run in runs if run.kind == "monitor" and run.state == "completed")
    return max(finished, key=lambda run: (run.subject or "", run.started_unix_s), default=None)


def status_line(status: PortfolioStatus) -> str:
    """The status as one line."""
    champion = _champion_text(status) + (f", DAMAGED: {status.damage}" if status.damage else "")
    if status.unfinished:
        champion += ", a publication was interrupted: the next run finishes it"
    verdict = f"{status.last_verdict} as of {status.decided_as_of}" if status.last_verdict else "none"
    light = f"{status.last_light} for {status.watched_month}" if status.last_light else "none"
    return (
        f"{status.portfolio}: {champion} | last run {_run_text(status.last_run)} | last verdict {verdict} | "
        f"light {light} | next run {status.next_run}{_unreadable_text(status.unreadable)}"
    )


def _champion_text(status: PortfolioStatus) -> str:
    if not status.champion:
        return "no champion"
    origin = f" ({status.contender}, as of {status.trained_as_of})" if status.contender else ""
    return f"champion {status.champion}{origin}, {_days(status.age_days)} old{_expiry_text(status)}"


def _expiry_text(status: PortfolioStatus) -> str:
    if status.days_left is None:
        return ""
    if status.days_left <= 0:
        return f", EXPIRED since {status.expires}"
    return f", expires {status.expires} (in {_days(status.days_left)})"


def _unreadable_text(paths: Sequence[str]) -> str:
    if not paths:
        return ""
    more = f" and {len(paths) - _PATHS_SHOWN} more" if len(paths) > _PATHS_SHOWN else ""
    return f" | unreadable, broken or of another release: {', '.join(paths[:_PATHS_SHOWN])}{more}"


def _run_text(run: Run | None) -> str:
    if run is None:
        return "none"
    said = f" ({run.outcome})" if run.outcome else f" at {run.step}" if run.step else ""
    return f"{run.started} {run.kind} {run.state}{said}"


def _days(days: int | None) -> str:
    return "1 day" if days == 1 else f"{days} days"


def _day(unix_s: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(unix_s))

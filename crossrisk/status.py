"""One line about a portfolio: champion, its age, last and next run, last verdict, last month's light.

Read from the registry's ledger and from the runs' records; when a server will start the next run is asked elsewhere and
comes as an argument. Nothing is written here.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from crossrisk.config import Loaded
from crossrisk.registry import Registry, read_ledger, read_manifest
from crossrisk.runs import Run, read_runs

_DAY_S = 86_400


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
    last_run: Run | None
    last_verdict: str | None
    """of the ledger's last decision"""
    decided_as_of: str | None
    last_light: str | None
    """of the last month that was watched to the end"""
    watched_month: str | None
    next_run: NextRun

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"schema_version": 1, **asdict(self)}


def read_status(loaded: Loaded, *, now: float, next_run: NextRun) -> PortfolioStatus:
    """The status of a portfolio.

    Args:
        loaded: the portfolio and its folders.
        now: Unix seconds.
        next_run: as a server knows it.

    Raises:
        PublishError: the ledger's chain does not hold, or the champion has no manifest.
    """
    registry = Registry(loaded.folders.registry)
    versions, decisions, runs = registry.versions(), read_ledger(registry), read_runs(loaded.folders.runs)
    champion = versions[-1] if versions else None
    manifest = read_manifest(registry, champion) if champion else {}
    watched = _last_watched(runs)
    last = decisions[-1] if decisions else None
    return PortfolioStatus(
        portfolio=loaded.portfolio.name,
        champion=champion,
        contender=manifest.get("contender"),
        trained_as_of=manifest.get("as_of"),
        published=_day(champion) if champion else None,
        age_days=max(int(now - champion) // _DAY_S, 0) if champion else None,
        last_run=runs[0] if runs else None,
        last_verdict=last["decision"]["verdict"] if last else None,
        decided_as_of=last["as_of"] if last else None,
        last_light=watched.outcome if watched else None,
        watched_month=watched.subject if watched else None,
        next_run=next_run,
    )


def _last_watched(runs: Sequence[Run]) -> Run | None:
    finished = (run for run in runs if run.kind == "monitor" and run.state == "completed")
    return next(finished, None)


def status_line(status: PortfolioStatus) -> str:
    """The status as one line."""
    champion = (
        f"champion {status.champion} ({status.contender}, as of {status.trained_as_of}), {_days(status.age_days)} old"
        if status.champion
        else "no champion"
    )
    verdict = f"{status.last_verdict} as of {status.decided_as_of}" if status.last_verdict else "none"
    light = f"{status.last_light} for {status.watched_month}" if status.last_light else "none"
    return (
        f"{status.portfolio}: {champion} | last run {_run_text(status.last_run)} | last verdict {verdict} | "
        f"light {light} | next run {status.next_run}"
    )


def _run_text(run: Run | None) -> str:
    if run is None:
        return "none"
    said = f" ({run.outcome})" if run.outcome else f" at {run.step}" if run.step else ""
    return f"{_minute(run.started_unix_s)} {run.kind} {run.state}{said}"


def _days(days: int | None) -> str:
    return "1 day" if days == 1 else f"{days} days"


def _day(unix_s: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(unix_s))


def _minute(unix_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(unix_s)) + " UTC"

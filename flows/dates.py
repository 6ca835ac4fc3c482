"""The logical date of a run: given, scheduled, or the portfolio's own; never today's."""

from __future__ import annotations

from prefect.runtime import deployment, flow_run


def logical_date(as_of: str) -> str:
    """The date given; else, in a run of a deployment, the day (UTC) that it was scheduled for; else empty: the TOML's.

    Never today's date: a run that is late, or repeated in a year, must see what it would have seen in time.
    """
    if as_of or not deployment.id:
        return as_of
    return str(flow_run.scheduled_start_time.date().isoformat())

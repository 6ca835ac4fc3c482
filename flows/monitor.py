"""The monthly watch, top to bottom: the champion and a month of the target in; a light with its reasons out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.runtime import deployment, flow_run
from pydantic import Field

from crossrisk.config import load_run
from crossrisk.monitoring import watched_month
from crossrisk.quiet import make_quiet
from tasks.ingest import ingest
from tasks.monitor import collect_months, measure_months, report_month, score_months, set_light, watched_champion


def run_name() -> str:
    """Name of a flow run in the UI: flow, portfolio and, where it was given, the month."""
    parameters = flow_run.parameters
    return "-".join(filter(None, ["monitor", Path(parameters["config"]).stem, parameters.get("month")]))


def logical_date(as_of: str) -> str:
    """The date given; else, in a run of a deployment, the day (UTC) that it was scheduled for; else empty: the TOML's.

    Never today's date: a run that is late, or repeated in a year, must see what it would have seen in time.
    """
    if as_of or not deployment.id:
        return as_of
    return str(flow_run.scheduled_start_time.date().isoformat())


@flow(name="monitor", flow_run_name=run_name)
def monitor(
    config: str = Field(title="Portfolio", description="path of the portfolio's TOML"),
    month: str = Field(
        default="",
        title="Month",
        description="YYYY-MM; empty: the last that was complete a reporting lag before as_of.",
        pattern=r"^(\d{4}-\d{2})?$",
    ),
    as_of: str = Field(
        default="",
        title="As of",
        description="logical date, YYYY-MM-DD; empty: the day the run was scheduled for, else the one in the TOML.",
        pattern=r"^(\d{4}-\d{2}-\d{2})?$",
    ),
    overrides: list[str] = Field(  # noqa: B008 - Prefect reads the form's fields from here
        default=[], title="Overrides", description="dotted key=value on top of the TOML"
    ),
) -> dict[str, Any]:
    """Compare a month of the target with what the champion was published on. Returns the result, schema_version 1."""
    make_quiet(os.environ)
    loaded = load_run(config, os.environ, as_of=logical_date(as_of), overrides=overrides)
    chosen = watched_month(month, loaded.portfolio)
    run_id = f"{loaded.portfolio.as_of.isoformat()}-{(flow_run.get_id() or os.urandom(4).hex())[:8]}"

    watched = watched_champion(loaded)
    ingested = ingest(loaded)
    collected = collect_months(loaded, ingested, watched, chosen)
    scored = score_months(loaded, watched, collected)
    measured = measure_months(loaded, watched, collected, scored, chosen)
    signals = set_light(loaded, watched, measured)
    return report_month(loaded, run_id, watched, ingested, collected, measured, signals)

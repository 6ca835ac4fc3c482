"""The monthly watch, top to bottom: the champion and a month of the target in; a light with its reasons out."""

from __future__ import annotations

import os
from typing import Annotated, Any

from prefect import flow
from pydantic import Field, StringConstraints

from crossrisk.config import load_run
from crossrisk.monitoring import watched_month
from crossrisk.quiet import make_quiet
from flows.dates import logical_date
from flows.recording import recorded, run_name
from tasks.ingest import ingest
from tasks.monitor import collect_months, measure_months, score_months, set_light, watched_champion
from tasks.monitor_hidden import compare_hidden
from tasks.monitor_report import report_month


@flow(name="monitor", flow_run_name=run_name)
def monitor(
    config: str = Field(
        json_schema_extra={"title": "Portfolio"}, description="path of the portfolio's TOML, relative to CROSSRISK_HOME"
    ),
    month: Annotated[str, StringConstraints(pattern=r"^(\d{4}-\d{2})?$")] = Field(
        default="",
        json_schema_extra={"title": "Month"},
        description="YYYY-MM; empty: the last that was complete a reporting lag before as_of.",
    ),
    as_of: Annotated[str, StringConstraints(pattern=r"^(\d{4}-\d{2}-\d{2})?$")] = Field(
        default="",
        json_schema_extra={"title": "As of"},
        description="logical date, YYYY-MM-DD; empty: the day the run was scheduled for, else the one in the TOML.",
    ),
    overrides: list[str] = Field(  # noqa: B008 - Prefect reads the form's fields from here
        default=[], json_schema_extra={"title": "Overrides"}, description="dotted key=value on top of the TOML"
    ),
) -> dict[str, Any]:
    """Compare a month of the target with what the champion was published on. Returns the result, schema_version 1."""
    make_quiet(os.environ)
    loaded = load_run(config, os.environ, as_of=logical_date(as_of), overrides=overrides)
    chosen = watched_month(month, loaded.portfolio)
    with recorded("monitor", loaded, subject=chosen) as run:
        watched = run.step("find the champion", watched_champion, loaded)
        ingested = run.step("ingest", ingest, loaded)
        collected = run.step("collect months", collect_months, loaded, ingested, watched, chosen)
        scored = run.step("score months", score_months, loaded, watched, collected)
        measured = run.step("measure months", measure_months, loaded, watched, collected, scored, chosen)
        hidden = run.step("compare hidden features", compare_hidden, loaded, watched, collected, chosen)
        signals = run.step("set the light", set_light, loaded, watched, measured)
        result = run.step(
            "report month", report_month, loaded, run.id, watched, ingested, collected, measured, hidden, signals
        )
        run.finish(result["light"])
        return result

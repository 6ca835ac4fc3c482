"""When a server starts a portfolio's next run, asked of the server itself; an answer of `why not` is an answer too."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC
from pathlib import Path
from typing import Any

from crossrisk.status import NextRun

ANSWER_TIMEOUT_S = 5.0
RUNS_ASKED = 200
"""A page of the server's: soonest first, so that the next of a portfolio is on it while fewer portfolios wait before"""


def served_by(environ: Mapping[str, str]) -> str | None:
    """The API address of the server to ask: Prefect's own setting, else what `make serve` started here."""
    from prefect.settings import PREFECT_API_URL

    noted = Path(environ.get("CROSSRISK_HOME") or ".") / "work" / "serve" / "api_url"
    configured: str | None = PREFECT_API_URL.value()
    return configured or (noted.read_text(encoding="utf-8").strip() if noted.exists() else None)


def next_run(config: str, environ: Mapping[str, str]) -> NextRun:
    """The portfolio's next scheduled run.

    Args:
        config: path of the portfolio's TOML, absolute.
        environ: CROSSRISK_HOME is what the paths in deployments are relative to.
    """
    url = served_by(environ)
    if url is None:
        return NextRun(None, None, "unknown: no server (PREFECT_API_URL is not set, make serve is not running)")
    from httpx import HTTPError
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
    from prefect.client.schemas.objects import StateType
    from prefect.client.schemas.sorting import FlowRunSort
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_KEY

    scheduled = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])))
    key, login = PREFECT_API_KEY.value(), PREFECT_API_AUTH_STRING.value()
    settings = {"timeout": ANSWER_TIMEOUT_S}
    try:
        with SyncPrefectClient(
            url,
            api_key=key.get_secret_value() if key else None,
            auth_string=login.get_secret_value() if login else None,
            httpx_settings=settings,
        ) as client:
            waiting = client.read_flow_runs(
                flow_run_filter=scheduled, sort=FlowRunSort.EXPECTED_START_TIME_ASC, limit=RUNS_ASKED
            )
            mine = [run for run in waiting if _is_of(run.parameters, config, environ)]
            if not mine:
                return NextRun(None, None, f"none is scheduled at {url}")
            deployment = client.read_deployment(mine[0].deployment_id) if mine[0].deployment_id else None
            flow = client.read_flow(mine[0].flow_id)
    except (HTTPError, RuntimeError) as error:
        return NextRun(None, None, f"unknown: {url} does not answer ({type(error).__name__})")
    name = f"{flow.name}/{deployment.name}" if deployment else flow.name
    at = mine[0].expected_start_time
    return NextRun(at.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC") if at else None, name)


def _is_of(parameters: Mapping[str, Any], config: str, environ: Mapping[str, str]) -> bool:
    given = parameters.get("config")
    if not isinstance(given, str):
        return False
    return (Path(environ.get("CROSSRISK_HOME") or ".") / given).resolve() == Path(config).resolve()

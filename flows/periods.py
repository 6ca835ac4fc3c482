"""Scheduled runs that come too late: their period has a result, or a later period is due. Asked at a run's start.

Only runs that a schedule made are ever skipped: what a person asks for is done. What a result is stays in
`crossrisk.periods`; here the server is asked for the runs that wait behind this one.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.runtime import deployment, flow_run

from crossrisk import periods
from crossrisk.config import Loaded
from crossrisk.registry import Registry

SCHEDULED_TAG = "auto-scheduled"
"""Prefect's own, on every run that its scheduler made."""
_UNDER_WAY = (StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING)


def why_superfluous(loaded: Loaded) -> str | None:
    """Why this run, if a schedule made it, needs no result; None where it must run.

    Raises:
        PublishError: the ledger is damaged.
    """
    if SCHEDULED_TAG not in flow_run.tags:
        return None
    settled = periods.why_superfluous(Registry(loaded.folders.registry).records(), loaded.portfolio)
    if settled is not None:
        return settled
    later = _due_later(flow_run.scheduled_start_time, flow_run.parameters)
    if later is None:
        return None
    return (
        f"as of {loaded.portfolio.as_of} is superseded: the run scheduled for {later:%Y-%m-%d %H:%M} UTC is due as "
        "well. To have this period's result too, ask on demand with its date"
    )


def _due_later(scheduled: datetime, parameters: Mapping[str, Any]) -> datetime | None:
    """When the latest run of the same schedule was due that is due by now, waits or runs, and lies after this one."""
    made_by_schedule = FlowRunFilter(
        deployment_id=FlowRunFilterDeploymentId(any_=[deployment.id]),
        tags=FlowRunFilterTags(all_=[SCHEDULED_TAG]),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(_UNDER_WAY))),
        expected_start_time=FlowRunFilterExpectedStartTime.model_validate({"before_": datetime.now(UTC)}),
    )
    with get_client(sync_client=True) as client:
        waiting = client.read_flow_runs(flow_run_filter=made_by_schedule)
    same = (run for run in waiting if all(parameters.get(key) == value for key, value in run.parameters.items()))
    due = [_scheduled_time(run) for run in same]
    return max((at for at in due if at > scheduled), default=None)


def _scheduled_time(run: FlowRun) -> datetime:
    at = run.expected_start_time or run.next_scheduled_start_time
    assert at is not None, "a run that a schedule made has a time"
    return at

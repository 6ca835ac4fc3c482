"""Placeholder while the shift diagnosis is merged."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from crossrisk.config import Loaded
from crossrisk.store import Stage, stage


@task(name="diagnose shift", cache_policy=NO_CACHE)
def diagnose_shift(
    loaded: Loaded, ingested: Stage, encoded: Stage, fitted: Stage, split: Stage, calibrated: Stage
) -> Stage:
    """Placeholder."""
    return stage(loaded.folders.stages, "diagnosed", {"x": 1}, lambda _: {"leaks": [], "drivers_shift": None})

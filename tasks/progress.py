"""Progress of one long step: a bar in the terminal, a progress artifact in the Prefect UI, nothing where neither is."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.context import TaskRunContext
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

ARTIFACT_EVERY_S = 2.0

Report = Callable[[int, int, str], None]
"""done, total, what is being done"""


@contextmanager
def progress(title: str) -> Iterator[Report]:
    """Show the progress of a step; the body calls the report as often as it likes."""
    console = Console(stderr=True)
    bar = Progress(
        TextColumn(title), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeElapsedColumn(),
        console=console, disable=not sys.stderr.isatty(), transient=True,
    )  # fmt: skip
    in_task = TaskRunContext.get() is not None
    artifact = create_progress_artifact(progress=0.0, description=title) if in_task else None
    last = time.monotonic()
    with bar:
        line = bar.add_task("", total=None)

        def report(done: int, total: int, message: str) -> None:
            nonlocal last
            bar.update(line, completed=done, total=total, description=message)
            if artifact is not None and (done == total or time.monotonic() - last > ARTIFACT_EVERY_S):
                update_progress_artifact(artifact, progress=100.0 * done / max(total, 1))  # type: ignore[arg-type]
                last = time.monotonic()

        yield report

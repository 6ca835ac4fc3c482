"""The frame around a flow: its run has an id, a name, a record and a page from the first step to the last.

However a run ends, its folder says so (`crossrisk.runs`); what the steps do stays in the flows.
"""

from __future__ import annotations

import getpass
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, ParamSpec, TypeVar

from prefect.client.schemas.objects import State
from prefect.exceptions import TerminationSignal
from prefect.runtime import flow_run
from prefect.states import Completed

from crossrisk.config import Loaded
from crossrisk.errors import CrossriskError, ValidationBlockedError
from crossrisk.pages.run_page import render_run
from crossrisk.registry import Registry
from crossrisk.runs import Run, alive, keep_run
from crossrisk.store import write_text

logger = logging.getLogger("crossrisk.run")

P = ParamSpec("P")
R = TypeVar("R")

Kind = Literal["retrain", "monitor", "score"]
PAGES: dict[Kind, str] = {"retrain": "report.html", "monitor": "monitor.html", "score": "score.html"}


def _is_worth_a_line(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], CrossriskError))


# An error of ours says what to do, and Prefect logs it with the run's state; pages of its frames above only hide that.
# At import, because a worker's run logs through Prefect alone and a config may be refused before its record begins.
for _name in ("prefect.task_runs", "prefect.flow_runs"):
    logging.getLogger(_name).addFilter(_is_worth_a_line)


def run_name() -> str:
    """Name of a flow run in the UI: flow, portfolio and, where they were given, month and logical date."""
    given = flow_run.parameters
    parts = [flow_run.flow_name, Path(given["config"]).stem, given.get("month"), given.get("as_of")]
    return "-".join(filter(None, parts))


def requester(given: str) -> str:
    """Who asked for a run: the name given, else the login name of the process. Typed, not authenticated."""
    return given.strip() or getpass.getuser()


@dataclass
class Recording:
    """A run while it runs."""

    folder: Path
    run: Run
    registry: Registry
    attached: list[str] = field(default_factory=list)

    @property
    def id(self) -> str:
        """Of the run."""
        return self.run.run_id

    @property
    def seconds(self) -> dict[str, float]:
        """Of each step up to now."""
        return dict(self.run.seconds or {})

    def step(self, name: str, step: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run one step under a name; the record knows where the run is, and how long each step took."""
        self.run = replace(self.run, step=name)
        keep_run(self.folder, self.run)
        self.write_page()
        started = time.monotonic()
        try:
            return step(*args, **kwargs)
        finally:
            self.run = replace(self.run, seconds={**self.seconds, name: round(time.monotonic() - started, 2)})

    def attach(self, page: Path) -> Path:
        """Copy a page that a step has made into the run's folder."""
        self.attached.append(page.name)
        return Path(shutil.copyfile(page, self.folder / page.name))

    def finish(self, outcome: str) -> None:
        """The run has come to its end and has written its own page."""
        self.run = replace(self.run, state="completed", outcome=outcome, step=None, ended_unix_s=time.time())
        keep_run(self.folder, self.run)

    def skip(self, why: str) -> State[None]:
        """The run has nothing to do; the state in which the flow ends."""
        self.run = replace(self.run, state="skipped", message=why, step=None, ended_unix_s=time.time())
        keep_run(self.folder, self.run)
        self.write_page()
        logger.info("skipped: %s", why)
        return Completed(name="Skipped", message=why)

    def end_early(self, error: BaseException) -> None:
        """The run was blocked, failed or was stopped: its page says why and where."""
        state: Literal["blocked", "failed"] = "blocked" if isinstance(error, ValidationBlockedError) else "failed"
        self.run = replace(self.run, state=state, message=_why(error), ended_unix_s=time.time())
        keep_run(self.folder, self.run)
        self.write_page()

    def write_page(self) -> None:
        """Write the page of a run that has no report (yet)."""
        champion = max(self.registry.versions(), default=None)
        page = render_run(self.run, champion=champion, attached=self.attached)
        write_text(self.folder / str(self.run.page), page)


def _why(error: BaseException) -> str:
    """In words for the page. What is no `Exception` came from outside the run, and its type tells a reader nothing."""
    if isinstance(error, Exception):
        return f"{type(error).__name__}: {error}"
    if isinstance(error, KeyboardInterrupt):
        return "stopped by an interrupt (Ctrl-C)"
    if isinstance(error, TerminationSignal):
        return "stopped by a signal to end (make stop, a cancellation in the UI, a shutdown)"
    return "stopped: its process was told to exit"


@contextmanager
def recorded(kind: Kind, loaded: Loaded, *, subject: str | None = None) -> Iterator[Recording]:
    """Keep the record and the page of a run, from its start to its end or its error, which passes through.

    Args:
        kind: of the flow.
        loaded: the portfolio and its folders.
        subject: the watched month, of a monitoring run; the folder that is written, of one that scores.
    """
    portfolio = loaded.portfolio
    run_id = f"{portfolio.as_of.isoformat()}-{(flow_run.get_id() or os.urandom(4).hex())[:8]}"
    run = Run(
        run_id=run_id,
        kind=kind,
        portfolio=portfolio.name,
        as_of=portfolio.as_of.isoformat(),
        state="running",
        started_unix_s=time.time(),
        subject=subject,
        page=PAGES[kind],
    )
    recording = Recording(loaded.folders.runs / run_id, run, Registry(loaded.folders.registry))
    with alive(recording.folder):
        keep_run(recording.folder, run)
        recording.write_page()
        try:
            yield recording
        except BaseException as error:
            try:
                recording.end_early(error)
            except OSError:  # a full disk may be why the run failed: that error is the one to see
                logger.exception("the page of run %s could not be written", run_id)
            raise

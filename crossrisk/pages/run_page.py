"""The page of a run that has no report of its own: it is still running, was blocked, failed, or was killed.

`render_run` is pure: the run's record in, text out; what is said is in templates/run.html.j2.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from crossrisk.pages.plots import draw_seconds
from crossrisk.pages.texts import Words, environment
from crossrisk.runs import Run, State
from crossrisk.store import write_text

_STARTED = '<section class="verdict is-running">'
"""Only the page that is written at a run's start holds this: names from the data are escaped."""


STATES: dict[State, Words] = {
    "running": Words(
        "…",
        "Running",
        "This page is replaced when the run ends. Where the run is over and it still says this, its process was "
        "killed: crossrisk status CONFIG tells, and rewrites this page.",
    ),
    "completed": Words("✓", "Completed", "The run came to its end."),
    "skipped": Words("→", "Skipped", "Every period has one result; this scheduled run had none to make."),
    "blocked": Words(
        "■", "Blocked", "Validation stopped the run: nothing was trained, nothing was published, the champion stays."
    ),
    "failed": Words(
        "✕", "Failed", "The run ended early. Finished steps are kept: once the cause is mended, run it again to go on."
    ),
    "killed": Words(
        "✕",
        "Killed",
        "The run's process ended without a word: it was killed, or the machine went down. Start it again to go on: "
        "finished steps are found and skipped.",
    ),
}


def render_run(run: Run, *, champion: int | None, attached: Sequence[str] = ()) -> str:
    """A run as one HTML page: no script, nothing fetched, every value escaped.

    Args:
        run: its record.
        champion: the version in production when the page is written.
        attached: names of further pages in its folder.
    """
    return (
        environment()
        .get_template("run.html.j2")
        .render(
            run=run,
            words=STATES[run.state],
            champion=champion,
            attached=attached,
            picture=draw_seconds(run.seconds) if run.seconds and run.state != "running" else None,
        )
    )


def write_killed_page(folder: Path, run: Run, *, champion: int | None) -> None:
    """Replace the page of a run's start, of a run that has been killed since. A report that it still wrote is kept."""
    page = folder / (run.page or "")
    if page.is_file() and _STARTED in page.read_text(encoding="utf-8"):
        others = sorted(path.name for path in folder.glob("*.html") if path != page)
        write_text(page, render_run(run, champion=champion, attached=others))

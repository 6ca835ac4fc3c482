"""A decision explained: every number against every rule, from the evidence that the run recorded.

Carrying out what a person makes of it is `tasks.publish.settle_pending`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from crossrisk.config import GateConfig
from crossrisk.errors import InputError
from crossrisk.evidence import Evidence
from crossrisk.pages.reporting import OUTCOMES, VERDICTS
from crossrisk.policy import Decision, decide_under
from crossrisk.store import read_json
from flows.screen import open_console, plain

_SCHEMA_VERSION = 1
"""of a retrain's report.json"""


@dataclass(frozen=True)
class Explanation:
    """A run's decision, taken again from its recorded evidence."""

    run_id: str
    decision: Decision
    recorded: str
    """verdict that the run came to"""
    look: int

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "schema_version": 1,
            "run_id": self.run_id,
            "recorded": self.recorded,
            "look": self.look,
            **self.decision.to_json(),
        }


def find_run(run: str, home: Path) -> Path:
    """The folder of a run, by its folder, its report.json, or its id in any portfolio of `home`.

    Raises:
        InputError: none, or several portfolios have one of that id.
    """
    given = Path(run)
    for folder in (given, given.parent):
        if (folder / "report.json").exists() and (folder == given or given.name == "report.json"):
            return folder
    found = sorted(path.parent for path in home.glob(f"work/*/runs/{run}/report.json")) if _is_id(run) else []
    if len(found) != 1:
        what = "several" if found else "no"
        raise InputError(
            f"{what} retrain called {run!r} below {home / 'work'}; give the run's folder, such as "
            "work/<portfolio>/runs/<run>. A run that was blocked or failed came to no decision"
        )
    return found[0]


def _is_id(run: str) -> bool:
    return run not in ("", ".", "..") and not any(sign in run for sign in "/\\*?[")


def explain(run: Path) -> Explanation:
    """Apply the gate of a run to its recorded evidence again.

    Raises:
        InputError: the run was told by a release that recorded no evidence, or another than this one reads.
    """
    path = run / "report.json"
    document: Mapping[str, Any] = read_json(path)
    if document.get("schema_version") != _SCHEMA_VERSION:
        raise InputError(
            f"{path} has schema_version {document.get('schema_version')}, expected {_SCHEMA_VERSION}: another release "
            "wrote it; explain it with that release, or run again"
        )
    if "evidence" not in document:
        raise InputError(f"{path} holds no evidence: an earlier release wrote it; run again")
    try:
        evidence, gate = Evidence.from_json(document["evidence"]), GateConfig.model_validate(document["gate"])
    except (KeyError, TypeError, ValueError) as error:  # a number or a limit that this release does not know, or lacks
        raise InputError(
            f"{path}: its evidence is not what this release measures ({error}); explain it with the release that wrote "
            "it, or run again"
        ) from error
    decision = decide_under(document["preset"], evidence, gate)
    return Explanation(document["run_id"], decision, document["verdict"], evidence.look)


def show_explanation(explanation: Explanation) -> None:
    """Print every number against every rule."""
    console = open_console()
    table = Table(title=plain(f"run {explanation.run_id}"), title_style="bold")
    for heading in ("result", "rule", "as it stood before the run", "found"):
        table.add_column(heading, overflow="fold")
    for check in explanation.decision.checks:
        table.add_row(OUTCOMES[check.outcome], *(plain(text) for text in (check.rule, check.limit, check.found)))
    console.print(table)
    words = VERDICTS[explanation.decision.verdict]
    console.print(Text(f"{words.sign} {words.word}: {explanation.decision.challenger}", style="bold"))
    for reason in explanation.decision.reasons:
        console.print(plain(f"  {reason}"))
    if explanation.decision.verdict != explanation.recorded:
        console.print(plain(f"the run itself came to {explanation.recorded}: the gate's code has changed since"))

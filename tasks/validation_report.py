"""What a validation found, and the three forms of it: plain data, Markdown and a self-contained HTML page.

Here live `RuleResult`, `ValidationReport` and the wording of a rule's finding. Nothing here reads a file, runs a query
or judges: rules are evaluated, and the outcome decided, in `tasks.validate`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from crossrisk.pages.texts import environment, markdown_text
from expectations import Action, Rule, SkippedRule
from tasks.gx_duckdb import Finding

SCHEMA_VERSION = 1
"""Version of the layout that `ValidationReport.to_json` writes."""

ACTIONS: tuple[Action, ...] = ("stop", "quarantine", "warn")
"""In the order of their weight, which is the order of the report."""


@dataclass(frozen=True)
class RuleResult:
    """What one rule found."""

    rule: str
    type: str
    columns: tuple[str, ...]
    bounds: str
    """What was asked of the columns, in words: the rule's kwargs without the columns."""
    action: Action
    why: str
    owner: str
    success: bool
    unexpected_count: int | None
    """Rows that fail; None for a rule about a column or the table as a whole."""
    unexpected_share: float | None
    """`unexpected_count` over all rows, in [0, 1]."""
    observed: Any
    """What an aggregate rule measured, as plain data; None for a rule about rows."""
    examples: tuple[Any, ...]
    """A few failing values, the first in file order, as plain data."""
    error: str | None
    """Why the rule could not be evaluated; such a rule counts as failed."""

    @property
    def finding(self) -> str:
        """What happened, in a few words."""
        if self.error is not None:
            return f"not evaluated: {self.error}"
        if self.unexpected_count is not None and self.unexpected_share is not None:
            return f"{self.unexpected_share:.3%} of the rows fail ({self.unexpected_count:,})"
        return f"observed {self.observed}, expected {self.bounds}"


@dataclass(frozen=True)
class ValidationReport:
    """The outcome of a validation and everything it rests on."""

    suite: str
    outcome: Literal["pass", "blocked"]
    reasons: tuple[str, ...]
    """Why the outcome is `blocked`; empty when it is `pass`."""
    rows: int
    results: tuple[RuleResult, ...]
    """One per rule: by weight of the action, failing first, then in the order of the suite."""
    skipped: tuple[SkippedRule, ...]
    quarantined_ids: int
    """Distinct ids that fail at least one quarantine rule."""
    quarantined_share: float
    """`quarantined_ids` over all rows, in [0, 1]."""
    max_quarantined_share: float
    quarantine_file: Path
    """One row per failing row and rule, `quarantine_rule` and all columns; always written, empty when none fail."""

    @property
    def warnings(self) -> tuple[RuleResult, ...]:
        """Rules that failed and only warn."""
        return tuple(result for result in self.results if result.action == "warn" and not result.success)

    def to_json(self) -> dict[str, Any]:
        """Plain data, the same for the same files and suite: no time, no path but the quarantine file's name."""
        return {
            "schema_version": SCHEMA_VERSION,
            "suite": self.suite,
            "outcome": self.outcome,
            "reasons": list(self.reasons),
            "rows": self.rows,
            "quarantined_ids": self.quarantined_ids,
            "quarantined_share": self.quarantined_share,
            "max_quarantined_share": self.max_quarantined_share,
            "quarantine_file": self.quarantine_file.name,
            "results": [
                {
                    "rule": result.rule,
                    "type": result.type,
                    "columns": list(result.columns),
                    "bounds": result.bounds,
                    "action": result.action,
                    "why": result.why,
                    "owner": result.owner,
                    "success": result.success,
                    "unexpected_count": result.unexpected_count,
                    "unexpected_share": result.unexpected_share,
                    "observed": result.observed,
                    "examples": list(result.examples),
                    "error": result.error,
                }
                for result in self.results
            ],
            "skipped": [{"rule": skipped.name, "reason": skipped.reason} for skipped in self.skipped],
        }

    def to_markdown(self) -> str:
        """Verdict, reasons and the failing rules, for a Prefect artifact."""
        lines = [f"## Validation: {self.outcome}", "", self.summary]
        if self.reasons:
            lines += ["", *(f"- {markdown_text(reason)}" for reason in self.reasons)]
        failing = [result for result in self.results if not result.success]
        if failing:
            lines += ["", "| rule | action | columns | finding | owner |", "|---|---|---|---|---|"]
            lines += [
                f"| {markdown_text(result.rule)} | {result.action} | {markdown_text(', '.join(result.columns))} "
                f"| {markdown_text(result.finding)} | {markdown_text(result.owner)} |"
                for result in failing
            ]
        if self.skipped:
            lines += ["", "Skipped: " + "; ".join(markdown_text(f"{s.name} ({s.reason})") for s in self.skipped)]
        return "\n".join(lines) + "\n"

    @property
    def summary(self) -> str:
        """The numbers of the run in one sentence."""
        held = sum(result.success for result in self.results)
        return (
            f"{self.rows:,} rows, {held} of {len(self.results)} rules hold, {self.quarantined_ids:,} rows "
            f"({self.quarantined_share:.3%}) set aside of at most {self.max_quarantined_share:.3%}."
        )


def rule_result(rule: Rule, finding: Finding, rows: int) -> RuleResult:
    """The rule and its finding on a table of so many rows, as plain data and in words."""
    count = finding.details.get("unexpected_count")
    return RuleResult(
        rule=rule.name,
        type=rule.type,
        columns=rule.columns,
        bounds=_bounds(rule),
        action=rule.action,
        why=rule.why,
        owner=rule.owner,
        success=finding.success,
        unexpected_count=count,
        unexpected_share=None if count is None else (count / rows if rows else 0.0),
        observed=_observed(finding.details),
        examples=tuple(_plain(value) for value in finding.details.get("partial_unexpected_list", ())),
        error=finding.error,
    )


def render_html(report: ValidationReport, title: str) -> str:
    """One self-contained page: no script, nothing fetched, every value escaped."""
    groups = [(action, [result for result in report.results if result.action == action]) for action in ACTIONS]
    return environment().get_template("validation.html.j2").render(title=title, report=report, groups=groups)


def _bounds(rule: Rule) -> str:
    asked = {key: value for key, value in rule.kwargs.items() if not key.startswith("column")}
    return ", ".join(f"{key} {_in_words(value)}" for key, value in asked.items())


def _in_words(value: Any) -> str:
    return " | ".join(str(item) for item in value) if isinstance(value, list) else str(value)


def _observed(details: Mapping[str, Any]) -> Any:
    """What an aggregate measured; for sets GX says what it missed, not what it saw."""
    if details.get("partial_missing_list"):
        return "without " + ", ".join(str(_plain(value)) for value in details["partial_missing_list"])
    return _plain(details.get("observed_value"))


def _plain(value: Any) -> Any:
    """The value as JSON has it, the same on every run."""
    if isinstance(value, float):
        # Parallel sums differ in their last digits from run to run; JSON has no infinity.
        return float(f"{value:.10g}") if math.isfinite(value) else str(value)
    if isinstance(value, Decimal):
        return _plain(float(value))
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | None) else str(value)

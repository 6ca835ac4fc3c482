"""Validation: a suite of expectations on whole Parquet files, and what follows from the rules that fail.

Here live the task, the run (`validate_files`), its result (`ValidationReport`) and the two forms a person reads,
Markdown and a self-contained HTML page. Rules are read in `expectations`, DuckDB is opened in `tasks.gx_duckdb`;
nothing here repairs a row or decides to go on: the flow reads `outcome`.

Great Expectations counts; which rows a quarantine rule sets aside is our own SQL, because GX would carry every failing
value through Python. The two are compared on every run, and a difference is an error.
"""

# ruff: noqa: S608  every name and value in our SQL has gone through quote_name or quote_value
from __future__ import annotations

import difflib
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import jinja2
from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.context import TaskRunContext
from sqlalchemy.exc import SQLAlchemyError

from crossrisk.config import Loaded
from crossrisk.errors import CrossriskError, InputError
from crossrisk.store import Stage, stage, whole_file, write_json, write_text
from expectations import ROW_RULES, Action, Rule, SkippedRule, Suite, build_expectation, load_suites
from tasks.gx_duckdb import (
    ROWS,
    Finding,
    ParquetView,
    check_expectations,
    first_line,
    open_parquet_view,
    path_pattern,
    quote_name,
    quote_value,
)
from tasks.ingest import ingested_files, is_hive

logger = logging.getLogger("crossrisk.validate")

SCHEMA_VERSION = 1
"""Version of the layout that `ValidationReport.to_json` writes."""

RULE_COLUMN = "quarantine_rule"
"""Column of the quarantine file that names the rule; the others are the table's own."""

_EXAMPLES = 5
"""Failing values shown per rule: enough to recognise a code, too few to be a data extract."""

_ACTIONS: tuple[Action, ...] = ("stop", "quarantine", "warn")
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
            lines += ["", *(f"- {_markdown_text(reason)}" for reason in self.reasons)]
        failing = [result for result in self.results if not result.success]
        if failing:
            lines += ["", "| rule | action | columns | finding | owner |", "|---|---|---|---|---|"]
            lines += [
                f"| {_markdown_text(result.rule)} | {result.action} | {_markdown_text(', '.join(result.columns))} "
                f"| {_markdown_text(result.finding)} | {_markdown_text(result.owner)} |"
                for result in failing
            ]
        if self.skipped:
            lines += ["", "Skipped: " + "; ".join(_markdown_text(f"{s.name} ({s.reason})") for s in self.skipped)]
        return "\n".join(lines) + "\n"

    @property
    def summary(self) -> str:
        """The numbers of the run in one sentence."""
        held = sum(result.success for result in self.results)
        return (
            f"{self.rows:,} rows, {held} of {len(self.results)} rules hold, {self.quarantined_ids:,} rows "
            f"({self.quarantined_share:.3%}) set aside of at most {self.max_quarantined_share:.3%}."
        )


@task(name="validate", cache_policy=NO_CACHE)
def validate(loaded: Loaded, ingested: Stage) -> Stage:
    """Check the ingested files against the portfolio's suites.

    Files: validation.html, validation.json, quarantine.parquet. Facts: the report as plain data.

    Raises:
        ConfigError: a suite is missing or malformed.
        InputError: the files cannot be read as one table.
    """
    portfolio = loaded.portfolio
    data = portfolio.data
    roles = {
        "id": data.id,
        "customer": data.customer,
        "decision_date": data.decision_date,
        "label": portfolio.label.column,
        "known_date": portfolio.label.known_date,
    }
    names = [str(loaded.folders.config / name) if name.endswith(".json") else name for name in data.expectations]
    suite = load_suites(names, roles)
    if data.max_quarantined_share is not None:
        suite = replace(suite, max_quarantined_share=data.max_quarantined_share)
    files = ingested_files(loaded, ingested)

    def build(folder: Path) -> dict[str, Any]:
        found = validate_files(files, suite, folder, id_column=data.id, hive=is_hive(files))
        write_json(folder / "validation.json", found.to_json())
        write_text(folder / "validation.html", render_html(found, f"{portfolio.name}: validation"))
        write_text(folder / "validation.md", found.to_markdown())
        return found.to_json()

    made = stage(loaded.folders.stages, "validate", {"ingest": ingested.digest, "suite": asdict(suite)}, build)
    facts = made.facts
    logger.info("%s: %d rules, %d rows set aside", facts["outcome"], len(facts["results"]), facts["quarantined_ids"])
    for result in facts["results"]:
        if not result["success"]:
            logger.warning("%s (%s): %s", result["rule"], result["action"], result["why"])
    if TaskRunContext.get() is not None:
        markdown = (made.folder / "validation.md").read_text(encoding="utf-8")
        create_markdown_artifact(markdown, key=f"{portfolio.name.replace('_', '-')}-validation")
    return made


def validate_files(
    files: Sequence[Path],
    suite: Suite,
    out: Path,
    *,
    id_column: str,
    hive: bool,
    memory_limit: str = "1GB",
) -> ValidationReport:
    """Check every row of the files against the suite and write the rows that fail a quarantine rule.

    Memory is bounded whatever the size of the files: DuckDB's `memory_limit`, and about 0.3 GB of imports.

    Args:
        files: Parquet files of one table, columns matched by name.
        suite: What is expected, from `expectations.load_suites`.
        out: Folder for `quarantine.parquet`, and for DuckDB's temporary files while it runs; made if absent.
        id_column: Column by which a later step takes quarantined rows out.
        hive: Whether folders named `key=value` are columns.
        memory_limit: DuckDB's, such as `"1GB"`.

    Raises:
        InputError: The files are not readable Parquet, have no `id_column`, or have one named `quarantine_rule`.
        ConfigError: An expectation does not take its kwargs.
    """
    out.mkdir(parents=True, exist_ok=True)
    with open_parquet_view(
        files,
        reads={name for rule in suite.rules for name in rule.columns},
        hive=hive,
        temporary=out / "duckdb_tmp",
        memory_limit=memory_limit,
    ) as view:
        _check_columns(view, id_column)
        rows = int(view.connection.exec_driver_sql(f"SELECT count(*) FROM {ROWS}").scalar_one())
        results = _evaluate(suite.rules, view, rows)
        quarantine_file = out / "quarantine.parquet"
        quarantined = _write_quarantine(view, suite.rules, results, quarantine_file, id_column)
    share = quarantined / rows if rows else 0.0
    reasons = _blocking_reasons(results, share, suite.max_quarantined_share)
    return ValidationReport(
        suite=suite.name,
        outcome="blocked" if reasons else "pass",
        reasons=reasons,
        rows=rows,
        results=tuple(sorted(results, key=lambda result: (_ACTIONS.index(result.action), result.success))),
        skipped=suite.skipped,
        quarantined_ids=quarantined,
        quarantined_share=share,
        max_quarantined_share=suite.max_quarantined_share,
        quarantine_file=quarantine_file,
    )


def render_html(report: ValidationReport, title: str) -> str:
    """One self-contained page: no script, nothing fetched, every value escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("crossrisk", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    groups = [(action, [result for result in report.results if result.action == action]) for action in _ACTIONS]
    return environment.get_template("validation.html.j2").render(title=title, report=report, groups=groups)


def _check_columns(view: ParquetView, id_column: str) -> None:
    if id_column not in view.columns:
        raise InputError(f"{_missing_column(id_column, view.columns)}; set the id of the portfolio's config")
    if RULE_COLUMN in view.columns:
        raise InputError(f"the data have a column {RULE_COLUMN!r}, which the quarantine file needs; rename it")


def _evaluate(rules: Sequence[Rule], view: ParquetView, rows: int) -> tuple[RuleResult, ...]:
    """One result per rule, in their order."""
    absent = {rule.name: _absent_columns(rule, view.columns) for rule in rules}
    present = [build_expectation(rule) for rule in rules if not absent[rule.name]]
    found = check_expectations(view, present, examples=_EXAMPLES)
    return tuple(
        _rule_result(rule, found.get(rule.name) or Finding(False, {}, "; ".join(absent[rule.name])), rows)
        for rule in rules
    )


def _absent_columns(rule: Rule, columns: Sequence[str]) -> list[str]:
    """What is missing for the rule to be evaluated; said here because DuckDB, unlike us, ignores case."""
    if rule.type == "expect_column_to_exist":
        return []
    return [_missing_column(name, columns) for name in rule.columns if name not in columns]


def _missing_column(name: str, columns: Sequence[str]) -> str:
    by_lower = {column.lower(): column for column in columns}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1)
    hint = f", the nearest is {by_lower[close[0]]!r}" if close else ""
    return f"the data have no column {name!r}{hint}"


def _rule_result(rule: Rule, finding: Finding, rows: int) -> RuleResult:
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


def _blocking_reasons(results: Sequence[RuleResult], share: float, limit: float) -> tuple[str, ...]:
    reasons = [
        f"stop rule {result.rule!r}: {result.finding}. {result.why}"
        for result in results
        if result.action == "stop" and not result.success
    ]
    reasons += [
        f"quarantine rule {result.rule!r}: {result.finding}; nobody knows which rows to set aside"
        for result in results
        if result.action == "quarantine" and result.error is not None
    ]
    if share > limit:
        reasons.append(
            f"{share:.3%} of the rows would be set aside, at most {limit:.3%} may be; look at the quarantine file, "
            "then mend the delivery or change max_quarantined_share in the suite"
        )
    return tuple(reasons)


def _write_quarantine(
    view: ParquetView, rules: Sequence[Rule], results: Sequence[RuleResult], file: Path, id_column: str
) -> int:
    """Write the failing rows, once per rule they fail, in the order of the files; return the number of distinct ids."""
    expected = {
        result.rule: result.unexpected_count or 0
        for result in results
        if result.action == "quarantine" and not result.success and result.error is None
    }
    query = _quarantine_query({rule.name: failing_rows(rule) for rule in rules if rule.name in expected})
    with whole_file(file) as staged:
        try:
            found, ids = _copy_and_count(view, query, staged, id_column)
        except SQLAlchemyError as error:
            raise CrossriskError(
                f"the rows to set aside cannot be written to {file.name}: {first_line(error)}; free disk space, or "
                "raise memory_limit"
            ) from error
        if found != expected:
            raise CrossriskError(
                f"rows set aside by rule are {found}, Great Expectations counts {expected}: the two readings of a rule "
                "differ, which is a mistake in tasks.validate.failing_rows"
            )
    return ids


def _copy_and_count(view: ParquetView, query: str, staged: Path, id_column: str) -> tuple[dict[str, int], int]:
    """Write the query's rows to a file and count there: rows by rule, and distinct ids."""
    run = view.connection.exec_driver_sql
    # One thread and small row groups: where every row of a wide table fails, two threads with a whole row group each
    # ran out of 1 GB (measured with 290 columns of doubles). Few rows are written when all goes well.
    run("SET threads = 1")
    run(f"COPY ({query}) TO {quote_value(str(staged))} (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 8192)")
    run("RESET threads")
    written = f"read_parquet({quote_value(path_pattern(staged))}, hive_partitioning = false)"
    by_rule = {name: count for name, count in run(f"SELECT {RULE_COLUMN}, count(*) FROM {written} GROUP BY 1")}
    return by_rule, int(run(f"SELECT count(DISTINCT {quote_name(id_column)}) FROM {written}").scalar_one())


def _quarantine_query(conditions: Mapping[str, str]) -> str:
    """One scan, whatever the number of rules: a row carries the list of its rules, and the list is unrolled."""
    if not conditions:
        return f"SELECT NULL::VARCHAR AS {RULE_COLUMN}, * FROM {ROWS} WHERE false"
    names = ", ".join(f"CASE WHEN {sql} THEN {quote_value(name)} END" for name, sql in conditions.items())
    return (
        f"SELECT unnest(list_filter([{names}], lambda name: name IS NOT NULL)) AS {RULE_COLUMN}, * "
        f"FROM {ROWS} WHERE {' OR '.join(conditions.values())}"
    )


def failing_rows(rule: Rule) -> str:
    """SQL condition that is true of exactly the rows that fail a quarantine rule, never null.

    A missing value fails `not_be_null` and passes everything else, as Great Expectations has it.

    Raises:
        ValueError: The type is not one of `expectations.ROW_RULES`.
    """
    kwargs = rule.kwargs
    first, *rest = (quote_name(name) for name in rule.columns)
    match rule.type:
        case "expect_column_values_to_not_be_null":
            return f"({first} IS NULL)"
        case "expect_column_values_to_be_null":
            return f"({first} IS NOT NULL)"
        case "expect_column_values_to_be_between":
            outside = _outside(first, kwargs, strict_min=kwargs.get("strict_min"), strict_max=kwargs.get("strict_max"))
        case "expect_column_value_lengths_to_be_between":
            outside = _outside(f"length({first})", kwargs)
        case "expect_column_values_to_be_in_set":
            outside = f"{first} NOT IN ({_literals(kwargs['value_set'])})"
        case "expect_column_values_to_not_be_in_set":
            outside = f"{first} IN ({_literals(kwargs['value_set'])})"
        case "expect_column_pair_values_a_to_be_greater_than_b":
            outside = f"{first} {'<' if kwargs.get('or_equal') else '<='} {rest[0]}"
        case _:
            raise ValueError(f"{rule.type} does not say which rows fail; expected one of {', '.join(ROW_RULES)}")
    return f"coalesce({outside}, false)"


def _outside(
    value: str, bounds: Mapping[str, Any], *, strict_min: bool | None = False, strict_max: bool | None = False
) -> str:
    sides = []
    if bounds.get("min_value") is not None:
        sides.append(f"{value} {'<=' if strict_min else '<'} {quote_value(bounds['min_value'])}")
    if bounds.get("max_value") is not None:
        sides.append(f"{value} {'>=' if strict_max else '>'} {quote_value(bounds['max_value'])}")
    return f"({' OR '.join(sides)})"


def _literals(values: Iterable[Any]) -> str:
    return ", ".join(quote_value(value) for value in values)


def _markdown_text(text: str) -> str:
    """Text that stays text in a Markdown table."""
    for special, harmless in (("&", "&amp;"), ("<", "&lt;"), ("|", "\\|"), ("`", "'"), ("\n", " ")):
        text = text.replace(special, harmless)
    return text

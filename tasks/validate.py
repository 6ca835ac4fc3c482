"""Validation: a suite of expectations on whole Parquet files, and what follows from the rules that fail.

Here live the task, the run (`validate_files`) and what decides its outcome. Rules are read in `expectations`, DuckDB is
opened in `tasks.gx_duckdb`, failing rows are set aside in `tasks.quarantine`, the result and the forms that a person
reads are in `tasks.validation_report`; nothing here repairs a row or decides to go on: the flow reads `outcome`.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.context import TaskRunContext

from crossrisk.config import Loaded
from crossrisk.errors import InputError
from crossrisk.pages.texts import visible_text
from crossrisk.store import Stage, stage, write_json, write_text
from expectations import Rule, Suite, build_expectation, load_suites
from tasks.gx_duckdb import ROWS, Finding, ParquetView, check_expectations, open_parquet_view
from tasks.ingest import ingested_files, is_hive
from tasks.quarantine import RULE_COLUMN, write_quarantine
from tasks.validation_report import ACTIONS, RuleResult, ValidationReport, render_html, rule_result

logger = logging.getLogger("crossrisk.validate")

_EXAMPLES = 5
"""Failing values shown per rule: enough to recognise a code, too few to be a data extract."""


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
    suite = suite_of(loaded)
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
            logger.warning("%s (%s): %s", result["rule"], result["action"], visible_text(result["why"]))
    if TaskRunContext.get() is not None:
        markdown = (made.folder / "validation.md").read_text(encoding="utf-8")
        create_markdown_artifact(markdown, key=f"{portfolio.name.replace('_', '-')}-validation")
    return made


def suite_of(loaded: Loaded) -> Suite:
    """The rules of a portfolio: its suites with the roles that its config gives columns.

    Raises:
        ConfigError: a suite is missing or malformed.
    """
    portfolio, data = loaded.portfolio, loaded.portfolio.data
    roles = {
        "id": data.id,
        "customer": data.customer,
        "decision_date": data.decision_date,
        "label": portfolio.label.column,
        "known_date": portfolio.label.known_column,
    }
    names = [str(loaded.folders.config / name) if name.endswith(".json") else name for name in data.expectations]
    suite = load_suites(names, roles)
    if data.max_quarantined_share is None:
        return suite
    return replace(suite, max_quarantined_share=data.max_quarantined_share)


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
        out=out,
        memory_limit=memory_limit,
    ) as view:
        _check_columns(view, id_column)
        rows = int(view.connection.exec_driver_sql(f"SELECT count(*) FROM {ROWS}").scalar_one())  # noqa: S608 - our own constant
        results = _evaluate(suite.rules, view, rows)
        quarantine_file = out / "quarantine.parquet"
        quarantined = write_quarantine(view, suite.rules, results, quarantine_file, id_column)
    share = quarantined / rows if rows else 0.0
    reasons = _blocking_reasons(results, share, suite.max_quarantined_share)
    return ValidationReport(
        suite=suite.name,
        outcome="blocked" if reasons else "pass",
        reasons=reasons,
        rows=rows,
        results=tuple(sorted(results, key=lambda result: (ACTIONS.index(result.action), result.success))),
        skipped=suite.skipped,
        quarantined_ids=quarantined,
        quarantined_share=share,
        max_quarantined_share=suite.max_quarantined_share,
        quarantine_file=quarantine_file,
    )


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
        rule_result(rule, found.get(rule.name) or Finding(False, {}, "; ".join(absent[rule.name])), rows)
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

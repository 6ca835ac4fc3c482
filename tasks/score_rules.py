"""The serving subset of a portfolio's suites, and which rows of a delivery must not be scored.

Applied are the rules about columns that the version reads, and about the id. What their actions mean here:

- `stop`: the whole delivery is refused before anything is scored, and the rule is named.
- `quarantine`: the row is in the output with the status `quarantined`, the rule's name, and no score. However many they
  are, the others are scored: nobody is judged by their neighbours, and nothing is learnt from the rows that are left,
  which is what `max_quarantined_share` guards in training. A larger share is said in the summary.
- `warn`: shown in the summary.

Left out, each with its reason, are rules about a column that the version does not read (the label, populations, dates
that make vintages, customers), about the table as a whole, and those whose answer depends on how much was delivered:
ten applicants hold neither every level nor two thirds distinct values. Whether the id is there and unique stops a run;
here it is a matter of the row: `id missing`, and `id twice` for every row that shares an id, because nobody could tell
which of the scores is meant. So it is where a category holds a text that nobody reads (`crossrisk.limits`): `text too
long`.

Great Expectations counts, DuckDB names the rows, and the two are compared, as in `tasks.quarantine`.
"""

# ruff: noqa: S608  every name and value in our SQL has gone through quote_name or quote_value
from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from prefect import task
from prefect.cache_policies import NO_CACHE
from sqlalchemy.exc import SQLAlchemyError

from crossrisk.config import Loaded
from crossrisk.errors import CrossriskError, InputError
from crossrisk.limits import MIB, MOST_CELL_BYTES, MOST_LONG_TEXT_BYTES
from crossrisk.pages.texts import visible_text
from crossrisk.store import Stage, make_private, stage, write_json, write_text
from expectations import Rule, SkippedRule, Suite
from tasks.gx_duckdb import ROWS, first_line, open_parquet_view, quote_name, quote_value
from tasks.input_files import decode
from tasks.quarantine import failing_rows
from tasks.score_input import Delivery
from tasks.validate import suite_of, validate_files
from tasks.validation_report import render_html

logger = logging.getLogger("crossrisk.score")

UNSCORED = "unscored.parquet"
"""of the stage: row, id (as text), status, detail, rules of every row that must not be scored, ascending by row"""
VALIDATION_PAGE = "validation.html"
ID_MISSING, ID_TWICE, TEXT_TOO_LONG, QUARANTINED = "id missing", "id twice", "text too long", "quarantined"
"""Statuses that are given here; a row with several reasons has the first of these, and all of them in its detail."""

_MEMORY = "500MB"
"""DuckDB's, for the ids that it has seen: what does not fit goes to disk. No slower than 1 GB on 6 million text ids."""

_OF_THE_ID = frozenset(
    {
        "expect_column_values_to_not_be_null",
        "expect_column_values_to_be_unique",
        "expect_column_proportion_of_unique_values_to_be_between",
        "expect_column_unique_value_count_to_be_between",
    }
)
_OF_VOLUME = frozenset(
    {
        "expect_column_values_to_be_unique",
        "expect_column_proportion_of_unique_values_to_be_between",
        "expect_column_unique_value_count_to_be_between",
        "expect_column_distinct_values_to_contain_set",
        "expect_column_distinct_values_to_equal_set",
    }
)


# --- which rules ---


def serving_suite(suite: Suite, *, id_column: str, columns: Collection[str]) -> Suite:
    """The rules of a suite that a delivery to be scored is held against; the others are skipped, with the reason.

    Args:
        suite: of the portfolio.
        id_column: which column names a row.
        columns: that the version reads.
    """
    why = {rule.name: _why_left_out(rule, id_column, columns) for rule in suite.rules}
    left_out = [SkippedRule(name, reason) for name, reason in why.items() if reason is not None]
    return replace(
        suite,
        rules=tuple(rule for rule in suite.rules if why[rule.name] is None),
        skipped=(*suite.skipped, *left_out),
    )


def _why_left_out(rule: Rule, id_column: str, columns: Collection[str]) -> str | None:
    strange = [name for name in rule.columns if name != id_column and name not in columns]
    if not rule.columns:
        return "about the table as a whole: a delivery may be of any size"
    if strange:
        return f"about {', '.join(strange)}, which the version does not read"
    if set(rule.columns) == {id_column} and rule.type in _OF_THE_ID:
        return f"a row's own matter here: {ID_MISSING!r} or {ID_TWICE!r}"
    if rule.type in _OF_VOLUME:
        return "depends on how much was delivered"
    return None


def name_as_files_do(rule: Rule, names: Mapping[str, str]) -> Rule:
    """A rule about the same columns by their names in the files; `names` is ours -> theirs."""

    def theirs(name: Any) -> Any:
        return names.get(name, name)

    kwargs = dict(rule.kwargs)
    for key in ("column", "column_A", "column_B"):
        if key in kwargs:
            kwargs[key] = theirs(kwargs[key])
    if "column_list" in kwargs:
        kwargs["column_list"] = [theirs(name) for name in kwargs["column_list"]]
    return replace(rule, kwargs=kwargs)


def serving_rules(loaded: Loaded, delivery: Delivery) -> Suite:
    """The serving subset of a portfolio's suites, about columns by their names in the files.

    Raises:
        ConfigError: a suite is missing or malformed.
    """
    id_column = loaded.portfolio.data.id
    names = {id_column: delivery.id, **delivery.columns}
    suite = serving_suite(suite_of(loaded), id_column=id_column, columns=delivery.columns)
    return replace(suite, rules=tuple(name_as_files_do(rule, names) for rule in suite.rules))


# --- applying them ---


@task(name="validate the input", cache_policy=NO_CACHE)
def check_rows(loaded: Loaded, delivery: Delivery, rules: Suite) -> Stage:
    """Decode every page that will be read, hold the rules against all rows, and name the rows not to score.

    Files: unscored.parquet, quarantine.parquet, validation.html. Facts: the validation report as plain data, and
    `unscored`, rows by status.

    Args:
        loaded: the portfolio and its folders.
        delivery: what is to be scored.
        rules: as `serving_rules` gives them.

    Raises:
        ConfigError: a rule that Great Expectations does not take.
        InputError: bytes that cannot be decoded, a text too long to be an id, too many too long to be categories, a
            file that was changed meanwhile.
    """

    def build(folder: Path) -> dict[str, Any]:
        long = _decode_all(delivery)
        pa.default_memory_pool().release_unused()  # else 0.3 GB would lie there while DuckDB takes as much
        # 1: here the share of rows set aside refuses nothing
        unlimited = replace(rules, max_quarantined_share=1.0)
        report = validate_files(delivery.paths, unlimited, folder, id_column=delivery.id, hive=delivery.is_hive)
        write_json(folder / "validation.json", report.to_json())
        write_text(folder / VALIDATION_PAGE, render_html(report, f"{loaded.portfolio.name}: rows to score"))
        expected = {
            result.rule: result.unexpected_count or 0
            for result in report.results
            if result.action == "quarantine" and not result.success and result.error is None
        }
        unscored = _write_unscored(delivery, rules.rules, expected, long, folder)
        delivery.refuse_changed()  # this is kept under the digests of what was asked about
        return {
            **report.to_json(),
            "max_quarantined_share": rules.max_quarantined_share,
            "unscored": unscored,
        }

    inputs = {"files": delivery.to_json(), "id": delivery.id, "columns": delivery.columns, "suite": asdict(rules)}
    made = stage(loaded.folders.stages, "rows_to_score", inputs, build)
    facts = made.facts
    logger.info("%s: %d rules, rows not to score %s", facts["outcome"], len(facts["results"]), facts["unscored"])
    for result in facts["results"]:
        if not result["success"]:
            logger.warning("%s (%s): %s", result["rule"], result["action"], visible_text(result["why"]))
    return made


def _decode_all(delivery: Delivery) -> list[str]:
    """Read every page that will be read; the category columns that hold a text too long, by their names in the files.

    Raises:
        InputError: as `check_rows`. Beyond a few megabytes such texts are a wrong column, or small files that unpack
            to more than a machine holds: whoever reads these rows later unpacks them.
    """
    categories, long = set(delivery.columns.values()) - {delivery.id}, Counter[str]()
    for file in delivery.files:
        long += decode(file, delivery.read_columns, passed_over=categories)
    for column, size in long.items():
        if size > MOST_LONG_TEXT_BYTES:
            raise InputError(
                f"column {column!r} holds {size / MIB:,.0f} MiB of texts that have more than {MOST_CELL_BYTES:,} bytes "
                f"each, at most {MOST_LONG_TEXT_BYTES // MIB} are passed over: such a column is no category; correct it"
            )
    return sorted(long)


def _write_unscored(
    delivery: Delivery, rules: Sequence[Rule], expected: Mapping[str, int], long: Sequence[str], folder: Path
) -> dict[str, int]:
    """Write unscored.parquet; rows by status.

    Args:
        delivery: the files.
        rules: with the names of columns that the files have.
        expected: failing rows by rule, of the quarantine rules that failed.
        long: columns of the files that hold a text too long.
        folder: to write to.

    Raises:
        CrossriskError: it cannot be written, or our SQL and Great Expectations count differently.
    """
    conditions = {rule.name: failing_rows(rule) for rule in rules if rule.name in expected}
    file = folder / UNSCORED
    with open_parquet_view(delivery.paths, reads=(), hive=delivery.is_hive, out=folder, memory_limit=_MEMORY) as view:
        run = view.connection.exec_driver_sql
        try:
            run(_repeated_query(delivery.id))
            query = _unscored_query(delivery.id, conditions, long)
            # rows are numbered as they come: one thread, so that they come in the order of the files
            run("SET threads = 1")
            run(f"COPY ({query}) TO {quote_value(str(file))} (FORMAT parquet)")
            make_private(file)
            written = f"read_parquet({quote_value(str(file))})"
            by_rule = run(f"SELECT unnest(rules) AS rule, count(*) FROM {written} GROUP BY 1")
            found = {str(name): int(rows) for name, rows in by_rule}
            by_status = run(f"SELECT status, count(*) FROM {written} GROUP BY 1 ORDER BY 1")
            unscored = {str(name): int(rows) for name, rows in by_status}
        except SQLAlchemyError as error:
            raise CrossriskError(
                f"the rows not to score cannot be written to {file}: {first_line(error)}; free disk space, or memory"
            ) from error
    if found != dict(expected):
        raise CrossriskError(
            f"rows not to score by rule are {found}, Great Expectations counts {dict(expected)}: the two readings of a "
            "rule differ, which is a mistake in tasks.quarantine.failing_rows"
        )
    return unscored


def _repeated_query(id_column: str) -> str:
    column = quote_name(id_column)
    return (
        f"CREATE TEMP TABLE repeated AS SELECT {column} AS id, count(*) AS times FROM {ROWS} "
        f"WHERE {column} IS NOT NULL GROUP BY 1 HAVING count(*) > 1"
    )


def _unscored_query(id_column: str, conditions: Mapping[str, str], long: Sequence[str]) -> str:
    names = ", ".join(f"CASE WHEN {sql} THEN {quote_value(name)} END" for name, sql in conditions.items())
    too_long = ", ".join(_long_text(column) for column in long) or "NULL::VARCHAR"
    failed = f"list_filter([{names}], lambda name: name IS NOT NULL)" if names else "[]::VARCHAR[]"
    return f"""
        SELECT numbered.row, numbered.id::VARCHAR AS id,
            CASE WHEN numbered.id IS NULL THEN {quote_value(ID_MISSING)}
                 WHEN times IS NOT NULL THEN {quote_value(ID_TWICE)}
                 WHEN too_long IS NOT NULL THEN {quote_value(TEXT_TOO_LONG)}
                 ELSE {quote_value(QUARANTINED)} END AS status,
            concat_ws('; ', CASE WHEN numbered.id IS NULL THEN 'the row has no id' END,
                times || ' rows have this id', too_long,
                'fails ' || nullif(array_to_string(rules, ', '), '')) AS detail,
            rules
        FROM (SELECT row_number() OVER () - 1 AS row, {quote_name(id_column)} AS id, {failed} AS rules,
                nullif(concat_ws('; ', {too_long}), '') AS too_long FROM {ROWS})
            AS numbered LEFT JOIN repeated ON numbered.id = repeated.id
        WHERE numbered.id IS NULL OR times IS NOT NULL OR too_long IS NOT NULL OR len(rules) > 0
        ORDER BY numbered.row"""


def _long_text(column: str) -> str:
    """SQL of what is wrong with a row's text in a column; null where nothing is."""
    size = f"strlen({quote_name(column)})"  # bytes; length() counts characters
    said = f"{quote_value(f'column {column!r} holds a text of ')} || format('{{:,}}', {size})"
    return f"CASE WHEN {size} > {MOST_CELL_BYTES} THEN {said} || ' bytes, at most {MOST_CELL_BYTES:,} are read' END"

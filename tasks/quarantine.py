"""The quarantine: which rows a rule sets aside, as SQL, and the file that they are written to.

Great Expectations counts; which rows a quarantine rule sets aside is our own SQL, because GX would carry every failing
value through Python. The two are compared on every run, and a difference is an error. What follows from the share of
rows set aside is decided in `tasks.validate`; taking them out is a later step's work.
"""

# ruff: noqa: S608  every name and value in our SQL has gone through quote_name or quote_value
from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from crossrisk.errors import CrossriskError
from crossrisk.store import make_private, whole_file
from expectations import ROW_RULES, Rule
from tasks.gx_duckdb import ROWS, ParquetView, first_line, path_pattern, quote_name, quote_value
from tasks.validation_report import RuleResult

RULE_COLUMN = "quarantine_rule"
"""Column of the quarantine file that names the rule; the others are the table's own."""


def write_quarantine(
    view: ParquetView, rules: Sequence[Rule], results: Sequence[RuleResult], file: Path, id_column: str
) -> int:
    """Write the failing rows, once per rule they fail, in the order of the files; return the number of distinct ids.

    Args:
        view: The table.
        rules: All rules of the suite; those that quarantine, failed and could be evaluated are written.
        results: What Great Expectations found, one per rule.
        file: Parquet file to write; it appears whole or not at all.
        id_column: Column of the table whose distinct values are counted.

    Raises:
        CrossriskError: The file cannot be written, or our SQL and Great Expectations count differently.
    """
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
        make_private(staged)  # ids, and all columns, of customers
        if found != expected:
            raise CrossriskError(
                f"rows set aside by rule are {found}, Great Expectations counts {expected}: the two readings of a rule "
                "differ, which is a mistake in tasks.quarantine.failing_rows"
            )
    return ids


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

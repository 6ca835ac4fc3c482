"""The Arrow schema a portfolio expects of its Parquet, and how a file may differ from it.

Only names and types are judged here, before anything reads a value; values are the expectations' business.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from crossrisk.config import Portfolio

Role = Literal["key", "number", "category", "date", "label", "any"]
_ANY: Role = "any"


@dataclass(frozen=True)
class SchemaFault:
    """One way in which a file differs from what the portfolio names."""

    kind: Literal["missing", "case-changed", "retyped", "extra"]
    column: str
    message: str

    @property
    def stops(self) -> bool:
        """Extra columns are only worth a warning."""
        return self.kind != "extra"


def expected_columns(portfolio: Portfolio) -> dict[str, Role]:
    """Every column the portfolio names, with the role that says which types it may have.

    Those of the label may be in its own files (`label.outcomes`, `label.revisions`) instead of among the loans.
    """
    label = portfolio.label
    columns: dict[str, Role] = {**dict.fromkeys(label.rule_columns, _ANY), **_columns_of_loans(portfolio)}
    columns |= {label.column: "label"}
    columns |= {label.known_date: "date"} if label.known_date and not label.is_known_date_sql else {}
    return columns


def carried_columns(portfolio: Portfolio) -> dict[str, Role]:
    """As `expected_columns`, of the one ingested table: dates and rules of the label are computed there."""
    label = portfolio.label
    known: dict[str, Role] = {label.known_column: "date"} if label.known_column else {}
    return {**_columns_of_loans(portfolio), label.column: "label", **known}


def _columns_of_loans(portfolio: Portfolio) -> dict[str, Role]:
    data, label = portfolio.data, portfolio.label
    columns: dict[str, Role] = dict.fromkeys(tabled_columns(portfolio), _ANY)
    columns |= dict.fromkeys(portfolio.features.timestamps.values(), "date")
    columns |= {label.amount: "number"} if label.amount else {}
    columns |= {c.name: c.kind for c in portfolio.row_plan.raw_columns}
    columns |= {data.id: "key"}
    columns |= {data.customer: "key"} if data.customer else {}
    columns |= {data.decision_date: "date"} if data.decision_date else {}
    return columns


def tabled_columns(portfolio: Portfolio) -> tuple[str, ...]:
    """Columns that only tables of the report are broken down by: segments and protected ones."""
    return (*portfolio.use.segments, *portfolio.features.protected)


def compare_schema(
    schema: pa.Schema,
    portfolio: Portfolio,
    *,
    population_columns: frozenset[str],
    elsewhere: frozenset[str] = frozenset(),
) -> list[SchemaFault]:
    """What is missing, changed in case, retyped or extra in a file's schema; empty where it is as expected.

    Args:
        schema: of one Parquet file, hive partition columns included.
        portfolio: names the columns and their roles.
        population_columns: columns read by the SQL rules of the populations: they may have any type.
        elsewhere: columns of the label that its own files hold: not expected here.
    """
    named = {name: role for name, role in expected_columns(portfolio).items() if name not in elsewhere}
    expected: dict[str, Role] = {**dict.fromkeys(population_columns, _ANY), **named}
    faults = column_faults(schema, expected)
    known = {*expected, *portfolio.data.ignore}
    renamed = {fault.column for fault in faults if fault.kind == "case-changed"}
    for name in schema.names:
        if name not in known and name.lower() not in {r.lower() for r in renamed}:
            faults.append(SchemaFault("extra", name, f"column {name!r} is not named in the portfolio"))
    return faults


def column_faults(schema: pa.Schema, expected: Mapping[str, Role]) -> list[SchemaFault]:
    """Which of these columns are missing, changed in case or retyped in a schema; other columns are not judged."""
    faults = list(_absent(expected, schema))
    for name, role in expected.items():
        if name in schema.names and not _fits(schema.field(name).type, role):
            faults.append(
                SchemaFault(
                    "retyped", name, f"column {name!r}: expected {_WANTED[role]}, got {schema.field(name).type}"
                )
            )
    return faults


def _absent(expected: Mapping[str, Role], schema: pa.Schema) -> Iterator[SchemaFault]:
    by_lower = {name.lower(): name for name in schema.names}
    for name in expected:
        if name in schema.names:
            continue
        other = by_lower.get(name.lower())
        if other is not None:
            yield SchemaFault("case-changed", name, f"column {name!r} came as {other!r}: names are case-sensitive")
            continue
        close = difflib.get_close_matches(name, schema.names, n=1)
        hint = f"; nearest column there: {close[0]!r}" if close else ""
        yield SchemaFault("missing", name, f"column {name!r} is missing{hint}")


_WANTED: Mapping[Role, str] = {
    "key": "a string or an integer",
    "number": "a number or a boolean",
    "category": "a string, dictionary, boolean or integer",
    "date": "a date or timestamp",
    "label": "an integer, boolean or number holding 0 and 1",
    "any": "any type",
}


def _fits(kind: pa.DataType, role: Role) -> bool:
    types = pa.types
    if types.is_dictionary(kind):
        kind = kind.value_type
    is_text = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    is_number = types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind) or types.is_boolean(kind)
    match role:
        case "key":
            return bool(is_text or types.is_integer(kind))
        case "number" | "label":
            return bool(is_number)
        case "category":
            return bool(is_text or types.is_boolean(kind) or types.is_integer(kind))
        case "date":
            return bool(types.is_date(kind) or types.is_timestamp(kind))
        case "any":
            return True

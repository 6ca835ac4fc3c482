"""What the portfolio wants of the files of loans, and how one that has something else is named.

Footers in, warnings out, or an error with the file, the column and the next move. Whether bytes can be read and files
are one table is `tasks.input_files`; label files beside the loans are `tasks.label_files`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from crossrisk.config import INGEST_NAMES, Portfolio
from crossrisk.errors import InputError
from crossrisk.labels import SOURCE, TARGET
from crossrisk.schema import SchemaFault, compare_schema, expected_columns, tabled_columns
from tasks.column_map import rename_fields
from tasks.input_files import InputFile, decode, refuse_mixed
from tasks.label_files import LabelTables, provided_columns


def check_loans(files: Sequence[InputFile], tables: LabelTables, portfolio: Portfolio, *, name: str) -> list[str]:
    """Warnings about the loans of one input: what is not named in the portfolio, or lacks in one of two inputs.

    Args:
        files: of the loans.
        tables: label files of the same input.
        portfolio: names the columns and their roles.
        name: of the input: `source`, `target`, or empty where there is one.

    Raises:
        InputError: a schema fault, bytes that cannot be decoded, files that are not one table or hold no row.
    """
    of_input, rules = portfolio.data.inputs[name], columns_of_rules(portfolio, name)
    ours = {*rules, *expected_columns(portfolio), *of_input.columns}
    theirs = {of_input.columns.get(one, one) for one in ours}
    found: dict[str, list[str]] = {}
    for file in files:
        for fault in _schema_faults(file, tables, portfolio, name):
            found.setdefault(fault.message, []).append(file.name)
        decode(file, theirs)
    refuse_mixed(files, theirs)
    if not any(file.rows for file in files):
        raise InputError(
            f"{data_key(name)}.path {of_input.path!r} leads to {_some([file.name for file in files])}, and there is no "
            "row in it; deliver it again, or correct the path"
        )
    return [f"{_some(where)}: {message}" for message, where in sorted(found.items())]


def data_key(name: str) -> str:
    """Of an input, in the TOML."""
    return f"data.{name}" if name else "data"


def columns_of_rules(portfolio: Portfolio, name: str) -> frozenset[str]:
    """What the rules read of an input: of two inputs, each is looked at by the rule of its own population."""
    rules = portfolio.population
    return rules.columns_of(name) if name else rules.columns_of(SOURCE) | rules.columns_of(TARGET)


def _some(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _schema_faults(file: InputFile, tables: LabelTables, portfolio: Portfolio, name: str) -> list[SchemaFault]:
    """Schema faults that do not stop; raises InputError for those that do."""
    columns, rules = portfolio.data.inputs[name].columns, columns_of_rules(portfolio, name)
    key = f"{data_key(name)}.columns"
    schema = rename_fields(file.schema, columns, file=file.name, key=key)
    taken = sorted(INGEST_NAMES & set(schema.names))
    if taken:
        raise InputError(
            f"{file.name}: a column is called {taken[0]!r}, and ingest adds one of that name; call it otherwise: "
            f'{key} = {{ {taken[0]}_given = "{taken[0]}" }}'
        )
    elsewhere = provided_columns(portfolio, tables)
    faults = compare_schema(schema, portfolio, population_columns=rules, elsewhere=elsewhere)
    stopping = [fault for fault in faults if fault.stops and fault.column not in _may_lack(portfolio, rules)]
    if stopping:
        reader = f" (read by the rule of population.{name})" if name else " (read by a rule of [population])"
        said = "; ".join(
            fault.message + (reader if fault.column in rules else "") + _hint_of_outcomes(fault, tables)
            for fault in stopping
        )
        raise InputError(f"{file.name}: {said}. {_next_move(stopping, columns, key)}")
    return faults


def _may_lack(portfolio: Portfolio, rules: frozenset[str]) -> frozenset[str]:
    """Columns for tables alone: one of two inputs may be without them; joining sees to it that one has them."""
    if not portfolio.data.has_two_inputs:
        return frozenset()
    roles = expected_columns(portfolio)
    for_tables = {column for column in tabled_columns(portfolio) if roles[column] == "any"}
    return frozenset(for_tables - rules - portfolio.label.rule_columns)


def _hint_of_outcomes(fault: SchemaFault, tables: LabelTables) -> str:
    is_there = tables.outcomes is not None and fault.column in tables.outcomes.collect_schema()
    return (
        " (label.outcomes has it, but what is known after the decision is for the label alone: no feature, segment or "
        "population may be made of it)"
        if fault.kind == "missing" and is_there
        else ""
    )


def _next_move(faults: Sequence[SchemaFault], columns: Mapping[str, str], key: str) -> str:
    ours = {theirs: ours for ours, theirs in columns.items()}
    foreign = next((fault.column for fault in faults if fault.column in ours), None)
    if foreign is None:
        return "Correct the file, or the column's name in the TOML"
    return f"{key} calls {foreign!r} {ours[foreign]!r}: use the name on the left of that map in all rules and lists"

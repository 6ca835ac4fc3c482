"""Foreign names and two inputs become one table under the portfolio's own names, once, before anything else reads.

Columns are renamed by the maps of the TOML, types that differ between the two inputs are brought together by the role
of the column, and every row says which input it came from. Finding, checking and counting files is `tasks.ingest`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl
import pyarrow as pa

from crossrisk.config import INPUT_COLUMN, Portfolio
from crossrisk.errors import InputError
from crossrisk.schema import Role, carried_columns

_COMMON_TYPES: Mapping[Role, pl.DataType] = {
    "key": pl.String(),
    "category": pl.String(),
    "number": pl.Float64(),
    "label": pl.Float64(),
    "date": pl.Date(),
}
"""What a column is read as where its type differs between the inputs. Role `any` has no such type."""
_SHOWN = 12
"""columns of a file that a message lists"""


def rename_fields(schema: pa.Schema, columns: Mapping[str, str], *, file: str, key: str) -> pa.Schema:
    """A file's schema under the portfolio's names.

    Args:
        schema: of one file.
        columns: name here -> name in the file.
        file: as messages call it.
        key: of the TOML, such as `data.source.columns`.

    Raises:
        InputError: the map names a column that the file lacks, or gives one a name that another column has already.
    """
    for ours, theirs in columns.items():
        if theirs not in schema.names:
            raise InputError(
                f"{file}: {key} calls {theirs!r} {ours!r}, but the file has no column {theirs!r}"
                f"{_hint(ours, theirs, schema.names)}"
            )
        if ours in schema.names and ours not in columns.values():
            raise InputError(
                f"{file}: {key} calls {theirs!r} {ours!r}, but the file has a column {ours!r} of its own; "
                f"give that one another name in {key} too, such as {ours}_there = {ours!r}"
            )
    by_theirs = {theirs: ours for ours, theirs in columns.items()}
    return pa.schema([field.with_name(by_theirs.get(field.name, field.name)) for field in schema])


def _hint(ours: str, theirs: str, present: Sequence[str]) -> str:
    """What to write instead of a line of the map that leads to no column."""
    if ours in present:
        return (
            f". It has {ours!r}: the map reads name here = name in the files. Turn the line around, or leave it out "
            "where the file has that name already"
        )
    close = difflib.get_close_matches(theirs, present, n=1)
    nearest = f"; nearest column there: {close[0]!r}" if close else ""
    more = f" and {len(present) - _SHOWN} more" if len(present) > _SHOWN else ""
    return f"{nearest}. There are {', '.join(map(repr, present[:_SHOWN]))}{more}: correct the name on the right"


def rename_columns(rows: pl.LazyFrame, columns: Mapping[str, str]) -> pl.LazyFrame:
    """The rows of one input under the portfolio's names; `columns` as in `rename_fields`."""
    return rows.rename({theirs: ours for ours, theirs in columns.items()})


@dataclass(frozen=True)
class Joined:
    """Rows of both inputs below each other."""

    rows: pl.LazyFrame
    warnings: tuple[str, ...]
    """types that were brought together, and columns that could not be"""


def join_inputs(inputs: Mapping[str, pl.LazyFrame], portfolio: Portfolio, *, rule_columns: frozenset[str]) -> Joined:
    """Put two renamed inputs below each other, with `crossrisk_input` saying which one a row came from.

    An id is read as `source/17`: two systems number their loans on their own, and 17 may be in both. A customer is
    read as it is, so that one person in both stays on one side of the split.

    Args:
        inputs: `source` and `target`, under the portfolio's names.
        portfolio: names the columns and their roles.
        rule_columns: what the rules of [population] read.

    Raises:
        InputError: a column that must be carried is in neither, or has types that no role brings together.
    """
    schemas = {name: rows.collect_schema() for name, rows in inputs.items()}
    roles = carried_columns(portfolio)
    absent = sorted(set(roles) - {column for schema in schemas.values() for column in schema})
    if absent:
        raise InputError(f"column {absent[0]!r} is in neither input; correct its name in the TOML, or the files")
    casts: dict[str, pl.DataType] = {}
    dropped: list[str] = []
    warnings: list[str] = []
    for column in sorted(set.intersection(*(set(schema) for schema in schemas.values()))):
        kinds = {name: schema[column] for name, schema in schemas.items()}
        if len(set(kinds.values())) == 1:
            continue
        said = f"column {column!r} is " + " and ".join(f"{kind} in the {name}" for name, kind in kinds.items())
        role = roles.get(column, "any")
        common = _COMMON_TYPES.get(role)
        if role == "category" and pl.Boolean in kinds.values() and any(kind.is_integer() for kind in kinds.values()):
            raise InputError(
                f"{said}; as levels, 'true' and '1' would never meet, here and in the applicants scored later: write "
                "one type to both"
            )
        if common is not None:
            casts[column] = common
            warnings.append(f"{said}: read as {common}")
        elif column in roles or column in rule_columns:
            raise InputError(f"{said}; write one type to both, or leave it out of segments, protected and population")
        else:
            dropped.append(column)
            warnings.append(f"{said}: not carried over, nothing in the portfolio names it")
    parts = [
        rows.drop(dropped, strict=False)
        .cast({column: kind for column, kind in casts.items()})
        .with_columns(
            pl.concat_str(pl.lit(f"{name}/"), pl.col(portfolio.data.id).cast(pl.String)).alias(portfolio.data.id),
            pl.lit(name).alias(INPUT_COLUMN),
        )
        for name, rows in inputs.items()
    ]
    return Joined(pl.concat(parts, how="diagonal"), tuple(warnings))

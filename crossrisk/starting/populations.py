"""Two populations from `COLUMN=VALUE`: the SQL rules of a portfolio, and what they find in a table.

Values of one column are alternatives, columns must all be met: `product=card product=overdraft region=north` is
(card or overdraft) in the north. That is the target; the source is every row that certainly is not. Which population a
row belongs to in a run is `crossrisk.labels`.
"""

from __future__ import annotations

import difflib
import heapq
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import Any

import polars as pl
import polars.selectors as cs

from crossrisk.sql_rules import parse_rule

SHOWN_VALUES = 20
"""Values of a column that a message lists."""


@dataclass(frozen=True)
class Rules:
    """The two SQL filters of [population]; of no row both are true."""

    source: str
    target: str


@dataclass(frozen=True)
class Count:
    """What a rule finds."""

    rows: int
    bads: int
    goods: int
    months: int
    """different months of the decision date with a label; 0 where there is no date"""


def parse_targets(given: Sequence[str], schema: Mapping[str, pl.DataType]) -> dict[str, list[Any]]:
    """Column -> values, each of the column's type, in the order given.

    Raises:
        ValueError: no `=`, an unknown column, or a value that the column's type cannot hold.
    """
    targets: dict[str, list[Any]] = {}
    for text in given:
        column, value = split_assignment(text, schema, flag="--target")
        targets.setdefault(column, []).append(parse_value(value, schema[column], column))
    return targets


def split_assignment(text: str, schema: Iterable[str], *, flag: str) -> tuple[str, str]:
    """Column and value of `COLUMN=VALUE`; both may hold `=`, so the column is the shortest one that exists.

    Raises:
        ValueError: no `=`, or no such column.
    """
    names = list(schema)
    cuts = [position for position, character in enumerate(text) if character == "="]
    if not cuts:
        near = difflib.get_close_matches(text, names, n=1, cutoff=0.0)
        raise ValueError(f"{flag} expects COLUMN=VALUE, got {text!r}" + (f"; such as {near[0]}=VALUE" if near else ""))
    for cut in cuts:
        if text[:cut] in names:
            return text[:cut], text[cut + 1 :]
    near = difflib.get_close_matches(text[: cuts[0]], names, n=1, cutoff=0.0)
    raise ValueError(f"{flag}: the data have no column {text[: cuts[0]]!r}; the nearest is {near[0]!r}")


def parse_value(text: str, dtype: pl.DataType, column: str) -> Any:
    """A value as a column of this type holds it: boolean, whole or real number, date, or the text itself.

    Raises:
        ValueError: the type cannot hold it.
    """
    if dtype == pl.Boolean:
        if text.lower() in ("true", "1", "false", "0"):
            return text.lower() in ("true", "1")
        raise ValueError(f"column {column!r} holds true and false, got {text!r}; write one of them")
    if dtype.is_numeric():
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise ValueError(f"column {column!r} holds numbers, got {text!r}; write a number")
        return int(number) if number.is_integer() else number
    if dtype == pl.Date:
        try:
            return date.fromisoformat(text)
        except ValueError as error:
            raise ValueError(f"column {column!r} holds dates, written YYYY-MM-DD; got {text!r}") from error
    if dtype in (pl.String, pl.Categorical, pl.Enum):
        return text
    raise ValueError(f"column {column!r} is {str(dtype).lower()}: populations are told apart by text, numbers or dates")


def write_rules(targets: Mapping[str, Sequence[Any]]) -> Rules:
    """The SQL of the target and of the source.

    A row of which missing values leave it open whether it is target meets neither: to call it source would be a guess.
    """
    target = " AND ".join(_is_one_of(column, values) for column, values in targets.items())
    return Rules(source=f"NOT ({target})", target=target)


def _is_one_of(column: str, values: Sequence[Any]) -> str:
    literals = [sql_literal(value) for value in dict.fromkeys(values)]
    if len(literals) == 1:
        return f"{sql_name(column)} = {literals[0]}"
    return f"{sql_name(column)} IN ({', '.join(literals)})"


def sql_name(column: str) -> str:
    """A column's name as SQL, bare where the parser takes it for a column: words such as `order` are quoted."""
    quoted = '"' + column.replace('"', '""') + '"'
    if not (column.isascii() and column.isidentifier()):
        return quoted
    try:
        return column if parse_rule(f"{column} = 1").meta.root_names() == [column] else quoted
    except (pl.exceptions.PolarsError, ValueError):
        return quoted


def sql_literal(value: Any) -> str:
    """A value as SQL."""
    match value:
        case bool():
            return "TRUE" if value else "FALSE"
        case int() | float():
            return repr(value)
        case date():
            return f"DATE '{value.isoformat()}'"
        case _:
            return "'" + str(value).replace("'", "''") + "'"


def check_values(rows: pl.LazyFrame, targets: Mapping[str, Sequence[Any]]) -> None:
    """Refuse a target value that no row has.

    Raises:
        ValueError: names the value and those that there are.
    """
    for column, values in targets.items():
        held = rows.select(cs.by_name(column).unique()).collect(engine="streaming").to_series().drop_nulls().to_list()
        for value in values:
            if value not in held:
                near = heapq.nsmallest(SHOWN_VALUES, held, key=partial(_distance, value))
                nearest = ", ".join(_plain(other) for other in near) or "none, it is empty"
                raise ValueError(
                    f"no row has {column} = {_plain(value)}; of its {len(held):,} values the nearest: {nearest}"
                )


def _distance(value: Any, other: Any) -> float:
    """How far another value of the same column is from one that nobody has."""
    match value:
        case str():
            return -difflib.SequenceMatcher(None, other, value).ratio()
        case date():
            return float(abs((other - value).days))
        case _:
            return abs(float(other) - float(value))


def _plain(value: Any) -> str:
    return value.isoformat() if isinstance(value, date) else repr(value)


def count_populations(rows: pl.LazyFrame, rules: Rules, *, label: str, decision_date: str | None) -> dict[str, Count]:
    """Rows, bads, goods and months of `source`, `target` and `neither`.

    Args:
        rows: the table.
        rules: of no row both are true.
        label: column of 1, 0 and null.
        decision_date: column, or None.
    """
    counted = {"source": parse_rule(rules.source), "target": parse_rule(rules.target)}
    population = pl.coalesce(*(pl.when(rule).then(pl.lit(name)) for name, rule in counted.items()), pl.lit("neither"))
    month = pl.lit(None, pl.String) if decision_date is None else pl.col(decision_date).dt.strftime("%Y-%m")
    bad = pl.col(label).cast(pl.Float64)
    found = (
        rows.select(population.alias("population"), bad.alias("bad"), month.alias("month"))
        .group_by("population")
        .agg(
            pl.len().alias("rows"),
            (pl.col("bad") == 1).sum().alias("bads"),
            (pl.col("bad") == 0).sum().alias("goods"),
            pl.col("month").filter(pl.col("bad").is_not_null()).drop_nulls().n_unique().alias("months"),
        )
        .collect(engine="streaming")
    )
    counts = {row.pop("population"): Count(**row) for row in found.to_dicts()}
    return {name: counts.get(name, Count(0, 0, 0, 0)) for name in ("source", "target", "neither")}

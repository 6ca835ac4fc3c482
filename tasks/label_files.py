"""Outcomes and revisions: what lies beside the loans and only their label may see, joined to them by id, once.

Of outcomes, the columns that the contract of [label] reads come in, the known date and the grey rule are computed, and
what they were computed of goes out again: no later step could make a feature of it. Of revisions, the label as it stood
at as_of comes in. Finding and decoding files is `tasks.input_files`; what the contract means is `crossrisk.labels`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from crossrisk.config import GREY_COLUMN, KNOWN_COLUMN, Portfolio
from crossrisk.errors import ConfigError, InputError
from crossrisk.labels import revisions_at
from crossrisk.sql_rules import parse_rule

_HAS_LINE = "crossrisk_has_outcome"


@dataclass(frozen=True)
class LabelTables:
    """The label files of one input under the portfolio's names; None where it has no such file."""

    outcomes: pl.LazyFrame | None = None
    revisions: pl.LazyFrame | None = None


@dataclass(frozen=True)
class Labelled:
    """Loans with everything that their label needs."""

    rows: pl.LazyFrame
    facts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """lines of outcomes and revisions, and how they met the loans"""
    warnings: tuple[str, ...] = ()


def outcome_columns(portfolio: Portfolio, outcomes: pl.LazyFrame) -> frozenset[str]:
    """The columns that the contract takes from outcomes; the id and what the decision knew stay the loans' own."""
    data, label = portfolio.data, portfolio.label
    reads = set(label.rule_columns)
    if label.revisions is None:
        reads |= {label.column} | ({label.known_date} if label.known_date and not label.is_known_date_sql else set())
    reads -= {data.id, data.customer, data.decision_date}
    return frozenset(reads & set(outcomes.collect_schema()))


def provided_columns(portfolio: Portfolio, tables: LabelTables) -> frozenset[str]:
    """The columns that come from the label files and may therefore not be among the loans as well."""
    label = portfolio.label
    provided = frozenset() if tables.outcomes is None else outcome_columns(portfolio, tables.outcomes)
    return provided if tables.revisions is None else provided | {label.column, str(label.known_date)}


def attach_labels(loans: pl.LazyFrame, tables: LabelTables, portfolio: Portfolio, *, name: str = "") -> Labelled:
    """Join the label files of one input to its loans and compute what the SQL of [label] says.

    A loan without a line in outcomes has no label: nobody said that it is good. Lines without a loan are counted.

    Args:
        loans: of one input, under the portfolio's names.
        tables: its label files.
        portfolio: the contract.
        name: of the input, for messages; empty where there is one.

    Raises:
        InputError: a column is in both, an id has two lines in outcomes or two labels of one day in revisions, ids of
            different types, a file of which the label reads nothing.
        ConfigError: the SQL cannot be applied to the columns.
    """
    _refuse_ambiguous(loans, tables, portfolio, name)
    one, rows = portfolio.data.id, loans
    facts: dict[str, Mapping[str, int]] = {}
    warnings: list[str] = []
    taken: frozenset[str] = frozenset()
    if tables.outcomes is not None:
        outcomes, taken = _of_type(tables.outcomes, loans, one, "outcomes"), outcome_columns(portfolio, tables.outcomes)
        facts["outcomes"] = _count_outcomes(outcomes, loans, portfolio, taken)
        warnings += _say("outcomes", facts["outcomes"], name)
        lines = outcomes.select(one, *sorted(taken), pl.lit(True).alias(_HAS_LINE))
        rows = rows.join(lines, on=one, how="left", maintain_order="left")
    if tables.revisions is not None:
        revisions = _of_type(tables.revisions, loans, one, "revisions")
        facts["revisions"] = _count_revisions(revisions, loans, portfolio)
        warnings += _say("revisions", facts["revisions"], name)
        label = portfolio.label
        known = revisions.select(one, str(label.known_date), label.column)
        rows = rows.join(revisions_at(known, portfolio), on=one, how="left", maintain_order="left")
    rows = rows.with_columns(_computed(rows, portfolio))
    if tables.outcomes is not None:
        rows = rows.with_columns(pl.when(pl.col(_HAS_LINE)).then(pl.col(portfolio.label.column)))
    kept = {portfolio.label.column, portfolio.label.known_column}
    return Labelled(rows.drop([*sorted(taken - kept), _HAS_LINE], strict=False), facts, tuple(warnings))


def _refuse_ambiguous(loans: pl.LazyFrame, tables: LabelTables, portfolio: Portfolio, name: str) -> None:
    both = sorted(provided_columns(portfolio, tables) & set(loans.collect_schema()))
    if both:
        where = f"data.{name}.columns" if name else "data.columns"
        raise InputError(
            f"column {both[0]!r} is among the loans and in the files of [label] as well; leave it out of one of them, "
            f'or give the one among the loans another name: {where} = {{ {both[0]}_of_loans = "{both[0]}" }}'
        )


def _of_type(lines: pl.LazyFrame, loans: pl.LazyFrame, one: str, kind: str) -> pl.LazyFrame:
    """The lines with the id as the loans have it: integers of any width meet, other types must be the same."""
    theirs, ours = lines.collect_schema()[one], loans.collect_schema()[one]
    if theirs == ours:
        return lines
    if theirs.is_integer() and ours.is_integer():
        return lines.with_columns(pl.col(one).cast(ours, strict=False))  # too wide for the loans' type: no such loan
    raise InputError(f"{one!r} is {theirs} in label.{kind} and {ours} among the loans; write one type to both")


def _computed(rows: pl.LazyFrame, portfolio: Portfolio) -> list[pl.Expr]:
    """The SQL of the contract as columns of the table; checked against the types of the columns."""
    label = portfolio.label
    has_line = pl.col(_HAS_LINE).fill_null(False) if _HAS_LINE in rows.collect_schema() else pl.lit(True)
    made: list[pl.Expr] = []
    if label.is_known_date_sql:
        made.append(pl.when(has_line).then(parse_rule(str(label.known_date))).alias(KNOWN_COLUMN))
    if label.grey is not None:
        made.append((has_line & parse_rule(label.grey).fill_null(False)).alias(GREY_COLUMN))
    try:
        schema = rows.collect_schema().to_frame().select(made).schema  # types that do not fit show on no row at all
    except pl.exceptions.PolarsError as error:
        said, *_plan_of_query = str(error).splitlines()
        raise ConfigError(
            f"the SQL of label.known_date or label.grey cannot be applied to the data: {said}. A date is written "
            "DATE '2024-05-01', a span INTERVAL '150 days', a string in single quotes"
        ) from error
    if label.is_known_date_sql and not schema[KNOWN_COLUMN].is_temporal():
        raise ConfigError(f"label.known_date must be a date, but {label.known_date!r} is {schema[KNOWN_COLUMN]}")
    return made


def _count_outcomes(
    outcomes: pl.LazyFrame, loans: pl.LazyFrame, portfolio: Portfolio, taken: frozenset[str]
) -> dict[str, int]:
    one, label = portfolio.data.id, portfolio.label
    if not taken:
        raise InputError(
            f"label.outcomes holds no column that the label reads: known_date {label.known_date!r}, grey "
            f"{label.grey!r}, column {label.column!r}; correct their names, or leave label.outcomes out"
        )
    twice = outcomes.group_by(one).len().filter(pl.col(one).is_not_null(), pl.col("len") > 1).sort(one)
    repeated = twice.collect(engine="streaming")
    if repeated.height:
        raise InputError(
            f"{repeated.height:,} ids have more than one line in label.outcomes, such as {one} {repeated[one][0]!r}; "
            "deliver one line an id, or the history as label.revisions"
        )
    ids, of_loans = outcomes.select(one), loans.select(one)
    return {
        "lines": _rows(outcomes),
        "loans_without_line": _rows(of_loans.join(ids, on=one, how="anti")),
        "lines_without_loan": _rows(ids.join(of_loans, on=one, how="anti")),
    }


def _count_revisions(revisions: pl.LazyFrame, loans: pl.LazyFrame, portfolio: Portfolio) -> dict[str, int]:
    one, known, label = portfolio.data.id, str(portfolio.label.known_date), portfolio.label.column
    by_now = revisions.filter(pl.col(known).cast(pl.Date) <= portfolio.as_of)
    labels_a_day = by_now.group_by(one, pl.col(known).cast(pl.Date)).agg(pl.col(label).n_unique().alias("labels"))
    torn = labels_a_day.filter(pl.col("labels") > 1).sort(one, known).collect(engine="streaming")
    if torn.height:
        raise InputError(
            f"label.revisions holds two labels of one id and day {torn.height:,} times, such as {one} {torn[one][0]!r} "
            f"on {torn[known][0]}; nobody can say which is the last: deliver one of them"
        )
    restated = by_now.group_by(one).agg(pl.col(label).n_unique().alias("labels")).filter(pl.col("labels") > 1)
    return {
        "lines": _rows(revisions),
        "lines_later_than_as_of": _rows(revisions.filter(pl.col(known).cast(pl.Date) > portfolio.as_of)),
        "lines_without_date": _rows(revisions.filter(pl.col(known).is_null())),
        "ids_restated": _rows(restated),
        "lines_without_loan": _rows(revisions.select(one).join(loans.select(one), on=one, how="anti")),
    }


_FINDINGS = {
    "loans_without_line": "{n:,} loans have no line in label.{kind}{of}: their label is unknown",
    "lines_without_loan": "{n:,} lines of label.{kind}{of} belong to no loan",
    "lines_without_date": "{n:,} lines of label.{kind}{of} have no date: they are never known",
}


def _say(kind: str, counts: Mapping[str, int], name: str) -> list[str]:
    of = f" of the {name}" if name else ""
    return [text.format(n=counts[key], kind=kind, of=of) for key, text in _FINDINGS.items() if counts.get(key)]


def _rows(lines: pl.LazyFrame) -> int:
    return int(lines.select(pl.len()).collect(engine="streaming").item())


def facts_of(labelled: Mapping[str, Labelled]) -> dict[str, Any]:
    """Facts of all inputs as plain data, by input where there are two."""
    found = {name: dict(one.facts) for name, one in labelled.items() if one.facts}
    return dict(found[""]) if "" in found else found

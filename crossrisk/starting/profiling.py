"""What a table's columns look like, the role that each probably plays in a portfolio, and why.

A lazy frame in, one frozen profile out: columns are read one at a time, so memory holds one of them. Conclusions are
guesses with their reason in words, made to be read by a person: `crossrisk.starting.drafting` writes them down as a
portfolio. What names give away is `crossrisk.starting.naming`; columns that know the outcome are `crossrisk.leaks`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import polars as pl
import polars.selectors as cs

from crossrisk.leaks import find_leaks
from crossrisk.starting import naming
from crossrisk.starting.columns import MOST_LEVELS, Column, Role, describe_column
from crossrisk.starting.own_names import Renamed

LEAST_ROWS_A_LEVEL = 5
"""A category with fewer rows a level on average is free text."""
FIRST_YEAR, LAST_YEAR = 1990, 2100
"""Decision dates lie between: 1970 and 9999 are what unset fields become. The common suite has the same first year."""


@dataclass(frozen=True)
class Told:
    """What a person has said of the columns, which beats any guess."""

    label: str | None = None
    id: str | None = None
    decision_date: str | None = None
    population: tuple[str, ...] = ()
    """columns by which the target is told from the source"""


@dataclass(frozen=True)
class Profile:
    """A table as `crossrisk init` sees it."""

    rows: int
    columns: tuple[Column, ...]
    bads: int
    goods: int
    labels_unknown: int
    notes: tuple[str, ...] = ()
    """what a person must look at before believing the rest"""
    renamed: tuple[Renamed, ...] = ()
    """columns that stand here under another name than in the files"""

    def of(self, *roles: Role) -> tuple[Column, ...]:
        """The columns of these roles, in the order of the table."""
        return tuple(column for column in self.columns if column.role in roles)

    def the(self, role: Role) -> Column | None:
        """The column of a role that at most one plays."""
        return next(iter(self.of(role)), None)

    def under_names(self, renamed: tuple[Renamed, ...]) -> Profile:
        """The profile under names of our own, in all that is said of its columns too."""
        ours = {one.theirs: one.ours for one in renamed}
        columns = (
            replace(
                column,
                name=ours[column.name],
                findings=tuple(replace(finding, column=ours[column.name]) for finding in column.findings),
            )
            if column.name in ours
            else column
            for column in self.columns
        )
        return replace(self, columns=tuple(columns), renamed=renamed)


def profile_table(rows: pl.LazyFrame, told: Told) -> Profile:
    """Look at every column of a table and conclude its role.

    Args:
        rows: the table; every column is collected once or twice, alone.
        told: what is known of the columns already.

    Raises:
        ValueError: an empty table, a told column that is not there or cannot play its role, no id, no label; the
            message says what to do.
    """
    schema = rows.collect_schema()
    for name in (told.label, told.id, told.decision_date, *told.population):
        if name is not None and name not in schema:
            raise ValueError(f"the data have no column {name!r}{_nearest(name, schema.names())}")
    count = int(rows.select(pl.len()).collect(engine="streaming").item())
    if not count:
        raise ValueError(
            f"expected rows to draft a portfolio from, came none ({len(schema)} columns); give a file of past loans"
        )
    columns = {name: replace(describe_column(_collect(rows, name)), name=name) for name in schema.names()}
    keys = _keys(columns, told)
    label = _collect(rows, next(name for name, (role, _) in keys.items() if role == "label")).cast(pl.Int8)
    by_role: dict[Role, str] = {role: name for name, (role, _) in keys.items() if role != "population"}
    decided = _collect(rows, by_role["decision_date"]) if "decision_date" in by_role else None
    concluded = [
        replace(column, role=keys[name][0], reason=keys[name][1])
        if name in keys
        else _conclude(column, _collect(rows, name), label, decided)
        for name, column in columns.items()
    ]
    bads, known = int(label.sum()), int(label.count())
    notes = _notes(bads, known, count, by_role)
    return Profile(count, tuple(concluded), bads, known - bads, count - known, tuple(notes))


def _collect(rows: pl.LazyFrame, name: str) -> pl.Series:
    # a column may be called `*` or `^a$`, which Polars, in methods of a series too, takes for many
    values = rows.select(cs.by_name(name).alias("values")).collect(engine="streaming").to_series()
    return values.fill_nan(None) if values.dtype.is_float() else values


def _nearest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    return f"; the nearest is {close[0]!r}" if close else ""


# --- the columns that a portfolio cannot do without ---


def _keys(columns: dict[str, Column], told: Told) -> dict[str, tuple[Role, str]]:
    """Name -> role and reason of the columns with a part of their own: ids, label, dates, population."""
    keys: dict[str, tuple[Role, str]] = {name: ("population", "tells target from source") for name in told.population}
    label, why = _label(columns, told)
    keys[label] = ("label", why)
    free = [column for column in columns.values() if column.name not in keys]
    identifier, why = _id(columns, free, told)
    keys[identifier] = ("id", why)
    free = [column for column in free if column.name not in keys]
    customer = next((c for c in free if naming.customer_word(c.name) and c.is_key_type and c.distinct > 1), None)
    if customer is not None:
        keys[customer.name] = ("customer", "named like the key of a person, and repeated")
    dated = _decision_date(columns, free, told)
    if dated is not None:
        keys[dated[0].name] = ("decision_date", dated[1])
        known = next((c for c in free if c.name not in keys and _is_known_date(c, dated[0])), None)
        if known is not None:
            keys[known.name] = ("known_date", "a date in every row, named like that of the outcome")
    return keys


def _label(columns: dict[str, Column], told: Told) -> tuple[str, str]:
    if told.label is not None:
        if told.label in told.population:
            raise ValueError(
                f"column {told.label!r} cannot be the label: it already tells the target from the source; name "
                "another one with --label or --target"
            )
        if not columns[told.label].is_zero_one:
            raise ValueError(
                f"column {told.label!r} cannot be the label: expected the numbers 0 (good) and 1 (bad), both present, "
                f"got {columns[told.label].distinct} values of type {columns[told.label].dtype}; name another "
                f"column, or the value that means bad: --label {told.label}=VALUE"
            )
        return told.label, "told"
    binary = [column for column in columns.values() if column.is_zero_one and column.name not in told.population]
    ranked = [(rank, c.name) for c in binary if (rank := naming.label_rank(c.name)) is not None]
    if not ranked:
        raise ValueError(_no_label([column.name for column in binary], told))
    return min(ranked)[1], "0/1, and named like a label"


def _no_label(binary: Sequence[str], told: Told) -> str:
    known = f"no column is 0/1 and named like a label ({', '.join(naming.LABEL_WORDS)})"
    if told.population:
        known += f", {', '.join(map(repr, told.population))} of --target aside"
    if binary:
        listed = ", ".join(map(repr, binary[:10]))
        return f"{known}; say which one it is with --label COLUMN. Columns of 0 and 1: {listed}"
    return f"{known}, nor any just 0/1; --label COLUMN=VALUE, with the value that means bad, says how to make one"


def _id(columns: Mapping[str, Column], free: Sequence[Column], told: Told) -> tuple[str, str]:
    if told.id is not None:
        column = next((c for c in free if c.name == told.id), None)
        if column is None or not column.is_unique_key:
            raise ValueError(
                f"column {told.id!r} cannot be the id: expected a string or whole number that no two rows share and "
                f"that no row lacks, with no other part to play; {_what_came(columns[told.id])}; name another --id, or "
                "none, to have one looked for"
            )
        return told.id, "told"
    unique = [column for column in free if column.is_unique_key]
    for column in unique:
        if word := naming.key_word(column.name) or naming.customer_word(column.name):
            return column.name, f"different in every row, and named like a key ({word})"
    for column in unique:
        if column.kind == "text" or column.highest - column.lowest == column.rows - 1:
            return column.name, "different in every row"
    raise ValueError(
        "no column tells the rows apart: an id is a string or whole number, never missing and never repeated. Name it "
        "with --id COLUMN, or give the rows one: "
        'polars.scan_parquet(DATA).with_row_index("row_id").sink_parquet(NEW), and keep it from month to month'
    )


def _what_came(column: Column) -> str:
    counted = (
        f"it is {column.dtype} with {column.distinct:,} values in {column.rows:,} rows, {column.missing:,} missing"
    )
    return f"{counted}, from {column.lowest} to {column.highest}" if column.kind == "date" else counted


def _decision_date(columns: Mapping[str, Column], free: Sequence[Column], told: Told) -> tuple[Column, str] | None:
    dates = [column for column in free if column.kind == "date"]
    if told.decision_date is not None:
        column = next((c for c in dates if c.name == told.decision_date), None)
        if column is None or not _is_plausible_date(column):
            raise ValueError(
                f"column {told.decision_date!r} cannot be the decision date: expected dates between {FIRST_YEAR} and "
                f"{LAST_YEAR} in (almost) every row, with no other part to play; "
                f"{_what_came(columns[told.decision_date])}; cast it to dates, or name another --date"
            )
        return column, "told"
    plausible = [column for column in dates if _is_plausible_date(column)]
    for column in plausible:
        word = naming.has_word(column.name, naming.DECISION_DATE_WORDS)
        if word and not naming.has_word(column.name, naming.OTHER_DATE_WORDS):
            return column, f"a date in every row, named like the decision ({word})"
    nameless = [column for column in plausible if not naming.has_word(column.name, naming.OTHER_DATE_WORDS)]
    if len(nameless) == 1:
        return nameless[0], "the only date that could be the decision's"
    return None


def _is_plausible_date(column: Column) -> bool:
    if column.lowest is None or column.missing_share > 0.01:
        return False
    return bool(column.lowest.year >= FIRST_YEAR and column.highest.year < LAST_YEAR)


def _is_known_date(column: Column, decision_date: Column) -> bool:
    if column.kind != "date" or not naming.has_word(column.name, naming.KNOWN_DATE_WORDS):
        return False
    return column.missing == 0 and _is_plausible_date(column) and bool(column.lowest >= decision_date.lowest)


# --- all others ---


def _conclude(column: Column, values: pl.Series, label: pl.Series, decided: pl.Series | None) -> Column:
    """The column with its role and reason; the first rule that applies decides."""
    unfit = _unfit(column, values)
    if unfit is not None:
        return replace(column, role=unfit[0], reason=unfit[1])
    findings = find_leaks(values.to_frame(), label)
    column = replace(column, findings=findings)
    proven = next((finding for finding in findings if finding.status == "ok"), None)
    if proven is not None:
        return replace(column, role="leak", reason=proven.sentence)
    if column.kind == "date":
        return _conclude_date(column, values, decided)
    if column.kind == "text":
        return replace(column, role="category", reason=f"text of {column.distinct} levels")
    if column.kind == "number" and column.is_key_type:
        return _conclude_whole_number(column)
    return replace(column, role="numeric", reason="yes or no" if column.kind == "flag" else "a number")


def _conclude_whole_number(column: Column) -> Column:
    word = naming.has_word(column.name, naming.CODE_WORDS)
    if word is None:
        return replace(column, role="numeric", reason="a whole number")
    column = replace(column, sentinels=())
    if column.distinct <= MOST_LEVELS:
        return replace(column, role="category", reason=f"a whole number named like a code ({word}): no order")
    return replace(column, role="too fine", reason=f"a code ({word}) of {column.distinct:,} different values")


def _unfit(column: Column, values: pl.Series) -> tuple[Role, str] | None:
    """Role and reason of a column that can be no feature, whatever its values say of the label."""
    name = column.name
    if word := naming.protected_word(name):
        return "protected", f"named like a protected attribute ({word}): for reports, never in a model"
    if reason := naming.outcome_reason(name):
        return "leak", f"{reason}: known only after the decision"
    if column.is_zero_one and naming.has_word(name, naming.OUTCOME_WORDS):
        return "outcome", "0/1 and named like an outcome, beside the label"
    if reason := naming.lender_reason(name):
        return "lender decision", f"{reason}, and made of the application"
    if column.distinct <= 1:
        return "constant", "one value in all rows" if column.distinct else "empty"
    if column.kind == "other":
        return "unreadable", f"{column.dtype} is neither number, date nor text"
    if column.kind == "number" and _reads_as_dates(column):
        return "unreadable", "dates written as numbers (YYYYMMDD): cast the column to dates"
    if column.is_unique_key and (column.kind == "text" or naming.key_word(name)):
        return "key", "different in every row: another key"
    if naming.customer_word(name) and column.is_key_type:
        return "key", "named like the key of a person, beside another one"
    return _unfit_text(column, values) if column.kind == "text" else None


def _unfit_text(column: Column, values: pl.Series) -> tuple[Role, str] | None:
    sample = values.drop_nulls().head(1000).cast(pl.String)
    if sample.str.contains(r"^\d{4}-\d{2}(-\d{2}|$)").all():  # whole dates, and months, which are often folders
        return "unreadable", "dates written as text: cast the column to dates"
    if column.distinct <= min(MOST_LEVELS, column.rows / LEAST_ROWS_A_LEVEL):
        return None
    if sample.cast(pl.Float64, strict=False).is_not_null().all():
        return "unreadable", "numbers written as text: cast the column to numbers"
    return "too fine", f"text of {column.distinct:,} different values"


def _reads_as_dates(column: Column) -> bool:
    whole = column.is_key_type and column.lowest is not None
    return bool(whole and 19000101 <= column.lowest <= column.highest <= 21001231)


def _conclude_date(column: Column, values: pl.Series, decided: pl.Series | None) -> Column:
    if decided is None:
        return replace(column, role="later date", reason="no decision date to which it could be compared")
    later = int((values.cast(pl.Date) > decided.cast(pl.Date)).sum())
    if later:
        return replace(column, role="later date", reason=f"after the decision date in {later:,} rows: not known then")
    return replace(column, role="date", reason="a date, never after the decision: its age in months is a feature")


def _notes(bads: int, known: int, rows: int, by_role: dict[Role, str]) -> Iterator[str]:
    if bads > known / 2:
        yield f"{bads / known:.0%} of the labels are 1, which must mean bad; if 1 is good, turn the label around"
    if known < rows:
        yield f"{rows - known:,} rows have no label: they count as unknown, never as good"
    if "decision_date" not in by_role:
        yield "no decision date: splits are random, nothing is out of time, no month can be monitored"
    elif "known_date" not in by_role:
        yield "every label counts as known at as_of: set label.window_months, or young loans pass for good ones"

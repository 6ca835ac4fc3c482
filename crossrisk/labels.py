"""Labels with time: which rows belong to which population, and whose label is known at as_of.

A label that has not matured is unknown, never good: it is null here, with the reason beside it, and nothing downstream
can see its value. Expressions over the columns of the ingested table; reading and joining files stays in `tasks`. The
contract, in words and with an example, is docs/labels.md.
"""

from __future__ import annotations

from typing import Literal

import polars as pl

from crossrisk.config import GREY_COLUMN, INPUT_COLUMN, Portfolio
from crossrisk.sql_rules import parse_rule

SOURCE, TARGET, BOTH, NEITHER = "source", "target", "both", "neither"

Reason = Literal["unmatured", "grey", "not reported", "invalid"]
UNMATURED: Reason = "unmatured"
GREY: Reason = "grey"
NOT_REPORTED: Reason = "not reported"
INVALID: Reason = "invalid"
REASONS: tuple[Reason, ...] = (UNMATURED, GREY, NOT_REPORTED, INVALID)
"""Why a label is null: too young; neither good nor bad by the contract; no label or no date of it came; neither 0 nor 1
(or no decision date, without which nothing matures)."""


def population(portfolio: Portfolio) -> pl.Expr:
    """`source`, `target`, `both` or `neither`, by the portfolio's rules and inputs; null in a rule counts as no."""
    in_source, in_target = _belongs(portfolio, SOURCE), _belongs(portfolio, TARGET)
    return (
        pl.when(in_source & in_target)
        .then(pl.lit(BOTH))
        .when(in_source)
        .then(pl.lit(SOURCE))
        .when(in_target)
        .then(pl.lit(TARGET))
        .otherwise(pl.lit(NEITHER))
    )


def _belongs(portfolio: Portfolio, name: str) -> pl.Expr:
    rule: str | None = getattr(portfolio.population, name)
    meets_rule = pl.lit(True) if rule is None else parse_rule(rule).fill_null(False)
    return (pl.col(INPUT_COLUMN) == name) & meets_rule if portfolio.data.has_two_inputs else meets_rule


# --- maturity ---


def is_window_closed(portfolio: Portfolio) -> pl.Expr:
    """Whether decision date + window + reporting lag lies at or before as_of; true where there is no window."""
    if portfolio.data.decision_date is None:
        return pl.lit(True)
    matures = window_end(portfolio) + pl.duration(days=portfolio.label.reporting_lag_days)
    return (matures <= portfolio.as_of).fill_null(False)


def window_end(portfolio: Portfolio) -> pl.Expr:
    """Decision date + window in calendar months, as a date: 31 January + 1 month is the last day of February."""
    return _decided(portfolio).dt.offset_by(f"{portfolio.label.window_months}mo")


def matured_label(portfolio: Portfolio) -> pl.Expr:
    """0 or 1 where the label is known at as_of, else null (Int8); `why_unknown` says why.

    Known means: the window is closed, the account is not grey, the label itself is 0 or 1, and the date at which it
    became known (where there is such a column) is not after as_of. Under `label.within_window` the column tells of an
    event at any day, and that date is the event's: an event after the window leaves a good of this label. Early bads
    of an open window stay unknown too, or the bad rate of young vintages would inflate.
    """
    value = _value(portfolio)
    if portfolio.label.within_window:
        value = pl.when(_is_after_window(portfolio)).then(0.0).otherwise(value)
    return pl.when(why_unknown(portfolio).is_null()).then(value).cast(pl.Int8)


def why_unknown(portfolio: Portfolio) -> pl.Expr:
    """One of `REASONS` where the label is null, null where it is known (String). The first that holds, in this order:

    `invalid` without a decision date, `unmatured`, `grey`, `not reported`, `invalid`. None of them looks at what became
    known after as_of, whatever the file says of it.
    """
    data, label = portfolio.data, portfolio.label
    value = _value(portfolio)
    is_binary = value.is_in([0.0, 1.0])
    waits = ~is_window_closed(portfolio)
    is_missing = value.is_null()
    if label.within_window:
        # after the window the column is not asked any more: a code that came later may not unmake a known good
        is_binary |= _is_after_window(portfolio)
        is_missing |= (value == 1) & _known(portfolio).is_null()
    elif label.known_column is not None:
        waits |= (_known(portfolio) > portfolio.as_of).fill_null(False)
        is_missing |= _known(portfolio).is_null()
    return (
        pl.when(pl.lit(False) if data.decision_date is None else _decided(portfolio).is_null())
        .then(pl.lit(INVALID))
        .when(waits)
        .then(pl.lit(UNMATURED))
        .when(is_grey(portfolio))
        .then(pl.lit(GREY))
        .when(is_missing)
        .then(pl.lit(NOT_REPORTED))
        .when(~is_binary)
        .then(pl.lit(INVALID))
    )


def is_grey(portfolio: Portfolio) -> pl.Expr:
    """Whether the contract calls the account neither good nor bad."""
    return pl.lit(False) if portfolio.label.grey is None else pl.col(GREY_COLUMN)


def _decided(portfolio: Portfolio) -> pl.Expr:
    assert portfolio.data.decision_date is not None
    return pl.col(portfolio.data.decision_date).cast(pl.Date)


def _known(portfolio: Portfolio) -> pl.Expr:
    assert portfolio.label.known_column is not None
    return pl.col(portfolio.label.known_column).cast(pl.Date)


def _value(portfolio: Portfolio) -> pl.Expr:
    return pl.col(portfolio.label.column).cast(pl.Float64)


def _is_after_window(portfolio: Portfolio) -> pl.Expr:
    return (_known(portfolio) > window_end(portfolio)).fill_null(False)


# --- restated labels ---


def revisions_at(revisions: pl.LazyFrame, portfolio: Portfolio) -> pl.LazyFrame:
    """The label of every id as it stood at as_of: one line an id, of those known on or before as_of.

    A line that repeats the label before it restates nothing: the date is that of the first line since when the label
    has stood. Lines without a date are never known.

    Args:
        revisions: id, known date and label under the portfolio's names, any number of lines an id; no two lines of one
            id and day may differ.
        portfolio: names the columns; as_of.
    """
    one, known, label = portfolio.data.id, str(portfolio.label.known_date), portfolio.label.column
    before = revisions.filter(pl.col(known).cast(pl.Date) <= portfolio.as_of).sort(one, known)
    is_first = pl.col(one).ne_missing(pl.col(one).shift(1))
    restates = pl.col(label).ne_missing(pl.col(label).shift(1))
    return before.filter(is_first | restates).group_by(one, maintain_order=True).last()


# --- point in time ---


def known_too_late(portfolio: Portfolio) -> dict[str, pl.Expr]:
    """For every column of `features.timestamps`: whether its own timestamp lies after the decision date.

    Dates are compared as dates: of a timestamp with hours, the day counts.
    """
    return {
        column: (pl.col(timestamp).cast(pl.Date) > _decided(portfolio)).fill_null(False)
        for column, timestamp in portfolio.features.timestamps.items()
    }


def born_too_late(portfolio: Portfolio) -> dict[str, pl.Expr]:
    """For every date of `features.ages` that is not in `features.timestamps`: whether it lies after the decision date.

    Such an age is negative. Real files hold a few as typing errors, so they are counted and not refused; a date listed
    as its own timestamp is refused like any feature.
    """
    dates = set(portfolio.features.ages.values()) - set(portfolio.features.timestamps)
    return {date: (pl.col(date).cast(pl.Date) > _decided(portfolio)).fill_null(False) for date in sorted(dates)}


# --- vintages ---


def month(portfolio: Portfolio) -> pl.Expr:
    """Vintage: month of the decision date as `YYYY-MM`; null where the portfolio has no dates."""
    if portfolio.data.decision_date is None:
        return pl.lit(None, pl.String)
    return _decided(portfolio).dt.strftime("%Y-%m")


def booked_accounts(portfolio: Portfolio) -> list[pl.Expr] | None:
    """What `crossrisk.vintages` reads: population, decided, event, and amount where the portfolio names it.

    `event` is the date at which the bad became known, null where there is none (or none that is dated, or the account
    is grey). None for a portfolio without a decision date or a date at which labels became known.
    """
    if portfolio.data.decision_date is None or portfolio.label.known_column is None:
        return None
    is_bad = (_value(portfolio) == 1) & ~is_grey(portfolio)
    amount = [] if portfolio.label.amount is None else [pl.col(portfolio.label.amount).cast(pl.Float64).alias("amount")]
    return [
        population(portfolio).alias("population"),
        _decided(portfolio).alias("decided"),
        pl.when(is_bad).then(_known(portfolio)).alias("event"),
        *amount,
    ]


def describe_contract(portfolio: Portfolio) -> str:
    """The label in one paragraph of plain words, for memo and model card."""
    label = portfolio.label
    event = label.event or f"{label.column} = 1"
    if not label.window_months:
        said = [f"Bad: {event}."]
    elif label.within_window:
        said = [f"Bad: {event}, known within {label.window_months} months of {portfolio.data.decision_date}."]
    else:
        said = [f"Bad: {event}, within {label.window_months} months of {portfolio.data.decision_date}."]
    lag = f" and {label.reporting_lag_days} days to report it" if label.reporting_lag_days else ""
    if label.window_months:
        said.append(f"A label is known {label.window_months} months after the decision{lag}, and unknown before.")
    if label.known_date is not None and not label.within_window:
        said.append(f"It became known at {label.known_date}; later than {portfolio.as_of}, it is unknown.")
    if label.grey is not None:
        said.append(f"Neither good nor bad, so neither fitted nor judged on: {label.grey}.")
    if label.revisions is not None:
        said.append(f"Restated labels count as they stood at {portfolio.as_of}.")
    return " ".join(said)

"""Vintages: what share of the accounts booked in a month has turned bad by every month on book.

Frames in, plain data out. The denominator is every account of the month, fixed from the first month on book to the
last; a cell is there only where all of them have been on book for so long and the reporting lag has passed too. Curves
are therefore read at equal months on book, whatever the age of the vintages. Which account is bad, and since when, is
`crossrisk.labels`' business; drawing is `crossrisk.pages.vintage_plots`'.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from crossrisk.metrics.base import wilson

Floats = NDArray[np.float64]

MAX_MONTHS = 60
"""Five years on book: longer curves are flat in consumer credit, and every month more is a column of the table."""
COMPARED_MONTHS = 12
"""Where nobody says: the customary horizon of an application score."""


def build_vintages(
    accounts: pl.LazyFrame, *, as_of: date, reporting_lag_days: int = 0, max_months: int = MAX_MONTHS
) -> pl.DataFrame:
    """The vintage table: one row a population, vintage and month on book that is fully observed at as_of.

    An event counts from the first month on book k with decided + k calendar months >= event. A cell is fully observed
    where the vintage's month is over at as_of (nothing is booked into it any more) and the account decided last has
    been on book for k months and the lag. Nothing that became known after as_of can enter such a cell.

    Args:
        accounts: population (String), decided (Date), event (Date; null: none known), one row an account; amount
            (Float64) where vintages by amount are wanted. Rows without a decision date are of no vintage.
        as_of: the logical date.
        reporting_lag_days: after which an event of a month on book is in the data.
        max_months: the last month on book.

    Returns:
        population, vintage (YYYY-MM), months_on_book (1..), accounts (fixed), bads (cumulative), share (bads over
        accounts, in [0, 1], never falling), low and high (Wilson's 95% interval). With amount also amount (fixed),
        bad_amount, amount_share, amount_low, amount_high and effective: their Wilson interval counts Kish's effective
        number of accounts, (sum of amounts)^2 / sum of squares, for large accounts weigh more. Sorted.
    """
    booked = accounts.filter(pl.col("decided").is_not_null()).with_columns(
        pl.col("decided").dt.strftime("%Y-%m").alias("vintage"), _months_to_event().alias("months_on_book")
    )
    has_amount = "amount" in accounts.collect_schema()
    keys = ["population", "vintage"]
    totals = booked.group_by(keys).agg(
        pl.len().cast(pl.Int64).alias("accounts"), pl.col("decided").max().alias("last"), *_total_amounts(has_amount)
    )
    events = booked.filter(pl.col("months_on_book") <= max_months).group_by(*keys, "months_on_book").agg(
        pl.len().cast(pl.Int64).alias("bads"), *([pl.col("amount").sum().alias("bad_amount")] if has_amount else [])
    )  # fmt: skip
    sums = ["bads", "bad_amount"] if has_amount else ["bads"]
    cells = _observed(totals, as_of, reporting_lag_days, max_months).collect(engine="streaming")
    table = (
        cells.join(events.collect(engine="streaming"), on=[*keys, "months_on_book"], how="left")
        .sort(*keys, "months_on_book")
        .with_columns(pl.col(name).fill_null(0).cum_sum().over(keys) for name in sums)
    )
    return _with_shares(table, has_amount=has_amount)


def _months_to_event() -> pl.Expr:
    """The first month on book by whose end the event was known, at least 1; null without an event."""
    decided, event = pl.col("decided"), pl.col("event")
    months = 12 * (event.dt.year() - decided.dt.year()) + event.dt.month().cast(pl.Int32) - decided.dt.month()
    # the calendar's difference may be one short: from the 10th to the 20th of the next month is in the second month
    is_reached = decided.dt.offset_by(pl.format("{}mo", months.fill_null(0))) >= event
    return pl.when(event.is_not_null()).then((months + (~is_reached).cast(pl.Int32)).clip(1)).cast(pl.Int64)


def _total_amounts(has_amount: bool) -> list[pl.Expr]:
    amount = pl.col("amount")
    total, squares = amount.sum(), (amount**2).sum()
    effective = pl.when(squares > 0).then(total**2 / squares).otherwise(0.0)
    return [total.alias("amount"), effective.alias("effective")] if has_amount else []


def _observed(totals: pl.LazyFrame, as_of: date, reporting_lag_days: int, max_months: int) -> pl.LazyFrame:
    months = pl.LazyFrame({"months_on_book": range(1, max_months + 1)}, schema={"months_on_book": pl.Int64})
    reached = pl.col("last").dt.offset_by(pl.format("{}mo", "months_on_book")) + pl.duration(days=reporting_lag_days)
    is_over = pl.col("last").dt.month_end() <= as_of
    return totals.filter(is_over).join(months, how="cross").filter(reached <= as_of).drop("last")


def _with_shares(table: pl.DataFrame, *, has_amount: bool) -> pl.DataFrame:
    counted = ["population", "vintage", "months_on_book", "accounts", "bads", "share", "low", "high"]
    table = _with_interval(table, "bads", "accounts", "accounts", ("share", "low", "high"))
    if not has_amount:
        return table.select(counted)
    names = ("amount_share", "amount_low", "amount_high")
    return _with_interval(table, "bad_amount", "amount", "effective", names).select(
        *counted, "amount", "bad_amount", *names, "effective"
    )


def _with_interval(table: pl.DataFrame, part: str, whole: str, rows: str, names: tuple[str, str, str]) -> pl.DataFrame:
    """Share of part in whole with Wilson's interval on `rows` rows; null where the whole is 0."""
    share = pl.when(pl.col(whole) > 0).then((pl.col(part) / pl.col(whole)).clip(0, 1))
    table = table.with_columns(share.alias(names[0]))
    effective = table[rows].to_numpy().astype(np.float64)
    low, high = wilson(table[names[0]].to_numpy() * effective, effective, 0.95)
    return table.with_columns(
        pl.Series(name, bound, dtype=pl.Float64).fill_nan(None)
        for name, bound in zip(names[1:], (low, high), strict=True)
    )


def pool_vintages(table: pl.DataFrame, months: int) -> pl.DataFrame:
    """Curves of whole populations up to `months` on book, over the vintages that have all reached it.

    The same vintages stand behind every point of a curve, so that it cannot fall when a bad vintage drops out.

    Args:
        table: of `build_vintages`.
        months: the last month on book of the curves.

    Returns:
        population, months_on_book, vintages (how many, fixed), and the columns of `build_vintages` that follow.
    """
    keys = ["population", "vintage"]
    reached = table.filter(pl.col("months_on_book") == months).select(keys)
    sums = [name for name in ("accounts", "bads", "amount", "bad_amount") if name in table.columns]
    has_amount = "amount" in sums
    # sums of squares add up; effective numbers do not
    squares = pl.when(pl.col("effective") > 0).then(pl.col("amount") ** 2 / pl.col("effective")).otherwise(0.0).sum()
    effective = pl.when(squares > 0).then(pl.col("amount").sum() ** 2 / squares).otherwise(0.0).alias("effective")
    pooled = (
        table.filter(pl.col("months_on_book") <= months)
        .join(reached, on=keys, how="semi")
        .group_by("population", "months_on_book")
        .agg(pl.len().alias("vintages"), *(pl.col(name).sum() for name in sums), *([effective] if has_amount else []))
        .sort("population", "months_on_book")
    )
    counts = pooled["vintages"]
    shares = _with_shares(pooled.with_columns(pl.lit("").alias("vintage")), has_amount=has_amount).drop("vintage")
    return shares.insert_column(2, counts)


def comparable_months(table: pl.DataFrame, wanted: int = COMPARED_MONTHS) -> int | None:
    """The last month on book, at most `wanted`, that every population of the table has reached with some vintage."""
    if table.is_empty():
        return None
    reached = table.group_by("population").agg(pl.col("months_on_book").max())["months_on_book"].to_list()
    return int(min(wanted, *reached))


def describe_vintages(table: pl.DataFrame, *, months: int | None = None) -> dict[str, Any] | None:
    """The vintages as plain data for report and picture; None where no vintage has been on book for a month.

    Keys: `months` (on book at which all is compared: `months` if every population has reached them, else the last that
    all have), `by_amount`, `populations` (pooled curve of each: `vintages`, `accounts`, and lists by month on book),
    `vintages` (each one's own curve: `population`, `vintage`, `accounts`, and lists as long as it is observed;
    `at_months` is its place in the comparison, None where it has not come so far).

    Args:
        table: of `build_vintages`.
        months: of the comparison; default `COMPARED_MONTHS`.
    """
    compared = comparable_months(table, months or COMPARED_MONTHS)
    if compared is None:
        return None
    pooled = pool_vintages(table, compared)
    return {
        "months": compared,
        "interval": "Wilson, 95%",
        "by_amount": "amount" in table.columns,
        "populations": [
            {"population": name, **_curve(rows, ("vintages", "accounts", "amount"))}
            for (name,), rows in pooled.group_by("population", maintain_order=True)
        ],
        "vintages": [
            {
                "population": population,
                "vintage": vintage,
                **_curve(rows, ("accounts", "amount")),
                "at_months": _at(rows, compared),
            }
            for (population, vintage), rows in table.group_by("population", "vintage", maintain_order=True)
        ],
    }


_LISTED = ("months_on_book", "bads", "share", "low", "high", "bad_amount", "amount_share", "amount_low", "amount_high")


def _curve(rows: pl.DataFrame, fixed: Sequence[str]) -> dict[str, Any]:
    numbers = {name: rows[name][0] for name in fixed if name in rows.columns}
    return numbers | {name: rows[name].to_list() for name in _LISTED if name in rows.columns}


def _at(rows: pl.DataFrame, months: int) -> dict[str, Any] | None:
    found = rows.filter(pl.col("months_on_book") == months)
    return found.select(name for name in _LISTED if name in rows.columns).row(0, named=True) if found.height else None

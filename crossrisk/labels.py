"""Labels with time: which rows belong to which population, and whose label is known at as_of.

A label that has not matured is unknown, never good: it is null here, and nothing downstream can see its value.
Expressions over the raw columns; reading files stays in `tasks.labels`.
"""

from __future__ import annotations

import polars as pl

from crossrisk.config import INPUT_COLUMN, Portfolio

SOURCE, TARGET, BOTH, NEITHER = "source", "target", "both", "neither"


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
    meets_rule = pl.lit(True) if rule is None else pl.sql_expr(rule).fill_null(False)
    return (pl.col(INPUT_COLUMN) == name) & meets_rule if portfolio.data.has_two_inputs else meets_rule


def is_window_closed(portfolio: Portfolio) -> pl.Expr:
    """Whether decision date + window + reporting lag lies at or before as_of; true where there is no window."""
    label, decision_date = portfolio.label, portfolio.data.decision_date
    if decision_date is None:
        return pl.lit(True)
    closes = pl.col(decision_date).cast(pl.Date).dt.offset_by(f"{label.window_months}mo")
    return (closes + pl.duration(days=label.reporting_lag_days) <= portfolio.as_of).fill_null(False)


def matured_label(portfolio: Portfolio) -> pl.Expr:
    """0 or 1 where the label is known at as_of, else null (Int8).

    Known means: the window is closed, the date at which the label became known (where there is such a column) is not
    after as_of, and the label itself is 0 or 1 (any other code is the validation's business). Early bads of an open
    window stay unknown too, or the bad rate of young vintages would inflate.
    """
    label = portfolio.label
    known = is_window_closed(portfolio)
    if label.known_date is not None:
        known = known & (pl.col(label.known_date).cast(pl.Date) <= portfolio.as_of).fill_null(False)
    value = pl.col(label.column).cast(pl.Float64)
    return pl.when(known & value.is_in([0.0, 1.0])).then(value.cast(pl.Int8))


def month(portfolio: Portfolio) -> pl.Expr:
    """Vintage: month of the decision date as `YYYY-MM`; null where the portfolio has no dates."""
    if portfolio.data.decision_date is None:
        return pl.lit(None, pl.String)
    return pl.col(portfolio.data.decision_date).cast(pl.Date).dt.strftime("%Y-%m")

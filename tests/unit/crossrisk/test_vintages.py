"""Rules of the vintage table: fixed denominators, whole cells only, equal months on book."""

import calendar
import math
import xml.etree.ElementTree as ET
from datetime import date, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossrisk.pages.vintage_plots import draw_vintages
from crossrisk.vintages import build_vintages, comparable_months, describe_vintages, pool_vintages

SCHEMA = {"population": pl.String, "decided": pl.Date, "event": pl.Date, "amount": pl.Float64}


def accounts(*rows):
    return pl.LazyFrame(rows, schema=SCHEMA, orient="row")


def later(day, months):
    years, month = divmod(day.month - 1 + months, 12)
    last = calendar.monthrange(day.year + years, month + 1)[1]
    return date(day.year + years, month + 1, min(day.day, last))


HAND = accounts(
    ("target", date(2024, 1, 10), date(2024, 2, 10), 100.0),  # within the first month, on its last day
    ("target", date(2024, 1, 10), date(2024, 2, 11), 300.0),  # in the second
    ("target", date(2024, 1, 31), None, 500.0),
    ("target", date(2024, 1, 31), date(2024, 4, 30), 100.0),  # in the third, which ends on 30 April
    ("source", date(2024, 3, 1), date(2024, 3, 1), 1.0),
)


def test_a_hand_worked_table():
    table = build_vintages(HAND, as_of=date(2024, 4, 30))
    shown = table.select("population", "vintage", "months_on_book", "accounts", "bads", "bad_amount").rows()
    assert shown == [
        ("source", "2024-03", 1, 1, 1, 1.0),
        ("target", "2024-01", 1, 4, 1, 100.0),
        ("target", "2024-01", 2, 4, 2, 400.0),
        ("target", "2024-01", 3, 4, 3, 500.0),
    ]
    assert table["amount_share"].to_list() == [1.0, 0.1, 0.4, 0.5]
    assert table["effective"][1] == pytest.approx(1000**2 / (100**2 * 2 + 300**2 + 500**2))


def test_wilson_interval_of_a_cell_agrees_with_a_hand_worked_value():
    cell = build_vintages(HAND, as_of=date(2024, 3, 31)).row(1, named=True)
    z2, p, n = 1.959964**2, 0.5, 4
    half = math.sqrt(z2) * math.sqrt(p * (1 - p) / n + z2 / (4 * n**2)) / (1 + z2 / n)
    assert (cell["low"], cell["high"]) == pytest.approx((0.5 - half, 0.5 + half))


def test_a_cell_is_there_once_the_last_account_and_the_lag_have_passed():
    def months(as_of, lag=0):
        table = build_vintages(HAND, as_of=as_of, reporting_lag_days=lag)
        return table.filter(pl.col("population") == "target")["months_on_book"].to_list()

    assert months(date(2024, 2, 28)) == []  # the accounts of the 31st have been on book since 31 January
    assert months(date(2024, 2, 29)) == [1]
    assert months(date(2024, 2, 29), lag=1) == []
    assert months(date(2024, 3, 1), lag=1) == [1]


def test_a_month_that_is_not_over_has_no_cell():
    rows = accounts(("target", date(2024, 1, 1), None, 1.0))
    assert build_vintages(rows, as_of=date(2024, 1, 30), reporting_lag_days=-3650).is_empty()


DAYS = st.dates(date(2023, 1, 1), date(2024, 12, 31))
ROWS = st.lists(
    st.tuples(
        st.sampled_from(["source", "target"]), DAYS, st.one_of(st.none(), DAYS), st.integers(0, 1_000_000).map(float)
    ),
    max_size=25,
)


@given(rows=ROWS, as_of=DAYS, lag=st.integers(0, 60))
@settings(max_examples=80, deadline=None)
def test_the_table_agrees_with_a_slow_count(rows, as_of, lag):
    expected = []
    for name, vintage in sorted({(name, f"{day:%Y-%m}") for name, day, _, _ in rows}):
        group = [row for row in rows if row[0] == name and f"{row[1]:%Y-%m}" == vintage]
        last = max(day for _, day, _, _ in group)
        if later(last.replace(day=1), 1) - timedelta(days=1) > as_of:
            continue
        for k in range(1, 61):
            if later(last, k) + timedelta(days=lag) <= as_of:
                bads = sum(event is not None and event <= later(day, k) for _, day, event, _ in group)
                expected.append((name, vintage, k, len(group), bads))
    table = build_vintages(accounts(*rows), as_of=as_of, reporting_lag_days=lag)
    assert table.select("population", "vintage", "months_on_book", "accounts", "bads").rows() == expected


@given(rows=ROWS, as_of=DAYS)
@settings(max_examples=60, deadline=None)
def test_shares_never_fall_and_denominators_never_move(rows, as_of):
    table = build_vintages(accounts(*rows), as_of=as_of)
    for curve in table.partition_by("population", "vintage"):
        assert curve["accounts"].n_unique() == curve["amount"].n_unique() == 1
        assert curve["months_on_book"].to_list() == list(range(1, curve.height + 1))
        for name in ("share", "amount_share"):
            values = curve[name].drop_nulls()
            assert values.is_between(0, 1).all()
            assert (values.diff().drop_nulls() >= -1e-12).all()
        assert (curve["low"] <= curve["share"]).all()
        assert (curve["share"] <= curve["high"]).all()
    months = comparable_months(table)
    if months:
        for curve in pool_vintages(table, months).partition_by("population"):
            assert curve["accounts"].n_unique() == curve["vintages"].n_unique() == 1
            assert (curve["share"].diff().drop_nulls() >= 0).all()


@given(rows=ROWS, as_of=DAYS, days=st.integers(1, 400))
@settings(max_examples=60, deadline=None)
def test_an_event_known_after_as_of_changes_no_cell(rows, as_of, days):
    def poison(row):
        name, decided, event, amount = row
        return (name, decided, as_of + timedelta(days=days) if event and event > as_of else event, amount)

    before = build_vintages(accounts(*rows), as_of=as_of)
    assert build_vintages(accounts(*(poison(row) for row in rows)), as_of=as_of).equals(before)


def cohort(population, month, bads, rows=20):
    day = date(2024, month, 1)
    return [(population, day, later(day, 2) if i < bads else None, 10.0) for i in range(rows)]


def test_pooled_curves_rest_on_the_same_vintages_at_every_month():
    rows = [*cohort("source", 1, 10), *cohort("source", 4, 2), *cohort("target", 3, 4)]
    table = build_vintages(accounts(*rows), as_of=date(2024, 6, 30))
    assert comparable_months(table) == 3
    pooled = pool_vintages(table, 3)
    shown = pooled.select("population", "months_on_book", "vintages", "accounts", "bads").rows()
    assert shown == [
        ("source", 1, 1, 20, 0), ("source", 2, 1, 20, 10), ("source", 3, 1, 20, 10),
        ("target", 1, 1, 20, 0), ("target", 2, 1, 20, 4), ("target", 3, 1, 20, 4),
    ]  # fmt: skip
    assert pooled["effective"].to_list() == pytest.approx([20.0] * 6)


def test_the_description_is_plain_data_and_none_without_a_cell():
    table = build_vintages(accounts(*cohort("source", 1, 3), *cohort("target", 2, 5)), as_of=date(2024, 5, 31))
    described = describe_vintages(table)
    assert described["months"] == 3
    assert described["by_amount"]
    assert [(one["population"], one["vintages"], one["share"][-1]) for one in described["populations"]] == [
        ("source", 1, 0.15), ("target", 1, 0.25),
    ]  # fmt: skip
    assert described["vintages"][0]["months_on_book"] == [1, 2, 3, 4]
    assert describe_vintages(table, months=2)["months"] == 2
    assert describe_vintages(table.clear()) is None


def test_vintages_without_amounts_have_none():
    table = build_vintages(HAND.drop("amount"), as_of=date(2024, 4, 30))
    assert table.columns == [
        "population", "vintage", "months_on_book", "accounts", "bads", "share", "low", "high",
    ]  # fmt: skip
    assert not describe_vintages(table)["by_amount"]


def test_the_picture_is_whole_svg_and_the_same_every_time():
    rows = [*cohort("source", 1, 3), *cohort("source", 2, 1), *cohort("target", 2, 5)]
    described = describe_vintages(build_vintages(accounts(*rows), as_of=date(2024, 5, 31)))
    svg = draw_vintages(described)
    assert ET.fromstring(svg).tag.endswith("svg")
    assert "source, 2 vintages" in svg
    assert "target, 1 vintage<" in svg
    assert svg == draw_vintages(described)

"""Rules of the label's contract, on frames: what is bad, what is unknown and why, and what as_of may not see."""

import calendar
import tomllib
from datetime import date, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossrisk.config import KNOWN_COLUMN, parse_portfolio
from crossrisk.errors import ConfigError
from crossrisk.labels import describe_contract, known_too_late, matured_label, revisions_at, why_unknown

BASE = """
name = "cards"
as_of = {as_of}
[data]
path = "x"
id = "loan"
decision_date = "opened"
[population]
source = "a"
target = "b"
[features]
numeric = ["income"]
[label]
column = "bad"
"""
WITHIN = 'window_months = 12\nwithin_window = true\nknown_date = "known"\n'


def portfolio(label="", as_of=date(2024, 12, 31), extra=""):
    return parse_portfolio(tomllib.loads(BASE.format(as_of=as_of) + label + extra), where="test")


def judge(rows, form):
    """(label, why) of rows (opened, bad, known)."""
    schema = {"opened": pl.Date, "bad": pl.Float64, "known": pl.Date, "crossrisk_grey": pl.Boolean}
    frame = pl.DataFrame([(*row, False)[:4] for row in rows], schema=schema, orient="row")
    return frame.select(label=matured_label(form), why=why_unknown(form)).rows()


def months_later(day, months):
    """Independent of polars: the same day of a later month, or its last."""
    years, month = divmod(day.month - 1 + months, 12)
    last = calendar.monthrange(day.year + years, month + 1)[1]
    return date(day.year + years, month + 1, min(day.day, last))


def test_bad_is_what_became_known_within_the_window_and_later_is_good():
    opened = date(2023, 1, 31)
    rows = [
        (opened, 1, date(2024, 1, 31)),  # on the last day
        (opened, 1, date(2024, 2, 1)),  # a day too late
        (opened, 0, None),
        (opened, 1, date(2025, 6, 1)),  # known only after as_of: at as_of nothing had happened
        (date(2024, 2, 29), 1, date(2024, 3, 1)),  # an early bad of an open window
        (date(2024, 2, 29), 0, None),
    ]
    assert judge(rows, portfolio(WITHIN)) == [
        (1, None), (0, None), (0, None), (0, None), (None, "unmatured"), (None, "unmatured"),
    ]  # fmt: skip


def test_a_window_ends_on_the_last_day_of_a_shorter_month():
    form = portfolio(WITHIN.replace("12", "1"), as_of=date(2023, 2, 28))
    opened = date(2023, 1, 31)
    assert judge([(opened, 1, date(2023, 2, 28)), (opened, 1, date(2023, 3, 1))], form) == [(1, None), (0, None)]


def test_a_label_is_unknown_for_the_first_reason_that_holds():
    old, young = date(2023, 1, 1), date(2024, 6, 1)
    rows = [
        (None, 0, None, False),
        (young, None, None, True),  # who is too young is not grey yet
        (old, 1, date(2023, 2, 1), True),
        (old, None, None, True),
        (old, None, date(2023, 2, 1), False),
        (old, 1, None, False),  # an event that nobody dated
        (old, 7, date(2023, 2, 1), False),
        (old, float("nan"), None, False),
        (old, 7, date(2024, 3, 1), False),  # what came after the window is not asked for
    ]
    reasons = ["invalid", "unmatured", "grey", "grey", "not reported", "not reported", "invalid", "invalid", None]
    assert [why for _, why in judge(rows, portfolio(WITHIN + 'grey = "dpd > 0"\n'))] == reasons


def test_without_within_window_the_date_is_when_the_label_came():
    form = portfolio('window_months = 12\nknown_date = "known"\n')
    old = date(2023, 1, 1)
    rows = [(old, 0, date(2024, 12, 31)), (old, 0, date(2025, 1, 1)), (old, 0, None), (old, 1, date(2024, 6, 1))]
    assert judge(rows, form) == [(0, None), (None, "unmatured"), (None, "not reported"), (1, None)]


DAYS = st.dates(date(2022, 1, 1), date(2025, 12, 31))
ROWS = st.lists(
    st.tuples(st.one_of(st.none(), DAYS), st.sampled_from([0, 1, None, 7]), st.one_of(st.none(), DAYS), st.booleans()),
    min_size=1,
    max_size=20,
)
CONTRACTS = st.builds(
    lambda months, lag, within, dated, grey: (
        f"window_months = {months}\nreporting_lag_days = {lag}\n"
        + ('known_date = "known"\n' if dated or within else "")
        + ("within_window = true\n" if within else "")
        + ('grey = "dpd > 0"\n' if grey else "")
    ),
    st.integers(1, 24), st.integers(0, 90), st.booleans(), st.booleans(), st.booleans(),
)  # fmt: skip


@given(rows=ROWS, contract=CONTRACTS, first=DAYS, second=DAYS)
@settings(max_examples=150, deadline=None)
def test_a_later_as_of_never_unmakes_a_label(rows, contract, first, second):
    first, second = sorted((first, second))
    before, after = (judge(rows, portfolio(contract, as_of=day)) for day in (first, second))
    assert all(now == then for then, now in zip(before, after, strict=True) if then[0] is not None)


@given(rows=ROWS, contract=CONTRACTS, as_of=DAYS, code=st.sampled_from([0, 1, 7]), days=st.integers(0, 500))
@settings(max_examples=150, deadline=None)
def test_nothing_known_after_as_of_changes_a_label(rows, contract, as_of, code, days):
    if "known_date" not in contract:
        contract += 'known_date = "known"\n'

    def poison(row):
        opened, bad, known, grey = row
        if bad is None or known is None or known <= as_of:
            return row
        return (opened, code, as_of + timedelta(days=1 + days), grey)

    form = portfolio(contract, as_of=as_of)
    assert judge([poison(row) for row in rows], form) == judge(rows, form)


@given(rows=ROWS, contract=CONTRACTS, as_of=DAYS)
@settings(max_examples=150, deadline=None)
def test_a_label_is_null_exactly_where_a_reason_is_given_and_never_before_the_window_closes(rows, contract, as_of):
    form = portfolio(contract, as_of=as_of)
    for (opened, *_), (label, why) in zip(rows, judge(rows, form), strict=True):
        assert (label is None) == (why is not None)
        if label is not None:
            matures = months_later(opened, form.label.window_months) + timedelta(days=form.label.reporting_lag_days)
            assert matures <= as_of


# --- revisions ---

REVISED = 'known_date = "known"\nrevisions = "history.parquet"\n'


def history(*lines):
    return pl.LazyFrame(lines, schema={"loan": pl.Int64, "known": pl.Date, "bad": pl.Int8}, orient="row")


def test_the_last_revision_known_at_as_of_counts_and_an_older_as_of_sees_what_it_saw_then():
    lines = history(
        (1, date(2024, 6, 1), 1), (1, date(2024, 1, 1), 0), (1, date(2024, 3, 1), 0), (2, date(2024, 2, 1), 1),
        (2, date(2024, 9, 1), None), (3, None, 1),
    )  # fmt: skip

    def seen(as_of):
        return sorted(revisions_at(lines, portfolio(REVISED, as_of=as_of)).collect().rows())

    assert seen(date(2024, 5, 31)) == [(1, date(2024, 1, 1), 0), (2, date(2024, 2, 1), 1)]
    assert seen(date(2024, 6, 1)) == [(1, date(2024, 6, 1), 1), (2, date(2024, 2, 1), 1)]
    assert seen(date(2024, 12, 31)) == [(1, date(2024, 6, 1), 1), (2, date(2024, 9, 1), None)]  # withdrawn


LINES = st.lists(
    st.tuples(st.integers(1, 4), DAYS, st.sampled_from([0, 1, None])), max_size=25, unique_by=lambda line: line[:2]
)


@given(lines=LINES, as_of=DAYS)
@settings(max_examples=100, deadline=None)
def test_revisions_agree_with_a_slow_reading(lines, as_of):
    expected = {}
    for one, known, bad in sorted(lines, key=lambda line: line[:2]):
        if known <= as_of and (one not in expected or expected[one][1] != bad):
            expected[one] = (known, bad)
    found = revisions_at(history(*lines), portfolio(REVISED, as_of=as_of)).collect()
    assert {one: (known, bad) for one, known, bad in found.rows()} == expected


# --- the form ---


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("within_window = true\n", "within_window needs window_months"),
        (WITHIN + 'revisions = "r"\n', "leave one of the two out"),
        ('revisions = "r"\n', "revisions need known_date"),
        ('revisions = "r"\nknown_date = "known + INTERVAL \'1 day\'"\n', "revisions need known_date"),
        ('grey = "dpd BETWEEN"\n', "grey is no SQL: 'dpd BETWEEN'"),
        ("known_date = \"COALESCE(a, b\"\n", "known_date is no SQL"),
        ('grey = "income < 100"\n', "'income' is a label, its date, a key or read by the rules of"),
        ('known_date = "COALESCE(income, opened)"\n', "'income' is a label"),
        ('outcomes = { source = "a", target = "b" }\n', "label.outcomes: one input has one path there"),
        ('[features.timestamps]\nother = "day"\n', "timestamps name 'other', of which no feature is made"),
    ],
)  # fmt: skip
def test_a_contract_that_cannot_be_is_refused(label, message):
    text = BASE.format(as_of="2024-12-31")
    with pytest.raises(ConfigError, match=message):
        parse_portfolio(tomllib.loads(text + label), where="test")


def test_a_sql_date_has_a_column_of_its_own_and_a_column_keeps_its_name():
    assert portfolio('known_date = "known"\n').label.known_column == "known"
    computed = portfolio("known_date = \"COALESCE(paid, opened) + INTERVAL '150 days'\"\n").label
    assert computed.known_column == KNOWN_COLUMN
    assert computed.rule_columns == {"paid", "opened"}


def test_a_timestamp_after_the_decision_is_late_and_an_unknown_one_is_not():
    form = portfolio(extra='[features.timestamps]\nincome = "income_day"\n')
    day = date(2024, 5, 5)
    frame = pl.DataFrame({"opened": [day] * 3, "income_day": [day, date(2024, 5, 6), None]})
    assert frame.select(**known_too_late(form))["income"].to_list() == [False, True, False]


def test_the_contract_is_said_in_plain_words():
    label = 'event = "charged off"\nreporting_lag_days = 30\n' + WITHIN
    assert describe_contract(portfolio(label)) == (
        "Bad: charged off, known within 12 months of opened. A label is known 12 months after the decision and 30 days "
        "to report it, and unknown before."
    )

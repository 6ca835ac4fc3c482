"""Rules of the two populations: what --target says, in SQL that means it."""

from datetime import date

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossrisk.starting.populations import check_values, count_populations, parse_targets, split_assignment, write_rules

LOANS = pl.DataFrame(
    {
        "product": ["card", "card", "loan", None, "loan", "it's"],
        "region": ["n", None, "s", "n", None, "n"],
        "term": [36, 60, 36, 60, None, 36],
        "secured": [True, False, True, None, True, False],
        "opened": [date(2024, m, 1) for m in (1, 1, 2, 2, 3, 3)],
        "bad": [1, 0, 1, None, 0, 0],
    }
).lazy()
SCHEMA = LOANS.collect_schema()


def split(*targets: str) -> dict[str, list[int]]:
    """Positions of target and source rows."""
    rules = write_rules(parse_targets(targets, SCHEMA))
    rows = LOANS.select(pl.sql_expr(rules.target).alias("t"), pl.sql_expr(rules.source).alias("s")).collect()
    return {
        name: [i for i, belongs in enumerate(rows[key]) if belongs] for name, key in (("target", "t"), ("source", "s"))
    }


def test_values_of_one_column_are_alternatives():
    assert split("product=card", "product=it's") == {"target": [0, 1, 5], "source": [2, 4]}


def test_columns_must_all_be_met_and_a_row_certainly_outside_is_source():
    assert split("product=card", "region=n") == {"target": [0], "source": [2, 4, 5]}


@pytest.mark.parametrize(
    ("target", "rows"),
    [("term=60", [1, 3]), ("term=60.0", [1, 3]), ("secured=false", [1, 5]), ("opened=2024-02-01", [2, 3])],
)
def test_values_are_of_the_columns_type(target, rows):
    assert split(target)["target"] == rows


def test_a_row_that_misses_the_column_is_of_neither():
    rules = write_rules(parse_targets(["term=60"], SCHEMA))
    counts = count_populations(LOANS, rules, label="bad", decision_date="opened")
    assert [(c.rows, c.bads, c.goods, c.months) for c in counts.values()] == [(3, 2, 1, 3), (2, 0, 1, 1), (1, 0, 1, 1)]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("product", "expects COLUMN=VALUE"),
        ("prodct=card", "no column 'prodct'; the nearest is 'product'"),
        ("term=long", "holds numbers, got 'long'"),
        ("term=nan", "holds numbers"),
        ("secured=maybe", "holds true and false"),
        ("opened=May", "written YYYY-MM-DD"),
    ],
)
def test_what_a_column_cannot_hold_is_refused(target, message):
    with pytest.raises(ValueError, match=message):
        parse_targets([target], SCHEMA)


def test_a_value_that_no_row_has_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="no row has product = 'cards'; of its 3 values the nearest: 'card'"):
        check_values(LOANS, {"product": ["cards"]})


def test_a_column_may_hold_an_equals_sign():
    assert split_assignment("a=b=c", ["a=b"], flag="--target") == ("a=b", "c")


@given(
    column=st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1, max_size=12),
    value=st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=12),
)
def test_no_name_or_value_leaves_its_quotes(column, value):
    rows = pl.DataFrame({column: [value, value + "x"]})
    rules = write_rules({column: [value]})
    assert rows.select(pl.sql_expr(rules.target).alias("t"))["t"].to_list() == [True, False]
    assert rows.select(pl.sql_expr(rules.source).alias("s"))["s"].to_list() == [False, True]

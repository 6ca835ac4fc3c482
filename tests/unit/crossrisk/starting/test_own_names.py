"""Rules of the names of our own: readable, unique in any case, and only where the files' name cannot be kept."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossrisk.config import RESERVED_NAMES
from crossrisk.features import RawColumn, check_servable_names
from crossrisk.starting.columns import Column
from crossrisk.starting.own_names import MOST_CHARACTERS, clean_name, own_names

ROLES = st.sampled_from(
    ["id", "label", "decision_date", "numeric", "category", "date", "protected", "leak", "constant"]
)
AWKWARD = st.sampled_from(["income", "Income", "INCOME", "income ", "income_2", "score", "class", "month", "id", ""])
NAMES = st.lists(AWKWARD | st.text(st.characters(exclude_categories=("Cs",)), max_size=12), unique=True, max_size=12)


def column(name: str, role="numeric") -> Column:
    return Column(name=name, dtype="int64", rows=1, missing=0, distinct=1, kind="number", role=role)


def names(*columns: Column) -> dict[str, str]:
    return {one.theirs: one.ours for one in own_names(columns)}


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("Income, monthly (USD)", "income_monthly_usd"),
        ("netIncome [EUR]", "net_income_eur"),
        ("Débit crédit", "debit_credit"),
        ("Utilisation %", "utilisation_percent"),
        ("# of loans", "n_of_loans"),
        ("30-59 dpd", "n_30_59_dpd"),
        ("__index__", "index"),
        ("行", ""),
    ],
)
def test_a_clean_name_is_words_with_underscores(theirs, ours):
    assert clean_name(theirs) == ours


def test_a_long_heading_is_cut_at_a_word():
    made = clean_name("How much did you earn last month, before taxes and after all the other deductions?")
    assert made == "how_much_did_you_earn_last_month_before_taxes_and_after_all"
    assert len(clean_name("x" * 100)) == MOST_CHARACTERS


@pytest.mark.parametrize("word", ["class", "lambda", "self", "score", "probability", *sorted(RESERVED_NAMES)])
def test_a_word_that_is_taken_is_marked_as_given(word):
    assert names(column(word)) == {word: f"{word}_given"}


@pytest.mark.parametrize("role", ["id", "customer", "label", "population"])
def test_a_role_may_be_played_under_its_own_name(role):
    assert names(column(role, role)) == {}


def test_names_that_can_be_taken_are_kept():
    assert names(column("SeriousDlqin2yrs"), column("income_usd"), column("note (old)", "constant")) == {}


def test_a_column_without_a_latin_letter_is_called_by_its_place():
    assert names(column("income"), column("収入")) == {"収入": "column_2"}


def test_of_twins_the_used_one_keeps_its_name():
    assert names(column("Income", "constant"), column("income")) == {"Income": "income_2"}


@given(NAMES, st.data())
def test_any_table_ends_with_names_that_models_and_stages_take(given_names, data):
    columns = [column(name, data.draw(ROLES)) for name in given_names]
    renamed = names(*columns)
    ended = [renamed.get(name, name) for name in given_names]
    assert len({name.lower() for name in ended}) == len(ended)
    assert not set(renamed.values()) & set(given_names), "ingest refuses a name that another column has"
    for one, name in zip(columns, ended, strict=True):
        if one.role not in ("leak", "constant") and name != one.role:
            check_servable_names([RawColumn(name=name, kind="number")])
            assert name not in RESERVED_NAMES

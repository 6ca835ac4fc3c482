"""Rules of the draft: it loads as it is, says its reasons, and nothing in it escapes its quotes or its line."""

import re
import tomllib
from datetime import date

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossrisk.config import parse_portfolio
from crossrisk.starting.drafting import Place, Populations, draft_portfolio
from crossrisk.starting.populations import count_populations, write_rules
from crossrisk.starting.profiling import Told, profile_table
from crossrisk.starting.toml_form import LINE, toml_string

ROWS = 600
ANY_TEXT = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=30)


def loans(**columns) -> pl.LazyFrame:
    rng = np.random.default_rng(0)
    base = {
        "loan_id": np.arange(ROWS),
        "product": ["loan", "loan", "card"] * (ROWS // 3),
        "bad": (rng.random(ROWS) < 0.3).astype(np.int8),
        "income": rng.lognormal(8, 1, ROWS),
        "dpd": [999 if i % 20 == 0 else i % 7 for i in range(ROWS)],
        "region": ["n", "s", "w"] * (ROWS // 3),
        "sex": ["f", "m"] * (ROWS // 2),
    }
    return pl.DataFrame(base | columns).lazy()


def dates(months: int, year: int = 2024) -> list[date]:
    return [date(year, 1 + i // 3 % months, 15) for i in range(ROWS)]


def drafted(rows: pl.LazyFrame, told: Told = Told(population=("product",)), **place):  # noqa: B008 - frozen
    profile = profile_table(rows, told)
    targets = {"product": ["card"]}
    rules = write_rules(targets)
    dated = profile.the("decision_date")
    counts = count_populations(rows, rules, label=profile.the("label").name, decision_date=dated and dated.name)
    return draft_portfolio(
        profile,
        Populations(targets, counts),
        place=Place(**{"path": "loans.parquet", "root": None} | place),
        name="mini",
        suite_file="mini.expectations.json",
        delivered=date(2025, 3, 9),
    )


def portfolio(draft):
    return parse_portfolio(tomllib.loads(draft.toml), where="draft")


def test_the_draft_is_a_portfolio_with_every_column_in_its_place():
    made = portfolio(drafted(loans(recoveries=np.arange(ROWS) * 1.0, currency="EUR")))
    assert (made.data.id, made.label.column, made.data.decision_date) == ("loan_id", "bad", None)
    assert (made.population.source, made.population.target) == ("NOT (product = 'card')", "product = 'card'")
    assert (made.features.numeric, made.features.categorical) == (("income", "dpd"), ("region",))
    assert made.features.protected == ("sex",)
    assert made.features.sentinels == {"dpd": (999.0,)}
    assert made.data.ignore == ("recoveries", "currency")
    assert made.data.expectations == ("mini.expectations.json",)


def test_what_is_left_out_says_why():
    text = drafted(loans(recoveries=np.arange(ROWS) * 1.0, currency="EUR")).toml
    assert re.search(r'"recoveries",\s+# leak: named like an outcome', text)
    assert re.search(r'"currency",\s+# constant: one value in all rows', text)


def test_no_line_is_longer_than_a_screen():
    assert max(len(line) for line in drafted(loans(opened_on=dates(12))).toml.splitlines()) <= LINE


def test_a_portfolio_without_dates_is_as_of_its_delivery():
    assert portfolio(drafted(loans())).as_of == date(2025, 3, 9)


def test_a_dated_portfolio_is_as_of_the_end_of_its_last_month():
    assert portfolio(drafted(loans(opened_on=dates(12)))).as_of == date(2024, 12, 31)


def test_outcomes_known_later_move_as_of_to_the_last_of_them():
    made = portfolio(drafted(loans(opened_on=dates(12), label_known_date=dates(6, 2025))))
    assert (made.label.known_date, made.as_of) == ("label_known_date", date(2025, 6, 30))


@pytest.mark.parametrize(("months", "tested"), [(2, 1), (6, 2), (12, 6)])
def test_months_are_left_to_fit_on_before_the_test(months, tested):
    assert portfolio(drafted(loans(opened_on=dates(months)))).split.target_test_last_months == tested


def test_a_target_of_one_month_has_no_time():
    draft = drafted(loans(opened_on=dates(1), first_line=[date(2010, 1, 1), date(2011, 1, 1)] * (ROWS // 2)))
    made = portfolio(draft)
    assert made.data.decision_date is None
    assert set(made.data.ignore) == {"opened_on", "first_line"}
    assert "one month only" in draft.toml


def test_dates_become_ages_under_a_name_that_is_free():
    columns = {
        "first_line": [date(2010, 1, 1), date(2011, 1, 1)] * (ROWS // 2),
        "months_since_first_line": np.arange(ROWS) * 1.0,
    }
    made = portfolio(drafted(loans(opened_on=dates(12), **columns)))
    assert made.features.ages == {"months_since_first_line_date": "first_line"}


def test_names_that_no_model_can_take_are_mapped_to_names_of_our_own():
    numbers = np.arange(ROWS) * 1.0
    draft = drafted(loans(**{"net income": numbers, "Income": numbers, "month": numbers, "loan_status": "paid"}))
    made = portfolio(draft)
    assert made.data.columns == {"net_income": "net income", "income_2": "Income", "month_given": "month"}
    assert made.features.numeric == ("income", "dpd", "net_income", "income_2", "month_given")
    assert made.data.ignore == ("loan_status",)
    assert re.search(r"income_2 = \"Income\"\s+# differs from 'income' in case alone", draft.toml)


def test_what_is_said_of_a_column_says_its_name_here():
    few = pl.when(pl.int_range(pl.len()) < 40).then(pl.col("bad") * 100 + pl.col("loan_id"))
    draft = drafted(loans().with_columns(few.alias("days (late)")))
    assert "'days_late' alone ranks" in draft.toml.replace("\n  # ", " ")
    assert draft.toml.count("days (late)") == 1, "the map alone speaks of the files"
    assert any("'days_late' alone ranks" in note for note in draft.notes)


def test_rules_and_suite_speak_of_the_names_here():
    rows = loans().rename({"product": "Loan Type", "region": "Region [code]", "bad": "class"})
    told = Told(label="class", population=("Loan Type",))
    targets = {"Loan Type": ["card"]}
    counts = count_populations(rows, write_rules(targets), label="class", decision_date=None)
    draft = draft_portfolio(
        profile_table(rows, told), Populations(targets, counts), place=Place("x.parquet", None), name="mini",
        suite_file="s.json", delivered=date(2025, 3, 9),
    )  # fmt: skip
    made = portfolio(draft)
    assert made.population.target == "loan_type = 'card'"
    assert (made.label.column, made.data.columns["class_given"]) == ("class_given", "class")
    named = {rule["kwargs"].get("column") for rule in draft.suite["expectations"]}
    assert {"loan_type", "region_code"} <= named
    assert not named & {"Loan Type", "Region [code]"}


def test_a_table_without_features_is_refused_by_what_its_columns_are():
    rows = loans().select("loan_id", "product", "bad")
    with pytest.raises(ValueError, match=r"no column is left .* 'loan_id' \(id\), 'product' \(population\)"):
        drafted(rows)


def test_without_rules_the_draft_holds_a_place_to_fill_in():
    profile = profile_table(loans(), Told())
    draft = draft_portfolio(
        profile, None, place=Place("x.parquet", None), name="mini", suite_file="s.json", delivered=date(2025, 3, 9)
    )
    assert "FILL_IN" in portfolio(draft).population.target
    assert "product (2 values)" in draft.toml.replace("\n# ", " ")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (loans(product="loan"), "the target would have no row"),
        (loans(product="card"), "the source would have no row"),
        (loans(product=["card" if b else "loan" for b in loans().collect()["bad"]]), "the source would have 0 bads"),
    ],
)
def test_populations_that_cannot_be_trained_on_are_refused(rows, message):
    with pytest.raises(ValueError, match=message):
        drafted(rows)


# --- escaping ---


@given(ANY_TEXT)
def test_any_text_comes_back_from_its_toml_string(text):
    assert tomllib.loads(f"x = {toml_string(text)} # {toml_string(text)}") == {"x": text}
    assert toml_string(text).isprintable()


@given(name=ANY_TEXT.filter(lambda name: name not in loans().collect_schema()), path=ANY_TEXT, root=ANY_TEXT)
def test_no_name_or_path_changes_the_portfolio(name, path, root):
    made = portfolio(drafted(loans(**{name: [None] * ROWS}), path=path, root=root))
    assert (made.name, made.data.path, made.data.root) == ("mini", path, root)
    assert name in {*made.data.ignore, *made.features.protected, *made.data.columns.values()}


# --- the suite ---


def rules(draft) -> dict:
    return {rule["name"]: rule for rule in draft.suite["expectations"]}


def test_every_rule_has_a_severity_and_a_reason():
    for name, rule in rules(drafted(loans(opened_on=dates(12)))).items():
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)
        assert rule["meta"]["action"] in ("stop", "quarantine", "warn")
        assert rule["meta"]["why"]


def test_what_tells_the_populations_apart_may_not_be_missing():
    assert rules(drafted(loans()))["product-given"]["meta"]["action"] == "stop"


def test_impossible_values_are_set_aside_and_unusual_ones_shown():
    found = rules(drafted(loans()))
    assert found["income-not-negative"]["meta"]["action"] == "quarantine"
    assert found["income-mean"]["meta"]["action"] == "warn"
    assert found["region-levels"]["kwargs"] == {"column": "region", "value_set": ["n", "s", "w"]}
    assert "dpd-not-negative" not in found, "codes would be negative values"


def test_a_level_that_looks_like_a_role_gets_no_rule():
    assert "note-levels" not in rules(drafted(loans(note=["${label}", "x"] * (ROWS // 2))))


def test_rules_of_columns_with_like_names_are_told_apart():
    found = rules(drafted(loans(a_b=["x", "y"] * (ROWS // 2), a__b=["x", "y"] * (ROWS // 2))))
    assert {"a-b-levels", "a-b-levels-2"} <= set(found)

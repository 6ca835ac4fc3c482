"""Rules of the profile: which column plays which role, which codes are suspected, what is refused and how."""

from datetime import date

import numpy as np
import polars as pl
import pytest

from crossrisk.starting.columns import describe_column, find_sentinels
from crossrisk.starting.profiling import Told, profile_table

ROWS = 400


def table(**columns) -> pl.LazyFrame:
    """A portfolio's least, and the columns given."""
    rng = np.random.default_rng(0)
    base = {
        "loan_id": np.arange(ROWS),
        "bad": (rng.random(ROWS) < 0.3).astype(np.int8),
        "income": rng.lognormal(8, 1, ROWS),
    }
    return pl.DataFrame(base | columns).lazy()


def role(name: str, values, **others) -> tuple[str, str]:
    profile = profile_table(table(**{name: values} | others), Told())
    column = next(column for column in profile.columns if column.name == name)
    return column.role, column.reason


def days(year: int = 2024) -> list[date]:
    return [date(year, 1 + i % 12, 1) for i in range(ROWS)]


def test_the_keys_are_found_by_values_and_names():
    rows = table(customer_no=[i // 2 for i in range(ROWS)], opened_on=days(), label_known_date=days(2025))
    profile = profile_table(rows, Told())
    assert {c.role: c.name for c in profile.columns} == {
        "id": "loan_id", "label": "bad", "customer": "customer_no", "decision_date": "opened_on",
        "known_date": "label_known_date", "numeric": "income",
    }  # fmt: skip
    assert profile.bads + profile.goods == ROWS
    assert not profile.notes


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("count", [-1.0, *range(1, ROWS)], "numeric"),
        ("region", ["north", "south"] * (ROWS // 2), "category"),
        ("owns_home", [True, False] * (ROWS // 2), "numeric"),
        ("branch_code", [1, 2, 3, 4] * (ROWS // 4), "category"),
        ("product_code", [i // 2 for i in range(ROWS)], "too fine"),
        ("sex", [1, 2] * (ROWS // 2), "protected"),
        ("loan_status", ["open", "closed"] * (ROWS // 2), "leak"),
        ("bad_90", [0, 1] * (ROWS // 2), "outcome"),
        ("int_rate", [float(i) for i in range(ROWS)], "lender decision"),
        ("currency", ["EUR"] * ROWS, "constant"),
        ("empty", [None] * ROWS, "constant"),
        ("comment", [f"text {i // 2}" for i in range(ROWS)], "too fine"),
        ("contract_ref", [f"c{i}" for i in range(ROWS)], "key"),
        ("tags", [[1, 2]] * ROWS, "unreadable"),
        ("since", [20240101 + i % 12 * 100 for i in range(ROWS)], "unreadable"),
        ("opened", ["2024-01-01", "2024-02-01"] * (ROWS // 2), "unreadable"),
        ("balance", [f"{i // 2}.5" for i in range(ROWS)], "unreadable"),
    ],
)
def test_every_other_column_has_a_role_with_its_reason(name, values, expected):
    found, reason = role(name, values)
    assert found == expected
    assert reason


def test_a_date_after_the_decision_was_not_known_then():
    late = [date(2023, 1, 1)] * (ROWS - 1) + [date(2026, 1, 1)]
    assert role("first_line", late, opened_on=days()) == (
        "later date", "after the decision date in 1 rows: not known then",
    )  # fmt: skip
    assert role("first_line", [date(2023, 1, 1), date(2022, 1, 1)] * (ROWS // 2), opened_on=days())[0] == "date"


def test_a_column_that_knows_the_outcome_is_left_out_with_its_auc():
    bad = table().collect()["bad"]
    found, reason = role("balance_after", (bad * 1.0 + np.random.default_rng(1).normal(0, 0.3, ROWS)).to_numpy())
    assert found == "leak"
    assert "AUC 0.9" in reason


def test_a_leak_on_too_few_bads_is_kept_and_said():
    bad = np.zeros(ROWS, np.int8)
    bad[:10] = 1
    profile = profile_table(table(bad=bad, score_then=np.arange(ROWS)[::-1] * 1.5), Told())
    column = next(c for c in profile.columns if c.name == "score_then")
    assert (column.role, [finding.status for finding in column.findings]) == ("numeric", ["insufficient"])


def test_what_is_told_beats_what_is_guessed():
    rows = table(target=[0, 1] * (ROWS // 2), number=[f"n{i}" for i in range(ROWS)], opened_on=days(), paid_on=days())
    profile = profile_table(rows, Told(label="target", id="number", decision_date="paid_on", population=("income",)))
    assert [profile.the(r).name for r in ("label", "id", "decision_date", "population")] == [
        "target", "number", "paid_on", "income",
    ]  # fmt: skip


def test_unset_dates_are_no_decision_dates():
    rows = table(opened_on=[date(1970, 1, 1), *days()[1:]])
    assert profile_table(rows, Told()).the("decision_date") is None


@pytest.mark.parametrize(
    ("rows", "told", "message"),
    [
        (table(), Told(label="bda"), "no column 'bda'; the nearest is 'bad'"),
        (table(), Told(label="income"), "cannot be the label: expected the numbers 0"),
        (table().drop("bad"), Told(), "--label COLUMN=VALUE, with the value that means bad"),
        (table().rename({"bad": "x"}), Told(), r"say which one it is .* of 0 and 1: 'x'"),
        (table().drop("loan_id"), Told(), "with_row_index"),
        (table(loan_id=[1] * ROWS), Told(id="loan_id"), "cannot be the id"),
        (table(), Told(decision_date="income"), "cannot be the decision date"),
        (table().head(0), Told(), r"expected rows .* came none \(3 columns\)"),
    ],
)
def test_what_cannot_be_is_refused_with_the_next_move(rows, told, message):
    with pytest.raises(ValueError, match=message):
        profile_table(rows, told)


def test_a_label_that_is_mostly_one_is_doubted():
    rows = table(bad=[1] * 300 + [0] * 60 + [None] * 40)
    notes = " ".join(profile_table(rows, Told()).notes)
    assert "83% of the labels are 1" in notes
    assert "40 rows have no label" in notes


# --- sentinel codes ---


@pytest.mark.parametrize(
    ("values", "codes"),
    [
        ([*range(14), *([0] * 500), 96, 98, 98], (96.0, 98.0)),  # days past due of Give Me Some Credit
        ([*range(1, 120)] * 5 + [999] * 100, (999.0,)),
        ([*np.linspace(100, 5000, 900), *([-1] * 20)], (-1.0,)),
        ([*np.linspace(33, 94, 900), *([-9] * 20), *([-7] * 5)], (-9.0, -7.0)),
        ([*np.linspace(0, 50, 900), *([123456] * 20)], (123456.0,)),
        ([-99999.0] * 3 + [1.0, 2.0, 3.0] * 50, (-99999.0,)),
        ([-2, -1, 0, 1, 2, 3, 8] * 100, ()),  # repayment status of Taiwan: -1 is an answer
        ([-1, 0, 1, 2] * 100, ()),
        ([*range(18, 110)] * 3, ()),  # ages up to 109: 96 to 99 lie among them
        ([0] * 950 + [1] * 50, ()),
        ([*np.linspace(-100, 100, 500), *([-1] * 20)], ()),
        ([999.0] * 50, ()),
        ([], ()),
    ],
)
def test_codes_are_suspected_only_where_they_lie_apart(values, codes):
    assert find_sentinels(pl.Series("x", values, pl.Float64)) == codes


def test_nan_is_missing_and_infinity_is_in_no_range():
    column = describe_column(pl.Series("x", [1.0, 2.0, np.nan, np.inf, None]))
    assert (column.missing, column.lowest, column.highest, column.missing_share) == (2, 1.0, 2.0, 0.4)


def test_json_holds_no_levels_for_they_are_values_of_customers():
    column = describe_column(pl.Series("name", ["Ann", "Bob"]))
    assert column.levels == ("Ann", "Bob")
    assert "Ann" not in str(column.to_json())

"""Rules of what a column's name gives away."""

import pytest

from crossrisk.starting.naming import (
    customer_word,
    key_word,
    label_rank,
    lender_reason,
    outcome_reason,
    protected_word,
    words,
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("income_monthly_usd", ("income", "monthly", "usd")),
        ("SeriousDlqin2yrs", ("serious", "dlqin", "yrs")),
        ("customerId", ("customer", "id")),
        ("zip3", ("zip",)),
        ("Loan ID", ("loan", "id")),
        ("TARGET", ("target",)),
        ("行_id", ("行", "id")),
        ("", ()),
    ],
)
def test_words_are_parted_in_every_usual_spelling(name, expected):
    assert words(name) == expected


@pytest.mark.parametrize(
    "name", ["sex", "age", "AGE", "age_in_years", "personal_status_and_sex", "foreign_worker", "zip3"]
)
def test_protected_attributes_are_known_by_a_whole_word(name):
    assert protected_word(name)


@pytest.mark.parametrize("name", ["percentage", "mortgage_balance", "avg_age_accounts", "sextile", "loan_age", "pay_1"])
def test_words_that_only_look_protected_are_not(name):
    assert protected_word(name) is None


@pytest.mark.parametrize(
    "name",
    ["loan_status", "LoanStatus", "recoveries", "collection_recovery_fee", "total_pymnt", "total_rec_prncp",
     "last_pymnt_d", "debt_settlement_flag", "out_prncp", "charged_off", "default_date"],
)  # fmt: skip
def test_outcomes_are_known_by_name(name):
    assert outcome_reason(name)


@pytest.mark.parametrize("name", ["total_acc", "total_recent_inquiries", "pay_amt1", "pub_rec", "n_90_dpd", "status"])
def test_names_of_application_features_are_no_outcomes(name):
    assert outcome_reason(name) is None


def test_the_lenders_decision_is_told_from_other_instalments():
    assert lender_reason("lender_installment")
    assert lender_reason("sub_grade")
    assert lender_reason("installment_rate_in_percentage_of_disposable_income") is None
    assert lender_reason("other_installment_plans") is None


def test_the_most_telling_label_name_ranks_first():
    assert label_rank("is_bad") < label_rank("default payment next month") < label_rank("TARGET")
    assert label_rank("income") is None


def test_a_customer_is_named_by_a_key_not_by_a_property():
    assert customer_word("customer_id") == "customer"
    assert customer_word("member") == "member"
    assert customer_word("customer_income") is None
    assert key_word("row_id") == "id"
    assert key_word("idle") is None

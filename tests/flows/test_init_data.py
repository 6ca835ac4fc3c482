"""A start on real data: every credit set is drafted, and its draft passes ingest and validation as it is."""

import pytest

from crossrisk.config import load_portfolio
from flows.init import Question, start_portfolio
from tasks.ingest import ingest
from tasks.validate import validate

pytestmark = pytest.mark.data

TARGETS = {
    "lending_club_2007_2011/loans.parquet": ("term_months=60",),
    "give_me_some_credit/cs_training.parquet": tuple(f"n_open_credit_lines={n}" for n in (0, 1, 2)),
    "taiwan_credit_card/clients.parquet": tuple(f"pay_{i}={code}" for i in (1, 2, 3) for code in (-2, -1)),
    "german_credit/german.parquet": ("housing=rent", "housing=for free"),
}
SIZES = {
    "lending_club_2007_2011/loans.parquet": (31_534, 11_001),
    "give_me_some_credit/cs_training.parquet": (137_008, 12_992),
    "taiwan_credit_card/clients.parquet": (23_232, 6_768),
    "german_credit/german.parquet": (713, 287),
}
"""rows of source and target"""
LEFT_OUT = {
    "lending_club_2007_2011/loans.parquet": {
        "loan_status", "lender_grade", "lender_sub_grade", "lender_int_rate", "lender_installment",
    },
}  # fmt: skip
PROTECTED = {
    "lending_club_2007_2011/loans.parquet": {"zip3"},
    "give_me_some_credit/cs_training.parquet": {"age"},
    "taiwan_credit_card/clients.parquet": {"sex", "marriage", "age"},
    "german_credit/german.parquet": {"personal_status_and_sex", "age_in_years", "foreign_worker"},
}
DPD = {"n_30_59_dpd", "n_60_89_dpd", "n_90_dpd"}


@pytest.fixture(params=TARGETS)
def drafted(request, real_data, tmp_path):
    """Path of the data and the portfolio that was loaded from its draft."""
    environ = {"CROSSRISK_DATA": str(real_data), "CROSSRISK_HOME": str(tmp_path)}
    question = Question(data=request.param, targets=TARGETS[request.param])
    start = start_portfolio(question, tmp_path / "configs", environ)
    return request.param, load_portfolio(start.config, environ=environ)


def test_the_draft_passes_ingest_and_validation_as_it_is(drafted):
    path, loaded = drafted
    ingested = ingest.fn(loaded)
    assert (ingested.facts["populations"]["source"], ingested.facts["populations"]["target"]) == SIZES[path]
    assert ingested.facts["warnings"] == []
    checked = validate.fn(loaded, ingested)
    assert (checked.facts["outcome"], checked.facts["quarantined_ids"]) == ("pass", 0)
    assert [result["rule"] for result in checked.facts["results"] if not result["success"]] == []


def test_leaks_and_protected_attributes_are_no_features(drafted):
    path, loaded = drafted
    assert set(loaded.portfolio.data.ignore) == LEFT_OUT.get(path, set())
    assert set(loaded.portfolio.features.protected) == PROTECTED[path]


def test_codes_are_suspected_where_the_data_have_them_and_nowhere_else(drafted):
    path, loaded = drafted
    codes = dict.fromkeys(DPD, (96.0, 98.0)) if path.startswith("give_me") else {}
    assert loaded.portfolio.features.sentinels == codes

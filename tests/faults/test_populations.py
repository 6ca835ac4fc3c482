"""Row 14: too little of a population, a class or a month. A typed error, or a status; no number from nothing."""

from datetime import date

import polars as pl
import pytest
from builders import FLOW_TOML, TOML, loans, loans_with_noise, portfolio
from steps import Walk

from crossrisk.errors import InputError
from crossrisk.metrics import Metric

pytestmark = pytest.mark.fault(14)

IS_CARD = pl.col("product") == "card"
BASELINE = ("lineup.contenders=['source_logistic', 'target_logistic']",)


def without(condition: pl.Expr, frame: pl.DataFrame | None = None) -> pl.DataFrame:
    return (loans() if frame is None else frame).filter(~condition)


def all_good(condition: pl.Expr, frame: pl.DataFrame | None = None) -> pl.DataFrame:
    return (loans() if frame is None else frame).with_columns(bad=pl.when(condition).then(0).otherwise("bad"))


# --- a population ---


@pytest.mark.parametrize(("name", "gone"), [("target", IS_CARD), ("source", ~IS_CARD)])
def test_an_empty_population_ends_the_run_with_its_rule(tmp_path, name, gone):
    with pytest.raises(
        InputError, match=rf"population '{name}' is empty: of the 300 rows .*correct population\.{name}"
    ):
        Walk(portfolio(tmp_path, without(gone))).mature()


def test_a_target_that_begins_after_as_of_is_no_target(tmp_path):
    late = loans().with_columns(opened_on=pl.when(IS_CARD).then(date(2025, 1, 1)).otherwise("opened_on"))
    with pytest.raises(InputError, match="population 'target' has no row left at 2024-12-31"):
        Walk(portfolio(tmp_path, late)).mature()


def test_no_row_at_all_is_said(tmp_path):
    with pytest.raises(InputError, match="there is no row in it"):
        Walk(portfolio(tmp_path, loans().head(0))).check_input()


# --- a class ---


def test_a_source_without_bads_ends_the_run_with_its_numbers(tmp_path):
    with pytest.raises(InputError, match="the source has 0 bads among 300 matured rows"):
        Walk(portfolio(tmp_path, all_good(~IS_CARD))).mature()


def test_no_bads_anywhere_is_blocked_by_the_common_suite(tmp_path):
    facts = Walk(portfolio(tmp_path, all_good(pl.lit(True)))).check_input()["validate"].facts
    assert facts["outcome"] == "blocked"
    assert "label-both-classes" in facts["reasons"][0]


def test_a_target_without_bads_fits_nothing_on_its_labels_and_claims_nothing(tmp_path):
    loaded = portfolio(tmp_path, all_good(IS_CARD, loans_with_noise()), toml=FLOW_TOML, overrides=BASELINE)
    walk = Walk(loaded).judge()
    facts = walk.trained["target_logistic"].facts
    assert (facts["fitted"], "0 matured target bads" in facts["reason"]) == (False, True), facts
    compared = walk["compared"].facts
    assert (compared["challenger"], compared["bads"]) == ("source_logistic", 0)
    auc = Metric(**compared["metrics"]["source_logistic"]["auc"])
    assert (auc.value, auc.low, auc.status, auc.n_bad) == (None, None, "undefined", 0)


@pytest.mark.heavy
def test_a_target_without_bads_is_published_as_a_model_of_the_source_and_says_so(tmp_path):
    loaded = portfolio(tmp_path, all_good(IS_CARD, loans_with_noise()), toml=FLOW_TOML, overrides=BASELINE[:1])
    decision = Walk(loaded).decide().decision
    assert decision.verdict == "bootstrap"
    assert "fitted on the source alone" in decision.reasons[0]
    assert "nothing is claimed about the target" in decision.reasons[1]


def test_a_slice_of_one_class_is_a_line_without_a_number(tmp_path):
    frame = all_good(IS_CARD & (pl.col("region") == "west"), loans_with_noise())
    loaded = portfolio(tmp_path, frame, toml=FLOW_TOML, overrides=(*BASELINE, "gate.min_segment_bads=5"))
    lines = {line["segment"]: line for line in Walk(loaded).judge()["compared"].facts["segments"]}
    assert {name: line["auc"]["status"] for name, line in lines.items()} == {
        "north": "ok", "south": "ok", "west": "undefined",
    }  # fmt: skip
    assert (lines["west"]["bads"], lines["west"]["auc"]["value"]) == (0, None)


# --- a month ---


def test_a_tiny_last_month_judges_with_what_it_has_and_calls_it_insufficient(tmp_path):
    frame = loans_with_noise()
    last = IS_CARD & (pl.col("opened_on") >= date(2024, 12, 1))
    few = pl.concat([without(last, frame), frame.filter(last).head(6)])
    loaded = portfolio(tmp_path, few, toml=FLOW_TOML, overrides=(*BASELINE, "split.target_test_last_months=1"))
    facts = Walk(loaded).judge()["compared"].facts
    assert (facts["rows"], facts["months"]) == (6, ["2024-12"])
    for metrics in facts["metrics"].values():
        assert metrics["auc"]["status"] in ("insufficient", "undefined")
    assert facts["challenger"] == "source_logistic"


def test_cells_too_small_to_stratify_are_merged_and_named(tmp_path):
    walk = Walk(portfolio(tmp_path, loans(), overrides=("split.min_stratum_rows=40",))).encode()
    assert any("merged for stratifying" in note for note in walk["split"].facts["notes"])


def test_a_test_part_without_a_row_ends_the_run_with_the_key_to_change(tmp_path):
    months = ("split.target_test_months=['2025-01', '2025-03']",)
    with pytest.raises(InputError, match=r"target_test has no row; widen months or shares under \[split\]"):
        Walk(portfolio(tmp_path, loans(), toml=TOML, overrides=months)).encode()

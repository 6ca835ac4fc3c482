"""Row 13: a column changes from one delivery to the next. What follows is the policy of its severity.

The schema is judged at ingest: what cannot be read as the portfolio describes it stops, what is more than that is a
warning, what only looks otherwise passes. Values are judged by the suite, whose every rule has its own action.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
import pytest
from builders import TOML, loans, portfolio
from steps import Walk

from crossrisk.errors import InputError
from crossrisk.labels import matured_label
from crossrisk.stability import describe_categories, describe_numbers, psi
from tasks.features import ENCODED, load_plan
from tasks.ingest import scan_ingested

pytestmark = pytest.mark.fault(13)

Change = Callable[[pl.DataFrame], pl.DataFrame]

STOPS: dict[str, tuple[Change, str]] = {
    "missing": (lambda f: f.drop("income_usd"), "column 'income_usd' is missing"),
    "missing, of a population": (lambda f: f.drop("product"), "column 'product' is missing"),
    "renamed case": (lambda f: f.rename({"region": "Region"}), "came as 'Region': names are case-sensitive"),
    "number as text": (lambda f: f.with_columns(pl.col("income_usd").cast(pl.String)), "expected a number"),
    "date as text": (lambda f: f.with_columns(pl.col("opened_on").cast(pl.String)), "expected a date"),
    "id as a float": (lambda f: f.with_columns(pl.col("loan_id").cast(pl.Float64)), "expected a string or an integer"),
    "category as a float": (lambda f: f.with_columns(region=pl.lit(1.5)), "expected a string"),
}


@pytest.mark.parametrize("fault", STOPS)
def test_what_cannot_be_read_as_described_stops_with_the_column_named(tmp_path, fault):
    change, message = STOPS[fault]
    loaded = portfolio(tmp_path, change(loans()))
    with pytest.raises(InputError, match=message):
        Walk(loaded).check_input()
    assert not list(loaded.folders.work.rglob("stage.json"))


def test_a_column_more_is_a_warning_by_name_and_no_feature(tmp_path):
    walk = Walk(portfolio(tmp_path, loans().with_columns(shoe_size=pl.lit(43)))).encode()
    assert walk["ingest"].facts["warnings"] == ["loans.parquet: column 'shoe_size' is not named in the portfolio"]
    assert "shoe_size" not in " ".join(load_plan(walk["plan"]).outputs)


PASSES: dict[str, Change] = {
    "reordered": lambda f: f.select(reversed(f.columns)),
    "numbers in fewer bits": lambda f: f.with_columns(pl.col("loan_id").cast(pl.Int32), pl.col("bad").cast(pl.Int64)),
    "label as a boolean": lambda f: f.with_columns(pl.col("bad").cast(pl.Boolean)),
    "category as a dictionary": lambda f: f.with_columns(pl.col("region").cast(pl.Categorical)),
    "date as a timestamp": lambda f: f.with_columns(pl.col("opened_on").cast(pl.Datetime("ms"))),
}


@pytest.mark.parametrize("fault", PASSES)
def test_what_only_looks_otherwise_makes_the_same_training_matrix(tmp_path, fault):
    matrices = []
    for name, change in (("plain", lambda f: f), ("changed", PASSES[fault])):
        (tmp_path / name).mkdir()
        walk = Walk(portfolio(tmp_path / name, change(loans()))).encode()
        matrices.append(pl.read_parquet(walk["encoded"].folder / ENCODED).sort("id").cast({"id": pl.Int64}))
    assert matrices[0].equals(matrices[1])


def test_gaps_turn_a_label_of_integers_into_floats_and_stay_unknown(tmp_path):
    gaps = pl.when(pl.col("loan_id") % 10 == 3).then(None).otherwise(pl.col("bad")).cast(pl.Float64)
    walk = Walk(portfolio(tmp_path, loans().with_columns(bad=gaps))).mature()
    labels = scan_ingested(walk.loaded, walk["ingest"]).select(matured_label(walk.loaded.portfolio)).collect()
    assert labels["bad"].null_count() == 60
    unknown = [found["unknown"] for found in walk["labels"].facts["populations"].values()]
    assert sum(found.get("not reported", 0) for found in unknown) == 60


def test_a_feature_that_comes_all_null_is_dropped_by_name_and_the_others_are_kept(tmp_path):
    walk = Walk(portfolio(tmp_path, loans().with_columns(income_usd=pl.lit(None, pl.Float64)))).encode()
    assert "income_usd" in walk["plan"].facts["dropped"]
    outputs = load_plan(walk["plan"]).outputs
    assert any(name.startswith("balance_usd") for name in outputs)
    assert np.isfinite(pl.read_parquet(walk["encoded"].folder / ENCODED).select(outputs).to_numpy()).all()


# --- values: the action of the rule that they break ---


@dataclass(frozen=True)
class Fault:
    """Values that a rule of the suite speaks of."""

    change: Change
    rule: dict
    rows: int
    """that break it"""


WIDE = {"column": "income_usd", "min_value": 100, "max_value": 100_000}
FAULTS = {
    "new category": Fault(
        lambda f: f.with_columns(
            region=pl.when(pl.col("loan_id") < 6).then(pl.lit("moon")).otherwise("region")
        ),
        {"type": "expect_column_values_to_be_in_set",
         "kwargs": {"column": "region", "value_set": ["north", "south", "west"]}},
        6,
    ),
    "unit change x100 in some rows": Fault(
        lambda f: f.with_columns(
            income_usd=pl.col("income_usd") * pl.when(pl.col("loan_id") < 6).then(100).otherwise(1)
        ),
        {"type": "expect_column_values_to_be_between", "kwargs": WIDE},
        6,
    ),
    "all null": Fault(
        lambda f: f.with_columns(income_usd=pl.lit(None, pl.Float64)),
        {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "income_usd"}},
        600,
    ),
}  # fmt: skip


def checked(folder, change: Change, rule: dict, action: str, share: float = 0.05) -> Walk:
    meta = {"action": action, "why": "It matters.", "owner": "credit risk"}
    suite = {"schema_version": 1, "name": "own", "max_quarantined_share": share,
             "expectations": [{"name": "the-rule", **rule, "meta": meta}]}  # fmt: skip
    (folder / "own.json").write_text(json.dumps(suite))
    toml = TOML.replace('id = "loan_id"', 'id = "loan_id"\nexpectations = ["own.json"]')
    return Walk(portfolio(folder, change(loans()), toml=toml)).check_input()


@pytest.mark.parametrize("name", FAULTS)
def test_values_that_break_a_stop_rule_block_the_run_by_its_name(tmp_path, name):
    fault = FAULTS[name]
    facts = checked(tmp_path, fault.change, fault.rule, "stop")["validate"].facts
    assert facts["outcome"] == "blocked"
    assert any("stop rule 'the-rule'" in reason for reason in facts["reasons"])


@pytest.mark.parametrize("name", ["new category", "unit change x100 in some rows"])
def test_values_that_break_a_quarantine_rule_are_set_aside_and_nobody_learns_from_them(tmp_path, name):
    fault = FAULTS[name]
    walk = checked(tmp_path, fault.change, fault.rule, "quarantine")
    assert (walk["validate"].facts["outcome"], walk["validate"].facts["quarantined_ids"]) == ("pass", fault.rows)
    ids = pl.read_parquet(walk.encode()["encoded"].folder / ENCODED)["id"]
    assert (ids.len(), ids.min()) == (600 - fault.rows, fault.rows)


@pytest.mark.parametrize("name", FAULTS)
def test_values_that_break_a_warning_are_counted_and_pass(tmp_path, name):
    fault = FAULTS[name]
    facts = checked(tmp_path, fault.change, fault.rule, "warn")["validate"].facts
    (found,) = [result for result in facts["results"] if result["rule"] == "the-rule"]
    assert (facts["outcome"], found["success"], found["unexpected_count"]) == ("pass", False, fault.rows)


def test_a_unit_change_of_the_whole_column_is_too_much_to_set_aside(tmp_path):
    facts = checked(tmp_path, lambda f: f.with_columns(pl.col("income_usd") * 100), FAULTS[
        "unit change x100 in some rows"].rule, "quarantine")["validate"].facts  # fmt: skip
    assert facts["outcome"] == "blocked"
    assert "of the rows would be set aside, at most 5.000% may be" in facts["reasons"][0]


def test_what_no_rule_speaks_of_is_seen_by_the_monthly_watch():
    # the watch counts a month in the bins of the reference: 150 target rows are an ordinary month of the builders
    before, month = loans(2000), loans(150, seed=5)
    income, region = describe_numbers(before["income_usd"]), describe_categories(before["region"].to_list())
    quiet = psi(income.counts, income.bins.count(month["income_usd"]))
    times_hundred = psi(income.counts, income.bins.count(month["income_usd"] * 100))
    moon = psi(region.counts, region.bins.count(pl.Series(["moon"] * 150)))
    assert quiet.verdict in ("ok", "small sample")
    assert (times_hundred.verdict, moon.verdict) == ("red", "red")


def test_a_new_category_takes_the_slot_of_unseen_levels_and_no_column_of_its_own(tmp_path):
    rare = FAULTS["new category"].change(loans())  # six rows: below features.min_level_rows
    walk = Walk(portfolio(tmp_path, rare)).encode()
    assert not [name for name in load_plan(walk["plan"]).outputs if "moon" in name]
    assert pl.read_parquet(walk["encoded"].folder / ENCODED).height == 600

"""Rules of the split."""

import tomllib
from pathlib import Path

import builders
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossrisk.config import parse_portfolio
from crossrisk.errors import InputError
from crossrisk.store import stage
from tasks.ingest import ingest
from tasks.labels import mature_labels
from tasks.split import assign, keyed_hash, split_populations

BASE = """
name = "cards"
as_of = 2024-12-31
[data]
path = "x"
id = "loan"
decision_date = "opened"
[label]
column = "bad"
[population]
source = "a"
target = "b"
[features]
numeric = ["x"]
"""


def portfolio(extra="", preset="honest", dated=True):
    text = f'preset = "{preset}"\n' + BASE + extra
    if not dated:
        text = text.replace('decision_date = "opened"\n', "")
    return parse_portfolio(tomllib.loads(text), where="test")


def labels(rows=4000, months=12, unknown_share=0.0, customers=None, seed=0):
    """A table as `mature labels` writes it: half source, half target, one bad in ten."""
    numbers = pl.int_range(rows, eager=True)
    month = pl.Series([f"2024-{1 + i * months // rows:02d}" for i in range(rows)])
    unknown = keyed_hash(numbers, seed) % 1000 < 1000 * unknown_share
    label = pl.Series([int(i % 10 == 0) for i in range(rows)], dtype=pl.Int8)
    return pl.DataFrame(
        {
            "id": numbers,
            "customer": (numbers if customers is None else numbers % customers).cast(pl.String),
            "population": pl.Series(["source" if (i // 10) % 2 else "target" for i in range(rows)]),
            "month": month,
            "label": label.set(pl.Series(unknown), None),
        }
    ).with_columns(pl.when(pl.col("label").is_null()).then(pl.lit("unmatured")).alias("why_unknown"))


def parts(assigned):
    return dict(zip(assigned.rows["id"], assigned.rows["part"], strict=True))


def test_every_row_has_one_part_of_its_own_population():
    assigned = assign(labels(), portfolio(), None).rows
    assert assigned["id"].is_unique().all()
    mismatch = assigned.filter(~pl.col("part").str.starts_with(pl.col("population")))
    assert mismatch.is_empty()


def test_the_test_is_the_last_whole_months_and_nothing_else_is():
    assigned = assign(labels(), portfolio("[split]\ntarget_test_last_months = 3"), None).rows
    months = assigned.filter(pl.col("part") == "target_test")["month"].unique().sort().to_list()
    assert months == ["2024-10", "2024-11", "2024-12"]
    assert assigned.filter(pl.col("month") >= "2024-10", pl.col("population") == "target")["part"].n_unique() == 1


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_quotas_are_met_within_one_row_in_every_stratum(seed):
    rows = labels(seed=seed, unknown_share=0.02)
    chosen = portfolio(f"[split]\nseed = {seed}\ntarget_select_share = 0.3\nsource_stop_share = 0.2")
    assigned = assign(rows, chosen, None).rows
    drawn = assigned.filter(pl.col("part") != "target_test")
    for (stratum,), cell in drawn.group_by("stratum"):
        share = 0.3 if str(stratum).startswith("target") else 0.2
        selected = cell["part"].is_in(["target_select", "source_stop"]).sum()
        assert abs(selected - share * len(cell)) <= 1, stratum


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_the_order_of_rows_does_not_matter(seed):
    rows = labels(1200)
    shuffled = rows.sample(fraction=1.0, shuffle=True, seed=seed)
    assert parts(assign(rows, portfolio(), None)) == parts(assign(shuffled, portfolio(), None))


def test_added_rows_move_no_earlier_row():
    rows = labels()
    first = assign(rows.head(3000), portfolio("[split]\ntarget_test_months = ['2024-12', '2024-12']\n"), None)
    both = assign(rows, portfolio("[split]\ntarget_test_months = ['2024-12', '2024-12']\n"), first.rows)
    before, after = parts(first), parts(both)
    assert {i: after[i] for i in before} == before
    assert len(after) > len(before)


def test_new_rows_meet_their_quota_on_their_own():
    config = portfolio("[split]\ntarget_test_months = ['2024-12', '2024-12']\ntarget_select_share = 0.5\n")
    rows = labels()
    old = rows.filter(pl.col("id") % 3 != 0)
    first = assign(old, config, None)
    both = assign(rows, config, first.rows).rows
    new = both.filter(pl.col("id") % 3 == 0, pl.col("population") == "target", pl.col("month") < "2024-12")
    for _, cell in new.group_by("stratum"):
        assert abs((cell["part"] == "target_select").sum() - 0.5 * len(cell)) <= 1


def test_a_label_that_matures_later_moves_no_row():
    rows = labels(unknown_share=0.3)
    fixed = portfolio("[split]\ntarget_test_months = ['2024-11', '2024-12']\n")
    first = assign(rows, fixed, None)
    matured = assign(labels(), fixed, first.rows)
    before, after = parts(first), parts(matured)
    assert {i: after[i] for i in before} == before


def test_a_fitted_row_never_becomes_a_test_row_and_a_test_row_may_graduate():
    rows = labels()
    early = portfolio("[split]\ntarget_test_months = ['2024-05', '2024-06']\n")
    late = portfolio("[split]\ntarget_test_months = ['2024-03', '2024-04']\n")
    first = assign(rows, early, None)
    then = parts(assign(rows, late, first.rows))
    fitted = [i for i, part in parts(first).items() if part in ("target_fit", "target_select")]
    assert fitted
    assert not [i for i in fitted if then.get(i) == "target_test"]
    later = portfolio("[split]\ntarget_test_months = ['2024-07', '2024-08']\n")
    after = parts(assign(rows, later, first.rows))
    tested = [i for i, part in parts(first).items() if part == "target_test"]
    assert {after[i] for i in tested} == {"target_fit", "target_select"}


def test_without_dates_an_earlier_test_row_stays_a_test_row():
    rows = labels().with_columns(pl.lit(None, pl.String).alias("month"))
    config = portfolio(dated=False)
    first = assign(rows.head(2000), config, None)
    before, after = parts(first), parts(assign(rows, config, first.rows))
    assert {i: after[i] for i in before} == before
    share = sum(part == "target_test" for part in after.values()) / sum(p.startswith("target") for p in after.values())
    assert share == pytest.approx(0.4, abs=0.01)


def test_a_customer_stays_on_one_side_of_both_populations():
    assigned = assign(labels(customers=710), portfolio("[split]\ntarget_test_last_months = 1"), None)
    side = pl.col("part").str.extract("_([a-z]+)$").replace("stop", "select")
    assert assigned.rows.group_by("customer").agg(side.n_unique().alias("sides"))["sides"].max() == 1
    assert any("left out" in note for note in assigned.notes)


def test_the_test_stays_out_of_time_and_the_fit_out_of_the_test_whatever_customers_do():
    rows, config = labels(customers=710), portfolio("[split]\ntarget_test_months = ['2024-12', '2024-12']\n")
    first = assign(rows.filter(pl.col("month") < "2024-12"), portfolio("[split]\ntarget_test_last_months = 1"), None)
    for assigned in (assign(rows, config, None).rows, assign(rows, config, first.rows).rows):
        target = assigned.filter(pl.col("population") == "target")
        assert set(target.filter(pl.col("part") == "target_test")["month"]) <= {"2024-12"}
        assert set(target.filter(pl.col("month") == "2024-12")["part"]) <= {"target_test"}


def test_under_the_article_no_judged_customer_is_known_from_the_source():
    assigned = assign(labels(customers=710), portfolio(preset="article"), None).rows
    source = set(assigned.filter(pl.col("population") == "source")["customer"])
    judged = set(assigned.filter(pl.col("part") == "target_unlabelled")["customer"])
    assert judged
    assert not source & judged


def test_under_the_article_the_split_does_not_look_at_target_labels():
    rows = labels()
    flipped = rows.with_columns(
        pl.when(pl.col("population") == "target").then(1 - pl.col("label")).otherwise("label").alias("label")
    )
    article = portfolio(preset="article")
    assert parts(assign(rows, article, None)) == parts(assign(flipped, article, None))


def test_a_refused_split_binds_nothing_and_a_changed_rule_is_said(tmp_path):
    wrong = ("split.target_select_months=['2030-01', '2030-02']", "split.target_fit_months=['2024-01', '2024-03']")
    with pytest.raises(InputError, match="target_select has no row"):
        split_portfolio(builders.portfolio(tmp_path, builders.loans(), overrides=wrong))
    first = split_portfolio(builders.portfolio(tmp_path, builders.loans()))
    assert not first.facts["notes"] or "has changed" not in str(first.facts["notes"])
    changed = split_portfolio(builders.portfolio(tmp_path, builders.loans(), overrides=("split.seed=5",)))
    assert "raise split.generation" in str(changed.facts["notes"])


def split_portfolio(loaded):
    validated = stage(loaded.folders.stages, "validate", {}, lambda _: {})
    return split_populations.fn(loaded, mature_labels.fn(loaded, ingest.fn(loaded), validated))


def test_grey_accounts_keep_no_month_from_maturing_and_are_never_learnt_or_judged():
    is_grey = pl.col("id") % 5 == 2  # one in five, far above 1 - matured_share
    grey = labels().with_columns(
        pl.when(~is_grey).then("label").alias("label"),
        pl.when(is_grey).then(pl.lit("grey")).otherwise("why_unknown").alias("why_unknown"),
    )
    form = portfolio("[split]\ntarget_test_last_months = 3\n")
    assigned = assign(grey, form, None).rows
    test = assigned.filter(pl.col("part") == "target_test")
    assert set(test["month"]) == {"2024-10", "2024-11", "2024-12"}
    assert not assigned.filter(pl.col("part").is_in(["target_test", "source_fit", "source_stop"]), is_grey).height
    assert not assigned.filter(is_grey)["label_used"].any()


def test_unmatured_labels_are_never_used_and_never_tested_on():
    assigned = assign(
        labels(unknown_share=0.2), portfolio("[split]\ntarget_test_months = ['2024-11', '2024-12']"), None
    ).rows
    unknown = assigned.filter(pl.col("label").is_null())
    assert set(unknown["part"]) == {"target_fit", "target_select"}
    assert not unknown["label_used"].any()
    assert not assigned.filter(pl.col("part") == "target_test")["label_used"].any()


def test_rare_cells_are_merged_and_named():
    rows = labels().with_columns(
        pl.when((pl.col("label") == 1) & (pl.col("month") == "2024-02") & (pl.col("id") % 40 != 0))
        .then(pl.lit(0, pl.Int8)).otherwise("label").alias("label")
    )  # fmt: skip
    assigned = assign(rows, portfolio("[split]\nmin_stratum_rows = 15"), None)
    assert any("2024-02 label 1" in note for note in assigned.notes)
    assert "target merged 1" in assigned.rows["stratum"].to_list()


def test_a_label_budget_hides_bads_and_goods_alike():
    assigned = assign(labels(), portfolio("[split]\ntarget_label_budget_bads = 30"), None).rows
    fit = assigned.filter(pl.col("part") == "target_fit")
    used = fit.filter("label_used")
    assert used["label"].sum() == 30
    assert used["label"].mean() == pytest.approx(fit["label"].mean(), abs=0.01)


def test_the_article_uses_no_label_of_its_seventy_percent():
    assigned = assign(labels(), portfolio(preset="article"), None).rows
    target = assigned.filter(pl.col("population") == "target")
    unlabelled = target.filter(pl.col("part") == "target_unlabelled")
    assert len(unlabelled) / len(target) == pytest.approx(0.7, abs=0.01)
    assert not unlabelled["label_used"].any()
    assert set(assigned.filter(pl.col("population") == "source")["part"]) == {"source_fit"}


def test_no_matured_month_is_said():
    with pytest.raises(InputError, match="labels known"):
        assign(labels().with_columns(pl.lit(None, pl.Int8).alias("label")), portfolio(), None)


def test_the_keyed_hash_is_the_same_everywhere():
    assert keyed_hash(pl.Series(["a", "b"]), 1).tolist() == [4942068887039823890, 822327170011363523]


def test_the_assignment_never_sees_a_path():
    assert not any(isinstance(value, Path) for value in vars(assign(labels(200), portfolio(), None)).values())

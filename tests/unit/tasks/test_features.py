"""Rules of feature engineering: fitted on training rows only, the same for whoever asks, labels hidden."""

import polars as pl
import pytest
from builders import TOML, loans, portfolio

from crossrisk.errors import InputError
from crossrisk.features import encoding_expressions
from crossrisk.store import Stage, stage
from tasks.features import ENCODED, ROWS, apply_encodings, fit_encodings, load_plan, make_row_features
from tasks.ingest import ingest
from tasks.labels import mature_labels
from tasks.split import ASSIGNMENT, split_populations


def run(loaded):
    ingested = ingest.fn(loaded)
    labels = mature_labels.fn(loaded, ingested, stage(loaded.folders.stages, "validate", {}, lambda _: {}))
    rows = make_row_features.fn(loaded, ingested, labels)
    split = split_populations.fn(loaded, labels)
    fitted = fit_encodings.fn(loaded, rows, split)
    return split, fitted, apply_encodings.fn(loaded, rows, split, fitted)


def test_what_test_rows_hold_does_not_change_the_plan(tmp_path):
    frame = loans()
    late = (pl.col("opened_on") >= pl.date(2024, 7, 1)) & (pl.col("product") == "card")
    poisoned = frame.with_columns(
        pl.when(late).then(1e9).otherwise("income_usd").alias("income_usd"),
        pl.when(late).then(pl.lit("mars")).otherwise("region").alias("region"),
    )
    _, clean, _ = run(portfolio(tmp_path / "a", frame))
    _, other, _ = run(portfolio(tmp_path / "b", poisoned))
    assert load_plan(clean) == load_plan(other)


def test_training_sees_no_label_of_the_test(tmp_path):
    split, fitted, encoded = run(portfolio(tmp_path, loans()))
    matrix = pl.read_parquet(encoded.folder / ENCODED)
    assert (
        matrix.filter(pl.col("part") == "target_test")["label"].null_count() == (matrix["part"] == "target_test").sum()
    )
    assert matrix.filter(pl.col("part") == "target_fit")["label"].null_count() == 0
    assert set(load_plan(fitted).outputs) <= set(matrix.columns)
    assert len(matrix) == len(pl.read_parquet(split.folder / ASSIGNMENT))


def test_a_rerun_skips_every_stage_and_another_row_order_changes_no_number(tmp_path):
    first = run(portfolio(tmp_path, loans()))
    again = run(portfolio(tmp_path, loans()))
    assert all(made.reused for made in again)
    shuffled = run(portfolio(tmp_path / "other", loans().sample(fraction=1, shuffle=True, seed=1)))
    assert pl.read_parquet(first[2].folder / ENCODED).equals(pl.read_parquet(shuffled[2].folder / ENCODED))


WOE = (
    '[features.encodings]\nregion = ["woe"]\nincome_usd = ["standard", "target_mean"]\n'
    '[features.aggregates]\nmean_balance = ["balance_usd", "mean", "region"]\n'
)


def made_before(loaded, name):
    (folder,) = (loaded.folders.stages / name).iterdir()
    return Stage(name, folder, folder.name, True, 0.0, {})


def test_source_rows_are_trained_on_crossfitted_values_and_all_others_on_the_plan_s(tmp_path):
    loaded = portfolio(tmp_path, loans(), toml=TOML + WOE)
    _, fitted, encoded = run(loaded)
    matrix = pl.read_parquet(encoded.folder / ENCODED)
    plain = (
        pl.read_parquet(made_before(loaded, "rows").folder / ROWS)
        .sort("id")
        .select("id", *encoding_expressions(load_plan(fitted)))
    )
    both = matrix.join(plain, on="id", suffix=" by plan")
    for name in load_plan(fitted).label_outputs:
        differs = both.select("part", differs=pl.col(name) != pl.col(f"{name} by plan"))
        by_part = dict(differs.group_by("part").agg(pl.col("differs").sum()).iter_rows())
        fitted_on = by_part.pop("source_fit")
        assert fitted_on > 0.9 * (matrix["part"] == "source_fit").sum()
        assert set(by_part.values()) == {0}
    for name in set(load_plan(fitted).outputs) - set(load_plan(fitted).label_outputs):
        assert both[name].equals(both[f"{name} by plan"], check_names=False)


def test_labels_of_the_target_change_neither_plan_nor_matrix(tmp_path):
    loaded = portfolio(tmp_path, loans(), toml=TOML + WOE)
    split, fitted, encoded = run(loaded)
    assert load_plan(fitted).label_outputs
    rows = made_before(loaded, "rows")
    assignment = pl.read_parquet(split.folder / ASSIGNMENT)
    flipped = pl.when(pl.col("population") == "target").then(1 - pl.col("label")).otherwise("label").alias("label")

    def poison(folder):
        assignment.with_columns(flipped).write_parquet(folder / ASSIGNMENT)
        return {}

    poisoned = stage(loaded.folders.stages, "split", {"poisoned": True}, poison)
    other = fit_encodings.fn(loaded, rows, poisoned)
    assert load_plan(other) == load_plan(fitted)
    features = pl.exclude("label")
    again = pl.read_parquet(apply_encodings.fn(loaded, rows, poisoned, other).folder / ENCODED)
    assert again.select(features).equals(pl.read_parquet(encoded.folder / ENCODED).select(features))
    assert again["label"].to_list() != pl.read_parquet(encoded.folder / ENCODED)["label"].to_list()


def test_what_selection_drops_is_told_with_its_reason(tmp_path):
    extra = "[features.select]\nmax_same_share = 0.2\nkeep = ['income_usd']\n"
    _, fitted, encoded = run(portfolio(tmp_path, loans(), toml=TOML + extra))
    assert "one value, at most 20.00% allowed" in fitted.facts["reasons"]["region"]
    assert "region" in fitted.facts["dropped"]
    assert not any(name.startswith("region") for name in pl.read_parquet(encoded.folder / ENCODED).columns)


def test_a_plan_that_cannot_be_fitted_is_bad_input(tmp_path):
    frame = loans().with_columns(income_usd=pl.lit(-50.0) - pl.col("income_usd"))
    loaded = portfolio(tmp_path, frame, toml=TOML + "[features.logs]\nincome_usd = 'log1p'\n")
    with pytest.raises(InputError, match=r"the feature plan cannot be fitted: features\.logs\.income_usd"):
        run(loaded)


def test_the_native_view_lies_beside_the_encoded_one_where_a_contender_is_fitted_on_it(tmp_path):
    extra = "[lineup]\nboosted_inputs = 'native'\n"
    _, fitted, encoded = run(portfolio(tmp_path, loans(), toml=TOML + extra))
    plan, matrix = load_plan(fitted), pl.read_parquet(encoded.folder / ENCODED)
    assert set(plan.columns_of("native")) | set(plan.outputs) <= set(matrix.columns)
    rows = matrix.select("income_usd as it is", "region as it is")
    assert rows["region as it is"].n_unique() >= 3
    _, plain, _ = run(portfolio(tmp_path / "plain", loans()))
    assert load_plan(plain).native is None

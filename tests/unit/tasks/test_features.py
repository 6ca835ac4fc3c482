"""Rules of feature engineering: fitted on training rows only, the same for whoever asks, labels hidden."""

import polars as pl
from builders import loans, portfolio

from crossrisk.store import stage
from tasks.features import ENCODED, apply_encodings, fit_encodings, load_plan, make_row_features
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

"""Rules of the diagnosis as a step: each generated shift is named, from the stages of a run and from nothing else."""

import dataclasses

import builders
import numpy as np
import polars as pl
import pytest
from scipy.special import expit

from crossrisk.shift import read_diagnosis
from crossrisk.store import Stage
from tasks.calibrate import calibrate
from tasks.diagnose import diagnose
from tasks.features import apply_encodings, fit_encodings, make_row_features
from tasks.ingest import ingest
from tasks.labels import mature_labels
from tasks.split import split_populations
from tasks.train_baselines import train_baseline

FEATURES = tuple(f"x{j}" for j in range(8))
EFFECTS = np.array([0.9, -0.8, 0.7, 0.4, -0.4, 0.3, 0.0, 0.0])
REVERSED = np.r_[-0.3 * EFFECTS[:3], EFFECTS[3:]]
ROWS = 6000

TOML = f"""
name = "mini"
as_of = 2024-12-31
[data]
path = "loans.parquet"
id = "loan_id"
[label]
column = "bad"
[population]
source = "product = 'loan'"
target = "product = 'card'"
[features]
numeric = {list(FEATURES)}
categorical = ["region"]
[split]
target_test_share = 0.1
target_select_share = 0.5
[lineup]
contenders = ["source_forest", "source_logistic", "target_logistic"]
"""


def regression(rng, *, effects=EFFECTS, centre=0.0, level=-1.5):
    """Labels that follow from features: (x, y)."""
    x = rng.normal(size=(ROWS, 8))
    x[:, 1] += centre
    return x, rng.random(ROWS) < expit(x @ effects + level)


def mixture(rng, prior):
    """Features that follow from labels: (x, y)."""
    y = rng.random(ROWS) < prior
    return rng.normal(size=(ROWS, 8)) + 0.5 * np.outer(y, EFFECTS), y


def loans(source, target):
    """Loans of both populations from (x, y) of each."""
    x = np.concatenate([source[0], target[0]])
    return pl.DataFrame(
        {
            "loan_id": np.arange(2 * ROWS),
            "product": ["loan"] * ROWS + ["card"] * ROWS,
            "region": np.where(np.arange(2 * ROWS) % 3 == 0, "north", "south"),
            **{name: x[:, j] for j, name in enumerate(FEATURES)},
            "bad": np.concatenate([source[1], target[1]]).astype(np.int8),
        }
    )


def stages(folder, frame, *overrides, names=("source_logistic",)):
    """The loaded portfolio and the stages that the diagnosis is made of, by their names there."""
    loaded = builders.portfolio(folder, frame, toml=TOML, overrides=overrides)
    ingested = ingest.fn(loaded)
    passed = Stage("validated", folder / "nothing set aside", "0", False, 0.0, {})
    labels = mature_labels.fn(loaded, ingested, passed)
    rows = make_row_features.fn(loaded, ingested, labels)
    split = split_populations.fn(loaded, labels)
    fitted = fit_encodings.fn(loaded, rows, split)
    encoded = apply_encodings.fn(loaded, rows, split, fitted)
    trained = {name: train_baseline.fn(loaded, name, encoded, fitted) for name in names}
    calibrated = calibrate.fn(loaded, encoded, fitted, trained)
    return {"loaded": loaded, "rows": rows, "encoded": encoded, "fitted": fitted, "calibrated": calibrated}


SHIFTS = {
    "none": (lambda rng: (regression(rng), regression(rng)), [], "Borrowing looks safe."),
    "covariate only": (
        lambda rng: (regression(rng), regression(rng, centre=1.0)), ["covariate"], "Borrowing looks safe."
    ),
    "label only": (lambda rng: (mixture(rng, 0.25), mixture(rng, 0.12)), ["label"], "Borrowing changes priors only"),
    "level only": (
        lambda rng: (regression(rng), regression(rng, level=-0.8)), ["level"], "Borrowing changes priors only"
    ),
    "concept only": (
        lambda rng: (regression(rng), regression(rng, effects=REVERSED)), ["concept"], "Risk drivers differ: contenders"
    ),
    "covariate and concept": (
        lambda rng: (regression(rng), regression(rng, centre=1.0, effects=REVERSED)),
        ["covariate", "concept"], "Risk drivers differ: contenders",
    ),
}  # fmt: skip


@pytest.mark.parametrize("shift", SHIFTS, ids=str)
def test_each_generated_shift_is_named_rightly(tmp_path, shift):
    populations, kinds, meaning = SHIFTS[shift]
    made = diagnose.fn(**stages(tmp_path, loans(*populations(np.random.default_rng(5)))))
    assert made.facts["kinds"] == kinds
    assert made.facts["meaning"].startswith(meaning)
    assert made.facts["contender"] == "source_logistic"
    assert list(read_diagnosis(made.facts).sentences) == made.facts["sentences"]


def test_the_features_that_define_the_target_are_named(tmp_path):
    source, target = regression(np.random.default_rng(1)), regression(np.random.default_rng(2))
    source[0][:, 6], target[0][:, 6] = np.abs(source[0][:, 6]), -np.abs(target[0][:, 6]) - 0.01
    facts = diagnose.fn(**stages(tmp_path, loans(source, target))).facts
    assert facts["domain"]["defining"] == ["x6"]
    assert facts["support"]["share"] > 0.99
    assert facts["support"]["share_home"] < 0.05
    assert "where the source has no experience" in facts["meaning"]


def test_labels_of_the_test_change_nothing(tmp_path):
    frame = loans(*SHIFTS["none"][0](np.random.default_rng(5)))
    given = stages(tmp_path, frame)
    before = diagnose.fn(**given).facts
    encoded = pl.read_parquet(given["encoded"].folder / "encoded.parquet")
    assert encoded.filter(pl.col("part") == "target_test")["label"].null_count() == (
        encoded["part"].to_list().count("target_test")
    )
    poisoned = encoded.with_columns(
        pl.when(pl.col("part") == "target_test").then(pl.lit(1)).otherwise("label").alias("label").cast(pl.Int8)
    )
    poisoned.write_parquet(given["encoded"].folder / "encoded.parquet")
    assert diagnose.fn(**{**given, "encoded": dataclasses.replace(given["encoded"], digest="poisoned")}).facts == before


def test_the_first_source_only_contender_of_the_fixed_order_is_asked(tmp_path):
    frame = loans(*SHIFTS["none"][0](np.random.default_rng(5)))
    small = ("lineup.forest_seeds=1", "lineup.forest_depth=4")
    given = stages(tmp_path / "both", frame, *small, names=("source_forest", "source_logistic"))
    assert diagnose.fn(**given).facts["contender"] == "source_logistic"
    given = stages(tmp_path / "forest", frame, *small, names=("source_forest",))
    assert diagnose.fn(**given).facts["contender"] == "source_forest"


def test_without_a_source_only_contender_features_are_compared_all_the_same(tmp_path):
    frame = loans(*SHIFTS["covariate only"][0](np.random.default_rng(5)))
    facts = diagnose.fn(**stages(tmp_path, frame, names=("target_logistic",))).facts
    assert facts["kinds"] == ["covariate"]
    assert (facts["contender"], facts["label"]["status"], facts["concept"]["verdict"]) == (
        None,
        "undefined",
        "insufficient",
    )


def test_under_preset_article_there_is_no_home_to_compare_levels_with(tmp_path):
    frame = loans(*SHIFTS["concept only"][0](np.random.default_rng(5)))
    facts = diagnose.fn(**stages(tmp_path, frame, "preset=article")).facts
    assert (facts["label"]["status"], facts["level"]["status"]) == ("undefined", "undefined")
    assert facts["risk_drivers"] == "large"
    assert facts["support"]["share_home"] is None


def test_encodings_of_labels_do_not_tell_the_populations_apart_where_nothing_has_shifted(tmp_path):
    # cross-fitted values, one set a fold, are on the source's training rows alone: a classifier would know them all
    frame = loans(*SHIFTS["none"][0](np.random.default_rng(5)))
    every = ", ".join(f"{name} = ['woe', 'target_mean']" for name in ("region", *FEATURES))
    given = stages(tmp_path, frame, f"features.encodings={{{every}}}")
    facts = diagnose.fn(**given).facts
    assert 0.45 < facts["domain"]["auc"] < 0.55
    assert facts["domain"]["defining"] == []


def test_a_feature_that_selection_dropped_says_nothing_of_the_support(tmp_path):
    source, target = regression(np.random.default_rng(1)), regression(np.random.default_rng(2))
    source[0][:, 6], target[0][:, 6] = np.abs(source[0][:, 6]), -np.abs(target[0][:, 6]) - 0.01
    facts = diagnose.fn(**stages(tmp_path, loans(source, target), "features.select.max_psi=0.25")).facts
    assert facts["domain"]["defining"] == []
    assert facts["support"]["share"] < 0.1


@pytest.mark.data
def test_linear_transfer_between_taiwan_populations_is_refused(real_data, tmp_path):
    clients = pl.read_parquet(real_data / "taiwan_credit_card" / "clients.parquet")
    features = [c for c in clients.columns if c.startswith(("pay_", "bill_")) or c == "limit_bal"]
    inactive = pl.all_horizontal(pl.col("pay_1", "pay_2", "pay_3") <= -1)
    frame = clients.select(
        pl.col("row_id").alias("loan_id"),
        pl.when(inactive).then(pl.lit("card")).otherwise(pl.lit("loan")).alias("product"),
        pl.lit("all").alias("region"),
        *features,
        "bad",
    )
    facts = diagnose.fn(
        **stages(tmp_path, frame, f"features.numeric={features}", "split.target_test_share=0.4",
                 "split.target_select_share=0.3")
    ).facts  # fmt: skip
    assert set(facts["domain"]["defining"]) == {"pay_1", "pay_2", "pay_3"}
    assert facts["blocks_transfer"]
    assert facts["level"]["auc"] < 0.65 < facts["level"]["auc_home"]

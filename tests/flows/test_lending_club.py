"""The real portfolio, end to end: 36-month loans lend their experience to the 60-month product."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent

pytestmark = pytest.mark.data

PUBLISHED = {
    "source_boosted": 0.618, "source_logistic": 0.618, "pooled_boosted": 0.616, "pooled_logistic": 0.623,
}  # fmt: skip
"""AUC on the twelve cohorts of 2011 in the reference table of the data sets (300 target bads for the pooled ones)."""


@pytest.fixture(scope="module")
def lending_club(tmp_path_factory):
    root = os.environ.get("CROSSRISK_DATA", "")
    if not (Path(root) / "lending_club_2007_2011").is_dir():
        pytest.skip(
            f"CROSSRISK_DATA ({root or 'not set'}) holds no folder lending_club_2007_2011; see docs/datasets.md"
        )
    home = tmp_path_factory.mktemp("lending_club")
    environ = {**os.environ, "CROSSRISK_HOME": str(home), "CROSSRISK_DATA": str(Path(root).resolve()),
               "PREFECT_HOME": str(home / "prefect")}  # fmt: skip
    command = [BIN / "crossrisk", "retrain", ROOT / "configs" / "lending_club.toml", "--json"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_the_rows_are_those_of_the_portfolio(lending_club):
    result = json.loads(Path(lending_club["paths"]["json"]).read_text())
    assert (result["judged"]["rows"], result["judged"]["bads"]) == (7_620, 1_798)
    assert result["input"]["populations"]["source"] == 14_995
    assert result["validation"]["quarantined_ids"] == 0


@pytest.mark.parametrize("name", PUBLISHED)
def test_auc_agrees_with_the_reference_figures(lending_club, name):
    assert lending_club["contenders"][name]["auc"]["value"] == pytest.approx(PUBLISHED[name], abs=0.012)


def test_a_model_was_published_within_the_floors(lending_club):
    assert lending_club["verdict"] == "bootstrap"
    assert lending_club["version"] == int(Path(lending_club["paths"]["model"]).name)


def test_the_published_model_answers_saved_model_cli_with_raw_columns(lending_club):
    model = lending_club["paths"]["model"]
    environ = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    shown = subprocess.run(
        [BIN / "saved_model_cli", "show", "--dir", model, "--tag_set", "serve", "--signature_def", "serving_default"],
        capture_output=True, text=True, check=True, env=environ,
    ).stdout  # fmt: skip
    inputs = {part.split("'")[0]: part for part in shown.split("inputs['")[1:]}
    feed = []
    for name, described in inputs.items():
        value = "'RENT'" if "DT_STRING" in described else "14000" if "DT_INT32" in described else "10000.0"
        feed.append(f"{name}=[{value}, {value}]")
    done = subprocess.run(
        [BIN / "saved_model_cli", "run", "--dir", model, "--tag_set", "serve", "--signature_def", "serving_default",
         "--input_exprs", ";".join(feed), "--outdir", Path(model).parents[1]],
        capture_output=True, text=True, check=False, env=environ,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    probability = np.load(Path(model).parents[1] / "probability.npy")
    assert probability.shape == (2,)
    assert ((probability > 0) & (probability < 1)).all()


def test_every_loan_of_the_test_is_scored_by_the_published_model_as_it_was_judged(lending_club):
    result = json.loads(Path(lending_club["paths"]["json"]).read_text())
    assert result["verified_difference"] <= 1e-5
    judged = next(Path(lending_club["paths"]["json"]).parents[2].glob("stages/compared/*/judged.parquet"))
    assert pl.read_parquet(judged)["id"].n_unique() == 7_620


LIGHT = ["source_logistic", "target_logistic"]


@pytest.fixture(scope="module")
def two_files(lending_club, tmp_path_factory):
    """The same loans as two systems would deliver them: one file a product, the newer with names of its own."""
    home = tmp_path_factory.mktemp("two_files")
    loans = pl.read_parquet(Path(os.environ["CROSSRISK_DATA"]) / "lending_club_2007_2011" / "loans.parquet")
    (home / "data").mkdir()
    loans.filter(pl.col("term_months") == 36).write_parquet(home / "data" / "short.parquet")
    theirs = {name: f"Loan {name.replace('_', ' ').upper()}" for name in loans.columns}
    number_again = pl.int_range(pl.len(), dtype=pl.Int64).alias("row_id")  # as a second system would
    long = loans.filter(pl.col("term_months") == 60).with_columns(number_again)
    long.rename(theirs).write_parquet(home / "data" / "long.parquet")
    toml = (ROOT / "configs" / "lending_club.toml").read_text()
    path = next(line for line in toml.splitlines() if line.startswith("path = "))
    tables = '\n[data.source]\npath = "short.parquet"\n[data.target]\npath = "long.parquet"\n[data.target.columns]\n'
    tables += "".join(f"{ours} = {json.dumps(name)}\n" for ours, name in theirs.items())
    toml = toml.replace(path + "\n", "").replace("\n[label]", tables + "\n[label]", 1)
    toml = toml.replace("term_months = 36 AND ", "").replace("term_months = 60 AND ", "")
    (home / "two.toml").write_text(toml)
    command = [BIN / "crossrisk", "retrain", home / "two.toml", "--json", "--set", f"lineup.contenders={LIGHT}"]
    environ = {**os.environ, "CROSSRISK_HOME": str(home), "PREFECT_HOME": str(home / "prefect")}
    environ.pop("CROSSRISK_DATA")
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_two_files_with_other_names_are_the_same_portfolio(lending_club, two_files):
    one, two = (json.loads(Path(run["paths"]["json"]).read_text()) for run in (lending_club, two_files))
    assert two["input"]["populations"] == one["input"]["populations"]
    assert two["labels"]["populations"] == one["labels"]["populations"]
    assert (two["judged"]["rows"], two["judged"]["bads"]) == (7_620, 1_798)
    assert {file["input"]: file["path"] for file in two["input"]["files"]} == {
        "source": "short.parquet",
        "target": "long.parquet",
    }
    for name in LIGHT:  # parts drawn by id differ, rows and columns do not
        expected = lending_club["contenders"][name]["auc"]["value"]
        assert two_files["contenders"][name]["auc"]["value"] == pytest.approx(expected, abs=0.005)

"""Rules of staging the candidate: it says what was judged, of the same features, and knows whom reasons are against."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from builders import loans, portfolio

from crossrisk.errors import PublishError
from crossrisk.store import stage
from models.fitted import Calibration, Contender, Logistic, save_contender
from tasks.candidate import GOLDEN, MODEL, REFERENCE_ROW, TOLERANCE, stage_candidate
from tasks.compare import JUDGED, RAW_ROWS
from tasks.features import ENCODED, apply_encodings, fit_encodings, load_plan, make_row_features
from tasks.ingest import ingest, scan_ingested
from tasks.labels import mature_labels
from tasks.split import TARGET_FIT, TARGET_TEST, split_populations

pytestmark = pytest.mark.flow  # TensorFlow starts anew for every case

CHALLENGER = "target_logistic"


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    """A portfolio and its stages up to the encoded matrix."""
    loaded = portfolio(tmp_path_factory.mktemp("candidate"), loans())
    ingested = ingest.fn(loaded)
    labels = mature_labels.fn(loaded, ingested, stage(loaded.folders.stages, "validate", {}, lambda _: {}))
    rows = make_row_features.fn(loaded, ingested, labels)
    split = split_populations.fn(loaded, labels)
    fitted = fit_encodings.fn(loaded, rows, split)
    return loaded, ingested, fitted, apply_encodings.fn(loaded, rows, split, fitted)


def judge(walked, spoil=lambda raw: raw, shift=0.0):
    """A calibrated challenger, and what was judged of it on the untouched rows."""
    loaded, ingested, fitted, encoded = walked
    plan = load_plan(fitted)
    contender = Contender(CHALLENGER, Logistic(np.linspace(-1, 1, len(plan.outputs)), -2.0), Calibration(0.1, 0.9))
    test = pl.read_parquet(encoded.folder / ENCODED).filter(pl.col("part") == TARGET_TEST).sort("id")
    probability = contender.probability(test.select(plan.outputs).to_numpy()) + shift
    names = [column.name for column in plan.rows.raw_columns]
    raw = scan_ingested(loaded, ingested).select(pl.col("loan_id").alias("id"), *names).collect()

    def calibrate(folder):
        (folder / CHALLENGER).mkdir()
        save_contender(contender, folder / CHALLENGER)
        return {}

    def compare(folder):
        pl.DataFrame({"id": test["id"], CHALLENGER: probability}).write_parquet(folder / JUDGED)
        spoil(raw.join(test.select("id"), on="id", how="semi").sort("id")).write_parquet(folder / RAW_ROWS)
        return {"challenger": CHALLENGER, "judged_ids": f"{shift} {spoil(raw).hash_rows().sum()}"}

    calibrated = stage(loaded.folders.stages, "calibrated", {"of": CHALLENGER}, calibrate)
    return calibrated, stage(loaded.folders.stages, "compared", {"shift": shift, "of": spoil.__name__}, compare)


def stage_it(walked, **judged):
    loaded, _, fitted, encoded = walked
    calibrated, compared = judge(walked, **judged)
    return stage_candidate.fn(loaded, fitted, encoded, calibrated, compared)


def test_a_candidate_that_says_what_was_judged_is_staged_with_its_facts(walked):
    made = stage_it(walked)
    assert made.facts["rows_with_other_features"] == 0
    assert made.facts["warm_up_requests"] == 4
    assert made.facts["largest_difference"] <= 1e-9
    assert "assets.extra/tf_serving_warmup_requests" in made.facts["files"]
    assert {path.name for path in made.folder.iterdir()} >= {MODEL, GOLDEN, REFERENCE_ROW}


def test_reasons_compare_with_the_mean_target_row_that_was_fitted_on(walked):
    _, _, fitted, encoded = walked
    frame = pl.read_parquet(encoded.folder / ENCODED).filter(pl.col("part") == TARGET_FIT)
    expected = frame.select(load_plan(fitted).outputs).to_numpy().astype(np.float64).mean(axis=0)
    reference = np.load(stage_it(walked).folder / REFERENCE_ROW, allow_pickle=False)
    assert reference.dtype == np.float32
    np.testing.assert_allclose(reference, expected, rtol=1e-5, atol=1e-6)


def test_one_golden_row_with_other_raw_values_than_were_judged_is_refused(walked):
    def move_one(raw):
        first = pl.col("id") == pl.col("id").min()
        return raw.with_columns(
            pl.when(first).then(pl.col("income_usd") * 1.001).otherwise("income_usd").alias("income_usd")
        )

    with pytest.raises(PublishError, match="differ by up to"):
        stage_it(walked, spoil=move_one)


def test_a_probability_off_by_more_than_a_millionth_is_refused(walked):
    assert TOLERANCE == 1e-6
    with pytest.raises(PublishError, match=r"differ by up to 2e-06"):
        stage_it(walked, shift=2e-6)


def test_a_plan_that_the_savedmodel_does_not_hold_is_refused_by_column_and_row(walked, monkeypatch):
    """The two compilers disagree: the export is made of another plan than the one that Polars encodes with."""
    import tasks.candidate as task

    run_worker = task.run_worker

    def export_another_plan(module, spec, **options):
        if spec["mode"] == "export":
            document = json.loads(Path(spec["plan"]).read_text(encoding="utf-8"))
            document["numerics"][0]["mean"] += 0.125
            other = options["workdir"] / "other_plan.json"
            other.write_text(json.dumps(document), encoding="utf-8")
            spec = {**spec, "plan": str(other)}
        return run_worker(module, spec, **options)

    monkeypatch.setattr(task, "run_worker", export_another_plan)
    with pytest.raises(PublishError, match=r"golden rows have other features in the graph reader .* of row 0"):
        stage_it(walked, shift=1e-12)  # another question than that of the tests before


def test_a_run_without_target_rows_to_fit_on_has_nobody_to_compare_with(walked):
    loaded, _, fitted, encoded = walked

    def without_target(folder):
        frame = pl.read_parquet(encoded.folder / ENCODED).filter(pl.col("part") != TARGET_FIT)
        frame.write_parquet(folder / ENCODED)
        return {}

    alone = stage(loaded.folders.stages, "encoded", {"of": "source alone"}, without_target)
    calibrated, compared = judge(walked)
    with pytest.raises(PublishError, match="reasons have nobody to compare a customer with"):
        stage_candidate.fn(loaded, fitted, alone, calibrated, compared)

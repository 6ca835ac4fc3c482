"""What verification finds: a directory that says something else than what was judged is not published."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import tensorflow as tf
from contenders import CONTENDERS, PLAN, REFERENCE, SCALING, TRAINING, encode, expected_probability, loans

from crossrisk.errors import PublishError
from models import bundle, verification, warmup

GOLDEN = loans(300, seed=6)
BATCH = bundle.raw_batch(GOLDEN, PLAN.rows.raw_columns)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The forest as a SavedModel, for the tests that only read it."""
    directory = tmp_path_factory.mktemp("exported") / "1700000000"
    bundle.export(PLAN, CONTENDERS["forest"][0], SCALING, directory, reference=REFERENCE)
    return directory


@pytest.fixture
def damaged(exported: Path, tmp_path: Path) -> Path:
    """A copy of the exported directory, to be damaged."""
    return Path(shutil.copytree(exported, tmp_path / "damaged"))


def verify_golden(
    directory: Path, shift: float = 0.0, encoded: pl.DataFrame | None = None
) -> verification.Verification:
    expected = expected_probability(CONTENDERS["forest"][0], GOLDEN) + shift
    return verification.verify(directory, BATCH, expected, encoded=encoded)


# --- the files ---


@pytest.mark.parametrize(
    "file", ["saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001"]
)
def test_directory_without_one_of_its_files_fails_verification(damaged: Path, file: str) -> None:
    (damaged / file).unlink()
    with pytest.raises(PublishError, match="cannot be read by the TensorFlow 1 loader"):
        verify_golden(damaged)


def test_truncated_graph_fails_verification(damaged: Path) -> None:
    graph = damaged / "saved_model.pb"
    graph.write_bytes(graph.read_bytes()[:-100])
    with pytest.raises(PublishError, match="cannot be read by"):
        verify_golden(damaged)


# --- the probability ---


def test_probability_off_by_more_than_the_tolerance_fails_verification(exported: Path) -> None:
    verify_golden(exported, shift=0.9e-6)
    with pytest.raises(PublishError, match=r"differ by up to 1\.1e-06"):
        verify_golden(exported, shift=1.1e-6)


def test_golden_probability_that_is_no_number_fails_verification(exported: Path) -> None:
    with pytest.raises(PublishError, match="nan"):
        verify_golden(exported, shift=np.nan)


def test_golden_batch_without_rows_proves_nothing(exported: Path) -> None:
    with pytest.raises(PublishError, match="no rows"):
        verification.verify(exported, bundle.raw_batch(TRAINING.clear(), PLAN.rows.raw_columns), np.zeros(0))


def test_input_of_another_name_fails_verification(exported: Path) -> None:
    batch = dict(BATCH)
    batch["debt_eur"] = batch.pop("debt_usd")
    with pytest.raises(PublishError, match=r"2 of the inputs .* first 'debt_eur': expected .*'float64', 1.*got none"):
        verification.verify(exported, batch, np.zeros(GOLDEN.height))


def test_input_of_another_type_fails_verification(exported: Path) -> None:
    batch = BATCH | {"debt_usd": BATCH["debt_usd"].astype(np.float32)}
    with pytest.raises(PublishError, match=r"'debt_usd': expected .*'float32', 1.*got .*'float64', 1"):
        verification.verify(exported, batch, np.zeros(GOLDEN.height))


# --- the features ---


@pytest.mark.parametrize("name", CONTENDERS)
def test_the_features_of_every_contender_are_those_of_polars_to_the_last_bit(name: str, tmp_path: Path) -> None:
    contender, _ = CONTENDERS[name]
    bundle.export(PLAN, contender, SCALING, tmp_path / "model", reference=REFERENCE)
    expected = expected_probability(contender, GOLDEN)
    verified = verification.verify(tmp_path / "model", BATCH, expected, encoded=encode(GOLDEN))
    assert verified.differing_rows == 0


def test_one_feature_one_bit_off_in_one_golden_row_refuses_and_is_named(exported: Path) -> None:
    encoded = encode(GOLDEN)
    value = encoded["debt_to_income"][17]
    moved = encoded["debt_to_income"].to_numpy().copy()
    moved[17] = np.nextafter(np.float32(value), np.float32(np.inf))
    other = encoded.with_columns(debt_to_income=pl.Series(moved))
    with pytest.raises(PublishError, match=r"1 of 300 golden rows .* first column 'debt_to_income' of row 17: "):
        verify_golden(exported, encoded=other)


def test_features_without_a_plan_are_not_compared(exported: Path) -> None:
    assert verify_golden(exported).differing_rows is None


def test_a_plan_of_another_width_is_refused(exported: Path) -> None:
    with pytest.raises(PublishError, match=r"the feature plan .* the plan of another version"):
        verify_golden(exported, encoded=encode(GOLDEN).drop("has_phone"))


def test_a_version_without_the_signature_cannot_be_compared(tmp_path: Path) -> None:
    module = tf.Module()
    module.serve = tf.function(
        lambda income: {"probability": income, "score": income},
        input_signature=[tf.TensorSpec([None], tf.float64, name="income")],
    )
    tf.saved_model.save(module, str(tmp_path), signatures={"serving_default": module.serve})
    batch, expected = {"income": np.array([0.5])}, np.array([0.5])
    assert verification.verify(tmp_path, batch, expected).warm_up_requests == 0  # of an earlier release
    with pytest.raises(PublishError, match=r"expected the signature features, got \["):
        verification.verify(tmp_path, batch, expected, encoded=pl.DataFrame({"income": [0.5]}))


# --- the warm-up ---


def test_the_warm_up_is_run_as_a_server_will(exported: Path) -> None:
    assert verify_golden(exported).warm_up_requests == 4


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (warmup.Request("serving_default", {"debt_eur": np.zeros(1)}), "differ in 7 inputs, first 'debt_eur'"),
        (warmup.Request("examples", {"examples": np.zeros(1)}), "request of examples fails"),
        (warmup.Request("examples", {"examples": np.array([b"?"], object)}), "request of examples fails: InvalidArg"),
        (warmup.Request("classify", {}), "expected the signature classify"),
    ],
)  # fmt: skip
def test_a_warm_up_request_that_fails_refuses_the_version(damaged: Path, request_: warmup.Request, why: str) -> None:
    with tf.io.TFRecordWriter(str(damaged / warmup.REQUESTS)) as writer:
        writer.write(warmup.encode_request(request_))
    with pytest.raises(PublishError, match=why):
        verify_golden(damaged)


def test_a_warm_up_that_is_no_tfrecord_refuses_the_version(damaged: Path) -> None:
    (damaged / warmup.REQUESTS).write_bytes(b"not a TFRecord, but long enough to look like one")
    with pytest.raises(PublishError, match="cannot be read by the reader of warm-up requests"):
        verify_golden(damaged)


# --- the clock ---


def test_latency_is_of_single_rows_and_the_median_is_not_above_the_95th_percentile(exported: Path) -> None:
    latency = verification.measure_latency(bundle.load(exported), BATCH, calls=20, warm_up=2)
    assert latency.calls == 20
    assert 0 < latency.median_ms <= latency.p95_ms

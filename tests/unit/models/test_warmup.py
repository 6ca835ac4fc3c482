"""Warm-up requests: as TF Serving reads them, for every signature, with nobody's data, the same bytes every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from contenders import CONTENDERS, PLAN, REFERENCE, SCALING, TRAINING

from crossrisk.features import RawColumn
from crossrisk.registry.layout import digest_tree
from models import bundle, warmup
from models.feature_graph import DATE_MISSING

COLUMNS = PLAN.rows.raw_columns
LARGEST_WARM_UP = 1000
"""kMaxNumRecords of TF Serving"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("exported") / "1700000000"
    bundle.export(PLAN, CONTENDERS["network_relu"][0], SCALING, directory, reference=REFERENCE)
    return directory


def test_every_signature_is_asked_once(exported: Path) -> None:
    asked = [request.signature for request in warmup.read_requests(exported)]
    assert asked == sorted(bundle.load(exported).saved.signatures)
    assert len(asked) == 5 <= LARGEST_WARM_UP


def test_a_request_has_one_row_of_missing_values_and_one_without(exported: Path) -> None:
    (request,) = (r for r in warmup.read_requests(exported) if r.signature == "serving_default")
    assert set(request.inputs) == {column.name for column in COLUMNS}
    np.testing.assert_array_equal(request.inputs["debt_usd"], [np.nan, 1.0])
    assert request.inputs["region"].tolist() == [b"", b"warm-up"]
    assert request.inputs["opened_on"].tolist() == [DATE_MISSING, 0]
    dtypes = {name: values.dtype.name for name, values in request.inputs.items()}
    assert dtypes["income_monthly_usd"] == "float64"
    assert dtypes["decided_on"] == "int32"


def test_no_value_of_a_training_row_is_in_the_file(exported: Path) -> None:
    content = (exported / warmup.REQUESTS).read_bytes()
    incomes = TRAINING["income_monthly_usd"].drop_nulls().to_numpy()
    assert not any(np.float64(v).tobytes() in content or np.float32(v).tobytes() in content for v in incomes)
    assert not any(level.encode() in content for level in ("north", "süd", "isle"))


def test_equal_arguments_give_equal_bytes(tmp_path: Path) -> None:
    columns = [
        RawColumn(name=f"x_{i}", kind="number") for i in range(50)
    ]  # maps of protobuf have no order of their own
    files = []
    for name, order in (("a", 1), ("b", -1)):
        (tmp_path / name).mkdir()
        files.append(warmup.write_requests(tmp_path / name, columns, ["serving_default", "features"][::order]))
    assert files[0].read_bytes() == files[1].read_bytes()


def test_the_file_is_part_of_the_digest_of_a_version(exported: Path) -> None:
    assert str(warmup.REQUESTS) in digest_tree(exported)


def test_a_version_without_the_file_has_no_requests(tmp_path: Path) -> None:
    assert warmup.read_requests(tmp_path) == []


def test_tf_serving_reads_them_with_its_own_messages(exported: Path) -> None:
    log = pytest.importorskip(
        "tensorflow_serving.apis.prediction_log_pb2", reason="the extra `serving` is not installed"
    )
    records = tf.data.TFRecordDataset(str(exported / warmup.REQUESTS)).as_numpy_iterator()
    ours = warmup.read_requests(exported)
    for record, expected in zip(records, ours, strict=True):
        parsed = log.PredictionLog.FromString(record)
        assert parsed.WhichOneof("log_type") == "predict_log"
        request = parsed.predict_log.request
        assert request.model_spec.signature_name == expected.signature
        assert set(request.inputs) == set(expected.inputs)
        for name, tensor in request.inputs.items():
            np.testing.assert_array_equal(tf.make_ndarray(tensor), expected.inputs[name])

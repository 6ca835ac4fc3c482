"""Warm-up requests of a version: what TF Serving runs while it loads one, so that no customer waits for the first call.

A server reads `assets.extra/tf_serving_warmup_requests` (a TFRecord of PredictionLog messages, at most 1,000), runs
each before the version is available, and refuses the version where one fails: `models.verification` runs them first.
No customer's row is among them: the rows are made of the names and kinds of the raw columns alone.
Why the messages are declared here and not imported from tensorflow-serving-api: docs/decisions/0012-warmup.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from numpy.typing import NDArray
from tensorflow.core.framework import tensor_pb2

from crossrisk.features import RawColumn
from models.feature_graph import DATE_MISSING
from models.serving_graph import EXAMPLES

REQUESTS = Path("assets.extra") / "tf_serving_warmup_requests"
"""Below the directory of a version; the name is TF Serving's."""

_FIELD = descriptor_pb2.FieldDescriptorProto
_SCALARS = {"text": _FIELD.TYPE_STRING, "bytes": _FIELD.TYPE_BYTES}


@dataclass(frozen=True)
class Request:
    """One call of a signature."""

    signature: str
    inputs: dict[str, NDArray[Any]]
    """name -> (n,) array"""


def write_requests(directory: Path, columns: Sequence[RawColumn], signatures: Sequence[str]) -> Path:
    """Write one request for each signature: a row in which everything is missing, and one in which nothing is.

    Args:
        directory: of the SavedModel.
        columns: its raw columns.
        signatures: its signatures; `examples` is asked by tf.Examples, any other by raw columns.

    Returns:
        The file; equal arguments give equal bytes.
    """
    file = directory / REQUESTS
    file.parent.mkdir()
    with tf.io.TFRecordWriter(str(file)) as writer:
        for signature in sorted(signatures):
            inputs = _examples(columns) if signature == EXAMPLES else _raw_columns(columns)
            writer.write(encode_request(Request(signature, inputs)))
    return file


def read_requests(directory: Path) -> list[Request]:
    """The requests of a version, in order; none where it has no such file.

    Raises:
        tf.errors.OpError: not a TFRecord; google.protobuf.message.DecodeError: not our messages.
    """
    file = directory / REQUESTS
    if not file.exists():
        return []
    return [_decode(record) for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator()]


def _raw_columns(columns: Sequence[RawColumn]) -> dict[str, NDArray[Any]]:
    rows: dict[str, NDArray[Any]] = {
        "number": np.array([np.nan, 1.0], np.float64),
        "category": np.array(["", "warm-up"], object),
        "date": np.array([DATE_MISSING, 0], np.int32),
    }
    return {column.name: rows[column.kind] for column in columns}


def _examples(columns: Sequence[RawColumn]) -> dict[str, NDArray[Any]]:
    given = {
        "number": tf.train.Feature(float_list=tf.train.FloatList(value=[1.0])),
        "category": tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"warm-up"])),
        "date": tf.train.Feature(int64_list=tf.train.Int64List(value=[0])),
    }
    full = {column.name: given[column.kind] for column in columns}
    sparse = {columns[0].name: given[columns[0].kind]}  # and all others missing
    examples = [tf.train.Example(features=tf.train.Features(feature=features)) for features in (sparse, full)]
    return {EXAMPLES: np.array([example.SerializeToString(deterministic=True) for example in examples], object)}


# --- the messages ---


def _prediction_log() -> Any:
    """PredictionLog by the names and numbers of TF Serving's protos, as far as a request to predict needs them.

    A tensor is declared as bytes, which look the same on the wire as the message TensorProto.
    """
    file = descriptor_pb2.FileDescriptorProto(name="crossrisk/warmup.proto", package="crossrisk", syntax="proto3")

    def message(holder: Any, name: str, *fields: tuple[str, int, str]) -> Any:
        made = holder.add(name=name)
        for field_name, number, of in fields:
            added = made.field.add(name=field_name, number=number, type=_SCALARS.get(of, _FIELD.TYPE_MESSAGE))
            added.label = _FIELD.LABEL_REPEATED if field_name == "inputs" else _FIELD.LABEL_OPTIONAL
            if of not in _SCALARS:
                added.type_name = f".crossrisk.{of}"
        return made

    message(file.message_type, "ModelSpec", ("name", 1, "text"), ("signature_name", 3, "text"))
    inputs = ("inputs", 2, "PredictRequest.InputsEntry")
    request = message(file.message_type, "PredictRequest", ("model_spec", 1, "ModelSpec"), inputs)
    entry = message(request.nested_type, "InputsEntry", ("key", 1, "text"), ("value", 2, "bytes"))
    entry.options.map_entry = True  # map<string, TensorProto> inputs = 2
    message(file.message_type, "PredictLog", ("request", 1, "PredictRequest"))
    message(file.message_type, "PredictionLog", ("predict_log", 6, "PredictLog"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("crossrisk.PredictionLog"))


_PREDICTION_LOG = _prediction_log()


def encode_request(request: Request) -> bytes:
    """A request as a PredictionLog on the wire."""
    log = _PREDICTION_LOG()
    log.predict_log.request.model_spec.signature_name = request.signature
    for name, values in request.inputs.items():
        log.predict_log.request.inputs[name] = tf.make_tensor_proto(values).SerializeToString(deterministic=True)
    encoded: bytes = log.SerializeToString(deterministic=True)
    return encoded


def _decode(record: bytes) -> Request:
    request = _PREDICTION_LOG.FromString(record).predict_log.request
    tensors = {name: tensor_pb2.TensorProto.FromString(tensor) for name, tensor in request.inputs.items()}
    return Request(request.model_spec.signature_name, {name: tf.make_ndarray(t) for name, t in tensors.items()})

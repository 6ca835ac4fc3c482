"""Proof that a directory says what was judged: both readers, both compilers, the warm-up requests, and the clock.

Directories are written and read by `models.bundle`; who is asked to verify, and when, is decided in `tasks.candidate`
and `tasks.publish`. Nothing is repaired here.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import tensorflow as tf
from numpy.typing import NDArray

from crossrisk.artefacts import refuse_links
from crossrisk.errors import PublishError
from models import warmup
from models.bundle import (
    BATCH_DTYPES,
    Batch,
    LoadedModel,
    check_outputs,
    check_tensors,
    load,
    named_failures,
    refuse_foreign_assets,
)
from models.fitted import Floats, Matrix
from models.serving_graph import FEATURES, INPUT_DTYPES, SCORES


@dataclass(frozen=True)
class Verification:
    """How far two readers of a directory are from what was expected of a golden batch."""

    rows: int
    """rows of the golden batch"""
    graph_reader: float
    """largest absolute difference of TensorFlow 1's loader, which TF Serving and saved_model_cli share"""
    object_reader: float
    """likewise of tf.saved_model.load"""
    differing_rows: int | None
    """rows whose features are not those of Polars: 0, for more are refused; None where they were not compared"""
    warm_up_requests: int
    """requests that a server will run before it takes the version, all of which succeeded"""


def verify(
    directory: Path,
    batch: Batch,
    expected_probability: Floats,
    tolerance: float = 1e-6,
    *,
    encoded: pl.DataFrame | None = None,
) -> Verification:
    """Load a directory with both readers and compare what they say of a golden batch with what was expected.

    Args:
        directory: the SavedModel; to prove more than a cache, verify in another process than the one that exported.
        batch: raw columns as `models.bundle.raw_batch` gives them, at least one row.
        expected_probability: (n,), from `Contender.probability` on the Polars-encoded matrix.
        tolerance: largest absolute difference allowed; networks compute in float32, which leaves some 1e-7.
        encoded: (n, d) float32, the same rows as Polars encodes them; the features of both readers must equal it.

    Raises:
        PublishError: a link in it, a reader fails, names or types of the signature are wrong, the two readers' scores
            differ, a probability is not finite or off by more than the tolerance, a feature is another number than
            Polars makes it, or a warm-up request fails.
    """
    if len(expected_probability) == 0:
        raise PublishError(f"{directory}: the golden batch has no rows; nothing would be verified")
    refuse_links(directory)
    asked = [SCORES] if encoded is None else [SCORES, FEATURES]
    by_graph, requests = _ask_graph_reader(directory, batch, asked)
    by_object = _ask_object_reader(directory, batch, asked)
    if encoded is not None:
        _compare_features(directory, "graph reader", by_graph[FEATURES]["features"], encoded)
        _compare_features(directory, "object reader", by_object[FEATURES]["features"], encoded)
    verification = Verification(
        rows=len(expected_probability),
        graph_reader=largest_difference(by_graph[SCORES]["probability"], expected_probability),
        object_reader=largest_difference(by_object[SCORES]["probability"], expected_probability),
        differing_rows=None if encoded is None else 0,
        warm_up_requests=requests,
    )
    # `not <=` and not `>`: a difference that is NaN must fail
    if not max(verification.graph_reader, verification.object_reader) <= tolerance:
        raise PublishError(
            f"{directory}: probabilities of {verification.rows} golden rows differ by up to "
            f"{verification.graph_reader:.3g} (graph reader) and {verification.object_reader:.3g} (object reader) from "
            f"the contender's, at most {tolerance:.3g} allowed; do not publish, compare the feature plans of both"
        )
    if not largest_difference(by_graph[SCORES]["score"], by_object[SCORES]["score"]) <= 1e-6:
        raise PublishError(f"{directory}: the two readers give different scores, or scores that are not numbers")
    return verification


def largest_difference(got: Floats, expected: Floats) -> float:
    """Largest absolute difference of two arrays: infinite where their shapes differ, NaN where one holds NaN."""
    if got.shape != expected.shape:
        return float("inf")
    return float(np.abs(got - expected).max())


# --- the features of both compilers ---


def _compare_features(directory: Path, reader: str, got: Matrix, encoded: pl.DataFrame) -> None:
    """Raise PublishError where one number of the encoded matrix is another one: no tolerance (0 and -0 are one)."""
    expected = encoded.to_numpy()
    if got.shape != expected.shape:
        raise PublishError(
            f"{directory}: the {reader} encodes {got.shape[1]} features of {len(got)} golden rows, the feature plan "
            f"{expected.shape[1]} of {len(expected)}; it is the plan of another version"
        )
    differs = (got != expected) & ~(np.isnan(got) & np.isnan(expected))
    rows = np.flatnonzero(differs.any(axis=1))
    if len(rows):
        row, column = int(rows[0]), int(np.flatnonzero(differs[rows[0]])[0])
        raise PublishError(
            f"{directory}: {len(rows)} of {len(got)} golden rows have other features in the {reader} than in Polars; "
            f"first column {encoded.columns[column]!r} of row {row}: {got[row, column]}, in Polars "
            f"{expected[row, column]}; the model would be served on other features than it was fitted on: do not "
            "publish, compare models.feature_graph with crossrisk.features on that row"
        )


# --- asking the readers ---

Answers = dict[str, dict[str, NDArray[Any]]]
"""Signature -> output -> its values"""


def _ask_graph_reader(directory: Path, batch: Batch, signatures: list[str]) -> tuple[Answers, int]:
    """What TensorFlow 1's loader says of a batch, and the number of warm-up requests that it ran as well."""
    with named_failures(directory, "the reader of warm-up requests"):
        requests = warmup.read_requests(directory)
    with (
        named_failures(directory, "the TensorFlow 1 loader"),
        tf.Graph().as_default(),
        tf.compat.v1.Session() as session,
    ):
        refuse_foreign_assets(directory)
        meta_graph = tf.compat.v1.saved_model.load(session, [tf.saved_model.SERVING], str(directory))
        answers = {}
        for name in signatures:
            signature = _signature(directory, meta_graph, name)
            _check_inputs(directory, name, signature, batch)
            check_outputs(directory, name, {out: _dtype_and_shape(info) for out, info in signature.outputs.items()})
            answers[name] = _run(session, signature, batch)
        for request in requests:
            _run_warm_up(directory, session, meta_graph, request)
    return answers, len(requests)


def _ask_object_reader(directory: Path, batch: Batch, signatures: list[str]) -> Answers:
    model = load(directory)
    kinds = {column.name: column.kind for column in model.columns}
    with named_failures(directory, "tf.saved_model.load"):
        feed = {name: tf.constant(values, INPUT_DTYPES[kinds[name]]) for name, values in batch.items()}
        return {
            signature: {name: t.numpy() for name, t in model.saved.signatures[signature](**feed).items()}
            for signature in signatures
        }


def _signature(directory: Path, meta_graph: Any, name: str) -> Any:
    if name not in meta_graph.signature_def:
        raise PublishError(f"{directory}: expected the signature {name}, got {sorted(meta_graph.signature_def)}")
    return meta_graph.signature_def[name]


def _run(session: Any, signature: Any, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    fetches = {name: info.name for name, info in signature.outputs.items()}
    answered: dict[str, NDArray[Any]] = session.run(
        fetches, {signature.inputs[name].name: values for name, values in inputs.items()}
    )
    return answered


def _run_warm_up(directory: Path, session: Any, meta_graph: Any, request: warmup.Request) -> None:
    signature = _signature(directory, meta_graph, request.signature)
    differing = sorted(set(signature.inputs) ^ set(request.inputs))
    if differing:
        raise PublishError(
            f"{directory}: the warm-up request of {request.signature} and the signature differ in {len(differing)} "
            f"inputs, first {differing[0]!r}; a server would refuse the version: export it again"
        )
    try:
        _run(session, signature, request.inputs)
    except (ValueError, tf.errors.OpError) as error:  # another type, or what the graph says of the values
        raise PublishError(
            f"{directory}: the warm-up request of {request.signature} fails: {type(error).__name__}: {error}; a server "
            "would refuse the version: export it again"
        ) from error


def _check_inputs(directory: Path, name: str, signature: Any, batch: Batch) -> None:
    types = {dtype: INPUT_DTYPES[kind].name for kind, dtype in BATCH_DTYPES.items()}
    expected = {n: (types.get(v.dtype, v.dtype.name), 1) for n, v in batch.items()}
    inputs = {n: _dtype_and_shape(info) for n, info in signature.inputs.items()}
    check_tensors(directory, f"inputs of {name}", inputs, expected)


def _dtype_and_shape(info: Any) -> tuple[Any, Any]:
    return tf.as_dtype(info.dtype), tf.TensorShape(info.tensor_shape)


# --- the clock ---


@dataclass(frozen=True)
class Latency:
    """How long one row takes a loaded model in one process, in milliseconds; a server's network comes on top."""

    median_ms: float
    p95_ms: float
    calls: int


def measure_latency(model: LoadedModel, batch: Batch, *, calls: int = 200, warm_up: int = 20) -> Latency:
    """Time single-row calls of the serving signature, over the rows of a batch in turn.

    Args:
        model: loaded.
        batch: raw columns of at least one row.
        calls: timed, after `warm_up` that are not.
    """
    rows = len(next(iter(batch.values())))
    singles = [{name: values[i : i + 1] for name, values in batch.items()} for i in range(min(rows, calls))]
    seconds = []
    for call in range(warm_up + calls):
        started = time.perf_counter()
        model.score_batch(singles[call % len(singles)])
        seconds.append(time.perf_counter() - started)
    median, p95 = np.quantile(np.array(seconds[warm_up:]) * 1000, [0.5, 0.95])
    return Latency(float(median), float(p95), calls)

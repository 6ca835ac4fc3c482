"""Contenders as SavedModels behind raw columns: writing them, reading them back, and proving that both agree.

The signature `serving_default` takes one rank-1 input a raw column, named as the column (number: float64 with NaN for
missing; category: string with ""; date: int32 days since 1970-01-01 with INT32_MIN), and gives `probability` and
`score`, both float64 (n,). A directory holds what TensorFlow writes and nothing else; its manifest, its name and its
place are `crossrisk.registry`'s, the tensor names of the article `models.article_export`'s. Importing this imports
TensorFlow: work belongs in `models.export_worker`'s process.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import tensorflow as tf
from numpy.typing import NDArray

from crossrisk.artefacts import refuse_links
from crossrisk.errors import InputError, PublishError
from crossrisk.features import FeaturePlan, RawColumn, check_servable_names
from crossrisk.scoring import Scaling
from models.feature_graph import DATE_MISSING, encode
from models.fitted import Contender, Floats
from models.form_graph import ContenderGraph

SIGNATURE = "serving_default"
OUTPUTS = ("probability", "score")

Kind = Literal["number", "category", "date"]
INPUT_DTYPES: Mapping[Kind, Any] = {"number": tf.float64, "category": tf.string, "date": tf.int32}
"""Kind of a raw column -> type of its input"""

Batch = dict[str, NDArray[Any]]
"""Raw columns as the signature takes them: (n,) float64, object (str) or int32, by column name."""


# --- writing ---


def export(plan: FeaturePlan, contender: Contender, scaling: Scaling, directory: Path) -> None:
    """Write a contender behind the raw columns of its plan as a SavedModel.

    Args:
        plan: how raw columns become the matrix that the contender was fitted on.
        contender: any form of `models.fitted`, with its calibration.
        scaling: how its probability becomes points.
        directory: created; where it exists it must be empty.

    Raises:
        ValueError: a raw column whose name the signature cannot carry, or a plan that does not fit the contender.
        PublishError: the directory holds something already.
    """
    check_servable_names(plan.rows.raw_columns)
    require_empty(directory)
    module = _Scorer(plan, contender, scaling)
    tf.saved_model.save(module, str(directory), signatures={SIGNATURE: module.serve.get_concrete_function()})


def require_empty(directory: Path) -> None:
    """Raise PublishError where the directory to export to holds anything."""
    if directory.exists() and any(directory.iterdir()):
        raise PublishError(f"expected an empty directory to export to, {directory} holds files; export to a new one")


class _Scorer(tf.Module):
    """Raw columns in, probability and score out."""

    def __init__(self, plan: FeaturePlan, contender: Contender, scaling: Scaling) -> None:
        super().__init__(name="scorer")
        self.contender = ContenderGraph(contender)

        def serve(raw: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            probability = self.contender(encode(plan, raw))
            return {"probability": probability, "score": score_points(scaling, probability)}

        inputs = {c.name: tf.TensorSpec([None], INPUT_DTYPES[c.kind], name=c.name) for c in plan.rows.raw_columns}
        self.serve = tf.function(serve, input_signature=[inputs], autograph=False)


def score_points(scaling: Scaling, probability: tf.Tensor) -> tf.Tensor:
    """`Scaling.score` as TensorFlow operations: points (n,) of probabilities of bad (n,), float64."""
    p = tf.clip_by_value(probability, scaling.probability_limit, 1.0 - scaling.probability_limit)
    points = scaling.offset + scaling.factor * tf.math.log((1.0 - p) / p)
    if scaling.decimals is None:
        return points
    return tf.round(points * 10.0**scaling.decimals) / 10.0**scaling.decimals  # half to even, as numpy rounds


# --- frames as feeds ---


def raw_batch(frame: pl.DataFrame, columns: Sequence[RawColumn]) -> Batch:
    """A frame's raw columns as the signature takes them; other columns of the frame are left alone.

    Raises:
        InputError: a column is missing from the frame or of a type that its kind cannot be read from.
    """
    absent = [column.name for column in columns if column.name not in frame.columns]
    if absent:
        raise InputError(
            f"the model needs {len(columns)} raw columns, {len(absent)} of them are not in the frame: "
            f"{', '.join(absent[:10])}; the frame has {', '.join(frame.columns[:20])}"
        )
    return {column.name: _as_input(frame[column.name], column.kind) for column in columns}


def _as_input(values: pl.Series, kind: Kind) -> NDArray[Any]:
    # the casts are those of crossrisk.features.rowwise_expressions, so that both compilers start from the same values
    dtype = values.dtype
    if kind == "number" and (dtype.is_numeric() or dtype in (pl.Boolean, pl.Null)):
        return values.cast(pl.Float64).fill_null(np.nan).to_numpy()
    if kind == "category" and (
        dtype.is_integer() or dtype in (pl.String, pl.Categorical, pl.Enum, pl.Boolean, pl.Null)
    ):
        return values.cast(pl.String).fill_null("").to_numpy().astype(object)
    if kind == "date" and dtype in (pl.Date, pl.Datetime, pl.Null):
        return values.cast(pl.Date).cast(pl.Int32).fill_null(DATE_MISSING).to_numpy()
    expected = {
        "number": "numbers or booleans",
        "category": "text, a dictionary, integers or booleans",
        "date": "dates or timestamps",
    }[kind]
    raise InputError(
        f"raw column {values.name!r} is a {kind}: expected {expected}, got {dtype}; cast it where it is read"
    )


# --- reading ---


@dataclass(frozen=True)
class Scores:
    """What a model says of n rows."""

    probability: Floats
    """(n,), of bad, in (0, 1)"""
    score: Floats
    """(n,), in points: higher is safer"""


@dataclass(frozen=True)
class LoadedModel:
    """A SavedModel ready to score; all it needs to know it reads from the signature."""

    columns: tuple[RawColumn, ...]
    """the raw columns it must be fed, by name"""
    saved: Any
    """the loaded object, which owns the variables that the signature uses"""

    def score_batch(self, batch: Batch) -> Scores:
        """Scores of raw columns in the form that `raw_batch` gives."""
        feed = {c.name: tf.constant(batch[c.name], INPUT_DTYPES[c.kind]) for c in self.columns}
        outputs = self.saved.signatures[SIGNATURE](**feed)
        return Scores(outputs["probability"].numpy(), outputs["score"].numpy())

    def score_frame(self, frame: pl.DataFrame, batch_rows: int = 50_000) -> Scores:
        """Scores of a frame's rows, in its order, `batch_rows` at a time.

        Raises:
            InputError: a raw column is missing or mistyped.
        """
        # at least one slice: a frame without rows must still have the right columns
        starts = range(0, max(frame.height, 1), batch_rows)
        parts = [self.score_batch(raw_batch(frame[start : start + batch_rows], self.columns)) for start in starts]
        return Scores(
            probability=np.concatenate([part.probability for part in parts]),
            score=np.concatenate([part.score for part in parts]),
        )


def load(directory: Path) -> LoadedModel:
    """Read a SavedModel with TensorFlow 2's reader.

    Raises:
        PublishError: no SavedModel, a damaged one, one with a link in it, or one whose signature is not ours.
    """
    refuse_links(directory)
    with named_failures(directory, "tf.saved_model.load"):
        saved = tf.saved_model.load(str(directory))
    if SIGNATURE not in saved.signatures:
        raise PublishError(f"{directory}: expected the signature {SIGNATURE}, got {sorted(saved.signatures)}")
    signature = saved.signatures[SIGNATURE]
    _check_outputs(directory, {name: (spec.dtype, spec.shape) for name, spec in signature.structured_outputs.items()})
    kinds = {dtype: kind for kind, dtype in INPUT_DTYPES.items()}
    columns = []
    for name, spec in sorted(signature.structured_input_signature[1].items()):
        if spec.dtype not in kinds or spec.shape.rank != 1:
            raise PublishError(
                f"{directory}: input {name!r} is {spec.dtype.name} {spec.shape}, expected one raw column"
            )
        columns.append(RawColumn(name=name, kind=kinds[spec.dtype]))
    return LoadedModel(columns=tuple(columns), saved=saved)


# --- proving that a directory is what was meant ---


@dataclass(frozen=True)
class Verification:
    """How far two readers of a directory are from the expected probabilities of a golden batch."""

    rows: int
    """rows of the golden batch"""
    graph_reader: float
    """largest absolute difference of TensorFlow 1's loader, which TF Serving and saved_model_cli share"""
    object_reader: float
    """largest absolute difference of tf.saved_model.load"""


def verify(directory: Path, batch: Batch, expected_probability: Floats, tolerance: float = 1e-5) -> Verification:
    """Load a directory with both readers and compare what they say of a golden batch with what was expected.

    Args:
        directory: the SavedModel; to prove more than a cache, verify in another process than the one that exported.
        batch: raw columns as `raw_batch` gives them, at least one row.
        expected_probability: (n,), from `Contender.probability` on the Polars-encoded matrix.
        tolerance: largest absolute difference allowed; networks compute in float32, which leaves some 1e-7.

    Raises:
        PublishError: a link in it, a reader fails, names or types of the signature are wrong, the two readers' scores
            differ, or a probability is not finite or off by more than the tolerance.
    """
    if len(expected_probability) == 0:
        raise PublishError(f"{directory}: the golden batch has no rows; nothing would be verified")
    refuse_links(directory)
    by_graph = _score_by_graph_reader(directory, batch)
    by_object = _score_by_object_reader(directory, batch)
    verification = Verification(
        rows=len(expected_probability),
        graph_reader=largest_difference(by_graph.probability, expected_probability),
        object_reader=largest_difference(by_object.probability, expected_probability),
    )
    # `not <=` and not `>`: a difference that is NaN must fail
    if not max(verification.graph_reader, verification.object_reader) <= tolerance:
        raise PublishError(
            f"{directory}: probabilities of {verification.rows} golden rows differ by up to "
            f"{verification.graph_reader:.3g} (graph reader) and {verification.object_reader:.3g} (object reader) from "
            f"the contender's, at most {tolerance:.3g} allowed; do not publish, compare the feature plans of both"
        )
    if not largest_difference(by_graph.score, by_object.score) <= 1e-6:
        raise PublishError(f"{directory}: the two readers give different scores, or scores that are not numbers")
    return verification


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


def _score_by_graph_reader(directory: Path, batch: Batch) -> Scores:
    with (
        named_failures(directory, "the TensorFlow 1 loader"),
        tf.Graph().as_default(),
        tf.compat.v1.Session() as session,
    ):
        meta_graph = tf.compat.v1.saved_model.load(session, [tf.saved_model.SERVING], str(directory))
        if SIGNATURE not in meta_graph.signature_def:
            raise PublishError(
                f"{directory}: expected the signature {SIGNATURE}, got {sorted(meta_graph.signature_def)}"
            )
        signature = meta_graph.signature_def[SIGNATURE]
        _check_inputs(directory, {name: _dtype_and_shape(info) for name, info in signature.inputs.items()}, batch)
        _check_outputs(directory, {name: _dtype_and_shape(info) for name, info in signature.outputs.items()})
        feed = {signature.inputs[name].name: values for name, values in batch.items()}
        probability, score = session.run([signature.outputs[name].name for name in OUTPUTS], feed)
    return Scores(probability, score)


def _score_by_object_reader(directory: Path, batch: Batch) -> Scores:
    model = load(directory)
    with named_failures(directory, "tf.saved_model.load"):
        return model.score_batch(batch)


def _dtype_and_shape(info: Any) -> tuple[Any, Any]:
    return tf.as_dtype(info.dtype), tf.TensorShape(info.tensor_shape)


def _check_inputs(directory: Path, inputs: Mapping[str, tuple[Any, Any]], batch: Batch) -> None:
    expected = {n: ("string" if v.dtype == object else v.dtype.name, 1) for n, v in batch.items()}
    _check_signature(directory, "inputs", inputs, expected)


def _check_outputs(directory: Path, outputs: Mapping[str, tuple[Any, Any]]) -> None:
    _check_signature(directory, "outputs", outputs, {name: ("float64", 1) for name in OUTPUTS})


def _check_signature(
    directory: Path, side: str, tensors: Mapping[str, tuple[Any, Any]], expected: Mapping[str, tuple[str, int]]
) -> None:
    got = {name: (dtype.name, shape.rank) for name, (dtype, shape) in tensors.items()}
    wrong = sorted(name for name in got.keys() | expected.keys() if got.get(name) != expected.get(name))
    if wrong:
        name = wrong[0]
        raise PublishError(
            f"{directory}: {len(wrong)} of the {side} of {SIGNATURE} are wrong; first {name!r}: expected (type, rank) "
            f"{expected.get(name, 'none')}, got {got.get(name, 'none')}"
        )


def largest_difference(got: Floats, expected: Floats) -> float:
    """Largest absolute difference of two arrays: infinite where their shapes differ, NaN where one holds NaN."""
    if got.shape != expected.shape:
        return float("inf")
    return float(np.abs(got - expected).max())


@contextmanager
def named_failures(directory: Path, reader: str) -> Iterator[None]:
    """Whatever TensorFlow raises on a damaged directory, as one error that names the directory and the reader."""
    try:
        yield
    except PublishError:
        raise
    except Exception as error:  # it raises its own OpError, and OSError, ValueError, KeyError, DecodeError, ...
        raise PublishError(
            f"{directory} cannot be read by {reader}: {type(error).__name__}: {error}; publish it again"
        ) from error

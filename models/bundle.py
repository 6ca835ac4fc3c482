"""Contenders as SavedModels behind raw columns: writing them, feeding them, reading them back.

Every signature of raw columns takes one rank-1 input a column, named as the column (number: float64 with NaN for
missing; category: string with ""; date: int32 days since 1970-01-01 with INT32_MIN); `models.serving_graph` lists the
signatures and what they give. A directory holds what TensorFlow writes and the requests of `models.warmup`; its
manifest, its name and its place are `crossrisk.registry`'s, the tensor names of the article `models.article_export`'s,
the proof that it is what was meant `models.verification`'s. Importing this imports TensorFlow: work belongs in a child
process such as `models.export_worker`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.core.protobuf import saved_model_pb2

from crossrisk.artefacts import refuse_foreign_names, refuse_links
from crossrisk.errors import InputError, PublishError
from crossrisk.features import FeaturePlan, RawColumn, check_servable_names
from crossrisk.scoring import Scaling
from models import warmup
from models.feature_graph import DATE_MISSING
from models.fitted import Activation, Contender, Floats, Matrix, Network
from models.serving_graph import (
    EMBEDDING,
    EXAMPLES,
    INPUT_DTYPES,
    OUTPUTS,
    REASONS,
    SCORES,
    Kind,
    ServingGraph,
    input_specs,
)

Batch = dict[str, NDArray[Any]]
"""Raw columns as the signatures take them: (n,) float64, object (str) or int32, by column name."""
BATCH_DTYPES: Mapping[Kind, np.dtype[Any]] = {
    "number": np.dtype(np.float64),
    "category": np.dtype(object),
    "date": np.dtype(np.int32),
}
"""Kind of a raw column -> type of its array in a batch"""


# --- writing ---


def export(
    plan: FeaturePlan, contender: Contender, scaling: Scaling, directory: Path, *, reference: Matrix | None = None
) -> None:
    """Write a contender behind the raw columns of its plan as a SavedModel with all its signatures.

    Args:
        plan: how raw columns become the matrix that the contender was fitted on.
        contender: any form of `models.fitted`, with its calibration.
        scaling: how its probability becomes points.
        directory: created; where it exists it must be empty.
        reference: (d,), the encoded row that reasons compare a customer with; None: the version gives no reasons.

    Raises:
        ValueError: a raw column whose name the signature cannot carry, or a plan that does not fit the contender or
            the reference.
        PublishError: the directory holds something already.
    """
    columns = plan.rows.raw_columns
    check_servable_names(columns)
    require_empty(directory)
    graph = ServingGraph(plan, contender, scaling, reference)
    raw, serialised = input_specs(columns), tf.TensorSpec([None], tf.string, name=EXAMPLES)
    signatures = {
        name: tf.function(lambda raw, of=of: of(graph.encode(raw)), input_signature=[raw], autograph=False)
        for name, of in graph.of_matrix.items()
    }
    signatures[EXAMPLES] = tf.function(graph.of_examples, input_signature=[serialised], autograph=False)
    tf.saved_model.save(graph, str(directory), signatures={n: f.get_concrete_function() for n, f in signatures.items()})
    warmup.write_requests(directory, columns, list(signatures))


def require_empty(directory: Path) -> None:
    """Raise PublishError where the directory to export to holds anything."""
    if directory.exists() and any(directory.iterdir()):
        raise PublishError(f"expected an empty directory to export to, {directory} holds files; export to a new one")


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
class Reasons:
    """What raises the risk of n rows most, the strongest first; places without a reason hold "" and 0."""

    features: NDArray[Any]
    """(n, k) str, features of the plan"""
    contributions: Floats
    """(n, k), what each adds to the log odds of bad, compared with the reference; at least 0"""
    points: Floats
    """(n, k), what that does to the score; at most 0"""


@dataclass(frozen=True)
class LoadedModel:
    """A SavedModel ready to score; all it needs to know it reads from the signature."""

    columns: tuple[RawColumn, ...]
    """the raw columns it must be fed, by name"""
    saved: Any
    """the loaded object, which owns the variables that the signature uses"""

    def score_batch(self, batch: Batch) -> Scores:
        """Scores of raw columns in the form that `raw_batch` gives.

        Raises:
            InputError: a raw column is missing or mistyped.
        """
        outputs = self.saved.signatures[SCORES](**self._feed(batch))
        return Scores(outputs["probability"].numpy(), outputs["score"].numpy())

    def explain_batch(self, batch: Batch) -> Reasons | None:
        """Reasons of raw columns in the form that `raw_batch` gives; None where the version gives none.

        Raises:
            InputError: a raw column is missing or mistyped.
        """
        if REASONS not in self.saved.signatures:
            return None
        outputs = self.saved.signatures[REASONS](**self._feed(batch))
        return Reasons(
            features=np.char.decode(outputs["feature"].numpy().astype(bytes), "utf-8").astype(object),
            contributions=outputs["contribution"].numpy(),
            points=outputs["points"].numpy(),
        )

    def embed_frame(self, frame: pl.DataFrame) -> Matrix:
        """Last hidden activations (n, s * h) of a frame's rows, in its order.

        Raises:
            InputError: a raw column is missing or mistyped.
            PublishError: the version is no network.
        """
        if EMBEDDING not in self.saved.signatures:
            raise PublishError(f"expected the signature {EMBEDDING}, got {', '.join(sorted(self.saved.signatures))}")
        outputs = self.saved.signatures[EMBEDDING](**self._feed(raw_batch(frame, self.columns)))
        activations: Matrix = outputs["embedding"].numpy()
        return activations

    def _feed(self, batch: Batch) -> dict[str, tf.Tensor]:
        for column in self.columns:
            if column.name not in batch:
                raise InputError(f"the batch lacks the raw column {column.name!r}; it has {', '.join(sorted(batch))}")
            got, expected = batch[column.name].dtype, BATCH_DTYPES[column.kind]
            if got != expected:
                raise InputError(
                    f"raw column {column.name!r} is a {column.kind}: expected {expected}, got {got}; see raw_batch"
                )
        return {c.name: tf.constant(batch[c.name], INPUT_DTYPES[c.kind]) for c in self.columns}

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
        PublishError: no SavedModel, a damaged one, one with a link or a path that leads out of it, or one whose
            signatures are not ours.
    """
    refuse_links(directory)
    with named_failures(directory, "tf.saved_model.load"):
        refuse_foreign_assets(directory)
        saved = tf.saved_model.load(str(directory))
    if SCORES not in saved.signatures:
        raise PublishError(f"{directory}: expected the signature {SCORES}, got {sorted(saved.signatures)}")
    for name in OUTPUTS.keys() & saved.signatures.keys():
        specs = saved.signatures[name].structured_outputs
        check_outputs(directory, name, {output: (spec.dtype, spec.shape) for output, spec in specs.items()})
    kinds = {dtype: kind for kind, dtype in INPUT_DTYPES.items()}
    columns = []
    for name, spec in sorted(saved.signatures[SCORES].structured_input_signature[1].items()):
        if spec.dtype not in kinds or spec.shape.rank != 1:
            raise PublishError(
                f"{directory}: input {name!r} is {spec.dtype.name} {spec.shape}, expected one raw column"
            )
        columns.append(RawColumn(name=name, kind=kinds[spec.dtype]))
    return LoadedModel(columns=tuple(columns), saved=saved)


def read_network(directory: Path, activation: Activation) -> Network | None:
    """The ensemble of an exported network, from its variables alone; None where the version is of another form.

    Args:
        directory: of a SavedModel that `export` wrote.
        activation: of the hidden layers, which a graph does not say; taken on trust.
    """
    reader = tf.train.load_checkpoint(str(directory / "variables" / "variables"))
    named = set(reader.get_variable_to_shape_map())

    def layers(kind: str) -> tuple[NDArray[np.float32], ...]:
        keys = (f"contender/form/{kind}/{number}/.ATTRIBUTES/VARIABLE_VALUE" for number in count())
        return tuple(reader.get_tensor(key) for key in takewhile(named.__contains__, keys))

    weights, biases = layers("weights"), layers("biases")
    if not weights or len(weights) != len(biases):
        return None
    return Network(weights, biases, activation)


def refuse_foreign_assets(directory: Path) -> None:
    """See to it that the graph of a SavedModel names no file outside of its directory.

    Raises:
        PublishError: an asset with an absolute name, or one with `..`; names the first.
        OSError: the graph cannot be read; likewise DecodeError.
    """
    document = saved_model_pb2.SavedModel.FromString((directory / "saved_model.pb").read_bytes())
    assets = [asset.filename for graph in document.meta_graphs for asset in graph.asset_file_def]
    refuse_foreign_names(assets, where=f"the graph of {directory}")


def check_outputs(directory: Path, signature: str, outputs: Mapping[str, tuple[Any, Any]]) -> None:
    """See to it that the outputs of one of our signatures, name -> (type, shape), are those of `OUTPUTS`.

    Raises:
        PublishError: names the first that is missing, mistyped or too many.
    """
    check_tensors(directory, f"outputs of {signature}", outputs, OUTPUTS[signature])


def check_tensors(
    directory: Path, which: str, tensors: Mapping[str, tuple[Any, Any]], expected: Mapping[str, tuple[str, int]]
) -> None:
    """Compare tensors, name -> (type, shape), with what is expected, name -> (name of the type, rank).

    Raises:
        PublishError: names the first that is missing, mistyped or too many.
    """
    got = {name: (dtype.name, shape.rank) for name, (dtype, shape) in tensors.items()}
    wrong = sorted(name for name in got.keys() | expected.keys() if got.get(name) != expected.get(name))
    if wrong:
        name = wrong[0]
        raise PublishError(
            f"{directory}: {len(wrong)} of the {which} are wrong; first {name!r}: expected (type, rank) "
            f"{expected.get(name, 'none')}, got {got.get(name, 'none')}"
        )


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

"""What a server can ask of a version: its signatures as TensorFlow operations, by name.

signature        inputs                              outputs, n rows
serving_default  one (n,) input a raw column         probability, score: (n,) float64
reasons          the same                            feature (n, k) string, contribution and points (n, k) float64,
                                                     base (n,) float64
features         the same                            features (n, d) float32: the encoded matrix
embedding        the same; networks alone            embedding (n, s * h) float32: last hidden layer of s members
examples         examples (n,): serialised Examples  probability, score: (n,) float64

What happens to a raw column is `models.feature_graph`'s, what a contender makes of the matrix `models.form_graph`'s,
a contribution `models.contributions`'; writing it all into a directory is `models.bundle`'s and
`models.article_export`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from crossrisk.features import FeaturePlan, RawColumn, RowPlan
from crossrisk.scoring import Scaling
from models.contributions import graph_contributions
from models.feature_graph import DATE_MISSING, encode
from models.fitted import Contender, Matrix
from models.form_graph import ContenderGraph

SCORES, REASONS, FEATURES, EMBEDDING, EXAMPLES = "serving_default", "reasons", "features", "embedding", "examples"
"""Names of the signatures."""
OUTPUTS: Mapping[str, Mapping[str, tuple[str, int]]] = {
    SCORES: {"probability": ("float64", 1), "score": ("float64", 1)},
    REASONS: {
        "feature": ("string", 2),
        "contribution": ("float64", 2),
        "points": ("float64", 2),
        "base": ("float64", 1),
    },
    FEATURES: {"features": ("float32", 2)},
    EMBEDDING: {"embedding": ("float32", 2)},
    EXAMPLES: {"probability": ("float64", 1), "score": ("float64", 1)},
}
"""Signature -> its outputs: name -> (type, rank)"""
REASONS_GIVEN = 5
"""k. Regulation B, comment 9(b)(2)-1, calls more than four reasons of little help; the fifth is for who picks them."""

Kind = Literal["number", "category", "date"]
INPUT_DTYPES: Mapping[Kind, Any] = {"number": tf.float64, "category": tf.string, "date": tf.int32}
"""Kind of a raw column -> type of its input"""
EXAMPLE_DTYPES: Mapping[Kind, Any] = {"number": tf.float32, "category": tf.string, "date": tf.int64}
"""Kind of a raw column -> what a tf.Example can hold of it: a float_list, bytes_list or int64_list of one value"""
_MISSING: Mapping[Kind, Any] = {"number": np.nan, "category": "", "date": DATE_MISSING}

_NAMES_IN_ERRORS = 10

Tensors = dict[str, tf.Tensor]


class ServingGraph(tf.Module):
    """A plan, a contender and a scale as functions of tensors; the contender's variables are shared by all of them."""

    def __init__(self, plan: FeaturePlan, contender: Contender, scaling: Scaling, reference: Matrix | None) -> None:
        """`reference` (d,): the encoded row that reasons compare with; None: the version gives none.

        Raises:
            ValueError: the reference is no row of the plan's matrix.
        """
        super().__init__(name="scorer")
        plan = plan.served_as(contender.view)
        if reference is not None and reference.shape != (len(plan.columns),):
            raise ValueError(f"expected a reference of shape ({len(plan.columns)},), got {reference.shape}")
        self.contender = ContenderGraph(contender, len(plan.columns))
        self._plan, self._scaling = plan, scaling
        # one function that all signatures call: the tables of a large plan are stored once
        self.encode = tf.function(
            lambda raw: encode(plan, raw), input_signature=[input_specs(plan.rows.raw_columns)], autograph=False
        )
        self.of_matrix: dict[str, Callable[[tf.Tensor], Tensors]] = {
            SCORES: self._scores,
            FEATURES: lambda x: {"features": tf.identity(x)},
        }
        """Signature of raw columns -> its outputs, given the encoded matrix (n, d)."""
        if self.contender.has_embedding:
            self.of_matrix[EMBEDDING] = lambda x: {"embedding": self.contender.embedding(x)}
        if reference is not None:
            self.of_matrix[REASONS] = lambda x: self._reasons(x, reference)

    def of_examples(self, examples: tf.Tensor) -> Tensors:
        """Probability and score of serialised tf.Examples (n,)."""
        return self._scores(self.encode(parse_examples(self._plan.rows, examples)))

    def _scores(self, x: tf.Tensor) -> Tensors:
        probability = self.contender(x)
        return {"probability": probability, "score": score_points(self._scaling, probability)}

    def _reasons(self, x: tf.Tensor, reference: Matrix) -> Tensors:
        contributions = graph_contributions(self.contender, x, reference)
        features = list(dict.fromkeys(self._plan.features_of_columns))
        place = [features.index(feature) for feature in self._plan.features_of_columns]
        of_features = tf.transpose(tf.math.unsorted_segment_sum(tf.transpose(contributions), place, len(features)))
        spare = max(REASONS_GIVEN - len(features), 0)
        largest, which = tf.math.top_k(tf.pad(of_features, [[0, 0], [0, spare]]), REASONS_GIVEN)
        raises = largest > 0.0
        names = tf.gather(tf.constant([*features, *[""] * spare]), which)
        return {
            "feature": tf.where(raises, names, ""),
            "contribution": tf.where(raises, largest, 0.0),
            "points": tf.where(raises, -self._scaling.factor * largest, 0.0),
            "base": self.contender.logit(x) - tf.reduce_sum(contributions, axis=1),
        }


def input_specs(columns: tuple[RawColumn, ...]) -> dict[str, tf.TensorSpec]:
    """The inputs of every signature of raw columns, by name: the batch dimension is free."""
    return {c.name: tf.TensorSpec([None], INPUT_DTYPES[c.kind], name=c.name) for c in columns}


def parse_examples(rows: RowPlan, examples: tf.Tensor) -> Tensors:
    """Raw columns as `models.feature_graph.encode` takes them, of serialised tf.Examples (n,).

    A feature that is not there is missing. A tf.Example knows float32 alone: 16777217 arrives as 16777216, and a code
    for a missing value that float32 cannot hold is recognised by its float32 (99999999 by 100000000).

    An Example whose feature holds another kind of list, or not one value, fails with an error that names the feature.
    So does a date that int32 cannot hold, which would arrive as another day, and an Example in which nothing is known:
    TensorFlow's parser makes one of bytes that are none, and of misspelt names.
    """
    columns = rows.raw_columns
    wanted = {
        c.name: tf.io.FixedLenFeature([], EXAMPLE_DTYPES[c.kind], default_value=_MISSING[c.kind]) for c in columns
    }
    parsed = tf.io.parse_example(examples, wanted)
    names = ", ".join(c.name for c in columns[:_NAMES_IN_ERRORS])
    known = tf.stack([_is_known(c, parsed[c.name]) for c in columns])
    is_readable = tf.debugging.Assert(
        tf.reduce_all(tf.reduce_any(known, axis=0)), [f"an Example holds none of the features that are wanted: {names}"]
    )
    with tf.control_dependencies([is_readable]):
        raw = {c.name: _widened(c, parsed[c.name]) for c in columns}
    for name, code in ((s.column, code) for s in rows.sentinels if s.column in raw for code in s.codes):
        raw[name] = tf.where(tf.equal(parsed[name], np.float32(code)), tf.constant(code, tf.float64), raw[name])
    return raw


def _is_known(column: RawColumn, parsed: tf.Tensor) -> tf.Tensor:
    return ~tf.math.is_nan(parsed) if column.kind == "number" else tf.not_equal(parsed, _MISSING[column.kind])


def _widened(column: RawColumn, parsed: tf.Tensor) -> tf.Tensor:
    if column.kind == "category":
        return tf.identity(parsed)
    if column.kind == "number":
        return tf.cast(parsed, tf.float64)
    days = tf.cast(parsed, tf.int32)
    message = f"feature {column.name} is a date: expected int32 days since 1970-01-01, got"
    fits = tf.debugging.Assert(tf.reduce_all(tf.equal(tf.cast(days, tf.int64), parsed)), [message, parsed])
    with tf.control_dependencies([fits]):
        return tf.identity(days)


def score_points(scaling: Scaling, probability: tf.Tensor) -> tf.Tensor:
    """`Scaling.score` as TensorFlow operations: points (n,) of probabilities of bad (n,), float64."""
    p = tf.clip_by_value(probability, scaling.probability_limit, 1.0 - scaling.probability_limit)
    points = scaling.offset + scaling.factor * tf.math.log((1.0 - p) / p)
    if scaling.decimals is None:
        return points
    return tf.round(points * 10.0**scaling.decimals) / 10.0**scaling.decimals  # half to even, as numpy rounds

"""Contenders as TensorFlow operations: each form of `models.fitted`, with the same arithmetic in the same precision.

Every module holds its weights as variables (the SavedModel stores them once, beside the graph, whose file cannot be
larger than 2 GB) and maps the encoded matrix (n, d) float32 to raw logits (n,) float64. The walk through trees is in
`models.tree_graph`; what each column contributes is read from the same variables in `models.contributions`; raw columns
come in through `models.feature_graph`; signatures and files are `models.bundle`'s. Nothing is trained here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from models.fitted import LOGIT_LIMIT, Contender, Floats, Form, Logistic, Network, Stacked, Trees
from models.tree_graph import TreeWalk


class ContenderGraph(tf.Module):
    """A contender: constant columns, form, calibration."""

    def __init__(self, contender: Contender, width: int) -> None:
        """`width`: columns d of the encoded matrix, behind which the contender's constants stand."""
        super().__init__(name="contender")
        self.constants = contender.constants
        self.form = _form_graph(contender.form, dict(enumerate(contender.constants, start=width)))
        self.intercept = _frozen(np.float64(contender.calibration.intercept), "calibration_intercept")
        self.slope = _frozen(np.float64(contender.calibration.slope), "calibration_slope")

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """Calibrated probability of bad (n,) float64, in (0, 1), of the encoded matrix x (n, d) float32."""
        return _sigmoid(self.logit(x))

    def logit(self, x: tf.Tensor) -> tf.Tensor:
        """Calibrated log odds of bad (n,) float64 of the encoded matrix x (n, d) float32."""
        return self.intercept + self.slope * self.form(self.append_constants(x))

    @property
    def has_embedding(self) -> bool:
        """Whether the form is a network: no other has hidden layers."""
        return isinstance(self.form, NetworkGraph)

    def embedding(self, x: tf.Tensor) -> tf.Tensor:
        """`NetworkGraph.embedding` of the encoded matrix x (n, d) float32; only where `has_embedding`."""
        return self.form.embedding(self.append_constants(x))

    def append_constants(self, x: tf.Tensor) -> tf.Tensor:
        """`models.fitted.append_constants` of x (n, d): what the form was fitted on."""
        if not self.constants:
            return x
        constants = tf.constant([self.constants], tf.float32)
        return tf.concat([x, tf.tile(constants, [tf.shape(x)[0], 1])], axis=1)


class LogisticGraph(tf.Module):
    """Linear log odds, in float64."""

    def __init__(self, form: Logistic) -> None:
        super().__init__(name="logistic")
        self.coefficients = _frozen(form.coefficients, "coefficients")
        self.intercept = _frozen(np.float64(form.intercept), "intercept")

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """Raw logits (n,) of x (n, d)."""
        _check_width(x, self.coefficients.shape[0])
        return _held(tf.linalg.matvec(tf.cast(x, tf.float64), self.coefficients) + self.intercept)


class TreesGraph(tf.Module):
    """A forest (logit of the mean of the leaves) or boosted trees (baseline + sum of the leaves).

    A walk that scores ends on leaves and never reads the value of an inner node. So the walk's one table of values has
    there what is expected at the node, for the walk that explains.
    """

    def __init__(self, form: Trees, known: Mapping[int, float]) -> None:
        """`known`: columns that have one value at serving -> that value."""
        super().__init__(name="trees")
        expected = expected_values(form, known)
        self.walk = TreeWalk(form if expected is None else replace(form, value=expected))
        self.expected_at_roots = None if expected is None else float(expected[:, 0].sum())
        """Sum over the trees; None where they were stored without their training rows."""
        self.is_mean = form.link == "mean"
        self.count = len(form.feature)
        self.baseline = _frozen(np.float64(form.baseline), "baseline")

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """Raw logits (n,) of x (n, d)."""
        total = self.walk(x)
        return _logit(total / self.count) if self.is_mean else _held(total + self.baseline)


class NetworkGraph(tf.Module):
    """S perceptrons at once as batched matrix products in float32; the logit of their mean probability."""

    def __init__(self, form: Network) -> None:
        super().__init__(name="network")
        self.weights = [_frozen(weight, f"weight_{layer}") for layer, weight in enumerate(form.weights)]
        self.biases = [_frozen(bias, f"bias_{layer}") for layer, bias in enumerate(form.biases)]
        self.activation = form.activation

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """Raw logits (n,) of x (n, d)."""
        members = _sigmoid(tf.cast(self._layers(x)[-1][:, :, 0], tf.float64))
        return _logit(tf.reduce_mean(members, axis=0))

    def embedding(self, x: tf.Tensor) -> tf.Tensor:
        """Activations of the last hidden layer (n, S * h) float32 of x (n, d): member after member, h units each."""
        hidden = self._activate(self._layers(x)[-2])
        return tf.reshape(tf.transpose(hidden, [1, 0, 2]), [-1, hidden.shape[0] * hidden.shape[2]])

    def _layers(self, x: tf.Tensor) -> list[tf.Tensor]:
        """What each layer gives (S, n, width) before its activation."""
        _check_width(x, self.weights[0].shape[1])
        layers: list[tf.Tensor] = []
        for weight, bias in zip(self.weights, self.biases, strict=True):
            hidden = self._activate(layers[-1]) if layers else x[tf.newaxis]
            layers.append(tf.matmul(hidden, weight) + bias[:, tf.newaxis, :])
        return layers

    def _activate(self, hidden: tf.Tensor) -> tf.Tensor:
        return tf.nn.relu(hidden) if self.activation == "relu" else _sigmoid(hidden)


class StackedGraph(tf.Module):
    """Logistic regression on the source model's raw logit and a few columns of the matrix."""

    def __init__(self, form: Stacked, known: Mapping[int, float]) -> None:
        """`known`: see `TreesGraph`."""
        super().__init__(name="stacked")
        self.source = _form_graph(form.source, known)
        self.columns = _frozen(form.columns, "columns")
        self.coefficients = _frozen(form.coefficients, "stack_coefficients")
        self.intercept = _frozen(np.float64(form.intercept), "stack_intercept")
        self._least_width = int(form.columns.max(initial=-1)) + 1

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """Raw logits (n,) of x (n, d)."""
        if x.shape[1] < self._least_width:
            raise ValueError(f"the stack looks at column {self._least_width - 1} of a matrix of {x.shape[1]} columns")
        seen = tf.cast(tf.gather(x, self.columns, axis=1), tf.float64)
        inputs = tf.concat([self.source(x)[:, tf.newaxis], seen], axis=1)
        return _held(tf.linalg.matvec(inputs, self.coefficients) + self.intercept)


FormGraph = LogisticGraph | TreesGraph | NetworkGraph | StackedGraph


def _form_graph(form: Form, known: Mapping[int, float]) -> FormGraph:
    match form:
        case Logistic():
            return LogisticGraph(form)
        case Trees():
            return TreesGraph(form, known)
        case Network():
            return NetworkGraph(form)
        case Stacked():
            return StackedGraph(form, known)


def expected_values(trees: Trees, known: Mapping[int, float]) -> Floats | None:
    """At each node (T, M) the mean value of the leaves below, weighted by the training rows that reached them.

    Leaves keep their value to the bit.

    Args:
        trees: any ensemble.
        known: columns that have one value at serving -> that value. A node that splits on one expects what the child
            does that everyone goes to, and counts the rows of that child alone.

    Returns:
        None where the trees were stored without their training rows.
    """
    if trees.rows is None:
        return None
    inner = trees.left != np.arange(trees.feature.shape[1])
    value, weight = trees.value.copy(), trees.rows.astype(np.float64)
    for _ in range(trees.depth):  # each time one level more is settled, from the leaves up
        sides = [(_of_child(weight, side), _of_child(value, side)) for side in (trees.left, trees.right)]
        (left, value_left), (right, value_right) = sides
        for column, constant in known.items():
            goes_left = constant <= trees.threshold
            splits = trees.feature == column
            left, right = np.where(splits & ~goes_left, 0.0, left), np.where(splits & goes_left, 0.0, right)
        both = np.maximum(left + right, 1.0)  # 0 at padding alone
        value = np.where(inner, (left * value_left + right * value_right) / both, trees.value)
        weight = np.where(inner, left + right, trees.rows)
    return value


def _of_child(of_nodes: Floats, child: NDArray[np.int32]) -> Floats:
    return np.take_along_axis(of_nodes, child, axis=1)


def _frozen(values: object, name: str) -> tf.Variable:
    return tf.Variable(values, trainable=False, name=name)


def _check_width(x: tf.Tensor, expected: int) -> None:
    if x.shape[1] != expected:
        raise ValueError(f"the contender was fitted on {expected} columns, the encoded matrix has {x.shape[1]}")


def _sigmoid(logits: tf.Tensor) -> tf.Tensor:
    # written as in models.fitted.sigmoid: tf.sigmoid rounds differently
    return 0.5 * (1.0 + tf.tanh(0.5 * logits))


def _logit(probability: tf.Tensor) -> tf.Tensor:
    return _held(tf.math.log(probability) - tf.math.log1p(-probability))


def _held(logits: tf.Tensor) -> tf.Tensor:
    return tf.clip_by_value(logits, -LOGIT_LIMIT, LOGIT_LIMIT)

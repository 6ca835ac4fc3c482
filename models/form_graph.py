"""Contenders as TensorFlow operations: each form of `models.fitted`, with the same arithmetic in the same precision.

Every module holds its weights as variables (the SavedModel stores them beside the graph) and maps the encoded matrix
(n, d) float32 to raw logits (n,) float64. The walk through trees is in `models.tree_graph`; raw columns come in
through `models.feature_graph`; signatures and files are `models.bundle`'s. Nothing is trained here.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from models.fitted import LOGIT_LIMIT, Contender, Form, Logistic, Network, Stacked, Trees
from models.tree_graph import TreeWalk


class ContenderGraph(tf.Module):
    """A contender: constant columns, form, calibration."""

    def __init__(self, contender: Contender) -> None:
        super().__init__(name="contender")
        self.form = _form_graph(contender.form)
        self._constants = contender.constants
        self.intercept = _frozen(np.float64(contender.calibration.intercept), "calibration_intercept")
        self.slope = _frozen(np.float64(contender.calibration.slope), "calibration_slope")

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """Calibrated probability of bad (n,) float64, in (0, 1), of the encoded matrix x (n, d) float32."""
        return _sigmoid(self.logit(x))

    def logit(self, x: tf.Tensor) -> tf.Tensor:
        """Calibrated log odds of bad (n,) float64 of the encoded matrix x (n, d) float32."""
        return self.intercept + self.slope * self.form(self._append_constants(x))

    @property
    def has_embedding(self) -> bool:
        """Whether the form is a network: no other has hidden layers."""
        return isinstance(self.form, NetworkGraph)

    def embedding(self, x: tf.Tensor) -> tf.Tensor:
        """`NetworkGraph.embedding` of the encoded matrix x (n, d) float32; only where `has_embedding`."""
        return self.form.embedding(self._append_constants(x))

    def _append_constants(self, x: tf.Tensor) -> tf.Tensor:
        if not self._constants:
            return x
        constants = tf.constant([self._constants], tf.float32)
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
    """A forest (logit of the mean of the leaves) or boosted trees (baseline + sum of the leaves)."""

    def __init__(self, form: Trees) -> None:
        super().__init__(name="trees")
        self.walk = TreeWalk(form)
        self._is_mean = form.link == "mean"
        self._count = len(form.feature)
        self.baseline = _frozen(np.float64(form.baseline), "baseline")

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """Raw logits (n,) of x (n, d)."""
        total = self.walk(x)
        return _logit(total / self._count) if self._is_mean else _held(total + self.baseline)


class NetworkGraph(tf.Module):
    """S perceptrons at once as batched matrix products in float32; the logit of their mean probability."""

    def __init__(self, form: Network) -> None:
        super().__init__(name="network")
        self.weights = [_frozen(weight, f"weight_{layer}") for layer, weight in enumerate(form.weights)]
        self.biases = [_frozen(bias, f"bias_{layer}") for layer, bias in enumerate(form.biases)]
        self._is_relu = form.activation == "relu"

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
        return tf.nn.relu(hidden) if self._is_relu else _sigmoid(hidden)


class StackedGraph(tf.Module):
    """Logistic regression on the source model's raw logit and a few columns of the matrix."""

    def __init__(self, form: Stacked) -> None:
        super().__init__(name="stacked")
        self.source = _form_graph(form.source)
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


def _form_graph(form: Form) -> tf.Module:
    match form:
        case Logistic():
            return LogisticGraph(form)
        case Trees():
            return TreesGraph(form)
        case Network():
            return NetworkGraph(form)
        case Stacked():
            return StackedGraph(form)


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

"""What each column of the encoded matrix contributes to a contender's log odds, as TensorFlow operations.

Contributions of a row sum to its calibrated log odds less those of a base that is the same for every row: of the
reference row for linear forms and networks, of what the trees expect at their roots for trees. Linear forms: the
coefficient times the distance from the reference. Trees: what the expected value changes by at each node on the way
down. Networks: integrated gradients. Only core operations, so that a SavedModel can hold them, over the variables that
score (`models.form_graph`): to explain takes no weight of its own. Which contributions become reasons, and under which
names, stays out (`models.serving_graph`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

from models.fitted import LOGIT_LIMIT, Activation, Matrix, append_constants
from models.form_graph import ContenderGraph, FormGraph, LogisticGraph, NetworkGraph, StackedGraph, TreesGraph

STEPS, ROWS_AT_ONCE = 16, 64
"""Steps between reference and row; rows at once, some 10 MB for an ensemble of three 128-32. There 16 steps come within
.004 log odds of 512 (the mean contribution is .1), and of the five largest of a row .9993 are the same."""
SHORTEST_CHORD = 1e-6
"""Over less, the difference of two log odds has too few digits left to divide it."""


def graph_contributions(graph: ContenderGraph, x: tf.Tensor, reference: Matrix) -> tf.Tensor:
    """Contributions (n, d) float64 of the columns of x to the calibrated log odds.

    The columns that a contender appends (`Contender.constants`) contribute nothing: everyone has the same there.

    Args:
        graph: a contender of any form, made for matrices of d columns.
        x: encoded matrix (n, d) float32.
        reference: encoded row (d,) that linear forms and networks compare with.

    Returns:
        Contributions whose sum over a row is logit(p) - base, exactly but for rounding (1e-5 for networks, in float32).
        base does not depend on the row.

    Raises:
        ValueError: x and the reference differ in width; or trees that were stored without their training rows.
    """
    width = len(reference)
    if x.shape[1] != width:
        raise ValueError(f"the reference row has {width} columns, the encoded matrix {x.shape[1]}")
    against = append_constants(np.asarray(reference, np.float32)[np.newaxis], graph.constants)
    parts = _of_form(graph.form, graph.append_constants(x), tf.constant(against))
    return graph.slope * parts[:, :width]


def _of_form(form: FormGraph, x: tf.Tensor, reference: tf.Tensor) -> tf.Tensor:
    """Contributions (n, d) float64 to the raw logit of x (n, d), compared with the reference (1, d) float32."""
    match form:
        case NetworkGraph():
            return _of_network(form, x, reference)
        case StackedGraph():
            return _of_stack(form, x, reference)
        case _:
            return _of_source(form, x, reference)[0]


def _of_source(form: LogisticGraph | TreesGraph, x: tf.Tensor, reference: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """`_of_form` of what a stack can stand on, and the raw logit () that its contributions start from."""
    if isinstance(form, TreesGraph):
        return _of_trees(form, x)
    # not form(reference): that is held already, and the contributions lead to where it is not
    base = tf.linalg.matvec(tf.cast(reference, tf.float64), form.coefficients)[0] + form.intercept
    return _held(form.coefficients * _distance(x, reference), base)


def _of_stack(form: StackedGraph, x: tf.Tensor, reference: tf.Tensor) -> tf.Tensor:
    weight, weights = form.coefficients[0], form.coefficients[1:]
    of_source, source_base = _of_source(form.source, x, reference)
    seen = tf.gather(reference, form.columns, axis=1)
    own = weights * _distance(tf.gather(x, form.columns, axis=1), seen)
    places = tf.one_hot(form.columns, reference.shape[1], dtype=tf.float64)  # (k, d)
    base = weight * source_base + tf.linalg.matvec(tf.cast(seen, tf.float64), weights)[0] + form.intercept
    return _held(weight * of_source + own @ places, base)[0]


def _distance(x: tf.Tensor, reference: tf.Tensor) -> tf.Tensor:
    return tf.cast(x, tf.float64) - tf.cast(reference, tf.float64)


# --- trees ---


def _of_trees(form: TreesGraph, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    roots = form.expected_at_roots
    if roots is None:
        raise ValueError(
            "these trees were stored without the training rows at their nodes (schema 1), which contributions are "
            "weighed with; fit the contender again"
        )
    parts = form.walk.contributions(x)
    if form.is_mean:
        return _in_log_odds(parts / form.count, roots / form.count, _logit)
    return _held(parts, form.baseline + roots)


def _logit(probability: tf.Tensor) -> tf.Tensor:
    p = tf.clip_by_value(probability, 0.0, 1.0)  # a sum of leaves may leave it by a rounding
    return tf.math.log(p) - tf.math.log1p(-p)


def _held(parts: tf.Tensor, base: float | tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Contributions to a logit, and their base, where the logit is held within +/-LOGIT_LIMIT."""
    return _in_log_odds(parts, base, tf.identity)


def _in_log_odds(
    parts: tf.Tensor, base: float | tf.Tensor, to_logit: Callable[[tf.Tensor], tf.Tensor]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Contributions (n, d) that lead from base to base + their sum, as contributions to `to_logit` of that, held.

    All parts of a row are scaled alike, by the slope of the chord from where it starts to where it ends; where the
    two are as good as equal, by that of a chord of SHORTEST_CHORD.
    """
    base = tf.convert_to_tensor(base, tf.float64)
    way = tf.reduce_sum(parts, axis=1, keepdims=True)
    way = tf.where(tf.abs(way) < SHORTEST_CHORD, np.float64(SHORTEST_CHORD), way)
    start, end = (tf.clip_by_value(to_logit(v), -LOGIT_LIMIT, LOGIT_LIMIT) for v in (base, base + way))
    return parts * ((end - start) / way), start


# --- networks ---


def _of_network(form: NetworkGraph, x: tf.Tensor, reference: tf.Tensor) -> tf.Tensor:
    """Integrated gradients of the raw logit (n, d) float64, ROWS_AT_ONCE rows after the other.

    (x - reference) times the mean gradient on the straight way between them: Sundararajan, Taly and Yan 2017,
    equation 1. On each of STEPS steps of the way a unit's slope is that between its two ends (the rescale rule of
    Shrikumar, Greenside and Kundaje 2017, section 3.5.1) and not the gradient in the middle: the sum is then right
    whatever the number of steps, where the midpoint rule still misses up to .08 of a ReLU network's logit with 64.
    """
    count, width = tf.shape(x)[0], reference.shape[1]
    at_once = tf.clip_by_value(count, 1, ROWS_AT_ONCE)
    blocks = tf.maximum(-(-count // at_once), 1)
    filled = tf.reshape(tf.pad(x, [[0, blocks * at_once - count], [0, 0]]), [blocks, at_once, width])
    found = tf.map_fn(lambda block: _of_rows(form, block, reference), filled)
    return tf.cast(tf.reshape(found, [blocks * at_once, width])[:count], tf.float64)


def _of_rows(form: NetworkGraph, x: tf.Tensor, reference: tf.Tensor) -> tf.Tensor:
    """`_of_network` of r rows: (r, d) float32. S members, STEPS + 1 points on the way, STEPS slopes between them."""
    activate, derivative = _ACTIVATIONS[form.activation]
    away, first = x - reference, form.weights[0]
    start = tf.matmul(reference, first) + form.biases[0][:, np.newaxis]  # (S, 1, h)
    # linear as far as here: no product with the widest matrix for each point
    shares = np.linspace(0.0, 1.0, STEPS + 1, dtype=np.float32)[:, np.newaxis, np.newaxis]
    before = start[:, np.newaxis] + shares * tf.matmul(away, first)[:, tf.newaxis]  # (S, points, r, h)
    slopes = []
    for weight, bias in zip(form.weights[1:], form.biases[1:], strict=True):
        after = activate(before)
        slopes.append(_slopes(before, after, derivative, shortest=1e-4))
        before = tf.matmul(after, weight[:, np.newaxis]) + bias[:, np.newaxis, np.newaxis]
    gradient = tf.cast(_slopes_of_ensemble(tf.cast(before, tf.float64)), tf.float32)
    for weight, slope in zip(form.weights[:0:-1], slopes[::-1], strict=True):
        gradient = tf.matmul(gradient, weight[:, np.newaxis], transpose_b=True) * slope
    of_members = tf.matmul(tf.reduce_mean(gradient, axis=1), first, transpose_b=True)  # (S, r, d)
    return away * tf.reduce_sum(of_members, axis=0)


def _slopes_of_ensemble(logits: tf.Tensor) -> tf.Tensor:
    """Of the logit of the mean probability over each member's logit (S, points, r, 1): (S, points - 1, r, 1)."""
    members = tf.sigmoid(logits)
    mean = tf.reduce_mean(members, axis=0, keepdims=True)
    held = tf.clip_by_value(_logit(mean), -LOGIT_LIMIT, LOGIT_LIMIT)
    of_mean = _slopes(mean, held, lambda p: tf.math.reciprocal_no_nan(p * (1.0 - p)), shortest=1e-12)
    return of_mean * _slopes(logits, members, _sigmoid_derivative, shortest=1e-4) / logits.shape[0]


def _slopes(x: tf.Tensor, y: tf.Tensor, derivative: Callable[[tf.Tensor], tf.Tensor], shortest: float) -> tf.Tensor:
    """Slopes of y over x (S, points, r, h) from point to point; the derivative in between where x hardly moves."""
    run, rise = x[:, 1:] - x[:, :-1], y[:, 1:] - y[:, :-1]
    hardly = tf.abs(run) < shortest
    return tf.where(hardly, derivative(0.5 * (x[:, 1:] + x[:, :-1])), rise / tf.where(hardly, tf.ones_like(run), run))


def _sigmoid_derivative(x: tf.Tensor) -> tf.Tensor:
    y = tf.sigmoid(x)
    return y * (1.0 - y)


_ACTIVATIONS: Mapping[Activation, tuple[Callable[[tf.Tensor], tf.Tensor], Callable[[tf.Tensor], tf.Tensor]]] = {
    "relu": (tf.nn.relu, lambda x: tf.cast(x > 0.0, x.dtype)),
    "sigmoid": (tf.sigmoid, _sigmoid_derivative),
}
"""Activation of a network -> the function and its derivative"""

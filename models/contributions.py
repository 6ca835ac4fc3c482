"""What each column of the encoded matrix contributes to a contender's log odds, as TensorFlow operations.

Contributions of a row sum to its calibrated log odds less those of a base that is the same for every row: of the
reference row for linear forms and networks, of what the trees expect at their roots for trees. Linear forms: the
coefficient times the distance from the reference. Trees: what the expected value changes by at each node on the way
down. Networks: integrated gradients. Only core operations, so that a SavedModel can hold them; weights enter as
constants. Which contributions become reasons, and under which names, stays out (`models.serving_graph`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from models.fitted import (
    LOGIT_LIMIT,
    Activation,
    Contender,
    Floats,
    Form,
    Logistic,
    Matrix,
    Network,
    Stacked,
    Trees,
    append_constants,
)
from models.tree_graph import TreeWalk

STEPS, ROWS_AT_ONCE = 16, 64
"""Steps between reference and row; rows at once, some 10 MB for an ensemble of three 128-32. There 16 steps come within
.004 log odds of 512 (the mean contribution is .1), and of the five largest of a row .9993 are the same."""
SHORTEST_CHORD = 1e-6
"""Over less, the difference of two log odds has too few digits left to divide it."""


def graph_contributions(contender: Contender, x: tf.Tensor, reference: Matrix) -> tf.Tensor:
    """Contributions (n, d) float64 of the columns of x to the calibrated log odds.

    The columns that a contender appends (`Contender.constants`) contribute nothing: everyone has the same there.

    Args:
        contender: any form.
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
    against = append_constants(np.asarray(reference, np.float32)[np.newaxis], contender.constants)[0]
    appended = tf.tile(tf.constant(against[np.newaxis, width:]), [tf.shape(x)[0], 1])
    known = dict(enumerate(contender.constants, start=width))
    parts, _ = _of_form(contender.form, tf.concat([x, appended], axis=1), against, known)
    return contender.calibration.slope * parts[:, :width]


def _of_form(form: Form, x: tf.Tensor, reference: Matrix, known: Mapping[int, float]) -> tuple[tf.Tensor, tf.Tensor]:
    """Contributions (n, d) to the raw logit, and the raw logit () that they start from."""
    match form:
        case Logistic():
            base = reference.astype(np.float64) @ form.coefficients + form.intercept
            return _held(form.coefficients * _distance(x, reference), base)
        case Trees():
            return _of_trees(form, x, known)
        case Network():
            return _of_network(form, x, reference), tf.constant(form.raw_logit(reference[np.newaxis])[0])
        case Stacked():
            weight, weights = float(form.coefficients[0]), form.coefficients[1:]
            of_source, source_base = _of_form(form.source, x, reference, known)
            seen = reference[form.columns]
            own = weights * _distance(tf.gather(x, form.columns, axis=1), seen)
            places = tf.one_hot(form.columns, len(reference), dtype=tf.float64)  # (k, d)
            base = weight * source_base + float(seen.astype(np.float64) @ weights + form.intercept)
            return _held(weight * of_source + own @ places, base)


def _distance(x: tf.Tensor, reference: Matrix) -> tf.Tensor:
    return tf.cast(x, tf.float64) - reference.astype(np.float64)


# --- trees ---


def expected_values(trees: Trees, known: Mapping[int, float]) -> Floats:
    """At each node (T, M) the mean value of the leaves below, weighted by the training rows that reached them.

    Args:
        trees: any ensemble that knows its training rows.
        known: columns that have one value at serving -> that value. A node that splits on one expects what the child
            does that everyone goes to, and counts the rows of that child alone.

    Raises:
        ValueError: the trees were stored without their training rows.
    """
    if trees.rows is None:
        raise ValueError(
            "these trees were stored without the training rows at their nodes (schema 1), which contributions are "
            "weighed with; fit the contender again"
        )
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


def _of_trees(form: Trees, x: tf.Tensor, known: Mapping[int, float]) -> tuple[tf.Tensor, tf.Tensor]:
    expected = expected_values(form, known)
    walk = TreeWalk(replace(form, value=expected), hold=tf.constant)
    parts, roots = walk.contributions(x), expected[:, 0].sum()
    if form.link == "sum":
        return _held(parts, form.baseline + roots)
    count = len(form.feature)
    return _in_log_odds(parts / count, roots / count, _logit)


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


def _of_network(form: Network, x: tf.Tensor, reference: Matrix) -> tf.Tensor:
    """Integrated gradients of the raw logit (n, d) float64, ROWS_AT_ONCE rows after the other.

    (x - reference) times the mean gradient on the straight way between them: Sundararajan, Taly and Yan 2017,
    equation 1. On each of STEPS steps of the way a unit's slope is that between its two ends (the rescale rule of
    Shrikumar, Greenside and Kundaje 2017, section 3.5.1) and not the gradient in the middle: the sum is then right
    whatever the number of steps, where the midpoint rule still misses up to .08 of a ReLU network's logit with 64.
    """
    count, width = tf.shape(x)[0], len(reference)
    at_once = tf.clip_by_value(count, 1, ROWS_AT_ONCE)
    blocks = tf.maximum(-(-count // at_once), 1)
    filled = tf.reshape(tf.pad(x, [[0, blocks * at_once - count], [0, 0]]), [blocks, at_once, width])
    found = tf.map_fn(lambda block: _of_rows(form, block, reference), filled)
    return tf.cast(tf.reshape(found, [blocks * at_once, width])[:count], tf.float64)


def _of_rows(form: Network, x: tf.Tensor, reference: Matrix) -> tf.Tensor:
    """`_of_network` of r rows: (r, d) float32. S members, STEPS + 1 points on the way, STEPS slopes between them."""
    activate, derivative = _ACTIVATIONS[form.activation]
    away, first = x - reference, form.weights[0]
    start = reference @ first + form.biases[0]  # (S, h)
    # linear as far as here: no product with the widest matrix for each point
    shares = np.linspace(0.0, 1.0, STEPS + 1, dtype=np.float32)[:, np.newaxis, np.newaxis]
    before = start[:, np.newaxis, np.newaxis] + shares * tf.matmul(away, first)[:, tf.newaxis]  # (S, points, r, h)
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

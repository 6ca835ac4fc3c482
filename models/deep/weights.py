"""Weights of aligned rows, against different mixes of bads and goods in the two populations. Pure functions.

Without them a marginal distance between populations of different bad rates is smallest where the classes are pulled
together (Zhao et al., ICML 2019).
"""

from __future__ import annotations

import tensorflow as tf

from models.deep.method import Batch
from models.deep.spec import RowWeights


def label_shift_weights(y_s: tf.Tensor, prior_target: float) -> tf.Tensor:
    """Weights pi_target(y) / pi_batch(y) of the drawn source rows, under which they have the target's bad rate.

    Args:
        y_s: (..., n_s) labels 0 or 1 of the source rows of this batch, floating point.
        prior_target: bad rate of the target, in (0, 1).

    Returns:
        (..., n_s) weights > 0, with mean 1 when the batch holds both classes. A class that was not drawn cannot be
        weighted up: the other one is then weighted evenly.

    Raises:
        ValueError: when the prior is not inside (0, 1), or on labels of a whole-number type (it would round the rates).
    """
    y_s = tf.convert_to_tensor(y_s)
    if not y_s.dtype.is_floating:
        raise ValueError(f"labels must be floating point, got {y_s.dtype.name}; cast them to the features' type")
    if not 0.0 < prior_target < 1.0:
        raise ValueError(f"the target prior must lie inside (0, 1), got {prior_target}; pass none to leave it out")
    bad_rate = tf.reduce_mean(y_s, axis=-1, keepdims=True)
    of_bads = tf.math.divide_no_nan(tf.constant(prior_target, y_s.dtype), bad_rate)
    of_goods = tf.math.divide_no_nan(tf.constant(1.0 - prior_target, y_s.dtype), 1.0 - bad_rate)
    return tf.where(y_s > 0.5, of_bads, of_goods)


def class_weights(bad_s: tf.Tensor, bad_t: tf.Tensor, share_of_bads: float) -> tuple[tf.Tensor, tf.Tensor]:
    """Weights with which `models.mmd.mk_mmd2` is sum_c a_c MMD^2(source rows of class c, target rows of class c).

    Args:
        bad_s: (..., n_s) probability of bad of the source rows, 0 or 1 where labels are known.
        bad_t: (..., n_t) the same of the target rows.
        share_of_bads: a_bad, in (0, 1); a_good is what is left. 1/2 is local MMD (Zhu et al., IEEE TNNLS 2021, eq. 7).

    Returns:
        (..., n_s, 2) and (..., n_t, 2), the columns bad and good: each sums to sqrt(a_c), or to 0 on both sides where
        one side has no row of the class.
    """
    columns_s, columns_t = (tf.stack([bad, 1.0 - bad], axis=-1) for bad in (bad_s, bad_t))
    mass_s, mass_t = (tf.reduce_sum(columns, axis=-2, keepdims=True) for columns in (columns_s, columns_t))
    present = tf.cast((mass_s > 0.0) & (mass_t > 0.0), columns_s.dtype)
    root = present * tf.sqrt(tf.constant([share_of_bads, 1.0 - share_of_bads], columns_s.dtype))
    return root * tf.math.divide_no_nan(columns_s, mass_s), root * tf.math.divide_no_nan(columns_t, mass_t)


def row_weights(
    rule: RowWeights, batch: Batch, prior_target: float | None
) -> tuple[tf.Tensor | None, tf.Tensor | None]:
    """Weights of the source and target rows of a batch by the rule, as `mk_mmd2` takes them; None: all equal.

    The rules that need the target's bad rate leave rows equal where it is not known; "class_conditional" then takes
    that of the source rows drawn to be a half.
    """
    if rule == "class_conditional":
        return class_weights(batch.y_s, batch.bad_t(prior_target), 0.5 if prior_target is None else prior_target)
    return source_weights(rule, batch, prior_target), None


def source_weights(rule: RowWeights, batch: Batch, prior_target: float | None) -> tf.Tensor | None:
    """Weights (S, n_s) for the methods that know of no conditions: to the target's bad rate unless rows are equal."""
    return None if rule == "equal" or prior_target is None else label_shift_weights(batch.y_s, prior_target)

"""Deep CORAL: second moments alike (Sun and Saenko, ECCV workshops 2016).

L = L_class + lambda sum_l |C_s - C_t|_F^2 / (4 d^2)                                         (ibid., eq. 1 and 6)
"""

from __future__ import annotations

import tensorflow as tf

from models.deep.method import Batch, LayerMethod
from models.deep.weights import source_weights


class DeepCoral(LayerMethod):
    """CORAL's distance on each aligned layer; source rows weighted to the target's bad rate where it is known."""

    def distance(self, layer: str, batch: Batch) -> tf.Tensor:
        """`coral2` (S,) of one layer."""
        weights_s = source_weights(self.spec.row_weights, batch, self.prior_target)
        return coral2(batch.source[layer], batch.target[layer], weights_s)


def coral2(x_s: tf.Tensor, x_t: tf.Tensor, weights_s: tf.Tensor | None = None) -> tf.Tensor:
    """|C_s - C_t|_F^2 / (4 d^2), the squared distance of two covariance matrices (Sun and Saenko 2016, eq. 1).

    Args:
        x_s: source rows (..., n_s, d).
        x_t: target rows (..., n_t, d), of any number.
        weights_s: (..., n_s) weights >= 0 of the source rows; None: equal.

    Returns:
        (...) >= 0; 0 with a gradient of 0 for batches without variance, and for a batch of one row as if it had none.

    Raises:
        ValueError: where the columns differ.
    """
    x_s, x_t = tf.convert_to_tensor(x_s), tf.convert_to_tensor(x_t)
    if x_s.shape[-1] != x_t.shape[-1]:
        raise ValueError(f"source and target must have the same columns, got {x_s.shape} and {x_t.shape}")
    difference = covariance(x_s, weights_s) - covariance(x_t)
    return tf.reduce_sum(tf.square(difference), (-2, -1)) / (4.0 * x_s.shape[-1] ** 2)


def covariance(x: tf.Tensor, weights: tf.Tensor | None = None) -> tf.Tensor:
    """Covariance matrix (..., d, d) of rows (..., n, d), unbiased: sum w (x - m)(x - m)^T / (1 - sum w^2), sum w = 1.

    With equal weights the divisor is that of n - 1 (eq. 2 and 3); one row has covariance 0.
    """
    ones = tf.ones_like(x[..., 0]) if weights is None else tf.cast(weights, x.dtype)
    w = (ones / tf.reduce_sum(ones, axis=-1, keepdims=True))[..., None]
    centred = x - tf.reduce_sum(w * x, axis=-2, keepdims=True)
    spread = tf.matmul(w * centred, centred, transpose_a=True)
    return tf.math.divide_no_nan(spread, 1.0 - tf.reduce_sum(tf.square(w), axis=-2, keepdims=True))

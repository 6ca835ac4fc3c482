"""Squared distances and families of Gaussian kernels on the rows of one matrix, in TensorFlow.

Tensors in, tensors out, in float32 or float64; N rows, d columns. What is made of the kernels (estimators, weights,
gradients) lives in `models.mmd`; nothing here trains, logs or reads files.
"""

from __future__ import annotations

import tensorflow as tf

BANDWIDTH_FLOOR = 1e-12
"""Added to a bandwidth taken from the rows: a batch without variance then gives 0 / 1e-12 instead of 0 / 0."""

SQUARING_LIMIT = 9
"""Every squaring doubles the relative error of its kernel: 2^8 float32 roundings are 3e-5, tolerable; with 33
kernels it moved the loss in its fifth digit (measured), so beyond 9 each kernel gets its own exponential."""


def squared_distances(x: tf.Tensor) -> tf.Tensor:
    """All squared Euclidean distances (N, N) of the rows of x (N, d), by one matrix product: |a|^2 + |b|^2 - 2 a.b.

    Never negative, exactly 0 on the diagonal. x should be centred: at offset 1000 and spread 0.1 a third of the
    float32 "squared distances" come out negative, while centred rows are right to 3e-7.
    """
    squared_norms = tf.reduce_sum(tf.square(x), axis=1)
    distances = squared_norms[:, None] + squared_norms - 2.0 * tf.matmul(x, x, transpose_b=True)
    return tf.linalg.set_diag(tf.maximum(distances, 0.0), tf.zeros_like(squared_norms))


def mean_squared_distance(x: tf.Tensor) -> tf.Tensor:
    """Mean of the squared distances over the N^2 - N pairs of different rows of a CENTRED x (N, d); a scalar >= 0.

    The sum over all pairs is 2 N sum |x_i|^2 when the rows have mean zero: no (N, N) matrix is needed.
    """
    rows = tf.cast(tf.shape(x)[0], x.dtype)
    return 2.0 * tf.reduce_sum(tf.square(x)) / (rows - 1.0)


def gaussian_family(exponents: tf.Tensor, *, kernel_num: int, kernel_mul: float) -> list[tf.Tensor]:
    """The kernels exp(-u * kernel_mul^j), j = 0 .. kernel_num - 1, widest first, each (N, N) in (0, 1].

    Args:
        exponents: u (N, N) >= 0, the squared distances divided by the WIDEST bandwidth.
        kernel_num: how many kernels, at least 1.
        kernel_mul: ratio of neighbouring bandwidths.

    With ratio 2 each kernel is the square of the one before: one exponential instead of kernel_num of them.
    """
    kernels = [tf.exp(-exponents)]
    for j in range(1, kernel_num):
        if kernel_mul == 2.0 and kernel_num <= SQUARING_LIMIT:
            kernels.append(tf.square(kernels[-1]))
        else:
            kernels.append(tf.exp(-exponents * kernel_mul**j))
    return kernels

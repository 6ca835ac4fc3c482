"""Families of Gaussian kernels between the rows of two matrices, in TensorFlow, and their bandwidths.

Tensors in, tensors out, in float32 or float64; any leading axes (an ensemble of seeds) are carried along. What is made
of the kernels lives in `models.pair_blocks` (sums, gradients) and `models.mmd`; nothing here trains or reads files.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from models.kernel_family import KernelFamily

Exp = Callable[[tf.Tensor], tf.Tensor]

BANDWIDTH_FLOOR = 1e-12
"""Added to a bandwidth taken from the rows: a batch without variance then gives 0 / 1e-12 instead of 0 / 0."""

SQUARING_LIMIT = 9
"""Every squaring doubles the relative error of its kernel: 2^8 float32 roundings are 3e-5, tolerable; with 33
kernels it moved the loss in its fifth digit (measured), so beyond 9 each kernel gets its own exponential."""

LOG2_E = 1.44269504088896341
LN_2 = (0.693359375, -2.12194440e-4)
"""its high and its low part: the first has so few digits that r times it is exact"""
CEPHES_EXP = (
    1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1,
)  # fmt: skip
"""of (exp(f) - 1 - f) / f^2, highest power first"""

MEDIAN_ROWS = 128
"""Rows whose 8,128 pairs the median is taken over, evenly spaced in the joint batch: sorting all 523,776 pairs of a
batch of 512 + 512 would take longer than the rest of the step, and the median of these is within 1.5% of theirs."""


def kernel_sums(exponents: tf.Tensor, family: KernelFamily, exp: Exp = tf.exp) -> tuple[tf.Tensor, tf.Tensor]:
    """The sum of the kernels and, with its sign changed, the slope of that sum.

    Args:
        exponents: (..., n, m), squared distances divided by the WIDEST bandwidth, with their sign changed: <= 0.
        family: its number of kernels and their ratio are read.
        exp: the exponential; `exp_of_arithmetic` where the caller is compiled.

    Returns:
        K = sum_j exp(-u mul^j), in (0, num], and -dK/du = sum_j mul^j exp(-u mul^j); both (..., n, m).

    With ratio 2 each kernel is the square of the one before: one exponential instead of `num` of them. Both sums are
    taken by Horner's rule, narrowest kernel first, and never by tf.add_n, which takes 70 times as long as an addition
    of this size (measured, TensorFlow 2.21 on a CPU).
    """
    kernels = [exp(exponents)]
    for j in range(1, family.num):
        if family.mul == 2.0 and family.num <= SQUARING_LIMIT:
            kernels.append(tf.square(kernels[-1]))
        else:
            kernels.append(exp(exponents * family.mul**j))
    total = minus_slope = kernels.pop()
    while kernels:
        wider = kernels.pop()
        total, minus_slope = total + wider, family.mul * minus_slope + wider
    return total, minus_slope


def exp_of_arithmetic(x: tf.Tensor) -> tf.Tensor:
    """exp of float32 numbers x <= 0 to 1e-7 of itself, in additions, products and one shift; below -87 as at -87.

    Never 0, but 2e-38. For compiled functions: XLA (TensorFlow 2.21, CPU) computes an exponential anew for each of its
    uses in a fused loop, arithmetic but once, and the kernels are then twice as fast (measured). x = r ln 2 + f with
    |f| <= ln 2 / 2; the polynomial in f and the two parts of ln 2 are those of expf in S. L. Moshier's Cephes library.
    """
    x = tf.maximum(x, -87.0)
    r = tf.floor(x * LOG2_E + 0.5)
    f = (x - r * LN_2[0]) - r * LN_2[1]
    polynomial = tf.fill(tf.shape(f), CEPHES_EXP[0])
    for coefficient in CEPHES_EXP[1:]:
        polynomial = polynomial * f + coefficient
    power_of_2 = tf.bitcast(tf.bitwise.left_shift(tf.cast(r, tf.int32) + 127, 23), tf.float32)
    return (polynomial * (f * f) + f + 1.0) * power_of_2


def centre_of(x_s: tf.Tensor, x_t: tf.Tensor, family: KernelFamily) -> tf.Tensor:
    """The bandwidth (...) of the family's rule for CENTRED rows (..., n_s, d) and (..., n_t, d); above 0."""
    if family.sigma is not None:
        return tf.fill(tf.shape(x_s)[:-2], tf.constant(family.sigma, x_s.dtype))
    centre = mean_squared_distance(x_s, x_t)
    if family.bandwidth == "median":  # 0 where most rows coincide (dead units): kernels of width 0 have no gradient
        median = median_squared_distance(x_s, x_t)
        centre = tf.where(median > 0.0, median, centre)
    return centre + BANDWIDTH_FLOOR


def mean_squared_distance(x_s: tf.Tensor, x_t: tf.Tensor) -> tf.Tensor:
    """Mean of the squared distances over the N^2 - N pairs of different rows of a joint batch of mean zero; (...) >= 0.

    The sum over all pairs is 2 N sum |x_i|^2 when the rows have mean zero: no (N, N) matrix is needed.
    """
    rows = tf.cast(tf.shape(x_s)[-2] + tf.shape(x_t)[-2], x_s.dtype)
    squares = tf.reduce_sum(tf.square(x_s), (-2, -1)) + tf.reduce_sum(tf.square(x_t), (-2, -1))
    return 2.0 * squares / (rows - 1.0)


def median_squared_distance(x_s: tf.Tensor, x_t: tf.Tensor) -> tf.Tensor:
    """Median of the squared distances of the pairs of different rows, over at most MEDIAN_ROWS of the joint batch."""
    joint = tf.concat([x_s, x_t], axis=-2)
    rows = tf.shape(joint)[-2]
    kept = tf.minimum(rows, MEDIAN_ROWS)
    places = tf.range(kept) * rows // kept
    x = tf.gather(joint, places, axis=-2)
    left, right = tf.unstack(tf.where(tf.range(kept)[:, None] < tf.range(kept)), axis=1)
    distances = tf.sort(tf.reduce_sum(tf.square(tf.gather(x, left, axis=-2) - tf.gather(x, right, axis=-2)), -1), -1)
    pairs = tf.shape(distances)[-1]
    return tf.reduce_mean(tf.gather(distances, [(pairs - 1) // 2, pairs // 2], axis=-1), -1)


def negative_squared_distances(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """-|a_i - b_j|^2 (..., n, m) for rows a (..., n, d) and b (..., m, d), in one matrix product; never above 0.

    |a|^2 + |b|^2 - 2 a.b as the product of [2 a, -|a|^2, 1] with [b, 1, -|b|^2]: two more columns instead of three more
    passes over (n, m). The rows should be centred: at offset 1000 and spread 0.1 a third of the float32 "squared
    distances" come out negative, while centred rows are right to 3e-7.
    """
    norm_a, norm_b = (tf.reduce_sum(tf.square(x), axis=-1, keepdims=True) for x in (a, b))
    left = tf.concat([2.0 * a, -norm_a, tf.ones_like(norm_a)], axis=-1)
    right = tf.concat([b, tf.ones_like(norm_b), -norm_b], axis=-1)
    return tf.minimum(tf.matmul(left, right, transpose_b=True), 0.0)

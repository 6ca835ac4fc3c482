"""Maximum mean discrepancy with several Gaussian kernels (MK-MMD). Tensors in, scalars out.

Nothing here trains, logs or reads files; the kernels themselves are in `models.kernels`. Notation: docs/method.md.

With the joint batch X = [x_s; x_t] of N = n_s + n_t rows, K_ij = sum over l of exp(-|X_i - X_j|^2 / (b kernel_mul^l))
and a fixed (N, N) matrix M, every estimate here is one sum over pairs, sum_ij M_ij K_ij = tr(K M).
References: Gretton et al., JMLR 13 (2012), eq. (3) unbiased and (5) biased; Long et al., ICML 2015 (DAN), section 3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import tensorflow as tf

from models.kernels import BANDWIDTH_FLOOR, gaussian_family, mean_squared_distance, squared_distances

Estimator = Literal["biased", "unbiased"]
Reduce = Literal["sum", "mean"]


def mk_mmd2(
    x_s: tf.Tensor,
    x_t: tf.Tensor,
    *,
    kernel_num: int = 5,
    kernel_mul: float = 2.0,
    fix_sigma: float | None = None,
    estimator: Estimator = "biased",
    reduce: Reduce = "sum",
    bandwidth_gradient: bool,
    source_weights: tf.Tensor | None = None,
) -> tf.Tensor:
    """Squared MK-MMD between the rows of two batches.

    The article's is estimator="biased", reduce="sum", bandwidth_gradient=True. First derivatives only, and only with
    respect to x_s and x_t: the gradient is written out (see `_discrepancy`), weights count as constants.

    Args:
        x_s: source rows (n_s, d), float32 or float64.
        x_t: target rows (n_t, d) of the same type; n_t may differ from n_s.
        kernel_num: kernels in the family, bandwidths b * kernel_mul^l for l = 0 .. kernel_num - 1.
        kernel_mul: ratio of neighbouring bandwidths, above 1.
        fix_sigma: takes the place of the mean squared distance of the joint batch in
            b = mean / kernel_mul^(kernel_num // 2), so that the family is centred on it; None: the mean itself.
        estimator: "biased" keeps the diagonals of the within blocks (V-statistic), "unbiased" leaves them out.
        reduce: "sum" of the kernels, or their "mean", whose scale does not depend on kernel_num.
        bandwidth_gradient: whether the gradient also flows through b.
        source_weights: (n_s,) weights >= 0 of the source rows, normalised here; None: all equal.

    Returns:
        A scalar of the type of x_s. Biased: in [0, 2 kernel_num] (sum) up to rounding. Unbiased: zero in expectation
        when both batches come from one distribution, hence often negative. A batch without variance gives a finite
        value and gradient.

    Raises:
        ValueError: on shapes or options that do not fit, and for "unbiased" on a batch known to have fewer than 2 rows.
    """
    x_s, x_t = tf.convert_to_tensor(x_s), tf.convert_to_tensor(x_t)
    _check_batches(x_s, x_t, at_least=2 if estimator == "unbiased" else 1)
    _check_options(kernel_num, kernel_mul, fix_sigma, estimator, reduce)
    weights = _uniform(x_s) if source_weights is None else _normalised(source_weights, x_s)
    coefficients = pair_coefficients(weights, _uniform(x_t), estimator)
    scale = 1.0 / kernel_num if reduce == "mean" else 1.0
    joint = tf.concat([x_s, x_t], axis=0)
    return scale * _discrepancy(joint, coefficients, kernel_num, kernel_mul, fix_sigma, bandwidth_gradient)


def pair_coefficients(weights_s: tf.Tensor, weights_t: tf.Tensor, estimator: Estimator) -> tf.Tensor:
    """The matrix M (N, N) with which the estimate is tr(K M), from weights (n_s,) and (n_t,) that each sum to 1.

    Biased: M = w w^T, w = [weights_s; -weights_t]. Unbiased: the diagonal is 0 and each within block is divided by
    1 - sum w_i^2, the mass that the diagonal took (1 - 1/n for equal weights).
    """
    if estimator == "biased":
        signed = tf.concat([weights_s, -weights_t], axis=0)
        return signed[:, None] * signed
    blocks = [
        tf.concat([_within(weights_s), -weights_s[:, None] * weights_t], axis=1),
        tf.concat([-weights_t[:, None] * weights_s, _within(weights_t)], axis=1),
    ]
    return tf.concat(blocks, axis=0)


def label_shift_weights(y_s: tf.Tensor, prior_target: float) -> tf.Tensor:
    """Weights pi_target(y) / pi_batch(y) of the drawn source rows, under which they have the target's bad rate.

    Without them the marginal MMD between populations of different bad rates is smallest where the classes are pulled
    together (Zhao et al., ICML 2019).

    Args:
        y_s: (n_s,) labels 0 or 1 of the source rows of this batch, floating point.
        prior_target: bad rate of the target, in (0, 1).

    Returns:
        (n_s,) weights > 0, with mean 1 when the batch holds both classes. A class that was not drawn cannot be
        weighted up: the other one is then weighted evenly.

    Raises:
        ValueError: when the prior is not inside (0, 1) or y_s is not a vector.
    """
    y_s = tf.convert_to_tensor(y_s)
    if y_s.shape.rank != 1:
        raise ValueError(f"source labels must have shape (n_s,), got {y_s.shape}")
    if not 0.0 < prior_target < 1.0:
        raise ValueError(f"the target prior must lie inside (0, 1), got {prior_target}; pass none to leave it out")
    bad_rate = tf.reduce_mean(y_s)
    of_bads = tf.math.divide_no_nan(tf.cast(prior_target, y_s.dtype), bad_rate)
    of_goods = tf.math.divide_no_nan(tf.cast(1.0 - prior_target, y_s.dtype), 1.0 - bad_rate)
    return tf.where(y_s > 0.5, of_bads, of_goods)


def no_shift_band(
    x: tf.Tensor,
    halves: tf.Tensor,
    *,
    kernel_num: int = 5,
    kernel_mul: float = 2.0,
    fix_sigma: float | None = None,
    reduce: Reduce = "sum",
) -> tf.Tensor:
    """Standard deviation of the unbiased MK-MMD between two halves of one sample, over several ways to halve it.

    It says how large an estimate is that means nothing: between m and m rows that share a distribution. The kernels
    are computed once, because the joint batch, and so the bandwidth, is the same however it is halved.

    Args:
        x: rows (2 m, d) of one population.
        halves: (r, 2 m), each row m times +1 and m times -1; r at least 2.
        kernel_num: as in `mk_mmd2`.
        kernel_mul: as in `mk_mmd2`.
        fix_sigma: as in `mk_mmd2`.
        reduce: as in `mk_mmd2`.

    Returns:
        A scalar >= 0 of the type of x.

    Raises:
        ValueError: on an odd or too small sample, or options that do not fit.
    """
    x = tf.convert_to_tensor(x)
    _check_options(kernel_num, kernel_mul, fix_sigma, "unbiased", reduce)
    if x.shape.rank != 2 or (x.shape[0] is not None and (x.shape[0] < 4 or x.shape[0] % 2)):
        raise ValueError(f"the sample must have shape (2 m, d) with m at least 2, got {x.shape}")
    m = tf.cast(tf.shape(x)[0] // 2, x.dtype)
    z, _ = _scaled(x, kernel_num, kernel_mul, fix_sigma)
    kernel = tf.add_n(gaussian_family(squared_distances(z), kernel_num=kernel_num, kernel_mul=kernel_mul))
    kernel = tf.linalg.set_diag(kernel, tf.zeros_like(kernel[0]))
    contrast = tf.reduce_sum(tf.matmul(halves, kernel) * halves, axis=1)  # within blocks - cross blocks
    total = tf.reduce_sum(kernel)  # within + cross
    estimates = (total + contrast) / (2.0 * m * (m - 1.0)) - (total - contrast) / (2.0 * m * m)
    scale = 1.0 / kernel_num if reduce == "mean" else 1.0
    return scale * tf.math.reduce_std(estimates)


def _discrepancy(
    x: tf.Tensor,
    coefficients: tf.Tensor,
    kernel_num: int,
    kernel_mul: float,
    fix_sigma: float | None,
    bandwidth_gradient: bool,
) -> tf.Tensor:
    """sum_ij M_ij K_ij of the joint batch x (N, d), with its gradient by hand.

    With z = x / sqrt(widest bandwidth), u_ij = |z_i - z_j|^2 and A_ij = M_ij dK_ij/du_ij (symmetric), at fixed
    bandwidths dL/dz_i = sum_j (A_ij + A_ji) 2 (z_i - z_j) = 4 (z_i sum_j A_ij - sum_j A_ij z_j).
    Through the bandwidth: a common factor on all centred rows cancels in u, so L has no slope along z itself, and
    letting the gradient flow through b comes to taking that component out.
    """

    @tf.custom_gradient
    def discrepancy(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        z, widest = _scaled(x, kernel_num, kernel_mul, fix_sigma)
        kernels = gaussian_family(squared_distances(z), kernel_num=kernel_num, kernel_mul=kernel_mul)

        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            slope = -tf.add_n([kernel * kernel_mul**j for j, kernel in enumerate(kernels)])
            A = coefficients * slope
            along_z = 4.0 * (z * tf.reduce_sum(A, axis=1, keepdims=True) - tf.matmul(A, z))
            if bandwidth_gradient and fix_sigma is None:
                # |z|^2 is this number by the definition of b; the sum itself would give 0 / 0 without variance
                squared_norm = (_rows(x) - 1.0) / (2.0 * kernel_mul ** (kernel_num - 1 - kernel_num // 2))
                along_z -= z * tf.reduce_sum(z * along_z) / squared_norm
            return upstream * along_z * tf.math.rsqrt(widest)

        return tf.reduce_sum(coefficients * tf.add_n(kernels)), gradient

    return discrepancy(x)


def _within(weights: tf.Tensor) -> tf.Tensor:
    """Coefficients (n, n) of one population's own pairs, i != j, that sum to 1."""
    pairs = weights[:, None] * weights / (1.0 - tf.reduce_sum(tf.square(weights)))
    return tf.linalg.set_diag(pairs, tf.zeros_like(weights))


def _scaled(x: tf.Tensor, kernel_num: int, kernel_mul: float, fix_sigma: float | None) -> tuple[tf.Tensor, tf.Tensor]:
    """Centred rows divided by the root of the widest bandwidth, and that bandwidth."""
    x = x - tf.reduce_mean(x, axis=0)  # against cancellation in float32; the estimate ignores a common offset
    centre = mean_squared_distance(x) + BANDWIDTH_FLOOR if fix_sigma is None else tf.constant(fix_sigma, x.dtype)
    widest = centre * kernel_mul ** (kernel_num - 1 - kernel_num // 2)
    return x * tf.math.rsqrt(widest), widest


def _rows(x: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.shape(x)[0], x.dtype)


def _uniform(x: tf.Tensor) -> tf.Tensor:
    return tf.ones_like(x[:, 0]) / _rows(x)


def _normalised(weights: tf.Tensor, x_s: tf.Tensor) -> tf.Tensor:
    weights = tf.convert_to_tensor(weights, x_s.dtype)
    if weights.shape.rank != 1 or not weights.shape.is_compatible_with(x_s.shape[:1]):
        raise ValueError(f"source_weights must have shape (n_s,) = {x_s.shape[:1]}, got {weights.shape}")
    return weights / tf.reduce_sum(weights)


def _check_batches(x_s: tf.Tensor, x_t: tf.Tensor, at_least: int) -> None:
    if x_s.shape.rank != 2 or x_t.shape.rank != 2 or not x_s.shape[1:].is_compatible_with(x_t.shape[1:]):
        raise ValueError(f"source and target must have shapes (n_s, d) and (n_t, d), got {x_s.shape} and {x_t.shape}")
    if x_s.dtype != x_t.dtype or not x_s.dtype.is_floating:
        raise ValueError(f"source and target must share one floating type, got {x_s.dtype} and {x_t.dtype}")
    for name, rows in (("source", x_s.shape[0]), ("target", x_t.shape[0])):
        if rows is not None and rows < at_least:
            raise ValueError(
                f"the {name} batch has {rows} rows, at least {at_least} needed for this estimator; "
                "drop short tails or make batches larger"
            )


def _check_options(kernel_num: int, kernel_mul: float, fix_sigma: float | None, estimator: str, reduce: str) -> None:
    if kernel_num < 1 or kernel_mul <= 1.0:
        raise ValueError(f"kernel_num must be at least 1 and kernel_mul above 1, got {kernel_num} and {kernel_mul}")
    if fix_sigma is not None and fix_sigma <= 0.0:
        raise ValueError(f"fix_sigma must be positive, got {fix_sigma}; pass None to take it from the batch")
    if estimator not in ("biased", "unbiased"):
        raise ValueError(f'estimator must be "biased" or "unbiased", got {estimator!r}')
    if reduce not in ("sum", "mean"):
        raise ValueError(f'reduce must be "sum" or "mean", got {reduce!r}')

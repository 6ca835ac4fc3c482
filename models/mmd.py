"""Maximum mean discrepancy with several Gaussian kernels (MK-MMD): tensors in, tensors out, with its gradient by hand.

Nothing here trains, logs or reads files; the kernels are in `models.kernels`. Any leading axes of the batches are
carried along: an ensemble of S seeds is one call on (S, n, d) with S results.

With weights w_s and w_t of the rows that each sum to 1 and k the family's kernel, the squared discrepancy is
    sum_ij w_si w_sj k(x_si, x_sj) + sum_ij w_ti w_tj k(x_ti, x_tj) - 2 sum_ij w_si w_tj k(x_si, x_tj),
three blocks of pairs, which `models.pair_blocks` makes.
References: Gretton et al., JMLR 13 (2012), eq. (3) unbiased, (5) biased, (8) linear time; Long et al., ICML 2015 (DAN),
section 3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import tensorflow as tf

from models.kernel_family import KernelFamily
from models.kernels import centre_of, kernel_sums, negative_squared_distances
from models.pair_blocks import Rows, pair_sums

Estimator = Literal["biased", "unbiased", "linear"]

ONE_ROW = 1e-4
"""A condition rests on one row where pairs of different rows have less of its weight than this. Leaving the diagonal
out is then the difference of two numbers that agree in float32: the gradient was off by 2% at 1.3e-4, by all of itself
at 1.3e-5 (measured against float64)."""


@tf.autograph.experimental.do_not_convert  # nothing in it is to become a graph's own control flow
def mk_mmd2(
    x_s: tf.Tensor,
    x_t: tf.Tensor,
    family: KernelFamily,
    estimator: Estimator = "biased",
    *,
    weights_s: tf.Tensor | None = None,
    weights_t: tf.Tensor | None = None,
    centre: tf.Tensor | None = None,
) -> tf.Tensor:
    """Squared MK-MMD between the rows of two batches.

    First derivatives only, and only with respect to x_s and x_t: weights and `centre` count as constants, and so does
    the bandwidth unless `family.gradient`. The article's is `ARTICLE_KERNELS` of `models.deep.presets` with "biased".

    Args:
        x_s: source rows (..., n_s, d), float32 or float64.
        x_t: target rows (..., n_t, d) of the same type and leading axes; n_t may differ from n_s.
        family: kernels, bandwidth rule, and sum or mean.
        estimator: "biased" keeps the diagonals of the within blocks (V-statistic), "unbiased" leaves them out, "linear"
            takes each row once (time n d instead of n^2 d; with the same expectation as "unbiased" and far more noise).
        weights_s: (..., n_s) weights >= 0 of the source rows, normalised here; None: all equal. With one more axis,
            (..., n_s, C), the result is the sum over C conditions of one discrepancy each, and nothing is normalised:
            weights of a condition that sum to sqrt(a) on both sides count it a times.
        weights_t: the same of the target rows; both have the last axis C or neither.
        centre: (...) bandwidth in the place of the rule's; then no gradient flows through it.

    Returns:
        (...) of the type of x_s. Biased: in [0, 2] times the weight of the conditions (times `num` for a sum) up to
        rounding. Unbiased and linear: zero in expectation when both batches come from one distribution, hence often
        negative. NaN where a row is, or where squared distances exceed the type's range (rows of 1e18 in float32). A
        batch without variance gives a finite value and gradient. A condition whose weight rests on one row
        of either population has no pair to estimate from: unbiased, it adds 0.

    Raises:
        ValueError: on shapes or options that do not fit, and for "unbiased" and "linear" on a batch known to have fewer
            than 2 rows.
    """
    x_s, x_t = tf.convert_to_tensor(x_s), tf.convert_to_tensor(x_t)
    _check_batches(x_s, x_t, at_least=1 if estimator == "biased" else 2)
    v_s, v_t = _columns(weights_s, x_s, "source"), _columns(weights_t, x_t, "target")
    if v_s.shape[-1] != v_t.shape[-1]:
        raise ValueError(f"weights of both populations need the same conditions, got {v_s.shape} and {v_t.shape}")
    match estimator:
        case "biased" | "unbiased":
            return family.scale * _quadratic(x_s, x_t, v_s, v_t, family, estimator == "unbiased", centre)
        case "linear":
            return family.scale * _linear(x_s, x_t, v_s, v_t, family, centre)
        case _:
            raise ValueError(f'estimator must be "biased", "unbiased" or "linear", got {estimator!r}')


def no_shift_band(
    x: tf.Tensor, halves: tf.Tensor, family: KernelFamily, *, centre: tf.Tensor | None = None
) -> tf.Tensor:
    """Standard deviation of the unbiased MK-MMD between two halves of one sample, over several ways to halve it.

    It says how large an estimate is that means nothing: between m and m rows that share a distribution. The kernels
    are computed once, because the joint batch, and so the bandwidth, is the same however it is halved.

    Args:
        x: rows (..., 2 m, d) of one population.
        halves: (r, 2 m), each row m times +1 and m times -1; r at least 2.
        family: as in `mk_mmd2`.
        centre: as in `mk_mmd2`.

    Returns:
        (...) >= 0 of the type of x.

    Raises:
        ValueError: on an odd or too small sample, or halves of another one.
    """
    x = tf.convert_to_tensor(x)
    if x.shape.rank < 2 or (x.shape[-2] is not None and (x.shape[-2] < 4 or x.shape[-2] % 2)):
        raise ValueError(f"the sample must have shape (..., 2 m, d) with m at least 2, got {x.shape}")
    if not x.shape[-2:-1].is_compatible_with(halves.shape[-1:]):
        raise ValueError(f"halves must have one sign for each of the {x.shape[-2]} rows, got shape {halves.shape}")
    m = tf.cast(tf.shape(x)[-2] // 2, x.dtype)
    halves = tf.cast(halves, x.dtype)
    kernel = joint_kernel(x, family, centre=centre)
    contrast = tf.reduce_sum(tf.matmul(halves, kernel) * halves, axis=-1)  # within blocks - cross blocks
    total = tf.reduce_sum(kernel, (-2, -1))[..., None]  # within + cross
    estimates = (total + contrast) / (2.0 * m * (m - 1.0)) - (total - contrast) / (2.0 * m * m)
    return family.scale * tf.math.reduce_std(estimates, axis=-1)


def joint_kernel(x: tf.Tensor, family: KernelFamily, *, centre: tf.Tensor | None = None) -> tf.Tensor:
    """Sum of the kernels (..., N, N) between the rows of a joint batch (..., N, d), its diagonal 0.

    Bandwidths do not change when rows change sides: one kernel serves every way to part them.
    """
    rows = _scaled(x, x[..., :0, :], family, centre).z
    kernel, _ = kernel_sums(negative_squared_distances(rows, rows), family)
    return tf.linalg.set_diag(kernel, tf.zeros_like(kernel[..., 0]))


# --- all pairs ---


def _quadratic(
    x_s: tf.Tensor,
    x_t: tf.Tensor,
    v_s: tf.Tensor,
    v_t: tf.Tensor,
    family: KernelFamily,
    unbiased: bool,
    centre: tf.Tensor | None,
) -> tf.Tensor:
    """Sums over all pairs of the rows z = x / sqrt(widest bandwidth), with the gradient by hand.

    Through the bandwidth: a common factor on all centred rows cancels in the distances, so the sum has no slope along z
    itself, and letting the gradient flow through the mean distance comes to taking that component out.
    """
    u_s, u_t = v_s, v_t
    if unbiased:
        has_pairs = tf.cast(tf.minimum(_others(v_s), _others(v_t)) > ONE_ROW, v_s.dtype)
        v_s, v_t = v_s * has_pairs, v_t * has_pairs
        u_s, u_t = _within(v_s), _within(v_t)
    through_bandwidth = family.gradient and family.sigma is None and centre is None

    @tf.custom_gradient
    def discrepancy(x_s: tf.Tensor, x_t: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, ...]]]:
        scaled = _scaled(x_s, x_t, family, centre)
        z_s, z_t = tf.split(scaled.z, [tf.shape(x_s)[-2], tf.shape(x_t)[-2]], axis=-2)
        z_s, z_t = tf.ensure_shape(z_s, x_s.shape), tf.ensure_shape(z_t, x_t.shape)
        source, target = Rows(z_s, u_s, v_s), Rows(z_t, u_t, v_t)
        value, *slopes = pair_sums(source, target, family, keeps_diagonal=not unbiased)

        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, ...]:
            slope_s, slope_t = slopes
            if through_bandwidth:
                along = tf.reduce_sum(z_s * slope_s, (-2, -1), True) + tf.reduce_sum(z_t * slope_t, (-2, -1), True)
                # |z|^2 is this number by the definition of b; the sum itself would give 0 / 0 without variance
                rows = tf.cast(tf.shape(x_s)[-2] + tf.shape(x_t)[-2], x_s.dtype)
                along /= (rows - 1.0) / (2.0 * family.widest)
                slope_s, slope_t = slope_s - z_s * along, slope_t - z_t * along
            factor = upstream[..., None, None] * scaled.inverse_root
            return slope_s * factor, slope_t * factor

        return value, gradient

    return discrepancy(x_s, x_t)


def _within(v: tf.Tensor) -> tf.Tensor:
    """Weights (..., n, C) with which pairs i != j of one population count as much as all pairs did before.

    A condition of total weight t keeps t^2 when its pairs are divided by 1 - sum (v_i / t)^2, what the diagonal leaves.
    """
    return tf.math.divide_no_nan(v, tf.sqrt(_others(v)))


def _others(v: tf.Tensor) -> tf.Tensor:
    """1 - sum (v_i / t)^2 (..., 1, C): the share of the weight of all pairs that is on pairs of different rows."""
    total = tf.reduce_sum(v, axis=-2, keepdims=True)
    squares = tf.reduce_sum(tf.square(v), axis=-2, keepdims=True)
    return tf.math.divide_no_nan(tf.square(total) - squares, tf.square(total))


@dataclass(frozen=True)
class _Scaled:
    z: tf.Tensor
    """(..., N, d) centred rows divided by the root of the widest bandwidth"""
    inverse_root: tf.Tensor
    """(..., 1, 1) that they were multiplied by"""


def _scaled(x_s: tf.Tensor, x_t: tf.Tensor, family: KernelFamily, centre: tf.Tensor | None) -> _Scaled:
    rows = tf.cast(tf.shape(x_s)[-2] + tf.shape(x_t)[-2], x_s.dtype)
    mean = (tf.reduce_sum(x_s, -2, keepdims=True) + tf.reduce_sum(x_t, -2, keepdims=True)) / rows
    x_s, x_t = x_s - mean, x_t - mean  # against cancellation in float32; the estimate ignores a common offset
    found = centre_of(x_s, x_t, family) if centre is None else centre
    widest = tf.cast(found, x_s.dtype) * family.widest
    # beyond the type's range every row would be divided by infinity, and any two populations agree
    widest = tf.where(tf.math.is_inf(widest), tf.constant(float("nan"), x_s.dtype), widest)
    inverse_root = tf.math.rsqrt(widest)[..., None, None]
    return _Scaled(tf.concat([x_s, x_t], axis=-2) * inverse_root, inverse_root)


# --- each row once ---


def _linear(
    x_s: tf.Tensor,
    x_t: tf.Tensor,
    v_s: tf.Tensor,
    v_t: tf.Tensor,
    family: KernelFamily,
    centre: tf.Tensor | None,
) -> tf.Tensor:
    """Mean over quadruples of k(s, s') + k(t, t') - k(s, t') - k(s', t), each term weighted by its two rows.

    Rows pair up in their order, 2 i with 2 i + 1; what the smaller batch has no partner for is left out (JMLR 2012,
    eq. 8; Long et al. 2015, eq. 4).
    """
    if v_s.shape[-1] != 1:
        raise ValueError('several conditions need estimator "biased" or "unbiased"; "linear" takes each row once')
    scaled = _scaled(x_s, x_t, family, centre)
    through_bandwidth = family.gradient and centre is None
    factor = scaled.inverse_root if through_bandwidth else tf.stop_gradient(scaled.inverse_root)
    pairs = tf.minimum(tf.shape(x_s)[-2], tf.shape(x_t)[-2]) // 2
    (s, s_other), (t, t_other) = (_pairs(x * factor, pairs) for x in (x_s, x_t))
    (ws, ws_other), (wt, wt_other) = (_pairs(v, pairs) for v in (v_s, v_t))

    def term(a: tf.Tensor, b: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
        kernel, _ = kernel_sums(-tf.reduce_sum(tf.square(a - b), axis=-1), family)
        return tf.math.divide_no_nan(tf.reduce_sum(weight * kernel, -1), tf.reduce_sum(weight, -1))

    within = term(s, s_other, (ws * ws_other)[..., 0]) + term(t, t_other, (wt * wt_other)[..., 0])
    return within - term(s, t_other, (ws * wt_other)[..., 0]) - term(s_other, t, (ws_other * wt)[..., 0])


def _pairs(x: tf.Tensor, pairs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Rows 0, 2, 4 .. and 1, 3, 5 .. (..., pairs, d) of x (..., n, d)."""
    return x[..., : 2 * pairs : 2, :], x[..., 1 : 2 * pairs : 2, :]


# --- arguments ---


def _columns(weights: tf.Tensor | None, x: tf.Tensor, name: str) -> tf.Tensor:
    """Weights as (..., n, C): equal or one condition, summing to 1; several as they came."""
    if weights is None:
        ones = tf.ones_like(x[..., :1])
        return ones / tf.cast(tf.shape(x)[-2], x.dtype)
    weights = tf.stop_gradient(tf.cast(weights, x.dtype))
    if weights.shape.rank == x.shape.rank and weights.shape[:-1].is_compatible_with(x.shape[:-1]):
        return weights
    if weights.shape.rank != x.shape.rank - 1 or not weights.shape.is_compatible_with(x.shape[:-1]):
        raise ValueError(
            f"weights of the {name} must have shape {x.shape[:-1]}, or one more axis, a column a condition; got "
            f"{weights.shape}"
        )
    return (weights / tf.reduce_sum(weights, axis=-1, keepdims=True))[..., None]


def _check_batches(x_s: tf.Tensor, x_t: tf.Tensor, at_least: int) -> None:
    shapes = x_s.shape, x_t.shape
    if x_s.shape.rank is None or x_s.shape.rank < 2 or x_s.shape.rank != x_t.shape.rank:
        raise ValueError(f"source and target must have shapes (..., n_s, d) and (..., n_t, d), got {shapes}")
    if not (x_s.shape[:-2].is_compatible_with(x_t.shape[:-2]) and x_s.shape[-1:].is_compatible_with(x_t.shape[-1:])):
        raise ValueError(f"source and target must have shapes (..., n_s, d) and (..., n_t, d), got {shapes}")
    if x_s.shape[-1] == 0:
        raise ValueError(f"source and target must have at least one column, got {shapes}")
    if x_s.dtype != x_t.dtype or x_s.dtype not in (tf.float32, tf.float64):
        raise ValueError(
            f"source and target must both be float32 or both float64, got {x_s.dtype.name} and {x_t.dtype.name}; cast "
            "them"
        )
    for name, rows in (("source", x_s.shape[-2]), ("target", x_t.shape[-2])):
        if rows is not None and rows < at_least:
            raise ValueError(
                f"the {name} batch has {rows} rows, at least {at_least} needed for this estimator; "
                "drop short tails or make batches larger"
            )

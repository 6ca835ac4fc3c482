"""The known pitfalls of MK-MMD, one rule each in their usual order, then what other libraries get wrong.

Pitfall 9, dropout in two passes, is asked of a training in deep/test_gradients.py, and so is that the encoder gets the
gradient of both terms.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from models.deep.presets import PRESETS
from models.deep.weights import label_shift_weights
from models.kernel_family import KernelFamily
from models.kernels import mean_squared_distance, negative_squared_distances
from models.mmd import mk_mmd2, no_shift_band

DEFAULT = KernelFamily()
SUM = KernelFamily(reduce="sum")
ESTIMATORS = ["biased", "unbiased", "linear"]
RULES = {
    "mean": DEFAULT,
    "mean, gradient through it": KernelFamily(gradient=True),
    "median": KernelFamily(bandwidth="median"),
    "fixed": KernelFamily(bandwidth="fixed", sigma=2.0),
}


def rows(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def value_and_gradients(x_s: Any, x_t: Any, *args: Any, **options: Any) -> tuple[Any, np.ndarray, np.ndarray]:
    x_s, x_t = tf.convert_to_tensor(x_s), tf.convert_to_tensor(x_t)
    with tf.GradientTape() as tape:
        tape.watch([x_s, x_t])
        value = mk_mmd2(x_s, x_t, *args, **options)
    of_s, of_t = tape.gradient(value, [x_s, x_t])
    return value.numpy(), of_s.numpy(), of_t.numpy()


def mean_kernel(D: np.ndarray, b: float) -> np.ndarray:
    """The mean of five Gaussian kernels around the bandwidth b, of squared distances D."""
    return sum(np.exp(-D / (b * 2.0**i)) for i in range(-2, 3)) / 5


# --- the eleven pitfalls ---


@pytest.mark.parametrize(("offset", "spread"), [(100.0, 0.1), (1000.0, 1.0)])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_pitfall_1_features_far_from_zero_do_not_cancel_in_float32(
    offset: float, spread: float, estimator: Any
) -> None:
    # at offset 100 and spread .1 the uncentred product of rows errs by as much as half a distance
    x_s = (offset + spread * rows(64, 64)).astype(np.float32)
    x_t = (offset + spread * (rows(48, 64, seed=1) + 0.2)).astype(np.float32)
    single = value_and_gradients(x_s, x_t, DEFAULT, estimator)
    double = value_and_gradients(x_s.astype(np.float64), x_t.astype(np.float64), DEFAULT, estimator)
    assert single[0] == pytest.approx(double[0], abs=2e-5)
    for ours, exact in zip(single[1:], double[1:], strict=True):
        np.testing.assert_allclose(ours, exact, atol=1e-3 * np.abs(exact).max())


def test_pitfall_2_the_diagonal_is_exact_in_the_biased_estimate_and_absent_from_the_unbiased_one() -> None:
    # rows so far apart that only a row with itself has a kernel: what is left is the diagonals, 1/n_s + 1/n_t. In
    # float32 their computed distances are off by many of these tiny bandwidths, and their kernels anywhere in [0, 1]
    x_s, x_t = (100 * rows(50, 8)).astype(np.float32), (100 * rows(40, 8, seed=1)).astype(np.float32)
    far = KernelFamily(bandwidth="fixed", sigma=1e-4)
    assert float(mk_mmd2(x_s, x_t, far)) == pytest.approx(1 / 50 + 1 / 40, rel=1e-6)
    assert float(mk_mmd2(x_s, x_t, far, "unbiased")) == pytest.approx(0.0, abs=1e-7)
    assert float(tf.reduce_max(negative_squared_distances(x_s, x_s))) <= 0.0


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_pitfall_3_equal_rows_have_the_slope_of_squared_distances_which_is_defined_at_zero(estimator: Any) -> None:
    x_s, x_t = rows(6, 3), rows(6, 3, seed=1)
    x_s[1], x_t[:2] = x_s[0], x_s[0]  # equal within the source, within the target and across
    fixed = KernelFamily(bandwidth="fixed", sigma=2.0)
    _, of_s, _ = value_and_gradients(x_s, x_t, fixed, estimator)
    step = np.zeros((3, 6, 3))
    step[np.arange(3), 0, np.arange(3)] = 1e-5
    target = np.broadcast_to(x_t, (3, 6, 3))
    ends = [mk_mmd2(x_s + sign * step, target, fixed, estimator).numpy() for sign in (1.0, -1.0)]
    np.testing.assert_allclose(of_s[0], (ends[0] - ends[1]) / 2e-5, rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("family", RULES.values(), ids=RULES)
@pytest.mark.parametrize("constant", [0.0, 1000.1])
def test_pitfall_4_a_batch_without_variance_has_value_zero_and_gradient_zero(
    estimator: Any, family: KernelFamily, constant: float
) -> None:
    x = np.full((8, 3), constant, np.float32)
    value, of_s, of_t = value_and_gradients(x, x[:5], family, estimator)
    assert abs(value) < 1e-5
    assert max(np.abs(of_s).max(), np.abs(of_t).max()) < 0.1  # nor blown up by the tiny bandwidth; NaN would fail too


@pytest.mark.parametrize("estimator", ["biased", "unbiased"])
@pytest.mark.parametrize("rule", ["mean", "median"])
def test_pitfall_4_two_point_masses_a_thousandth_apart_are_pulled_together(estimator: Any, rule: Any) -> None:
    # an epsilon that outweighs the distances would leave a constant, with no gradient at all
    x_s, x_t = np.zeros((8, 2), np.float32), np.full((8, 2), 1e-3, np.float32)
    value, of_s, of_t = value_and_gradients(x_s, x_t, KernelFamily(bandwidth=rule), estimator)
    assert 0.5 < value <= 2.0
    assert (of_s < -0.1).all()  # a step down the gradient moves the source up, towards the target
    assert (of_t > 0.1).all()


def test_pitfall_5_the_bandwidth_counts_as_a_constant_unless_the_family_says_otherwise() -> None:
    x_s, x_t = rows(12, 3), rows(10, 3, seed=1) + 0.5
    joint = np.concatenate([x_s, x_t])
    centre = tf.constant(np.sum((joint[:, None] - joint[None]) ** 2) / (22**2 - 22))
    by_rule, held = value_and_gradients(x_s, x_t, DEFAULT), value_and_gradients(x_s, x_t, DEFAULT, centre=centre)
    for ours, reference in zip(by_rule, held, strict=True):
        np.testing.assert_allclose(ours, reference, rtol=1e-9)
    _, through, _ = value_and_gradients(x_s, x_t, KernelFamily(gradient=True))
    assert np.abs(through - by_rule[1]).max() > 0.1 * np.abs(by_rule[1]).max()


def test_pitfall_5_the_bandwidth_comes_from_both_populations_and_not_from_the_diagonal() -> None:
    # one source and one target row: the only pair of different rows is the one across
    assert float(mean_squared_distance(tf.constant([[-1.5]]), tf.constant([[1.5]]))) == pytest.approx(9.0)
    x_s = tf.constant(rows(6, 2) - rows(6, 2).mean(axis=0))
    of_source = float(mean_squared_distance(x_s, x_s[:0]))
    assert float(mean_squared_distance(x_s, 3.0 * x_s)) > 2.0 * of_source


def test_pitfall_5_only_at_a_fixed_bandwidth_can_values_be_compared_over_time() -> None:
    x_s, x_t = rows(30, 4), rows(30, 4, seed=1) + 1.0
    adaptive = [float(mk_mmd2(scale * x_s, scale * x_t, DEFAULT)) for scale in (1.0, 0.1)]
    fixed = [float(mk_mmd2(scale * x_s, scale * x_t, RULES["fixed"])) for scale in (1.0, 0.1)]
    assert adaptive[1] == pytest.approx(adaptive[0], rel=1e-6)  # scale-free: it does not see features shrink
    assert fixed[1] < 0.3 * fixed[0]


def test_pitfall_6_the_biased_estimate_has_a_floor_that_the_unbiased_one_has_not() -> None:
    x_s, x_t = rows(300, 32, 16), rows(300, 32, 16, seed=1)
    biased, unbiased = (mk_mmd2(x_s, x_t, SUM, estimator).numpy() for estimator in ("biased", "unbiased"))
    assert np.mean(biased) == pytest.approx(0.19, abs=0.02)  # 2 k (1 - mean kernel) / n at n = 32, k = 5
    assert abs(np.mean(unbiased)) < 3.5 * np.std(unbiased) / math.sqrt(300)
    assert 0.3 < np.mean(unbiased < 0.0) < 0.8  # never clipped
    halves = np.repeat([[1.0, -1.0]], 32, axis=1).repeat(16, axis=0)
    halves = np.random.default_rng(2).permuted(halves, axis=1)
    bands = no_shift_band(np.concatenate([x_s, x_t], axis=1), halves, SUM).numpy()
    assert np.mean(np.abs(unbiased) < 3 * bands) > 0.95


def test_pitfall_6_a_negative_estimate_keeps_its_gradient() -> None:
    x = rows(10, 3)
    value, of_s, _ = value_and_gradients(x, x[::-1].copy() + 1e-3, DEFAULT, "unbiased")
    assert value < 0.0
    assert np.abs(of_s).max() > 1e-5


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_pitfall_7_the_mean_of_kernels_keeps_its_size_when_their_number_changes(estimator: Any) -> None:
    x_s, x_t = rows(64, 4), rows(64, 4, seed=1) + 1.0
    means = [float(mk_mmd2(x_s, x_t, KernelFamily(num=num), estimator)) for num in (1, 3, 5, 9)]
    sums = [float(mk_mmd2(x_s, x_t, KernelFamily(num=num, reduce="sum"), estimator)) for num in (1, 3, 5, 9)]
    assert max(means) < 2.0 * min(means)
    np.testing.assert_allclose(sums, np.multiply(means, (1, 3, 5, 9)), rtol=1e-10)
    for name, spec in PRESETS.items():  # so that mmd_weight keeps its meaning; the article's run is pinned
        assert spec.kernels.reduce == ("sum" if name == "article" else "mean")


@pytest.mark.parametrize(("n_s", "n_t"), [(1, 1), (1, 512), (512, 1), (512, 21), (21, 512)])
def test_pitfall_8_short_and_unequal_batches_have_a_finite_value_and_gradient(n_s: int, n_t: int) -> None:
    x_s, x_t = rows(n_s, 4).astype(np.float32), rows(n_t, 4, seed=1).astype(np.float32)
    for estimator in ESTIMATORS if min(n_s, n_t) > 1 else ["biased"]:
        value, of_s, of_t = value_and_gradients(x_s, x_t, KernelFamily(gradient=True), estimator)
        assert np.isfinite(value)
        assert np.isfinite(of_s).all()
        assert np.isfinite(of_t).all()
        assert of_s.shape == x_s.shape
        assert of_t.shape == x_t.shape


@pytest.mark.parametrize("estimator", ["unbiased", "linear"])
def test_pitfall_8_a_remainder_of_one_row_is_refused_where_the_estimate_divides_by_its_pairs(estimator: Any) -> None:
    with pytest.raises(ValueError, match="drop short tails or make batches larger"):
        mk_mmd2(rows(512, 4), rows(1, 4), DEFAULT, estimator)


def test_pitfall_10_weights_of_the_source_rows_take_a_label_shift_out_of_the_discrepancy() -> None:
    # the classes are the same in both populations, 10% and 50% of them bad
    rng = np.random.default_rng(4)
    y_s, y_t = np.repeat([1.0, 0.0], [20, 180]), np.repeat([1.0, 0.0], [100, 100])
    x_s = rng.normal(size=(30, 200, 2)) + 2.0 * y_s[:, None]
    x_t = rng.normal(size=(30, 200, 2)) + 2.0 * y_t[:, None]
    weights = np.broadcast_to(label_shift_weights(y_s, 0.5), (30, 200))
    plain = mk_mmd2(x_s, x_t, DEFAULT, "unbiased").numpy()
    weighted = mk_mmd2(x_s, x_t, DEFAULT, "unbiased", weights_s=weights).numpy()
    assert plain.min() > 0.05
    # labels are drawn as often as the rates say, so weighted rows share a distribution class by class; the estimate is
    # then a little below 0, because pairs of different rows are of different classes slightly too often
    assert abs(np.mean(weighted)) < 0.05 * np.mean(plain)


def test_pitfall_11_every_kernel_counts_alike() -> None:
    x_s, x_t = rows(9, 3), rows(8, 3, seed=1)
    alone = [float(mk_mmd2(x_s, x_t, KernelFamily(num=1, bandwidth="fixed", sigma=s))) for s in (0.5, 1, 2, 4, 8)]
    assert float(mk_mmd2(x_s, x_t, RULES["fixed"])) == pytest.approx(np.mean(alone), rel=1e-12)


# --- what other libraries get wrong ---


def test_the_kernel_is_gaussian_of_the_squared_distance() -> None:
    # k at distance 2 and bandwidth 1 is e^-4 = .018, not e^-2 = .135
    one = KernelFamily(num=1, bandwidth="fixed", sigma=1.0)
    value = float(mk_mmd2(np.array([[0.0]]), np.array([[2.0]]), one))
    assert value == pytest.approx(2 - 2 * math.exp(-4), rel=1e-12)


def test_a_fixed_bandwidth_is_not_thrown_away() -> None:
    x_s, x_t = rows(6, 2), rows(6, 2, seed=1)
    values = [float(mk_mmd2(x_s, x_t, KernelFamily(bandwidth="fixed", sigma=sigma))) for sigma in (0.5, 2.0, 8.0)]
    assert len({round(value, 6) for value in values}) == 3


def test_no_constant_is_added_to_keep_the_estimate_positive() -> None:
    # of a batch with itself, by hand: pairs within leave the diagonal out, pairs across do not
    x = rows(32, 4)
    D = np.sum((x[:, None] - x[None]) ** 2, axis=2)
    total = mean_kernel(D, 2.0).sum()
    expected = 2 * (total - 32) / (32 * 31) - 2 * total / 32**2
    assert expected < 0.0
    assert float(mk_mmd2(x, x, RULES["fixed"], "unbiased")) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_arrays_of_either_precision_are_accepted_and_left_as_they_were(estimator: Any) -> None:
    for dtype in (np.float32, np.float64):
        arguments = [rows(6, 3).astype(dtype), rows(4, 3, seed=1).astype(dtype), np.ones(6), np.ones(4)]
        copies = [array.copy() for array in arguments]
        for array in arguments:
            array.flags.writeable = False
        x_s, x_t, w_s, w_t = arguments
        value = mk_mmd2(x_s, x_t, DEFAULT, estimator, weights_s=w_s, weights_t=w_t)
        assert value.dtype == dtype
        for array, copy in zip(arguments, copies, strict=True):
            np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("family", RULES.values(), ids=RULES)
def test_the_gradient_reaches_every_row_of_both_batches(estimator: Any, family: KernelFamily) -> None:
    _, of_s, of_t = value_and_gradients(rows(8, 3), rows(8, 3, seed=1) + 1.0, family, estimator)
    assert (np.abs(of_s).max(axis=1) > 0.0).all()
    assert (np.abs(of_t).max(axis=1) > 0.0).all()


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_step_down_the_gradient_brings_the_batches_together(estimator: Any) -> None:
    x_s, x_t = rows(40, 3), rows(30, 3, seed=1) + 2.0
    fixed = KernelFamily(bandwidth="fixed", sigma=12.0)
    value, of_s, of_t = value_and_gradients(x_s, x_t, fixed, estimator)
    assert float(mk_mmd2(x_s - of_s, x_t - of_t, fixed, estimator)) < value
    assert (of_s.mean(axis=0) < 0.0).all()  # so that the source moves up, to where the target is
    assert (of_t.mean(axis=0) > 0.0).all()


def test_weights_are_constants_to_the_gradient() -> None:
    x_s, x_t = tf.constant(rows(5, 2)), tf.constant(rows(4, 2, seed=1))
    weights = tf.Variable(np.arange(1.0, 6.0))
    with tf.GradientTape() as tape:
        value = mk_mmd2(x_s, x_t, DEFAULT, weights_s=weights)
    assert tape.gradient(value, weights) is None

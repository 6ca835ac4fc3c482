"""MK-MMD against a value worked by hand, an independent slow implementation, its properties and finite differences."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from models.kernels import gaussian_family, squared_distances
from models.mmd import label_shift_weights, mk_mmd2, no_shift_band, pair_coefficients

ARTICLE = {"estimator": "biased", "reduce": "sum", "bandwidth_gradient": True}
UNBIASED = {"estimator": "unbiased", "reduce": "mean", "bandwidth_gradient": False}


def batches(n_s: int = 24, n_t: int = 24, d: int = 6, seed: int = 0, dtype: str = "float64") -> Any:
    rng = np.random.default_rng(seed)
    x_s = rng.normal(size=(n_s, d))
    x_t = rng.normal(size=(n_t, d)) * 1.3 + 0.4
    return tf.constant(x_s, dtype), tf.constant(x_t, dtype)


def slow_mmd2(x_s: Any, x_t: Any, kernel_num: int = 5, kernel_mul: float = 2.0) -> Any:
    """The article's formula, as its kind of code writes it: differences (N, N, d), one exponential a kernel."""
    joint = tf.concat([x_s, x_t], axis=0)
    n, rows = x_s.shape[0], joint.shape[0]
    distances = tf.reduce_sum(tf.square(joint[None, :, :] - joint[:, None, :]), axis=2)
    bandwidth = tf.reduce_sum(distances) / (rows**2 - rows) / kernel_mul ** (kernel_num // 2)
    kernel = sum(tf.exp(-distances / (bandwidth * kernel_mul**i)) for i in range(kernel_num))
    XX, YY, XY, YX = kernel[:n, :n], kernel[n:, n:], kernel[:n, n:], kernel[n:, :n]
    return tf.reduce_mean(XX) + tf.reduce_mean(YY) - tf.reduce_mean(XY) - tf.reduce_mean(YX)


def value_and_gradient(estimate: Any, x_s: Any, x_t: Any) -> tuple[float, np.ndarray]:
    with tf.GradientTape() as tape:
        tape.watch([x_s, x_t])
        value = estimate(x_s, x_t)
    return float(value), np.concatenate(tape.gradient(value, [x_s, x_t]))


def finite_differences(estimate: Any, x_s: Any, x_t: Any, step: float = 1e-5) -> np.ndarray:
    n_s, joint = x_s.shape[0], np.concatenate([x_s, x_t])
    slopes = np.zeros_like(joint)
    for position in np.ndindex(*joint.shape):
        ends = []
        for sign in (1.0, -1.0):
            moved = joint.copy()
            moved[position] += sign * step
            ends.append(float(estimate(tf.constant(moved[:n_s]), tf.constant(moved[n_s:]))))
        slopes[position] = (ends[0] - ends[1]) / (2 * step)
    return slopes


def test_mmd2_of_one_source_and_two_target_rows_has_the_value_worked_by_hand() -> None:
    # x_s = {0}, x_t = {1, 3}: squared distances 1 (0,1), 9 (0,3), 4 (1,3); over the 6 ordered pairs the mean is 28/6.
    # One kernel, so b = 28/6:  XX = 1,  YY = (2 + 2 e^(-4/b)) / 4,  XY = YX = (e^(-1/b) + e^(-9/b)) / 2
    b = 28 / 6
    expected = 1 + (2 + 2 * math.exp(-4 / b)) / 4 - (math.exp(-1 / b) + math.exp(-9 / b))
    x_s, x_t = tf.constant([[0.0]], tf.float64), tf.constant([[1.0], [3.0]], tf.float64)
    assert float(mk_mmd2(x_s, x_t, kernel_num=1, bandwidth_gradient=True)) == pytest.approx(expected, rel=1e-12)


def test_unbiased_mmd2_of_two_and_two_rows_has_the_value_worked_by_hand() -> None:
    # x_s = {0, 2}, x_t = {1, 3}, sigma fixed at 2 and one kernel: k(D) = e^(-D/2); the within pairs are both at D = 4,
    # the cross ones at D = 1, 9, 1, 1
    expected = 2 * math.exp(-2) - 2 * (3 * math.exp(-0.5) + math.exp(-4.5)) / 4
    x_s, x_t = tf.constant([[0.0], [2.0]], tf.float64), tf.constant([[1.0], [3.0]], tf.float64)
    options = {**UNBIASED, "kernel_num": 1, "fix_sigma": 2.0}
    assert float(mk_mmd2(x_s, x_t, **options)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("n_s", "n_t"), [(64, 64), (64, 21), (1, 7)])
def test_mmd2_and_its_gradient_equal_the_articles_formula(n_s: int, n_t: int) -> None:
    x_s, x_t = batches(n_s, n_t, d=16, dtype="float32")
    value, gradient = value_and_gradient(lambda a, b: mk_mmd2(a, b, **ARTICLE), x_s, x_t)
    slow_value, slow_gradient = value_and_gradient(slow_mmd2, x_s, x_t)
    assert value == pytest.approx(slow_value, rel=1e-5)
    np.testing.assert_allclose(gradient, slow_gradient, rtol=1e-5, atol=1e-5 * np.abs(slow_gradient).max())


@pytest.mark.parametrize(("kernel_num", "kernel_mul"), [(1, 2.0), (4, 2.0), (9, 2.0), (11, 2.0), (5, 3.0)])
def test_every_kernel_family_equals_the_articles_formula(kernel_num: int, kernel_mul: float) -> None:
    x_s, x_t = batches()
    family = {"kernel_num": kernel_num, "kernel_mul": kernel_mul}
    value, gradient = value_and_gradient(lambda a, b: mk_mmd2(a, b, **family, **ARTICLE), x_s, x_t)
    slow_value, slow_gradient = value_and_gradient(lambda a, b: slow_mmd2(a, b, **family), x_s, x_t)
    assert value == pytest.approx(slow_value, rel=1e-9)
    np.testing.assert_allclose(gradient, slow_gradient, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("estimator", ["biased", "unbiased"])
@pytest.mark.parametrize("is_weighted", [False, True])
def test_mmd2_equals_the_trace_form(estimator: str, is_weighted: bool) -> None:
    x_s, x_t = batches(5, 4)
    w_s = np.array([0.1, 0.4, 0.2, 0.2, 0.1]) if is_weighted else np.full(5, 0.2)
    M = np.zeros((9, 9))
    for i in range(9):
        for j in range(9):
            p, q = w_s[i] if i < 5 else 1 / 4, w_s[j] if j < 5 else 1 / 4
            M[i, j] = p * q if (i < 5) == (j < 5) else -p * q
    if estimator == "unbiased":
        np.fill_diagonal(M, 0.0)
        M[:5, :5] /= 1 - np.sum(w_s**2)
        M[5:, 5:] /= 1 - 1 / 4
    D = np.sum((np.concatenate([x_s, x_t])[:, None] - np.concatenate([x_s, x_t])[None]) ** 2, axis=2)
    b = D.sum() / 72 / 4
    K = sum(np.exp(-D / (b * 2.0**i)) for i in range(5))
    np.testing.assert_allclose(
        pair_coefficients(tf.constant(w_s), tf.fill([4], tf.constant(0.25, tf.float64)), estimator), M
    )
    value = mk_mmd2(x_s, x_t, estimator=estimator, bandwidth_gradient=False, source_weights=7 * w_s)
    assert float(value) == pytest.approx(np.trace(K @ M), rel=1e-12)


@pytest.mark.parametrize("estimator", ["biased", "unbiased"])
@pytest.mark.parametrize("reduce", ["sum", "mean"])
@pytest.mark.parametrize("fix_sigma", [None, 3.0])
def test_gradient_agrees_with_finite_differences(estimator: str, reduce: str, fix_sigma: float | None) -> None:
    x_s, x_t = batches(5, 3, d=2)
    weights = np.array([0.5, 1.0, 2.0, 1.0, 0.5])

    def estimate(a: Any, b: Any) -> Any:
        options = {"estimator": estimator, "reduce": reduce, "fix_sigma": fix_sigma, "source_weights": weights}
        return mk_mmd2(a, b, bandwidth_gradient=True, **options)

    _, gradient = value_and_gradient(estimate, x_s, x_t)
    np.testing.assert_allclose(gradient, finite_differences(estimate, x_s, x_t), rtol=1e-6, atol=1e-9)


def test_without_bandwidth_gradient_the_bandwidth_counts_as_a_constant() -> None:
    x_s, x_t = batches(6, 5, d=3)
    joint = np.concatenate([x_s, x_t])
    mean_distance = np.sum((joint[:, None] - joint[None]) ** 2) / (11**2 - 11)

    def at_fixed_bandwidth(a: Any, b: Any) -> Any:
        return mk_mmd2(a, b, fix_sigma=float(mean_distance), bandwidth_gradient=False)

    value, gradient = value_and_gradient(lambda a, b: mk_mmd2(a, b, bandwidth_gradient=False), x_s, x_t)
    assert value == pytest.approx(float(at_fixed_bandwidth(x_s, x_t)), rel=1e-9)
    np.testing.assert_allclose(gradient, finite_differences(at_fixed_bandwidth, x_s, x_t), rtol=1e-6, atol=1e-9)


def test_the_gradient_is_scaled_by_what_comes_from_above() -> None:
    x_s, x_t = batches(6, 5)
    _, plain = value_and_gradient(lambda a, b: mk_mmd2(a, b, **ARTICLE), x_s, x_t)
    _, scaled = value_and_gradient(lambda a, b: -3.0 * mk_mmd2(a, b, **ARTICLE), x_s, x_t)
    np.testing.assert_allclose(scaled, -3.0 * plain, rtol=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**16), st.integers(2, 12), st.integers(2, 12))
def test_mmd2_does_not_see_row_order_common_offset_or_which_side_is_called_source(
    seed: int, n_s: int, n_t: int
) -> None:
    x_s, x_t = batches(n_s, n_t, d=3, seed=seed)
    rng = np.random.default_rng(seed)
    value = float(mk_mmd2(x_s, x_t, **ARTICLE))
    shuffled = mk_mmd2(rng.permutation(x_s), rng.permutation(x_t), **ARTICLE)
    assert float(shuffled) == pytest.approx(value, rel=1e-9)
    assert float(mk_mmd2(x_s + 5.0, x_t + 5.0, **ARTICLE)) == pytest.approx(value, rel=1e-9)
    assert float(mk_mmd2(4.0 * x_s, 4.0 * x_t, **ARTICLE)) == pytest.approx(value, rel=1e-9)
    assert float(mk_mmd2(x_t, x_s, **ARTICLE)) == pytest.approx(value, rel=1e-9)
    assert 0.0 < value < 10.0


def test_an_offset_of_1000_changes_nothing_in_float32() -> None:
    x_s, x_t = batches(32, 32, d=16, dtype="float32")
    far_s, far_t = x_s + 1000.0, x_t + 1000.0  # adding rounds to 6e-5: compare with what that left
    value, gradient = value_and_gradient(lambda a, b: mk_mmd2(a, b, **ARTICLE), far_s - 1000.0, far_t - 1000.0)
    far_value, far_gradient = value_and_gradient(lambda a, b: mk_mmd2(a, b, **ARTICLE), far_s, far_t)
    assert far_value == pytest.approx(value, rel=1e-4)
    np.testing.assert_allclose(far_gradient, gradient, rtol=1e-3, atol=1e-3 * np.abs(gradient).max())


def test_biased_mmd2_of_a_sample_with_itself_is_zero() -> None:
    x_s, _ = batches(40, 40)
    assert abs(float(mk_mmd2(x_s, x_s, **ARTICLE))) < 1e-12


def test_unbiased_mmd2_is_zero_in_expectation_when_samples_share_a_distribution() -> None:
    rng = np.random.default_rng(3)
    draws = [
        float(mk_mmd2(tf.constant(rng.normal(size=(20, 3))), tf.constant(rng.normal(size=(30, 3))), **UNBIASED))
        for _ in range(200)
    ]
    standard_error = np.std(draws) / math.sqrt(len(draws))
    assert abs(np.mean(draws)) < 3 * standard_error
    assert min(draws) < 0.0  # never clipped


def test_mean_of_kernels_is_the_sum_divided_by_their_number() -> None:
    x_s, x_t = batches()
    total = float(mk_mmd2(x_s, x_t, reduce="sum", bandwidth_gradient=True))
    assert float(mk_mmd2(x_s, x_t, reduce="mean", bandwidth_gradient=True)) == pytest.approx(total / 5, rel=1e-12)


@pytest.mark.parametrize("options", [ARTICLE, UNBIASED], ids=["article", "unbiased"])
@pytest.mark.parametrize("constant", [0.0, 0.1, 1000.1])
def test_a_batch_without_variance_has_a_finite_value_and_gradient(options: dict[str, Any], constant: float) -> None:
    x = tf.fill([8, 3], tf.constant(constant, tf.float32))
    value, gradient = value_and_gradient(lambda a, b: mk_mmd2(a, b, **options), x, x)
    assert abs(value) < 1e-5
    assert np.abs(gradient).max() < 0.1  # nor blown up by the tiny bandwidth; NaN would fail too


def test_a_point_mass_beside_another_has_a_finite_gradient() -> None:
    x_s, x_t = tf.zeros([4, 2]), tf.ones([4, 2])
    value, gradient = value_and_gradient(lambda a, b: mk_mmd2(a, b, **ARTICLE), x_s, x_t)
    assert value > 1.0
    assert np.isfinite(gradient).all()


def test_equal_source_weights_change_nothing_and_weights_replicate_rows() -> None:
    x_s, x_t = batches(3, 4, d=2)
    unweighted = float(mk_mmd2(x_s, x_t, fix_sigma=2.0, **ARTICLE))
    even = mk_mmd2(x_s, x_t, fix_sigma=2.0, source_weights=[2.0, 2.0, 2.0], **ARTICLE)
    assert float(even) == pytest.approx(unweighted, rel=1e-12)
    twice_the_first = mk_mmd2(tf.gather(x_s, [0, 0, 1, 2]), x_t, fix_sigma=2.0, **ARTICLE)
    weighted = mk_mmd2(x_s, x_t, fix_sigma=2.0, source_weights=[2.0, 1.0, 1.0], **ARTICLE)
    assert float(weighted) == pytest.approx(float(twice_the_first), rel=1e-12)


def test_label_shift_weights_give_the_batch_the_targets_bad_rate() -> None:
    y_s = tf.constant([1.0, 0.0, 0.0, 0.0])
    weights = label_shift_weights(y_s, 0.4).numpy()
    np.testing.assert_allclose(weights, [0.4 / 0.25, 0.8, 0.8, 0.8], rtol=1e-6)
    assert np.sum(weights * y_s) / np.sum(weights) == pytest.approx(0.4)


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_a_batch_of_one_class_is_weighted_evenly(label: float) -> None:
    weights = label_shift_weights(tf.fill([5], label), 0.1).numpy()
    assert np.all(weights == weights[0])
    assert weights[0] > 0.0


@pytest.mark.parametrize("fix_sigma", [None, 3.0])
def test_no_shift_band_is_the_spread_of_the_unbiased_estimate_over_the_halves(fix_sigma: float | None) -> None:
    x, _ = batches(12, 1, d=3)
    rng = np.random.default_rng(0)
    halves = np.stack([rng.permutation(np.repeat([1.0, -1.0], 6)) for _ in range(7)])
    estimates = [float(mk_mmd2(x[h > 0], x[h < 0], fix_sigma=fix_sigma, **UNBIASED)) for h in halves]
    band = float(no_shift_band(x, tf.constant(halves), fix_sigma=fix_sigma, reduce="mean"))
    assert band == pytest.approx(np.std(estimates), rel=1e-9)


@pytest.mark.parametrize("rows", [2, 5])
def test_no_shift_band_refuses_a_sample_that_has_no_halves(rows: int) -> None:
    with pytest.raises(ValueError, match=r"shape \(2 m, d\)"):
        no_shift_band(tf.zeros([rows, 3]), tf.ones([2, rows]))


def test_squared_distances_are_symmetric_enough_never_negative_and_zero_on_the_diagonal() -> None:
    x = tf.constant(np.random.default_rng(0).normal(size=(50, 64)) * 1e-3, tf.float32)
    distances = squared_distances(x).numpy()
    assert distances.min() == 0.0
    assert np.all(np.diag(distances) == 0.0)
    exact = np.sum((x.numpy()[:, None].astype(float) - x.numpy()[None]) ** 2, axis=2)
    np.testing.assert_allclose(distances, exact, atol=1e-6 * exact.max())


def test_squared_exponentials_equal_separate_ones() -> None:
    exponents = tf.constant(np.linspace(0.0, 2.0, 16).reshape(4, 4), tf.float32)
    family = gaussian_family(exponents, kernel_num=9, kernel_mul=2.0)
    for j, kernel in enumerate(family):
        np.testing.assert_allclose(kernel, np.exp(-exponents.numpy().astype(float) * 2.0**j), rtol=5e-5, atol=1e-37)


@pytest.mark.parametrize(
    ("x_s", "x_t", "options", "message"),
    [
        (np.zeros((3, 2)), np.zeros((3, 4)), ARTICLE, r"\(n_s, d\) and \(n_t, d\)"),
        (np.zeros(3), np.zeros(3), ARTICLE, r"\(n_s, d\) and \(n_t, d\)"),
        (np.zeros((3, 2)), np.zeros((3, 2), np.float32), ARTICLE, "one floating type"),
        (np.zeros((0, 2)), np.zeros((3, 2)), ARTICLE, "source batch has 0 rows, at least 1"),
        (np.zeros((3, 2)), np.zeros((1, 2)), UNBIASED, "target batch has 1 rows, at least 2"),
        (np.zeros((3, 2)), np.zeros((3, 2)), {**ARTICLE, "source_weights": [1.0, 1.0]}, "source_weights"),
        (np.zeros((3, 2)), np.zeros((3, 2)), {**ARTICLE, "kernel_num": 0}, "kernel_num"),
        (np.zeros((3, 2)), np.zeros((3, 2)), {**ARTICLE, "kernel_mul": 1.0}, "kernel_mul"),
        (np.zeros((3, 2)), np.zeros((3, 2)), {**ARTICLE, "fix_sigma": 0.0}, "fix_sigma"),
        (np.zeros((3, 2)), np.zeros((3, 2)), {**ARTICLE, "estimator": "linear"}, "estimator"),
        (np.zeros((3, 2)), np.zeros((3, 2)), {**ARTICLE, "reduce": "max"}, "reduce"),
    ],
)
def test_mmd2_refuses_what_it_cannot_compare(x_s: Any, x_t: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mk_mmd2(tf.constant(x_s), tf.constant(x_t), **options)


@pytest.mark.parametrize("prior", [0.0, 1.0, float("nan")])
def test_label_shift_weights_refuse_an_impossible_prior(prior: float) -> None:
    with pytest.raises(ValueError, match="prior"):
        label_shift_weights(tf.constant([0.0, 1.0]), prior)

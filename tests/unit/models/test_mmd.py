"""MK-MMD against values worked by hand, slow independent implementations, closed forms, properties, finite differences.

What other libraries get wrong stands in test_mmd_pitfalls.py.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from models.deep.presets import ARTICLE, ARTICLE_KERNELS, PRESETS
from models.kernel_family import KernelFamily
from models.mmd import mk_mmd2
from tests.data.mmd_batches import (
    FAMILIES,
    FIXED,
    ONE_FIXED,
    batches,
    finite_differences,
    slow_mmd2,
    value_and_gradients,
    weights_of,
    widths,
)


def articles_formula(x_s: Any, x_t: Any, kernel_num: int = 5, kernel_mul: float = 2.0) -> Any:
    """As the article's kind of code writes it: differences (N, N, d), an exponential a kernel, autodiff."""
    joint = tf.concat([x_s, x_t], axis=0)
    n, rows = x_s.shape[0], joint.shape[0]
    distances = tf.reduce_sum(tf.square(joint[None, :, :] - joint[:, None, :]), axis=2)
    bandwidth = tf.reduce_sum(distances) / (rows**2 - rows) / kernel_mul ** (kernel_num // 2)
    kernel = sum(tf.exp(-distances / (bandwidth * kernel_mul**i)) for i in range(kernel_num))
    XX, YY, XY, YX = kernel[:n, :n], kernel[n:, n:], kernel[:n, n:], kernel[n:, :n]
    return tf.reduce_mean(XX) + tf.reduce_mean(YY) - tf.reduce_mean(XY) - tf.reduce_mean(YX)


# --- values worked by hand ---


def test_mmd2_of_one_source_and_two_target_rows_has_the_value_worked_by_hand() -> None:
    # x_s = {0}, x_t = {1, 3}: squared distances 1 (0,1), 9 (0,3), 4 (1,3); over the 6 ordered pairs the mean is 28/6.
    # One kernel, so b = 28/6:  XX = 1,  YY = (2 + 2 e^(-4/b)) / 4,  XY = YX = (e^(-1/b) + e^(-9/b)) / 2
    b = 28 / 6
    expected = 1 + (2 + 2 * math.exp(-4 / b)) / 4 - (math.exp(-1 / b) + math.exp(-9 / b))
    x_s, x_t = tf.constant([[0.0]], tf.float64), tf.constant([[1.0], [3.0]], tf.float64)
    assert float(mk_mmd2(x_s, x_t, KernelFamily(num=1))) == pytest.approx(expected, rel=1e-11)


def test_unbiased_mmd2_of_two_and_two_rows_has_the_value_worked_by_hand() -> None:
    # x_s = {0, 2}, x_t = {1, 3}, sigma fixed at 2 and one kernel: k(D) = e^(-D/2); the within pairs are both at D = 4,
    # the cross ones at D = 1, 9, 1, 1
    expected = 2 * math.exp(-2) - 2 * (3 * math.exp(-0.5) + math.exp(-4.5)) / 4
    x_s, x_t = tf.constant([[0.0], [2.0]], tf.float64), tf.constant([[1.0], [3.0]], tf.float64)
    assert float(mk_mmd2(x_s, x_t, ONE_FIXED, "unbiased")) == pytest.approx(expected, rel=1e-12)


def test_linear_mmd2_takes_each_row_once_and_has_the_value_worked_by_hand() -> None:
    # rows pair up (0, 2), (5, 6) and (1, 3), (5, 7); the fifth source row has no partner. k(D) = e^(-D/2):
    # k(s, s') = e^-2, e^-.5;  k(t, t') = e^-2, e^-2;  k(s, t') = e^-4.5, e^-2;  k(s', t) = e^-.5, e^-.5
    x_s = tf.constant([[0.0], [2.0], [5.0], [6.0], [99.0]], tf.float64)
    x_t = tf.constant([[1.0], [3.0], [5.0], [7.0]], tf.float64)
    first = 2 * math.exp(-2) - math.exp(-4.5) - math.exp(-0.5)
    second = math.exp(-0.5) + math.exp(-2) - math.exp(-2) - math.exp(-0.5)
    assert float(mk_mmd2(x_s, x_t, ONE_FIXED, "linear")) == pytest.approx((first + second) / 2, rel=1e-12)


def test_weights_of_the_linear_estimator_weigh_each_term_by_its_two_rows() -> None:
    # the same rows; weights make the first pair of source rows count 1 * 3 = 3 against 2 * 1 = 2, and so on
    x_s = tf.constant([[0.0], [2.0], [5.0], [6.0]], tf.float64)
    x_t = tf.constant([[1.0], [3.0], [5.0], [7.0]], tf.float64)
    w_s, w_t = np.array([1.0, 3.0, 2.0, 1.0]), np.array([1.0, 1.0, 4.0, 1.0])
    of_source = (3 * math.exp(-2) + 2 * math.exp(-0.5)) / 5
    of_target = (1 * math.exp(-2) + 4 * math.exp(-2)) / 5
    first_cross = (1 * math.exp(-4.5) + 2 * math.exp(-2)) / 3  # w_s[0] w_t[1] = 1, w_s[2] w_t[3] = 2
    second_cross = (3 * math.exp(-0.5) + 4 * math.exp(-0.5)) / 7  # w_s[1] w_t[0] = 3, w_s[3] w_t[2] = 4
    value = mk_mmd2(x_s, x_t, ONE_FIXED, "linear", weights_s=w_s, weights_t=w_t)
    assert float(value) == pytest.approx(of_source + of_target - first_cross - second_cross, rel=1e-12)


# --- slow independent implementations ---


@pytest.mark.parametrize("estimator", ["biased", "unbiased"])
@pytest.mark.parametrize("family", [*FAMILIES.values(), KernelFamily(num=4, mul=3.0, reduce="sum")], ids=str)
@pytest.mark.parametrize("is_weighted", [False, True])
def test_mmd2_equals_its_definition_pair_by_pair(estimator: Any, family: KernelFamily, is_weighted: bool) -> None:
    x_s, x_t = batches(6, 5, d=3)
    w_s, w_t = (weights_of(6, 1), weights_of(5, 2)) if is_weighted else (None, None)
    value = mk_mmd2(x_s, x_t, family, estimator, weights_s=w_s, weights_t=w_t)
    v_s, v_t = (np.ones(6), np.ones(5)) if w_s is None or w_t is None else (w_s, w_t)
    slow = slow_mmd2(x_s, x_t, v_s / v_s.sum(), v_t / v_t.sum(), family, is_unbiased=estimator == "unbiased")
    assert float(value) == pytest.approx(slow, rel=1e-9)


@pytest.mark.parametrize(("n_s", "n_t"), [(64, 64), (64, 21), (1, 7)])
def test_the_article_preset_and_its_gradient_equal_the_articles_formula(n_s: int, n_t: int) -> None:
    x_s, x_t = batches(n_s, n_t, d=16, dtype="float32")
    value, *gradient = value_and_gradients(lambda a, b: mk_mmd2(a, b, ARTICLE.kernels, ARTICLE.estimator), x_s, x_t)
    slow_value, *slow_gradient = value_and_gradients(articles_formula, x_s, x_t)
    assert value == pytest.approx(slow_value, rel=1e-5)
    for ours, slow in zip(gradient, slow_gradient, strict=True):
        np.testing.assert_allclose(ours, slow, rtol=1e-5, atol=1e-5 * np.abs(slow).max())


def test_the_article_preset_keeps_its_sum_its_diagonals_and_its_bandwidth_gradient() -> None:
    assert PRESETS["article"].kernels == KernelFamily(num=5, mul=2.0, bandwidth="mean", reduce="sum", gradient=True)
    assert PRESETS["article"].estimator == "biased"


@pytest.mark.parametrize(("num", "mul"), [(1, 2.0), (4, 2.0), (9, 2.0), (11, 2.0), (5, 3.0)])
def test_every_kernel_family_equals_the_articles_formula(num: int, mul: float) -> None:
    x_s, x_t = batches()
    family = replace(ARTICLE_KERNELS, num=num, mul=mul)
    value, *gradient = value_and_gradients(lambda a, b: mk_mmd2(a, b, family), x_s, x_t)
    slow_value, *slow_gradient = value_and_gradients(lambda a, b: articles_formula(a, b, num, mul), x_s, x_t)
    assert value == pytest.approx(slow_value, rel=1e-9)
    for ours, slow in zip(gradient, slow_gradient, strict=True):
        np.testing.assert_allclose(ours, slow, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("estimator", ["biased", "unbiased"])
def test_mmd2_equals_the_trace_form(estimator: Any) -> None:
    x_s, x_t = batches(5, 4)
    w_s = np.array([0.1, 0.4, 0.2, 0.2, 0.1])
    signed = np.concatenate([w_s, np.full(4, -0.25)])
    M = np.outer(signed, signed)
    if estimator == "unbiased":
        np.fill_diagonal(M, 0.0)
        M[:5, :5] /= 1 - np.sum(w_s**2)
        M[5:, 5:] /= 1 - 1 / 4
    joint = np.concatenate([x_s, x_t])
    D = np.sum((joint[:, None] - joint[None]) ** 2, axis=2)
    b = D.sum() / 72 / 4
    K = sum(np.exp(-D / (b * 2.0**i)) for i in range(5))
    value = mk_mmd2(x_s, x_t, KernelFamily(reduce="sum"), estimator, weights_s=7 * w_s)
    assert float(value) == pytest.approx(np.trace(K @ M), rel=1e-11)


# --- closed forms ---


def gaussian_mmd2(mean_gap2: float, s1: float, s2: float, d: int, family: KernelFamily) -> tuple[float, float, float]:
    """(MMD^2, E k(x, x'), E k(y, y')) of N(m1, s1^2 I) and N(m2, s2^2 I), |m1 - m2|^2 = mean_gap2.

    x - y is N(m1 - m2, v I) with v = s1^2 + s2^2, so E exp(-|x - y|^2 / b) is the Gaussian integral
    (1 + 2 v / b)^(-d/2) exp(-|m1 - m2|^2 / (b + 2 v)); within a population the gap is 0 and v twice its variance.
    """
    assert family.sigma is not None
    of_x = of_y = across = 0.0
    for i in range(family.num):
        b = family.sigma * family.mul ** (i - family.num // 2)
        of_x += (1 + 4 * s1**2 / b) ** (-d / 2)
        of_y += (1 + 4 * s2**2 / b) ** (-d / 2)
        v = s1**2 + s2**2
        across += (1 + 2 * v / b) ** (-d / 2) * math.exp(-mean_gap2 / (b + 2 * v))
    scale = 1 / family.num if family.reduce == "mean" else 1.0
    return scale * (of_x + of_y - 2 * across), scale * of_x, scale * of_y


@pytest.mark.parametrize("estimator", ["biased", "unbiased", "linear"])
@pytest.mark.parametrize("num", [1, 5])
def test_mmd2_of_two_gaussians_is_the_closed_form_within_monte_carlo_error(estimator: Any, num: int) -> None:
    n_s, n_t, d, draws = 30, 20, 3, 1000
    family = KernelFamily(num=num, bandwidth="fixed", sigma=4.0, reduce="sum")
    rng = np.random.default_rng(11)
    x_s = rng.normal(size=(draws, n_s, d)) * 1.2
    x_t = rng.normal(size=(draws, n_t, d)) * 0.7 + 0.5
    estimates = mk_mmd2(x_s, x_t, family, estimator).numpy()
    expected, of_x, of_y = gaussian_mmd2(3 * 0.25, 1.2, 0.7, d, family)
    if estimator == "biased":  # the diagonals: n of the n^2 pairs are 1 instead of E k(x, x')
        expected += (num - of_x) / n_s + (num - of_y) / n_t
    standard_error = np.std(estimates) / math.sqrt(draws)
    assert standard_error < 0.05 * expected  # the comparison says something
    assert np.mean(estimates) == pytest.approx(expected, abs=3.5 * standard_error)


def test_mmd2_of_very_many_rows_is_near_the_closed_form() -> None:
    family = KernelFamily(bandwidth="fixed", sigma=4.0)
    rng = np.random.default_rng(12)
    x_s, x_t = rng.normal(size=(1000, 2)), rng.normal(size=(900, 2)) + 1.0
    expected, _, _ = gaussian_mmd2(2.0, 1.0, 1.0, 2, family)
    assert float(mk_mmd2(x_s, x_t, family, "unbiased")) == pytest.approx(expected, rel=0.1)


def test_the_linear_estimator_with_weights_has_the_expectation_of_the_unbiased_one() -> None:
    rng = np.random.default_rng(13)
    x_s, x_t = rng.normal(size=(3000, 12, 2)), rng.normal(size=(3000, 10, 2)) + 0.6
    w_s = np.broadcast_to(weights_of(12, 1), (3000, 12))
    w_t = np.broadcast_to(weights_of(10, 2), (3000, 10))
    linear, unbiased = (
        mk_mmd2(x_s, x_t, FIXED, estimator, weights_s=w_s, weights_t=w_t).numpy()
        for estimator in ("linear", "unbiased")
    )
    assert abs(np.mean(linear - unbiased)) < 3.5 * np.std(linear - unbiased) / math.sqrt(3000)
    assert np.std(linear) > 1.5 * np.std(unbiased)  # what one pays for it


# --- conditions ---


@pytest.mark.parametrize("estimator", ["biased", "unbiased"])
@pytest.mark.parametrize("family", [KernelFamily(), FIXED, KernelFamily(reduce="sum", gradient=True)], ids=str)
def test_conditions_add_up_to_the_sum_over_soft_classes_computed_pair_by_pair(
    estimator: Any, family: KernelFamily
) -> None:
    x_s, x_t = batches(6, 7, d=2)
    v_s, v_t = weights_of(6, 1, conditions=3), weights_of(7, 2, conditions=3)
    value = mk_mmd2(x_s, x_t, family, estimator, weights_s=v_s, weights_t=v_t)
    slow = [slow_mmd2(x_s, x_t, v_s[:, c], v_t[:, c], family, is_unbiased=estimator == "unbiased") for c in range(3)]
    assert float(value) == pytest.approx(sum(slow), rel=1e-9)


@pytest.mark.parametrize("estimator", ["biased", "unbiased"])
def test_conditions_whose_weights_sum_to_the_root_of_a_count_a_times_the_weighted_discrepancy(estimator: Any) -> None:
    x_s, x_t = batches(8, 9, d=2)
    w_s, w_t = weights_of(8, 1), weights_of(9, 2)
    alone, *alone_slopes = value_and_gradients(
        lambda a, b: mk_mmd2(a, b, KernelFamily(), estimator, weights_s=w_s, weights_t=w_t), x_s, x_t
    )
    v_s, v_t = (math.sqrt(0.3) * (w / w.sum())[:, None] for w in (w_s, w_t))
    value, *slopes = value_and_gradients(
        lambda a, b: mk_mmd2(a, b, KernelFamily(), estimator, weights_s=v_s, weights_t=v_t), x_s, x_t
    )
    assert value == pytest.approx(0.3 * alone, rel=1e-10)
    for ours, reference in zip(slopes, alone_slopes, strict=True):
        np.testing.assert_allclose(ours, 0.3 * reference, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("estimator", ["biased", "unbiased"])
def test_a_condition_without_weight_on_both_sides_adds_nothing(estimator: Any) -> None:
    x_s, x_t = batches(6, 7, d=2)
    v_s, v_t = weights_of(6, 1, conditions=1), weights_of(7, 2, conditions=1)
    alone = value_and_gradients(
        lambda a, b: mk_mmd2(a, b, KernelFamily(), estimator, weights_s=v_s, weights_t=v_t), x_s, x_t
    )
    padded = value_and_gradients(
        lambda a, b: mk_mmd2(
            a,
            b,
            KernelFamily(),
            estimator,
            weights_s=np.pad(v_s, [(0, 0), (0, 1)]),
            weights_t=np.pad(v_t, [(0, 0), (0, 1)]),
        ),
        x_s,
        x_t,
    )
    for ours, reference in zip(padded, alone, strict=True):
        np.testing.assert_allclose(ours, reference, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("others", [0.0, 1e-7])
def test_unbiased_a_condition_that_rests_on_one_row_adds_nothing(others: float) -> None:
    # one row has no pair: its within block would be missing beside the cross block, a discrepancy of about -1
    x_s, x_t = batches(6, 7, d=2, dtype="float32")
    v_s = np.stack([np.full(6, 1 / 6), [1.0, *[others] * 5]], axis=1)
    v_t = np.full((7, 2), 1 / 7)
    both = value_and_gradients(lambda a, b: mk_mmd2(a, b, FIXED, "unbiased", weights_s=v_s, weights_t=v_t), x_s, x_t)
    first = value_and_gradients(lambda a, b: mk_mmd2(a, b, FIXED, "unbiased"), x_s, x_t)
    for ours, reference in zip(both, first, strict=True):
        np.testing.assert_allclose(ours, reference, rtol=1e-5, atol=1e-7)


# --- leading axes ---


@pytest.mark.parametrize("estimator", ["biased", "unbiased", "linear"])
@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_stacked_batches_are_the_batches_one_by_one_in_value_and_gradient(estimator: Any, family: KernelFamily) -> None:
    leading = (2, 2)
    x_s, x_t = batches(7, 6, d=3, leading=leading)
    w_s, w_t = weights_of(7, 1, leading=leading), weights_of(6, 2, leading=leading)
    stacked = value_and_gradients(lambda a, b: mk_mmd2(a, b, family, estimator, weights_s=w_s, weights_t=w_t), x_s, x_t)
    assert stacked[0].shape == leading
    for place in np.ndindex(*leading):
        alone = value_and_gradients(
            lambda a, b, place=place: mk_mmd2(a, b, family, estimator, weights_s=w_s[place], weights_t=w_t[place]),
            x_s[place],
            x_t[place],
        )
        for of_stack, of_one in zip(stacked, alone, strict=True):
            np.testing.assert_allclose(of_stack[place], of_one, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("estimator", ["biased", "unbiased"])
def test_stacked_conditions_are_the_conditions_one_by_one(estimator: Any) -> None:
    x_s, x_t = batches(7, 6, d=3, leading=(3,))
    v_s, v_t = weights_of(7, 1, leading=(3,), conditions=2), weights_of(6, 2, leading=(3,), conditions=2)
    stacked = mk_mmd2(x_s, x_t, KernelFamily(), estimator, weights_s=v_s, weights_t=v_t)
    alone = [
        float(mk_mmd2(x_s[i], x_t[i], KernelFamily(), estimator, weights_s=v_s[i], weights_t=v_t[i])) for i in range(3)
    ]
    np.testing.assert_allclose(stacked, alone, rtol=1e-10)


# --- gradients ---


@pytest.mark.parametrize("estimator", ["biased", "unbiased", "linear"])
@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
@pytest.mark.parametrize("reduce", ["sum", "mean"])
def test_gradient_agrees_with_finite_differences(estimator: Any, family: KernelFamily, reduce: Any) -> None:
    family = replace(family, reduce=reduce)
    x_s, x_t = batches(5, 4, d=2)
    w_s, w_t = weights_of(5, 1), weights_of(4, 2)
    # without a gradient through it the bandwidth counts as a constant: hold it while the rows move
    held = None if family.gradient else tf.constant(widths(x_s, x_t, family)[family.num // 2], tf.float64)

    def estimate(a: Any, b: Any, centre: Any = held) -> Any:
        weights = {"weights_s": np.broadcast_to(w_s, a.shape[:-1]), "weights_t": np.broadcast_to(w_t, b.shape[:-1])}
        return mk_mmd2(a, b, family, estimator, centre=centre, **weights)

    _, *gradient = value_and_gradients(lambda a, b: estimate(a, b, None), x_s, x_t)
    for ours, slope in zip(gradient, finite_differences(estimate, x_s, x_t), strict=True):
        np.testing.assert_allclose(ours, slope, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("estimator", ["biased", "unbiased"])
def test_gradient_of_conditions_agrees_with_finite_differences(estimator: Any) -> None:
    x_s, x_t = batches(5, 4, d=2)
    v_s, v_t = weights_of(5, 1, conditions=2), weights_of(4, 2, conditions=2)

    def estimate(a: Any, b: Any) -> Any:
        of_s, of_t = np.broadcast_to(v_s, (*a.shape[:-1], 2)), np.broadcast_to(v_t, (*b.shape[:-1], 2))
        return mk_mmd2(a, b, KernelFamily(gradient=True), estimator, weights_s=of_s, weights_t=of_t)

    _, *gradient = value_and_gradients(estimate, x_s, x_t)
    for ours, slope in zip(gradient, finite_differences(estimate, x_s, x_t), strict=True):
        np.testing.assert_allclose(ours, slope, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("estimator", ["biased", "linear"])
def test_no_gradient_flows_through_a_bandwidth_that_is_given(estimator: Any) -> None:
    x_s, x_t = batches(6, 5, d=2)
    of_constant, of_tensor = (
        value_and_gradients(
            lambda a, b, rule=rule: mk_mmd2(a, b, KernelFamily(gradient=True), estimator, centre=rule(a)), x_s, x_t
        )
        for rule in (lambda a: tf.constant(np.sum(x_s.numpy() ** 2)), lambda a: tf.reduce_sum(a * a))
    )
    for ours, reference in zip(of_tensor, of_constant, strict=True):
        np.testing.assert_allclose(ours, reference, rtol=1e-12)


def test_the_gradient_is_scaled_by_what_comes_from_above_for_each_member_alone() -> None:
    x_s, x_t = batches(6, 5, leading=(2,))
    factors = tf.constant([-3.0, 0.5], tf.float64)
    _, *plain = value_and_gradients(lambda a, b: mk_mmd2(a, b, ARTICLE_KERNELS), x_s, x_t)
    _, *scaled = value_and_gradients(lambda a, b: factors * mk_mmd2(a, b, ARTICLE_KERNELS), x_s, x_t)
    for ours, reference in zip(scaled, plain, strict=True):
        np.testing.assert_allclose(ours, factors.numpy()[:, None, None] * reference, rtol=1e-12)


# --- properties ---


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**16), st.integers(2, 12), st.integers(2, 12), st.sampled_from(["biased", "unbiased"]))
def test_mmd2_does_not_see_row_order_common_offset_scale_or_which_side_is_called_source(
    seed: int, n_s: int, n_t: int, estimator: Any
) -> None:
    x_s, x_t = batches(n_s, n_t, d=3, seed=seed)
    rng = np.random.default_rng(seed)
    stack_s, stack_t = (np.stack([x, rng.permutation(x), x + 5.0, 4.0 * x]) for x in (x_s.numpy(), x_t.numpy()))
    values = mk_mmd2(stack_s, stack_t, ARTICLE_KERNELS, estimator).numpy()
    np.testing.assert_allclose(values, values[0], rtol=1e-9, atol=1e-12)
    assert float(mk_mmd2(x_t, x_s, ARTICLE_KERNELS, estimator)) == pytest.approx(values[0], rel=1e-9, abs=1e-12)
    if estimator == "biased":
        assert 0.0 < values[0] < 10.0


def test_biased_mmd2_of_a_sample_with_itself_is_zero() -> None:
    x_s, _ = batches(40, 40)
    assert abs(float(mk_mmd2(x_s, x_s, ARTICLE_KERNELS))) < 1e-12


@pytest.mark.parametrize("estimator", ["biased", "unbiased"])
def test_equal_weights_change_nothing_on_either_side(estimator: Any) -> None:
    x_s, x_t = batches(3, 4, d=2)
    plain = float(mk_mmd2(x_s, x_t, KernelFamily(), estimator))
    even = mk_mmd2(x_s, x_t, KernelFamily(), estimator, weights_s=[2.0] * 3, weights_t=[0.1] * 4)
    assert float(even) == pytest.approx(plain, rel=1e-12)


@pytest.mark.parametrize("side", ["source", "target"])
def test_a_weight_of_two_is_the_row_twice(side: str) -> None:
    x_s, x_t = batches(3, 3, d=2)
    twice = {"source": (tf.gather(x_s, [0, 0, 1, 2]), x_t), "target": (x_s, tf.gather(x_t, [0, 0, 1, 2]))}[side]
    weights = {f"weights_{side[0]}": [2.0, 1.0, 1.0]}
    replicated = float(mk_mmd2(*twice, FIXED))
    assert float(mk_mmd2(x_s, x_t, FIXED, **weights)) == pytest.approx(replicated, rel=1e-12)


@pytest.mark.parametrize("estimator", ["biased", "unbiased", "linear"])
def test_mean_of_kernels_is_their_sum_divided_by_their_number(estimator: Any) -> None:
    x_s, x_t = batches()
    total = float(mk_mmd2(x_s, x_t, KernelFamily(reduce="sum"), estimator))
    assert float(mk_mmd2(x_s, x_t, KernelFamily(reduce="mean"), estimator)) == pytest.approx(total / 5, rel=1e-12)


# --- what is refused ---


@pytest.mark.parametrize("estimator", ["biased", "unbiased", "linear"])
@pytest.mark.parametrize("size", [1e20, 1e30, np.nan])
def test_rows_beyond_the_types_range_do_not_pass_for_alike(size: float, estimator: Any) -> None:
    x = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    with np.errstate(over="ignore"):
        found = mk_mmd2(x * np.float32(size), (x + 1) * np.float32(size), KernelFamily(), estimator)
    assert np.isnan(found)


@pytest.mark.parametrize(
    ("x_s", "x_t", "options", "message"),
    [
        (np.zeros((3, 2)), np.zeros((3, 4)), {}, r"n_s, d\) and \(\.\.\., n_t, d\)"),
        (np.zeros(3), np.zeros(3), {}, r"n_s, d\) and \(\.\.\., n_t, d\)"),
        (np.zeros((2, 3, 2)), np.zeros((3, 2)), {}, r"n_s, d\) and \(\.\.\., n_t, d\)"),
        (np.zeros((2, 3, 2)), np.zeros((3, 3, 2)), {}, r"n_s, d\) and \(\.\.\., n_t, d\)"),
        (np.zeros((3, 2)), np.zeros((3, 2), np.float32), {}, "both be float32 or both float64.*cast them"),
        (np.zeros((3, 2), int), np.zeros((3, 2), int), {}, "both be float32 or both float64"),
        (np.zeros((3, 2), np.float16), np.zeros((3, 2), np.float16), {}, "both be float32 or both float64"),
        (np.zeros((3, 0)), np.zeros((3, 0)), {}, "at least one column"),
        (np.zeros((0, 2)), np.zeros((3, 2)), {}, "source batch has 0 rows, at least 1"),
        (np.zeros((3, 2)), np.zeros((1, 2)), {"estimator": "unbiased"}, "target batch has 1 rows, at least 2"),
        (np.zeros((1, 2)), np.zeros((3, 2)), {"estimator": "linear"}, "source batch has 1 rows, at least 2"),
        (np.zeros((3, 2)), np.zeros((3, 2)), {"estimator": "quadratic"}, "estimator must be"),
        (np.zeros((3, 2)), np.zeros((3, 2)), {"weights_s": [1.0, 1.0]}, "weights of the source"),
        (np.zeros((3, 2)), np.zeros((3, 2)), {"weights_t": np.ones((2, 2))}, "weights of the target"),
        (np.zeros((3, 2)), np.zeros((3, 2)), {"weights_s": np.ones((3, 2))}, "same conditions"),
        (
            np.zeros((3, 2)),
            np.zeros((3, 2)),
            {"weights_s": np.ones((3, 2)), "weights_t": np.ones((3, 2)), "estimator": "linear"},
            "linear",
        ),
    ],
)
def test_mmd2_refuses_what_it_cannot_compare(x_s: Any, x_t: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mk_mmd2(x_s, x_t, KernelFamily(), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num": 0}, "kernel_num"),
        ({"mul": 1.0}, "kernel_mul"),
        ({"bandwidth": "fixed", "sigma": 0.0}, "fix_sigma must be positive"),
        ({"bandwidth": "fixed"}, "fix_sigma goes with"),
        ({"sigma": 2.0}, "fix_sigma goes with"),
        ({"bandwidth": "source"}, "bandwidth must be"),
        ({"reduce": "max"}, "reduce must be"),
        ({"bandwidth": "median", "gradient": True}, "no useful gradient"),
    ],
)
def test_a_kernel_family_refuses_options_that_mean_nothing(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KernelFamily(**options)

"""Kernels, squared distances and bandwidth rules against NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from models.kernel_family import KernelFamily
from models.kernels import (
    MEDIAN_ROWS,
    SQUARING_LIMIT,
    centre_of,
    exp_of_arithmetic,
    kernel_sums,
    mean_squared_distance,
    median_squared_distance,
    negative_squared_distances,
)
from models.mmd import mk_mmd2
from tests.data.mmd_batches import (
    FIXED,
    batches,
    value_and_gradients,
)


def test_the_rule_mean_is_the_mean_over_the_pairs_of_different_rows_of_both_populations() -> None:
    x_s, x_t = batches(7, 5, d=3, leading=(2,))
    mean = tf.reduce_mean(tf.concat([x_s, x_t], axis=1), axis=1, keepdims=True)
    found = mean_squared_distance(x_s - mean, x_t - mean).numpy()
    for member in range(2):
        joint = np.concatenate([x_s[member], x_t[member]])
        distances = np.sum((joint[:, None] - joint[None]) ** 2, axis=2)
        assert found[member] == pytest.approx(distances.sum() / (12**2 - 12), rel=1e-12)


@pytest.mark.parametrize(("n_s", "n_t"), [(1, 1), (3, 2), (7, 6), (64, 64), (100, 28)])
def test_the_rule_median_is_numpys_median_up_to_128_rows(n_s: int, n_t: int) -> None:
    assert n_s + n_t <= MEDIAN_ROWS
    x_s, x_t = batches(n_s, n_t, d=3, leading=(2,))
    for member, found in enumerate(median_squared_distance(x_s, x_t).numpy()):
        joint = np.concatenate([x_s[member], x_t[member]])
        distances = np.sum((joint[:, None] - joint[None]) ** 2, axis=2)
        assert found == pytest.approx(np.median(distances[np.triu_indices(len(joint), 1)]), rel=1e-12)


def test_the_rule_median_of_more_rows_takes_both_populations_and_is_near_the_median_of_all() -> None:
    x_s, x_t = batches(512, 500, d=8)
    joint = np.concatenate([x_s, x_t])
    squares = np.sum(joint**2, axis=1)
    distances = squares[:, None] + squares[None] - 2 * joint @ joint.T
    of_all = np.median(distances[np.triu_indices(len(joint), 1)])
    assert float(median_squared_distance(x_s, x_t)) == pytest.approx(of_all, rel=0.05)
    assert float(median_squared_distance(x_s, x_t + 100.0)) > 100.0  # half of the pairs are across


def test_where_most_rows_coincide_the_mean_takes_the_place_of_a_median_of_zero() -> None:
    x_s, x_t = batches(20, 20, d=3)
    alive = np.arange(20)[:, None] < 5
    x_s, x_t = tf.where(alive, x_s, 0.3), tf.where(alive, x_t, 0.3)
    assert float(median_squared_distance(x_s, x_t)) == 0.0
    by_median, by_mean = (
        value_and_gradients(lambda a, b, rule=rule: mk_mmd2(a, b, KernelFamily(bandwidth=rule)), x_s, x_t)
        for rule in ("median", "mean")
    )
    for ours, reference in zip(by_median, by_mean, strict=True):
        np.testing.assert_allclose(ours, reference, rtol=1e-12)
    assert np.abs(by_median[1]).max() > 0.0


def test_the_rule_fixed_is_its_number_whatever_the_rows_and_a_centre_takes_the_place_of_any_rule() -> None:
    x_s, x_t = batches(5, 4, leading=(2,))
    np.testing.assert_array_equal(centre_of(x_s, x_t, FIXED), [3.0, 3.0])
    centred = mk_mmd2(x_s, x_t, KernelFamily(), centre=tf.constant([3.0, 3.0], tf.float64))
    np.testing.assert_allclose(mk_mmd2(x_s, x_t, FIXED), centred, rtol=1e-12)


@pytest.mark.parametrize(("num", "mul"), [(1, 2.0), (SQUARING_LIMIT, 2.0), (SQUARING_LIMIT + 2, 2.0), (5, 3.0)])
def test_kernel_sums_are_the_sum_of_exponentials_and_its_slope(num: int, mul: float) -> None:
    u = np.linspace(0.0, 2.0, 16).reshape(4, 4)
    total, minus_slope = kernel_sums(tf.constant(-u, tf.float32), KernelFamily(num=num, mul=mul))
    np.testing.assert_allclose(total, sum(np.exp(-u * mul**j) for j in range(num)), rtol=5e-5)
    np.testing.assert_allclose(minus_slope, sum(mul**j * np.exp(-u * mul**j) for j in range(num)), rtol=5e-5)


def test_squared_distances_are_those_of_the_differences_and_never_below_zero() -> None:
    x = np.random.default_rng(0).normal(size=(50, 64)).astype(np.float32) * 1e-3
    distances = -negative_squared_distances(tf.constant(x), tf.constant(x[:20])).numpy()
    exact = np.sum((x[:, None].astype(float) - x[None, :20]) ** 2, axis=2)
    assert distances.min() >= 0.0
    np.testing.assert_allclose(distances, exact, atol=1e-6 * exact.max())


@given(st.floats(-87.0, 0.0, width=32))
def test_the_exponential_of_arithmetic_is_the_exponential(x: float) -> None:
    assert float(exp_of_arithmetic(tf.constant([x], tf.float32))[0]) == pytest.approx(math.exp(x), rel=1.5e-7)


def test_the_exponential_of_arithmetic_is_exact_at_0_and_next_to_nothing_far_below() -> None:
    found = exp_of_arithmetic(tf.constant([0.0, -87.0, -1e30, -np.inf, np.nan], tf.float32)).numpy()
    assert found[0] == 1.0
    np.testing.assert_allclose(found[1:4], math.exp(-87.0), rtol=1e-6)
    assert np.isnan(found[4])

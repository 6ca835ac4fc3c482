"""The terms deep adapters add, their weights and schedules: by hand, against numpy, by finite differences."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from models.deep.coral import coral2, covariance
from models.deep.dann import domain_loss, reverse_gradient
from models.deep.dsan import local_mmd2
from models.deep.method import Batch
from models.deep.schedules import scheduled, sigmoid_ramp
from models.deep.weights import class_weights, label_shift_weights, row_weights, source_weights
from models.kernel_family import KernelFamily
from models.mmd import mk_mmd2

FIXED = KernelFamily(bandwidth="fixed", sigma=2.0)


def rows(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def gradients_of(loss: Any, *tensors: Any) -> list[np.ndarray]:
    watched = [tf.convert_to_tensor(tensor) for tensor in tensors]
    with tf.GradientTape() as tape:
        tape.watch(watched)
        value = loss(*watched)
    return [gradient.numpy() for gradient in tape.gradient(value, watched)]


def finite_difference(loss: Any, x: np.ndarray, step: float = 1e-5) -> np.ndarray:
    """Central differences; `loss` gets all moved batches as one stack."""
    moves = step * np.eye(x.size).reshape(-1, *x.shape)
    return ((loss(x + moves) - loss(x - moves)).numpy() / (2 * step)).reshape(x.shape)


# --- Deep CORAL ---


def test_covariance_is_numpys() -> None:
    x = rows(2, 9, 4)
    for member in range(2):
        np.testing.assert_allclose(covariance(tf.constant(x))[member], np.cov(x[member].T), rtol=1e-12)


def test_weighted_covariance_is_numpys_with_reliability_weights() -> None:
    x, weights = rows(9, 4), np.arange(1.0, 10.0)
    np.testing.assert_allclose(covariance(tf.constant(x), weights), np.cov(x.T, aweights=weights), rtol=1e-12)


def test_weights_of_a_covariance_replicate_rows_up_to_its_divisor() -> None:
    x, weights = rows(4, 3), np.array([2.0, 1.0, 1.0, 1.0])
    twice = np.cov(x[[0, 0, 1, 2, 3]].T, ddof=0)
    expected = twice / (1 - np.sum((weights / 5) ** 2))  # reliability weights: how many rows, not how many copies
    np.testing.assert_allclose(covariance(tf.constant(x), weights), expected, rtol=1e-12)


def test_coral_is_the_squared_distance_of_the_covariances_over_4_d_squared() -> None:
    x_s, x_t = rows(2, 9, 3), 1.5 * rows(2, 7, 3, seed=1)
    found = coral2(x_s, x_t).numpy()
    for member in range(2):
        difference = np.cov(x_s[member].T) - np.cov(x_t[member].T)
        assert found[member] == pytest.approx(np.sum(difference**2) / (4 * 9), rel=1e-12)


def test_coral_of_equal_weights_is_coral_without() -> None:
    x_s, x_t = rows(9, 3), rows(7, 3, seed=1)
    assert float(coral2(x_s, x_t, np.full(9, 0.3))) == pytest.approx(float(coral2(x_s, x_t)), rel=1e-12)


def test_coral_sees_spread_and_not_place() -> None:
    x_s, x_t = rows(9, 3).astype(np.float32), rows(7, 3, seed=1).astype(np.float32)
    moved = float(coral2(x_s + 1000.0, x_t - 1000.0))
    assert moved == pytest.approx(float(coral2(x_s, x_t)), rel=1e-3)


@pytest.mark.parametrize("weights", [None, [0.5, 1.0, 2.0, 1.0, 0.0]])
def test_the_gradient_of_coral_agrees_with_finite_differences_on_both_sides(weights: list[float] | None) -> None:
    x_s, x_t = rows(5, 2), 1.5 * rows(4, 2, seed=1)
    of_s, of_t = gradients_of(lambda a, b: coral2(a, b, weights), x_s, x_t)

    def stacked(a: Any) -> Any:
        return None if weights is None else np.broadcast_to(weights, a.shape[:-1])

    slope_s = finite_difference(lambda a: coral2(a, np.broadcast_to(x_t, (len(a), 4, 2)), stacked(a)), x_s)
    slope_t = finite_difference(
        lambda b: coral2(
            np.broadcast_to(x_s, (len(b), 5, 2)),
            b,
            np.broadcast_to(np.ones(5) if weights is None else weights, (len(b), 5)),
        ),
        x_t,
    )
    np.testing.assert_allclose(of_s, slope_s, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(of_t, slope_t, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("n_s", "n_t"), [(1, 1), (1, 6), (6, 1), (6, 4)])
@pytest.mark.parametrize("constant", [0.0, 1000.1])
def test_coral_without_variance_or_of_one_row_is_zero_with_gradient_zero(n_s: int, n_t: int, constant: float) -> None:
    x_s, x_t = np.full((n_s, 3), constant, np.float32), np.full((n_t, 3), constant, np.float32)
    assert float(coral2(x_s, x_t)) == pytest.approx(0.0, abs=1e-9)
    for gradient in gradients_of(coral2, x_s, x_t):
        np.testing.assert_allclose(gradient, 0.0, atol=1e-6)


def test_coral_of_one_row_takes_the_other_population_s_spread_and_its_gradient() -> None:
    x_s, x_t = rows(1, 3), rows(6, 3, seed=1)
    assert float(coral2(x_s, x_t)) == pytest.approx(np.sum(np.cov(x_t.T) ** 2) / 36, rel=1e-12)
    of_s, of_t = gradients_of(coral2, x_s, x_t)
    np.testing.assert_array_equal(of_s, 0.0)
    assert np.abs(of_t).max() > 0.0


def test_coral_refuses_other_columns() -> None:
    with pytest.raises(ValueError, match="same columns"):
        coral2(rows(4, 2), rows(4, 3))


# --- DANN ---


def test_a_classifier_that_cannot_tell_has_a_domain_loss_of_log_2() -> None:
    assert float(domain_loss(tf.zeros(7), tf.zeros(3))) == pytest.approx(math.log(2))


def test_domain_loss_has_the_value_worked_by_hand() -> None:
    # source rows are 1: p = 1/(1 + e^-1); target rows are 0: p = 1/2 and 1/(1 + e^2). Each population counts half
    source = math.log(1 + math.exp(-1))
    target = (math.log(2) + math.log(1 + math.exp(-2))) / 2
    value = float(domain_loss(tf.constant([1.0]), tf.constant([0.0, -2.0])))
    assert value == pytest.approx((source + target) / 2, rel=1e-6)


def test_weights_of_the_domain_loss_replicate_source_rows() -> None:
    logits_s, logits_t = rows(2, 3), rows(2, 5, seed=1)
    twice = domain_loss(logits_s[:, [0, 0, 1, 2]], logits_t)
    weighted = domain_loss(logits_s, logits_t, np.array([[1.0, 0.5, 0.5]] * 2))
    np.testing.assert_allclose(weighted, twice, rtol=1e-12)


def test_the_domain_loss_is_finite_where_the_classifier_is_sure_and_wrong() -> None:
    logits_s, logits_t = tf.constant([-1e4]), tf.constant([1e4])
    assert float(domain_loss(logits_s, logits_t)) == pytest.approx(1e4)
    for gradient in gradients_of(domain_loss, logits_s, logits_t):
        assert np.isfinite(gradient).all()


def test_the_gradient_of_the_domain_loss_agrees_with_finite_differences() -> None:
    logits_s, logits_t, weights = rows(4), rows(3, seed=1), np.array([1.0, 2.0, 0.5, 1.0])
    of_s, of_t = gradients_of(lambda a, b: domain_loss(a, b, weights), logits_s, logits_t)
    slope_s = finite_difference(lambda a: domain_loss(a, np.broadcast_to(logits_t, (4, 3)), weights), logits_s)
    slope_t = finite_difference(lambda b: domain_loss(np.broadcast_to(logits_s, (3, 4)), b, weights), logits_t)
    np.testing.assert_allclose(of_s, slope_s, rtol=1e-7)
    np.testing.assert_allclose(of_t, slope_t, rtol=1e-7)


@pytest.mark.parametrize("weight", [0.0, 0.4])
def test_reversal_keeps_the_value_and_gives_back_minus_weight_times_the_gradient(weight: float) -> None:
    x = rows(2, 3, 2)
    np.testing.assert_array_equal(reverse_gradient(tf.constant(x), tf.constant(weight, tf.float64)), x)
    (reversed_,) = gradients_of(lambda a: tf.reduce_sum(reverse_gradient(a, tf.constant(weight, a.dtype)) ** 3), x)
    np.testing.assert_allclose(reversed_, -weight * 3 * x**2, rtol=1e-12)


# --- DSAN ---


@pytest.mark.parametrize("estimator", ["biased", "unbiased"])
def test_local_mmd_is_the_mean_of_the_two_classes_mmd_at_a_fixed_bandwidth(estimator: Any) -> None:
    x_s, x_t = rows(9, 3), rows(8, 3, seed=1) + 0.5
    bad_s, bad_t = np.arange(9) < 4, np.arange(8) % 2 == 0
    by_class = [
        float(mk_mmd2(x_s[of_s], x_t[of_t], FIXED, estimator)) for of_s, of_t in ((bad_s, bad_t), (~bad_s, ~bad_t))
    ]
    found = local_mmd2(x_s, x_t, bad_s.astype(float), bad_t.astype(float), FIXED, estimator)
    assert float(found) == pytest.approx(np.mean(by_class), rel=1e-10)


@pytest.mark.parametrize("estimator", ["biased", "unbiased"])
def test_local_mmd_of_soft_labels_weighs_target_rows_by_their_probability(estimator: Any) -> None:
    x_s, x_t = rows(9, 3), rows(8, 3, seed=1) + 0.5
    bad_s, bad_t = (np.arange(9) < 4).astype(float), np.random.default_rng(2).uniform(0.05, 0.95, size=8)
    by_class = [
        float(mk_mmd2(x_s, x_t, FIXED, estimator, weights_s=of_s, weights_t=of_t))
        for of_s, of_t in ((bad_s, bad_t), (1 - bad_s, 1 - bad_t))
    ]
    found = local_mmd2(x_s, x_t, bad_s, bad_t, FIXED, estimator)
    assert float(found) == pytest.approx(np.mean(by_class), rel=1e-10)


@pytest.mark.parametrize("estimator", ["biased", "unbiased"])
@pytest.mark.parametrize("lacking", ["source", "target"])
def test_a_class_that_one_side_lacks_adds_nothing_to_local_mmd(estimator: Any, lacking: str) -> None:
    x_s, x_t = rows(9, 3), rows(8, 3, seed=1) + 0.5
    bad_s = np.zeros(9) if lacking == "source" else (np.arange(9) < 4).astype(float)
    bad_t = np.zeros(8) if lacking == "target" else (np.arange(8) < 3).astype(float)
    of_goods = float(mk_mmd2(x_s[bad_s == 0], x_t[bad_t == 0], FIXED, estimator))
    assert float(local_mmd2(x_s, x_t, bad_s, bad_t, FIXED, estimator)) == pytest.approx(of_goods / 2, rel=1e-10)
    for gradient in gradients_of(lambda a, b: local_mmd2(a, b, bad_s, bad_t, FIXED, estimator), x_s, x_t):
        assert np.isfinite(gradient).all()
        assert np.abs(gradient).max() > 0.0


# --- weights ---


def test_label_shift_weights_give_each_batch_of_a_stack_the_target_s_bad_rate() -> None:
    y_s = np.array([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0]])
    weights = label_shift_weights(y_s, 0.4).numpy()
    np.testing.assert_allclose(weights, [[0.4 / 0.25, 0.8, 0.8, 0.8], [0.4 / 0.75] * 3 + [0.6 / 0.25]], rtol=1e-12)
    np.testing.assert_allclose(np.sum(weights * y_s, axis=1) / np.sum(weights, axis=1), 0.4)
    np.testing.assert_allclose(np.mean(weights, axis=1), 1.0)


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_a_batch_of_one_class_is_weighted_evenly(label: float) -> None:
    weights = label_shift_weights(np.full(5, label), 0.1).numpy()
    assert np.all(weights == weights[0])
    assert weights[0] > 0.0


@pytest.mark.parametrize("prior", [0.0, 1.0, float("nan")])
def test_label_shift_weights_refuse_an_impossible_prior(prior: float) -> None:
    with pytest.raises(ValueError, match="prior"):
        label_shift_weights(np.array([0.0, 1.0]), prior)


def test_label_shift_weights_refuse_whole_number_labels_which_would_round_the_rates() -> None:
    with pytest.raises(ValueError, match="int64"):
        label_shift_weights(np.array([0, 1]), 0.3)


def test_class_weights_sum_to_the_roots_of_the_classes_shares() -> None:
    bad_s, bad_t = np.array([[1.0, 0.0, 0.0]] * 2), np.array([[0.9, 0.2], [0.5, 0.5]])
    of_s, of_t = (weights.numpy() for weights in class_weights(bad_s, bad_t, 0.3))
    assert of_s.shape == (2, 3, 2)
    assert of_t.shape == (2, 2, 2)
    for weights in (of_s, of_t):
        np.testing.assert_allclose(weights.sum(axis=1), [[math.sqrt(0.3), math.sqrt(0.7)]] * 2, rtol=1e-12)
    np.testing.assert_allclose(of_t[0, :, 0] / of_t[0, :, 0].sum(), [0.9 / 1.1, 0.2 / 1.1], rtol=1e-12)


def test_class_weights_of_a_class_that_one_side_lacks_are_zero_on_both() -> None:
    of_s, of_t = class_weights(np.array([0.0, 0.0]), np.array([0.7, 0.4]), 0.5)
    np.testing.assert_array_equal(of_s[:, 0], [0.0, 0.0])
    np.testing.assert_array_equal(of_t[:, 0], [0.0, 0.0])
    assert float(tf.reduce_sum(of_t[:, 1])) == pytest.approx(math.sqrt(0.5))


def a_batch() -> Batch:
    """Two members; the first of two target labels is known, and the network says 1/2 of the other row."""
    layers_t = {"logits": tf.zeros([2, 2, 1])}
    return Batch(
        source={"logits": tf.zeros([2, 4, 1])},
        target=layers_t,
        y_s=tf.constant([[1.0, 0.0, 0.0, 0.0]] * 2),
        y_t=tf.constant([[1.0, 0.0]] * 2),
        known_t=tf.constant([[1.0, 0.0]] * 2),
    )


def test_a_target_row_counts_to_a_class_with_its_label_or_else_with_the_network_s_probability_as_a_constant() -> None:
    batch = a_batch()
    np.testing.assert_array_equal(batch.bad_t(None), [[1.0, 0.5]] * 2)
    with tf.GradientTape() as tape:
        tape.watch(batch.target["logits"])
        bad = batch.bad_t(None)
    assert tape.gradient(bad, batch.target["logits"]) is None


def test_the_networks_probability_is_moved_from_the_source_rows_bad_rate_to_the_targets() -> None:
    # a quarter of the source rows is bad, so log odds 0 there are log odds log(.4/.6) - log(.25/.75) in the target
    expected = 1 / (1 + math.exp(-(math.log(0.4 / 0.6) - math.log(0.25 / 0.75))))
    np.testing.assert_allclose(a_batch().bad_t(0.4), [[1.0, expected]] * 2, rtol=1e-6)
    one_class = replace(a_batch(), y_s=tf.zeros([2, 4]))
    assert np.isfinite(one_class.bad_t(0.4)).all()


def test_rows_are_weighted_by_the_rule_and_equal_where_the_target_s_bad_rate_is_not_known() -> None:
    batch = a_batch()
    assert row_weights("equal", batch, 0.4) == (None, None)
    assert row_weights("label_shift", batch, None) == (None, None)
    of_s, of_t = row_weights("label_shift", batch, 0.4)
    assert of_t is None
    np.testing.assert_allclose(of_s, label_shift_weights(batch.y_s, 0.4))
    for prior, share in ((0.4, 0.4), (None, 0.5)):
        by_class = row_weights("class_conditional", batch, prior)
        for ours, expected in zip(by_class, class_weights(batch.y_s, batch.bad_t(prior), share), strict=True):
            np.testing.assert_array_equal(ours, expected)
    assert source_weights("equal", batch, 0.4) is None
    assert source_weights("label_shift", batch, None) is None
    for rule in ("label_shift", "class_conditional"):
        np.testing.assert_allclose(source_weights(rule, batch, 0.4), label_shift_weights(batch.y_s, 0.4))


# --- schedules ---


@pytest.mark.parametrize(("step", "weight"), [(0, 0.0), (45, 0.22), (100, 0.46), (200, 0.76)])
def test_the_article_s_schedule_has_its_published_values_whatever_the_run_s_length(step: int, weight: float) -> None:
    for planned in (200, 700):
        found = scheduled("article", step, planned=planned, warm_up_steps=1)
        assert found == pytest.approx(weight, abs=0.005)
        assert found == pytest.approx(math.tanh(5 * step / 1000), abs=1e-12)  # the same curve by another formula


def test_dann_s_schedule_is_the_ramp_over_the_run_s_length() -> None:
    weights = [scheduled("dann", step, planned=400, warm_up_steps=1) for step in (0, 40, 200, 400)]
    assert weights == pytest.approx([0.0, math.tanh(0.5), math.tanh(2.5), math.tanh(5.0)])
    assert weights[0] == sigmoid_ramp(0.0) == 0.0


def test_warm_up_rises_in_a_line_and_stays_and_constant_is_one() -> None:
    warm_up = [scheduled("warm_up", step, planned=9, warm_up_steps=4) for step in range(6)]
    assert warm_up == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    assert scheduled("constant", 0, planned=9, warm_up_steps=4) == 1.0


def test_an_unknown_schedule_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="cosine"):
        scheduled("cosine", 0, planned=9, warm_up_steps=4)  # type: ignore[arg-type]

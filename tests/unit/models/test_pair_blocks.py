"""Sums over pairs in tiles, in graphs and compiled: the same numbers as in one piece."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from models.kernel_family import KernelFamily
from models.mmd import mk_mmd2
from models.pair_blocks import _compiled
from tests.data.mmd_batches import (
    FIXED,
    batches,
    slow_mmd2,
    value_and_gradients,
    weights_of,
)


@pytest.mark.parametrize(("n_s", "n_t"), [(29, 17), (17, 3), (3, 17), (32, 24), (17, 1)])
@pytest.mark.parametrize("estimator", ["biased", "unbiased"])
@pytest.mark.parametrize("leading", [(), (2,)])
def test_tiled_blocks_equal_whole_ones_in_value_and_gradient(
    monkeypatch: pytest.MonkeyPatch, n_s: int, n_t: int, estimator: Any, leading: tuple[int, ...]
) -> None:
    if estimator == "unbiased":
        n_t = max(n_t, 2)
    x_s, x_t = batches(n_s, n_t, d=3, leading=leading)
    v_s = weights_of(n_s, 1, leading=leading, conditions=2)
    v_t = weights_of(n_t, 2, leading=leading, conditions=2)

    def estimate(a: Any, b: Any) -> Any:
        return mk_mmd2(a, b, KernelFamily(gradient=True), estimator, weights_s=v_s, weights_t=v_t)

    whole = value_and_gradients(estimate, x_s, x_t)
    monkeypatch.setattr("models.pair_blocks.TILE", 8)
    tiled = value_and_gradients(estimate, x_s, x_t)
    for ours, reference in zip(tiled, whole, strict=True):
        np.testing.assert_allclose(ours, reference, rtol=1e-9, atol=1e-13)


def test_tiles_in_a_graph_equal_whole_blocks_and_the_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.pair_blocks.TILE", 8)
    x_s, x_t = batches(27, 18, d=3)
    value, *slopes = (tensor.numpy() for tensor in unbiased_with_gradients(x_s, x_t))
    monkeypatch.undo()
    eager = value_and_gradients(lambda a, b: mk_mmd2(a, b, FIXED, "unbiased"), x_s, x_t)
    for ours, reference in zip((value, *slopes), eager, strict=True):
        np.testing.assert_allclose(ours, reference, rtol=1e-12)
    assert value == pytest.approx(
        slow_mmd2(x_s, x_t, np.full(27, 1 / 27), np.full(18, 1 / 18), FIXED, is_unbiased=True), rel=1e-10
    )


@tf.function
def unbiased_with_gradients(x_s: Any, x_t: Any) -> tuple[Any, Any, Any]:
    with tf.GradientTape() as tape:
        tape.watch([x_s, x_t])
        value = mk_mmd2(x_s, x_t, FIXED, "unbiased")
    return value, *tape.gradient(value, [x_s, x_t])


@pytest.mark.parametrize("estimator", ["biased", "unbiased", "linear"])
def test_a_graph_that_does_not_know_the_number_of_rows_gives_the_same(estimator: Any) -> None:
    x_s, x_t = batches(9, 5, d=3)
    rows = tf.TensorSpec((None, 3), tf.float64)
    graph = tf.function(lambda a, b: mk_mmd2(a, b, KernelFamily(), estimator), input_signature=[rows, rows])
    assert float(graph(x_s, x_t)) == pytest.approx(float(mk_mmd2(x_s, x_t, KernelFamily(), estimator)), rel=1e-12)


# --- compiled ---


def in_a_graph(estimate: Any, x_s: Any, x_t: Any) -> tuple[Any, ...]:
    """Value and gradients as a training step takes them: in a graph that knows all shapes."""

    @tf.function(autograph=False)
    def graph(x_s: Any, x_t: Any) -> tuple[Any, ...]:
        with tf.GradientTape() as tape:
            tape.watch([x_s, x_t])
            value = estimate(x_s, x_t)
        return value, *tape.gradient(value, [x_s, x_t])

    return tuple(part.numpy() for part in graph(x_s, x_t))


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What was compiled, by family and diagonal; one call a member."""
    asked: list[tuple[Any, ...]] = []

    def noted(*key: Any) -> Any:
        asked.append(key)
        return _compiled(*key)

    monkeypatch.setattr("models.pair_blocks._compiled", noted)
    return asked


@pytest.mark.flow
@pytest.mark.parametrize("estimator", ["biased", "unbiased"])
@pytest.mark.parametrize(
    ("family", "conditions"),
    [
        (KernelFamily(), None),
        (KernelFamily(gradient=True, reduce="sum"), None),
        (KernelFamily(bandwidth="median"), 2),
        (KernelFamily(num=11), None),
        (KernelFamily(num=4, mul=3.0), 3),
    ],
    ids=str,
)
def test_the_compiled_sums_are_those_of_float64_in_value_and_gradient(
    compilations: list[Any], family: KernelFamily, conditions: int | None, estimator: Any
) -> None:
    n_s, n_t = 128, 150
    exact_s, exact_t = batches(n_s, n_t, seed=3)
    v_s, v_t = weights_of(n_s, 1, conditions=conditions), weights_of(n_t, 2, conditions=conditions)

    def estimate(a: Any, b: Any) -> Any:
        return mk_mmd2(a, b, family, estimator, weights_s=v_s, weights_t=v_t)

    exact = value_and_gradients(estimate, exact_s, exact_t)
    compiled = in_a_graph(estimate, tf.cast(exact_s, tf.float32), tf.cast(exact_t, tf.float32))
    assert len(compilations) == 1
    scale = 1.0 if conditions is None else float(np.sum(v_s) * np.sum(v_t)) / conditions
    np.testing.assert_allclose(compiled[0], exact[0], rtol=1e-5, atol=1e-6 * scale)
    for ours, reference in zip(compiled[1:], exact[1:], strict=True):
        np.testing.assert_allclose(ours, reference, rtol=1e-3, atol=1e-5 * np.abs(reference).max())


def test_a_member_of_a_compiled_ensemble_is_the_member_alone(compilations: list[Any]) -> None:
    x_s, x_t = batches(130, 128, dtype="float32", leading=(3,))
    together = in_a_graph(lambda a, b: mk_mmd2(a, b, FIXED, "unbiased"), x_s, x_t)
    assert len(compilations) == 1
    for member in range(3):
        alone = in_a_graph(lambda a, b: mk_mmd2(a, b, FIXED, "unbiased"), x_s[member], x_t[member])
        for ours, reference in zip(together, alone, strict=True):
            np.testing.assert_allclose(ours[member], reference, rtol=1e-5, atol=1e-8)


def test_two_leading_axes_keep_their_places_when_compiled(compilations: list[Any]) -> None:
    x_s, x_t = batches(128, 128, dtype="float32", leading=(2, 3))
    compiled = in_a_graph(lambda a, b: mk_mmd2(a, b, FIXED), x_s, x_t)
    assert compilations
    for ours, reference in zip(compiled, value_and_gradients(lambda a, b: mk_mmd2(a, b, FIXED), x_s, x_t), strict=True):
        assert ours.shape == reference.shape
        np.testing.assert_allclose(ours, reference, rtol=1e-4, atol=1e-7)


def test_compiled_sums_are_finite_on_batches_without_variance_and_no_number_where_a_row_is_none(
    compilations: list[Any],
) -> None:
    x = tf.fill((128, 4), 1000.0)
    for estimator in ("biased", "unbiased"):
        found = in_a_graph(lambda a, b, e=estimator: mk_mmd2(a, b, KernelFamily(gradient=True), e), x, x)
        assert all(np.isfinite(part).all() for part in found)
        assert found[0] == pytest.approx(0.0, abs=1e-6)
    broken = tf.tensor_scatter_nd_update(x, [[0, 0]], [np.nan])
    assert np.isnan(in_a_graph(lambda a, b: mk_mmd2(a, b, FIXED), broken, x)[0])
    assert len(compilations) == 3


def test_only_large_float32_batches_in_graphs_of_known_shapes_are_compiled(compilations: list[Any]) -> None:
    x_s, x_t = batches(128, 128, dtype="float32")
    mk_mmd2(x_s, x_t, FIXED)
    rows = tf.TensorSpec((None, 6), tf.float32)
    tf.function(lambda a, b: mk_mmd2(a, b, FIXED), input_signature=[rows, rows], autograph=False)(x_s, x_t)
    in_a_graph(lambda a, b: mk_mmd2(a, b, FIXED), x_s[:127], x_t)
    in_a_graph(lambda a, b: mk_mmd2(a, b, FIXED), tf.cast(x_s, tf.float64), tf.cast(x_t, tf.float64))
    assert not compilations
    in_a_graph(lambda a, b: mk_mmd2(a, b, FIXED), x_s, x_t)
    assert compilations == [(5, 2.0, True)]

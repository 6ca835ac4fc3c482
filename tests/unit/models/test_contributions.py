"""Contributions of columns to the log odds: what they sum to, and what slow implementations say they are."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import RandomForestClassifier
from tensorflow.core.protobuf import saved_model_pb2

from models import contributions
from models.contributions import graph_contributions
from models.fitted import Calibration, Contender, Form, Logistic, Network, Stacked, Trees, logit, sigmoid
from models.form_graph import ContenderGraph, expected_values
from models.shallow.trees import BoostedSettings, ForestSettings, fit_boosted, fit_forest

WIDTH = 6
CALIBRATION = Calibration(intercept=-0.3, slope=1.4)


@cache
def rows(count: int = 1500, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = np.round(rng.normal(size=(count, WIDTH)), 1).astype(np.float32)
    y = (rng.random(count) < sigmoid(x[:, 0] - x[:, 1] * x[:, 2] - 1.0 + x[:, 5])).astype(np.int8)
    return x, y


REFERENCE = rows()[0].mean(axis=0)


def network(activation: str, *, scale: float = 1.0, width: int = WIDTH) -> Network:
    rng = np.random.default_rng(4)
    shapes = [(width, 16), (16, 8), (8, 1)]
    return Network(
        weights=tuple((scale * rng.normal(size=(3, *s)) / s[0] ** 0.5).astype(np.float32) for s in shapes),
        biases=tuple((0.3 * rng.normal(size=(3, s[1]))).astype(np.float32) for s in shapes),
        activation="relu" if activation == "relu" else "sigmoid",
    )


@cache
def forms() -> dict[str, Form]:
    x, y = rows()
    linear = Logistic(np.random.default_rng(2).normal(size=WIDTH), -1.5)
    boosted = fit_boosted(x, y, seed=0, settings=BoostedSettings(rounds=40, learning_rate=0.1))
    forest = fit_forest(x, y, ForestSettings(seeds=(0,), trees_per_seed=10, depth=6, min_leaf_rows=1), threads=1)
    own, weights = np.array([2, 0], np.int32), np.array([0.8, 0.3, -0.2])
    return {
        "logistic": linear,
        "boosted": boosted,
        "forest": forest,
        "relu network": network("relu"),
        "sigmoid network": network("sigmoid", scale=4.0),
        "stacked on logistic": Stacked(linear, own, weights, intercept=0.4),
        "stacked on boosted": Stacked(boosted, own, weights, intercept=0.4),
        "stacked on forest": Stacked(forest, own, weights, intercept=0.4),
        "logistic beyond its bounds": Logistic(12 * linear.coefficients, -1.5),
        "network beyond its bounds": network("relu", scale=5.0),
        "forest of pure leaves": replace(forest, value=np.round(forest.value)),
    }


NAMES = list(forms())


def contribute(form: Form, x: np.ndarray) -> np.ndarray:
    return contributions_of(Contender("one", form), x)


def contributions_of(contender: Contender, x: np.ndarray, reference: np.ndarray = REFERENCE) -> np.ndarray:
    graph = ContenderGraph(contender, len(reference))
    return graph_contributions(graph, tf.constant(x), reference).numpy()


def base_of(form: Form) -> float:
    """Where the contributions of a form begin, from its definition."""
    match form:
        case Trees():
            assert form.rows is not None
            root = form.left[:, 0] != 0
            expected = np.where(root, expected_values(form, {})[:, 0], form.value[:, 0])
            if form.link == "mean":
                return float(logit(np.array([expected.mean()]))[0])
            return float(form.baseline + expected.sum())
        case Stacked():
            own = REFERENCE[form.columns].astype(np.float64) @ form.coefficients[1:]
            return float(form.coefficients[0] * base_of(form.source) + own + form.intercept)
        case _:
            return float(form.raw_logit(REFERENCE[np.newaxis])[0])


@pytest.mark.parametrize("name", NAMES)
def test_contributions_of_a_row_sum_to_its_log_odds_less_the_base(name: str) -> None:
    form = forms()[name]
    x = np.concatenate([rows(300, seed=1)[0], REFERENCE[np.newaxis]])
    contender = Contender("one", form, CALIBRATION)
    parts = contributions_of(contender, x)
    assert (parts.dtype, parts.shape) == (np.float64, x.shape)
    expected = CALIBRATION.slope * (form.raw_logit(x) - base_of(form))
    tolerance = 2e-5 if "network" in name else 1e-9
    np.testing.assert_allclose(parts.sum(axis=1), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", ["logistic", "relu network", "sigmoid network", "stacked on logistic"])
def test_the_reference_row_has_no_contributions(name: str) -> None:
    assert np.abs(contribute(forms()[name], REFERENCE[np.newaxis])).max() < 1e-6


def test_logistic_contribution_is_the_coefficient_times_the_distance_from_the_reference() -> None:
    form = Logistic(np.array([2.0, -1.0]), 0.5)
    got = contributions_of(Contender("one", form), np.array([[1, 3]], np.float32), np.array([0.5, 1.0], np.float32))
    np.testing.assert_allclose(got, [[1.0, -2.0]], rtol=0, atol=1e-12)


# --- trees ---


def slow_paths(form: Trees, x: np.ndarray) -> np.ndarray:
    """One row, tree and node after the other: value[child] - value[node] to the column that the node looks at."""
    expected = slow_expected_values(form)
    found = np.zeros(x.shape)
    for row, credited in zip(x, found, strict=True):
        for tree in range(len(form.feature)):
            node = 0
            while form.left[tree, node] != node:
                column = form.feature[tree, node]
                side = form.left if row[column] <= form.threshold[tree, node] else form.right
                credited[column] += expected[tree, side[tree, node]] - expected[tree, node]
                node = side[tree, node]
    return found


def slow_expected_values(form: Trees) -> np.ndarray:
    assert form.rows is not None
    found = form.value.copy()

    def fill(tree: int, node: int) -> tuple[float, int]:
        """Sum of the values of the training rows below, and their number."""
        if form.left[tree, node] == node:
            return form.value[tree, node] * form.rows[tree, node], form.rows[tree, node]
        sums, counts = zip(*(fill(tree, side[tree, node]) for side in (form.left, form.right)), strict=True)
        found[tree, node] = sum(sums) / sum(counts)
        return sum(sums), sum(counts)

    for tree in range(len(form.feature)):
        fill(tree, 0)
    return found


def test_boosted_contributions_are_those_of_the_slow_paths() -> None:
    form, x = forms()["boosted"], rows(200, seed=1)[0]
    assert isinstance(form, Trees)
    np.testing.assert_allclose(contribute(form, x), slow_paths(form, x), rtol=0, atol=1e-12)


def test_forest_contributions_are_the_slow_paths_stretched_to_log_odds() -> None:
    form, x = forms()["forest"], rows(200, seed=1)[0]
    assert isinstance(form, Trees)
    paths = slow_paths(form, x) / len(form.feature)
    start = slow_expected_values(form)[:, 0].mean()
    end = start + paths.sum(axis=1)
    stretch = (logit(end) - logit(np.array([start]))) / (end - start)
    np.testing.assert_allclose(contribute(form, x), paths * stretch[:, np.newaxis], rtol=1e-9, atol=1e-12)


def test_expected_values_of_a_forest_are_the_library_s_values_at_inner_nodes() -> None:
    x, y = rows()
    form = fit_forest(x, y, ForestSettings(seeds=(7,), trees_per_seed=5, depth=6), threads=1)
    model = RandomForestClassifier(5, max_depth=6, min_samples_leaf=20, random_state=7).fit(x, y)
    for expected, estimator in zip(expected_values(form, {}), model.estimators_, strict=True):
        of_library = estimator.tree_.value[:, 0, 1]
        np.testing.assert_allclose(expected[: len(of_library)], of_library, rtol=0, atol=1e-12)


def test_row_that_ends_where_a_forest_begins_has_finite_contributions_that_cancel() -> None:
    """Two stumps that move the probability up and down by as much: p == p0, and no chord to stretch by."""
    form = Trees(
        feature=np.array([[0, 0, 0], [1, 0, 0]], np.int32),
        threshold=np.zeros((2, 3), np.float32),
        left=np.array([[1, 1, 2]] * 2, np.int32),
        right=np.array([[2, 1, 2]] * 2, np.int32),
        value=np.array([[0.0, 0.1, 0.3]] * 2),
        depth=1,
        link="mean",
        rows=np.array([[10, 5, 5]] * 2, np.int32),
    )
    got = contributions_of(Contender("one", form), np.array([[1, -1]], np.float32), np.zeros(2, np.float32))
    slope = 1 / (0.2 * 0.8)
    np.testing.assert_allclose(got, [[0.05 * slope, -0.05 * slope]], rtol=1e-5)


def test_columns_that_all_have_alike_contribute_nothing_and_their_branch_alone_counts() -> None:
    """A pooled contender: the flag of the population stands behind the matrix, and everyone served is of the target."""
    x, y = rows()
    flag = (np.arange(len(x)) % 2).astype(np.float32)[:, np.newaxis]
    y = np.where(flag[:, 0] == 1, y, 1 - y).astype(np.int8)  # the flag turns everything round
    pooled = np.concatenate([x, flag], axis=1)
    form = fit_boosted(pooled, y, seed=0, settings=BoostedSettings(rounds=40, learning_rate=0.1))
    contender = Contender("pooled", form, constants=(1.0,))
    fresh = rows(300, seed=1)[0]
    parts = contributions_of(contender, fresh)
    assert parts.shape == fresh.shape
    base = contender.raw_logit(fresh) - parts.sum(axis=1)
    assert np.ptp(base) < 1e-9
    target = flag[:, 0] == 1
    assert base[0] == pytest.approx(form.raw_logit(pooled[target]).mean(), abs=0.2)
    assert abs(base[0] - form.raw_logit(pooled[~target]).mean()) > 0.5


def test_every_form_with_constants_sums_to_its_log_odds() -> None:
    for form in (Logistic(np.arange(7.0), -1.0), network("relu", width=7), Stacked(
        Logistic(np.arange(7.0) / 7, -1.0), np.array([6, 1], np.int32), np.array([0.8, 0.3, -0.2]), 0.4
    )):  # fmt: skip
        contender = Contender("pooled", form, constants=(1.0,))
        x = rows(50, seed=1)[0]
        parts = contributions_of(contender, x)
        base = contender.raw_logit(x) - parts.sum(axis=1)
        np.testing.assert_allclose(base, contender.raw_logit(REFERENCE[np.newaxis])[0], rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", ["boosted", "forest", "stacked on boosted"])
def test_what_inner_nodes_expect_leaves_every_score_as_it_was_to_the_bit(name: str) -> None:
    """Trees without their training rows are walked with nothing at inner nodes."""
    form, x = forms()[name], rows(3000, seed=1)[0]
    trees = form.source if isinstance(form, Stacked) else form
    assert isinstance(trees, Trees)
    bare = replace(trees, rows=None)
    plain = ContenderGraph(Contender("plain", replace(form, source=bare) if isinstance(form, Stacked) else bare), WIDTH)
    explained = ContenderGraph(Contender("explained", form), WIDTH)
    values, plain_values = (
        (graph.form.source if isinstance(form, Stacked) else graph.form).walk.value.numpy()
        for graph in (explained, plain)
    )
    assert (values != plain_values).any()
    np.testing.assert_array_equal(explained(tf.constant(x)).numpy(), plain(tf.constant(x)).numpy())


def test_trees_stored_without_their_training_rows_are_refused() -> None:
    form = forms()["boosted"]
    assert isinstance(form, Trees)
    with pytest.raises(ValueError, match=r"stored without the training rows .* fit the contender again"):
        contribute(replace(form, rows=None), rows()[0])


def test_reference_of_another_width_is_refused() -> None:
    with pytest.raises(ValueError, match="the reference row has 6 columns, the encoded matrix 5"):
        contributions_of(Contender("one", forms()["logistic"]), np.zeros((2, 5), np.float32))


# --- networks ---


def integrated_gradients(form: Network, x: np.ndarray, steps: int) -> np.ndarray:
    """Equation 1 by the midpoint rule, with TensorFlow's own gradient of the exported network."""
    graph = ContenderGraph(Contender("one", form), WIDTH).form
    total = np.zeros(x.shape)
    for step in range(steps):
        at = tf.constant(REFERENCE + (x - REFERENCE) * np.float32((step + 0.5) / steps))
        with tf.GradientTape() as tape:
            tape.watch(at)
            value = graph(at)
        total += tape.gradient(value, at).numpy()
    return (x - REFERENCE) * total / steps


@pytest.mark.flow
@pytest.mark.parametrize("name", ["relu network", "sigmoid network"])
def test_network_contributions_are_integrated_gradients(name: str) -> None:
    form, x = forms()[name], rows(30, seed=1)[0]
    assert isinstance(form, Network)
    expected = integrated_gradients(form, x, steps=400)
    got = contribute(form, x)
    assert np.abs(expected).max() > 0.1
    assert np.abs(got - expected).max() < (0.01 if name == "relu network" else 0.001)


@pytest.mark.flow
def test_contributions_of_a_network_come_nearer_to_the_integral_with_more_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    form, x = forms()["relu network"], rows(30, seed=1)[0]
    assert isinstance(form, Network)
    expected = integrated_gradients(form, x, steps=400)
    errors = []
    for steps in (1, 4, 16):
        monkeypatch.setattr(contributions, "STEPS", steps)
        errors.append(np.abs(contribute(form, x) - expected).mean())
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


@settings(deadline=None, max_examples=15)
@given(
    seed=st.integers(0, 2**32 - 1),
    members=st.integers(1, 3),
    hidden=st.lists(st.integers(1, 9), max_size=3),
    activation=st.sampled_from(["relu", "sigmoid"]),
    count=st.sampled_from([0, 1, contributions.ROWS_AT_ONCE, contributions.ROWS_AT_ONCE + 1]),
)
def test_contributions_of_any_network_are_complete(
    seed: int, members: int, hidden: list[int], activation: str, count: int
) -> None:
    rng = np.random.default_rng(seed)
    widths = [WIDTH, *hidden, 1]
    shapes = list(pairwise(widths))
    form = Network(
        weights=tuple(rng.normal(size=(members, *s)).astype(np.float32) for s in shapes),
        biases=tuple(rng.normal(size=(members, s[1])).astype(np.float32) for s in shapes),
        activation="relu" if activation == "relu" else "sigmoid",
    )
    x = rng.normal(size=(count, WIDTH)).astype(np.float32)
    expected = form.raw_logit(x) - form.raw_logit(REFERENCE[np.newaxis])
    np.testing.assert_allclose(contribute(form, x).sum(axis=1), expected, rtol=0, atol=1e-4)


# --- in a SavedModel ---


def largest_constant(directory: Path) -> int:
    """Bytes of the largest tensor in the graph of a SavedModel and in its functions."""
    saved = saved_model_pb2.SavedModel.FromString((directory / "saved_model.pb").read_bytes())
    graphs = [meta_graph.graph_def for meta_graph in saved.meta_graphs]
    bodies = [body for graph in graphs for body in (graph.node, *(f.node_def for f in graph.library.function))]
    return max(node.attr["value"].tensor.ByteSize() for body in bodies for node in body if node.op == "Const")


@pytest.mark.parametrize("name", ["boosted", "relu network", "stacked on forest"])
def test_contributions_come_out_of_a_saved_model_without_a_weight_of_their_own(name: str, tmp_path: Path) -> None:
    graph = ContenderGraph(Contender("one", forms()[name], CALIBRATION), WIDTH)
    before = {variable.ref() for variable in graph.variables}
    spec = tf.TensorSpec([None, WIDTH], tf.float32)
    graph.reasons = tf.function(
        lambda x: graph_contributions(graph, x, REFERENCE), input_signature=[spec], autograph=False
    )
    tf.saved_model.save(graph, str(tmp_path))
    assert {variable.ref() for variable in graph.variables} == before
    assert largest_constant(tmp_path) < 1000  # bytes
    loaded = tf.saved_model.load(str(tmp_path))
    for x in (rows(1, seed=1)[0], rows(100, seed=1)[0]):
        expected = graph_contributions(graph, tf.constant(x), REFERENCE).numpy()
        np.testing.assert_allclose(loaded.reasons(x).numpy(), expected, rtol=1e-5, atol=1e-6)

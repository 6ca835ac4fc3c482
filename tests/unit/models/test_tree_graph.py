"""The walk through trees as tensors ends on the leaves that a walk in plain Python ends on."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from models.fitted import CATEGORY_CODES, CategorySplits, Trees
from models.tree_graph import ROWS_AT_ONCE, TREES_AT_ONCE, TreeWalk

WIDTH = 4


def random_trees(rng: np.random.Generator, count: int, splits: int, *, categories: bool) -> Trees:
    """Trees grown by splitting a random leaf again and again: any shape, thresholds on a coarse grid.

    NaN goes left at half of the nodes; every third node of column 0 splits on a set of codes instead.
    """
    nodes = 2 * splits + 1
    feature, threshold = np.zeros((count, nodes), np.int32), np.zeros((count, nodes), np.float32)
    left = np.tile(np.arange(nodes, dtype=np.int32), (count, 1))
    right, depth = left.copy(), np.zeros((count, nodes), np.int32)
    value = rng.random((count, nodes))
    for tree in range(count):
        leaves = [0]
        for used in range(1, 1 + 2 * int(rng.integers(0, splits + 1)), 2):
            node = leaves.pop(int(rng.integers(len(leaves))))
            feature[tree, node], threshold[tree, node] = rng.integers(WIDTH), rng.integers(-3, 4) / 2
            left[tree, node], right[tree, node], value[tree, node] = used, used + 1, 0.0
            depth[tree, used : used + 2] = depth[tree, node] + 1
            leaves += [used, used + 1]
    which = np.where((feature == 0) & (left != np.arange(nodes)), rng.integers(0, 3, (count, nodes)), 0)
    sets = np.concatenate([np.zeros((1, CATEGORY_CODES + 1), bool), rng.random((2, CATEGORY_CODES + 1)) < 0.5])
    return Trees(
        feature,
        threshold,
        left,
        right,
        value,
        depth=int(depth.max()),
        link="sum",
        missing_left=rng.random((count, nodes)) < 0.5,
        categories=CategorySplits(which.astype(np.int32), sets) if categories else None,
    )


def walk_one_row(trees: Trees, row: np.ndarray) -> float:
    """The slow walk: one node after the other until it points to itself."""
    total = 0.0
    for tree in range(len(trees.feature)):
        node = 0
        while trees.left[tree, node] != node:
            seen = float(row[trees.feature[tree, node]])
            if trees.categories is not None and trees.categories.which[tree, node] > 0:
                code = int(seen) if 0 <= seen < CATEGORY_CODES and seen.is_integer() else CATEGORY_CODES
                goes_left = trees.categories.goes_left[trees.categories.which[tree, node], code]
            elif math.isnan(seen):
                goes_left = trees.missing_left is not None and trees.missing_left[tree, node]
            else:
                goes_left = seen <= trees.threshold[tree, node]
            node = trees.left[tree, node] if goes_left else trees.right[tree, node]
        total += float(trees.value[tree, node])
    return total


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.sampled_from([1, 2, TREES_AT_ONCE - 1, TREES_AT_ONCE, TREES_AT_ONCE + 1, 2 * TREES_AT_ONCE + 9]),
    splits=st.integers(0, 12),
    rows=st.sampled_from([0, 1, 7, 50]),
    categories=st.booleans(),
)
def test_every_row_ends_on_the_leaves_of_the_slow_walk(
    seed: int, count: int, splits: int, rows: int, categories: bool
) -> None:
    rng = np.random.default_rng(seed)
    trees = random_trees(rng, count, splits, categories=categories)
    # half of the values lie on the thresholds' grid, so that equality is met at many nodes
    on_grid, off_grid = rng.integers(-3, 4, (rows, WIDTH)) / 2, rng.normal(size=(rows, WIDTH))
    x = np.where(rng.random((rows, WIDTH)) < 0.5, on_grid, off_grid).astype(np.float32)
    odd = np.array([np.nan, np.inf, -np.inf, 1e-45, -1e-45, -0.0, 255, 256, 3.4e38], np.float32)
    x = np.where(rng.random((rows, WIDTH)) < 0.2, rng.choice(odd, (rows, WIDTH)), x)
    got = TreeWalk(trees)(tf.constant(x)).numpy()
    np.testing.assert_allclose(got, [walk_one_row(trees, row) for row in x], rtol=0, atol=1e-12)
    np.testing.assert_allclose(np.clip(got, -16, 16), trees.raw_logit(x), rtol=0, atol=1e-12)


def test_blocks_of_rows_and_their_filling_change_nothing() -> None:
    rng = np.random.default_rng(0)
    trees = random_trees(rng, 5, 12, categories=False)
    x = tf.constant(rng.normal(size=(2 * ROWS_AT_ONCE + 9, WIDTH)), tf.float32)
    walk = TreeWalk(trees)
    for rows in (ROWS_AT_ONCE, ROWS_AT_ONCE + 1, 2 * ROWS_AT_ONCE + 9):
        np.testing.assert_allclose(walk(x[:rows]).numpy(), trees.raw_logit(x[:rows].numpy()), rtol=0, atol=1e-12)


def test_trees_too_large_for_a_record_are_refused() -> None:
    one = stump(0.0)
    wide = replace(one, feature=np.array([[2**30, 0, 0]], np.int32))
    with pytest.raises(ValueError, match="trees of 3 nodes over 1073741825 columns do not fit"):
        TreeWalk(wide)


def stump(threshold: float) -> Trees:
    return Trees(
        feature=np.array([[1, 0, 0]], np.int32),
        threshold=np.array([[threshold, 0, 0]], np.float32),
        left=np.array([[1, 1, 2]], np.int32),
        right=np.array([[2, 1, 2]], np.int32),
        value=np.array([[0.0, 0.25, 0.75]]),
        depth=1,
        link="sum",
    )


@given(threshold=st.floats(-(2.0**100), 2.0**100, width=32))
@settings(deadline=None)
def test_value_on_the_threshold_goes_left_and_the_next_float_above_goes_right(threshold: float) -> None:
    exact = np.float32(threshold)
    column = np.array([np.nextafter(exact, np.float32(-np.inf)), exact, np.nextafter(exact, np.float32(np.inf))])
    x = np.stack([np.zeros(3, np.float32), column], axis=1)
    expected = np.array([0.25, 0.25, 0.75])
    assert TreeWalk(stump(threshold))(tf.constant(x)).numpy().tolist() == expected.tolist()


def test_trees_that_fill_the_last_chunk_add_nothing() -> None:
    count = TREES_AT_ONCE + 1  # two chunks, one tree of filling
    one = stump(0.0)
    many = Trees(
        **{name: np.repeat(getattr(one, name), count, axis=0) for name in ("feature", "threshold", "left", "right")},
        value=np.repeat(one.value, count, axis=0),
        depth=1,
        link="sum",
    )
    x = tf.constant([[9.0, -1.0], [9.0, 1.0]])
    assert TreeWalk(many)(x).numpy().tolist() == [0.25 * count, 0.75 * count]


def test_matrix_narrower_than_the_trees_is_refused() -> None:
    with pytest.raises(ValueError, match="look at column 1 of a matrix of 1 columns"):
        TreeWalk(stump(0.0))(tf.zeros((3, 1)))


def test_walk_holds_all_its_tables_as_variables() -> None:
    names = {variable.name.split(":")[0] for variable in TreeWalk(stump(0.0)).variables}
    assert names == {"records", "value"}

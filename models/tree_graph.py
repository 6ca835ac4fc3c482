"""Tree ensembles as TensorFlow operations: every row walks down many trees at once, one level a step.

A step is two gathers from flat tables, whatever the number of trees: no Python runs per tree, and the graph stays as
small for 300 trees as for 3. What makes two gathers enough is that a node is one int64 (`_records`) and that a value
is compared as an integer of the same order (`_ordered`). Fitting trees, and what the sum of the leaves means
(`models.form_graph`), stay out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from models.fitted import CATEGORY_CODES, Trees

TREES_AT_ONCE, ROWS_AT_ONCE = 64, 1024
"""What one operation works on; about 30 bytes for each pair, hence 2 MB, whatever the batch. Fewer trees or fewer rows
and starting operations costs more, more rows and the keys leave the cache: at 10,000 rows that takes twice as long."""

_LOWEST, _HIGHEST = np.iinfo(np.int32).min, np.iinfo(np.int32).max
"""Beyond the integers of -inf and +inf: a missing value that goes left of every threshold, or right of it."""


class TreeWalk(tf.Module):
    """The trees of an ensemble as C chunks of B trees of M nodes, whose tables lie behind one another: (C, B * M)."""

    def __init__(self, trees: Trees) -> None:
        """Raises ValueError where a tree has so many nodes and columns that a record cannot hold both."""
        super().__init__(name="trees")
        layout = _layout(trees)
        self._layout, self._depth = layout, trees.depth
        self._roots = np.arange(layout.chunk_trees, dtype=np.int32) * np.int32(trees.feature.shape[1])
        self._least_width = int(trees.feature.max()) + 1
        filled = _filled(trees, layout)
        order = _siblings_side_by_side(filled)
        in_chunks = (-1, layout.chunk_trees * trees.feature.shape[1])
        self.records = _variable(_records(filled, layout, order).reshape(in_chunks), name="records")
        self.value = _variable(_reordered(filled.value, order).reshape(in_chunks), name="value")
        self.goes_left: Any = None
        if trees.categories is not None:
            no_set = np.zeros((1, CATEGORY_CODES + 1), np.bool_)  # where a node that has a threshold looks, in vain
            self.goes_left = _variable(np.concatenate([trees.categories.goes_left, no_set]), name="goes_left")

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """The sum (n,) float64 of the values of the leaves that the rows of x (n, d) float32 end on.

        Raises:
            ValueError: a tree asks for a column that x has not.
        """
        return self._over_blocks(self._sums_of_leaves, x, tf.TensorSpec([None], tf.float64))

    def contributions(self, x: tf.Tensor) -> tf.Tensor:
        """What each column adds on the way down (n, d) float64, where inner nodes have the value expected there.

        At a node the column it looks at is credited with value[child] - value[node]; a row of the outcome sums to the
        values of its leaves less those of the roots.

        Raises:
            ValueError: a tree asks for a column that x has not.
        """
        return self._over_blocks(self._credits, x, tf.TensorSpec([None, x.shape[1]], tf.float64))

    def _over_blocks(self, of_block: Callable[[tf.Tensor], tf.Tensor], x: tf.Tensor, gives: tf.TensorSpec) -> tf.Tensor:
        """of_block of ROWS_AT_ONCE rows after the other, together again; the last block is filled with zeros."""
        if x.shape[1] < self._least_width:
            raise ValueError(f"the trees look at column {self._least_width - 1} of a matrix of {x.shape[1]} columns")
        count = tf.shape(x)[0]
        at_once = tf.clip_by_value(count, 1, ROWS_AT_ONCE)
        blocks = tf.maximum(-(-count // at_once), 1)  # no row: one block of filling, so that shapes are known
        filled = tf.pad(x, [[0, blocks * at_once - count], [0, 0]])
        found = tf.map_fn(of_block, tf.reshape(filled, [blocks, at_once, x.shape[1]]), fn_output_signature=gives)
        return tf.reshape(found, [blocks * at_once, *gives.shape[1:]])[:count]

    def _sums_of_leaves(self, x: tf.Tensor) -> tf.Tensor:
        rows = self._rows(x)

        def add_chunk(records: tf.Tensor, value: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
            node = self._roots[np.newaxis]  # (1, B): the first step needs no record for each row
            for _ in range(self._depth):
                node, _ = self._step(records, node, rows)
            return total + tf.reduce_sum(_look_up(value, node), axis=1)

        return self._over_chunks(add_chunk, tf.zeros(tf.shape(x)[:1], tf.float64))

    def _credits(self, x: tf.Tensor) -> tf.Tensor:
        rows = self._rows(x)
        count, width = tf.shape(x)[0], x.shape[1]
        column_of = tf.constant([*self._layout.copied, *range(width)], tf.int32)
        start = tf.range(count)[:, tf.newaxis] * width

        def add_chunk(records: tf.Tensor, value: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
            node = tf.tile(self._roots[np.newaxis], [count, 1])
            here = _look_up(value, node)
            for _ in range(self._depth):
                node, place = self._step(records, node, rows)
                there = _look_up(value, node)
                credited = start + _look_up(column_of, place)
                # measured ten times as fast as tf.tensor_scatter_nd_add
                total += tf.math.unsorted_segment_sum(there - here, credited, count * width)
                here = there
            return total

        return tf.reshape(self._over_chunks(add_chunk, tf.zeros([count * width], tf.float64)), [count, width])

    def _over_chunks(self, add_chunk: Callable[..., tf.Tensor], start: tf.Tensor) -> tf.Tensor:
        records, value = tf.convert_to_tensor(self.records), tf.convert_to_tensor(self.value)
        chunks = records.shape[0]

        def body(chunk: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return chunk + 1, add_chunk(records[chunk], value[chunk], total)

        # one chunk at a time: in parallel they would hold the memory that the chunks are there to save
        loop = tf.while_loop(lambda chunk, _: chunk < chunks, body, [tf.constant(0), start], parallel_iterations=1)
        return loop[1]

    def _rows(self, x: tf.Tensor) -> _Rows:
        copied = tf.gather(x, tf.constant(self._layout.copied, tf.int32), axis=1)
        ordered = tf.concat([_ordered(copied, missing=_LOWEST), _ordered(x, missing=_HIGHEST)], axis=1)
        keys = tf.cast(ordered, tf.int64) * 2**32
        start = tf.range(tf.shape(x)[0])[:, tf.newaxis] * keys.shape[1]
        codes = None
        if self.goes_left is not None:
            none = tf.fill(tf.shape(copied), CATEGORY_CODES)  # a copy stands for no category
            codes = tf.reshape(tf.concat([none, _codes(x)], axis=1), [-1])
        return _Rows(tf.reshape(keys, [-1]), start, codes)

    def _step(self, records: tf.Tensor, node: tf.Tensor, rows: _Rows) -> tuple[tf.Tensor, tf.Tensor]:
        """From nodes (n, B), or (1, B), to their children (n, B); and the places (n, B) that the nodes look at."""
        record = _look_up(records, node)
        low = tf.cast(record, tf.int32)  # keeps the lower half
        place = tf.bitwise.bitwise_and(low, 2**self._layout.place_bits - 1)
        seen = rows.start + place
        goes_right = _look_up(rows.keys, seen) > record  # the lower half cannot turn this comparison: keys have none
        if rows.codes is not None:
            upper = tf.bitwise.right_shift(record, np.int64(32))
            which = tf.cast(tf.minimum(upper - _LOWEST, self.goes_left.shape[0] - 1), tf.int32)
            sets = tf.reshape(tf.convert_to_tensor(self.goes_left), [-1])
            goes_right &= ~_look_up(sets, which * (CATEGORY_CODES + 1) + _look_up(rows.codes, seen))
        return tf.bitwise.right_shift(low, self._layout.place_bits) + tf.cast(goes_right, tf.int32), place


@dataclass(frozen=True)
class _Rows:
    """A matrix as the walk reads it; n rows behind one another in a flat tensor."""

    keys: tf.Tensor
    """(n * (k + d),) int64: k copied columns, then all; the upper half of a record compares with it"""
    start: tf.Tensor
    """(n, 1) int32: where each row begins"""
    codes: tf.Tensor | None
    """(n * (k + d),) int32 where a node splits on a category"""


@dataclass(frozen=True)
class _Layout:
    """How the columns and nodes of an ensemble are numbered."""

    copied: NDArray[np.int32]
    """(k,) columns that stand a second time in front of the matrix, where missing values go left"""
    place_bits: int
    """bits of a record that say which of the k + d places its node looks at"""
    chunk_trees: int
    """B"""


def _layout(trees: Trees) -> _Layout:
    count, nodes = trees.feature.shape
    copied = np.unique(trees.feature[_goes_left_when_missing(trees)])
    place_bits = int(len(copied) + trees.feature.max()).bit_length()
    at_once = min(TREES_AT_ONCE, (2**31 - 1 >> place_bits) // nodes)
    if at_once == 0:
        raise ValueError(
            f"trees of {nodes} nodes over {int(trees.feature.max()) + 1} columns do not fit the 31 bits of a node's "
            "record; grow smaller trees"
        )
    chunks = -(-count // at_once)
    return _Layout(copied, place_bits, -(-count // chunks))  # 40 trees are 2 chunks of 20, not 32 and 8


def _filled(trees: Trees, layout: _Layout) -> Trees:
    """The ensemble with trees behind it that fill the last chunk: of zeros, hence a leaf without value."""
    spare = -len(trees.feature) % layout.chunk_trees

    def fill(of_trees: NDArray[Any] | None) -> Any:
        return None if of_trees is None else np.pad(of_trees, [(0, spare), (0, 0)])

    names = ("feature", "threshold", "left", "right", "value", "missing_left", "rows")
    categories = trees.categories and replace(trees.categories, which=fill(trees.categories.which))
    return replace(trees, **{name: fill(getattr(trees, name)) for name in names}, categories=categories)


def _goes_left_when_missing(trees: Trees) -> NDArray[np.bool_]:
    """(T, M) nodes that compare with a threshold and send NaN left; a set of codes says itself where NaN goes."""
    if trees.missing_left is None:
        return np.zeros(trees.feature.shape, np.bool_)
    inner = trees.left != np.arange(trees.feature.shape[1])
    has_threshold = np.True_ if trees.categories is None else trees.categories.which == 0
    return np.asarray(trees.missing_left & inner & has_threshold)


def _siblings_side_by_side(trees: Trees) -> NDArray[np.int32]:
    """The nodes (T, M) of each tree level by level, the two children of a node together; -1 behind the last."""
    order = np.full(trees.feature.shape, -1, np.int32)
    for tree, (left, right) in enumerate(zip(trees.left, trees.right, strict=True)):
        level, placed = np.zeros(1, np.int32), 0
        while len(level):
            order[tree, placed : placed + len(level)] = level
            placed += len(level)
            inner = level[left[level] != level]
            level = np.stack([left[inner], right[inner]], axis=1).ravel()
    return order


def _reordered(of_nodes: NDArray[Any], order: NDArray[np.int32]) -> NDArray[Any]:
    return np.take_along_axis(of_nodes, np.maximum(order, 0), axis=1)


def _records(trees: Trees, layout: _Layout, order: NDArray[np.int32]) -> NDArray[np.int64]:
    """Nodes (T, M) as integers: threshold in the upper half; left child in its chunk, then place, in the lower one.

    The right child is the left one + 1. The upper half of a leaf sends everything to its left child, itself; that of
    a node with a set of codes is below every value, so that the threshold sends everything right and the set decides.
    """
    count, nodes = trees.feature.shape
    feature, left = _reordered(trees.feature, order), _reordered(trees.left, order)
    place_of = np.zeros((count, nodes), np.int32)  # of a node, by its number in the tree
    tree, place = np.nonzero(order >= 0)
    place_of[tree, order[tree, place]] = place
    child = np.take_along_axis(place_of, left, axis=1)
    is_leaf = (left == order) | (order < 0)
    child[is_leaf] = np.broadcast_to(np.arange(nodes, dtype=np.int32), child.shape)[is_leaf]
    child += (np.arange(count, dtype=np.int32) % layout.chunk_trees * np.int32(nodes))[:, np.newaxis]

    upper = _ordered_integers(_reordered(trees.threshold, order))
    places = len(layout.copied) + feature
    is_copied = _reordered(_goes_left_when_missing(trees), order)
    places[is_copied] = np.searchsorted(layout.copied, feature[is_copied])
    if trees.categories is not None:
        which = _reordered(trees.categories.which, order)
        upper[which > 0] = _LOWEST + which[which > 0]
    upper[is_leaf] = _HIGHEST
    return np.asarray(upper * 2**32 + (child.astype(np.int64) << layout.place_bits) + places, np.int64)


def _ordered(x: tf.Tensor, missing: int) -> tf.Tensor:
    """Integers (n, d) int32 in the order of the floats x (n, d) float32, NaN as told.

    The bits of a float are in its order where it is positive, and in the reverse where it is negative. Exact for
    subnormal floats too, which TensorFlow's comparisons of floats may take for zero.
    """
    bits = tf.bitcast(x, tf.int32)
    ordered = tf.where(bits < 0, _LOWEST - bits, bits)
    return tf.where(tf.math.is_nan(x), missing, ordered)


def _ordered_integers(thresholds: NDArray[np.float32]) -> NDArray[np.int64]:
    """`_ordered` of thresholds, none of which is NaN."""
    bits = np.ascontiguousarray(thresholds).view(np.int32).astype(np.int64)
    return np.asarray(np.where(bits < 0, _LOWEST - bits, bits), np.int64)


def _codes(x: tf.Tensor) -> tf.Tensor:
    """`models.fitted.category_codes` of x (n, d), as int32."""
    floor = tf.floor(x)
    whole = tf.equal(_ordered(x, _HIGHEST), _ordered(floor, _LOWEST))  # not x == floor: subnormals are no code
    is_code = whole & (x >= 0) & (x < CATEGORY_CODES)
    return tf.cast(tf.where(is_code, x, float(CATEGORY_CODES)), tf.int32)


def _look_up(table: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    # measured a third faster than tf.gather on single numbers
    return tf.gather_nd(table, index[..., tf.newaxis])


def _variable(values: NDArray[Any], name: str) -> tf.Variable:
    return tf.Variable(values, trainable=False, name=name)

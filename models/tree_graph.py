"""Tree ensembles as TensorFlow operations: every row walks down many trees at once, one level a step.

A step is four gathers from flat tables, whatever the number of trees: no Python runs per tree, and the graph stays as
small for 300 trees as for 3. Fitting trees, and what the sum of the leaves means (`models.form_graph`), stay out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from models.fitted import Trees

TREES_AT_ONCE = 32
"""Memory is about 30 bytes x rows x this: 50 MB at 50,000 rows. Measured as fast as 16, 64 and 300, and faster than 1
and 4, on 300 trees of depth 10 (0.7 s of processor time for 10,000 rows)."""


class TreeWalk(tf.Module):
    """The trees of an ensemble as variables: C chunks of B trees of M nodes, in tables (C, B * M) or (C, 2 * B * M)."""

    def __init__(self, trees: Trees) -> None:
        super().__init__(name="trees")
        count, nodes = trees.feature.shape
        chunks = -(-count // TREES_AT_ONCE)
        self._chunk_trees = -(-count // chunks)  # 40 trees are 2 chunks of 20, not 32 and 8
        self._nodes = nodes
        self._depth = trees.depth
        self._least_width = int(trees.feature.max()) + 1

        def table(of_trees: NDArray[Any], name: str) -> tf.Variable:
            return tf.Variable(self._chunked(of_trees).reshape(chunks, -1), trainable=False, name=name)

        self.feature = table(trees.feature, "feature")
        self.threshold = table(trees.threshold, "threshold")
        self.value = table(trees.value, "value")
        # (right, left) side by side: the outcome of the comparison is the index, one gather instead of two and a choice
        children = self._chunked(np.stack([trees.right, trees.left], axis=-1))
        children += self._roots()[:, np.newaxis, np.newaxis]  # from a node's place in its tree to that in the chunk
        self.children = tf.Variable(children.reshape(chunks, -1), trainable=False, name="children")

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """The sum (n,) float64 of the values of the leaves that the rows of x (n, d) float32 end on.

        Raises:
            ValueError: a tree asks for a column that x has not.
        """
        if x.shape[1] < self._least_width:
            raise ValueError(f"the trees look at column {self._least_width - 1} of a matrix of {x.shape[1]} columns")
        tables = [v.read_value() for v in (self.feature, self.threshold, self.children, self.value)]

        def add_chunk(chunk: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            feature, threshold, children, value = (table[chunk] for table in tables)
            node = tf.tile(self._roots()[np.newaxis], [tf.shape(x)[0], 1])
            for _ in range(self._depth):
                seen = tf.gather(x, tf.gather(feature, node), batch_dims=1)
                goes_left = seen <= tf.gather(threshold, node)
                node = tf.gather(children, 2 * node + tf.cast(goes_left, tf.int32))
            return chunk + 1, total + tf.reduce_sum(tf.gather(value, node), axis=1)

        chunks = self.feature.shape[0]
        start = [tf.constant(0), tf.zeros(tf.shape(x)[:1], tf.float64)]
        # one chunk at a time: in parallel they would hold the memory that the chunks are there to save
        return tf.while_loop(lambda chunk, _: chunk < chunks, add_chunk, start, parallel_iterations=1)[1]

    def _chunked(self, of_trees: NDArray[Any]) -> NDArray[Any]:
        """(T, M, ...) as (C, B, M, ...); the trees that fill the last chunk are zeros: a root that points to itself."""
        count, *shape = of_trees.shape
        chunks = -(-count // self._chunk_trees)
        filled = np.zeros((chunks * self._chunk_trees, *shape), of_trees.dtype)
        filled[:count] = of_trees
        return filled.reshape(chunks, self._chunk_trees, *shape)

    def _roots(self) -> NDArray[np.int32]:
        return np.arange(self._chunk_trees, dtype=np.int32) * np.int32(self._nodes)

"""Sums over all pairs of rows of two populations, with their gradient by hand: what `models.mmd` is made of.

Tensors in, tensors out, any leading axes. Rows come centred and scaled, weights as they shall count. In a graph whose
shapes are known the sums are compiled (XLA), one program for each member of an ensemble: what a member's kernels pass
through stays in the cache of a core, and members run side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import tensorflow as tf

from models.kernel_family import KernelFamily
from models.kernels import Exp, exp_of_arithmetic, kernel_sums, negative_squared_distances

TILE = 512
"""Beyond 2 * TILE rows of a batch the blocks are made TILE rows at a time, and memory grows with n, not n^2."""

FEWEST_COMPILED_PAIRS = 128 * 128
"""of rows across; fewer take no longer in single operations than compiling and calling costs"""


@dataclass(frozen=True)
class Rows:
    """One population."""

    z: tf.Tensor
    """(..., n, d), scaled: the exponent of the widest kernel is -|z_i - z_j|^2"""
    within: tf.Tensor
    """(..., n, C) weights in pairs with its own rows"""
    across: tf.Tensor
    """(..., n, C) weights in pairs with the other population's"""

    @property
    def parts(self) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """What it consists of."""
        return self.z, self.within, self.across


Sums = tuple[tf.Tensor, tf.Tensor, tf.Tensor]


def pair_sums(source: Rows, target: Rows, family: KernelFamily, *, keeps_diagonal: bool) -> Sums:
    """The discrepancy summed over kernels and conditions, and its slopes along z.

    Three blocks of pairs are made, source, target and across, each a x b with the weights v_a, v_b. With
    u_ij = |z_i - z_j|^2 and S_ij = -dk/du_ij >= 0, L = sum_ij v_ai v_bj k(u_ij) has
    dL/dz_ai = -2 v_ai (z_ai (S v_b)_i - (S (v_b z_b))_i). On the diagonal of a within block the two terms cancel, so it
    needs no mask there.

    Args:
        source: n_s rows.
        target: n_t rows of as many columns and conditions.
        family: number of kernels and their ratio.
        keeps_diagonal: whether the pairs i = i within a population count.

    Returns:
        value (...), slope of the source rows (..., n_s, d), slope of the target rows (..., n_t, d).
    """
    if not _is_compiled(source, target):
        return _three_blocks(source, target, family, keeps_diagonal, tf.exp)
    leading = source.z.shape[:-2].as_list()
    members = [tf.unstack(tf.reshape(x, [-1, *x.shape[-2:]])) for x in (*source.parts, *target.parts)]
    compiled = _compiled(family.num, family.mul, keeps_diagonal)
    found = zip(*(compiled(*parts) for parts in zip(*members, strict=True)), strict=True)
    value, slope_s, slope_t = (tf.stack(of_members) for of_members in found)
    return (
        tf.reshape(value, leading),
        tf.reshape(slope_s, [*leading, *slope_s.shape[-2:]]),
        tf.reshape(slope_t, [*leading, *slope_t.shape[-2:]]),
    )


def _is_compiled(source: Rows, target: Rows) -> bool:
    """Where a graph is traced (eager calls would wait for the compiler at every new shape) and all shapes are known."""
    parts = (*source.parts, *target.parts)
    if not tf.inside_function() or any(not x.shape.is_fully_defined() or 0 in x.shape for x in parts):
        return False
    n_s, n_t = int(source.z.shape[-2]), int(target.z.shape[-2])
    return source.z.dtype == tf.float32 and n_s * n_t >= FEWEST_COMPILED_PAIRS and max(n_s, n_t) <= 2 * TILE


@lru_cache(maxsize=64)
def _compiled(num: int, mul: float, keeps_diagonal: bool) -> Callable[..., Sums]:
    """The program of all families of these kernels, compiled once a shape, however many graphs call it.

    It lives as long as the process: a training's child has a handful.
    """
    family = KernelFamily(num=num, mul=mul)

    def sums(*parts: tf.Tensor) -> Sums:
        return _three_blocks(Rows(*parts[:3]), Rows(*parts[3:]), family, keeps_diagonal, exp_of_arithmetic)

    compiled: Any = tf.function(sums, jit_compile=True, autograph=False)
    return compiled  # type: ignore[no-any-return]


def _three_blocks(source: Rows, target: Rows, family: KernelFamily, keeps_diagonal: bool, exp: Exp) -> Sums:
    """As `pair_sums`. The block of the target against the source is the one across, transposed."""
    own_s = _block(_Side(source.z, source.within), None, family, keeps_diagonal, exp)
    own_t = _block(_Side(target.z, target.within), None, family, keeps_diagonal, exp)
    across = _block(_Side(source.z, source.across), _Side(target.z, target.across), family, True, exp)
    slope_s = 2.0 * (own_s.slope_a - across.slope_a)  # a within block has two sides, of equal slope
    slope_t = 2.0 * (own_t.slope_a - across.slope_b)
    return own_s.value + own_t.value - 2.0 * across.value, slope_s, slope_t


@dataclass(frozen=True)
class _Side:
    """One side of a block."""

    z: tf.Tensor
    """(..., n, d)"""
    v: tf.Tensor
    """(..., n, C) weights"""

    def times(self, s: tf.Tensor, *, transposed: bool = False) -> tf.Tensor:
        """S (..., m, n), or its transpose, times v z of every condition and times v: (..., m, C d + C).

        Two products: one with d + 1 columns takes longer (measured for d = 32 and 64).
        """
        weighted = tf.concat([column * self.z for column in self._columns], axis=-1)
        products = [tf.matmul(s, x, transpose_a=transposed) for x in (weighted, self.v)]
        return tf.concat(products, axis=-1)

    def slope(self, flow: tf.Tensor) -> tf.Tensor:
        """dL/dz (..., n, d) from what `times` gives of the other side."""
        d, conditions = self.z.shape[-1], self.v.shape[-1]
        weights = flow[..., conditions * d :]
        total = tf.zeros_like(self.z)
        for c, column in enumerate(self._columns):
            total -= 2.0 * column * (self.z * weights[..., c : c + 1] - flow[..., c * d : (c + 1) * d])
        return total

    @property
    def _columns(self) -> list[tf.Tensor]:
        """(..., n, 1) a condition."""
        columns: list[tf.Tensor] = tf.unstack(self.v[..., None], axis=-2)
        return columns


@dataclass(frozen=True)
class _Block:
    """What a block of pairs gives: its value (...) and its slopes (..., n, d) on either side."""

    value: tf.Tensor
    slope_a: tf.Tensor
    slope_b: tf.Tensor | None


def _block(a: _Side, b: _Side | None, family: KernelFamily, keeps_diagonal: bool, exp: Exp) -> _Block:
    """sum_ij v_ai v_bj k(z_ai, z_bj); b None: a with itself."""
    other = a if b is None else b
    if max(_static_rows(a), _static_rows(other)) <= 2 * TILE:
        kernel, minus_slope = kernel_sums(negative_squared_distances(a.z, other.z), family, exp)
        value = _form(a.v, tf.matmul(kernel, other.v))
        flow_a = other.times(minus_slope)
        flow_b = None if b is None else a.times(minus_slope, transposed=True)
        own = tf.linalg.diag_part(kernel) if b is None else None
    else:
        value, flow_a, flow_b, own = _tiled(a, other, family, is_within=b is None)
    if own is not None:  # computed diagonals are off by rounding: they are num by definition
        squares = tf.reduce_sum(tf.square(a.v), axis=-1)
        exact = float(family.num) if keeps_diagonal else 0.0
        value += tf.reduce_sum(squares * (exact - own), axis=-1)
    return _Block(value, a.slope(flow_a), None if b is None else b.slope(flow_b))


def _tiled(
    a: _Side, b: _Side, family: KernelFamily, *, is_within: bool
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """As the body of `_block`, TILE rows of a at a time: value, flow from b, flow from a, and the diagonal
    of a within block.

    The last tile is filled up with rows of weight 0, which add nothing.
    """
    rows = _static_rows(a)
    tiles = -(-rows // TILE)
    fill = [[0, 0]] * (a.z.shape.rank - 2) + [[0, tiles * TILE - rows], [0, 0]]
    z, v = tf.pad(a.z, fill), tf.pad(a.v, fill)

    def one(tile: tf.Tensor, value: tf.Tensor, across: tf.Tensor, *parts: tf.TensorArray) -> tuple[tf.Tensor, ...]:
        part = _Side(z[..., tile * TILE : (tile + 1) * TILE, :], v[..., tile * TILE : (tile + 1) * TILE, :])
        part = _Side(tf.ensure_shape(part.z, (*a.z.shape[:-2], TILE, a.z.shape[-1])), part.v)
        kernel, minus_slope = kernel_sums(negative_squared_distances(part.z, b.z), family)
        value += _form(part.v, tf.matmul(kernel, b.v))
        if not is_within:
            across += part.times(minus_slope, transposed=True)
        own = family.num * tf.ones_like(part.z[..., 0]) if not is_within else _diagonal_of(kernel, tile * TILE)
        flows, diagonals = parts
        flows = flows.write(tile, b.times(minus_slope))
        return tile + 1, value, across, flows, diagonals.write(tile, own)

    leading = tf.shape(a.z)[:-2]
    columns = b.v.shape[-1] * (b.z.shape[-1] + 1)
    across = tf.zeros(tf.concat([tf.shape(b.z)[:-1], [columns]], 0), a.z.dtype)
    start = (tf.constant(0), tf.zeros(leading, a.z.dtype), across)
    arrays = [tf.TensorArray(a.z.dtype, size=tiles) for _ in range(2)]
    _, value, across, flows, diagonals = tf.while_loop(
        lambda tile, *_: tile < tiles, one, (*start, *arrays), parallel_iterations=1
    )
    flow_a = tf.concat(tf.unstack(flows.stack(), tiles), axis=-2)[..., :rows, :]
    own = tf.concat(tf.unstack(diagonals.stack(), tiles), axis=-1)[..., :rows]
    return value, flow_a, across, own if is_within else None


def _diagonal_of(kernel: tf.Tensor, first: tf.Tensor) -> tf.Tensor:
    """K[i, first + i] (..., TILE) of a strip (..., TILE, n) of a square matrix; beyond its end of no meaning."""
    width = tf.shape(kernel)[-1]
    columns = tf.minimum(first + tf.range(TILE), width - 1)
    return tf.reduce_sum(kernel * tf.one_hot(columns, width, dtype=kernel.dtype), axis=-1)


def _form(v_a: tf.Tensor, weighted: tf.Tensor) -> tf.Tensor:
    """sum_c v_a^T (K v_b) over the conditions: (...) from (..., n, C) twice."""
    return tf.reduce_sum(v_a * weighted, (-2, -1))


def _static_rows(side: _Side) -> int:
    """Rows where the graph knows them; 0 where it does not: then they are few (tails of batches)."""
    return side.z.shape[-2] or 0

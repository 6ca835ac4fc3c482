"""Batches of two populations, kernel families, and slow ways to the same numbers: shared by the tests of the MMD."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf

from models.kernel_family import KernelFamily

FIXED = KernelFamily(bandwidth="fixed", sigma=3.0)
ONE_FIXED = KernelFamily(num=1, bandwidth="fixed", sigma=2.0)
FAMILIES = {
    "mean": KernelFamily(),
    "mean, gradient through it": KernelFamily(gradient=True),
    "median": KernelFamily(bandwidth="median"),
    "fixed": FIXED,
    "fixed, no gradient to flow": replace(FIXED, gradient=True),
}


def batches(
    n_s: int = 24, n_t: int = 24, d: int = 6, *, seed: int = 0, dtype: str = "float64", leading: tuple[int, ...] = ()
) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    x_s = rng.normal(size=(*leading, n_s, d))
    x_t = rng.normal(size=(*leading, n_t, d)) * 1.3 + 0.4
    return tf.constant(x_s, dtype), tf.constant(x_t, dtype)


def weights_of(rows: int, seed: int, *, leading: tuple[int, ...] = (), conditions: int | None = None) -> np.ndarray:
    columns = () if conditions is None else (conditions,)
    return np.random.default_rng(seed).uniform(0.2, 2.0, size=(*leading, rows, *columns))


def value_and_gradients(estimate: Any, x_s: Any, x_t: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    with tf.GradientTape() as tape:
        tape.watch([x_s, x_t])
        value = estimate(x_s, x_t)
    of_s, of_t = tape.gradient(value, [x_s, x_t])
    return value.numpy(), of_s.numpy(), of_t.numpy()


def finite_differences(estimate: Any, x_s: Any, x_t: Any, step: float = 1e-5) -> tuple[np.ndarray, np.ndarray]:
    """Central differences; `estimate` gets all moved batches as one stack."""
    slopes = []
    for moves_source, x in ((True, x_s), (False, x_t)):
        moves = step * np.eye(x.numpy().size).reshape(-1, *x.shape)
        ends = []
        for moved in (x + moves, x - moves):
            other = np.broadcast_to(x_t if moves_source else x_s, (len(moves), *(x_t if moves_source else x_s).shape))
            pair = (moved, tf.constant(other)) if moves_source else (tf.constant(other), moved)
            ends.append(estimate(*pair).numpy())
        slopes.append(((ends[0] - ends[1]) / (2 * step)).reshape(x.shape))
    return slopes[0], slopes[1]


def widths(x_s: Any, x_t: Any, family: KernelFamily) -> list[float]:
    """The bandwidths by their definition, over all pairs of the joint batch."""
    joint = np.concatenate([x_s, x_t])
    pairs = [float(np.sum((joint[i] - joint[j]) ** 2)) for i in range(len(joint)) for j in range(i)]
    centre = {"mean": np.mean, "median": np.median, "fixed": lambda _: family.sigma}[family.bandwidth](pairs)
    return [centre * family.mul ** (i - family.num // 2) for i in range(family.num)]


def slow_mmd2(x_s: Any, x_t: Any, v_s: Any, v_t: Any, family: KernelFamily, *, is_unbiased: bool) -> float:
    """The definition pair by pair, for one condition of weights v_s and v_t of any totals."""
    bandwidths = widths(x_s, x_t, family)

    def block(a: Any, v_a: Any, b: Any, v_b: Any, *, leaves_diagonal: bool) -> float:
        total = counted = 0.0
        for i in range(len(a)):
            for j in range(len(b)):
                if leaves_diagonal and i == j:
                    continue
                distance = float(np.sum((np.asarray(a[i]) - np.asarray(b[j])) ** 2))
                total += v_a[i] * v_b[j] * sum(math.exp(-distance / width) for width in bandwidths)
                counted += v_a[i] * v_b[j]
        return np.sum(v_a) * np.sum(v_b) * total / counted

    within = block(x_s, v_s, x_s, v_s, leaves_diagonal=is_unbiased)
    within += block(x_t, v_t, x_t, v_t, leaves_diagonal=is_unbiased)
    across = block(x_s, v_s, x_t, v_t, leaves_diagonal=False)
    return (within - 2 * across) / (family.num if family.reduce == "mean" else 1)

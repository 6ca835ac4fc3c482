"""What this machine can do at best, measured, and what a step of a deep adapter must at least move through it.

The floor of a step is its matrix products at the machine's best measured rate, plus the bytes that any implementation
has to move that keeps kernels as matrices, at the machine's best measured bandwidth. Exponentials, optimizer arithmetic
and every call's overhead are left out: a floor, not a model.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import tensorflow as tf

FLOAT = 4
"""bytes"""


@dataclass(frozen=True)
class Machine:
    """Best of several tries, all threads at work."""

    flops: float
    """float32 operations a second in a square matrix product"""
    bandwidth: float
    """bytes read and written a second by a pass over an array that fits no cache"""


@dataclass(frozen=True)
class StepShape:
    """What a step is made of."""

    rows: int
    """of each population"""
    widths: tuple[int, ...]
    """inputs, hidden layers, 1; the last hidden layer is aligned"""
    members: int = 1

    @property
    def flops(self) -> float:
        """Operations of all matrix products: the network both ways without a gradient of its inputs, and the pairs."""
        weights = [a * b for a, b in pairwise(self.widths)]
        network = 2 * self.rows * (6 * sum(weights) - 2 * weights[0])
        return self.members * (network + self.pair_flops)

    @property
    def pair_flops(self) -> float:
        """A member's: three blocks of pairs (source, target, across) are made; their slopes meet rows four times, as
        the one across serves both sides."""
        return 2.0 * self.widths[-2] * self.rows**2 * (3 + 4)

    @property
    def moved(self) -> float:
        """Bytes: exponents and slopes written once and read once, activations and inputs likewise, and per weight its
        value, its gradient and two moments, each read and written."""
        n = self.rows
        pairs = 3 * n**2 * 4
        activations = 2 * n * (sum(self.widths[1:]) + self.widths[0]) * 2
        weights = 8 * sum(a * b for a, b in pairwise(self.widths))
        return float(FLOAT * self.members * (pairs + activations + weights))

    def floor_ms(self, machine: Machine) -> float:
        """Least milliseconds."""
        return 1e3 * (self.flops / machine.flops + self.moved / machine.bandwidth)


def measure_machine(tries: int = 12) -> Machine:
    """Rate of a product of two (2048, 2048) matrices, bandwidth of a pass over 256 MB."""
    size, long = 2048, 1 << 26
    rng = np.random.default_rng(0)
    square = tf.constant(rng.normal(size=(size, size)), tf.float32)
    array = tf.zeros((long,), tf.float32)
    product = _best(tf.function(lambda: tf.matmul(square, square)), tries)
    one_pass = _best(tf.function(lambda: array + 1.0), tries)
    return Machine(flops=2.0 * size**3 / product, bandwidth=2.0 * FLOAT * long / one_pass)


def _best(call: Callable[[], Any], tries: int) -> float:
    call()
    spent = []
    for _ in range(tries):
        start = time.perf_counter()
        _ = call()[..., :1].numpy()
        spent.append(time.perf_counter() - start)
    return min(spent)

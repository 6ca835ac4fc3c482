"""What the MK-MMD costs: the article's formula against `models.mmd`, value and gradient, in one run.

    python benchmarks/bench_mmd.py [--repeats 15] [--json PATH]

Two comparisons, each at 512 source and 512 target rows as in the article: the discrepancy alone, on activations
(512, 64); and a whole training step of the network 291-256-64-1 with Adam. Repeats of both sides alternate, so that a
busy machine slows them alike; medians and minima are shown, the last line is the discrepancy alone.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported: the table stays readable

import keras
import numpy as np
import tensorflow as tf

from models.dan_spec import ARTICLE
from models.mmd import mk_mmd2
from models.networks import build_network

ROWS, COLUMNS, UNITS = 512, 291, 64
CALLS = 4  # of ours for each of the article's, some twenty times slower: both then have samples enough


def article_mmd2(x_s: Any, x_t: Any) -> Any:
    """The article's formula as its kind of code writes it: differences (N, N, d), one exponential a kernel."""
    joint = tf.concat([x_s, x_t], axis=0)
    n, rows = x_s.shape[0], joint.shape[0]
    distances = tf.reduce_sum(tf.square(joint[None, :, :] - joint[:, None, :]), axis=2)
    bandwidth = tf.reduce_sum(distances) / (rows**2 - rows) / 4.0
    kernel = tf.add_n([tf.exp(-distances / (bandwidth * 2.0**i)) for i in range(5)])
    XX, YY, XY, YX = kernel[:n, :n], kernel[n:, n:], kernel[:n, n:], kernel[n:, :n]
    return tf.reduce_mean(XX) + tf.reduce_mean(YY) - tf.reduce_mean(XY) - tf.reduce_mean(YX)


def our_mmd2(x_s: Any, x_t: Any) -> Any:
    """`mk_mmd2` as the article's preset calls it."""
    return mk_mmd2(x_s, x_t, estimator="biased", reduce="sum", bandwidth_gradient=True)


def discrepancy_call(mmd2: Callable[[Any, Any], Any], rng: np.random.Generator) -> Callable[[], Any]:
    """A call that computes the discrepancy of two batches of activations and its gradient."""
    x_s = tf.constant(rng.normal(size=(ROWS, UNITS)), tf.float32)
    x_t = tf.constant(rng.normal(0.3, 1.2, size=(ROWS, UNITS)), tf.float32)

    @tf.function
    def value_and_gradient(x_s: Any, x_t: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch([x_s, x_t])
            value = mmd2(x_s, x_t)
        return value, *tape.gradient(value, [x_s, x_t])

    return lambda: [part.numpy() for part in value_and_gradient(x_s, x_t)]


def step_call(mmd2: Callable[[Any, Any], Any], rng: np.random.Generator) -> Callable[[], Any]:
    """A call that makes one training step of the article's network on two batches of rows."""
    x_s, x_t = (tf.constant(rng.normal(shift, 1, size=(ROWS, COLUMNS)), tf.float32) for shift in (0.0, 0.1))
    y_s = tf.constant(rng.random(ROWS) < 0.15, tf.float32)
    network = build_network(ARTICLE, COLUMNS, seed=0)
    optimizer = keras.optimizers.Adam(ARTICLE.learning_rate, epsilon=ARTICLE.epsilon)
    variables = network.trainable_variables
    optimizer.build(variables)

    @tf.function
    def step(x_s: Any, y_s: Any, x_t: Any) -> Any:
        with tf.GradientTape() as tape:
            active_s, active_t = network.activations(x_s), network.activations(x_t)
            logits = network.logits(active_s)
            cross_entropy = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=y_s, logits=logits))
            loss = cross_entropy + 0.5 * mmd2(active_s, active_t)
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    return lambda: step(x_s, y_s, x_t).numpy()


def alternate(ours: Callable[[], Any], article: Callable[[], Any], repeats: int) -> dict[str, list[float]]:
    """Milliseconds of each call of both, taken in turns."""
    ours(), article()  # trace and warm up
    spent: dict[str, list[float]] = {"ours": [], "article": []}
    for _ in range(repeats):
        for name, call, calls in (("ours", ours, CALLS), ("article", article, 1)):
            for _ in range(calls):
                start = time.perf_counter()
                call()
                spent[name].append(1e3 * (time.perf_counter() - start))
    return spent


def summarise(spent: dict[str, list[float]]) -> dict[str, float]:
    """Median and least milliseconds of both sides, and the ratio of the medians."""
    numbers = {f"{side}_median_ms": statistics.median(times) for side, times in spent.items()}
    numbers |= {f"{side}_min_ms": min(times) for side, times in spent.items()}
    return numbers | {"ratio": numbers["article_median_ms"] / numbers["ours_median_ms"]}


def main() -> None:
    """Run both comparisons, print the table, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15, help="turns of each comparison (default 15)")
    parser.add_argument("--json", type=Path, help="also write the numbers there")
    arguments = parser.parse_args()
    measured = {}
    for name, call in (("discrepancy", discrepancy_call), ("training step", step_call)):
        ours, article = (call(mmd2, np.random.default_rng(0)) for mmd2 in (our_mmd2, article_mmd2))
        measured[name] = summarise(alternate(ours, article, arguments.repeats))
    print(f"{'512 + 512 rows, ms':20}{'ours':>10}{'(min)':>10}{'article':>10}{'(min)':>10}{'ratio':>8}")
    for name, row in measured.items():
        ours, article = ((row[f"{side}_median_ms"], row[f"{side}_min_ms"]) for side in ("ours", "article"))
        print(f"{name:20}{ours[0]:10.2f}{ours[1]:10.2f}{article[0]:10.2f}{article[1]:10.2f}{row['ratio']:8.1f}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(measured, indent=1), encoding="utf-8")
    row = measured["discrepancy"]
    print(f"ours {row['ours_median_ms']:.2f} ms article {row['article_median_ms']:.2f} ms ratio {row['ratio']:.1f}")


if __name__ == "__main__":
    main()

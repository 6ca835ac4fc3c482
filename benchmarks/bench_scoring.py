"""What scoring with an exported contender costs: forests against scikit-learn, networks against Keras, in one run.

    python benchmarks/bench_scoring.py [--rows 10000] [--threads 1] [--repeats 15] [--depths 8 10 12 14] [--json PATH]

Forests: 300 trees on 100 columns, encoded matrix to probability; the exported SavedModel, and the same graph compiled
by XLA for this batch, against predict_proba of the forest that it was made of. Network: 96 numbers and 4 categories to
probability through the SavedModel of three 128-32 networks, fed from a pandas frame, against Keras' `predict` of the
three. `predict` alone is given the matrix ready made, as a frame of float32; "prepared" prepares it in pandas first,
which is the work that the SavedModel does. Repeats of all sides alternate, so that a busy machine slows them alike;
medians and minima are shown, and ratios of medians. All sides have `--threads` threads. Wanted on one thread: the
exported forest of depth 8 within 2 times scikit-learn's time, `predict` at least 3 times that of the exported network.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported: the table stays readable

import keras
import numpy as np
import pandas as pd
import polars as pl
import tensorflow as tf
from sklearn.ensemble import RandomForestClassifier

from crossrisk.features import FeaturePlan, FitSettings, RowPlan, fit_plan, rowwise_expressions
from crossrisk.features.plan import missing_flag, other_slot
from crossrisk.scoring import Scaling
from models import bundle
from models.fitted import Contender, Network
from models.form_graph import ContenderGraph
from models.shallow.trees import forest_form

TREES, COLUMNS, MIN_LEAF_ROWS, TRAINING_ROWS = 300, 100, 20, 20_000
NUMBERS, CATEGORIES, MEMBERS, HIDDEN = 96, 4, 3, (128, 32)

Sides = Mapping[str, Callable[[], Any]]


def alternate(sides: Sides, repeats: int) -> dict[str, dict[str, float]]:
    """Median and least milliseconds of each side, taken in turns."""
    spent: dict[str, list[float]] = {name: [] for name in sides}
    for call in sides.values():
        call()  # trace and warm up
    for _ in range(repeats):
        for name, call in sides.items():
            start = time.perf_counter()
            call()
            spent[name].append(1e3 * (time.perf_counter() - start))
    return {name: {"median_ms": statistics.median(times), "min_ms": min(times)} for name, times in spent.items()}


# --- forests ---


def forest_sides(depth: int, rows: int, threads: int, folder: Path) -> Sides:
    """One forest three ways, each a call that gives the probabilities of the same rows; checked to agree."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(TRAINING_ROWS, COLUMNS)).astype(np.float32)
    y = (rng.random(len(x)) < 1 / (1 + np.exp(1 + x[:, 1] * x[:, 2] - x[:, 0]))).astype(np.int8)
    model = RandomForestClassifier(TREES, max_depth=depth, min_samples_leaf=MIN_LEAF_ROWS, random_state=0, n_jobs=2)
    model.fit(x, y).set_params(n_jobs=threads)

    graph = ContenderGraph(Contender("forest", forest_form([model])), COLUMNS)
    spec = tf.TensorSpec([None, COLUMNS], tf.float32)
    graph.score = tf.function(graph.__call__, input_signature=[spec], autograph=False)
    tf.saved_model.save(graph, str(folder))
    exported = tf.saved_model.load(str(folder))  # held whole: it owns the variables
    compiled = tf.function(graph.__call__, jit_compile=True, autograph=False)

    scored = rng.normal(size=(rows, COLUMNS)).astype(np.float32)
    fed = tf.constant(scored)
    sides = {
        "scikit-learn": lambda: model.predict_proba(scored)[:, 1],
        "exported": lambda: exported.score(fed).numpy(),
        "exported, XLA": lambda: compiled(fed).numpy(),
    }
    for name, call in sides.items():
        np.testing.assert_allclose(call(), model.predict_proba(scored)[:, 1], rtol=0, atol=1e-6, err_msg=name)
    return sides


# --- network ---


def raw_frame(rows: int) -> pd.DataFrame:
    """Raw columns of an application form: numbers with missing values and tails, and categories of a few levels."""
    rng = np.random.default_rng(1)
    frame = {}
    for i in range(NUMBERS):
        numbers = rng.lognormal(i % 5, 1, rows)
        frame[f"number_{i}"] = np.where(rng.random(rows) < (0.1 if i % 2 else 0.0), np.nan, numbers)
    for i in range(CATEGORIES):
        frame[f"category_{i}"] = rng.choice([f"level {level}" for level in range(5 + i)], rows)
    return pd.DataFrame(frame)


def fit_raw_plan(frame: pd.DataFrame) -> FeaturePlan:
    """The feature plan of all columns of the frame, fitted on its rows."""
    rows = RowPlan(
        decision_date=None,
        numbers=tuple(name for name in frame if name.startswith("number")),
        categories=tuple(name for name in frame if name.startswith("category")),
        sentinels=(),
        ratios=(),
        ages=(),
    )
    features = pl.DataFrame({name: frame[name].to_numpy() for name in frame}).select(rowwise_expressions(rows))
    return fit_plan(features, rows, FitSettings())


def prepare_in_pandas(frame: pd.DataFrame, plan: FeaturePlan) -> pd.DataFrame:
    """The encoded matrix as pandas would make it, whole columns at a time."""
    names = [n.column for n in plan.numerics]
    low, high, fill, mean, scale = (
        pd.Series([getattr(n, field) for n in plan.numerics], index=names)
        for field in ("low", "high", "fill", "mean", "scale")
    )
    numbers = frame[names]
    prepared = (numbers.fillna(fill).clip(low, high, axis=1) - mean) / scale
    slots = {missing_flag(n.column): numbers[n.column].isna() for n in plan.numerics if n.flag}
    for c in plan.categories:
        slots |= {f"{c.column}={level}": frame[c.column] == level for level in c.levels}
        slots[other_slot(c.column)] = ~frame[c.column].isin(c.levels)
    return pd.concat([prepared, pd.DataFrame(slots)], axis=1)[list(plan.outputs)].astype(np.float32)


def keras_members(width: int) -> list[keras.Model]:
    """Three untrained networks, which cost as much as trained ones."""
    members = []
    for seed in range(MEMBERS):
        keras.utils.set_random_seed(seed)
        layers = [keras.layers.Dense(units, activation="relu") for units in HIDDEN]
        members.append(keras.Sequential([keras.Input((width,)), *layers, keras.layers.Dense(1, activation="sigmoid")]))
    return members


def as_network(members: list[keras.Model]) -> Network:
    """The members as one form of ours."""
    weights = [member.get_weights() for member in members]  # kernel, bias, kernel, bias, ...
    stacked = [np.stack(of_layer) for of_layer in zip(*weights, strict=True)]
    return Network(tuple(stacked[::2]), tuple(stacked[1::2]), "relu")


def network_sides(rows: int, folder: Path) -> Sides:
    """Raw columns or the matrix to probability, each a call over the same rows; checked to agree."""
    frame = raw_frame(rows)
    plan = fit_raw_plan(frame)
    members = keras_members(len(plan.outputs))
    scaling = Scaling(score_at_odds=600.0, odds=30.0, points_to_double=20.0)
    bundle.export(plan, Contender("network", as_network(members)), scaling, folder)
    model = bundle.load(folder)
    matrix = prepare_in_pandas(frame, plan)

    def exported() -> Any:
        return model.score_batch({c.name: frame[c.name].to_numpy() for c in model.columns}).probability

    def predict(matrix: pd.DataFrame, batch_size: int) -> Any:
        return np.mean([m.predict(matrix, batch_size=batch_size, verbose=0)[:, 0] for m in members], axis=0)

    sides = {
        "exported": exported,
        "predict": lambda: predict(matrix, rows),
        "prepared, predict": lambda: predict(prepare_in_pandas(frame, plan), rows),
        "predict, batches of 32": lambda: predict(matrix, 32),
    }
    for name, call in sides.items():
        np.testing.assert_allclose(call(), predict(matrix, rows), rtol=0, atol=1e-5, err_msg=name)
    return sides


def main() -> None:
    """Run all comparisons, print the tables, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000, help="rows of a batch (default 10000)")
    parser.add_argument("--threads", type=int, default=1, help="threads of every side (default 1)")
    parser.add_argument("--repeats", type=int, default=15, help="turns of each comparison (default 15)")
    parser.add_argument("--depths", type=int, nargs="*", default=[8, 10, 12, 14], help="of the forests")
    parser.add_argument("--json", type=Path, help="also write the numbers there")
    arguments = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(arguments.threads)
    tf.config.threading.set_inter_op_parallelism_threads(arguments.threads)
    measured = {}
    with tempfile.TemporaryDirectory() as scratch:
        for depth in arguments.depths:
            sides = forest_sides(depth, arguments.rows, arguments.threads, Path(scratch) / f"forest_{depth}")
            measured[f"forest of depth {depth}"] = alternate(sides, arguments.repeats)
        measured["network"] = alternate(network_sides(arguments.rows, Path(scratch) / "network"), arguments.repeats)

    print(f"{arguments.rows:,} rows, {arguments.threads} thread(s); ratio: median over that of the first line")
    print(f"{'':20}{'':24}{'ms':>10}{'(min)':>10}{'ratio':>8}")
    for title, sides in measured.items():
        first = next(iter(sides.values()))["median_ms"]
        for name, took in sides.items():
            print(f"{title:20}{name:24}{took['median_ms']:10.1f}{took['min_ms']:10.1f}{took['median_ms'] / first:8.2f}")
            title = ""
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(measured, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()

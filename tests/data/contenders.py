"""Contenders of every form over one small plan, for tests of what is exported, and how a stranger asks a SavedModel."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from crossrisk.features import (
    Age,
    FitSettings,
    Ratio,
    RowPlan,
    Sentinels,
    encoding_expressions,
    fit_plan,
    rowwise_expressions,
)
from crossrisk.scoring import Scaling
from models.fitted import Calibration, Contender, Floats, Logistic, Matrix, Network, Stacked, Trees

SCALING = Scaling(score_at_odds=600.0, odds=30.0, points_to_double=20.0)
ROWS = RowPlan(
    decision_date="decided_on",
    numbers=("income_monthly_usd", "has_phone"),
    categories=("region",),
    sentinels=(Sentinels(column="income_monthly_usd", codes=(-999.0,)),),
    ratios=(Ratio(name="debt_to_income", numerator="debt_usd", denominator="income_monthly_usd"),),
    ages=(Age(name="account_months", date="opened_on"),),
)


def loans(rows: int, seed: int = 1) -> pl.DataFrame:
    """Loans with numbers, booleans, dictionary-typed text, dates and timestamps, each with missing values."""
    rng = np.random.default_rng(seed)
    day = dt.date(2023, 1, 1)

    def some(values: Sequence[object]) -> list[object]:
        return [None if rng.random() < 0.1 else value for value in values]

    opened = [day - dt.timedelta(days=int(d)) for d in rng.integers(0, 4000, rows)]
    return pl.DataFrame(
        {
            "loan_id": [f"L{i}" for i in range(rows)],
            "income_monthly_usd": some([-999.0 if rng.random() < 0.1 else v for v in rng.lognormal(8, 1, rows)]),
            "has_phone": some([bool(v) for v in rng.integers(0, 2, rows)]),
            "debt_usd": some([int(v) for v in rng.integers(0, 9000, rows)]),
            "region": pl.Series(some(rng.choice(["north", "süd", "", "isle"], rows).tolist()), dtype=pl.Categorical),
            "opened_on": pl.Series(some(opened), dtype=pl.Date),
            "decided_on": pl.Series([dt.datetime(2023, 6, 1, 12)] * rows, dtype=pl.Datetime("ms")),
        }
    )


TRAINING = loans(400)
PLAN = fit_plan(
    TRAINING.select(rowwise_expressions(ROWS)), ROWS, FitSettings(clip_quantiles=(0.01, 0.99), min_level_rows=30)
)
WIDTH = len(PLAN.outputs)


def encode(frame: pl.DataFrame) -> pl.DataFrame:
    """The features (n, WIDTH) of a frame by Polars."""
    return frame.select(rowwise_expressions(PLAN.rows)).select(encoding_expressions(PLAN))


def expected_probability(contender: Contender, frame: pl.DataFrame) -> Floats:
    """What a contender says of a frame, by NumPy."""
    return contender.probability(encode(frame).to_numpy())


REFERENCE: Matrix = encode(TRAINING).to_numpy().mean(axis=0, dtype=np.float64).astype(np.float32)
"""what reasons compare with"""


def logistic(width: int = WIDTH) -> Logistic:
    """Random coefficients."""
    return Logistic(np.random.default_rng(2).normal(size=width), -1.5)


def trees(link: str, width: int = WIDTH) -> Trees:
    """40 complete trees of depth 3: more than one chunk of the walk."""
    rng = np.random.default_rng(3)
    count, nodes, leaves = 40, 15, np.arange(15) >= 7
    children = np.where(leaves, np.arange(15), 2 * np.arange(15) + 1).astype(np.int32)
    low, high = (0.0, 1.0) if link == "mean" else (-0.1, 0.1)
    return Trees(
        feature=np.where(leaves, 0, rng.integers(0, width, (count, nodes))).astype(np.int32),
        threshold=rng.normal(size=(count, nodes)).astype(np.float32),
        left=np.tile(children, (count, 1)),
        right=np.tile(np.where(leaves, children, children + 1).astype(np.int32), (count, 1)),
        value=np.where(leaves, rng.uniform(low, high, (count, nodes)), 0.0),
        depth=3,
        link="mean" if link == "mean" else "sum",
        baseline=0.0 if link == "mean" else -2.0,
        rows=np.tile(np.repeat([400, 200, 100, 50], [1, 2, 4, 8]).astype(np.int32), (count, 1)),
    )


def network(activation: str, width: int = WIDTH, members: int = 3) -> Network:
    """Two hidden layers, of 16 and 8."""
    rng = np.random.default_rng(4)
    shapes = [(width, 16), (16, 8), (8, 1)]
    return Network(
        weights=tuple(rng.normal(size=(members, *s)).astype(np.float32) for s in shapes),
        biases=tuple(rng.normal(size=(members, s[1])).astype(np.float32) for s in shapes),
        activation="relu" if activation == "relu" else "sigmoid",
    )


def stacked(source: Logistic | Trees) -> Stacked:
    """On a source model and two columns."""
    return Stacked(source, np.array([2, 0], np.int32), np.array([0.8, 0.3, -0.2]), intercept=0.4)


CONTENDERS: dict[str, tuple[Contender, float]] = {
    name: (Contender(name, form, Calibration(0.3, 0.9), constants), tolerance)
    for name, form, constants, tolerance in [
        ("logistic", logistic(), (), 1e-9),
        ("logistic_constants", logistic(WIDTH + 2), (1.0, 0.1), 1e-9),
        ("forest", trees("mean"), (), 1e-9),
        ("boosted_constant", trees("sum", WIDTH + 1), (1.0,), 1e-9),
        ("network_relu", network("relu"), (), 1e-6),
        ("network_sigmoid", network("sigmoid"), (), 1e-6),
        ("stacked_logistic", stacked(logistic()), (), 1e-9),
        ("stacked_boosted", stacked(trees("sum")), (), 1e-9),
    ]
}


# --- a stranger: another process, which cannot import this project ---


def ask_stranger(directory: Path, *requests: dict[str, Any]) -> list[dict[str, Any]]:
    """What `model_server` answers to requests in TF Serving's JSON, in a process without this project."""
    script = Path(__file__).with_name("model_server.py")
    # -I -S: neither the working directory nor what is installed in development mode can be imported
    command = [sys.executable, "-I", "-S", str(script), np.__path__[0], str(directory)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    lines = "".join(json.dumps(request) + "\n" for request in requests)
    finished = subprocess.run(
        command, input=lines, capture_output=True, text=True, env=environment, cwd="/", check=False
    )
    assert finished.returncode == 0, finished.stderr
    return [json.loads(line) for line in finished.stdout.splitlines()]

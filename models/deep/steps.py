"""The rules of a training that are not its mathematics: batches, checkpoint, early stop, the choice of a weight.

Pure, no TensorFlow.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from crossrisk.metrics import auc_value, paired_test
from models.deep.spec import DeepSpec, Labels, TrainingSet
from models.fitted import Floats

Rows = NDArray[np.int32]


def is_new_best(values: Sequence[float]) -> bool:
    """Whether the last value is a checkpoint: a strict rise above all before it.

    The first one always is: the fallback of a run that never rises (the article would be left without a model).
    """
    return len(values) == 1 or values[-1] > max(values[:-1])


def is_window_without_gain(values: Sequence[float], window: int) -> bool:
    """Whether training stops: the best of the last `window` values does not exceed the best before them."""
    return len(values) > window and max(values[-window:]) <= max(values[:-window])


def choose_weight(logits: Sequence[Floats], label: Labels) -> int:
    """Position of the smallest mmd_weight that the rows which choose cannot tell from the one that ranks them best.

    Not told apart: within one standard error of the paired difference of AUCs (the rule of one standard error, Breiman
    et al. 1984, section 3.4.3; DeLong's standard error). The highest of three AUCs of a few dozen bads is mostly luck,
    and alignment that is chosen by luck costs AUC on real splits (docs/benchmarks.md).

    Args:
        logits: (n,) of the rows that choose, one array a weight, weights ascending.
        label: (n,) 0 or 1, both present.
    """
    best = max(logits, key=lambda own: auc_value(label, own))
    for place, own in enumerate(logits):
        test = paired_test(label, best, own)
        if test.standard_error is None or test.difference is None or test.difference <= test.standard_error:
            return place
    raise AssertionError("the best is within one standard error of itself")


def planned_steps(spec: DeepSpec, n_s: int, n_t: int) -> int:
    """Updates of a training that does not stop early, on n_s source and n_t target rows."""
    steps = [math.inf if spec.max_steps is None else spec.max_steps]
    for rows in (n_s, n_t):
        size = min(spec.batch_size, rows)
        per_epoch = math.ceil(rows / size) if spec.keep_tails else rows // size
        steps.append(math.inf if spec.epochs is None else per_epoch * spec.epochs)
    return int(min(steps))


def target_loss_weight(spec: DeepSpec, training_set: TrainingSet) -> float:
    """Factor on the mean cross-entropy of the labelled target rows, the source's being 1; 0 where none is used.

    A row of n_t counts w / n_t and one of the source 1 / n_s: their ratio is target_row_weight.
    """
    if not spec.use_target_labels:
        return 0.0
    return spec.target_row_weight * training_set.known_target_rows / len(training_set.x_s)


def row_stream(rows: int, spec: DeepSpec, rng: np.random.Generator) -> Iterator[Rows]:
    """Row numbers of one population, batch by batch, reshuffled every epoch; endless where spec.epochs is None."""
    size = min(spec.batch_size, rows)
    for _ in itertools.count() if spec.epochs is None else range(spec.epochs):
        order = rng.permutation(rows).astype(np.int32)
        end = rows if spec.keep_tails else rows - rows % size
        for start in range(0, end, size):
            yield order[start : start + size]


def diagnosis_rows(spec: DeepSpec, n_s: int, n_t: int) -> int:
    """Rows m of each population behind the logged unbiased MMD; its no-shift band takes 2 m of the source."""
    return min(spec.batch_size, n_s // 2, n_t)


def check_rows(spec: DeepSpec, training_set: TrainingSet) -> None:
    """Refuse rows that cannot be trained as the spec asks.

    Raises:
        ValueError: where they are too few for one evaluation, for the no-shift band or for the estimator, or where
            target labels that are to be used are neither 0, 1 nor NaN.
    """
    n_s, n_t = len(training_set.x_s), len(training_set.x_t)
    planned = planned_steps(spec, n_s, n_t)
    if planned < spec.evaluate_every:
        raise ValueError(
            f"{n_s} source and {n_t} target rows give {planned} steps, at least evaluate_every = {spec.evaluate_every} "
            "needed to keep any weights; give more epochs or evaluate more often"
        )
    if spec.logs_no_shift_band and diagnosis_rows(spec, n_s, n_t) < 2:
        raise ValueError(f"the no-shift band needs 4 source and 2 target rows, got {n_s} and {n_t}")
    if spec.estimator == "unbiased" and spec.keep_tails and 1 in (n_s % spec.batch_size, n_t % spec.batch_size):
        raise ValueError(
            f"{n_s} source and {n_t} target rows in batches of {spec.batch_size} leave a tail of 1 row, at least 2 "
            'needed for the unbiased estimate; drop tails or use estimator "biased"'
        )
    if spec.use_target_labels and not (np.isin(training_set.y_t, (0, 1)) | np.isnan(training_set.y_t)).all():
        raise ValueError("target labels must be 0, 1 or NaN where unknown")

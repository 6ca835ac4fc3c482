"""What a training of the Deep Adaptation Network is told, and the rules that it goes by: no TensorFlow here.

Here live the recipe (`DanSpec`, its two presets of docs/method.md), the rows (`TrainingSet`) and the rules of steps,
checkpoint and early stop as pure functions. The network that is trained by them lives in `models.dan`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from models.fitted import Activation, Matrix

if TYPE_CHECKING:  # names of options only: the module itself is TensorFlow
    from models.mmd import Estimator, Reduce

Labels = NDArray[np.floating[Any]]
Rows = NDArray[np.int32]
Initializer = Literal["glorot_uniform", "he_normal"]


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """Shape of a multi-layer perceptron with one logit at its end."""

    hidden: tuple[int, ...]
    """units of each hidden layer, input side first"""
    activation: Activation
    """of the hidden layers"""
    initializer: Initializer
    """of every kernel; biases start at 0"""
    dropout: float
    """share of the hidden units dropped in training, in [0, 1)"""


@dataclass(frozen=True, kw_only=True)
class DanSpec(NetworkSpec):
    """Everything that decides a training apart from the rows and the seed."""

    optimizer: Literal["adam", "adamw"]
    learning_rate: float
    epsilon: float
    """of Adam: TensorFlow 1's was 1e-8, Keras 3's is 1e-7"""
    weight_decay: float
    """of AdamW, on kernels only; adam ignores it"""
    l2_scale: float
    """l2_scale * sum(kernel^2) / 2 of each hidden kernel goes into the classification loss"""
    batch_size: int
    """rows of each population a step; a population with fewer rows gives them all"""
    epochs: int | None
    """passes over each stream; the training ends with the shorter one; None: streams repeat, max_steps ends it"""
    max_steps: int | None
    """None: the streams end it"""
    keep_tails: bool
    """whether the short batch at the end of an epoch is used"""
    mmd_weight: float
    """factor on the ramp; 0: the discrepancy is logged and gives no gradient"""
    kernel_num: int
    kernel_mul: float
    fix_sigma: float | None
    estimator: Estimator
    reduce: Reduce
    bandwidth_gradient: bool
    label_shift_weights: bool
    """weight source rows in the MMD to the target's bad rate, where that is given"""
    use_target_labels: bool
    """add the cross-entropy of the batch's target rows with a known label; False: y_t is never read"""
    evaluate_every: int
    """steps between two evaluations of AUC and KS on the stop rows"""
    patience: int
    """evaluations in the window of the early stop, see `is_window_without_gain`"""
    logs_no_shift_band: bool
    """at evaluations, also log the unbiased MMD and how large it is between batches that share a distribution"""

    def __post_init__(self) -> None:
        if self.epochs is None and self.max_steps is None:
            raise ValueError("epochs and max_steps are both None: the training would never end; give one of them")
        for name in ("batch_size", "evaluate_every", "patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.mmd_weight < 0.0:
            raise ValueError(f"mmd_weight must not be negative, got {self.mmd_weight}")


ARTICLE = DanSpec(
    hidden=(256, 64),
    activation="sigmoid",
    initializer="glorot_uniform",  # TensorFlow 1's default for dense layers; the article names none
    dropout=0.0,
    optimizer="adam",
    learning_rate=0.005,
    epsilon=1e-8,
    weight_decay=0.0,
    l2_scale=0.0,
    batch_size=512,
    epochs=100,
    max_steps=None,
    keep_tails=False,
    mmd_weight=1.0,
    kernel_num=5,
    kernel_mul=2.0,
    fix_sigma=None,
    estimator="biased",
    reduce="sum",
    bandwidth_gradient=True,
    label_shift_weights=False,
    use_target_labels=False,
    evaluate_every=3,
    patience=15,
    logs_no_shift_band=False,
)
"""The article's run, as pinned in docs/method.md."""

DEFAULT = DanSpec(
    hidden=(128, 32),
    activation="relu",
    initializer="he_normal",
    dropout=0.2,
    optimizer="adamw",
    learning_rate=2e-3,
    epsilon=1e-7,
    weight_decay=1e-2,
    l2_scale=0.0,
    batch_size=256,
    epochs=None,
    max_steps=600,
    keep_tails=False,
    mmd_weight=1.0,
    kernel_num=5,
    kernel_mul=2.0,
    fix_sigma=None,
    estimator="biased",
    reduce="mean",
    bandwidth_gradient=False,
    label_shift_weights=True,
    use_target_labels=True,
    evaluate_every=20,
    patience=10,
    logs_no_shift_band=True,
)
"""The contender `dan` of the default lineup; mmd_weight is chosen from a grid that holds 0."""


@dataclass(frozen=True)
class TrainingSet:
    """The rows of one training, encoded: n_s source, n_t target and n_stop stop rows of d columns."""

    x_s: Matrix
    """(n_s, d)"""
    y_s: Labels
    """(n_s,) 0 or 1"""
    x_t: Matrix
    """(n_t, d)"""
    y_t: Labels
    """(n_t,) 0, 1, or NaN where unknown"""
    x_stop: Matrix
    """(n_stop, d); their AUC chooses the checkpoint and the end"""
    y_stop: Labels
    """(n_stop,) 0 or 1, both present"""
    target_prior: float | None = None
    """bad rate of the target, for the label-shift weights; None: not known, no weights"""
    stop_unknown: int = 0
    """further rows that were to decide the stop and have no known label: left out"""

    def __post_init__(self) -> None:
        for name in ("s", "t", "stop"):
            x, y = getattr(self, f"x_{name}"), getattr(self, f"y_{name}")
            if x.ndim != 2 or x.shape[1] != self.x_s.shape[1] or y.shape != x.shape[:1]:
                expected = f"(n, {self.x_s.shape[1]}) and (n,)"
                raise ValueError(f"x_{name} and y_{name} must have shapes {expected}, got {x.shape} and {y.shape}")
            if not len(x):
                raise ValueError(f"x_{name} has no rows, at least 1 needed; check the split")
        if not np.isin(self.y_s, (0, 1)).all():
            raise ValueError("source labels must all be 0 or 1: leave unmatured rows out of the source")
        if set(np.unique(self.y_stop)) != {0, 1}:
            raise ValueError("the stop rows must hold both goods and bads, and no unknown label")


def ramp(step: int) -> float:
    """The article's lambda before its factor: 2 / (1 + exp(-10 step / 1000)) - 1, with the updates made so far.

    In [0, 1): 0 at the first step. The 1000 is a constant, not the run's length.
    """
    return 2.0 / (1.0 + math.exp(-10.0 * step / 1000.0)) - 1.0


def is_new_best(values: Sequence[float]) -> bool:
    """Whether the last value is a checkpoint: a strict rise above all before it.

    The first one always is: the fallback of a run that never rises (the article would be left without a model).
    """
    return len(values) == 1 or values[-1] > max(values[:-1])


def is_window_without_gain(values: Sequence[float], window: int) -> bool:
    """Whether training stops: the best of the last `window` values does not exceed the best before them."""
    return len(values) > window and max(values[-window:]) <= max(values[:-window])


def planned_steps(spec: DanSpec, n_s: int, n_t: int) -> int:
    """Updates of a training that does not stop early, on n_s source and n_t target rows."""
    steps = [math.inf if spec.max_steps is None else spec.max_steps]
    for rows in (n_s, n_t):
        size = min(spec.batch_size, rows)
        per_epoch = math.ceil(rows / size) if spec.keep_tails else rows // size
        steps.append(math.inf if spec.epochs is None else per_epoch * spec.epochs)
    return int(min(steps))


def row_stream(rows: int, spec: DanSpec, rng: np.random.Generator) -> Iterator[Rows]:
    """Row numbers of one population, batch by batch, reshuffled every epoch; endless where spec.epochs is None."""
    size = min(spec.batch_size, rows)
    for _ in itertools.count() if spec.epochs is None else range(spec.epochs):
        order = rng.permutation(rows).astype(np.int32)
        end = rows if spec.keep_tails else rows - rows % size
        for start in range(0, end, size):
            yield order[start : start + size]


def diagnosis_rows(spec: DanSpec, n_s: int, n_t: int) -> int:
    """Rows m of each population behind the logged unbiased MMD; its no-shift band takes 2 m of the source."""
    return min(spec.batch_size, n_s // 2, n_t)


def check_rows(spec: DanSpec, training_set: TrainingSet) -> None:
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

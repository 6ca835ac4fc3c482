"""Rows and recipes for networks that train in about a second: two populations with a shift that can be closed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from models.deep.evaluation import TrainedNetwork
from models.deep.presets import ARTICLE, DAN, PRESETS
from models.deep.spec import DeepSpec, TrainingSet
from models.fitted import Network

SMALL_ARTICLE = replace(ARTICLE, hidden=(12, 6), batch_size=32, epochs=3, evaluate_every=2)
SMALL_DAN = replace(DAN, hidden=(12, 6), batch_size=32, max_steps=12, evaluate_every=4)

# The ones below keep the weights of the last step, whatever the stop rows say of them.
ARTICLE_TO_THE_END = replace(SMALL_ARTICLE, epochs=None, max_steps=9, evaluate_every=9)
DAN_TO_THE_END = replace(SMALL_DAN, max_steps=9, evaluate_every=9, logs_no_shift_band=False)


def small(preset: str, **changes: Any) -> DeepSpec:
    """The recipe of a contender with two small hidden layers, nine steps and the weights of the last."""
    sizes = {"hidden": (12, 6), "batch_size": 32, "max_steps": 9, "evaluate_every": 9, "logs_no_shift_band": False}
    return replace(PRESETS[preset], **{**sizes, **changes})


def population(n: int, is_target: bool, seed: int) -> tuple[Any, Any]:
    """Risk follows a latent signal. Column 0 shows it in both populations; column 1 shows it better in the source and
    is noise of another level and spread in the target; column 2 is noise."""
    rng = np.random.default_rng(seed)
    signal = rng.normal(size=n)
    y = rng.random(n) < 1 / (1 + np.exp(1 - 2 * signal))
    shifted = rng.normal(2, 2, size=n) if is_target else signal + 0.2 * rng.normal(size=n)
    x = np.stack([signal + 0.7 * rng.normal(size=n), shifted, rng.normal(size=n)], axis=1)
    return x.astype(np.float32), y.astype(np.float32)


def training_set(n_s: int = 200, n_t: int = 150, *, known_share: float = 0.5, prior: float | None = 0.4) -> TrainingSet:
    """Rows of both populations; of the first `known_share` of the target the labels are known."""
    x_t, y_t = population(n_t, True, 1)
    y_t[int(known_share * n_t) :] = np.nan
    return TrainingSet(*population(n_s, False, 0), x_t, y_t, *population(300, False, 2), target_prior=prior)


def layers(trained: TrainedNetwork | Network) -> list[Any]:
    """Kernels, then biases."""
    return [*trained.weights, *trained.biases]


def same_bits(one: TrainedNetwork | Network, other: TrainedNetwork | Network) -> bool:
    """Whether all weights are equal to the last bit."""
    return all(np.array_equal(a, b) for a, b in zip(layers(one), layers(other), strict=True))


def largest_difference(one: TrainedNetwork | Network, other: TrainedNetwork | Network) -> float:
    """Largest absolute difference of two weights in the same place."""
    return max(float(np.abs(a - b).max()) for a, b in zip(layers(one), layers(other), strict=True))

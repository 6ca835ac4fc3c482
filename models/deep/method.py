"""What a deep adapter is to the trainer: something that adds a term to the classification loss of a step.

Each method is a subclass in a file of its own; its mathematics are pure functions beside it or in `models.mmd`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import keras
import tensorflow as tf

from models.deep.spec import LOGITS, DeepSpec


@dataclass(frozen=True)
class Batch:
    """One step's rows of both populations as the network sees them; S members, n_s and n_t rows."""

    source: Mapping[str, tf.Tensor]
    """layer -> (S, n_s, units), logits (S, n_s, 1)"""
    target: Mapping[str, tf.Tensor]
    y_s: tf.Tensor
    """(S, n_s) 0 or 1"""
    y_t: tf.Tensor
    """(S, n_t) 0 or 1 where `known_t`, else 0"""
    known_t: tf.Tensor
    """(S, n_t) 1 where a label is known and may be used, else 0"""

    def bad_t(self, prior_target: float | None) -> tf.Tensor:
        """Probability of bad (S, n_t) of the target rows: the label where known, else the network's own, as a constant.

        Soft labels (Zhu et al., IEEE TNNLS 2021, section III-C). The network's carry the bad rate of the source rows it
        learns from; where the target's is known they are moved to it (Elkan 2001, theorem 2): without that, a shift of
        the bad rate alone pulls bads and goods together (benchmarks/bench_shifts.py).
        """
        logits = tf.stop_gradient(self.target[LOGITS][..., 0])
        if prior_target is not None:
            rate = tf.clip_by_value(tf.reduce_mean(self.y_s, -1, keepdims=True), 1e-3, 1.0 - 1e-3)
            logits += math.log(prior_target / (1.0 - prior_target)) - tf.math.log(rate / (1.0 - rate))
        return self.known_t * self.y_t + (1.0 - self.known_t) * tf.sigmoid(logits)


class Method:
    """Source-only: adds nothing. Methods replace `align`; one with weights of its own also `trained_layers`."""

    def __init__(self, spec: DeepSpec, seeds: Sequence[int], prior_target: float | None) -> None:
        """
        Args:
            spec: of the training.
            seeds: of initial weights, one a member.
            prior_target: bad rate of the target, for the weights of rows; None: not known.
        """
        self.spec, self.prior_target = spec, prior_target

    @property
    def trained_layers(self) -> list[keras.layers.Layer]:
        """Built layers that are trained beside the network; none by default."""
        return []

    def align(self, batch: Batch, weight: tf.Tensor) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """The term (S,) that is added to the classification loss at this weight, and what is logged of each layer."""
        return tf.zeros_like(batch.y_s[:, 0]), {}


class LayerMethod(Method, ABC):
    """A method that measures a distance on each aligned layer and adds weight * their sum."""

    @abstractmethod
    def distance(self, layer: str, batch: Batch) -> tf.Tensor:
        """The distance (S,) of one layer."""

    def align(self, batch: Batch, weight: tf.Tensor) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """weight * sum over the aligned layers."""
        by_layer = {layer: self.distance(layer, batch) for layer in self.spec.aligned}
        return weight * tf.add_n(list(by_layer.values())), by_layer

"""Domain-adversarial training: features that a domain classifier cannot tell apart (Ganin et al., JMLR 17, 2016).

    L = L_y(source labels) + L_d(domain classifier over the reversed features)                   (ibid., eq. 10 and 15)

The classifier learns at full rate; what reaches the network is its gradient times -lambda, which follows the schedule
"dann" (section 5.2.2) times mmd_weight.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from models.deep.method import Batch, Method
from models.deep.perceptron import StackedDense, layer_seeds
from models.deep.spec import DeepSpec
from models.deep.weights import source_weights

DISCRIMINATOR = 1
"""Tells the classifier's seeds from the network's, whatever other member has the next seed."""


class Dann(Method):
    """A domain classifier with hidden units of its own, one for each member and aligned layer."""

    def __init__(self, spec: DeepSpec, seeds: Sequence[int], prior_target: float | None) -> None:
        super().__init__(spec, seeds, prior_target)
        widths = dict(zip(spec.layer_names, (*spec.hidden, 1), strict=True))
        count = len(spec.discriminator) + 1
        own_seeds = [int(np.random.SeedSequence([seed, DISCRIMINATOR]).generate_state(1)[0]) for seed in seeds]
        of_layers = layer_seeds(own_seeds, count * len(spec.aligned))
        self.discriminators: dict[str, list[StackedDense]] = {}
        for position, name in enumerate(spec.aligned):
            own, width = of_layers[position * count : (position + 1) * count], widths[name]
            layers = [
                StackedDense(units, seeds=of_layer, initializer=spec.initializer, activation="relu")
                for units, of_layer in zip(spec.discriminator, own[:-1], strict=True)
            ]
            layers.append(StackedDense(1, seeds=own[-1], initializer=spec.initializer))
            for layer in layers:
                layer.build((len(seeds), None, width))
                width = layer.units
            self.discriminators[name] = layers

    @property
    def trained_layers(self) -> list[keras.layers.Layer]:
        """All layers of the domain classifiers."""
        return [layer for layers in self.discriminators.values() for layer in layers]

    def align(self, batch: Batch, weight: tf.Tensor) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Sum (S,) of the domain losses over reversed features: its value does not depend on the weight."""
        weights_s = source_weights(self.spec.row_weights, batch, self.prior_target)
        by_layer = {}
        for name, layers in self.discriminators.items():
            sides = [reverse_gradient(side[name], weight) for side in (batch.source, batch.target)]
            for layer in layers:
                sides = [layer(one) for one in sides]
            by_layer[name] = domain_loss(sides[0][..., 0], sides[1][..., 0], weights_s)
        return tf.add_n(list(by_layer.values())), by_layer


def reverse_gradient(x: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    """x itself, with a gradient that comes back times -weight (Ganin et al. 2016, eq. 16 and 17)."""

    @tf.custom_gradient
    def reversal(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        return tf.identity(x), lambda upstream: -weight * upstream

    return reversal(x)


def domain_loss(logits_s: tf.Tensor, logits_t: tf.Tensor, weights_s: tf.Tensor | None = None) -> tf.Tensor:
    """Cross-entropy of telling source (1) from target (0), each population counting half (eq. 12).

    Args:
        logits_s: (..., n_s) of the source rows.
        logits_t: (..., n_t) of the target rows.
        weights_s: (..., n_s) weights >= 0 of the source rows; None: equal.

    Returns:
        (...) >= 0; log 2 = .693 where the classifier cannot tell.
    """
    of_source = tf.nn.softplus(-logits_s)
    weights = tf.ones_like(of_source) if weights_s is None else tf.cast(weights_s, of_source.dtype)
    source = tf.reduce_sum(weights * of_source, -1) / tf.reduce_sum(weights, -1)
    return 0.5 * (source + tf.reduce_mean(tf.nn.softplus(logits_t), -1))

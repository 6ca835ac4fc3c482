"""The multi-layer perceptron that the networks of the lineup share, in Keras 3.

One builder from a `NetworkSpec`, which lives with the presets that fill it (`models.dan_spec`). Losses, batches and
training stay out.
"""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from models.dan_spec import NetworkSpec

_INITIALIZERS = {"glorot_uniform": keras.initializers.GlorotUniform, "he_normal": keras.initializers.HeNormal}


class Perceptron(keras.Model):
    """Dense layers to the last hidden activations, then one logit.

    Dropout draws from the `noise` that is passed in: populations that go through in turn can then each keep a noise of
    their own, and None is inference. The last hidden activations are exposed before their own dropout, so that a
    distance between two populations is not measured on the noise.
    """

    def __init__(self, spec: NetworkSpec, inputs: int, seed: int) -> None:
        super().__init__(name="perceptron")
        initializer = _INITIALIZERS[spec.initializer]
        seeds = np.random.default_rng(seed).integers(2**31, size=len(spec.hidden) + 1).tolist()
        self.dropout = spec.dropout
        self.hidden_layers = [
            keras.layers.Dense(units, activation=spec.activation, kernel_initializer=initializer(seed=layer_seed))
            for units, layer_seed in zip(spec.hidden, seeds[:-1], strict=True)
        ]
        self.head = keras.layers.Dense(1, kernel_initializer=initializer(seed=seeds[-1]))
        self.build((None, inputs))

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create the weights for inputs of shape (n, d)."""
        width = input_shape[1]
        for layer in (*self.hidden_layers, self.head):
            layer.build((None, width))
            width = layer.units
        self.built = True

    def activations(self, x: tf.Tensor, noise: keras.random.SeedGenerator | None = None) -> tf.Tensor:
        """Activations (n, last hidden units) of the last hidden layer for inputs x (n, d)."""
        hidden = self.hidden_layers[0](x)
        for layer in self.hidden_layers[1:]:
            hidden = layer(self._drop(hidden, noise))
        return hidden

    def logits(self, activations: tf.Tensor, noise: keras.random.SeedGenerator | None = None) -> tf.Tensor:
        """Logits (n,) of the last hidden activations."""
        return self.head(self._drop(activations, noise))[:, 0]

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Logits (n,) of inputs x (n, d), at inference."""
        return self.logits(self.activations(x))

    def layer_weights(self) -> tuple[tuple[NDArray[np.float32], ...], tuple[NDArray[np.float32], ...]]:
        """Copies of the kernels (n_in, n_out) and of the biases (n_out,), one each a layer, head last."""
        layers = (*self.hidden_layers, self.head)
        return tuple(_copy(layer.kernel) for layer in layers), tuple(_copy(layer.bias) for layer in layers)

    def _drop(self, hidden: tf.Tensor, noise: keras.random.SeedGenerator | None) -> tf.Tensor:
        if noise is None or self.dropout == 0.0:
            return hidden
        return keras.random.dropout(hidden, self.dropout, seed=noise)


def _copy(variable: keras.Variable) -> NDArray[np.float32]:
    # a TensorFlow array may share the variable's memory, which the next update overwrites
    return np.array(variable.value.numpy(), np.float32, copy=True)


def build_network(spec: NetworkSpec, inputs: int, seed: int) -> Perceptron:
    """A freshly initialised network for `inputs` encoded columns; the same seed gives the same weights.

    Raises:
        ValueError: when there is no hidden layer, or a size or share is out of range.
    """
    if inputs < 1 or not spec.hidden or min(spec.hidden) < 1:
        raise ValueError(f"a network needs inputs and at least one hidden layer, got {inputs} inputs, {spec.hidden}")
    if not 0.0 <= spec.dropout < 1.0:
        raise ValueError(f"dropout must lie in [0, 1), got {spec.dropout}")
    return Perceptron(spec, inputs, seed)

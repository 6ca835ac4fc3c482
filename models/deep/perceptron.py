"""The multi-layer perceptron that all deep adapters share, an ensemble of S seeds as one stack of weights, in Keras 3.

Every tensor has the members of the ensemble as its leading axis, so a layer of all seeds is one batched matrix product.
Members never mix: each is initialised, and drops units, by its own seed. Losses, batches and training stay out.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from models.deep.spec import LOGITS, NetworkSpec
from models.fitted import Network

_INITIALIZERS = {"glorot_uniform": keras.initializers.GlorotUniform, "he_normal": keras.initializers.HeNormal}


class StackedDense(keras.layers.Layer):
    """A dense layer of S members: (S, n, n_in) or rows for all members (n, n_in) -> (S, n, units)."""

    def __init__(self, units: int, *, seeds: Sequence[int], initializer: str, activation: str | None = None) -> None:
        super().__init__()
        self.units, self.seeds = units, tuple(seeds)
        self.initializer, self.activation = _INITIALIZERS[initializer], keras.activations.get(activation)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create the weights, each member's as a layer of its own with its seed would have them."""
        members = len(self.seeds)
        self.kernel = self.add_weight(shape=(members, input_shape[-1], self.units), name="kernel")
        self.bias = self.add_weight(shape=(members, 1, self.units), name="bias", initializer="zeros")
        shape = (input_shape[-1], self.units)
        self.kernel.assign(tf.stack([self.initializer(seed=seed)(shape) for seed in self.seeds]))

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """The layer's output."""
        return self.activation(tf.matmul(x, self.kernel) + self.bias)


class StackedPerceptron(keras.layers.Layer):
    """Dense layers to the last hidden activations, then one logit, for S members at once.

    Activations are exposed before their own dropout, so that a distance between two populations is not measured on the
    noise.
    """

    def __init__(self, spec: NetworkSpec, inputs: int, seeds: Sequence[int]) -> None:
        """
        Args:
            spec: the shape.
            inputs: encoded columns, at least 1.
            seeds: of the initial weights, one a member.

        Raises:
            ValueError: without inputs or members.
        """
        super().__init__(name="perceptron")
        if inputs < 1 or not seeds:
            raise ValueError(f"a network needs inputs and at least one seed, got {inputs} inputs, {len(seeds)} seeds")
        self.spec = spec
        of_layers = layer_seeds(seeds, len(spec.hidden) + 1)
        self.hidden_layers = [
            StackedDense(units, seeds=of_layer, initializer=spec.initializer, activation=spec.activation)
            for units, of_layer in zip(spec.hidden, of_layers[:-1], strict=True)
        ]
        self.head = StackedDense(1, seeds=of_layers[-1], initializer=spec.initializer)
        width = inputs
        for layer in self.all_layers:
            layer.build((len(seeds), None, width))
            width = layer.units
        self.built = True

    @property
    def all_layers(self) -> list[StackedDense]:
        """Input side first, head last."""
        return [*self.hidden_layers, self.head]

    def activations(self, x: tf.Tensor, noise: Noise | None = None) -> dict[str, tf.Tensor]:
        """The output of every layer by the names of `NetworkSpec.layer_names`: (S, n, units); logits (S, n, 1).

        Args:
            x: (S, n, d), or (n, d) for all members.
            noise: of the dropout; None at inference.
        """
        found: dict[str, tf.Tensor] = {}
        hidden = x
        for number, layer in enumerate(self.all_layers):
            if noise is not None and number > 0:
                hidden = noise.drop(hidden, self.spec.dropout, number - 1)
            hidden = layer(hidden)
            found[self.spec.layer_names[number]] = hidden
        return found

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Logits (S, n) at inference."""
        return self.activations(x)[LOGITS][..., 0]

    def layer_weights(self, member: int) -> tuple[tuple[NDArray[np.float32], ...], tuple[NDArray[np.float32], ...]]:
        """Copies of one member's kernels (n_in, n_out) and biases (n_out,), one each a layer, head last."""
        kernels = tuple(_copy(layer.kernel[member]) for layer in self.all_layers)
        return kernels, tuple(_copy(layer.bias[member, 0]) for layer in self.all_layers)

    def start_from(self, network: Network) -> None:
        """Take over the hidden layers of an ensemble; the head keeps its fresh weights.

        Raises:
            ValueError: where its layers, members or activation are not this one's.
        """
        if network.activation != self.spec.activation:
            raise ValueError(
                f"expected an ensemble with activation {self.spec.activation} to start from, got {network.activation}: "
                "its weights mean nothing to another; start anew"
            )
        for layer, kernel, bias in zip(self.hidden_layers, network.weights, network.biases, strict=False):
            if kernel.shape != tuple(layer.kernel.shape) or len(network.weights) != len(self.all_layers):
                shapes = [tuple(one.kernel.shape) for one in self.all_layers]
                raise ValueError(
                    f"expected an ensemble with kernels {shapes} to start from, got "
                    f"{[one.shape for one in network.weights]}; train as many seeds on the same features, or start anew"
                )
            layer.kernel.assign(kernel)
            layer.bias.assign(bias[:, None, :])


class Noise:
    """What one population's dropout draws in one step: a function of the member's seed and the step.

    Four units share one random number, a byte each: random numbers would else take as long as the layers themselves
    (measured). Shares are therefore rounded to 1/256.
    """

    def __init__(self, seeds: tf.Tensor, step: tf.Tensor, widths: Sequence[int]) -> None:
        """`seeds`: (S,) int32; `step`: updates made before, int32; `widths`: units of the layers that are dropped."""
        self.seeds, self.step = seeds, step
        self.ends = np.cumsum([0, *widths]).tolist()
        self.bytes: tf.Tensor | None = None

    def drop(self, hidden: tf.Tensor, share: float, layer: int) -> tf.Tensor:
        """`hidden` (S, n, units) with a share of its entries 0 and the others scaled up to keep the mean."""
        if self.bytes is None:
            self.bytes = self._draw(tf.shape(hidden)[1])
        dropped = round(256 * share)
        kept = self.bytes[:, :, self.ends[layer] : self.ends[layer + 1]] >= tf.constant(dropped, tf.uint8)
        return hidden * (tf.cast(kept, hidden.dtype) * (256.0 / (256 - dropped)))

    def _draw(self, rows: tf.Tensor) -> tf.Tensor:
        """Bytes (S, n, units of all layers and up to three more)."""
        words = -(-self.ends[-1] // 4)
        draws = [
            tf.random.stateless_uniform(
                [rows, words], tf.stack([seed, self.step]), minval=None, maxval=None, dtype=tf.uint32, alg="philox"
            )
            for seed in tf.unstack(self.seeds)
        ]
        return tf.reshape(tf.bitcast(tf.stack(draws), tf.uint8), [len(draws), rows, 4 * words])


def layer_seeds(seeds: Sequence[int], layers: int) -> list[list[int]]:
    """For each layer, the seed of each member's weights."""
    drawn = [np.random.default_rng(seed).integers(2**31, size=layers).tolist() for seed in seeds]
    return [list(of_layer) for of_layer in zip(*drawn, strict=True)]


def _copy(tensor: tf.Tensor) -> NDArray[np.float32]:
    # a TensorFlow array may share the variable's memory, which the next update overwrites
    return np.array(tensor, np.float32, copy=True)

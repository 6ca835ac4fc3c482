"""The stack of networks: each member is the network that its seed alone would give."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from networks import SMALL_ARTICLE, SMALL_DAN

from models.deep.perceptron import Noise, StackedDense, StackedPerceptron, layer_seeds
from models.fitted import Network

SEEDS = (3, 7)


def rows(n: int = 20) -> Any:
    return np.random.default_rng(0).normal(size=(n, 3)).astype(np.float32)


def ensemble(network: StackedPerceptron, members: int) -> Network:
    per_member = [network.layer_weights(member) for member in range(members)]
    weights, biases = (
        tuple(np.stack(layer) for layer in zip(*(m[i] for m in per_member), strict=True)) for i in (0, 1)
    )
    return Network(weights, biases, network.spec.activation)


# --- members ---


@pytest.mark.parametrize(("initializer", "keras_one"), [
    ("glorot_uniform", keras.initializers.GlorotUniform), ("he_normal", keras.initializers.HeNormal),
])  # fmt: skip
def test_a_member_starts_as_a_layer_of_its_own_with_its_seed_would(initializer: str, keras_one: Any) -> None:
    stacked = StackedDense(4, seeds=SEEDS, initializer=initializer)
    stacked.build((2, None, 3))
    for place, seed in enumerate(SEEDS):
        alone = keras.layers.Dense(4, kernel_initializer=keras_one(seed=seed))
        alone.build((None, 3))
        assert np.array_equal(stacked.kernel[place], alone.kernel)
    assert not np.any(stacked.bias)


@pytest.mark.parametrize("spec", [SMALL_ARTICLE, SMALL_DAN], ids=["sigmoid", "relu"])
def test_logits_are_those_of_the_plain_form_that_is_published(spec: Any) -> None:
    network = StackedPerceptron(spec, 3, SEEDS)
    kept = ensemble(network, 2)
    for place, logits in enumerate(network(rows()).numpy()):
        alone = Network(
            tuple(layer[place : place + 1] for layer in kept.weights),
            tuple(layer[place : place + 1] for layer in kept.biases),
            spec.activation,
        )
        np.testing.assert_allclose(logits, alone.raw_logit(rows()), atol=1e-5)


def test_a_member_does_not_see_the_others() -> None:
    both, one = (StackedPerceptron(SMALL_DAN, 3, seeds) for seeds in (SEEDS, SEEDS[1:]))
    for together, alone in zip(both.layer_weights(1), one.layer_weights(0), strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(together, alone, strict=True))
    with tf.GradientTape() as tape:
        own = tf.reduce_sum(both(rows())[0])
    gradient = tape.gradient(own, both.hidden_layers[0].kernel)
    assert np.any(gradient[0])
    assert not np.any(gradient[1])


def test_every_layer_of_every_member_has_a_seed_of_its_own() -> None:
    drawn = layer_seeds([1, 2, 3], 4)
    assert len({seed for layer in drawn for seed in layer}) == 12
    assert layer_seeds([2], 4) == [[layer[1]] for layer in drawn]


def test_rows_for_all_members_or_for_each() -> None:
    network = StackedPerceptron(SMALL_DAN, 3, SEEDS)
    each = np.stack([rows(), rows()[::-1]])
    of_all, of_each = network(rows()).numpy(), network(each).numpy()
    assert of_all.shape == of_each.shape == (2, 20)
    np.testing.assert_allclose(of_each[1], of_all[1, ::-1], rtol=1e-5, atol=1e-6)


# --- layers by name ---


def test_activations_go_by_the_names_of_the_spec() -> None:
    network = StackedPerceptron(SMALL_DAN, 3, SEEDS)
    found = network.activations(rows())
    assert {name: tuple(one.shape) for name, one in found.items()} == {
        "hidden_1": (2, 20, 12), "hidden_2": (2, 20, 6), "logits": (2, 20, 1),
    }  # fmt: skip
    np.testing.assert_array_equal(found["logits"][..., 0], network(rows()))


# --- dropout ---


def noise(step: int = 0, seeds: tuple[int, ...] = (5, 6), widths: tuple[int, ...] = (20, 20)) -> Noise:
    return Noise(tf.constant(seeds, tf.int32), tf.constant(step), widths)


def test_dropout_keeps_the_mean_and_drops_its_share() -> None:
    dropped = noise().drop(tf.ones([2, 1000, 20]), 0.2, layer=1).numpy()
    assert (dropped == 0).mean() == pytest.approx(51 / 256, abs=0.01)  # 2 standard errors: .004
    assert dropped.mean() == pytest.approx(1.0, abs=0.02)
    assert set(np.unique(dropped)) == {0.0, np.float32(256 / 205)}


def test_units_that_share_a_random_number_are_dropped_independently() -> None:
    kept = noise(widths=(7, 20)).drop(tf.ones([1, 4000, 20]), 0.5, layer=1).numpy()[0] > 0
    correlation = np.corrcoef(kept.astype(float), rowvar=False)
    assert np.abs(correlation - np.eye(20)).max() < 5 / np.sqrt(4000)


def test_noise_is_a_function_of_seed_step_and_layer_and_of_nothing_else() -> None:
    ones = tf.ones([2, 50, 20])
    mask = noise(3).drop(ones, 0.5, layer=1).numpy()
    assert np.array_equal(noise(3).drop(ones, 0.5, layer=1), mask)
    both = noise(3)
    both.drop(ones, 0.5, layer=0)
    assert np.array_equal(both.drop(ones, 0.5, layer=1), mask)
    assert not np.array_equal(mask[0], mask[1])
    assert not np.array_equal(noise(4).drop(ones, 0.5, layer=1), mask)
    assert not np.array_equal(noise(3).drop(ones, 0.5, layer=0), mask)
    alone = noise(3, seeds=(6,)).drop(ones[1:], 0.5, layer=1)
    assert np.array_equal(alone[0], mask[1])


def test_what_is_aligned_is_measured_before_its_own_dropout() -> None:
    network = StackedPerceptron(replace(SMALL_DAN, dropout=0.5), 3, SEEDS)
    quiet, noisy = network.activations(rows()), network.activations(rows(), noise(widths=(12, 6)))
    assert np.array_equal(quiet["hidden_1"], noisy["hidden_1"])
    assert not np.array_equal(quiet["hidden_2"], noisy["hidden_2"])  # whose input was dropped


def test_inference_drops_nothing() -> None:
    network = StackedPerceptron(replace(SMALL_DAN, dropout=0.5), 3, SEEDS)
    assert np.array_equal(network(rows()), network(rows()))


# --- weights in and out ---


def test_kept_weights_do_not_move_with_the_network() -> None:
    network = StackedPerceptron(SMALL_DAN, 3, SEEDS)
    (kernel, *_), _ = network.layer_weights(0)
    before = kernel.copy()
    network.hidden_layers[0].kernel.assign_add(tf.ones_like(network.hidden_layers[0].kernel))
    assert np.array_equal(kernel, before)


def test_a_start_gives_its_hidden_layers_and_leaves_the_head_new() -> None:
    earlier, network = (StackedPerceptron(SMALL_DAN, 3, seeds) for seeds in (SEEDS, (11, 12)))
    fresh = network.head.kernel.numpy()
    network.start_from(ensemble(earlier, 2))
    for mine, other in zip(network.hidden_layers, earlier.hidden_layers, strict=True):
        assert np.array_equal(mine.kernel, other.kernel)
        assert np.array_equal(mine.bias, other.bias)
    assert np.array_equal(network.head.kernel, fresh)
    assert not np.array_equal(network.head.kernel, earlier.head.kernel)


@pytest.mark.parametrize(
    ("changes", "inputs", "seeds"),
    [
        ({}, 4, SEEDS),  # other features
        ({}, 3, (1, 2, 3)),  # other members
        ({"hidden": (12, 5)}, 3, SEEDS),
        ({"hidden": (12, 6, 4)}, 3, SEEDS),
        ({"hidden": (12,)}, 3, SEEDS),
    ],
)
def test_a_start_of_another_shape_is_refused(changes: dict[str, Any], inputs: int, seeds: tuple[int, ...]) -> None:
    earlier = StackedPerceptron(replace(SMALL_DAN, **changes), inputs, seeds)
    with pytest.raises(ValueError, match=r"expected an ensemble with kernels \[\(2, 3, 12\).*or start anew"):
        StackedPerceptron(SMALL_DAN, 3, SEEDS).start_from(ensemble(earlier, len(seeds)))


def test_a_start_of_another_activation_is_refused() -> None:
    earlier = StackedPerceptron(replace(SMALL_DAN, activation="sigmoid"), 3, SEEDS)
    with pytest.raises(ValueError, match="relu"):
        StackedPerceptron(SMALL_DAN, 3, SEEDS).start_from(ensemble(earlier, 2))


@pytest.mark.parametrize(("inputs", "seeds"), [(0, SEEDS), (3, ())])
def test_a_network_without_inputs_or_members_is_refused(inputs: int, seeds: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="inputs and at least one seed"):
        StackedPerceptron(SMALL_DAN, inputs, seeds)

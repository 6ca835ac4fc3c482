"""What one update of a training really follows: the gradient of the labels and that of the alignment, in every method.

Read off the public trainer: with Adam's epsilon far above any gradient its first update is minus the gradient, so the
kernels before and after one step give the gradient that reached them.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from models.deep.dann import Dann, domain_loss
from models.deep.fine_tuning import fine_tune
from models.deep.loop import METHODS, Draws, train_stack
from models.deep.method import Batch, LayerMethod
from models.deep.perceptron import StackedPerceptron
from models.deep.presets import PRESETS
from models.deep.spec import DeepSpec, FineTuning, TrainingSet
from models.deep.weights import source_weights
from models.fitted import Network

EPSILON = 1e6
RATE = EPSILON / math.sqrt(1 - 0.999)  # Keras scales by sqrt(1 - beta_2) outside of epsilon: the update is the gradient
SEEDS = (3, 8)
WEIGHT = 0.7
COLUMNS = 5
HIDDEN = (12, 8)


def training_set(n_s: int = 40, n_t: int = 30, seed: int = 0) -> TrainingSet:
    rng = np.random.default_rng(seed)
    y_t = (rng.uniform(size=n_t) < 0.4).astype(np.float32)
    y_t[n_t // 2 :] = np.nan
    return TrainingSet(
        x_s=rng.normal(size=(n_s, COLUMNS)).astype(np.float32),
        y_s=(np.arange(n_s) % 4 == 0).astype(np.float32),
        x_t=(0.5 + 1.5 * rng.normal(size=(n_t, COLUMNS))).astype(np.float32),
        y_t=y_t,
        x_stop=rng.normal(size=(6, COLUMNS)).astype(np.float32),
        y_stop=np.array([0, 1, 0, 1, 0, 1], np.float32),
        target_prior=0.4,
    )


def one_step(method: str, **changes: Any) -> DeepSpec:
    """The method's preset, with all rows of both populations in its one batch and its full weight at its one step."""
    of_run = {"epochs": None, "max_steps": 1, "evaluate_every": 1, "batch_size": 64, "logs_no_shift_band": False}
    of_step = {"optimizer": "adam", "learning_rate": RATE, "epsilon": EPSILON, "dropout": 0.0, "schedule": "constant"}
    preset = PRESETS["source_network" if method == "source_only" else method]
    spec = replace(preset, hidden=HIDDEN, mmd_weight=0.0 if method == "source_only" else WEIGHT, **of_run, **of_step)
    return replace(spec, **changes)


def untrained(spec: DeepSpec) -> StackedPerceptron:
    return StackedPerceptron(spec, COLUMNS, [Draws.spawn(seed).network for seed in SEEDS])


def followed_gradients(spec: DeepSpec, rows: TrainingSet) -> list[np.ndarray]:
    """(S, n_in, n_out) for each layer: how far one step moved its kernel, with the sign changed."""
    after = train_stack(spec, rows, SEEDS)
    return [
        layer.kernel.numpy() - np.stack([one.weights[place] for one in after])
        for place, layer in enumerate(untrained(spec).all_layers)
    ]


def whole_batch(network: StackedPerceptron, rows: TrainingSet, *, uses_target_labels: bool) -> Batch:
    def of_members(values: np.ndarray) -> tf.Tensor:
        return tf.constant(np.broadcast_to(values, (len(SEEDS), *values.shape)), tf.float32)

    known = np.isfinite(rows.y_t) & uses_target_labels
    return Batch(
        source=network.activations(of_members(rows.x_s)),
        target=network.activations(of_members(rows.x_t)),
        y_s=of_members(rows.y_s),
        y_t=of_members(np.where(known, rows.y_t, 0.0)),
        known_t=of_members(known),
    )


def mean_cross_entropy(logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """-log p of bads and -log (1 - p) of goods, p = 1 / (1 + e^-logit), their mean over the rows."""
    probability = tf.sigmoid(logits[..., 0])
    return -tf.reduce_mean(y * tf.math.log(probability) + (1.0 - y) * tf.math.log(1.0 - probability), axis=-1)


def task_gradients(spec: DeepSpec, rows: TrainingSet) -> list[np.ndarray]:
    """Of the labels alone, written down anew, with respect to each layer's kernel."""
    network = untrained(spec)
    known = np.isfinite(rows.y_t)
    with tf.GradientTape() as tape:
        loss = mean_cross_entropy(network.activations(rows.x_s)["logits"], tf.constant(rows.y_s))
        if spec.use_target_labels:
            of_target = mean_cross_entropy(network.activations(rows.x_t[known])["logits"], tf.constant(rows.y_t[known]))
            loss += spec.target_row_weight * known.sum() / len(rows.x_s) * of_target
    return [gradient.numpy() for gradient in tape.gradient(loss, [layer.kernel.value for layer in network.all_layers])]


def alignment_gradient(spec: DeepSpec, rows: TrainingSet) -> np.ndarray:
    """Of the distance between the populations alone; DANN's is the domain loss, nothing reversed yet."""
    network = untrained(spec)
    method = METHODS[spec.method](spec, [Draws.spawn(seed).network for seed in SEEDS], rows.target_prior)
    with tf.GradientTape() as tape:
        batch = whole_batch(network, rows, uses_target_labels=spec.use_target_labels)
        if isinstance(method, Dann):
            distance = tf.add_n([domain_loss_of(method, layer, batch) for layer in spec.aligned])
        else:
            assert isinstance(method, LayerMethod)
            distance = tf.add_n([method.distance(layer, batch) for layer in spec.aligned])
    return tape.gradient(distance, network.hidden_layers[0].kernel.value).numpy()


def domain_loss_of(method: Dann, layer: str, batch: Batch) -> tf.Tensor:
    logits = [batch.source[layer], batch.target[layer]]
    for dense in method.discriminators[layer]:
        logits = [dense(one) for one in logits]
    weights = source_weights(method.spec.row_weights, batch, method.prior_target)
    return domain_loss(logits[0][..., 0], logits[1][..., 0], weights)


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    """Member by member, against the largest entry: kernels of size 1 are float32, their differences good to 1e-7."""
    for member in range(len(SEEDS)):
        size = np.abs(expected[member]).max()
        np.testing.assert_allclose(found[member], expected[member], atol=max(1e-3 * size, 3e-7))


def norms(gradient: np.ndarray) -> np.ndarray:
    return np.sqrt(np.sum(gradient**2, axis=(1, 2)))


@pytest.mark.parametrize("uses_target_labels", [False, True])
def test_source_only_follows_the_labels_and_nothing_else(uses_target_labels: bool) -> None:
    spec, rows = one_step("source_only", use_target_labels=uses_target_labels), training_set()
    for followed, of_labels in zip(followed_gradients(spec, rows), task_gradients(spec, rows), strict=True):
        assert norms(followed).min() > 1e-3
        assert_close(followed, of_labels)


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        *((method, {}) for method in METHODS if method != "source_only"),
        ("dan", {"layers": ("hidden_1", "logits"), "use_target_labels": False}),
        ("dan", {"row_weights": "class_conditional", "estimator": "unbiased"}),
        ("dann", {"layers": ("hidden_1", "last_hidden"), "row_weights": "equal"}),
    ],
)
def test_the_first_kernel_follows_the_labels_and_the_alignment_times_its_weight(
    method: str, changes: dict[str, Any]
) -> None:
    spec, rows = one_step(method, **changes), training_set()
    task, alignment = task_gradients(spec, rows)[0], alignment_gradient(spec, rows)
    assert norms(task).min() > 1e-3
    assert norms(alignment).min() > 1e-4
    followed = followed_gradients(spec, rows)[0]
    direction = -1.0 if method == "dann" else 1.0  # the network undoes what its domain classifier learns
    assert norms(followed - task).min() > 0.9 * WEIGHT * norms(alignment).min()
    assert_close(followed - task, direction * WEIGHT * alignment)


@pytest.mark.parametrize("method", [name for name in METHODS if name != "source_only"])
def test_the_alignment_reaches_the_features_of_both_populations(method: str) -> None:
    spec, rows = one_step(method, layers=("last_hidden",)), training_set()
    batch = whole_batch(untrained(spec), rows, uses_target_labels=True)
    features = [batch.source["hidden_2"], batch.target["hidden_2"]]
    with tf.GradientTape() as tape:
        tape.watch(features)
        added, _ = METHODS[method](spec, SEEDS, rows.target_prior).align(batch, tf.constant(WEIGHT))
    for gradient in tape.gradient(added, features):
        assert norms(gradient.numpy()).min() > 1e-4


def test_every_method_that_a_preset_names_is_asked_for_its_gradient_here() -> None:
    assert set(METHODS) | {"fine_tuned"} == {spec.method for spec in PRESETS.values()}


def test_fine_tuning_s_second_stage_follows_the_target_s_labels_each_layer_below_the_head_slower() -> None:
    rng = np.random.default_rng(1)
    shapes = [(COLUMNS, HIDDEN[0]), HIDDEN, (HIDDEN[1], 1)]
    start = Network(
        weights=tuple(rng.normal(size=(2, *shape)).astype(np.float32) * 0.5 for shape in shapes),
        biases=tuple(rng.normal(size=(2, shape[1])).astype(np.float32) * 0.1 for shape in shapes),
        activation="relu",
    )
    tuning = FineTuning(learning_rate=RATE, layer_decay=2.0, head_steps=0, thaw_every=0, max_steps=1)
    spec, rows = one_step("fine_tuned", fine_tuning=tuning), training_set()
    after = fine_tune(spec, rows, SEEDS, start=start)
    network = untrained(spec)
    network.start_from(start)
    known = np.isfinite(rows.y_t)
    with tf.GradientTape() as tape:
        loss = mean_cross_entropy(network.activations(rows.x_t[known])["logits"], tf.constant(rows.y_t[known]))
    kernels = [layer.kernel.value for layer in network.all_layers]
    for layer, gradient in enumerate(tape.gradient(loss, kernels)):
        moved = kernels[layer].numpy() - np.stack([one.weights[layer] for one in after])
        assert norms(moved).min() > 1e-3
        assert_close(moved, gradient.numpy() / 2.0 ** (2 - layer))


# --- pitfall 9: dropout ---


def test_pitfall_9_what_the_target_does_never_moves_the_source_s_dropout() -> None:
    # two passes with a noise each: a joint pass would draw other units for the source when the target has other rows
    spec = one_step("dan", dropout=0.5, use_target_labels=False)
    one, other = training_set(n_t=30), replace(training_set(n_t=17, seed=5), y_s=training_set().y_s)
    other = replace(other, x_s=one.x_s)
    losses = [
        [trained.history["classification_loss"][0] for trained in train_stack(spec, rows, SEEDS)]
        for rows in (one, other)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    without = [trained.history["classification_loss"][0] for trained in train_stack(one_step("dan"), one, SEEDS)]
    assert abs(losses[0][0] - without[0]) > 1e-3  # so dropout was on


def test_pitfall_9_populations_drop_their_own_units_and_a_layer_is_aligned_before_its_own_dropout() -> None:
    # both populations are one and the same row, many times: only dropout can tell them apart
    row = np.tile(training_set().x_s[:1], (40, 1))
    rows = replace(training_set(n_t=40), x_s=row, x_t=row)
    spec = one_step("dan", dropout=0.5, layers=("hidden_1", "last_hidden"), row_weights="equal")
    for trained in train_stack(spec, rows, SEEDS):
        assert trained.history["mmd_hidden_1"][0] == pytest.approx(0.0, abs=1e-6)
        assert trained.history["mmd_hidden_2"][0] > 1e-3

"""The Deep Adaptation Network in Keras: its training, and the ensemble of seeds that a contender is.

A network shared by both populations learns from source labels while the MK-MMD between the last hidden activations of
the two is held down (Long et al., ICML 2015; docs/method.md). Arrays in, arrays out: presets and rules live in
`models.dan_spec`; reading files, choosing among mmd_weights and saving in `models.dan_worker`; the discrepancy in
`models.mmd`; the layers in `models.networks`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from crossrisk.errors import TrainingError
from crossrisk.metrics import auc_value, ks_value
from models.dan_spec import (
    DanSpec,
    Rows,
    TrainingSet,
    check_rows,
    diagnosis_rows,
    is_new_best,
    is_window_without_gain,
    planned_steps,
    ramp,
    row_stream,
)
from models.fitted import Activation, Network
from models.mmd import Estimator, label_shift_weights, mk_mmd2, no_shift_band
from models.networks import Perceptron, build_network

OnProgress = Callable[[int, int], None]
"""called with (steps done, steps planned); an early stop jumps to the end"""

_LOSSES = ("total_loss", "classification_loss", "mmd", "mmd_weight")  # of every step, as the history names them

HALVES = 16
"""Random halvings behind the no-shift band: its own relative error is then about 1 / sqrt(2 * 16) = 18%, enough to
tell noise from shift, at the price of one kernel matrix."""


@dataclass(frozen=True)
class TrainedNetwork:
    """One training: the weights of its best evaluation, and how it went."""

    seed: int
    weights: tuple[NDArray[np.float32], ...]
    """one (n_in, n_out) kernel a layer"""
    biases: tuple[NDArray[np.float32], ...]
    """one (n_out,) array a layer"""
    activation: Activation
    history: dict[str, list[float]]
    """by step: step (updates made before it), total_loss, classification_loss, mmd, mmd_weight (with its ramp);
    by evaluation: evaluation_step (updates made), stop_auc, stop_ks and, where asked for, mmd_unbiased and
    mmd_no_shift_band"""
    best_step: int
    """updates behind the weights"""
    stopped_step: int
    """updates made in all"""
    stop_reason: Literal["patience", "streams_ended", "max_steps"]


def train(spec: DanSpec, training_set: TrainingSet, seed: int, on_progress: OnProgress | None = None) -> TrainedNetwork:
    """Train one network. On one machine, the same arguments give the same weights to the last bit.

    Args:
        spec: a preset, or `dataclasses.replace` of one.
        training_set: its rows.
        seed: of the initial weights, the order of both streams and the dropout.
        on_progress: told after every `evaluate_every` steps.

    Raises:
        ValueError: where the rows are too few for a single evaluation or for the estimator.
        TrainingError: where the loss, or the score of a stop row, is no longer a finite number.
    """
    _, (trained,) = train_ensemble(spec, training_set, [seed], on_progress)
    return trained


def train_ensemble(
    spec: DanSpec, training_set: TrainingSet, seeds: Sequence[int], on_progress: OnProgress | None = None
) -> tuple[Network, list[TrainedNetwork]]:
    """Train one network a seed and stack them: the contender's form, and the trainings behind it.

    Each network is to the last bit the one that `train` gives for its seed.

    Raises:
        ValueError: without seeds, or as `train` does.
        TrainingError: as `train` does.
    """
    if not seeds:
        raise ValueError("an ensemble needs at least one seed, got none")
    check_rows(spec, training_set)
    model = _Dan(spec, training_set)
    trained = []
    for position, seed in enumerate(seeds):
        report = _offset(on_progress, position * model.planned, len(seeds) * model.planned)
        trained.append(_train(model, training_set, seed, report))
    return stack(trained), trained


def stack(trained: Sequence[TrainedNetwork]) -> Network:
    """The ensemble of trainings of one shape, as the form that is scored and published."""
    return Network(
        weights=tuple(np.stack(layer) for layer in zip(*(one.weights for one in trained), strict=True)),
        biases=tuple(np.stack(layer) for layer in zip(*(one.biases for one in trained), strict=True)),
        activation=trained[0].activation,
    )


def _train(model: _Dan, training_set: TrainingSet, seed: int, on_progress: OnProgress | None) -> TrainedNetwork:
    """Train the model from the start, whatever was trained with it before."""
    spec, planned, seeds = model.spec, model.planned, _Seeds.spawn(seed)
    model.restart(seeds)
    history = _History(seed)
    evaluation = _Evaluation(spec, training_set, history.values, seeds.diagnosis)
    callbacks = [history, evaluation, *([] if on_progress is None else [_Progress(on_progress, planned)])]
    model.fit(_batches(spec, training_set, seeds, planned), epochs=1, shuffle=False, verbose=0, callbacks=callbacks)
    stopped_step = len(history.values["step"])
    return TrainedNetwork(
        seed=seed,
        weights=evaluation.best_weights,
        biases=evaluation.best_biases,
        activation=spec.activation,
        history=history.values,
        best_step=evaluation.best_step,
        stopped_step=stopped_step,
        stop_reason=_stop_reason(spec, stopped_step, evaluation.has_stopped),
    )


@dataclass(frozen=True)
class _Seeds:
    """One independent seed for everything that draws, so that no draw of one moves another."""

    network: int
    source_noise: int
    target_noise: int
    source_stream: int
    target_stream: int
    diagnosis: int

    @staticmethod
    def spawn(seed: int) -> _Seeds:
        return _Seeds(*np.random.SeedSequence(seed).generate_state(6).tolist())


class _Dan(keras.Model):
    """The shared network with its rows on the device; a batch is row numbers and this step's mmd_weight.

    It trains one seed after another, each from `restart`, and Keras is given a block of steps at a time, from one
    evaluation to the next: tracing the step for each seed and returning to Python after each step took a fifth of the
    processor time (measured at 600 steps of 256 + 256 rows). So every step writes down its own losses.
    """

    def __init__(self, spec: DanSpec, training_set: TrainingSet) -> None:
        super().__init__(name="dan")
        self.spec = spec
        self.network: Perceptron = build_network(spec, training_set.x_s.shape[1], seed=0)
        # populations go through in two passes with a noise each: what the target does never moves the source's draws
        self.source_noise = keras.random.SeedGenerator(0)
        self.target_noise = keras.random.SeedGenerator(0)
        self.x_s, self.y_s = _tensor(training_set.x_s), _tensor(training_set.y_s)
        self.x_t, self.x_stop = _tensor(training_set.x_t), _tensor(training_set.x_stop)
        self.target_prior = training_set.target_prior if spec.label_shift_weights else None
        if spec.use_target_labels:
            known = np.isfinite(training_set.y_t)
            self.known_t, self.y_t = _tensor(known), _tensor(np.where(known, training_set.y_t, 0.0))
        self.built = True
        self.planned = planned_steps(spec, len(training_set.x_s), len(training_set.x_t))
        self.losses_by_step = tf.Variable(tf.zeros((self.planned, len(_LOSSES))), trainable=False)
        self.compile(optimizer=_optimizer(spec), jit_compile=False, steps_per_execution=spec.evaluate_every)
        # variables made while tracing would trace the step twice
        self.optimizer.build(self.network.trainable_variables)

    def restart(self, seeds: _Seeds) -> None:
        """Go back to before the first step, with these seeds' draws: weights, noises and the optimizer's state."""
        fresh_network = build_network(self.spec, self.x_s.shape[1], seeds.network)
        fresh_optimizer = _optimizer(self.spec)
        fresh_optimizer.build(fresh_network.trainable_variables)
        _copy_values(fresh_network.variables, self.network.variables)
        _copy_values(fresh_optimizer.variables, self.optimizer.variables)
        self.source_noise.state.assign(keras.random.SeedGenerator(seeds.source_noise).state)
        self.target_noise.state.assign(keras.random.SeedGenerator(seeds.target_noise).state)

    def train_step(self, batch: tuple[tf.Tensor, tf.Tensor, tf.Tensor]) -> dict[str, tf.Tensor]:
        """One update; the losses before it go to `losses_by_step`."""
        source_rows, target_rows, mmd_weight = batch
        step = tf.convert_to_tensor(self.optimizer.iterations)  # read before the update adds one
        y_s = tf.gather(self.y_s, source_rows)
        with tf.GradientTape() as tape:
            active_s = self.network.activations(tf.gather(self.x_s, source_rows), self.source_noise)
            active_t = self.network.activations(tf.gather(self.x_t, target_rows), self.target_noise)
            classification_loss = self._cross_entropy(y_s, active_s) + self._penalty()
            if self.spec.use_target_labels:
                classification_loss += self._target_cross_entropy(target_rows, active_t)
            mmd = self._mmd(active_s, active_t, y_s, self.spec.estimator)
            # left out and not multiplied by 0, so that weight 0 is source-only training even where the MMD overflows
            total_loss = classification_loss + mmd_weight * mmd if self.spec.mmd_weight > 0.0 else classification_loss
        variables = self.network.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(total_loss, variables), variables, strict=True))
        self.losses_by_step.scatter_nd_update([[step]], [[total_loss, classification_loss, mmd, mmd_weight]])
        return {"total_loss": total_loss}

    @tf.function
    def stop_logits(self) -> tf.Tensor:
        """Logits (n_stop,) of the stop rows."""
        return self.network(self.x_stop)

    @tf.function
    def diagnose(
        self, source_rows: tf.Tensor, target_rows: tf.Tensor, halves: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Unbiased MMD of m source and m target rows, and its no-shift band from all 2 m source rows.

        The band takes the rows unweighted: label-shift weights leave fewer effective rows, so it is then on the low
        side.
        """
        m = target_rows.shape[0]
        active_s = self.network.activations(tf.gather(self.x_s, source_rows))
        active_t = self.network.activations(tf.gather(self.x_t, target_rows))
        mmd = self._mmd(active_s[:m], active_t, tf.gather(self.y_s, source_rows[:m]), "unbiased")
        spec = self.spec
        return mmd, no_shift_band(
            active_s,
            halves,
            kernel_num=spec.kernel_num,
            kernel_mul=spec.kernel_mul,
            fix_sigma=spec.fix_sigma,
            reduce=spec.reduce,
        )

    def _cross_entropy(self, y: tf.Tensor, active: tf.Tensor) -> tf.Tensor:
        logits = self.network.logits(active, self.source_noise)
        return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=y, logits=logits))

    def _target_cross_entropy(self, rows: tf.Tensor, active: tf.Tensor) -> tf.Tensor:
        """Mean over the rows with a known label; 0 where the batch has none."""
        logits = self.network.logits(active, self.target_noise)
        known = tf.gather(self.known_t, rows)
        losses = tf.nn.sigmoid_cross_entropy_with_logits(labels=tf.gather(self.y_t, rows), logits=logits)
        return tf.reduce_sum(known * losses) / tf.maximum(tf.reduce_sum(known), 1.0)

    def _penalty(self) -> tf.Tensor:
        if self.spec.l2_scale == 0.0:
            return 0.0
        kernels = [layer.kernel for layer in self.network.hidden_layers]
        return self.spec.l2_scale * tf.add_n([tf.nn.l2_loss(kernel) for kernel in kernels])

    def _mmd(self, active_s: tf.Tensor, active_t: tf.Tensor, y_s: tf.Tensor, estimator: Estimator) -> tf.Tensor:
        spec = self.spec
        return mk_mmd2(
            active_s,
            active_t,
            kernel_num=spec.kernel_num,
            kernel_mul=spec.kernel_mul,
            fix_sigma=spec.fix_sigma,
            estimator=estimator,
            reduce=spec.reduce,
            bandwidth_gradient=spec.bandwidth_gradient,
            source_weights=None if self.target_prior is None else label_shift_weights(y_s, self.target_prior),
        )


class _History(keras.callbacks.Callback):
    """Keeps every step's losses and ends a training whose loss is no longer a number.

    Like the callbacks below it is called after each block of steps, with the number of its last step.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed
        self.values: dict[str, list[float]] = {
            "step": [],
            "total_loss": [],
            "classification_loss": [],
            "mmd": [],
            "mmd_weight": [],
            "evaluation_step": [],
            "stop_auc": [],
            "stop_ks": [],
            "mmd_unbiased": [],
            "mmd_no_shift_band": [],
        }

    def on_train_batch_end(self, batch: int, logs: dict[str, float]) -> None:
        first = len(self.values["step"])
        for step, row in enumerate(self.model.losses_by_step[first : batch + 1].numpy().tolist(), start=first):
            losses = dict(zip(_LOSSES, row, strict=True))
            self._refuse_non_finite(step, losses)
            self.values["step"].append(step)
            for name, value in losses.items():
                self.values[name].append(value)

    def _refuse_non_finite(self, step: int, losses: dict[str, float]) -> None:
        if not all(math.isfinite(value) for value in losses.values()):
            came = ", ".join(f"{name} {value:g}" for name, value in losses.items())
            raise TrainingError(
                f"network of seed {self.seed}: expected finite losses, got {came} at step {step}; "
                "look for unscaled or missing features, then lower learning_rate"
            )


class _Progress(keras.callbacks.Callback):
    """Tells the caller how far it is, and that the end is reached."""

    def __init__(self, on_progress: OnProgress, planned: int) -> None:
        super().__init__()
        self.on_progress, self.planned = on_progress, planned

    def on_train_batch_end(self, batch: int, logs: dict[str, float]) -> None:
        self.on_progress(batch + 1, self.planned)

    def on_train_end(self, logs: dict[str, float]) -> None:
        self.on_progress(self.planned, self.planned)


class _Evaluation(keras.callbacks.Callback):
    """Every few steps: AUC and KS on the stop rows, the checkpoint, the early stop."""

    def __init__(
        self, spec: DanSpec, training_set: TrainingSet, values: dict[str, list[float]], seed_of_diagnosis: int
    ) -> None:
        super().__init__()
        self.spec, self.training_set, self.values = spec, training_set, values
        self.rng = np.random.default_rng(seed_of_diagnosis)
        self.best_step = 0
        self.best_weights: tuple[NDArray[np.float32], ...] = ()
        self.best_biases: tuple[NDArray[np.float32], ...] = ()
        self.has_stopped = False

    def on_train_batch_end(self, batch: int, logs: dict[str, float]) -> None:
        step = batch + 1
        if step % self.spec.evaluate_every:  # a last block that is not whole
            return
        logits = self.model.stop_logits().numpy()
        if not np.isfinite(logits).all():
            raise TrainingError(f"expected finite scores of the stop rows, got NaN or infinity after step {step}")
        self.values["evaluation_step"].append(step)
        self.values["stop_auc"].append(auc_value(self.training_set.y_stop, logits))
        self.values["stop_ks"].append(ks_value(self.training_set.y_stop, logits))
        if self.spec.logs_no_shift_band:
            self._diagnose()
        if is_new_best(self.values["stop_auc"]):
            self.best_step = step
            self.best_weights, self.best_biases = self.model.network.layer_weights()
        if is_window_without_gain(self.values["stop_auc"], self.spec.patience):
            self.has_stopped = self.model.stop_training = True

    def _diagnose(self) -> None:
        n_s, n_t = len(self.training_set.x_s), len(self.training_set.x_t)
        m = diagnosis_rows(self.spec, n_s, n_t)
        source_rows = self.rng.choice(n_s, 2 * m, replace=False)
        target_rows = self.rng.choice(n_t, m, replace=False)
        halves = np.repeat(np.array([[1.0, -1.0]], np.float32), m, axis=1).repeat(HALVES, axis=0)
        mmd, band = self.model.diagnose(source_rows, target_rows, self.rng.permuted(halves, axis=1))
        self.values["mmd_unbiased"].append(float(mmd))
        self.values["mmd_no_shift_band"].append(float(band))


def _batches(spec: DanSpec, training_set: TrainingSet, seeds: _Seeds, steps: int) -> tf.data.Dataset:
    """(source rows, target rows, mmd_weight) of each step: two independent streams, zipped."""
    n_s, n_t = len(training_set.x_s), len(training_set.x_t)

    def zipped() -> Iterator[tuple[Rows, Rows, float]]:
        source = row_stream(n_s, spec, np.random.default_rng(seeds.source_stream))
        target = row_stream(n_t, spec, np.random.default_rng(seeds.target_stream))
        for step, source_rows, target_rows in zip(range(steps), source, target, strict=False):
            yield source_rows, target_rows, spec.mmd_weight * ramp(step)

    def row_numbers(rows: int) -> tf.TensorSpec:
        return tf.TensorSpec((None if spec.keep_tails else min(spec.batch_size, rows),), tf.int32)

    signature = (row_numbers(n_s), row_numbers(n_t), tf.TensorSpec((), tf.float32))
    return (
        tf.data.Dataset.from_generator(zipped, output_signature=signature)
        .apply(tf.data.experimental.assert_cardinality(steps))
        .prefetch(8)
    )


def _optimizer(spec: DanSpec) -> keras.optimizers.Optimizer:
    if spec.optimizer == "adam":
        return keras.optimizers.Adam(spec.learning_rate, epsilon=spec.epsilon)
    optimizer = keras.optimizers.AdamW(spec.learning_rate, epsilon=spec.epsilon, weight_decay=spec.weight_decay)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    return optimizer


def _copy_values(source: Sequence[keras.Variable], destination: Sequence[keras.Variable]) -> None:
    for fresh, used in zip(source, destination, strict=True):
        used.assign(fresh)


def _stop_reason(
    spec: DanSpec, stopped_step: int, has_stopped: bool
) -> Literal["patience", "streams_ended", "max_steps"]:
    if has_stopped:
        return "patience"
    return "max_steps" if stopped_step == spec.max_steps else "streams_ended"


def _offset(on_progress: OnProgress | None, before: int, total: int) -> OnProgress | None:
    if on_progress is None:
        return None
    return lambda done, _: on_progress(before + done, total)


def _tensor(values: NDArray[Any]) -> tf.Tensor:
    return tf.constant(values, tf.float32)

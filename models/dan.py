"""The Deep Adaptation Network: its two presets, its training, and the ensemble of seeds that a contender is.

A network shared by both populations learns from source labels while the MK-MMD between the last hidden activations of
the two is held down (Long et al., ICML 2015; docs/method.md). Arrays in, arrays out: reading files, choosing among
mmd_weights and saving live in `models.dan_worker`; the discrepancy in `models.mmd`; the layers in `models.networks`.
"""

from __future__ import annotations

import itertools
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
from models.fitted import Activation, Matrix, Network
from models.mmd import Estimator, Reduce, label_shift_weights, mk_mmd2, no_shift_band
from models.networks import NetworkSpec, Perceptron, build_network

Labels = NDArray[np.floating[Any]]
Rows = NDArray[np.int32]
OnProgress = Callable[[int, int], None]
"""called with (steps done, steps planned); an early stop jumps to the end"""

HALVES = 16
"""Random halvings behind the no-shift band: its own relative error is then about 1 / sqrt(2 * 16) = 18%, enough to
tell noise from shift, at the price of one kernel matrix."""


# --- what is trained ---


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


# --- the rules, as pure functions ---


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


# --- the training ---


def train(spec: DanSpec, training_set: TrainingSet, seed: int, on_progress: OnProgress | None = None) -> TrainedNetwork:
    """Train one network. On one machine, the same arguments give the same weights to the last bit.

    Args:
        spec: a preset, or `dataclasses.replace` of one.
        training_set: its rows.
        seed: of the initial weights, the order of both streams and the dropout.
        on_progress: told after every step.

    Raises:
        ValueError: where the rows are too few for a single evaluation or for the estimator.
        TrainingError: where the loss, or the score of a stop row, is no longer a finite number.
    """
    planned = planned_steps(spec, len(training_set.x_s), len(training_set.x_t))
    _check_rows(spec, training_set, planned)
    seeds = _Seeds.spawn(seed)
    model = _Dan(spec, training_set, seeds)
    model.compile(optimizer=_optimizer(spec), jit_compile=False)
    model.optimizer.build(model.network.trainable_variables)  # variables made while tracing would trace the step twice
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


def train_ensemble(
    spec: DanSpec, training_set: TrainingSet, seeds: Sequence[int], on_progress: OnProgress | None = None
) -> tuple[Network, list[TrainedNetwork]]:
    """Train one network a seed and stack them: the contender's form, and the trainings behind it.

    Raises:
        ValueError: without seeds, or as `train` does.
        TrainingError: as `train` does.
    """
    if not seeds:
        raise ValueError("an ensemble needs at least one seed, got none")
    planned = planned_steps(spec, len(training_set.x_s), len(training_set.x_t))
    trained = []
    for position, seed in enumerate(seeds):
        trained.append(train(spec, training_set, seed, _offset(on_progress, position * planned, len(seeds) * planned)))
    return stack(trained), trained


def stack(trained: Sequence[TrainedNetwork]) -> Network:
    """The ensemble of trainings of one shape, as the form that is scored and published."""
    return Network(
        weights=tuple(np.stack(layer) for layer in zip(*(one.weights for one in trained), strict=True)),
        biases=tuple(np.stack(layer) for layer in zip(*(one.biases for one in trained), strict=True)),
        activation=trained[0].activation,
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
    """The shared network with its rows on the device; a batch is row numbers and this step's mmd_weight."""

    def __init__(self, spec: DanSpec, training_set: TrainingSet, seeds: _Seeds) -> None:
        super().__init__(name="dan")
        self.spec = spec
        self.network: Perceptron = build_network(spec, training_set.x_s.shape[1], seeds.network)
        # populations go through in two passes with a noise each: what the target does never moves the source's draws
        self.source_noise = keras.random.SeedGenerator(seeds.source_noise)
        self.target_noise = keras.random.SeedGenerator(seeds.target_noise)
        self.x_s, self.y_s = _tensor(training_set.x_s), _tensor(training_set.y_s)
        self.x_t, self.x_stop = _tensor(training_set.x_t), _tensor(training_set.x_stop)
        self.target_prior = training_set.target_prior if spec.label_shift_weights else None
        if spec.use_target_labels:
            known = np.isfinite(training_set.y_t)
            self.known_t, self.y_t = _tensor(known), _tensor(np.where(known, training_set.y_t, 0.0))
        self.built = True

    def train_step(self, batch: tuple[tf.Tensor, tf.Tensor, tf.Tensor]) -> dict[str, tf.Tensor]:
        """One update; the losses before it."""
        source_rows, target_rows, mmd_weight = batch
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
        return {
            "total_loss": total_loss,
            "classification_loss": classification_loss,
            "mmd": mmd,
            "mmd_weight": mmd_weight,
        }

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
    """Keeps every step's losses and ends a training whose loss is no longer a number."""

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
        if not all(math.isfinite(value) for value in logs.values()):
            losses = ", ".join(f"{name} {value:g}" for name, value in logs.items())
            raise TrainingError(
                f"network of seed {self.seed}: expected finite losses, got {losses} at step {batch}; "
                "look for unscaled or missing features, then lower learning_rate"
            )
        self.values["step"].append(batch)
        for name, value in logs.items():
            self.values[name].append(value)


class _Progress(keras.callbacks.Callback):
    """Tells the caller after every step, and that the end is reached."""

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
        if step % self.spec.evaluate_every:
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
        m = _diagnosis_rows(self.spec, n_s, n_t)
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


def _check_rows(spec: DanSpec, training_set: TrainingSet, planned: int) -> None:
    n_s, n_t = len(training_set.x_s), len(training_set.x_t)
    if planned < spec.evaluate_every:
        raise ValueError(
            f"{n_s} source and {n_t} target rows give {planned} steps, at least evaluate_every = {spec.evaluate_every} "
            "needed to keep any weights; give more epochs or evaluate more often"
        )
    if spec.logs_no_shift_band and _diagnosis_rows(spec, n_s, n_t) < 2:
        raise ValueError(f"the no-shift band needs 4 source and 2 target rows, got {n_s} and {n_t}")
    if spec.estimator == "unbiased" and spec.keep_tails and 1 in (n_s % spec.batch_size, n_t % spec.batch_size):
        raise ValueError(
            f"{n_s} source and {n_t} target rows in batches of {spec.batch_size} leave a tail of 1 row, at least 2 "
            'needed for the unbiased estimate; drop tails or use estimator "biased"'
        )
    if spec.use_target_labels and not (np.isin(training_set.y_t, (0, 1)) | np.isnan(training_set.y_t)).all():
        raise ValueError("target labels must be 0, 1 or NaN where unknown")


def _diagnosis_rows(spec: DanSpec, n_s: int, n_t: int) -> int:
    return min(spec.batch_size, n_s // 2, n_t)


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

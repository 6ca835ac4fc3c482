"""The one training loop of all deep adapters: an ensemble of seeds as one program. Arrays in, `TrainedNetwork`s out.

A step is one call on (S, n, d): rows are gathered, both populations pass in turn, losses are summed over the members
(whose gradients never mix) and one optimizer updates the stack. Steps run in blocks, from one evaluation to the next,
without coming back to Python; what is judged between blocks is `models.deep.evaluation`'s.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from crossrisk.errors import TrainingError
from models.deep.coral import DeepCoral
from models.deep.dan import Dan
from models.deep.dann import Dann
from models.deep.ddc import Ddc
from models.deep.dsan import Dsan
from models.deep.evaluation import Evaluation, TrainedNetwork
from models.deep.method import Batch, Method
from models.deep.perceptron import Noise, StackedDense, StackedPerceptron
from models.deep.schedules import scheduled
from models.deep.source_only import SourceOnly
from models.deep.spec import LOGITS, DeepSpec, TrainingSet
from models.deep.steps import Rows, check_rows, planned_steps, row_stream, target_loss_weight
from models.fitted import Network

OnProgress = Callable[[int, int], None]
"""called with (steps done, steps planned); an early stop jumps to the end"""

METHODS: dict[str, type[Method]] = {
    "source_only": SourceOnly,
    "dan": Dan,
    "ddc": Ddc,
    "deep_coral": DeepCoral,
    "dann": Dann,
    "dsan": Dsan,
}


@dataclass(frozen=True)
class LayerRates:
    """Learning rate of each layer (head last), and the update from which it learns: discriminative rates, thawing."""

    rates: tuple[float, ...]
    thaw_steps: tuple[int | None, ...]
    """None: frozen throughout"""


def train_stack(
    spec: DeepSpec,
    training_set: TrainingSet,
    seeds: Sequence[int],
    on_progress: OnProgress | None = None,
    *,
    start: Network | None = None,
    layer_rates: LayerRates | None = None,
) -> list[TrainedNetwork]:
    """Train one network a seed, together. On one machine, the same arguments give the same weights to the last bit.

    Args:
        spec: any but of method "fine_tuned".
        training_set: its rows.
        seeds: each of a member's initial weights, the order of its streams and its dropout.
        on_progress: told after every `evaluate_every` steps.
        start: an ensemble of as many members whose hidden layers are taken over; None: all weights are fresh.
        layer_rates: in the place of the spec's one learning rate.

    Raises:
        ValueError: without seeds, or where the rows are too few for one evaluation or for the estimator.
        TrainingError: where the loss, or the score of a stop row, is no longer a finite number.
    """
    if not seeds:
        raise ValueError("an ensemble needs at least one seed, got none")
    check_rows(spec, training_set)
    draws = [Draws.spawn(seed) for seed in seeds]
    program = Program(spec, training_set, draws, start, layer_rates)
    evaluation = Evaluation(spec, training_set, program.network, seeds, [one.diagnosis for one in draws])
    planned = planned_steps(spec, len(training_set.x_s), len(training_set.x_t))
    batches = itertools.islice(_batches(spec, training_set, draws), planned)
    done = 0
    while block := list(itertools.islice(batches, spec.evaluate_every)):
        weights = [spec.mmd_weight * _scheduled(spec, done + place, planned) for place in range(len(block))]
        logged = program.run(block, weights, done)
        _check_finite(logged, done, seeds, evaluation.training)
        evaluation.add_steps(done, logged, weights)
        done += len(block)
        if len(block) == spec.evaluate_every:  # a last block that is not whole is not judged
            evaluation.judge(done)
        if on_progress is not None:
            on_progress(planned if evaluation.has_stopped else done, planned)
        if evaluation.has_stopped:
            break
    return evaluation.results()


@dataclass(frozen=True)
class Draws:
    """One independent seed for everything that draws, so that no draw of one moves another."""

    network: int
    source_noise: int
    target_noise: int
    source_stream: int
    target_stream: int
    diagnosis: int

    @staticmethod
    def spawn(seed: int) -> Draws:
        """Those of one member."""
        return Draws(*np.random.SeedSequence(seed).generate_state(6).tolist())


class Program:
    """The stack with its rows on the device, and the step as a graph."""

    def __init__(
        self,
        spec: DeepSpec,
        training_set: TrainingSet,
        draws: Sequence[Draws],
        start: Network | None,
        layer_rates: LayerRates | None,
    ) -> None:
        self.spec = spec
        seeds = [one.network for one in draws]
        self.network = StackedPerceptron(spec, training_set.x_s.shape[1], seeds)
        if start is not None:
            self.network.start_from(start)
        self.method = METHODS[spec.method](spec, seeds, training_set.target_prior)
        self.is_aligned = spec.mmd_weight > 0.0
        self.groups = _optimizers(spec, self.network, self.method if self.is_aligned else None, layer_rates)
        # populations go through in two passes with a noise each: what the target does never moves the source's draws
        self.source_noise, self.target_noise = (
            tf.bitcast(tf.constant(seeds, tf.uint32), tf.int32)
            for seeds in ([one.source_noise for one in draws], [one.target_noise for one in draws])
        )
        self.x_s, self.y_s, self.x_t = (_tensor(getattr(training_set, name)) for name in ("x_s", "y_s", "x_t"))
        known = np.isfinite(training_set.y_t) & spec.use_target_labels
        self.known_t, self.y_t = _tensor(known), _tensor(np.where(known, training_set.y_t, 0.0))
        self.target_weight = target_loss_weight(spec, training_set)
        self.columns: tuple[str, ...] = ()
        self._blocks: dict[tuple[int, int], Any] = {}

    def run(
        self, block: Sequence[tuple[Rows, Rows]], weights: Sequence[float], done: int
    ) -> dict[str, NDArray[np.float32]]:
        """Make the block's updates: name -> (steps, S), each taken before its update."""
        parts = []
        numbered = list(zip(block, weights, range(done, done + len(block)), strict=True))
        for shape, steps in itertools.groupby(numbered, key=lambda one: (one[0][0].shape[1], one[0][1].shape[1])):
            batches, of_steps, places = zip(*steps, strict=True)
            rows_s, rows_t = (np.stack(rows) for rows in zip(*batches, strict=True))
            graph = self._graph(*shape)
            parts.append(graph(rows_s, rows_t, np.array(of_steps, np.float32), np.array(places, np.int32)).numpy())
        logged = np.concatenate(parts)
        return {name: logged[:, place] for place, name in enumerate(self.columns)}

    def _graph(self, n_s: int, n_t: int) -> Any:
        """The block as a graph for batches of these sizes: known sizes let it compile the kernels."""
        if (n_s, n_t) not in self._blocks:
            members = len(self.network.head.seeds)
            self._blocks[n_s, n_t] = tf.function(
                self._run,
                input_signature=[
                    tf.TensorSpec((None, members, n_s), tf.int32),
                    tf.TensorSpec((None, members, n_t), tf.int32),
                    tf.TensorSpec((None,), tf.float32),
                    tf.TensorSpec((None,), tf.int32),
                ],
            )
        return self._blocks[n_s, n_t]

    def _run(self, rows_s: tf.Tensor, rows_t: tf.Tensor, weights: tf.Tensor, steps: tf.Tensor) -> tf.Tensor:
        logged = tf.TensorArray(tf.float32, size=tf.shape(weights)[0])
        for place in tf.range(tf.shape(weights)[0]):
            logged = logged.write(place, self._step(rows_s[place], rows_t[place], weights[place], steps[place]))
        return logged.stack()

    def _step(self, rows_s: tf.Tensor, rows_t: tf.Tensor, weight: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        """One update; the losses (columns, S) before it."""
        with tf.GradientTape() as tape:
            batch = self.forward(rows_s, rows_t, step)
            classification = self.classification_loss(batch)
            added, by_layer = self.method.align(batch, weight)
            # left out and not multiplied by 0, so that weight 0 is source-only training even where the term overflows
            total = classification + added if self.is_aligned else classification
            loss = tf.reduce_sum(total)
        variables = [variable for _, group in self.groups for variable in group]
        gradients = dict(zip([v.path for v in variables], tape.gradient(loss, variables), strict=True))
        for optimizer, group in self.groups:
            optimizer.apply([gradients[variable.path] for variable in group], group)
        distance = tf.add_n(list(by_layer.values())) if by_layer else tf.zeros_like(total)
        self.columns = ("total_loss", "classification_loss", "mmd", *(f"mmd_{layer}" for layer in by_layer))
        return tf.stack([total, classification, distance, *by_layer.values()])

    def forward(self, rows_s: tf.Tensor, rows_t: tf.Tensor, step: tf.Tensor) -> Batch:
        """Both populations' rows (S, n) through the network, with dropout."""
        return Batch(
            source=self.network.activations(tf.gather(self.x_s, rows_s), self._noise(self.source_noise, step)),
            target=self.network.activations(tf.gather(self.x_t, rows_t), self._noise(self.target_noise, step)),
            y_s=tf.gather(self.y_s, rows_s),
            y_t=tf.gather(self.y_t, rows_t),
            known_t=tf.gather(self.known_t, rows_t),
        )

    def _noise(self, seeds: tf.Tensor, step: tf.Tensor) -> Noise | None:
        return Noise(seeds, step, self.spec.hidden) if self.spec.dropout > 0.0 else None

    def classification_loss(self, batch: Batch) -> tf.Tensor:
        """Mean cross-entropy (S,) of the source rows, plus that of the target rows whose label may be used, plus L2."""
        loss = tf.reduce_mean(_cross_entropy(batch.y_s, batch.source[LOGITS]), axis=-1)
        if self.spec.use_target_labels:
            losses = batch.known_t * _cross_entropy(batch.y_t, batch.target[LOGITS])
            mean = tf.reduce_sum(losses, -1) / tf.maximum(tf.reduce_sum(batch.known_t, -1), 1.0)
            loss += self.target_weight * mean
        if self.spec.l2_scale > 0.0:
            squares = [tf.reduce_sum(tf.square(layer.kernel), (-2, -1)) for layer in self.network.hidden_layers]
            loss += self.spec.l2_scale * 0.5 * tf.add_n(squares)
        return loss


class _Thaw(keras.optimizers.schedules.LearningRateSchedule):
    """0 until a layer is thawed, then its rate."""

    def __init__(self, rate: float, thaw_step: int | None) -> None:
        self.rate, self.thaw_step = rate, thaw_step

    def __call__(self, step: Any) -> tf.Tensor:
        if self.thaw_step is None:
            return tf.constant(0.0)
        return tf.where(tf.cast(step, tf.int32) >= self.thaw_step, self.rate, 0.0)


def _optimizers(
    spec: DeepSpec, network: StackedPerceptron, method: Method | None, layer_rates: LayerRates | None
) -> list[tuple[keras.optimizers.Optimizer, list[keras.Variable]]]:
    """Each optimizer with what it updates, built: variables made while tracing would trace the step twice."""
    groups = []
    if layer_rates is None:
        others: list[StackedDense] = [] if method is None else method.trained_layers
        layers = [*network.all_layers, *others]
        groups.append((_optimizer(spec, spec.learning_rate), [v for one in layers for v in one.trainable_variables]))
    else:
        for layer, rate, thaw_step in zip(network.all_layers, layer_rates.rates, layer_rates.thaw_steps, strict=True):
            groups.append((_optimizer(spec, _Thaw(rate, thaw_step)), list(layer.trainable_variables)))
    for optimizer, variables in groups:
        optimizer.build(variables)
    return groups


def _optimizer(spec: DeepSpec, rate: Any) -> keras.optimizers.Optimizer:
    if spec.optimizer == "adam":
        return keras.optimizers.Adam(rate, epsilon=spec.epsilon)
    optimizer = keras.optimizers.AdamW(rate, epsilon=spec.epsilon, weight_decay=spec.weight_decay)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    return optimizer


def _batches(spec: DeepSpec, training_set: TrainingSet, draws: Sequence[Draws]) -> Iterator[tuple[Rows, Rows]]:
    """Row numbers (S, n_s) and (S, n_t) of each step: two independent streams a member, zipped."""

    def stacked(rows: int, seeds: Sequence[int]) -> Iterator[Rows]:
        streams = [row_stream(rows, spec, np.random.default_rng(seed)) for seed in seeds]
        return (np.stack(batch) for batch in zip(*streams, strict=True))

    source = stacked(len(training_set.x_s), [one.source_stream for one in draws])
    target = stacked(len(training_set.x_t), [one.target_stream for one in draws])
    return zip(source, target, strict=False)


def _scheduled(spec: DeepSpec, step: int, planned: int) -> float:
    return scheduled(spec.schedule, step, planned=planned, warm_up_steps=spec.warm_up_steps)


def _cross_entropy(y: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    return tf.nn.sigmoid_cross_entropy_with_logits(labels=y, logits=logits[..., 0])


def _check_finite(
    logged: dict[str, NDArray[np.float32]], done: int, seeds: Sequence[int], training: NDArray[np.bool_]
) -> None:
    bad = np.argwhere(~np.isfinite(logged["total_loss"]) & training)  # what a stopped member comes to is not kept
    if not len(bad):
        return
    step, member = bad[0].tolist()
    losses = ", ".join(f"{name} {values[step, member]:g}" for name, values in logged.items())
    raise TrainingError(
        f"expected a finite loss, got {losses} at step {done + step} of seed {seeds[member]}; check the features for "
        "huge values or missing features, then lower learning_rate"
    )


def _tensor(values: NDArray[Any]) -> tf.Tensor:
    return tf.constant(values, tf.float32)

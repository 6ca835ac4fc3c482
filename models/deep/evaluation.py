"""What happens between blocks of steps: stop rows are ranked, checkpoints kept, shift measured, the early stop decided.

Each member of the ensemble has its own history, checkpoint and stop; one that has stopped is no longer listened to,
so it is the network that it would have been alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from crossrisk.errors import TrainingError
from crossrisk.metrics import auc_value, ks_value
from models.deep.perceptron import StackedPerceptron
from models.deep.spec import DeepSpec, TrainingSet
from models.deep.steps import diagnosis_rows, is_new_best, is_window_without_gain
from models.deep.weights import label_shift_weights
from models.fitted import Activation
from models.kernels import centre_of
from models.mmd import mk_mmd2, no_shift_band

HALVES = 16
"""Random halvings behind the no-shift band: its own relative error is then about 1 / sqrt(2 * 16) = 18%, enough to
tell noise from shift, at the price of one kernel matrix."""

StopReason = Literal["patience", "streams_ended", "max_steps"]


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
    """by step: step (updates made before it), total_loss, classification_loss, mmd (the method's own distance, summed
    over layers) and mmd_<layer>, mmd_weight (with its schedule);
    by evaluation: evaluation_step (updates made), stop_auc, stop_ks and, where asked for, mmd_unbiased and
    mmd_no_shift_band of the last aligned layer, and for every aligned layer mmd_unbiased_<layer>, mmd_no_shift_band_
    <layer> and mmd_fixed_<layer>, at the bandwidth of the first evaluation: an adaptive one is scale-free, so only the
    last can be compared over time"""
    best_step: int
    """updates behind the weights"""
    stopped_step: int
    """updates made in all"""
    stop_reason: StopReason


@dataclass
class _Member:
    """One member so far."""

    seed: int
    rng: np.random.Generator
    """of the rows that the diagnosis draws"""
    values: dict[str, list[float]] = field(default_factory=dict)
    best_step: int = 0
    weights: tuple[NDArray[np.float32], ...] = ()
    biases: tuple[NDArray[np.float32], ...] = ()
    stopped_step: int = 0
    has_stopped: bool = False

    def add(self, name: str, value: float) -> None:
        self.values.setdefault(name, []).append(float(value))


class Evaluation:
    """The members' histories, and who still trains."""

    def __init__(
        self,
        spec: DeepSpec,
        training_set: TrainingSet,
        network: StackedPerceptron,
        seeds: Sequence[int],
        diagnosis_seeds: Sequence[int],
    ) -> None:
        self.spec, self.training_set, self.network = spec, training_set, network
        self.members = [
            _Member(seed, np.random.default_rng(of_diagnosis))
            for seed, of_diagnosis in zip(seeds, diagnosis_seeds, strict=True)
        ]
        self.x_stop = tf.constant(training_set.x_stop, tf.float32)
        self.fixed: dict[str, tf.Tensor] = {}
        if spec.logs_no_shift_band:
            self.x_s, self.x_t, self.y_s = (
                tf.constant(getattr(training_set, name), tf.float32) for name in ("x_s", "x_t", "y_s")
            )

    @property
    def training(self) -> NDArray[np.bool_]:
        """(S,) which members have not stopped."""
        return np.array([not member.has_stopped for member in self.members])

    @property
    def has_stopped(self) -> bool:
        """Whether no member trains any more."""
        return not self.training.any()

    def add_steps(self, done: int, logged: dict[str, NDArray[np.float32]], weights: Sequence[float]) -> None:
        """Write down a block's losses, name -> (steps, S), and its scheduled weights."""
        for place, member in enumerate(self.members):
            if member.has_stopped:
                continue
            member.values.setdefault("step", []).extend(float(done + step) for step in range(len(weights)))
            member.values.setdefault("mmd_weight", []).extend(weights)
            for name, values in logged.items():
                member.values.setdefault(name, []).extend(values[:, place].tolist())
            member.stopped_step = done + len(weights)

    def judge(self, done: int) -> None:
        """Rank the stop rows after `done` updates; keep what is best so far, measure shift, decide who stops.

        Raises:
            TrainingError: where a score is not a finite number.
        """
        logits = self._stop_logits().numpy()
        shift = self._diagnose() if self.spec.logs_no_shift_band else {}
        for place, member in enumerate(self.members):
            if member.has_stopped:
                continue
            own = logits[place]
            if not np.isfinite(own).all():
                raise TrainingError(
                    f"expected finite scores of the stop rows, got NaN or infinity after step {done} of seed "
                    f"{member.seed}"
                )
            member.add("evaluation_step", done)
            member.add("stop_auc", auc_value(self.training_set.y_stop, own))
            member.add("stop_ks", ks_value(self.training_set.y_stop, own))
            for name, values in shift.items():
                member.add(name, values[place])
            is_last_kept = self.spec.checkpoint == "last"
            if is_last_kept or is_new_best(member.values["stop_auc"]):
                member.best_step = done
                member.weights, member.biases = self.network.layer_weights(place)
            is_flat = is_window_without_gain(member.values["stop_auc"], self.spec.patience)
            member.has_stopped = is_flat and not is_last_kept

    def results(self) -> list[TrainedNetwork]:
        """The trainings as they ended."""
        return [
            TrainedNetwork(
                seed=member.seed,
                weights=member.weights,
                biases=member.biases,
                activation=self.spec.activation,
                history=member.values,
                best_step=member.best_step,
                stopped_step=member.stopped_step,
                stop_reason=self._stop_reason(member),
            )
            for member in self.members
        ]

    def _stop_reason(self, member: _Member) -> StopReason:
        if member.has_stopped:
            return "patience"
        return "max_steps" if member.stopped_step == self.spec.max_steps else "streams_ended"

    @tf.function
    def _stop_logits(self) -> tf.Tensor:
        return self.network(self.x_stop)

    def _diagnose(self) -> dict[str, NDArray[np.float32]]:
        """Unbiased MMD of m source and m target rows by layer, and its no-shift band from all 2 m source rows."""
        n_s, n_t = len(self.training_set.x_s), len(self.training_set.x_t)
        m = diagnosis_rows(self.spec, n_s, n_t)
        source = np.stack([member.rng.choice(n_s, 2 * m, replace=False) for member in self.members])
        target = np.stack([member.rng.choice(n_t, m, replace=False) for member in self.members])
        halves = np.repeat(np.array([[1.0, -1.0]], np.float32), m, axis=1).repeat(HALVES, axis=0)
        halves = np.stack([member.rng.permuted(halves, axis=1) for member in self.members])
        if not self.fixed:
            self.fixed = self._bandwidths(source, target)
        return {name: values.numpy() for name, values in self._shift(source, target, halves, self.fixed).items()}

    def _bandwidths(self, source: tf.Tensor, target: tf.Tensor) -> dict[str, tf.Tensor]:
        """Of each aligned layer (S,), by the family's rule."""
        m = target.shape[1]
        active_s, active_t = self._active(source, target)
        found = {}
        for layer in self.spec.aligned:
            x_s, x_t = active_s[layer][:, :m], active_t[layer]
            mean = 0.5 * (tf.reduce_mean(x_s, 1, keepdims=True) + tf.reduce_mean(x_t, 1, keepdims=True))
            found[layer] = centre_of(x_s - mean, x_t - mean, self.spec.kernels)
        return found

    @tf.function
    def _shift(
        self, source: tf.Tensor, target: tf.Tensor, halves: tf.Tensor, fixed: dict[str, tf.Tensor]
    ) -> dict[str, tf.Tensor]:
        """The band takes the rows unweighted: weights leave fewer effective rows, so it is then on the low side."""
        spec, m = self.spec, target.shape[1]
        active_s, active_t = self._active(source, target)
        prior = self.training_set.target_prior
        weights = None
        if spec.row_weights != "equal" and prior is not None:
            weights = label_shift_weights(tf.gather(self.y_s, source[:, :m]), prior)
        found: dict[str, tf.Tensor] = {}
        for layer in spec.aligned:
            x_s, x_t = active_s[layer], active_t[layer]
            centres: tuple[tuple[str, Any], ...] = (("mmd_unbiased", None), ("mmd_fixed", fixed[layer]))
            for name, centre in centres:
                found[f"{name}_{layer}"] = mk_mmd2(
                    x_s[:, :m], x_t, spec.kernels, "unbiased", weights_s=weights, centre=centre
                )
            found[f"mmd_no_shift_band_{layer}"] = no_shift_band(x_s, halves, spec.kernels)
        for name in ("mmd_unbiased", "mmd_no_shift_band"):
            found[name] = found[f"{name}_{spec.aligned[-1]}"]
        return found

    def _active(self, source: tf.Tensor, target: tf.Tensor) -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]:
        return (
            self.network.activations(tf.gather(self.x_s, source)),
            self.network.activations(tf.gather(self.x_t, target)),
        )

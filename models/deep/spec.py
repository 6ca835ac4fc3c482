"""What a training of a deep adapter is told: the recipe (`DeepSpec`), the rows (`TrainingSet`). No TensorFlow here.

The recipes that have a name are in `models.deep.presets`, the rules of steps, checkpoint and early stop in
`models.deep.steps`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from models.deep.schedules import Schedule
from models.fitted import Activation, Matrix
from models.kernel_family import KernelFamily

if TYPE_CHECKING:  # a name of options only: the module itself is TensorFlow
    from models.mmd import Estimator

Labels = NDArray[np.floating[Any]]
Initializer = Literal["glorot_uniform", "he_normal"]
Method = Literal["source_only", "dan", "ddc", "deep_coral", "dann", "dsan", "fine_tuned"]
RowWeights = Literal["equal", "label_shift", "class_conditional"]

LAST_HIDDEN, LOGITS = "last_hidden", "logits"

MOST_DROPOUT = 0.99
"""Shares are drawn in steps of 1/256 (`models.deep.perceptron.Noise`): near 1 they would round to dropping all."""


@dataclass(frozen=True, kw_only=True)
class FineTuning:
    """The second stage of `fine_tuned`: the good labels, after the plentiful ones."""

    learning_rate: float = 1e-3
    """of the new head"""
    layer_decay: float = 2.6
    """each layer below learns so many times slower (Howard and Ruder, ACL 2018, section 3.2: 2.6)"""
    head_steps: int = 40
    """updates with every hidden layer frozen"""
    thaw_every: int | None = 40
    """updates from one layer's thaw to that of the layer below it (ibid., section 3.3); None: they stay frozen"""
    max_steps: int = 400

    def __post_init__(self) -> None:
        for name in ("learning_rate", "layer_decay", "max_steps"):
            if getattr(self, name) <= 0:
                raise ValueError(f"fine_tuning.{name} must be positive, got {getattr(self, name)}")
        if self.head_steps < 0 or (self.thaw_every is not None and self.thaw_every < 0):
            raise ValueError(
                f"fine_tuning.head_steps and thaw_every must not be negative, got {self.head_steps}, {self.thaw_every}"
            )


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """Shape of a multi-layer perceptron with one logit at its end."""

    hidden: tuple[int, ...]
    """units of each hidden layer, input side first"""
    activation: Activation
    """of the hidden layers"""
    initializer: Initializer
    """of every kernel; biases start at 0"""
    dropout: float
    """share of the hidden units dropped in training, in [0, MOST_DROPOUT]"""

    def __post_init__(self) -> None:
        if not self.hidden or min(self.hidden) < 1:
            raise ValueError(f"a network needs at least one hidden layer of at least one unit, got {self.hidden}")
        if not 0.0 <= self.dropout <= MOST_DROPOUT:
            raise ValueError(f"dropout must lie in [0, {MOST_DROPOUT}], got {self.dropout}")

    @property
    def layer_names(self) -> tuple[str, ...]:
        """hidden_1 .. hidden_k, logits: what may be aligned. `last_hidden` is another name of hidden_k."""
        return (*(f"hidden_{number}" for number in range(1, len(self.hidden) + 1)), LOGITS)


@dataclass(frozen=True, kw_only=True)
class DeepSpec(NetworkSpec):
    """Everything that decides a training apart from the rows and the seeds."""

    method: Method
    """which file of `models.deep` says what is added to the classification loss"""
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
    """factor on the schedule of the added term, whatever the method; 0: the term gives no gradient"""
    schedule: Schedule
    warm_up_steps: int = 200
    """of the schedule "warm_up" """
    layers: tuple[str, ...] = (LAST_HIDDEN,)
    """what is aligned: any of `layer_names`, or last_hidden"""
    kernels: KernelFamily
    """of the methods that measure an MMD, and of the diagnosis of all"""
    estimator: Estimator
    """of the loss; the diagnosis is always unbiased"""
    row_weights: RowWeights
    """of the aligned rows: source rows to the target's bad rate, where that is given ("label_shift"), or a discrepancy
    for each class ("class_conditional"): source rows by their label, target rows by theirs where it is known and used,
    else by the network's own probability"""
    use_target_labels: bool
    """add the cross-entropy of the batch's target rows with a known label; False: y_t is never read, but by the second
    stage of "fine_tuned" """
    target_row_weight: float = 2.0
    """how many source rows a target row with a known label counts as in the classification loss. Batches of equal size
    alone would make it dozens where target labels are few: learnt by heart, a hundred bads cost .02 to .04 AUC"""
    evaluate_every: int
    """steps between two evaluations of AUC and KS on the stop rows"""
    patience: int
    """evaluations in the window of the early stop, see `models.deep.steps.is_window_without_gain`"""
    checkpoint: Literal["best", "last"] = "best"
    """whose weights are kept: those of the evaluation that ranks the stop rows best, or of the last one, without an
    early stop: where the stop rows are the source's they rank best before an alignment that grows has begun to act"""
    logs_no_shift_band: bool
    """at evaluations, also log the unbiased MMD of every aligned layer, and how large it is between batches that share
    a distribution"""
    discriminator: tuple[int, ...] = (32,)
    """hidden units of DANN's domain classifier"""
    fine_tuning: FineTuning = field(default_factory=FineTuning)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.epochs is None and self.max_steps is None:
            raise ValueError("epochs and max_steps are both None: the training would never end; give one of them")
        for name in ("batch_size", "evaluate_every", "patience", "warm_up_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("mmd_weight", "target_row_weight"):
            if getattr(self, name) < 0.0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        self._check_lengths()
        self._check_layers()
        self._check_method()

    def _check_lengths(self) -> None:
        """Weights are kept at evaluations alone: a stage that ends before its first one would leave none."""
        stages = {"max_steps": self.max_steps}
        if self.method == "fine_tuned":
            stages["max_steps of fine_tuning (tuning_steps)"] = self.fine_tuning.max_steps
        for name, steps in stages.items():
            if steps is not None and steps < self.evaluate_every:
                raise ValueError(
                    f"{name} = {steps} ends before the first evaluation, at step {self.evaluate_every}, and no weights "
                    f"would be kept; give at least {self.evaluate_every}"
                )

    def _check_layers(self) -> None:
        if not self.layers or len(set(self.aligned)) < len(self.layers):
            raise ValueError(f"layers must name what is aligned, each once, got {self.layers}")
        for name in self.aligned:
            if name not in self.layer_names:
                known = ", ".join((LAST_HIDDEN, *self.layer_names))
                raise ValueError(f"layers names {name!r}, which a network of {self.hidden} has not; it has {known}")

    def _check_method(self) -> None:
        if self.method == "ddc" and (self.kernels.num != 1 or len(self.layers) != 1):
            raise ValueError(
                f"ddc has one kernel on one layer, got {self.kernels.num} kernels on {self.layers}; take dan for more"
            )
        if self.method in ("deep_coral", "dann") and self.row_weights == "class_conditional":
            raise ValueError(
                f'{self.method} has no distance for each class; take row_weights "label_shift" or "equal", or dsan'
            )
        if self.estimator == "linear" and (self.row_weights == "class_conditional" or self.method == "dsan"):
            raise ValueError('a discrepancy for each class needs estimator "biased" or "unbiased", not "linear"')

    @property
    def aligned(self) -> tuple[str, ...]:
        """The aligned layers by the names of `layer_names`."""
        last = f"hidden_{len(self.hidden)}"
        return tuple(last if name == LAST_HIDDEN else name for name in self.layers)


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
    stop_unknown: int = 0
    """further rows that were to decide the stop and have no known label: left out"""
    held_out: tuple[Matrix, Labels] | None = None
    """(n, d) and (n,) 0 or 1: source rows that are not trained on; they stop the first stage of fine_tuned"""

    @property
    def at_home(self) -> TrainingSet:
        """The same with the held-out source rows, where there are any, in the place of the stop rows."""
        if self.held_out is None:
            return self
        return replace(self, x_stop=self.held_out[0], y_stop=self.held_out[1], stop_unknown=0)

    @property
    def known_target_rows(self) -> int:
        """Target rows with a known label."""
        return int(np.isfinite(self.y_t).sum())

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
        if self.held_out is not None and set(np.unique(self.held_out[1])) != {0, 1}:
            raise ValueError("the held-out rows must hold both goods and bads, and no unknown label")
        if set(np.unique(self.y_stop)) != {0, 1}:
            raise ValueError("the stop rows must hold both goods and bads, and no unknown label")

"""Fine-tuning: cheap plentiful labels first, the few good ones last. Two runs of the one loop.

First the source network, stopped by held-out source rows; then, with a new head, the target's labelled rows alone: the
head first, each layer below it thawed in turn and learning slower (Howard and Ruder, ACL 2018, section 3). How far that
goes the stop rows decide. The first stage can be the weights of an earlier ensemble, such as the champion's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from models.deep.evaluation import TrainedNetwork
from models.deep.loop import LayerRates, OnProgress, train_stack
from models.deep.spec import DeepSpec, FineTuning, TrainingSet
from models.deep.steps import planned_steps
from models.fitted import Network


def fine_tune(
    spec: DeepSpec,
    training_set: TrainingSet,
    seeds: Sequence[int],
    on_progress: OnProgress | None = None,
    *,
    start: Network | None = None,
) -> list[TrainedNetwork]:
    """Train both stages.

    Args:
        spec: of the first stage, and `fine_tuning` of the second.
        training_set: target rows with a known label are the second stage's.
        seeds: one a member.
        on_progress: over both stages.
        start: an ensemble of as many members in the place of the first stage.

    Returns:
        The second stage's trainings.

    Raises:
        ValueError: where the labelled target rows lack a class, or as `models.deep.loop.train_stack`.
        TrainingError: as `train_stack`.
    """
    known = np.isfinite(training_set.y_t)
    if set(np.unique(training_set.y_t[known])) != {0, 1}:
        raise ValueError(
            f"fine-tuning needs target rows of both classes with a known label, got {int(known.sum())} known, "
            f"{int((training_set.y_t[known] == 1).sum())} of them bad; wait for labels, or leave fine_tuned out"
        )
    first = replace(spec, method="source_only", mmd_weight=0.0, use_target_labels=False)
    second = second_stage(spec)
    labelled = replace(training_set, x_s=training_set.x_t[known], y_s=training_set.y_t[known])
    steps = [
        planned_steps(one, len(rows.x_s), len(rows.x_t)) for one, rows in ((first, training_set), (second, labelled))
    ]
    total, before = (sum(steps), steps[0]) if start is None else (steps[1], 0)
    if start is None:
        start = stack(train_stack(first, training_set.at_home, seeds, _within(on_progress, 0, total)))
    rates = layer_rates(spec.fine_tuning, len(spec.hidden) + 1)
    return train_stack(second, labelled, seeds, _within(on_progress, before, total), start=start, layer_rates=rates)


def second_stage(spec: DeepSpec) -> DeepSpec:
    """The recipe of the second stage: the labelled target rows are its one population, nothing is aligned."""
    return replace(
        spec,
        method="source_only",
        mmd_weight=0.0,
        use_target_labels=False,
        epochs=None,
        max_steps=spec.fine_tuning.max_steps,
        logs_no_shift_band=False,
    )


def layer_rates(tuning: FineTuning, layers: int) -> LayerRates:
    """Rate and thaw of each of `layers` layers, head last: rate / decay^k, k layers below the head."""
    below = range(layers - 1, -1, -1)
    return LayerRates(
        rates=tuple(tuning.learning_rate / tuning.layer_decay**k for k in below),
        thaw_steps=tuple(_thaw_step(tuning, k) for k in below),
    )


def stack(trained: Sequence[TrainedNetwork]) -> Network:
    """The ensemble of trainings of one shape, as the form that is scored and published."""
    return Network(
        weights=tuple(np.stack(layer) for layer in zip(*(one.weights for one in trained), strict=True)),
        biases=tuple(np.stack(layer) for layer in zip(*(one.biases for one in trained), strict=True)),
        activation=trained[0].activation,
    )


def _thaw_step(tuning: FineTuning, below: int) -> int | None:
    if below == 0:
        return 0
    return None if tuning.thaw_every is None else tuning.head_steps + (below - 1) * tuning.thaw_every


def _within(on_progress: OnProgress | None, before: int, total: int) -> OnProgress | None:
    if on_progress is None:
        return None
    return lambda done, _: on_progress(before + done, total)

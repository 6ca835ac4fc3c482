"""The door to the deep adapters: an ensemble of seeds of any method, as the contender's form and its trainings."""

from __future__ import annotations

from collections.abc import Sequence

from models.deep.evaluation import TrainedNetwork
from models.deep.fine_tuning import fine_tune, stack
from models.deep.loop import OnProgress, train_stack
from models.deep.spec import DeepSpec, TrainingSet
from models.fitted import Network


def train_ensemble(
    spec: DeepSpec,
    training_set: TrainingSet,
    seeds: Sequence[int],
    on_progress: OnProgress | None = None,
    *,
    start: Network | None = None,
) -> tuple[Network, list[TrainedNetwork]]:
    """Train one network a seed, all in one program, and stack them: the contender's form, and the trainings behind it.

    Args:
        spec: a preset of `models.deep.presets`, or `dataclasses.replace` of one.
        training_set: its rows.
        seeds: of the members.
        on_progress: told (steps done, steps planned) at every evaluation.
        start: of "fine_tuned" only: an earlier ensemble in the place of its first stage.

    Raises:
        ValueError: as `models.deep.loop.train_stack`, or a start that the method has no use for.
        TrainingError: as `train_stack`.
    """
    if spec.method == "fine_tuned":
        trained = fine_tune(spec, training_set, seeds, on_progress, start=start)
    elif start is not None:
        raise ValueError(f"only fine_tuned starts from earlier weights, not {spec.method}")
    else:
        trained = train_stack(spec, training_set, seeds, on_progress)
    return stack(trained), trained

"""The child process that trains the DAN of a run: `python -m models.dan_worker SPEC.json` (see `models.child`).

It reads the encoded matrix, trains an ensemble for each mmd_weight of the grid, keeps the one whose AUC on the stop
rows is highest, and writes it with the history of all. What a training is lives in `models.dan`, its presets and
rows in `models.dan_spec`.

The spec:
    name: of the contender, e.g. "dan"
    matrix: Parquet with id, population, part, label (Int8, null = unknown) and the float32 features
    columns: names of the features, in the plan's order
    parts: {"source_fit": [...], "target_fit": [...], "stop": [...]}, the values of `part` that each role takes; of the
        stop rows those with a known label: the others can say nothing of an AUC
    preset: "article" or "dan"
    overrides: fields of `DanSpec` in the place of the preset's
    mmd_weights, seeds: the grid; the article trains one network, of the first seed, at weight 1
    target_prior: bad rate of the target, or null
    out: an existing folder; receives model.json, arrays.npz and history.json, and (preset dan) the folder `source_only`
        with two networks of the first seed, `alone` (source labels only) and `chosen`: what the guardrail compares
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import tensorflow as tf

from crossrisk.errors import InputError, TrainingError
from crossrisk.metrics import auc_value
from models.child import Emit, Json, serve
from models.dan import TrainedNetwork, stack, train_ensemble
from models.dan_spec import ARTICLE, DEFAULT, DanSpec, Labels, TrainingSet
from models.fitted import Contender, Matrix, Network, save_contender

SOURCE_ONLY = "source_only"
PRESETS = {"article": ARTICLE, "dan": DEFAULT}

THREADS = 2
"""Matrices this small gain nothing from more (measured: no less time, more CPU), the baselines train beside it, and a
fixed number keeps the order of float32 sums the same on machines of other sizes."""

SECONDS_BETWEEN_EVENTS = 0.5


@dataclass(frozen=True)
class Candidate:
    """The ensemble of one mmd_weight."""

    mmd_weight: float
    network: Network
    trained: list[TrainedNetwork]
    """one training a seed"""
    stop_auc: float
    """AUC of the ensemble on the stop rows"""


def handle(spec: Json, emit: Emit) -> Json:
    """Train, choose, save; the chosen mmd_weight, its AUC on the stop rows, how many these are and how many left out.

    Raises:
        InputError: where the spec names a field that does not exist, or the matrix lacks rows or columns.
        TrainingError: where a training diverges or its rows are too few.
    """
    settings = preset_with_overrides(spec["preset"], spec["overrides"])
    training_set = read_training_set(Path(spec["matrix"]), spec["columns"], spec["parts"], spec["target_prior"])
    is_article = spec["preset"] == "article"
    mmd_weights = (ARTICLE.mmd_weight,) if is_article else sorted(spec["mmd_weights"])
    seeds = spec["seeds"][:1] if is_article else spec["seeds"]
    candidates = train_grid(settings, training_set, mmd_weights, seeds, Progress(emit, time.monotonic))
    chosen = choose(candidates)
    out = Path(spec["out"])
    save_contender(Contender(name=spec["name"], form=chosen.network), out)
    if not is_article:
        save_source_only(settings, training_set, seeds[0], chosen, out / SOURCE_ONLY)
    (out / "history.json").write_text(json.dumps(history_document(candidates, chosen), indent=1), encoding="utf-8")
    return {
        "name": spec["name"],
        "mmd_weight": chosen.mmd_weight,
        "stop_auc": chosen.stop_auc,
        "stop_rows": len(training_set.y_stop),
        "stop_rows_unknown": training_set.stop_unknown,
    }


def save_source_only(settings: DanSpec, training_set: TrainingSet, seed: int, chosen: Candidate, folder: Path) -> None:
    """Train the first seed on source labels alone, without adaptation, and save it beside the chosen one's first seed.

    One network against one: an ensemble of three ranks better than any of them, whatever it has learned.
    """
    alone = replace(settings, mmd_weight=0.0, use_target_labels=False)
    network, _ = train_ensemble(alone, training_set, [seed])
    for name, form in (("alone", network), ("chosen", stack(chosen.trained[:1]))):
        (folder / name).mkdir(parents=True)
        save_contender(Contender(name=name, form=form), folder / name)


def preset_with_overrides(preset: str, overrides: Mapping[str, Any]) -> DanSpec:
    """The named preset with some fields replaced. Raises InputError on a name or value that it does not know."""
    if preset not in PRESETS:
        raise InputError(f"unknown preset {preset!r}; expected one of {sorted(PRESETS)}")
    known = [field.name for field in fields(DanSpec)]
    for name in overrides:
        if name not in known:
            nearest = get_close_matches(name, known, n=1)
            raise InputError(
                f"unknown training option {name!r}" + (f"; did you mean {nearest[0]!r}?" if nearest else "")
            )
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in overrides.items()
    }
    try:
        return replace(PRESETS[preset], **values)
    except ValueError as error:
        raise InputError(f"preset {preset!r} with {dict(overrides)}: {error}") from error


def read_training_set(
    matrix: Path, columns: Sequence[str], parts: Mapping[str, Sequence[str]], target_prior: float | None
) -> TrainingSet:
    """The rows of the three roles; of the stop rows those with a known label.

    Raises:
        InputError: a column is missing, a role is empty or unfit, or the stop rows lack a class.
    """
    shared = set(parts["stop"]) & {*parts["source_fit"], *parts["target_fit"]}
    if shared:
        raise InputError(f"parts {sorted(shared)} both train and decide the stop; a row does one of the two")
    lazy = pl.scan_parquet(matrix)
    wanted = ("population", "id", "part", "label", *columns)
    present = lazy.collect_schema().names()
    missing = sorted(set(wanted) - set(present))
    if missing:
        raise InputError(f"{matrix}: {len(missing)} of {len(wanted)} columns are missing, first {missing[0]!r}")
    used = [name for role in parts.values() for name in role]
    # one order of rows whatever wrote the file: the shuffles are drawn by position
    frame = lazy.select(wanted).filter(pl.col("part").is_in(used)).sort("population", "id").collect()
    x_s, y_s = _role(frame, columns, parts["source_fit"], matrix)
    x_t, y_t = _role(frame, columns, parts["target_fit"], matrix)
    x_stop, y_stop = _role(frame, columns, parts["stop"], matrix)
    known = ~np.isnan(y_stop)
    _require_both_classes(y_stop[known], int((~known).sum()), parts["stop"], matrix)
    try:
        return TrainingSet(
            x_s, y_s, x_t, y_t, x_stop[known], y_stop[known], target_prior, stop_unknown=int((~known).sum())
        )
    except ValueError as error:
        raise InputError(f"{matrix}: {error}") from error


def train_grid(
    settings: DanSpec,
    training_set: TrainingSet,
    mmd_weights: Sequence[float],
    seeds: Sequence[int],
    progress: Progress,
) -> list[Candidate]:
    """One ensemble for each mmd_weight. Raises TrainingError where one diverges or its rows are too few."""
    candidates = []
    for position, mmd_weight in enumerate(mmd_weights):
        message = f"mmd_weight {mmd_weight:g} ({position + 1} of {len(mmd_weights)})"
        on_progress = progress.part(position, len(mmd_weights), message)
        try:
            network, trained = train_ensemble(
                replace(settings, mmd_weight=mmd_weight), training_set, seeds, on_progress
            )
        except ValueError as error:  # the library's guards; here they are facts about this run's rows
            raise TrainingError(f"{message}: {error}") from error
        candidates.append(Candidate(mmd_weight, network, trained, _stop_auc(network, training_set, message)))
    return candidates


def choose(candidates: Sequence[Candidate]) -> Candidate:
    """The candidate of the highest AUC on the stop rows; on a tie the smallest mmd_weight, which borrows least."""
    return max(candidates, key=lambda candidate: (candidate.stop_auc, -candidate.mmd_weight))


def history_document(candidates: Sequence[Candidate], chosen: Candidate) -> Json:
    """What `history.json` holds: every weight and seed, and the choice."""
    return {
        "schema_version": 1,
        "chosen_mmd_weight": chosen.mmd_weight,
        "candidates": [
            {
                "mmd_weight": candidate.mmd_weight,
                "stop_auc": candidate.stop_auc,
                "trainings": [_training_document(one) for one in candidate.trained],
            }
            for candidate in candidates
        ],
    }


class Progress:
    """Passes progress on as events, at most one each `SECONDS_BETWEEN_EVENTS` and always the last."""

    def __init__(self, emit: Emit, clock: Callable[[], float]) -> None:
        self._emit, self._clock = emit, clock
        self._next = -np.inf

    def part(self, position: int, parts: int, message: str) -> Callable[[int, int], None]:
        """The callback of one of several equal parts."""

        def on_progress(done: int, total: int) -> None:
            is_last = position == parts - 1 and done == total
            now = self._clock()
            if is_last or now >= self._next:
                self._next = now + SECONDS_BETWEEN_EVENTS
                overall = {"done": position * total + done, "total": parts * total}
                self._emit({"event": "progress", **overall, "message": message})

        return on_progress


def _role(frame: pl.DataFrame, columns: Sequence[str], parts: Sequence[str], matrix: Path) -> tuple[Matrix, Labels]:
    rows = frame.filter(pl.col("part").is_in(list(parts)))
    if rows.is_empty():
        raise InputError(f"{matrix}: no row has a part among {list(parts)}; check the split's manifest")
    x = rows.select(pl.col(columns).cast(pl.Float32)).to_numpy()
    return np.ascontiguousarray(x), rows["label"].cast(pl.Float32).fill_null(float("nan")).to_numpy()


def _require_both_classes(known: Labels, unknown: int, parts: Sequence[str], matrix: Path) -> None:
    bads, goods = int((known == 1).sum()), int((known == 0).sum())
    if not (bads and goods):
        raise InputError(
            f"{matrix}: the stop is decided by the AUC on {' and '.join(parts)}, which needs at least 1 bad and 1 good "
            f"with a known label; found {bads} bads, {goods} goods and {unknown} rows without one. Take a later as_of, "
            "so that more labels are known, or more months or a larger share for this part (split.*); or leave dan out "
            "of lineup.contenders"
        )


def _stop_auc(network: Network, training_set: TrainingSet, message: str) -> float:
    if not all(np.isfinite(layer).all() for layer in (*network.weights, *network.biases)):
        raise TrainingError(f"{message}: expected finite weights, got NaN or infinity; lower learning_rate")
    return auc_value(training_set.y_stop, network.raw_logit(training_set.x_stop))


def _training_document(one: TrainedNetwork) -> Json:
    return {
        "seed": one.seed,
        "best_step": one.best_step,
        "stopped_step": one.stopped_step,
        "stop_reason": one.stop_reason,
        "history": one.history,
    }


if __name__ == "__main__":
    tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    tf.config.experimental.enable_op_determinism()  # same inputs, same weights: a version's identity rests on them
    serve(handle)

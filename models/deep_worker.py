"""The child process that trains a network of a run: `python -m models.deep_worker SPEC.json` (see `models.child`).

It reads the encoded matrix, trains an ensemble for each mmd_weight of the grid, keeps the smallest weight that the rows
which choose cannot tell from the best, and writes it with the history of all. What a training is: `models.deep`.

The spec:
    name: of the contender, e.g. "dan"
    matrix: Parquet with id, population, part, label (Int8, null = unknown) and the float32 features
    columns: names of the features, in the plan's order
    parts: {"source_fit": [...], "target_fit": [...], "stop": [...], "choose": [...], "held_out": [...]}, the values of
        `part` that each role takes; stop: decides checkpoints and the end of each training; choose: the mmd_weight; of
        both those with a known label: the others can say nothing of an AUC; held_out: source rows that stop the
        first stage of fine_tuned, and from which the target's bad rate is estimated, where that is asked for
    preset: of `models.deep.presets`
    overrides: fields of `DeepSpec` in the place of the preset's; `kernels` and `fine_tuning` are tables of their own
    mmd_weights, seeds: the grid; the article trains one network, of the first seed, at weight 1
    target_prior: bad rate of the target, or null
    prior_rule: "bbse" or "em", by which it is estimated where it is null, from the network that adapts nothing; null:
        not at all, and rows are not weighted by it
    start: folder of a published version whose network fine_tuned starts from, or null; one of another shape is left,
        and a network of the source tuned; start_version: its number
    out: an existing folder; receives model.json, arrays.npz and history.json, and (all but the article) the folder
        `source_only` with the ensembles `alone` (source labels only) and `chosen`: what the guardrail compares
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import tensorflow as tf

from crossrisk.errors import InputError, TrainingError
from crossrisk.metrics import auc_value
from crossrisk.shift.label import PriorEstimate, PriorRule, estimate_prior
from models.bundle import read_network
from models.child import Emit, Json, serve
from models.deep.evaluation import TrainedNetwork
from models.deep.loop import OnProgress
from models.deep.presets import preset_with_overrides
from models.deep.spec import DeepSpec, Labels, TrainingSet
from models.deep.steps import choose_weight, target_loss_weight
from models.deep.trainer import train_ensemble
from models.fitted import Contender, Floats, Matrix, Network, save_contender

SOURCE_ONLY = "source_only"

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
    choose_logits: Floats
    """(n,) of the ensemble, of the rows that choose"""


def handle(spec: Json, emit: Emit) -> Json:
    """Train, choose, save; the chosen mmd_weight, its AUC on the stop rows, how many these are and how many left out,
    the target's bad rate that rows were weighted to, where it is from and why there is none, the factor on the target
    labels' loss.

    Raises:
        InputError: where the spec names a field that does not exist, or the matrix lacks rows or columns.
        TrainingError: where a training diverges or its rows are too few.
    """
    settings = preset_with_overrides(spec["preset"], spec["overrides"])
    rows = read_rows(Path(spec["matrix"]), spec["columns"], spec["parts"])
    training_set = rows.training_set(spec["target_prior"])
    is_article = spec["preset"] == "article"
    mmd_weights = (settings.mmd_weight,) if is_article else sorted(spec["mmd_weights"])
    seeds = spec["seeds"][:1] if is_article else spec["seeds"]
    start = read_start(spec.get("start"), settings, len(spec["columns"]), len(seeds))
    prior = _prior_before_training(spec["target_prior"], spec["prior_rule"])
    candidates: list[Candidate] = []
    for weight, on_progress, message in Progress(emit, time.monotonic).over(mmd_weights):
        recipe = replace(settings, mmd_weight=weight)
        one = train_one(recipe, training_set, rows.choose[0], seeds, on_progress, message, start)
        candidates.append(one)
        if weight == 0.0 and prior.value is None and spec["prior_rule"] is not None:
            prior = rows.estimate_prior(spec["prior_rule"], one.network)
            training_set = replace(training_set, target_prior=prior.value)
    chosen = choose(candidates, rows.choose[1])
    out = Path(spec["out"])
    save_contender(Contender(name=spec["name"], form=chosen.network), out)
    if not is_article:
        save_source_only(settings, training_set, chosen, out / SOURCE_ONLY)
    has_first_stage = settings.method == "fine_tuned" and start is None
    document = {
        **history_document(settings, candidates, chosen, prior, rows.choose[1]),
        "decided_by": {
            "stop": spec["parts"]["stop"],
            "mmd_weight": spec["parts"]["choose"],
            "first_stage": rows.first_stage_of(spec["parts"]) if has_first_stage else [],
        },
    }
    (out / "history.json").write_text(json.dumps(document, indent=1), encoding="utf-8")
    return {
        "name": spec["name"],
        "mmd_weight": chosen.mmd_weight,
        "stop_auc": chosen.stop_auc,
        "stop_rows": len(training_set.y_stop),
        "stop_rows_unknown": training_set.stop_unknown,
        "target_prior": prior.value,
        "prior_from": prior.rule,
        "prior_reason": prior.reason,
        "started_from": "source" if start is None else str(spec["start_version"]),
        "target_loss_weight": target_loss_weight(settings, training_set),
    }


def save_source_only(settings: DeepSpec, training_set: TrainingSet, chosen: Candidate, folder: Path) -> None:
    """Train the same seeds on source labels alone, without adaptation, and save that ensemble beside the chosen one."""
    alone = replace(settings, method="source_only", mmd_weight=0.0, use_target_labels=False)
    network, _ = train_ensemble(alone, training_set, [one.seed for one in chosen.trained])
    for name, form in (("alone", network), ("chosen", chosen.network)):
        (folder / name).mkdir(parents=True)
        save_contender(Contender(name=name, form=form), folder / name)


def read_start(folder: str | None, settings: DeepSpec, columns: int, members: int) -> Network | None:
    """The published ensemble to start from; None where none is named or it has another shape."""
    if folder is None:
        return None
    found = read_network(Path(folder), settings.activation)
    widths = (columns, *settings.hidden, 1)
    wanted = [(members, a, b) for a, b in pairwise(widths)]
    return found if found is not None and [one.shape for one in found.weights] == wanted else None


@dataclass(frozen=True)
class RoleRows:
    """The rows of each role, encoded; labels NaN where unknown."""

    source_fit: tuple[Matrix, Labels]
    target_fit: tuple[Matrix, Labels]
    stop: tuple[Matrix, Labels]
    """those with a known label"""
    stop_unknown: int
    """how many had none"""
    choose: tuple[Matrix, Labels]
    """those with a known label"""
    held_out: tuple[Matrix, Labels] | None
    """labelled source rows that are not trained on"""
    where: str

    def training_set(self, target_prior: float | None) -> TrainingSet:
        """What is trained on. Raises InputError where it does not fit together."""
        try:
            return TrainingSet(
                *self.source_fit,
                *self.target_fit,
                *self.stop,
                target_prior,
                stop_unknown=self.stop_unknown,
                held_out=self._home,
            )
        except ValueError as error:
            raise InputError(f"{self.where}: {error}") from error

    def first_stage_of(self, parts: Mapping[str, Sequence[str]]) -> Sequence[str]:
        """The parts whose rows stop a network of the source that is tuned afterwards."""
        return parts["stop"] if self._home is None else parts["held_out"]

    @property
    def _home(self) -> tuple[Matrix, Labels] | None:
        """The held-out rows where they can rank: with both classes."""
        return self.held_out if self.held_out is not None and len(np.unique(self.held_out[1])) == 2 else None

    def estimate_prior(self, rule: PriorRule, network: Network) -> PriorEstimate:
        """The target's bad rate, from what a network that adapts nothing says of it; no target label is read."""
        if self.held_out is None:
            return PriorEstimate(rule, None, "no source rows were held out")
        x, y = self.held_out
        return estimate_prior(rule, network.raw_logit(x), y, network.raw_logit(self.target_fit[0]))


def read_rows(matrix: Path, columns: Sequence[str], parts: Mapping[str, Sequence[str]]) -> RoleRows:
    """The rows of the roles; of the stop rows those with a known label.

    Raises:
        InputError: a column is missing, a role is empty or unfit, or the stop rows lack a class.
    """
    shared = {*parts["stop"], *parts["choose"]} & {*parts["source_fit"], *parts["target_fit"]}
    if shared:
        raise InputError(f"parts {sorted(shared)} both train and decide the stop or the weight; a row does one of them")
    lazy = pl.scan_parquet(matrix)
    wanted = ("population", "id", "part", "label", *columns)
    present = lazy.collect_schema().names()
    missing = sorted(set(wanted) - set(present))
    if missing:
        raise InputError(f"{matrix}: {len(missing)} of {len(wanted)} columns are missing, first {missing[0]!r}")
    used = [name for role in parts.values() for name in role]
    # one order of rows whatever wrote the file: the shuffles are drawn by position
    frame = lazy.select(wanted).filter(pl.col("part").is_in(used)).sort("population", "id").collect()
    source_fit, target_fit, stop = (
        _role(frame, columns, parts[role], matrix) for role in ("source_fit", "target_fit", "stop")
    )
    known = ~np.isnan(stop[1])
    _require_both_classes(stop[1][known], int((~known).sum()), parts["stop"], matrix)
    x, y = _role(frame, columns, parts["choose"], matrix)
    choose = x[~np.isnan(y)], y[~np.isnan(y)]
    _require_both_classes(choose[1], int(np.isnan(y).sum()), parts["choose"], matrix)
    held_out = None
    if parts.get("held_out") and not frame.filter(pl.col("part").is_in(parts["held_out"])).is_empty():
        x, y = _role(frame, columns, parts["held_out"], matrix)
        held_out = x[~np.isnan(y)], y[~np.isnan(y)]
    return RoleRows(
        source_fit, target_fit, (stop[0][known], stop[1][known]), int((~known).sum()), choose, held_out, str(matrix)
    )


def train_one(
    settings: DeepSpec,
    training_set: TrainingSet,
    x_choose: Matrix,
    seeds: Sequence[int],
    on_progress: OnProgress,
    message: str,
    start: Network | None,
) -> Candidate:
    """The ensemble of one mmd_weight. Raises TrainingError where it diverges or its rows are too few."""
    try:
        network, trained = train_ensemble(settings, training_set, seeds, on_progress, start=start)
    except ValueError as error:  # the library's guards; here they are facts about this run's rows
        raise TrainingError(f"{message}: {error}") from error
    stop_auc = _stop_auc(network, training_set, message)
    return Candidate(settings.mmd_weight, network, trained, stop_auc, network.raw_logit(x_choose))


def choose(candidates: Sequence[Candidate], y_choose: Labels) -> Candidate:
    """By `models.deep.steps.choose_weight`, whatever order they come in."""
    ascending = sorted(candidates, key=lambda candidate: candidate.mmd_weight)
    return ascending[choose_weight([candidate.choose_logits for candidate in ascending], y_choose)]


def history_document(
    settings: DeepSpec, candidates: Sequence[Candidate], chosen: Candidate, prior: PriorEstimate, y_choose: Labels
) -> Json:
    """What `history.json` holds: the method, every weight and seed, and the choice."""
    return {
        "schema_version": 2,
        "method": settings.method,
        "layers": list(settings.aligned),
        "target_prior": {"value": prior.value, "from": prior.rule, "reason": prior.reason},
        "chosen_mmd_weight": chosen.mmd_weight,
        "candidates": [
            {
                "mmd_weight": candidate.mmd_weight,
                "stop_auc": candidate.stop_auc,
                "choose_auc": auc_value(y_choose, candidate.choose_logits),
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

    def over(self, mmd_weights: Sequence[float]) -> Iterator[tuple[float, OnProgress, str]]:
        """Each weight with its callback, and what is said of it."""
        for position, weight in enumerate(mmd_weights):
            message = f"mmd_weight {weight:g} ({position + 1} of {len(mmd_weights)})"
            yield weight, self.part(position, len(mmd_weights), message), message

    def part(self, position: int, parts: int, message: str) -> OnProgress:
        """The callback of one of several equal parts."""

        def on_progress(done: int, total: int) -> None:
            is_last = position == parts - 1 and done == total
            now = self._clock()
            if is_last or now >= self._next:
                self._next = now + SECONDS_BETWEEN_EVENTS
                overall = {"done": position * total + done, "total": parts * total}
                self._emit({"event": "progress", **overall, "message": message})

        return on_progress


def _prior_before_training(value: float | None, rule: PriorRule | None) -> PriorEstimate:
    if value is not None:
        return PriorEstimate("labels", value, None)
    return PriorEstimate(rule or "none", None, "mmd_weight 0 was not trained" if rule else "not asked for")


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
            "so that more labels are known, or more months or a larger share for this part (split.*); or leave the "
            "network out of lineup.contenders"
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

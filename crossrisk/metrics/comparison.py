"""Contenders judged on the same rows, so that differences are paired; and one of them judged group by group.

Arrays in, frozen results out; no files, no plots. Notation and statuses: `crossrisk.metrics.base`. How the intervals
are found stays in `delong`, `kolmogorov` and `resampling` beside this module.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike

from crossrisk.metrics.base import (
    MINIMUM_OF_EACH_CLASS,
    Floats,
    Metric,
    Status,
    known_rows,
    read_labels,
    status_of,
    undefined_metric,
)
from crossrisk.metrics.calibration import observed_expected
from crossrisk.metrics.delong import PairedAreas, compare_areas, gini_of_auc, metric_of_auc, paired_areas
from crossrisk.metrics.kolmogorov import ks_of_counts
from crossrisk.metrics.losses import brier, log_loss
from crossrisk.metrics.ranking import count_risks
from crossrisk.metrics.resampling import Spread, normal_limit, paired_bootstrap
from crossrisk.metrics.rows import scored

METRICS = ("auc", "gini", "ks", "brier", "log_loss", "observed_expected")
HIGHER_IS_BETTER = frozenset({"auc", "gini", "ks"})
_OF_ONE = {"brier": brier, "log_loss": log_loss, "observed_expected": observed_expected}
"""of one score alone, beside its ranking"""
MOST_ROWS_RESAMPLED = 200_000
"""Above, the paired bootstrap gives way to its normal limit, which agrees with it within 1% (tests/golden)."""


@dataclass(frozen=True)
class Difference:
    """Paired difference challenger - champion of one metric on the same rows."""

    metric: str
    value: float | None
    low: float | None
    high: float | None
    status: Status
    p: float | None = None
    """two-sided, of DeLong's test; None where the interval comes from no test"""
    interval: str | None = None
    """how low and high were found; None: there is no interval"""

    def to_json(self) -> dict[str, Any]:
        """Plain data; undefined numbers are None."""
        return asdict(self)


@dataclass(frozen=True)
class Evaluation:
    """Contenders judged on the same rows, and what their paired differences need."""

    metrics: Mapping[str, Mapping[str, Metric]]
    """contender -> metric -> value with interval"""
    confidence: float
    """share of every interval"""
    areas: PairedAreas | None = None
    """AUCs of the contenders in the order of `metrics`; None where nothing can be judged"""
    spread: Spread | None = None
    """of the other metrics; None where nothing can be judged"""

    def difference(self, challenger: str, champion: str, metric: str) -> Difference:
        """Challenger minus champion: paired DeLong for AUC and Gini, else the same resamples, or their normal limit.

        Raises:
            KeyError: an unknown contender or metric.
        """
        a, b = self.metrics[challenger][metric], self.metrics[champion][metric]
        if a.value is None or b.value is None:
            return Difference(metric, None, None, None, "undefined")
        if metric in ("auc", "gini"):
            return self._difference_of_areas(challenger, champion, metric)
        value = a.value - b.value
        if challenger == champion:
            return Difference(metric, value, value, value, a.status, interval="identity")
        assert self.spread is not None, "a value without its spread"
        found = self.spread.around(value, metric, challenger, champion, self.confidence)
        return Difference(metric, value, found.low, found.high, a.status, interval=found.interval)

    def _difference_of_areas(self, challenger: str, champion: str, metric: str) -> Difference:
        assert self.areas is not None, "an AUC without its variance"
        first, second = (list(self.metrics).index(name) for name in (challenger, champion))
        status = self.metrics[challenger][metric].status
        test = compare_areas(self.areas, first, second, confidence=self.confidence, status=status)
        scale = 2 if metric == "gini" else 1
        value, low, high = (None if x is None else scale * x for x in (test.difference, test.low, test.high))
        return Difference(metric, value, low, high, status, test.p, test.interval)


def evaluate(
    label: ArrayLike,
    probabilities: Mapping[str, ArrayLike],
    *,
    replicates: int,
    seed: int,
    confidence: float = 0.95,
    minimum: int = MINIMUM_OF_EACH_CLASS,
) -> Evaluation:
    """Judge contenders on the same rows: values, intervals, and what paired differences need.

    Each metric has the interval of its own module. Differences of AUC and Gini come from the paired DeLong test, those
    of the others from a paired bootstrap, above 200,000 rows its normal limit.

    Args:
        label: (N,) 0 or 1.
        probabilities: contender -> (N,) probability of bad.
        replicates: number of resamples, at least 100.
        seed: of the resampling; the same for every contender.
        confidence: share of the interval.
        minimum: bads and goods below which the status is `insufficient`.

    Raises:
        ValueError: a label other than 0 and 1, or a probability that is not finite or outside [0, 1].
    """
    bad = read_labels(label)
    scores = {name: _read_probabilities(name, p, len(bad)) for name, p in probabilities.items()}
    n_bad, n_good = int(bad.sum()), int((~bad).sum())
    status = status_of(n_bad, n_good, minimum)
    if status == "undefined":
        nothing = dict.fromkeys(METRICS, undefined_metric(n_bad, n_good))
        return Evaluation(dict.fromkeys(scores, nothing), confidence)
    areas = paired_areas(bad, list(scores.values()))
    is_large = len(bad) > MOST_ROWS_RESAMPLED
    spread = normal_limit(bad, scores) if is_large else paired_bootstrap(bad, scores, replicates, seed)
    metrics: dict[str, dict[str, Metric]] = {}
    for place, (name, p) in enumerate(scores.items()):
        auc = metric_of_auc(areas, place, confidence=confidence, minimum=minimum)
        ks = ks_of_counts(count_risks(bad, p), seed=seed, confidence=confidence, minimum=minimum)
        metrics[name] = {"auc": auc, "gini": gini_of_auc(auc), "ks": ks.metric}
        rows = scored(bad, p)
        for key, measure in _OF_ONE.items():
            metrics[name][key] = measure(rows, confidence=confidence, minimum=minimum)
    return Evaluation(metrics, confidence, areas, spread)


@dataclass(frozen=True)
class GroupEvaluation:
    """One score judged on the rows of one group, and the rows that could not judge it."""

    group: Any
    """its value; None gathers the rows without one"""
    rows: int
    """all rows of the group: those that judge, and the two kinds that do not"""
    unknown_labels: int
    missing_scores: int
    metrics: Mapping[str, Metric]


def evaluate_groups(
    group: Sequence[Any] | pl.Series,
    label: ArrayLike,
    probability: ArrayLike,
    *,
    replicates: int,
    seed: int,
    confidence: float = 0.95,
    minimum: int = MINIMUM_OF_EACH_CLASS,
) -> tuple[GroupEvaluation, ...]:
    """Judge one score in every group: segments, months, protected attributes. The rows are split once.

    Groups come sorted, the one of rows without a group last. A group with few rows, one class or no usable row has a
    status and no exception.

    Args:
        group: (N,) of one type; None for rows without a group.
        label: (N,) 0, 1 or missing.
        probability: (N,) probability of bad; missing or infinite ones are left out and counted.
        replicates: number of resamples in each group.
        seed: of the resampling; the same for every group.
        confidence: share of the interval.
        minimum: bads and goods below which a group's status is `insufficient`.

    Raises:
        ValueError: a label other than 0, 1 and missing, a probability outside [0, 1], or different lengths.
    """
    columns = {"label": np.asarray(label, np.float64), "probability": np.asarray(probability, np.float64)}
    lengths = {"group": len(group), **{name: len(values) for name, values in columns.items()}}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"expected one group, label and probability a row, got {lengths}")
    frame = pl.DataFrame({"group": group, **columns}).sort("group", nulls_last=True)
    judged = []
    for rows in frame.partition_by("group", maintain_order=True):
        known = known_rows(rows["label"].to_numpy(), rows["probability"].to_numpy())
        evaluation = evaluate(
            known.label,
            {"score": known.score},
            replicates=replicates,
            seed=seed,
            confidence=confidence,
            minimum=minimum,
        )
        metrics = evaluation.metrics["score"]
        judged.append(
            GroupEvaluation(rows["group"][0], rows.height, known.unknown_labels, known.missing_scores, metrics)
        )
    return tuple(judged)


def _read_probabilities(name: str, probability: ArrayLike, rows: int) -> Floats:
    p = np.asarray(probability, np.float64)
    if p.shape != (rows,):
        raise ValueError(f"{name}: expected one of the probabilities a label, ({rows},), got shape {p.shape}")
    wrong = rows - int(((p >= 0) & (p <= 1)).sum())  # NaN fails both
    if wrong:
        raise ValueError(f"{name}: probabilities must be finite and within [0, 1]; {wrong:,} of {rows:,} are not")
    return p

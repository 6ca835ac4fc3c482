"""Contenders judged on the same rows with the same resamples, so that differences are paired.

Arrays in, frozen results out; no files, no plots. Notation and statuses: `crossrisk.metrics.base`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossrisk.metrics.base import MINIMUM_OF_EACH_CLASS, Floats, Metric, Status, status_of
from crossrisk.metrics.ranking import SortedScores, divide, one_weight

METRICS = ("auc", "gini", "ks", "brier", "log_loss", "observed_expected")
HIGHER_IS_BETTER = frozenset({"auc", "gini", "ks"})
PROBABILITY_FLOOR = 1e-6
"""Probabilities are held within [1e-6, 1 - 1e-6] in the log loss."""
_CELLS_PER_CHUNK = 4_000_000
"""replicates x rows held at once while resampling: 32 MB an array"""
_PERCENTILE = "percentile bootstrap"


@dataclass(frozen=True)
class Difference:
    """Paired difference challenger - champion of one metric on the same rows, with a bootstrap interval."""

    metric: str
    value: float | None
    low: float | None
    high: float | None
    status: Status

    def to_json(self) -> dict[str, Any]:
        """Plain data; undefined numbers are None."""
        return asdict(self)


@dataclass(frozen=True)
class Evaluation:
    """Contenders judged on the same rows with the same resamples, so that differences are paired."""

    metrics: Mapping[str, Mapping[str, Metric]]
    """contender -> metric -> value with interval"""
    replicates: Mapping[str, Mapping[str, Floats]]
    """contender -> metric -> (replicates,)"""
    confidence: float
    """share of every interval"""

    def difference(self, challenger: str, champion: str, metric: str) -> Difference:
        """Challenger minus champion on the same resamples; percentile interval."""
        a, b = self.metrics[challenger][metric], self.metrics[champion][metric]
        if a.value is None or b.value is None:
            return Difference(metric, None, None, None, "undefined")
        low, high = _percentiles(
            self.replicates[challenger][metric] - self.replicates[champion][metric], self.confidence
        )
        return Difference(metric, a.value - b.value, low, high, a.status)


def evaluate(
    label: NDArray[Any],
    probabilities: Mapping[str, NDArray[Any]],
    *,
    replicates: int,
    seed: int,
    confidence: float = 0.95,
    minimum: int = MINIMUM_OF_EACH_CLASS,
) -> Evaluation:
    """Judge contenders on the same rows: values, percentile bootstrap intervals, resamples for paired differences.

    Resampling is stratified by class (m bads, n goods in every resample) for the ranking metrics and the losses; for
    observed/expected the number of bads is what is uncertain, so there the rows are drawn without strata.

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
    y = np.asarray(label, np.float64)
    if not np.isin(y, (0.0, 1.0)).all():
        raise ValueError("labels must be 0 or 1 where contenders are judged; unknown labels stay out of the comparison")
    scores = {name: np.asarray(p, np.float64) for name, p in probabilities.items()}
    for name, p in scores.items():
        if p.shape != y.shape or not (np.isfinite(p).all() and ((p >= 0) & (p <= 1)).all()):
            raise ValueError(f"{name}: expected {y.shape} finite probabilities in [0, 1], got {p.shape} or others")
    n_bad, n_good = int(y.sum()), int(len(y) - y.sum())
    status = status_of(n_bad, n_good, minimum)
    if status == "undefined":
        undefined = Metric(None, None, None, "undefined", n_bad, n_good)
        return Evaluation({name: dict.fromkeys(METRICS, undefined) for name in scores}, {}, confidence)
    ranks = {name: SortedScores(y, p) for name, p in scores.items()}
    resampled = _resample(y, scores, ranks, replicates, seed)
    metrics: dict[str, dict[str, Metric]] = {}
    for name, p in scores.items():
        points = _replicate_metrics(y, p, ranks[name], one_weight(len(y)))
        metrics[name] = {}
        for key in METRICS:
            low, high = _percentiles(resampled[name][key], confidence)
            metrics[name][key] = Metric(float(points[key][0]), low, high, status, n_bad, n_good, _PERCENTILE)
    return Evaluation(metrics=metrics, replicates=resampled, confidence=confidence)


def _resample(
    y: Floats,
    scores: Mapping[str, Floats],
    ranks: Mapping[str, SortedScores],
    replicates: int,
    seed: int,
) -> dict[str, dict[str, Floats]]:
    rng = np.random.default_rng(seed)
    collected: dict[str, dict[str, list[Floats]]] = {name: {key: [] for key in METRICS} for name in scores}
    bads, goods = np.flatnonzero(y == 1), np.flatnonzero(y == 0)
    chunk = max(1, min(replicates, _CELLS_PER_CHUNK // len(y)))
    for start in range(0, replicates, chunk):
        size = min(chunk, replicates - start)
        stratified = np.zeros((size, len(y)), np.float64)
        stratified[:, bads] = _multinomial(rng, size, len(bads))
        stratified[:, goods] = _multinomial(rng, size, len(goods))
        plain = _multinomial(rng, size, len(y))
        for name, p in scores.items():
            values = _replicate_metrics(y, p, ranks[name], stratified)
            values["observed_expected"] = divide(plain @ y, plain @ p)
            for key in METRICS:
                collected[name][key].append(values[key])
    return {name: {key: np.concatenate(parts) for key, parts in by.items()} for name, by in collected.items()}


def _multinomial(rng: np.random.Generator, size: int, rows: int) -> Floats:
    """How often each of `rows` rows is drawn in `size` resamples of `rows` draws: (size, rows)."""
    drawn = rng.integers(0, rows, (size, rows)) + np.arange(size)[:, None] * rows
    return np.bincount(drawn.ravel(), minlength=size * rows).reshape(size, rows).astype(np.float64)


def _percentiles(values: Floats, confidence: float) -> tuple[float | None, float | None]:
    finite = values[np.isfinite(values)]
    if len(finite) < len(values) * 0.99:  # an interval over the resamples that happened to work would be too short
        return None, None
    low, high = np.quantile(finite, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _replicate_metrics(label: Floats, probability: Floats, ranks: SortedScores, weights: Floats) -> dict[str, Floats]:
    """Every metric (replicates,) under row weights (replicates, N)."""
    total = weights.sum(axis=1)
    p = np.clip(probability, PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR)
    log_loss = -(label * np.log(p) + (1 - label) * np.log1p(-p))
    auc = ranks.auc(weights)
    return {
        "auc": auc,
        "gini": 2 * auc - 1,
        "ks": ranks.ks(weights),
        "brier": weights @ (probability - label) ** 2 / total,
        "log_loss": weights @ log_loss / total,
        "observed_expected": divide(weights @ label, weights @ probability),
    }

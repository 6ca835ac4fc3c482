"""Metrics of a scored sample and their bootstrap intervals. Arrays in, frozen results out; no files, no plots.

One implementation serves training, gate, report and command line. Notation: y = 1 bad; m bads, n goods, N = m + n;
a higher score is riskier, always. A metric that cannot be computed has a status, never a silent number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Status = Literal["ok", "insufficient", "undefined"]

METRICS = ("auc", "gini", "ks", "brier", "log_loss", "observed_expected")
HIGHER_IS_BETTER = frozenset({"auc", "gini", "ks"})
PROBABILITY_FLOOR = 1e-6
"""Probabilities are held within [1e-6, 1 - 1e-6] in the log loss."""
MINIMUM_OF_EACH_CLASS = 30
"""Below 30 bads or 30 goods a value is shown but its status is `insufficient`."""
_CELLS_PER_CHUNK = 4_000_000
"""replicates x rows held at once while resampling: 32 MB an array"""


@dataclass(frozen=True)
class Metric:
    """A value with its interval, the counts behind it and whether it may be relied on."""

    value: float | None
    low: float | None
    high: float | None
    status: Status
    n_bad: int
    n_good: int

    def to_json(self) -> dict[str, Any]:
        """Plain data; undefined numbers are None."""
        return asdict(self)


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


# --- single values ---


def auc_value(label: NDArray[Any], score: NDArray[Any]) -> float:
    """Area under the ROC curve by midranks: P(bad scores above good) + P(tie) / 2. NaN where a class is absent.

    (sum of the bads' midranks - m (m + 1) / 2) / (m n); float64 throughout, so safe above 10 million rows.
    """
    return float(_SortedScores(label, score).auc(_one(len(label)))[0]) if len(label) else np.nan


def ks_value(label: NDArray[Any], score: NDArray[Any]) -> float:
    """Largest |F_bad - F_good| over the distinct scores, in [0, 1]. NaN where a class is absent."""
    return float(_SortedScores(label, score).ks(_one(len(label)))[0]) if len(label) else np.nan


def _one(rows: int) -> Floats:
    return np.ones((1, rows), np.float64)


class _SortedScores:
    """Rows sorted by score once, so that each weighted resample costs cumulative sums instead of a sort."""

    def __init__(self, label: NDArray[Any], score: NDArray[Any]) -> None:
        self.order = np.argsort(score, kind="stable")
        ordered = np.asarray(score)[self.order]
        self.bad = np.asarray(label, np.float64)[self.order]
        self.block_starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])

    def _blocks(self, weights: Floats) -> tuple[Floats, Floats]:
        """Weight of bads and goods at each distinct score: two arrays (replicates, blocks)."""
        ordered = weights[:, self.order]
        bads = np.add.reduceat(ordered * self.bad, self.block_starts, axis=1)
        return bads, np.add.reduceat(ordered, self.block_starts, axis=1) - bads

    def auc(self, weights: Floats) -> Floats:
        """AUC (replicates,) under row weights (replicates, N)."""
        bads, goods = self._blocks(weights)
        goods_below = np.cumsum(goods, axis=1) - goods
        pairs = bads.sum(axis=1) * goods.sum(axis=1)
        return _divide((bads * (goods_below + 0.5 * goods)).sum(axis=1), pairs)

    def ks(self, weights: Floats) -> Floats:
        """KS (replicates,) under row weights (replicates, N)."""
        bads, goods = self._blocks(weights)
        share_bad = _divide(np.cumsum(bads, axis=1), bads.sum(axis=1, keepdims=True))
        share_good = _divide(np.cumsum(goods, axis=1), goods.sum(axis=1, keepdims=True))
        return np.asarray(np.abs(share_bad - share_good).max(axis=1), np.float64)


def _divide(numerator: Floats, denominator: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(denominator > 0, numerator / denominator, np.nan), np.float64)


def _replicate_metrics(label: Floats, probability: Floats, ranks: _SortedScores, weights: Floats) -> dict[str, Floats]:
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
        "observed_expected": _divide(weights @ label, weights @ probability),
    }


# --- a table of contenders on the same rows ---


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
    status: Status = "ok" if min(n_bad, n_good) >= minimum else "insufficient"
    if min(n_bad, n_good) == 0:
        status = "undefined"
    if status == "undefined":
        undefined = Metric(None, None, None, "undefined", n_bad, n_good)
        return Evaluation({name: dict.fromkeys(METRICS, undefined) for name in scores}, {}, confidence)
    ranks = {name: _SortedScores(y, p) for name, p in scores.items()}
    resampled = _resample(y, scores, ranks, replicates, seed)
    metrics: dict[str, dict[str, Metric]] = {}
    for name, p in scores.items():
        points = _replicate_metrics(y, p, ranks[name], _one(len(y)))
        metrics[name] = {}
        for key in METRICS:
            low, high = _percentiles(resampled[name][key], confidence)
            metrics[name][key] = Metric(float(points[key][0]), low, high, status, n_bad, n_good)
    return Evaluation(metrics=metrics, replicates=resampled, confidence=confidence)


def _resample(
    y: Floats,
    scores: Mapping[str, Floats],
    ranks: Mapping[str, _SortedScores],
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
            values["observed_expected"] = _divide(plain @ y, plain @ p)
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


# --- curves for the report ---


@dataclass(frozen=True)
class Curves:
    """What a report draws of one contender on one sample."""

    false_positive: Floats
    true_positive: Floats
    score: Floats
    share_bad: Floats
    """cumulative share of bads at or below `score`"""
    share_good: Floats
    predicted: Floats
    """mean probability of each of up to ten equal-count bins"""
    observed: Floats
    """bad rate of each bin"""
    bin_rows: NDArray[np.int64]


def curves(label: NDArray[Any], probability: NDArray[Any], *, bins: int = 10, points: int = 400) -> Curves:
    """ROC, KS and calibration curves; distinct scores thinned to at most `points`."""
    y = np.asarray(label, np.float64)
    p = np.asarray(probability, np.float64)
    distinct, position = np.unique(p, return_inverse=True)
    bads = np.bincount(position, weights=y, minlength=len(distinct))
    rows = np.bincount(position, minlength=len(distinct)).astype(np.float64)
    share_bad = np.cumsum(bads) / max(y.sum(), 1.0)
    share_good = np.cumsum(rows - bads) / max(len(y) - y.sum(), 1.0)
    keep = np.unique(np.linspace(0, len(distinct) - 1, points).round().astype(np.int64))
    order = np.argsort(p, kind="stable")
    groups: Sequence[NDArray[np.int64]] = [g for g in np.array_split(order, bins) if len(g)]
    return Curves(
        false_positive=np.r_[1.0, 1.0 - share_good[keep]],
        true_positive=np.r_[1.0, 1.0 - share_bad[keep]],
        score=distinct[keep],
        share_bad=share_bad[keep],
        share_good=share_good[keep],
        predicted=np.array([p[g].mean() for g in groups]),
        observed=np.array([y[g].mean() for g in groups]),
        bin_rows=np.array([len(g) for g in groups], np.int64),
    )

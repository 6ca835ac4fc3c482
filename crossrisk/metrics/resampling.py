"""How far metrics of several contenders on the same rows move together, by resampling or by their normal limit.

Rows are resampled for all contenders alike, so that differences are paired: m bads and n goods in every resample for
KS and the losses; for observed/expected, where the number of bads is what is uncertain, it is drawn from its binomial.
AUC needs no resampling (`crossrisk.metrics.delong`). What an interval means stays in `crossrisk.metrics.comparison`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from crossrisk.metrics.base import PROBABILITY_FLOOR, Bools, Floats, critical_z, divide
from crossrisk.metrics.delong import mean_variances
from crossrisk.metrics.kolmogorov import merge_runs
from crossrisk.metrics.ranking import count_risks

PERCENTILE, NORMAL = "percentile bootstrap", "normal"
_CELLS_PER_CHUNK = 4_000_000
"""replicates x rows held at once while resampling: 32 MB an array"""


class Bounds(NamedTuple):
    """An interval and its name; all None where there is none."""

    low: float | None
    high: float | None
    interval: str | None


def row_losses(bad: Bools, probability: Floats) -> dict[str, Floats]:
    """What each row adds to the mean losses: `brier` and `log_loss`, (N,) each."""
    p = np.clip(probability, PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR)
    return {"brier": (probability - bad) ** 2, "log_loss": -np.log(np.where(bad, p, 1 - p))}


class Spread(Protocol):
    """What intervals are made of: of one contender's metric, or of its difference to another's."""

    def around(self, value: float, metric: str, contender: str, minus: str | None, confidence: float) -> Bounds:
        """Interval of a metric whose value is given; of a difference where `minus` names a second contender."""
        ...


@dataclass(frozen=True)
class Resampled:
    """Values in the same resamples of the rows; intervals are their percentiles."""

    values: Mapping[str, Mapping[str, Floats]]
    """contender -> metric -> (replicates,)"""

    def around(self, value: float, metric: str, contender: str, minus: str | None, confidence: float) -> Bounds:
        """Percentiles; none where over 1% of the resamples are undefined: the rest would make it too short."""
        values = self.values[contender][metric]
        if minus is not None:
            values = values - self.values[minus][metric]
        finite = values[np.isfinite(values)]
        if len(finite) < len(values) * 0.99:
            return Bounds(None, None, None)
        low, high = np.quantile(finite, [(1 - confidence) / 2, (1 + confidence) / 2])
        return Bounds(float(low), float(high), PERCENTILE if minus is None else f"paired {PERCENTILE}")


@dataclass(frozen=True)
class NormalLimit:
    """What `Resampled` tends to in large samples."""

    contenders: tuple[str, ...]
    variances: Mapping[str, Floats]
    """metric -> (k, k), of the contenders' values on the diagonal and of their differences beside it"""

    def around(self, value: float, metric: str, contender: str, minus: str | None, confidence: float) -> Bounds:
        """value +/- z SE."""
        place = self.contenders.index(contender)
        other = place if minus is None else self.contenders.index(minus)
        half = critical_z(confidence) * float(np.sqrt(self.variances[metric][place, other]))
        return Bounds(value - half, value + half, NORMAL if minus is None else f"paired {NORMAL}")


def paired_bootstrap(bad: Bools, probabilities: Mapping[str, Floats], replicates: int, seed: int) -> Resampled:
    """Resample the rows: brier, log_loss, observed_expected, and ks, which only differences need, of two and more.

    Args:
        bad: (N,) with both classes.
        probabilities: contender -> (N,) probability of bad.
        replicates: number of resamples.
        seed: of the resampling.
    """
    rng = np.random.default_rng(seed)
    contenders = {name: _prepare(bad, p) for name, p in probabilities.items()}
    parts: dict[str, list[dict[str, Floats]]] = {name: [] for name in probabilities}
    n_bad, n_good = int(bad.sum()), int((~bad).sum())
    for size in _chunks(replicates, len(bad)):
        draws = _draw(rng, size, n_bad), _draw(rng, size, n_good)
        observed = rng.binomial(len(bad), n_bad / len(bad), size).astype(np.float64)
        weights = [drawn.astype(np.float64) for drawn in draws]
        for name, one in contenders.items():
            parts[name].append(_values(one, weights, observed))
            if len(contenders) > 1:
                parts[name][-1]["ks"] = one.ks(*draws)
    return Resampled({name: _join(found) for name, found in parts.items()})


def normal_limit(bad: Bools, probabilities: Mapping[str, Floats]) -> NormalLimit:
    """The limit of `paired_bootstrap`. Arguments as there.

    KS counts as a difference of shares at each contender's own maximum, observed/expected by the delta method.
    """
    share_bad = float(bad.mean())
    values = {key: np.empty((len(probabilities), len(bad))) for key in ("ks", "brier", "log_loss", "observed_expected")}
    for row, p in enumerate(probabilities.values()):
        gaps = count_risks(bad, p)
        peak = int(np.abs(gaps.gaps).argmax())
        values["ks"][row] = np.sign(gaps.gaps[peak]) * (p <= gaps.risk[peak])
        ratio = divide(bad.sum(), p.sum())
        values["observed_expected"][row] = divide(bad - ratio * p, p.mean())
        for key, losses in row_losses(bad, p).items():
            values[key][row] = losses
    of_bads, of_goods = ({key: mean_variances(found[:, rows]) for key, found in values.items()} for rows in (bad, ~bad))
    return NormalLimit(
        tuple(probabilities),
        {
            "ks": of_bads["ks"] + of_goods["ks"],
            **{
                key: share_bad**2 * of_bads[key] + (1 - share_bad) ** 2 * of_goods[key] for key in ("brier", "log_loss")
            },
            "observed_expected": mean_variances(values["observed_expected"]),
        },
    )


@dataclass(frozen=True)
class _ClassInOrder:
    """Rows of one class by score, and where the cells that KS needs end among them (`kolmogorov.merge_runs`)."""

    order: NDArray[np.int64]
    """(rows,) the rows of the class, safest first"""
    ends: NDArray[np.int64]
    """(cells,) rows of the class up to the end of each cell"""

    def shares(self, draws: NDArray[np.uint8]) -> Floats:
        """Cumulative share of the class at each cell: (replicates, cells), of how often each row was drawn."""
        drawn = np.zeros((len(draws), len(self.order) + 1), np.int32)
        np.cumsum(draws.take(self.order, axis=1), axis=1, dtype=np.int32, out=drawn[:, 1:])
        return np.asarray(drawn.take(self.ends, axis=1) / len(self.order), np.float64)


@dataclass(frozen=True)
class _Contender:
    """What the resamples of a contender need, worked out once; of the bads first, then of the goods."""

    by_score: tuple[_ClassInOrder, _ClassInOrder]
    values: Mapping[str, tuple[Floats, Floats]]
    """metric -> what each row adds; for observed/expected its probability"""

    def ks(self, bads: NDArray[np.uint8], goods: NDArray[np.uint8]) -> Floats:
        """(replicates,)"""
        gaps = self.by_score[1].shares(goods) - self.by_score[0].shares(bads)
        return np.asarray(np.abs(gaps, out=gaps).max(axis=1), np.float64)


def _prepare(bad: Bools, probability: Floats) -> _Contender:
    cells = merge_runs(count_risks(bad, probability)).risk
    classes = (bad, ~bad)
    by_score = []
    for rows in classes:
        order = np.argsort(probability[rows])
        by_score.append(_ClassInOrder(order, np.searchsorted(probability[rows][order], cells, side="right")))
    values = {**row_losses(bad, probability), "observed_expected": probability}
    return _Contender((by_score[0], by_score[1]), {key: (found[bad], found[~bad]) for key, found in values.items()})


def _values(one: _Contender, weights: Sequence[Floats], observed: Floats) -> dict[str, Floats]:
    """Metric -> (replicates,), of how often each bad and each good was drawn and how many bads a resample has."""
    bads, goods = (drawn.shape[1] for drawn in weights)
    means = {
        key: tuple(drawn @ rows / len(rows) for drawn, rows in zip(weights, found, strict=True))
        for key, found in one.values.items()
    }
    expected_of_bads, expected_of_goods = means.pop("observed_expected")
    expected = observed * expected_of_bads + (bads + goods - observed) * expected_of_goods
    values = {key: (bads * of_bads + goods * of_goods) / (bads + goods) for key, (of_bads, of_goods) in means.items()}
    return {**values, "observed_expected": divide(observed, expected)}


def _join(parts: Sequence[Mapping[str, Floats]]) -> dict[str, Floats]:
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def _chunks(replicates: int, rows: int) -> Iterator[int]:
    most = max(1, _CELLS_PER_CHUNK // rows)
    while replicates > 0:
        yield min(most, replicates)
        replicates -= most


def _draw(rng: np.random.Generator, size: int, rows: int) -> NDArray[np.uint8]:
    """How often each of `rows` rows is drawn in `size` resamples of `rows` draws: (size, rows).

    One byte a count: a row is drawn once on average, and 256 times in no sequence of resamples anyone will live to see.
    """
    drawn = rng.integers(0, rows, (size, rows))
    drawn += np.arange(size)[:, None] * rows
    return np.bincount(drawn.ravel(), minlength=size * rows).reshape(size, rows).astype(np.uint8)

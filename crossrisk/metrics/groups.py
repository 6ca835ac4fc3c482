"""Calibration over groups of rows with like probabilities: expected calibration error and Hosmer-Lemeshow.

Checked rows in, frozen results out; no files, no plots. Both read low where bads are few and high where rows are many,
so each carries what perfect calibration itself would show. Grades fixed by a lender are `crossrisk.metrics.grades`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc

from crossrisk.metrics.base import MINIMUM_OF_EACH_CLASS, PROBABILITY_FLOOR, Floats, Metric, Status
from crossrisk.metrics.rows import Scored, judge_counts

Sample = Literal["fitting", "out_of_time"]

GROUPS = 10
REPLICATES = 1_000
_MOST_BLOCKS = 1_000
"""Rows simulated one by one up to here; above, neighbours in probability are drawn together as one binomial count."""


@dataclass(frozen=True)
class CalibrationError:
    """Expected calibration error beside what it would be, on these rows, if every probability were right."""

    error: Metric
    null_mean: float | None
    """its mean under perfect calibration: never 0, and 0.028 at 429 rows with a bad rate of 7%"""
    null_95: float | None
    """what perfect calibration exceeds in 5% of samples"""
    groups: int
    """distinct groups that the rows allow"""

    def to_json(self) -> dict[str, Any]:
        """Plain data; undefined numbers are None."""
        return asdict(self)


def expected_calibration_error(
    rows: Scored,
    *,
    seed: int,
    groups: int = GROUPS,
    replicates: int = REPLICATES,
    minimum: int = MINIMUM_OF_EACH_CLASS,
) -> CalibrationError:
    """Mean over rows of |mean probability - bad rate| of their group, groups of equal count; in [0, 1].

    There is no interval: the error is biased upward, so it is read against its null, simulated from the probabilities.

    Args:
        rows: labels and probabilities.
        seed: of the simulation.
        groups: at most so many; equal probabilities stay together.
        replicates: samples drawn under perfect calibration.
        minimum: bads and goods below which the status is `insufficient`.

    Source: Naeini, Cooper and Hauskrecht, Obtaining well calibrated probabilities using Bayesian binning, AAAI (2015),
    with groups of equal count instead of equal width.
    """
    if len(rows.bad) == 0:
        return CalibrationError(rows.metric(None, None, None, minimum=minimum), None, None, 0)
    place, count = equal_count_groups(rows.probability, groups)
    observed = np.bincount(place[rows.bad], minlength=count)
    expected = np.bincount(place, weights=rows.probability, minlength=count).astype(np.float64)
    error = float(np.abs(observed - expected).sum()) / len(place)
    null = _errors_if_calibrated(rows.probability, place, expected, np.random.default_rng(seed), replicates)
    return CalibrationError(
        rows.metric(error, None, None, minimum=minimum), float(null.mean()), float(np.quantile(null, 0.95)), count
    )


def _errors_if_calibrated(
    probability: Floats, place: NDArray[np.int64], expected: Floats, rng: np.random.Generator, replicates: int
) -> Floats:
    """(replicates,) calibration errors of labels drawn from the probabilities."""
    ordered = np.sort(probability)  # groups follow the order of probabilities
    ends = np.cumsum(np.bincount(place))
    blocks = max(1, _MOST_BLOCKS // len(ends)) if len(ordered) > _MOST_BLOCKS else len(ordered)
    starts = [
        np.unique(np.linspace(start, end, min(blocks, end - start), endpoint=False).astype(np.int64))
        for start, end in zip(np.r_[0, ends[:-1]], ends, strict=True)
    ]
    first_block = np.cumsum([0, *map(len, starts[:-1])])
    start = np.concatenate(starts)
    size = np.diff(np.r_[start, len(ordered)])
    mean = np.clip(np.add.reduceat(ordered, start) / size, 0.0, 1.0)  # a mean of ones may round to above 1
    drawn = np.add.reduceat(rng.binomial(size, mean, (replicates, len(start))), first_block, axis=1)
    return np.asarray(np.abs(drawn - expected).sum(axis=1) / len(ordered), np.float64)


@dataclass(frozen=True)
class HosmerLemeshow:
    """Chi-square test of calibration over groups; secondary evidence: weak on few rows, rejects everything on many."""

    statistic: float | None
    degrees_of_freedom: int
    p: float | None
    """share of perfectly calibrated samples that would show this statistic or more"""
    groups: int
    sample: Sample
    """fitting: the rows that fitted the probabilities; out_of_time: any others"""
    status: Status
    n_bad: int
    n_good: int

    def to_json(self) -> dict[str, Any]:
        """Plain data; undefined numbers are None."""
        return asdict(self)


def hosmer_lemeshow(
    rows: Scored, *, sample: Sample, groups: int = GROUPS, minimum: int = MINIMUM_OF_EACH_CLASS
) -> HosmerLemeshow:
    """Sum over groups of equal count of (O - E)^2 / [n p (1 - p)], p the group's mean probability.

    About chi-square with as many degrees of freedom as groups on rows that fitted nothing (out of time, monitoring),
    two fewer on the rows that fitted the model; two fewer elsewhere would reject 11-13% of calibrated months, not 5%.
    The approximation itself rejects 7% at 30 bads, 6% at 105, 5% at 350.

    Args:
        rows: labels and probabilities.
        sample: declares which of the two holds; it cannot be seen from the rows.
        groups: at most so many; equal probabilities stay together.
        minimum: bads and goods below which the status is `insufficient`.

    Raises:
        ValueError: a sample that is neither.

    Source: Hosmer and Lemeshow, Goodness of fit tests for the multiple logistic regression model (1980), and Applied
    Logistic Regression (2000), section 5.2.5, for rows that fitted nothing.
    """
    if sample not in ("fitting", "out_of_time"):
        raise ValueError(f"expected the sample 'fitting' or 'out_of_time', got {sample!r}")
    n_bad, n_good = rows.n_bad, rows.n_good
    place, count = equal_count_groups(rows.probability, groups)
    freedom = count - 2 if sample == "fitting" else count
    if freedom < 1:
        return HosmerLemeshow(None, max(freedom, 0), None, count, sample, "undefined", n_bad, n_good)
    size = np.bincount(place, minlength=count)
    expected = np.bincount(place, weights=rows.probability, minlength=count)
    mean = np.clip(expected / size, PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR)
    observed = np.bincount(place[rows.bad], minlength=count)
    statistic = float(((observed - expected) ** 2 / (size * mean * (1 - mean))).sum())
    status = judge_counts(n_bad, n_good, minimum)
    return HosmerLemeshow(statistic, freedom, float(chdtrc(freedom, statistic)), count, sample, status, n_bad, n_good)


def equal_count_groups(probability: Floats, groups: int) -> tuple[NDArray[np.int64], int]:
    """Group (N,) of each row by ascending probability, and how many groups there are, at most `groups`.

    Cut behind the quantiles, so that equal probabilities share a group and the order of rows decides nothing.

    Raises:
        ValueError: fewer than one group.
    """
    if groups < 1:
        raise ValueError(f"expected at least one group, got {groups}")
    if len(probability) == 0:
        return np.zeros(0, np.int64), 0
    quantiles = np.quantile(probability, np.arange(1, groups) / groups, method="inverted_cdf")
    cuts = np.unique(quantiles)
    cuts = cuts[cuts < probability.max()]  # behind the largest there is nothing to group
    return np.searchsorted(cuts, probability, side="left").astype(np.int64), len(cuts) + 1

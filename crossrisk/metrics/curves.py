"""Curves that a report draws of one contender on one sample: arrays in and out; `crossrisk.pages.plots` draws them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossrisk.metrics.base import Floats


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

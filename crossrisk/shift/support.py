"""How far the target lies outside what the source has seen. Columns in, shares out.

Meant for row-wise features: the encoding clips numbers and lets rare levels share a slot, which hides what is asked
here. Telling the populations apart inside their common support stays out (`models.shallow.domain`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

TAIL = 0.001
"""The range of a number is that of all but the source's outermost 0.1% on either side: with least and largest value it
would widen with every outlier."""
DEFINITION = (
    f"a row is outside where a number lies beyond the {TAIL:.1%} or {1 - TAIL:.1%} quantile of source_fit, or where it "
    "is missing, or a category has a level, and no row of source_fit is missing or has that level"
)
MOST_FEATURES = 10

Columns = Mapping[str, NDArray[Any]]
"""name -> (n,): numbers as floats with NaN for missing, categories as objects with None for missing"""


@dataclass(frozen=True)
class FeatureShare:
    """A feature with the share of target rows that it puts outside."""

    feature: str
    share: float


@dataclass(frozen=True)
class Support:
    """Share of target rows outside the source's support, beside that of source rows held out."""

    share: float | None
    """of target rows, outside in at least one feature; None: one of the populations has no row"""
    share_home: float | None
    """the same of source rows that did not set the ranges: what there is without any shift; None: no such row"""
    features: tuple[FeatureShare, ...]
    """the largest shares of target rows, at most MOST_FEATURES, none of 0"""
    n_source: int
    n_target: int
    definition: str = DEFINITION


def support_of(source: Columns, target: Columns, *, home: Columns | None = None) -> Support:
    """Share of target rows with a value that source rows hardly or never have; see DEFINITION.

    Args:
        source: the rows that set the ranges.
        target: the rows asked about.
        home: source rows held out.

    Raises:
        ValueError: no column, or other columns in one of them.
    """
    for rows in (target, *([] if home is None else [home])):
        if not source or list(rows) != list(source):
            raise ValueError(f"expected the columns {list(source)} of every population, got {list(rows)}")
    n_source, n_target = (len(next(iter(rows.values()))) for rows in (source, target))
    if min(n_source, n_target) == 0:
        return Support(None, None, (), n_source, n_target)
    outside = {name: _outside(source[name], target[name]) for name in source}
    shares = {name: float(rows.mean()) for name, rows in outside.items()}
    ranked = sorted((name for name in shares if shares[name] > 0), key=lambda name: -shares[name])
    return Support(
        share=float(np.any(list(outside.values()), axis=0).mean()),
        share_home=None if home is None else _share(source, home),
        features=tuple(FeatureShare(name, shares[name]) for name in ranked[:MOST_FEATURES]),
        n_source=n_source,
        n_target=n_target,
    )


def _share(source: Columns, rows: Columns) -> float | None:
    outside = np.any([_outside(source[name], rows[name]) for name in source], axis=0)
    return float(outside.mean()) if len(outside) else None


def _outside(source: NDArray[Any], rows: NDArray[Any]) -> NDArray[np.bool_]:
    """Which of the rows (n,) the source's values do not reach to."""
    if source.dtype.kind != "f":
        seen = set(source.tolist())
        return np.fromiter((value not in seen for value in rows.tolist()), np.bool_, len(rows))
    known, missing = source[~np.isnan(source)], np.isnan(rows)
    unseen_gap = missing & (len(known) == len(source))
    if not len(known):
        return np.asarray(~missing, np.bool_)
    # order statistics, so that a block of ties at an end of the range is inside
    low, high = np.quantile(known, [TAIL, 1 - TAIL], method="inverted_cdf")
    return np.asarray((rows < low) | (rows > high) | unseen_gap, np.bool_)

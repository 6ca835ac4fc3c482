"""Bands of the score: ranges with a number, 1 the riskiest, a higher number safer. Boundaries in, numbers out.

Where boundaries come from is said in `band_by_points` (a portfolio's own, in points) and `band_by_tenths` (those that
a version was published with, in probability). What a lender does with a band stays out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from crossrisk.stability import NumberBins

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Bands:
    """Boundaries between bands, of the score (points, higher is safer) or of the probability (higher is riskier)."""

    quantity: Literal["score", "probability"]
    boundaries: tuple[float, ...]
    """(k,) strictly ascending; k + 1 bands"""
    source: str
    """who drew them, in words"""

    def __post_init__(self) -> None:
        if not np.isfinite(self.boundaries).all() or (np.diff(self.boundaries) <= 0).any():
            raise ValueError(f"expected finite boundaries of bands, strictly ascending, got {self.boundaries}")

    @property
    def labels(self) -> tuple[str, ...]:
        """(k + 1,) what each band holds, the riskiest first."""
        if not self.boundaries:
            return ("any",)
        ends = [f"{boundary:.6g}" for boundary in self.boundaries]
        inner = [f"{low} to {high}" for low, high in pairwise(ends)]
        if self.quantity == "score":
            return (f"below {ends[0]}", *inner, f"{ends[-1]} and above")
        return (f"above {ends[-1]}", *reversed(inner), f"up to {ends[0]}")

    def assign(self, probability: Floats, score: Floats) -> NDArray[np.int16]:
        """(n,) bands, 1 to k + 1, of (n,) probabilities of bad and (n,) points, neither with a NaN.

        A score on a boundary is in the safer of the two bands, and so is a probability on one.
        """
        if self.quantity == "score":
            return (1 + np.searchsorted(self.boundaries, score, side="right")).astype(np.int16)
        riskier = np.searchsorted(self.boundaries, probability, side="left")
        return (1 + len(self.boundaries) - riskier).astype(np.int16)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def read_bands(document: dict[str, Any]) -> Bands:
    """The bands that `Bands.to_json` wrote."""
    return Bands(document["quantity"], tuple(document["boundaries"]), document["source"])


def band_by_points(boundaries: Sequence[float]) -> Bands:
    """Bands at the boundaries of a portfolio, in points: `[560, 580]` gives below 560, 560 to 580, 580 and above."""
    return Bands("score", tuple(boundaries), "use.bands")


def band_by_tenths(bins: NumberBins) -> Bands:
    """Bands at the tenths of the probability that a version was published with: the bins of its score PSI.

    Ten, or fewer where tenths coincide. Frozen at publication, so that no later month moves a customer's band.
    """
    return Bands("probability", bins.edges, "tenths of the score at publication")

"""From probability of bad to score points, the same formula in NumPy here and in the SavedModel (`models.bundle`).

Which constants a portfolio uses is its config's business; cut-offs and decisions stay out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PROBABILITY_LIMIT = 1e-9
"""Probabilities are held within [1e-9, 1 - 1e-9]: beyond, the score would run to infinity."""


@dataclass(frozen=True)
class Scaling:
    """The points-to-double-the-odds scale of a scorecard; a higher score is safer."""

    score_at_odds: float
    """points of an account whose odds are `odds`"""
    odds: float
    """good : bad, e.g. 50.0 for 50 good to 1 bad"""
    points_to_double: float
    """points by which the score rises when good : bad doubles"""

    def __post_init__(self) -> None:
        values = (self.score_at_odds, self.odds, self.points_to_double)
        if not all(map(math.isfinite, values)) or self.odds <= 0 or self.points_to_double <= 0:
            raise ValueError(f"expected finite numbers, odds and points_to_double above 0; got {self}")

    @property
    def factor(self) -> float:
        """Points for one unit of log(good : bad)."""
        return self.points_to_double / math.log(2.0)

    @property
    def offset(self) -> float:
        """Points at odds of 1 : 1."""
        return self.score_at_odds - self.factor * math.log(self.odds)

    def score(self, probability: NDArray[np.float64]) -> NDArray[np.float64]:
        """Points (n,) of (n,) probabilities of bad: offset + factor * log((1 - p) / p).

        Source: Siddiqi, Credit Risk Scorecards (2006), chapter 6, "scaling".
        """
        p = np.clip(np.asarray(probability, np.float64), PROBABILITY_LIMIT, 1.0 - PROBABILITY_LIMIT)
        return np.asarray(self.offset + self.factor * np.log((1.0 - p) / p), np.float64)

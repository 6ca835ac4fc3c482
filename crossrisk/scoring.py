"""From probability of bad to score points and back; the same formula as in the SavedModel (`models.bundle`).

Which constants a portfolio uses is its config's business; cut-offs and decisions stay out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

PROBABILITY_LIMIT = 1e-9
"""Probabilities are held within [1e-9, 1 - 1e-9]: beyond, the score would run to infinity."""


@dataclass(frozen=True)
class Scaling:
    """The points-to-double-the-odds scale of a scorecard; a higher score is safer.

    Complete: rounding and limit belong to it, so that a card read back scores as the card that was written.
    """

    score_at_odds: float
    """points of an account whose odds are `odds`"""
    odds: float
    """good : bad, e.g. 50.0 for 50 good to 1 bad"""
    points_to_double: float
    """points by which the score rises when good : bad doubles"""
    decimals: int | None = None
    """points are rounded to so many decimals, half to even; None: not rounded"""
    probability_limit: float = PROBABILITY_LIMIT
    """probabilities are held within [limit, 1 - limit]"""

    def __post_init__(self) -> None:
        values = (self.score_at_odds, self.odds, self.points_to_double)
        if not all(map(math.isfinite, values)) or self.odds <= 0 or self.points_to_double <= 0:
            raise ValueError(f"expected finite numbers, odds and points_to_double above 0; got {self}")
        if not 0 < self.probability_limit < 0.5:
            raise ValueError(f"expected a probability_limit above 0 and below 0.5, got {self.probability_limit}")

    @property
    def factor(self) -> float:
        """Points for one unit of log(good : bad)."""
        return self.points_to_double / math.log(2.0)

    @property
    def offset(self) -> float:
        """Points at odds of 1 : 1."""
        return self.score_at_odds - self.factor * math.log(self.odds)

    def score(self, probability: NDArray[np.float64]) -> NDArray[np.float64]:
        """Points (n,) of (n,) probabilities of bad: offset + factor * log((1 - p) / p), rounded where so declared.

        Source: Siddiqi, Credit Risk Scorecards (2006), chapter 6, "scaling".
        """
        p = np.clip(np.asarray(probability, np.float64), self.probability_limit, 1.0 - self.probability_limit)
        points = self.offset + self.factor * np.log((1.0 - p) / p)
        return np.asarray(points if self.decimals is None else np.round(points, self.decimals), np.float64)

    def probability(self, score: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probabilities of bad (n,) of (n,) points: 1 / (1 + exp((score - offset) / factor)), held within the limit.

        The inverse of `score` up to its rounding and limit.
        """
        points = np.asarray(score, np.float64)
        p = expit((self.offset - points) / self.factor)
        return np.asarray(np.clip(p, self.probability_limit, 1.0 - self.probability_limit), np.float64)

    def to_json(self) -> dict[str, Any]:
        """Plain data with every constant, rounding and limit included."""
        return asdict(self)


def read_scaling(document: Mapping[str, Any]) -> Scaling:
    """The scale that `Scaling.to_json` wrote.

    Raises:
        ValueError: a constant is missing or unknown: a card that falls back on a default scores differently.
    """
    expected = set(Scaling.__dataclass_fields__)
    if set(document) != expected:
        raise ValueError(f"expected the constants {sorted(expected)} of a scale, got {sorted(document)}")
    return Scaling(**document)

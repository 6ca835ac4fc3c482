"""What a domain classifier found: how well features tell target from source.

The classifier itself is fitted in `models.shallow.domain`.
"""

from __future__ import annotations

from dataclasses import dataclass

from crossrisk.metrics import Status

DIFFERENT_AUC = 0.55
"""Domain AUC below which the features are called alike: less than a tenth of all pairs ordered beyond chance."""
DEFINED_AUC = 0.995
"""Domain AUC from which the features define the split: a density ratio would be 0 or infinite almost everywhere."""
NOTICED_Z = 3.0
"""standard errors above .5; they leave out the classifier's own training noise"""


@dataclass(frozen=True)
class FeatureGap:
    """A feature alone as a domain classifier."""

    feature: str
    auc: float
    """P(a target row's value lies above a source row's), ties half; below .5 it is lower in the target"""


@dataclass(frozen=True)
class DomainGap:
    """How well features tell target from source."""

    status: Status
    auc: float | None
    """cross-fitted; .5: not at all, 1: always"""
    standard_error: float | None
    features: tuple[FeatureGap, ...]
    """those that tell most alone, ranked"""
    defining: tuple[str, ...]
    """where the AUC is about 1: the fewest of them that define the split together"""
    n_source: int
    n_target: int

    @property
    def differs(self) -> bool:
        """Whether the populations differ in their features, beyond noise and by more than a trifle."""
        if self.auc is None or self.standard_error is None:
            return False
        return self.auc >= DIFFERENT_AUC and self.auc - 0.5 > NOTICED_Z * self.standard_error

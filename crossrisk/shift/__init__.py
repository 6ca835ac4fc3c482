"""Shift between source and target, diagnosed before any transfer is trusted.

Arrays in, frozen results out; no files, no training. Five findings: do features differ (`DomainGap`, fitted in
`models.shallow.domain`), how much of the target lies where the source has no rows (`support_of`), what bad rate label
shift would imply (`estimate_label_shift`), does the level hold (`level_shift`), do risk drivers differ
(`concept_shift`); and what they mean together (`Diagnosis`).
"""

from crossrisk.shift.concept import Carrier, ConceptShift, HomeError, auc_at_stake, concept_shift, measure_home_error
from crossrisk.shift.diagnosis import Diagnosis, Kind, read_diagnosis
from crossrisk.shift.domain import DEFINED_AUC, DomainGap, FeatureGap
from crossrisk.shift.label import LabelShift, estimate_label_shift
from crossrisk.shift.level import LevelShift, level_shift
from crossrisk.shift.support import FeatureShare, Support, support_of

__all__ = [
    "DEFINED_AUC",
    "Carrier",
    "ConceptShift",
    "Diagnosis",
    "DomainGap",
    "FeatureGap",
    "FeatureShare",
    "HomeError",
    "Kind",
    "LabelShift",
    "LevelShift",
    "Support",
    "auc_at_stake",
    "concept_shift",
    "estimate_label_shift",
    "level_shift",
    "measure_home_error",
    "read_diagnosis",
    "support_of",
]

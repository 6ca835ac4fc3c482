"""Everything that is said about the calibration of one column of probabilities, in one call: `assess`.

Labels and probabilities in, one frozen result out; no files, no plots. Each part is computed in its own module beside
this one; ranking (AUC, KS) and comparison of contenders stay out.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from numpy.typing import ArrayLike

from crossrisk.metrics.base import MINIMUM_OF_EACH_CLASS, Metric
from crossrisk.metrics.calibration import calibration_intercept, calibration_slope, observed_expected
from crossrisk.metrics.grades import Grade, Grading, grade_table
from crossrisk.metrics.groups import (
    GROUPS,
    CalibrationError,
    HosmerLemeshow,
    Sample,
    expected_calibration_error,
    hosmer_lemeshow,
)
from crossrisk.metrics.losses import brier, brier_skill, log_loss
from crossrisk.metrics.rows import Unknown, is_known, scored


@dataclass(frozen=True)
class Assessment:
    """Calibration of one column of probabilities of bad on one sample."""

    n_bad: int
    n_good: int
    excluded: int
    """rows left out because their label or probability is unknown"""
    confidence: float
    """share of every interval"""
    mean_probability: float | None
    bad_rate: float | None
    brier: Metric
    brier_skill: Metric
    log_loss: Metric
    observed_expected: Metric
    intercept: Metric
    slope: Metric
    calibration_error: CalibrationError
    hosmer_lemeshow: HosmerLemeshow
    grades: tuple[Grade, ...]
    """one for every grade of the scale; empty where no grading was given"""

    def to_json(self) -> dict[str, Any]:
        """Plain data; undefined numbers are None."""
        return asdict(self)


def assess(
    label: ArrayLike,
    probability: ArrayLike,
    *,
    sample: Sample,
    seed: int,
    grading: Grading | None = None,
    groups: int = GROUPS,
    confidence: float = 0.95,
    minimum: int = MINIMUM_OF_EACH_CLASS,
    unknown: Unknown = "refuse",
) -> Assessment:
    """Judge the calibration of probabilities of bad on one sample.

    One class, equal probabilities, separated classes, empty grades and no rows at all are statuses of what they touch,
    never exceptions; the rest is computed.

    Args:
        label: (N,) 1 = bad, 0 = good.
        probability: (N,) of bad, in [0, 1].
        sample: `fitting` where these rows fitted the probabilities, `out_of_time` otherwise.
        seed: of the null of the calibration error.
        grading: grade of each of the N rows on a frozen scale (`crossrisk.metrics.grades`).
        groups: of equal count, for the calibration error and Hosmer-Lemeshow.
        confidence: share of every interval.
        minimum: bads and goods below which a status is `insufficient`.
        unknown: `refuse` raises on null or non-finite rows; `exclude` leaves them out and counts them.

    Raises:
        ValueError: rows that `crossrisk.metrics.rows.scored` refuses, or a grading of other length.
    """
    rows = scored(label, probability, unknown=unknown)
    n = len(rows.bad)
    if grading is not None:
        if len(grading.place) != n + rows.excluded:
            raise ValueError(f"expected a grade for each of {n + rows.excluded} rows, got {len(grading.place)}")
        grading = Grading(grading.names, grading.place[is_known(label, probability)])
    return Assessment(
        n_bad=rows.n_bad,
        n_good=rows.n_good,
        excluded=rows.excluded,
        confidence=confidence,
        mean_probability=float(rows.probability.mean()) if n else None,
        bad_rate=rows.n_bad / n if n else None,
        brier=brier(rows, confidence=confidence, minimum=minimum),
        brier_skill=brier_skill(rows, confidence=confidence, minimum=minimum),
        log_loss=log_loss(rows, confidence=confidence, minimum=minimum),
        observed_expected=observed_expected(rows, confidence=confidence, minimum=minimum),
        intercept=calibration_intercept(rows, confidence=confidence, minimum=minimum),
        slope=calibration_slope(rows, confidence=confidence, minimum=minimum),
        calibration_error=expected_calibration_error(rows, seed=seed, groups=groups, minimum=minimum),
        hosmer_lemeshow=hosmer_lemeshow(rows, sample=sample, groups=groups, minimum=minimum),
        grades=() if grading is None else grade_table(rows, grading, confidence=confidence, minimum=minimum),
    )

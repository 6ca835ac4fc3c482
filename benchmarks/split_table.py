"""What the draws of the credit splits show: mean AUCs, paired differences with intervals, verdicts, targets.

Arrays in, frozen results out; no files, no fits, no pictures. How it is said is `split_text`'s.

The interval of a difference. R draws of the labelled rows are judged on the same n test rows, and the figure is the
mean over draws of AUC(first) - AUC(second). Two things move it. Test rows: the mean is a linear combination of the 2 R
AUCs, whose variance DeLong's covariances give with nothing resampled; averaging R variances in their place would be
wrong, for the errors of the draws are those of the same rows and do not average out. The draw (which labels, which
source rows, which seeds): the variance of the R differences, over R. That variance also holds what a draw does to
single test rows, which DeLong's has counted: it is found as what averaging took from the mean of the R variances, and
taken off. Draws come from one pool of target rows and overlap, so what another pool would have given is not in it.
Student's t with Satterthwaite's degrees of freedom, for ten draws are few. With one draw only the test rows' noise is
in the interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from credit_splits import ROOM, Split
from numpy.typing import NDArray
from scipy.special import stdtrit
from split_lineup import (  # fmt: skip
    ADAPTERS,
    CHOSEN,
    CHOSEN_POOLED,
    FINE_TUNED,
    REFERENCES,
    REFERENCES_POOLED,
    SOURCE_NETWORK,
    UNALIGNED,
    at_weight,
    unaligned_of,
    weights_of,
)

from crossrisk.contenders import TARGET_ONLY
from crossrisk.metrics.base import Floats, critical_z
from crossrisk.metrics.calibration import observed_expected
from crossrisk.metrics.delong import PairedAreas, paired_areas
from crossrisk.metrics.rows import scored

CONFIDENCE = 0.95
WELL_CALIBRATED = (0.9, 1.1)
GAIN = 0.02
"""points of AUC by which the chosen contender is to beat the best target-only one where there is room"""
FEW_BADS = 100
"""labelled target bads at which that is asked"""

Verdict = Literal["helps", "does nothing", "hurts"]


@dataclass(frozen=True)
class Interval:
    """A value and its 95% interval."""

    value: float
    low: float
    high: float

    @property
    def verdict(self) -> Verdict:
        """Of a difference: whether the interval leaves out 0, and on which side."""
        if self.low > 0:
            return "helps"
        return "hurts" if self.high < 0 else "does nothing"


@dataclass(frozen=True)
class Judged:
    """R draws of a split, judged on the same test rows."""

    split: Split
    areas: PairedAreas
    """of R * k scores, draw by draw"""
    places: Mapping[str, NDArray[np.intp]]
    """contender, candidate or chosen -> (R,) which of these scores is its"""
    observed_expected: Mapping[str, Floats]
    """chosen -> (R,)"""
    observed_expected_error: Mapping[str, float]
    """chosen -> standard error of the mean log of it from the test rows"""

    @property
    def draws(self) -> int:
        """R."""
        return len(next(iter(self.places.values())))

    def auc(self, name: str) -> float:
        """Mean over the draws."""
        return float(self.areas.areas[self.places[name]].mean())

    def best(self, names: Sequence[str]) -> str | None:
        """The highest mean AUC of those there are, in hindsight: the hardest of them to beat."""
        there = [name for name in names if name in self.places]
        return max(there, key=self.auc) if there else None

    def difference(self, first: str, second: str) -> Interval:
        """Mean over draws of AUC(first) - AUC(second)."""
        one, other = self.places[first], self.places[second]
        by_draw, rows = self.areas.areas[one] - self.areas.areas[other], min(self.areas.n_bad, self.areas.n_good)
        of_rows = self.variance_of_rows(first, second)
        of_one_draw = np.where(one == other, 0.0, self.areas.variances[one, other]).mean()
        return _interval(float(by_draw.mean()), of_rows, rows, by_draw, counted=max(0.0, of_one_draw - of_rows))

    def variance_of_rows(self, first: str, second: str) -> float:
        """What other test rows would do to `difference`: DeLong's variance of a linear combination of AUCs."""
        weight = np.zeros(len(self.areas.areas))
        np.add.at(weight, self.places[first], 1 / self.draws)
        np.add.at(weight, self.places[second], -1 / self.draws)
        used = np.flatnonzero(weight)
        of_pairs = self.areas.variances[np.ix_(used, used)].copy()
        np.fill_diagonal(of_pairs, 0.0)  # there stand the variances of the AUCs themselves
        # weights sum to 0, so Var(sum w A) = -1/2 sum w w' Var(A - A'): no covariances, which would cancel
        return max(0.0, -0.5 * float(weight[used] @ of_pairs @ weight[used]))

    def calibration(self, chosen: str) -> Interval:
        """Geometric mean over the draws of observed over expected."""
        logs = np.log(self.observed_expected[chosen])
        found = _interval(float(logs.mean()), self.observed_expected_error[chosen] ** 2, self.areas.n_bad, logs)
        return Interval(*(float(np.exp(bound)) for bound in (found.value, found.low, found.high)))


def judge(
    split: Split, label: NDArray[np.int8], scores: Mapping[str, Floats], chosen: Mapping[str, Sequence[str]]
) -> Judged:
    """Judge all draws of a split.

    Args:
        split: which.
        label: (n,) of the test rows.
        scores: contender or candidate -> (R, n) calibrated probabilities.
        chosen: "chosen" and "chosen_pooled" -> (R,) names of contenders.

    Raises:
        ValueError: scores of other shapes.
    """
    names, bad = list(scores), label == 1
    draws = len(scores[names[0]])
    if any(one.shape != (draws, len(label)) for one in scores.values()):
        raise ValueError(f"{split.name}: expected {draws} draws of {len(label)} scores of every contender")
    areas = paired_areas(bad, [scores[name][draw] for draw in range(draws) for name in names])
    first = np.arange(draws, dtype=np.intp) * len(names)
    places = {name: first + place for place, name in enumerate(names)}
    places |= {
        key: first + np.array([names.index(name) for name in by_draw], np.intp) for key, by_draw in chosen.items()
    }
    taken = {
        key: np.stack([scores[name][draw] for draw, name in enumerate(by_draw)]) for key, by_draw in chosen.items()
    }
    return Judged(
        split=split,
        areas=areas,
        places=places,
        observed_expected={key: bad.sum() / p.sum(axis=1) for key, p in taken.items()},
        observed_expected_error={key: _log_error(label, p.mean(axis=0)) for key, p in taken.items()},
    )


def _log_error(label: NDArray[np.int8], probability: Floats) -> float:
    """Standard error of ln(observed / expected), from the width of the metric's own interval."""
    found = observed_expected(scored(label, probability), confidence=CONFIDENCE)
    low, high = found.low or np.nan, found.high or np.nan  # NaN without bads or goods: no interval at all
    return float(np.log(high / low) / (2 * critical_z(CONFIDENCE)))


def _interval(value: float, of_rows: float, rows: int, by_draw: Floats, *, counted: float = 0.0) -> Interval:
    """value +/- t SE of the two sources of noise together; see the module.

    Args:
        value: mean over the draws.
        of_rows: variance of `value` from the test rows.
        rows: of the smaller class.
        by_draw: (R,) values.
        counted: mean variance from the test rows of a single draw, less `of_rows`: (R - 1) / R of what a draw does to
            single rows, which `of_rows` holds and the variance of `by_draw` holds again.
    """
    draws = len(by_draw)
    of_draws = max(0.0, float(by_draw.var(ddof=1)) - counted * draws / (draws - 1)) / draws if draws > 1 else 0.0
    variance = of_rows + of_draws
    if variance == 0:
        return Interval(value, value, value)
    freedom = variance**2 / (of_rows**2 / (rows - 1) + of_draws**2 / max(draws - 1, 1))
    half = float(stdtrit(freedom, (1 + CONFIDENCE) / 2)) * variance**0.5
    return Interval(value, value - half, value + half)


# --- contrasts ---


@dataclass(frozen=True)
class Contrast:
    """A question that is asked of every split: first minus second."""

    title: str
    first: str
    second: Sequence[str]
    """the best of these"""

    @property
    def method(self) -> str:
        """What is asked about, whatever its weight."""
        return self.first.partition("@")[0]

    def ask(self, judged: Judged) -> Interval | None:
        """The difference; None where one of the two was not fitted."""
        second = judged.best(self.second)
        if self.first not in judged.places or second is None:
            return None
        return judged.difference(self.first, second)


OF_CHOSEN = tuple(
    contrast
    for chosen, pooled, references in (
        (CHOSEN, "", REFERENCES),
        (CHOSEN_POOLED, ", pooling allowed", REFERENCES_POOLED),
    )
    for contrast in (
        Contrast(f"chosen{pooled} - best target-only", chosen, TARGET_ONLY),
        Contrast(f"chosen{pooled} - best reference", chosen, references),
    )
)
OF_METHODS = (
    Contrast(f"{FINE_TUNED} - {SOURCE_NETWORK}", FINE_TUNED, (SOURCE_NETWORK,)),
    Contrast(f"{UNALIGNED} - {SOURCE_NETWORK}", UNALIGNED, (SOURCE_NETWORK,)),
    *(
        contrast
        for name in ADAPTERS
        for contrast in (
            Contrast(f"{name} - {SOURCE_NETWORK}", name, (SOURCE_NETWORK,)),
            Contrast(f"{name} - {unaligned_of(name)}", name, (unaligned_of(name),)),
            *(
                Contrast(f"{at_weight(name, w)} - {unaligned_of(name)}", at_weight(name, w), (unaligned_of(name),))
                for w in weights_of(name)[1:]
            ),
        )
    ),
)


# --- targets ---


@dataclass(frozen=True)
class Target:
    """One target of the benchmark on one split."""

    split: Split
    title: str
    found: Interval
    missed_by: float
    """0: met"""


def check_targets(judged: Judged) -> list[Target]:
    """The targets that apply to a split: gain where there is room, never worse than a reference, calibration."""
    checked = []
    for chosen, (gain, references) in zip((CHOSEN, CHOSEN_POOLED), (OF_CHOSEN[:2], OF_CHOSEN[2:]), strict=True):
        found, split = gain.ask(judged), judged.split
        if found and split.target_bads <= FEW_BADS and round(split.room, 3) >= ROOM:
            checked.append(Target(split, f"{gain.title} at least {GAIN}", found, max(0.0, GAIN - found.value)))
        if found := references.ask(judged):
            checked.append(Target(split, f"{references.title} not beyond noise below 0", found, max(0.0, -found.high)))
        level = judged.calibration(chosen)
        low, high = WELL_CALIBRATED
        missed_by = max(0.0, low - level.value, level.value - high)
        checked.append(Target(split, f"observed/expected of {chosen} within {low} to {high}", level, missed_by))
    return checked

"""Two small populations that differ by exactly one known shift, and the true probability of every row.

Here lives the generator behind the answers that adaptation is held to: where alignment must help, where it must do no
harm, where it cannot help. Columns are plain standardised numbers; the portfolio with dates, files and realistic names
is `crossrisk.demo`. Training and judging stay out.

The source, whatever the shift. Six independent columns x ~ N(0, 1), named by COLUMNS, and

    logit P(bad | x) = INTERCEPT + ROBUST (x0 + x1) + TEMPTING t(x2),    t(v) = v where v < EDGE, else 0.

`tempting` outweighs each robust column as long as it stays below EDGE, as 97.7% of the source rows do, and says
nothing from there on. `nuisance` and the two `noise` columns have no effect.

The target, at strength s in [0, 1] (at 0 every kind is "none", to the last bit of the same seed's draws):

    none       the source again.
    covariate  x2 ~ N(4 s, (1 + s / 2)^2) and x3 ~ N(s, 1); P(bad | x) is the same function. At s = 1 tempting lies
               above EDGE for 90.9% of the rows: a source-only model reads meaning into what is now noise. The bad
               rate is then the source's within a point, because t is about 0 on average in both (it is not so
               between: 0.33 at s = 1/2).
    label      of source-like rows every bad is kept and a good with probability exp(-2 s): P(x | bad) and P(x | good)
               stay, and logit P(bad | x) rises by exactly 2 s.
    concept    x as in the source; TEMPTING becomes (1 - 2 s) TEMPTING, so that at s = 1 it reverses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from crossrisk.demo_risk import bayes_auc

Shift = Literal["none", "covariate", "label", "concept"]
SHIFTS: tuple[Shift, ...] = get_args(Shift)

COLUMNS = ("robust_a", "robust_b", "tempting", "nuisance", "noise_a", "noise_b")
TEMPTING_COLUMN, NUISANCE_COLUMN = COLUMNS.index("tempting"), COLUMNS.index("nuisance")

# Invented, and set so that the source has a bad rate of 0.231 and a best AUC of 0.856.
INTERCEPT, ROBUST, TEMPTING, EDGE = -1.8, 0.8, 1.6, 2.0

_TEMPTING_MOVES, _TEMPTING_SPREADS, _NUISANCE_MOVES = 4.0, 0.5, 1.0  # covariate, in source standard deviations
_LOGIT_RISES = 2.0  # label
_EFFECT_FALLS = 2.0  # concept, as a share of TEMPTING


@dataclass(frozen=True)
class KnownRows:
    """Rows of one population with what nobody knows of real ones."""

    x: NDArray[np.float32]
    """(n, 6) in the order of COLUMNS"""
    y: NDArray[np.float32]
    """(n,) 1 bad, 0 good, drawn from `probability`"""
    probability: NDArray[np.float64]
    """(n,) P(bad | x, population) of the row as it is stored, in (0, 1)"""

    @property
    def bad_rate(self) -> float:
        """Expected share of bads among these rows, without the noise of their labels."""
        return float(self.probability.mean())

    @property
    def best_auc(self) -> float:
        """AUC to expect on these rows of the true probability itself; no model can expect more."""
        return bayes_auc(self.probability)


@dataclass(frozen=True)
class ShiftedPopulations:
    """A source and a target with one shift between them. All four samples are drawn independently."""

    shift: Shift
    strength: float
    source_fit: KnownRows
    source_stop: KnownRows
    target_fit: KnownRows
    target_test: KnownRows
    """fresh rows of the target, for the verdict alone"""


@dataclass(frozen=True)
class ShiftSizes:
    """Rows of each sample."""

    source_fit: int = 2_000
    source_stop: int = 1_000
    target_fit: int = 1_500
    target_test: int = 4_000


def draw_shift(
    shift: Shift, seed: int, *, strength: float = 1.0, sizes: ShiftSizes | None = None
) -> ShiftedPopulations:
    """Draw both populations.

    Args:
        shift: the one thing that differs in the target.
        seed: of all draws; the source of a seed is the same whatever the shift.
        strength: of the shift, in [0, 1].
        sizes: rows of each sample; None: the defaults of `ShiftSizes`.

    Raises:
        ValueError: on an unknown shift, a strength outside [0, 1] or a sample without rows.
    """
    if shift not in SHIFTS:
        raise ValueError(f"unknown shift {shift!r}; expected one of {', '.join(SHIFTS)}")
    if not 0.0 <= strength <= 1.0:
        raise ValueError(f"strength must lie in [0, 1], got {strength}")
    sizes = ShiftSizes() if sizes is None else sizes
    fit, stop, target, test = (np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(4))
    return ShiftedPopulations(
        shift=shift,
        strength=strength,
        source_fit=_draw(fit, sizes.source_fit, "none", 0.0),
        source_stop=_draw(stop, sizes.source_stop, "none", 0.0),
        target_fit=_draw(target, sizes.target_fit, shift, strength),
        target_test=_draw(test, sizes.target_test, shift, strength),
    )


def bad_probability(x: NDArray[np.float32], shift: Shift = "none", strength: float = 1.0) -> NDArray[np.float64]:
    """P(bad | x) (n,) of rows (n, 6) in the target of this shift; without one, in the source."""
    robust_a, robust_b, tempting = x[:, :3].astype(np.float64).T
    effect = TEMPTING * (1.0 - _EFFECT_FALLS * strength) if shift == "concept" else TEMPTING
    logit = INTERCEPT + ROBUST * (robust_a + robust_b) + effect * np.where(tempting < EDGE, tempting, 0.0)
    if shift == "label":
        logit += _LOGIT_RISES * strength
    return np.asarray(1.0 / (1.0 + np.exp(-logit)), np.float64)


def _draw(rng: np.random.Generator, rows: int, shift: Shift, strength: float) -> KnownRows:
    if rows < 1:
        raise ValueError(f"every sample needs at least 1 row, got {rows}")
    if shift == "label":
        return _draw_thinned(rng, rows, strength)
    x = rng.normal(size=(rows, len(COLUMNS)))
    if shift == "covariate":
        x[:, TEMPTING_COLUMN] *= 1.0 + _TEMPTING_SPREADS * strength
        x[:, TEMPTING_COLUMN] += _TEMPTING_MOVES * strength
        x[:, NUISANCE_COLUMN] += _NUISANCE_MOVES * strength
    stored = x.astype(np.float32)
    probability = bad_probability(stored, shift, strength)
    return KnownRows(stored, (rng.random(rows) < probability).astype(np.float32), probability)


def _draw_thinned(rng: np.random.Generator, rows: int, strength: float) -> KnownRows:
    """Source-like rows of which every bad is kept and a good with probability exp(-2 strength).

    By Bayes' rule the odds of bad rise by the inverse of that share at every x, and P(x | y) is as it was.
    """
    x, y = np.empty((0, len(COLUMNS)), np.float32), np.empty(0, np.float32)
    while len(y) < rows:
        drawn = _draw(rng, rows, "none", 0.0)
        kept = (drawn.y == 1.0) | (rng.random(rows) < np.exp(-_LOGIT_RISES * strength))
        x, y = np.concatenate([x, drawn.x[kept]]), np.concatenate([y, drawn.y[kept]])
    return KnownRows(x[:rows], y[:rows], bad_probability(x[:rows], "label", strength))

"""Weight of evidence (WOE) and information value (IV) of one feature, and the noise behind them.

Counts a bin in, frozen results out; no files, no plots. Bins are frozen elsewhere, with missing, each special code and
unseen categories in bins of their own: how rows are put into bins stays out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import chdtrc, chdtri, chndtr, chndtrinc

from crossrisk.metrics.base import MINIMUM_OF_EACH_CLASS, Floats, Metric, status_of
from crossrisk.metrics.rows import tail

Sign = Literal["ln(bad/good)", "ln(good/bad)"]
Verdict = Literal["above noise", "not above noise", "undefined"]

SMOOTHING = 0.5
"""Added to every count, once for WOE, IV and their errors alike: p_b = (b_i + 1/2) / (m + K/2)."""
NULL_TAIL = 0.05
"""The critical value is exceeded by this share of features that carry nothing."""
IV_INTERVAL = "non-central chi-square"


@dataclass(frozen=True)
class WoeBin:
    """What one bin says about risk."""

    name: str
    n_bad: int
    n_good: int
    woe: float | None
    """in the declared sign; None where the bin has no row"""
    standard_error: float | None
    """of the WOE, by the delta method"""
    contribution: float | None
    """to the IV, at least 0"""


@dataclass(frozen=True)
class InformationValue:
    """The IV of one feature beside the IV of a feature that carries nothing."""

    sign: Sign
    """declared: packages differ in it, and a scorecard turns round with it"""
    bins: tuple[WoeBin, ...]
    iv: Metric
    """IV of these counts, biased upward by `null_mean`; the interval is for the IV without noise and is not"""
    net: float | None
    """max(0, IV - null_mean): the IV less its noise; about unbiased where the IV is clearly above it"""
    null_mean: float | None
    """(K - 1) (1/m + 1/n): the mean IV of a feature that carries nothing"""
    critical: float | None
    """IV that a feature that carries nothing exceeds in 5% of samples"""
    p: float | None
    """share of such features that would show this IV or more"""
    verdict: Verdict

    def to_json(self) -> dict[str, Any]:
        """Plain data; undefined numbers are None."""
        return asdict(self)


def information_value(
    bads: ArrayLike,
    goods: ArrayLike,
    *,
    names: Sequence[str],
    sign: Sign,
    confidence: float = 0.95,
    minimum: int = MINIMUM_OF_EACH_CLASS,
) -> InformationValue:
    """WOE of every bin, the IV over them, and whether the IV is above noise.

    WOE_i = ln(p_b / p_g) or its negative, IV = sum (p_b - p_g) ln(p_b / p_g), with p_b = (b_i + 1/2) / (m + K/2) and
    p_g likewise, over the K bins that have a row; a bin without any says nothing and is left out. For a feature that
    carries nothing IV / (1/m + 1/n) is about chi-square with K - 1 degrees of freedom, and non-central with
    IV_true / (1/m + 1/n) for one that does: inverted, that gives the interval, which covers 93-96% for true IVs from 0
    to 0.7 (tests). The bins must have been cut without these labels: a tree cuts noise until it passes.

    Args:
        bads: (B,) bads in each bin.
        goods: (B,) goods in each bin.
        names: (B,) what each bin is called.
        sign: which way the WOE points.
        confidence: share of the interval.
        minimum: bads and goods below which the status is `insufficient`.

    Raises:
        ValueError: three lengths, counts that are not whole or negative, or a sign that is neither.
    """
    b, g = _counts(bads, goods, names)
    if sign not in ("ln(bad/good)", "ln(good/bad)"):
        raise ValueError(f"expected the sign 'ln(bad/good)' or 'ln(good/bad)', got {sign!r}")
    m, n, kinds = int(b.sum()), int(g.sum()), int(np.count_nonzero(b + g))
    status = status_of(m, n, minimum)
    if status == "undefined":
        bins = tuple(
            WoeBin(name, int(bad), int(good), None, None, None) for name, bad, good in zip(names, b, g, strict=True)
        )
        nothing = Metric(None, None, None, status, m, n)
        return InformationValue(sign, bins, nothing, None, None, None, None, "undefined")
    bins = _bins(b, g, names, kinds, direction=1 if sign == "ln(bad/good)" else -1)
    value = math.fsum(each.contribution or 0.0 for each in bins)
    noise, freedom = 1 / m + 1 / n, kinds - 1
    if freedom == 0:  # one bin holds every row: it cannot tell bads from goods, by noise or otherwise
        return InformationValue(
            sign, bins, Metric(0.0, None, None, status, m, n), 0.0, 0.0, 0.0, 1.0, "not above noise"
        )
    low, high = _true_values(value / noise, freedom, tail(confidence))
    critical = float(chdtri(freedom, NULL_TAIL)) * noise
    return InformationValue(
        sign=sign,
        bins=bins,
        iv=Metric(value, low * noise, high * noise, status, m, n, IV_INTERVAL),
        net=max(0.0, value - freedom * noise),
        null_mean=freedom * noise,
        critical=critical,
        p=float(chdtrc(freedom, value / noise)),
        verdict="above noise" if value > critical else "not above noise",
    )


def _counts(bads: ArrayLike, goods: ArrayLike, names: Sequence[str]) -> tuple[Floats, Floats]:
    b, g = np.asarray(bads, np.float64), np.asarray(goods, np.float64)
    if b.ndim != 1 or not b.shape == g.shape == (len(names),):
        raise ValueError(f"expected bads and goods for {len(names)} bins, got shapes {b.shape} and {g.shape}")
    both = np.r_[b, g]
    if not (np.isfinite(both).all() and (both >= 0).all() and (both == np.floor(both)).all()):
        raise ValueError("expected whole counts of bads and goods, at least 0 a bin")
    return b, g


def _bins(b: Floats, g: Floats, names: Sequence[str], kinds: int, *, direction: int) -> tuple[WoeBin, ...]:
    all_bads, all_goods = b.sum() + SMOOTHING * kinds, g.sum() + SMOOTHING * kinds
    share_bad, share_good = (b + SMOOTHING) / all_bads, (g + SMOOTHING) / all_goods
    log_ratio = np.log(share_bad / share_good)
    contribution = (share_bad - share_good) * log_ratio
    # variance of the logarithm of a multinomial share, 1/count - 1/total, once for bads and once for goods
    error = np.sqrt(1 / (b + SMOOTHING) - 1 / all_bads + 1 / (g + SMOOTHING) - 1 / all_goods)
    columns = (b.astype(int), g.astype(int), direction * log_ratio, error, contribution)
    return tuple(
        WoeBin(name, bad, good, *(values if bad + good else (None, None, None)))
        for name, bad, good, *values in zip(names, *(column.tolist() for column in columns), strict=True)
    )


def _true_values(statistic: float, freedom: int, alpha: float) -> tuple[float, float]:
    """Least and largest non-centrality under which the statistic lies in neither tail; 0 where none is so low."""

    def reached(probability: float) -> float:
        if chndtr(statistic, freedom, 0.0) <= probability:  # even no effect at all puts the statistic higher up
            return 0.0
        return float(chndtrinc(statistic, freedom, probability))

    return reached(1 - alpha), reached(alpha)

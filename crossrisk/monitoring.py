"""What a monthly watch concludes: which month it looks at, which cohorts it may judge, and the light with its reasons.

Pure: dates, counts and finished metrics in; frozen results out. PSI is computed in `crossrisk.stability`, performance
in `crossrisk.metrics`; nothing here reads rows. A light is never green by default: what cannot be said is grey.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal

from crossrisk.config import GateConfig, Portfolio
from crossrisk.errors import ConfigError
from crossrisk.metrics import Metric
from crossrisk.stability import DETECTED_P, RED_PSI, Stability, Verdict

Light = Literal["red", "amber", "green", "grey"]
_WORST_FIRST: tuple[Light, ...] = ("red", "amber", "grey", "green")
LIGHT_OF_VERDICT: Mapping[Verdict, Light] = {
    "ok": "green",
    "detected, small": "green",
    "amber": "amber",
    "red": "red",
    "small sample": "grey",
}
MONTHS_SHOWN = 12
_FEATURES_NAMED = 5


# --- months ---


def watched_month(given: str, portfolio: Portfolio) -> str:
    """The month (YYYY-MM) to look at: the one given, else the last that ended a reporting lag before as_of, or earlier.

    Raises:
        ConfigError: a portfolio without decision dates, no month, or one that begins after as_of.
    """
    if portfolio.data.decision_date is None:
        raise ConfigError("monitoring goes by month and needs data.decision_date, which is not set")
    if not given:
        return last_complete_month(portfolio.as_of - timedelta(days=portfolio.label.reporting_lag_days))
    if not re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])", given):
        raise ConfigError(f"month: expected YYYY-MM, such as 2026-05, got {given!r}")
    if given > f"{portfolio.as_of:%Y-%m}":
        raise ConfigError(f"month {given} begins after as_of {portfolio.as_of}: nothing later may be seen")
    return given


def last_complete_month(day: date) -> str:
    """The last month (YYYY-MM) that ended on or before a day."""
    return f"{(day + timedelta(days=1)).replace(day=1) - timedelta(days=1):%Y-%m}"


def months_up_to(month: str, count: int = MONTHS_SHOWN) -> tuple[str, ...]:
    """`count` months ending with `month` (YYYY-MM), oldest first."""
    last = 12 * int(month[:4]) + int(month[5:]) - 1
    return tuple(f"{number // 12:04d}-{number % 12 + 1:02d}" for number in range(last - count + 1, last + 1))


@dataclass(frozen=True)
class Cohort:
    """A month's rows whose labels are known at as_of and were not seen in training."""

    month: str
    bads: int
    goods: int


def newest_sufficient(cohorts: Sequence[Cohort], minimum: int) -> tuple[str, ...]:
    """The fewest newest months that together hold `minimum` bads and goods; all with a row where none suffice.

    A month of a few hundred loans holds a dozen bads: judged alone it would be grey for ever.

    Args:
        cohorts: oldest first.
        minimum: bads, and goods, needed.
    """
    chosen: list[str] = []
    bads = goods = 0
    for cohort in reversed(cohorts):
        if cohort.bads + cohort.goods:
            chosen.insert(0, cohort.month)
        bads, goods = bads + cohort.bads, goods + cohort.goods
        if min(bads, goods) >= minimum:
            break
    return tuple(chosen)


# --- lights ---


@dataclass(frozen=True)
class Signal:
    """One thing looked at, its light, and why, in one sentence."""

    name: str
    light: Light
    reason: str


def overall(signals: Sequence[Signal]) -> Light:
    """Red or amber where any signal is; else grey where any could not be judged; green only where all are.

    Raises:
        ValueError: no signal.
    """
    if not signals:
        raise ValueError("no signal: a light needs something that was looked at")
    return min((signal.light for signal in signals), key=_WORST_FIRST.index)


def judge_score(score: Stability) -> Signal:
    """The light of the score's PSI, by its verdict."""
    light = LIGHT_OF_VERDICT[score.verdict]
    if score.value is None or score.p is None or score.critical is None:
        return Signal("score PSI", "grey", "score PSI: no target row in this month")
    found = f"score PSI {score.value:.3f} on {score.n:,} rows"
    reasons: Mapping[Verdict, str] = {
        "ok": f"{found}: not beyond the noise of so many rows (95% of months without a shift: {score.critical:.3f})",
        "detected, small": f"{found}: a shift (p = {score.p:.1g}), too small to matter",
        "amber": f"{found}: shifted, p = {score.p:.1g}",
        "red": f"{found}: shifted far, p = {score.p:.1g}",
        "small sample": f"{found}: too few to tell, noise alone reaches {score.critical:.3f}",
    }
    return Signal("score PSI", light, reasons[score.verdict])


def judge_features(features: Mapping[str, Stability]) -> Signal:
    """Amber where a feature has shifted far beyond noise; a feature alone is never red, for it may not move the score.

    Among many features some pass any p by chance: one counts where p < 0.001 / number of features (Bonferroni). Not
    0.01: chi-square understates the far tail of PSI in small months, and 292 features of 100 rows each without a shift
    would be amber in 5% of months; so they are in 1%, and in none from 200 rows on (simulated).
    """
    name = "feature PSI"
    judged = {feature: s for feature, s in features.items() if s.value is not None and s.p is not None}
    if not judged:
        return Signal(name, "grey", "feature PSI: no target row in this month")
    limit = DETECTED_P / len(judged)
    far = [feature for feature, s in judged.items() if (s.value or 0) >= RED_PSI and (s.p or 0) < limit]
    if far:
        far.sort(key=lambda feature: (-(judged[feature].value or 0), feature))
        more = f" and {len(far) - _FEATURES_NAMED} more" if len(far) > _FEATURES_NAMED else ""
        shown = ", ".join(far[:_FEATURES_NAMED]) + more
        return Signal(name, "amber", f"{len(far)} of {len(judged)} features shifted far: {shown}")
    small = sum(s.verdict == "small sample" for s in judged.values())
    if small:
        rows = next(iter(judged.values())).n
        return Signal(
            name, "grey", f"feature PSI: {rows:,} rows are too few to tell for {small} of {len(judged)} features"
        )
    return Signal(name, "green", f"feature PSI: none of {len(judged)} features shifted far beyond noise")


def judge_auc(auc: Metric | None, recorded: float | None, gate: GateConfig, months: Sequence[str]) -> Signal:
    """Red where the interval ends below the gate's floor, amber where it leaves out the AUC recorded at publication."""
    where = _span(months)
    if auc is None or auc.status != "ok" or auc.low is None or auc.high is None:
        return Signal("AUC", "grey", _too_few("AUC", auc, gate, where))
    found = f"AUC {auc.value:.3f} ({auc.low:.3f}–{auc.high:.3f}) on {auc.n_bad:,} bads of {where}"
    if auc.high < gate.auc_floor:
        return Signal("AUC", "red", f"{found}: below the floor of {gate.auc_floor:.3f}")
    if recorded is None:
        return Signal("AUC", "grey", f"{found}: none was recorded at publication to compare it with")
    if not auc.low <= recorded <= auc.high:
        side = "below" if auc.high < recorded else "above"
        return Signal("AUC", "amber", f"{found}: {side} the {recorded:.3f} at publication, beyond noise")
    return Signal("AUC", "green", f"{found}: not told apart from the {recorded:.3f} at publication")


def judge_calibration(ratio: Metric | None, gate: GateConfig, months: Sequence[str]) -> Signal:
    """Amber where the interval of observed/expected leaves out 1, red where the value lies outside the gate's too."""
    name, where = "observed/expected", _span(months)
    if ratio is None or ratio.status != "ok" or ratio.value is None or ratio.low is None or ratio.high is None:
        return Signal(name, "grey", _too_few(name, ratio, gate, where))
    found = f"observed/expected {ratio.value:.2f} ({ratio.low:.2f}–{ratio.high:.2f}) on {ratio.n_bad:,} bads of {where}"
    if ratio.low <= 1 <= ratio.high:
        return Signal(name, "green", f"{found}: not told apart from 1")
    said = "understated" if ratio.value > 1 else "overstated"
    low, high = gate.observed_expected
    if not low <= ratio.value <= high:
        return Signal(name, "red", f"{found}: risk is {said}, outside {low:.2f} to {high:.2f}")
    return Signal(name, "amber", f"{found}: risk is {said}, within {low:.2f} to {high:.2f}")


def _too_few(name: str, metric: Metric | None, gate: GateConfig, where: str) -> str:
    if metric is None:
        return f"{name}: no label is known yet that training has not seen"
    counts = f"{metric.n_bad:,} bads and {metric.n_good:,} goods of {where}"
    return f"{name}: {counts}, {gate.min_test_bads} of each needed"


def _span(months: Sequence[str]) -> str:
    if not months:
        return "no month"
    return months[0] if len(months) == 1 else f"{months[0]} to {months[-1]}"

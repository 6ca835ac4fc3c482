"""The rules of the gate, one function each: evidence and config in, a check out, whatever the other rules say.

Every rule is checked in every run, so that each number stands beside its limit (`crossrisk decide --explain`); what
verdict follows is `crossrisk.policy`. Limits, their defaults and reasons: `crossrisk.config.GateConfig`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from crossrisk.config import GateConfig
from crossrisk.evidence import Evidence
from crossrisk.metrics import HIGHER_IS_BETTER, Difference, Metric

Outcome = Literal["pass", "fail", "ask", "unknown", "not applicable"]
"""`fail` refuses; `ask`: a person decides; `unknown`: the number is missing, which never promotes"""


@dataclass(frozen=True)
class Check:
    """One rule against one number."""

    rule: str
    limit: str
    """the rule with its numbers, as it stood before the run"""
    found: str
    """the number it was held against"""
    outcome: Outcome

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.rule}: {self.found} (rule: {self.limit})"


def alpha_of_look(alpha: float, look: int) -> float:
    """The part of alpha that the look-th test of the same rows may spend: alpha * 6 / (pi * look)^2.

    The parts of any number of looks sum to at most alpha (Basel: sum of 1/k^2 = pi^2/6), so a champion that is as good
    as its challengers is replaced with probability alpha at most, however many months the same test is looked at.
    A single look spends all of alpha's first part only; the rest is kept for the looks to come.

    Raises:
        ValueError: look below 1.
    """
    if look < 1:
        raise ValueError(f"looks count from 1, got {look}")
    return alpha * 6 / (math.pi * look) ** 2


def check_rules(evidence: Evidence, gate: GateConfig) -> tuple[Check, ...]:
    """Every rule but the primary one, in the order in which a reader wants them."""
    return tuple(rule(evidence, gate) for rule in _RULES)


# --- floors: what any model must show ---


def _auc_floor(evidence: Evidence, gate: GateConfig) -> Check:
    auc = evidence.metrics["auc"]
    limit = f"the AUC interval starts above {gate.auc_floor:.3f}"
    outcome = _few(evidence, gate) or _pass(auc.low is not None and auc.low > gate.auc_floor)
    return Check("auc floor", limit, metric_text(auc), outcome)


def _auc_ceiling(evidence: Evidence, gate: GateConfig) -> Check:
    auc = evidence.metrics["auc"]
    limit = f"the AUC interval does not lie above {gate.auc_ceiling:.3f}, which is a leak until a person has looked"
    lowest = auc.low if auc.low is not None else auc.value  # an AUC of exactly 1 has no interval
    outcome = _few(evidence, gate) or _pass(lowest is None or lowest <= gate.auc_ceiling)
    return Check("auc ceiling", limit, metric_text(auc), outcome)


def _leaks(evidence: Evidence, gate: GateConfig) -> Check:
    limit = "no feature alone tells bad from good implausibly well"
    return Check("leaks", limit, "; ".join(evidence.leaks) or "none", "ask" if evidence.leaks else "pass")


def _observed_expected(evidence: Evidence, gate: GateConfig) -> Check:
    ratio, (low, high) = evidence.metrics["observed_expected"], gate.observed_expected
    limit = f"observed/expected lies within {low:.2f} to {high:.2f}"
    outcome = _few(evidence, gate) or _pass(ratio.value is not None and low <= ratio.value <= high)
    return Check("observed/expected", limit, metric_text(ratio), outcome)


def _calibration_slope(evidence: Evidence, gate: GateConfig) -> Check:
    slope, (low, high) = evidence.metrics.get("calibration_slope"), gate.calibration_slope
    limit = f"the interval of the calibration slope reaches {low:.2f} to {high:.2f}"
    if slope is None or slope.low is None or slope.high is None:
        return Check("calibration slope", limit, "undefined", _few(evidence, gate) or "fail")
    outcome = _few(evidence, gate) or _pass(slope.low <= high and slope.high >= low)
    return Check("calibration slope", limit, metric_text(slope), outcome)


# --- guardrails: what a champion of another kind would not have broken ---


def _source_auc(evidence: Evidence, gate: GateConfig) -> Check:
    fall = evidence.source_auc_fall
    limit = f"a network's AUC on the source falls by at most {gate.source_auc_margin:.3f} below the source-only one's"
    if not evidence.is_network:
        return Check("source AUC", limit, "no network", "not applicable")
    return Check("source AUC", limit, _number(fall), _pass(fall is not None and fall <= gate.source_auc_margin))


def _negative_transfer(evidence: Evidence, gate: GateConfig) -> Check:
    limit = "AUC not below that of a source-only, target-only or allowed pooled model, beyond noise"
    if not evidence.alternatives:
        return Check("negative transfer", limit, "no such contender was fitted", "not applicable")
    worst = min(evidence.alternatives, key=lambda name: _or_lowest(evidence.alternatives[name].value))
    found = f"against {worst} {difference_text(evidence.alternatives[worst])}"
    highs = {name: _finite(one.high) for name, one in evidence.alternatives.items()}
    lost = sorted(name for name, high in highs.items() if high is not None and high < 0)
    if lost:
        return Check("negative transfer", limit, f"loses to {', '.join(lost)}; {found}", "fail")
    undefined = sorted(name for name, high in highs.items() if high is None)
    if undefined:
        return Check("negative transfer", limit, f"undefined against {', '.join(undefined)}", "unknown")
    return Check("negative transfer", limit, found, _few(evidence, gate) or "pass")


def _drivers(evidence: Evidence, gate: GateConfig) -> Check:
    limit = "where risk drivers differ, what target labels did not teach wins on rows against the target's own models"
    found = evidence.drivers_shift or "not diagnosed"
    if not evidence.borrows or evidence.drivers_shift != "large":
        return Check("shift of drivers", limit, found, "not applicable")
    own = {name: one for name, one in evidence.alternatives.items() if name.startswith("target_")}
    wins = bool(own) and all(one.low is not None and one.low > 0 for one in own.values())
    shown = "; ".join(f"against {name} {difference_text(one)}" for name, one in sorted(own.items()))
    return Check(
        "shift of drivers", limit, f"{found}; {shown or 'no target-only contender'}", "pass" if wins else "ask"
    )


def _score_psi(evidence: Evidence, gate: GateConfig) -> Check:
    limit = f"PSI of its score against the champion's is below {gate.score_psi:.2f}; above, cut-offs must be set anew"
    if evidence.champion is None:
        return Check("score PSI", limit, "no champion", "not applicable")
    psi = evidence.score_psi
    outcome: Outcome = "unknown" if psi is None else "pass" if psi < gate.score_psi else "ask"
    return Check("score PSI", limit, _number(psi), outcome)


def _segments(evidence: Evidence, gate: GateConfig) -> Check:
    limit = f"in no segment the AUC falls by more than {gate.segment_margin_auc:.3f} against the champion, beyond noise"
    if evidence.champion is None:
        return Check("segments", limit, "no champion", "not applicable")
    judged = [one for one in evidence.segments if min(one.n_bad, one.n_good) >= gate.min_segment_bads]
    highs = {one.name: _finite(one.difference.high) if one.difference else None for one in judged}
    undefined = sorted(name for name, high in highs.items() if high is None)
    if undefined:
        return Check("segments", limit, f"undefined in {', '.join(undefined)}", "unknown")
    fallen = sorted(name for name, high in highs.items() if high is not None and high < -gate.segment_margin_auc)
    if fallen:
        return Check("segments", limit, f"falls in {', '.join(fallen)}", "fail")
    small = len(evidence.segments) - len(judged)
    return Check("segments", limit, f"none of {len(judged)}, {small} more too small to tell", "pass")


def _latency(evidence: Evidence, gate: GateConfig) -> Check:
    found, limit = evidence.latency_p95_ms, f"one row is answered within {gate.latency_p95_ms:.0f} ms, 95 times of 100"
    shown = "not measured" if found is None else f"{found:.1f} ms"
    return Check("latency", limit, shown, _known(found, found is not None and found <= gate.latency_p95_ms))


def _size(evidence: Evidence, gate: GateConfig) -> Check:
    found, limit = evidence.size_mb, f"the SavedModel takes at most {gate.size_mb:.0f} MB"
    shown = "not measured" if found is None else f"{found:.1f} MB"
    return Check("size", limit, shown, _known(found, found is not None and found <= gate.size_mb))


_RULES: tuple[Callable[[Evidence, GateConfig], Check], ...] = (
    _auc_floor,
    _auc_ceiling,
    _leaks,
    _observed_expected,
    _calibration_slope,
    _source_auc,
    _negative_transfer,
    _drivers,
    _score_psi,
    _segments,
    _latency,
    _size,
)


# --- the primary rule ---


def check_primary(evidence: Evidence, gate: GateConfig) -> Check:
    """Challenger against champion on the primary metric: `pass` promotes, `fail` is worse beyond noise."""
    name = "primary"
    limit = primary_sentence(gate, evidence.look)
    if evidence.champion is None:
        return Check(name, limit, "no champion", "not applicable")
    if gate.rule == "none":
        return Check(name, limit, "no threshold is configured", "unknown")
    difference = evidence.differences.get(gate.primary_metric)
    found = f"{gate.primary_metric} of {evidence.challenger} minus version {evidence.champion}: "
    is_whole = difference is not None and None not in (_finite(difference.low), _finite(difference.high))
    if difference is None or difference.status != "ok" or not is_whole:
        bads = evidence.metrics["auc"].n_bad
        return Check(name, limit, f"{found}not usable with {bads} bads", "unknown")
    found += difference_text(difference)
    gain_low, gain_high = _gain(difference, gate.primary_metric)
    threshold = gate.margin if gate.rule == "superiority" else -gate.margin
    if gain_low > threshold:
        return Check(name, limit, found, "pass")
    return Check(name, limit, found, "fail" if gain_high < min(threshold, 0.0) else "unknown")


def primary_sentence(gate: GateConfig, look: int = 1) -> str:
    """The primary rule in words, with the interval that its look at these rows leaves it."""
    if gate.rule == "none":
        return "no rule: the challenger never promotes"
    interval = f"{1 - alpha_of_look(gate.alpha, look):.1%} interval of the gain in {gate.primary_metric} (look {look})"
    if gate.rule == "superiority":
        return f"better beyond noise: the {interval} lies above {gate.margin:.3f}"
    return f"not worse: the {interval} lies above {-gate.margin:.3f}"


def _gain(difference: Difference, metric: str) -> tuple[float, float]:
    """Low and high of the difference, signed so that more is better."""
    assert difference.low is not None
    assert difference.high is not None
    if metric in HIGHER_IS_BETTER:
        return difference.low, difference.high
    return -difference.high, -difference.low


# --- words and small change ---


def metric_text(metric: Metric | None) -> str:
    """Value and interval, such as "0.651 (0.620 to 0.682)"."""
    if metric is None or metric.value is None:
        return "undefined"
    interval = "" if metric.low is None or metric.high is None else f" ({metric.low:.3f} to {metric.high:.3f})"
    return f"{metric.value:.3f}{interval}"


def difference_text(difference: Difference) -> str:
    """Signed value and interval, such as "+0.0120 (-0.0031 to +0.0271)"."""
    if difference.value is None:
        return "undefined"
    interval = (
        ""
        if difference.low is None or difference.high is None
        else f" ({difference.low:+.4f} to {difference.high:+.4f})"
    )
    return f"{difference.value:+.4f}{interval}"


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def _pass(holds: bool) -> Outcome:
    return "pass" if holds else "fail"


def _known(value: float | None, holds: bool) -> Outcome:
    return "unknown" if value is None else _pass(holds)


def _finite(value: float | None) -> float | None:
    """None for NaN and infinity too: no comparison with NaN holds, so what asks for a loss would never find one."""
    return value if value is not None and math.isfinite(value) else None


def _few(evidence: Evidence, gate: GateConfig) -> Outcome | None:
    """`unknown` where the test holds too few bads or goods to hold anything against."""
    auc = evidence.metrics["auc"]
    return "unknown" if min(auc.n_bad, auc.n_good) < gate.min_test_bads else None


def _or_lowest(value: float | None) -> float:
    return -math.inf if value is None else value

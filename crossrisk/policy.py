"""The gate: evidence in, a decision with its reasons out. Pure; files move only after a decision exists.

Rules, in the order in which they are read (defaults and reasons of the numbers: `crossrisk.config.GateConfig`):

reject     an absolute floor is missed, or the challenger is worse than the champion beyond noise
bootstrap  no champion yet and every floor is met
promote    better than the champion beyond noise, by more than the margin
keep       everything else: insufficient evidence is a normal answer

Preset `article` has no gate: `decide_as_article` publishes the network and says what these rules would have said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from crossrisk.config import GateConfig
from crossrisk.metrics import Difference, Metric

Verdict = Literal["promote", "keep", "reject", "bootstrap"]


@dataclass(frozen=True)
class Evidence:
    """What the gate is shown: one challenger, judged once on untouched target rows."""

    challenger: str
    metrics: Mapping[str, Metric]
    """of the challenger on the rows that judge"""
    champion: int | None
    """version in production"""
    differences: Mapping[str, Difference]
    """metric -> challenger - champion, paired; empty without a champion"""
    source_only: bool
    """the challenger saw no target label"""
    is_network: bool = False
    """networks must go on classifying the source"""
    source_auc_fall: float | None = None
    """networks: AUC on source_stop of the source-only network minus the challenger's; None: undefined"""


@dataclass(frozen=True)
class Decision:
    """A verdict with every reason for it, in plain sentences."""

    verdict: Verdict
    challenger: str
    reasons: tuple[str, ...]

    @property
    def publishes(self) -> bool:
        """Whether the challenger becomes the champion."""
        return self.verdict in ("promote", "bootstrap")

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def decide(evidence: Evidence, gate: GateConfig) -> Decision:
    """Apply the gate. A number that is missing or undefined never promotes."""
    missed = _missed_floors(evidence, gate)
    if missed:
        return Decision("reject", evidence.challenger, tuple(missed))
    if evidence.champion is None:
        return _bootstrap(evidence, gate)
    return _compare(evidence, gate)


def decide_as_article(evidence: Evidence, gate: GateConfig) -> Decision:
    """Publish the challenger whatever the comparison says, as the article does; what it says is among the reasons.

    Whether the version can be served is no part of this: one that fails its verification is still not published.
    """
    alone = decide(evidence, gate)
    reasons = (
        f"preset article publishes {evidence.challenger} whatever the comparison says, as the article does",
        f"the comparison alone would say {alone.verdict}: {'; '.join(alone.reasons)}",
    )
    return Decision("bootstrap" if evidence.champion is None else "promote", evidence.challenger, reasons)


def _missed_floors(evidence: Evidence, gate: GateConfig) -> list[str]:
    name, missed = evidence.challenger, []
    auc, ratio = evidence.metrics["auc"], evidence.metrics["observed_expected"]
    few = auc.n_bad < gate.min_test_bads
    if not few and (auc.low is None or not auc.low > gate.auc_floor):
        missed.append(f"{name}: AUC interval starts at {_number(auc.low)}, not above the floor {gate.auc_floor:.3f}")
    low, high = gate.observed_expected
    if not few and (ratio.value is None or not low <= ratio.value <= high):
        missed.append(f"{name}: observed/expected {_number(ratio.value)} lies outside {low:.2f} to {high:.2f}")
    fall = evidence.source_auc_fall
    if evidence.is_network and (fall is None or not fall <= gate.source_auc_margin):
        missed.append(
            f"{name}: AUC on the source fell by {_number(fall)} against the source-only network, "
            f"more than {gate.source_auc_margin:.3f}: it no longer classifies the source"
        )
    return missed


def _bootstrap(evidence: Evidence, gate: GateConfig) -> Decision:
    name, auc = evidence.challenger, evidence.metrics["auc"]
    if auc.n_bad >= gate.min_test_bads:
        return Decision("bootstrap", name, (f"no champion yet; {name} meets every absolute floor",))
    claim = f"only {auc.n_bad} bads in the test, below {gate.min_test_bads}: nothing is claimed about the target"
    if evidence.source_only:
        return Decision("bootstrap", name, (f"no champion yet; {name} was fitted on the source alone", claim))
    return Decision("reject", name, (claim, f"{name} used target labels, and a first champion without a test may not"))


def _compare(evidence: Evidence, gate: GateConfig) -> Decision:
    name, difference = evidence.challenger, evidence.differences["auc"]
    if difference.status != "ok" or difference.low is None or difference.high is None or difference.value is None:
        bads = evidence.metrics["auc"].n_bad
        return Decision(
            "keep",
            name,
            (f"AUC difference to version {evidence.champion} is not usable ({bads} bads): champion stays",),
        )
    said = (
        f"AUC of {name} minus version {evidence.champion}: {difference.value:+.4f} "
        f"({difference.low:+.4f} to {difference.high:+.4f})"
    )
    if difference.low > gate.superiority_margin_auc:
        return Decision("promote", name, (f"{said}: better beyond noise, margin {gate.superiority_margin_auc:.3f}",))
    if difference.high < 0:
        return Decision("reject", name, (f"{said}: worse beyond noise",))
    return Decision("keep", name, (f"{said}: insufficient evidence, the champion stays",))


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"

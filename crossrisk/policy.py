"""The gate: evidence in, a decision with its reasons out. Pure; files move only after a decision exists.

Every rule is checked (`crossrisk.rules`), then read in this order:

reject           a floor or guardrail fails, or the challenger is worse than the champion beyond noise
bootstrap        no champion yet and every floor holds
keep             the primary rule, or a number that a rule needs, is not there: insufficient evidence is a normal answer
needs_approval   it would be published, but a rule asks for a person, or the portfolio always does
promote          the primary rule holds and so does every other

`override` is not decided here: it is what a named person made of another verdict (`settle`). Preset `article` has no
gate: `decide_as_article` publishes the network and says what these rules would have said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from crossrisk.config import GateConfig
from crossrisk.contenders import TARGET_ONLY
from crossrisk.evidence import Evidence
from crossrisk.rules import Check, check_primary, check_rules

Verdict = Literal["promote", "keep", "reject", "needs_approval", "bootstrap", "override"]
Ruling = Literal["approve", "reject", "override"]
"""What a person may say of a decision that was not carried out."""


@dataclass(frozen=True)
class Decision:
    """A verdict with every reason for it, in plain sentences, and every rule it was held against."""

    verdict: Verdict
    challenger: str
    reasons: tuple[str, ...]
    checks: tuple[Check, ...] = ()

    @property
    def publishes(self) -> bool:
        """Whether the challenger becomes the champion."""
        return self.verdict in ("promote", "bootstrap", "override")

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def read_decision(document: Mapping[str, Any]) -> Decision:
    """The decision that `to_json` wrote."""
    checks = tuple(Check(**check) for check in document["checks"])
    return Decision(document["verdict"], document["challenger"], tuple(document["reasons"]), checks)


def decide(evidence: Evidence, gate: GateConfig) -> Decision:
    """Apply the gate. A number that is missing or undefined never promotes."""
    checks = check_rules(evidence, gate)
    primary = check_primary(evidence, gate)
    verdict, reasons = _read(evidence, gate, checks, primary)
    if evidence.drivers_shift == "large" and not evidence.borrows:
        reasons.append(
            "do not transfer: risk drivers differ between the populations, and no contender that borrows leads the "
            "target's own beyond noise"
            if evidence.challenger in TARGET_ONLY
            else "risk drivers differ between the populations: the source counts for as much as the target's labels "
            "bear out"
        )
    return Decision(verdict, evidence.challenger, tuple(reasons), (primary, *checks))


def _read(evidence: Evidence, gate: GateConfig, checks: tuple[Check, ...], primary: Check) -> tuple[Verdict, list[str]]:
    failed = [check for check in checks if check.outcome == "fail"]
    if failed:
        return "reject", [str(check) for check in failed]
    if evidence.champion is None:
        return _first(evidence, gate, checks)
    if primary.outcome == "fail":
        return "reject", [f"{primary}: worse beyond noise"]
    if primary.outcome != "pass":
        return "keep", [f"{primary}: insufficient evidence, the champion stays"]
    unknown = [check for check in checks if check.outcome == "unknown"]
    if unknown:
        return "keep", [f"{check}: what is not known never promotes" for check in unknown]
    return _publish("promote", [str(primary)], gate, checks)


def _first(evidence: Evidence, gate: GateConfig, checks: tuple[Check, ...]) -> tuple[Verdict, list[str]]:
    name, auc = evidence.challenger, evidence.metrics["auc"]
    few = min(auc.n_bad, auc.n_good) < gate.min_test_bads
    unmeasured = [check for check in checks if check.outcome == "unknown" and (not few or check.rule in _OF_THE_FILE)]
    if unmeasured:
        return "reject", [f"{check}: what is not known is never published" for check in unmeasured]
    if not few:
        return _publish("bootstrap", [f"no champion yet; {name} meets every absolute floor"], gate, checks)
    claim = (
        f"only {auc.n_bad} bads and {auc.n_good} goods in the test, {gate.min_test_bads} of each needed: nothing is "
        "claimed about the target"
    )
    if evidence.source_only:
        said = [f"no champion yet; {name} was fitted on the source alone", claim]
        return _publish("bootstrap", said, gate, checks)
    return "reject", [claim, f"{name} used target labels, and a first champion without a test may not"]


_OF_THE_FILE = ("latency", "size")
"""Rules on the exported model: they need no bads."""


def _publish(
    verdict: Verdict, reasons: list[str], gate: GateConfig, checks: tuple[Check, ...]
) -> tuple[Verdict, list[str]]:
    """The verdict, or that a person must see it first."""
    asking = [str(check) for check in checks if check.outcome == "ask"]
    if asking:
        return "needs_approval", [*reasons, *asking]
    if gate.approval == "required":
        return "needs_approval", [*reasons, "gate.approval is 'required': a named person decides"]
    return verdict, reasons


def decide_under(preset: str, evidence: Evidence, gate: GateConfig) -> Decision:
    """The decision of a run: the gate's, except that preset `article` publishes its network."""
    is_articles = preset == "article" and evidence.challenger == "dan"
    return (decide_as_article if is_articles else decide)(evidence, gate)


def decide_as_article(evidence: Evidence, gate: GateConfig) -> Decision:
    """Publish the challenger whatever the comparison says, as the article does; what it says is among the reasons.

    Whether the version can be served is no part of this: one that fails its verification is still not published.
    """
    alone = decide(evidence, gate)
    reasons = (
        f"preset article publishes {evidence.challenger} whatever the comparison says, as the article does",
        f"the comparison alone would say {alone.verdict}: {'; '.join(alone.reasons)}",
    )
    return replace(alone, verdict="bootstrap" if evidence.champion is None else "promote", reasons=reasons)


def settle(decision: Decision, ruling: Ruling, *, by: str, reason: str, bootstraps: bool) -> Decision:
    """What a named person makes of a decision that was not carried out.

    Args:
        decision: of the gate.
        ruling: approve or reject what needs approval; override any verdict that published nothing.
        by: who; typed, not authenticated.
        reason: in words, kept in the ledger.
        bootstraps: there is no champion yet.

    Raises:
        ValueError: a ruling that the decision does not wait for, or an empty name or reason.
    """
    if not by.strip() or not reason.strip():
        raise ValueError("a ruling needs a name and a reason: --by NAME --reason TEXT")
    if decision.publishes:
        raise ValueError(f"the decision was {decision.verdict}: it was carried out and waits for nobody")
    if ruling != "override" and decision.verdict != "needs_approval":
        raise ValueError(
            f"the decision was {decision.verdict} and waits for no approval; what the gate refused takes an override"
        )
    said = (f"{ruling} by {by.strip()}: {reason.strip()}", *decision.reasons)
    if ruling == "reject":
        return replace(decision, verdict="reject", reasons=said)
    if ruling == "override":
        return replace(decision, verdict="override", reasons=said)
    return replace(decision, verdict="bootstrap" if bootstraps else "promote", reasons=said)

"""The decision: what was measured becomes evidence, the gate reads it. No number is computed here."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from crossrisk.config import Loaded
from crossrisk.contenders import NETWORKS, SOURCE_ONLY, TAUGHT_BY_TARGET
from crossrisk.evidence import Evidence
from crossrisk.periods import find_decision, ruling_on
from crossrisk.policy import Decision, decide_under, read_decision
from crossrisk.registry import Registry
from crossrisk.store import Stage

logger = logging.getLogger("crossrisk.decide")


@dataclass(frozen=True)
class Decided:
    """A decision with what it rests on."""

    decision: Decision
    evidence: Evidence


@task(name="decide", cache_policy=NO_CACHE)
def make_decision(
    loaded: Loaded, compared: Stage, candidate: Stage, diagnosed: Stage, leaks: Stage, question: str
) -> Decided:
    """Apply the gate to the comparison; under preset `article` the network is published whatever it says.

    A question that was decided before keeps its decision, and what a person made of it.
    """
    evidence = gather_evidence(
        loaded, compared.facts, candidate.facts, diagnosed.facts["risk_drivers"], leaks.facts["leaks"]
    )
    records = Registry(loaded.folders.registry).records()
    told = find_decision(records, question)
    if told is not None:
        logger.info("decided before, by run %s", told["run_id"])
        return Decided(read_decision((ruling_on(records, told["run_id"]) or told)["decision"]), evidence)
    decision = decide_under(loaded.portfolio.preset, evidence, loaded.portfolio.gate)
    logger.info("%s: %s", decision.verdict, "; ".join(decision.reasons))
    return Decided(decision, evidence)


def gather_evidence(
    loaded: Loaded,
    compared: Mapping[str, Any],
    candidate: Mapping[str, Any],
    drivers_shift: str,
    leaks: Sequence[str],
) -> Evidence:
    """The gate's evidence, from the facts of the stages."""
    challenger = compared["challenger"]
    return Evidence.from_json(
        {
            "challenger": challenger,
            "metrics": {**compared["metrics"][challenger], "calibration_slope": compared["slope"]},
            "champion": compared["champion"],
            "differences": compared["differences"],
            "source_only": challenger in SOURCE_ONLY,
            "borrows": challenger not in TAUGHT_BY_TARGET,
            "alternatives": compared["alternatives"],
            "segments": compared["segment_differences"],
            "score_psi": compared["score_psi"],
            "is_network": challenger in NETWORKS and loaded.portfolio.preset == "honest",
            "source_auc_fall": compared["source_auc_fall"],
            "latency_p95_ms": candidate["latency"]["p95_ms"],
            "size_mb": candidate["size_mb"],
            "leaks": leaks,
            "drivers_shift": drivers_shift,
            "look": compared["look"],
        }
    )

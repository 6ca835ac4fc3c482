"""The findings on shift together: which kinds there are, and what they mean for borrowing.

How each is estimated and when it counts as seen: `domain`, `support`, `label`, `level` and `concept` beside this file.
Nothing here decides about a contender: the gate reads `blocks_transfer`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from crossrisk.shift.concept import Carrier, ConceptShift, ConceptVerdict
from crossrisk.shift.domain import DomainGap, FeatureGap
from crossrisk.shift.label import LabelShift
from crossrisk.shift.level import LevelShift
from crossrisk.shift.sentences import say_concept, say_domain, say_label, say_level, say_support
from crossrisk.shift.support import FeatureShare, Support

Kind = Literal["covariate", "label", "level", "concept"]

MUCH_OUTSIDE = 0.05
"""share of target rows outside support beyond that of source rows held out, from which it is said among the meaning"""


@dataclass(frozen=True)
class Diagnosis:
    """What differs between source and target, in what order of weight, and what it means for borrowing."""

    contender: str | None
    """the source-only contender whose scores were used; None: there is none"""
    domain: DomainGap
    support: Support
    label: LabelShift
    level: LevelShift
    concept: ConceptShift

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of shift that were seen.

        covariate  the features differ
        concept    risk drivers differ; it changes level and slope too, so these are not named beside it
        label      only the class mix differs: the level does, and the bad rate that label shift implies agrees
        level      the level or the slope of the log odds differs at equal features, and not by class mix alone
        """
        seen: list[Kind] = ["covariate"] if self.domain.differs else []
        if self.risk_drivers in ("small", "large"):
            return (*seen, "concept")
        if self.level.moves:
            seen.append(
                "label" if not self.level.is_stretched and self.label.is_seen and self.label.agrees else "level"
            )
        return tuple(seen)

    @property
    def risk_drivers(self) -> ConceptVerdict:
        """How much risk drivers differ: as residuals show it, or `large` where the source model's slope is lost."""
        return "large" if self.level.is_lost else self.concept.verdict

    @property
    def blocks_transfer(self) -> bool:
        """Whether contenders that target labels did not teach may be chosen only where they win on rows."""
        return self.risk_drivers == "large"

    @property
    def meaning(self) -> str:
        """What follows for borrowing, in one sentence."""
        advice, concept = self._advice, self.concept
        if self.risk_drivers == "none seen" and not concept.misses_little:
            advice += f", as far as {concept.n_bad} bads can show"
        share, home = self.support.share, self.support.share_home or 0.0
        if share is None or share - home < MUCH_OUTSIDE:
            return f"{advice}."
        return f"{advice}; {share:.0%} of target rows lie where the source has no experience."

    @property
    def _advice(self) -> str:
        kinds = self.kinds
        if self.blocks_transfer:
            return "Risk drivers differ: contenders that target labels did not teach must win on rows"
        if self.risk_drivers == "insufficient":
            return "Nothing can be said about risk drivers: whether borrowing is safe must be shown on rows"
        if "concept" in kinds:
            return "Risk drivers differ a little: borrow, and let target labels correct it"
        if "label" in kinds or "level" in kinds:
            return "Borrowing changes priors only: recalibrate"
        if self.level.status != "ok":
            return "Borrowing looks safe as far as risk drivers go; levels could not be compared"
        return "Borrowing looks safe"

    @property
    def sentences(self) -> tuple[str, ...]:
        """One sentence a finding, in the order of the fields, for the memo."""
        name = self.contender or "no source-only contender"
        return (
            say_domain(self.domain),
            say_support(self.support),
            say_label(self.label),
            say_level(self.level, name),
            say_concept(self.concept, name),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data: the findings, and beside them what is derived from them."""
        return {
            **asdict(self),
            "kinds": list(self.kinds),
            "risk_drivers": self.risk_drivers,
            "blocks_transfer": self.blocks_transfer,
            "meaning": self.meaning,
            "sentences": list(self.sentences),
        }


def read_diagnosis(document: Mapping[str, Any]) -> Diagnosis:
    """The diagnosis that `Diagnosis.to_json` wrote; what is derived is derived anew."""
    domain, support, concept = document["domain"], document["support"], document["concept"]
    return Diagnosis(
        contender=document["contender"],
        domain=DomainGap(
            **{
                **domain,
                "features": tuple(FeatureGap(**f) for f in domain["features"]),
                "defining": tuple(domain["defining"]),
            }
        ),
        support=Support(**{**support, "features": tuple(FeatureShare(**f) for f in support["features"])}),
        label=LabelShift(**document["label"]),
        level=LevelShift(**document["level"]),
        concept=ConceptShift(**{**concept, "carriers": tuple(Carrier(**c) for c in concept["carriers"])}),
    )

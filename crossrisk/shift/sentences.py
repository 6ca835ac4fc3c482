"""The findings on shift in plain words, one sentence each. Findings in, text out; nothing is judged here."""

from __future__ import annotations

import math
from collections.abc import Iterable

from crossrisk.shift.concept import ConceptShift
from crossrisk.shift.domain import DomainGap
from crossrisk.shift.label import LabelShift
from crossrisk.shift.level import LevelShift
from crossrisk.shift.support import Support


def say_domain(domain: DomainGap) -> str:
    """Whether features differ, and which; what to drop before any density ratio."""
    if domain.auc is None:
        return (
            f"Too few rows to tell whether features differ ({domain.n_source} of the source, {domain.n_target} of the "
            "target)."
        )
    found = f"domain AUC {domain.auc:.2f} ± {domain.standard_error:.2f}, .50 without a difference"
    if domain.defining:
        one = len(domain.defining) == 1
        return (
            f"{_listed(domain.defining)} {'defines' if one else 'together define'} the split ({found}): drop or clip "
            f"{'it' if one else 'them'} before any density ratio."
        )
    if not domain.differs:
        return f"The populations hardly differ in their features ({found})."
    shown = [f"{f.feature} ({f.auc:.2f}, {_place(f.auc)} in the target)" for f in domain.features[:3]]
    return f"The populations differ in their features ({found}), most in {_listed(shown)}."


def say_support(support: Support) -> str:
    """How much of the target lies where the source has no rows."""
    if support.share is None:
        return "Support could not be compared: one of the populations has no row."
    home = "" if support.share_home is None else f" (held-out source rows: {support.share_home:.1%})"
    shown = [f"{f.feature} ({f.share:.1%})" for f in support.features[:3]]
    most = f", most by {_listed(shown)}" if shown else ""
    return f"{support.share:.1%} of target rows lie outside the source's support in at least one feature{home}{most}."


def say_label(label: LabelShift) -> str:
    """The bad rate that label shift would imply, and whether that assumption holds."""
    if label.prior_target is None:
        return (
            "No bad rate of the target could be estimated from scores alone: no held-out source labels, or no ranking."
        )
    estimate = f"{label.prior_target:.1%} ± {label.standard_error:.1%} (source {label.prior_source:.1%})"
    said = f"If bads, and goods, look alike in both populations (label shift), the target's bad rate is {estimate}"
    if label.status != "ok":
        return f"{said}; not to be relied on: {label.status}."
    if label.observed is None or label.z is None:
        return f"{said}; nothing observed to hold it against."
    judged = "does not contradict it" if label.agrees else "contradicts it: more than the class mix differs"
    return f"{said}; {label.observed:.1%} was observed, which {judged}."


def say_level(level: LevelShift, name: str) -> str:
    """Whether the probabilities of a source model, by its name, hold as they are."""
    if level.offset is None or level.predicted_observed is None or level.auc is None or level.auc_home is None:
        return (
            f"Levels could not be compared ({name}, {level.n_bad} bads): both classes are needed in both populations."
        )
    ranks = f"it ranks with AUC {level.auc:.3f} here, {level.auc_home:.3f} at home"
    found = f"predicted/observed {level.predicted_observed:.2f}"
    if level.slope is not None:
        found += f", slope {level.slope:.2f} ± {level.slope_error:.2f}"
    if level.status != "ok":
        return f"Too few bads ({level.n_bad}) to compare the level of {name} with the target ({found}; {ranks})."
    if level.is_lost:
        return f"{name} tells accounts of the target apart less than half as well as it believes ({found}); {ranks}."
    if not level.moves:
        return f"The probabilities of {name} hold in the target as they are ({found}); {ranks}."
    times = math.exp(level.offset)
    return f"At equal features the target's odds of bad are {times:.2f} times what {name} says ({found}); {ranks}."


def say_concept(concept: ConceptShift, name: str) -> str:
    """Whether risk drivers differ from those of a source model, by its name, and which."""
    if concept.p is None or concept.auc_at_stake is None or concept.auc_detectable is None:
        return f"Too few bads ({concept.n_bad}) to see whether risk drivers differ ({name})."
    found = f"T {concept.ratio:.2f} times its mean without shift, p {concept.p:.3f}"
    if concept.verdict == "none seen":
        return (
            f"Recalibrated, {name} leaves no residual that features explain ({found}); with {concept.n_bad} bads a "
            f"difference worth less than {concept.auc_detectable:.3f} AUC could go unseen."
        )
    carriers = [(c.direction, c.feature) for c in concept.carriers]
    riskier = [feature for direction, feature in carriers if direction == "riskier"]
    safer = [feature for direction, feature in carriers if direction == "safer"]
    signs = [
        f"{direction} in the target than the source says with more {_listed(features)}"
        for direction, features in (("riskier", riskier), ("safer", safer))
        if features
    ]
    return (
        f"Risk drivers differ, {concept.verdict}: features explain what {name} gets wrong after recalibration "
        f"({found}; {concept.auc_at_stake:.3f} AUC at stake); {' and '.join(signs)}."
    )


def _place(auc: float) -> str:
    return "higher" if auc > 0.5 else "lower"


def _listed(names: Iterable[str]) -> str:
    *head, last = names
    return f"{', '.join(head)} and {last}" if head else last

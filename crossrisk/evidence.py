"""What the gate is shown: numbers about one challenger, measured before the decision, as plain data.

Where they come from is `tasks.compare`, `tasks.candidate` and `tasks.diagnose`; what follows from them is
`crossrisk.policy`. A number that could not be measured is None, and None never passes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from crossrisk.metrics import Difference, Metric


@dataclass(frozen=True)
class Segment:
    """The challenger against the champion in one segment of the judged rows."""

    name: str
    """column = value"""
    n_bad: int
    n_good: int
    difference: Difference | None
    """of AUC; None without a champion or where the segment is too small"""


@dataclass(frozen=True)
class Evidence:
    """One challenger, judged once on untouched target rows."""

    challenger: str
    metrics: Mapping[str, Metric]
    """of the challenger: the table's metrics, and calibration_slope"""
    champion: int | None
    """version in production"""
    differences: Mapping[str, Difference]
    """metric -> challenger - champion, paired, at the alpha of this look; empty without a champion"""
    source_only: bool
    """the challenger saw no target label"""
    borrows: bool = True
    """target labels did not teach all of the challenger: it is none of the target's own models, nor stacked"""
    alternatives: Mapping[str, Difference] = field(default_factory=dict)
    """contender -> AUC of challenger - contender, for what a colleague would have used instead"""
    segments: tuple[Segment, ...] = ()
    score_psi: float | None = None
    """of the challenger's score against the champion's, on the judged rows"""
    is_network: bool = False
    """networks must go on classifying the source"""
    source_auc_fall: float | None = None
    """networks: AUC on source_stop of the source-only network minus the challenger's; None: undefined"""
    latency_p95_ms: float | None = None
    """of the exported model, one row at a time"""
    size_mb: float | None = None
    """of the exported model"""
    leaks: tuple[str, ...] = ()
    """features that alone tell bad from good implausibly well, a sentence each"""
    drivers_shift: str | None = None
    """verdict of the diagnosis on P(y | x): none seen | small | large | insufficient; None: not diagnosed"""
    look: int = 1
    """how often rows of this test have been looked at for this champion, this time included"""

    def to_json(self) -> dict[str, Any]:
        """Plain data; undefined numbers are None."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """The evidence that `to_json` wrote."""
        segments = tuple(
            Segment(**{**one, "difference": Difference(**one["difference"]) if one["difference"] else None})
            for one in document["segments"]
        )
        return cls(
            **{
                **document,
                "metrics": {key: Metric(**value) for key, value in document["metrics"].items()},
                "differences": _differences(document["differences"]),
                "alternatives": _differences(document["alternatives"]),
                "segments": segments,
                "leaks": tuple(document["leaks"]),
            }
        )


def _differences(document: Mapping[str, Any]) -> dict[str, Difference]:
    return {key: Difference(**value) for key, value in document.items()}

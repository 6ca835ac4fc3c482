"""What one may choose of the fitted part of the feature plan. The keys of the TOML are `crossrisk.config`'s."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field

from crossrisk.features.plan import Log
from crossrisk.features.rows import Plain
from crossrisk.features.selection import SelectionRules
from crossrisk.features.tables import Aggregate

EncodingName = Literal["standard", "bins", "one_hot", "woe", "target_mean", "frequency"]
OF_NUMBERS: tuple[EncodingName, ...] = ("standard", "bins", "woe", "target_mean")
OF_CATEGORIES: tuple[EncodingName, ...] = ("one_hot", "woe", "target_mean", "frequency")
ON_LABELS: tuple[EncodingName, ...] = ("woe", "target_mean")


class FitSettings(Plain):
    """What one may choose of the fitted part."""

    clip_quantiles: tuple[float, float] = (0.005, 0.995)
    min_level_rows: int = Field(default=20, ge=1)
    constants: Mapping[str, float] = {}
    """number -> what missing is filled with; default: the median"""
    logs: Mapping[str, Log] = {}
    encodings: Mapping[str, tuple[EncodingName, ...]] = {}
    """feature -> how it enters the matrix; default: standard for numbers, one_hot for categories"""
    aggregates: tuple[Aggregate, ...] = ()
    bins: int = Field(default=10, ge=2)
    """of a number that is binned"""
    smoothing: float = Field(default=20.0, gt=0)
    """rows of the overall bad rate that a target mean is drawn towards"""
    native: bool = False
    """whether a contender is fitted on the native view"""
    select: SelectionRules = SelectionRules()

    @property
    def needs_labels(self) -> bool:
        """Whether an encoding or a rule looks at labels."""
        return self.select.needs_labels or any(set(names) & set(ON_LABELS) for names in self.encodings.values())

    def encodings_of(self, feature: str, *, is_number: bool) -> tuple[EncodingName, ...]:
        """How a feature enters the matrix."""
        return self.encodings.get(feature, ("standard",) if is_number else ("one_hot",))


def check_settings(settings: FitSettings, numbers: Sequence[str], categories: Sequence[str]) -> None:
    """Refuse settings of features that do not exist, or that have no such encoding.

    Raises:
        ValueError: names the setting, and what was expected.
    """
    stray = sorted(set(settings.select.keep) - {*numbers, *categories})
    if stray:
        raise ValueError(f"features.select.keep names {stray[0]!r}, which is no feature")
    for what, names in (("constants", settings.constants), ("logs", settings.logs)):
        stray = sorted(set(names) - set(numbers))
        if stray:
            raise ValueError(f"features.{what} names {stray[0]!r}, which is no numeric feature")
    for feature, encodings in settings.encodings.items():
        if feature not in {*numbers, *categories}:
            raise ValueError(f"features.encodings names {feature!r}, which is no feature")
        allowed = OF_NUMBERS if feature in numbers else OF_CATEGORIES
        if not encodings or len(set(encodings)) < len(encodings):
            raise ValueError(f"features.encodings.{feature}: expected some of {', '.join(allowed)}, each once")
        wrong = [name for name in encodings if name not in allowed]
        if wrong:
            raise ValueError(f"features.encodings.{feature}: expected some of {', '.join(allowed)}; got {wrong[0]!r}")
    for aggregate in settings.aggregates:
        if aggregate.name in {*numbers, *categories}:
            raise ValueError(f"features.aggregates.{aggregate.name}: a feature is called so; give it another name")
        if aggregate.number not in numbers or aggregate.by not in categories:
            raise ValueError(
                f"features.aggregates.{aggregate.name}: expected a numeric feature and a category, got "
                f"{aggregate.number!r} and {aggregate.by!r}"
            )

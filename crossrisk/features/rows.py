"""Raw columns, and the features made of one row alone: codes, ratios, differences, ages, parts of dates.

All of it follows from the config. What is fitted on training rows is `crossrisk.features.plan`'s.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

DAYS_PER_MONTH = 30.4375
"""365.25 / 12: the mean month, so that an age does not jump with February"""
FIRST_DAY, LAST_DAY = -719_162, 2_932_896
"""0001-01-01 and 9999-12-31 as days since 1970-01-01: a date outside has no part, for calendars disagree there"""

SMALLEST_NORMAL, SMALLEST_NORMAL_32 = 2.2250738585072014e-308, 1.1754943508222875e-38
"""of a float64 and of a float32: smaller ones are subnormal, and 0 to a processor as TensorFlow sets it"""

_TAKEN_NAMES = frozenset({"self", "probability", "score"})


class Plain(BaseModel):
    """Frozen plain data; unknown fields, NaN and infinities are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class RawColumn(Plain):
    """A column as a server receives it. Missing is NaN (number), "" (category) or INT32_MIN (date)."""

    name: str
    kind: Literal["number", "category", "date"]


def check_servable_names(columns: Sequence[RawColumn]) -> None:
    """Refuse raw columns that a SavedModel's signature cannot carry under their own name.

    TensorFlow rewrites names that are no Python identifiers (`arg_1st`), in one of its two readers only, and fails
    without naming the column on keywords and on names that differ in case alone.

    Raises:
        ValueError: names the first such column.
    """
    seen: dict[str, str] = {}
    for name in (column.name for column in columns):
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) or keyword.iskeyword(name) or name in _TAKEN_NAMES:
            raise ValueError(
                f"raw column {name!r} cannot be an input of the SavedModel: expected a letter, then letters, digits "
                f"and underscores, no Python keyword, and none of {', '.join(sorted(_TAKEN_NAMES))}; rename the column"
            )
        twin = seen.setdefault(name.lower(), name)
        if twin != name:
            raise ValueError(f"raw columns {twin!r} and {name!r} differ in case alone; rename one of them")


class Sentinels(Plain):
    """Codes of a numeric column that mean missing."""

    column: str
    codes: tuple[float, ...]


class Ratio(Plain):
    """numerator / denominator of two numeric raw columns; missing where either is missing or the denominator is 0."""

    name: str
    numerator: str
    denominator: str


class Difference(Plain):
    """minuend - subtrahend of two numeric raw columns; missing where either is missing or the result is not finite."""

    name: str
    minuend: str
    subtrahend: str


class Age(Plain):
    """Months from a date column to the decision date."""

    name: str
    date: str


Part = Literal["year", "quarter", "month", "day", "weekday"]


class DatePart(Plain):
    """A part of a date column as a number: month 1 to 12, day 1 to 31, weekday 1 (Monday) to 7."""

    name: str
    date: str
    part: Part


class RowPlan(Plain):
    """The row-wise part: it follows from the config alone."""

    decision_date: str | None
    numbers: tuple[str, ...]
    categories: tuple[str, ...]
    sentinels: tuple[Sentinels, ...]
    ratios: tuple[Ratio, ...]
    ages: tuple[Age, ...]
    differences: tuple[Difference, ...] = ()
    date_parts: tuple[DatePart, ...] = ()

    @property
    def raw_columns(self) -> tuple[RawColumn, ...]:
        """The raw columns a server must be fed, in a fixed order: numbers, categories, dates."""
        of_ratios = (c for r in self.ratios for c in (r.numerator, r.denominator))
        of_differences = (c for d in self.differences for c in (d.minuend, d.subtrahend))
        numbers = dict.fromkeys([*self.numbers, *of_ratios, *of_differences])
        decision = [self.decision_date] if self.ages else []
        dates = dict.fromkeys([*(a.date for a in self.ages), *(p.date for p in self.date_parts), *decision])
        return (
            *(RawColumn(name=name, kind="number") for name in numbers),
            *(RawColumn(name=name, kind="category") for name in self.categories),
            *(RawColumn(name=name, kind="date") for name in dates if name is not None),
        )

    @property
    def numeric_features(self) -> tuple[str, ...]:
        """Names of the numeric features after the row-wise part: raw numbers, ratios, ages, differences, date parts."""
        made = (self.ratios, self.ages, self.differences, self.date_parts)
        return (*self.numbers, *(one.name for group in made for one in group))

    def inputs_of(self, feature: str) -> tuple[str, ...]:
        """The raw columns that a feature is made of.

        Raises:
            ValueError: no such feature.
        """
        made: dict[str, tuple[str, ...]] = {name: (name,) for name in (*self.numbers, *self.categories)}
        made |= {r.name: (r.numerator, r.denominator) for r in self.ratios}
        made |= {a.name: (a.date, str(self.decision_date)) for a in self.ages}
        made |= {d.name: (d.minuend, d.subtrahend) for d in self.differences}
        made |= {p.name: (p.date,) for p in self.date_parts}
        if feature not in made:
            raise ValueError(f"no feature {feature!r} in the plan; it has {', '.join(made)}")
        return made[feature]

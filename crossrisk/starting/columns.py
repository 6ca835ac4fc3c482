"""One column of a table: what is counted of it, and the role that somebody concludes.

A series in, one frozen column out. Roles are concluded in `crossrisk.starting.profiling`; here are only their words.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime
from typing import Any, Literal

import polars as pl

from crossrisk.leaks import Reading

Role = Literal[
    "id", "customer", "decision_date", "known_date", "label", "population",
    "numeric", "category", "date",
    "protected",
    "leak", "outcome", "lender decision", "later date", "constant", "too fine", "key", "unreadable",
]  # fmt: skip
KEY_ROLES: tuple[Role, ...] = ("id", "customer", "decision_date", "known_date", "label", "population")
FEATURE_ROLES: tuple[Role, ...] = ("numeric", "category", "date")

MOST_LEVELS = 100
"""A category of more levels is too fine to encode one by one."""
SENTINEL_CODES = frozenset(
    [-1.0, *(-float(f"{d}" * n) for d in (7, 8, 9) for n in range(1, 8))]
    + [float("9" * n) - back for n in range(2, 10) for back in (0, 1, 2, 3)]
)
"""-1, -9, -99, -999, ... with 7 and 8 in place of 9, and 96 to 99, 996 to 999, ...: how surveys and bureaus write
`missing`, `not asked` and `never`."""
_FAR_RANGES = 3
"""A code lies apart where its distance to the rest is so many times the width of the rest (its central 99%)."""
_REPEATED_SHARE = 0.01
"""A far extreme that is no known code is suspected from this share of the rows on."""
_NEAR_SHARE = 0.001
"""A negative code beside values that are never negative needs this share: it lies apart by its sign alone."""


@dataclass(frozen=True)
class Column:
    """One column: what was counted, what was concluded, and why."""

    name: str
    dtype: str
    rows: int
    missing: int
    """null or NaN"""
    distinct: int
    """different values, missing not counted"""
    kind: Literal["number", "flag", "date", "text", "other"]
    lowest: Any = None
    """number or date; None for other kinds"""
    highest: Any = None
    mean: float | None = None
    """of a number, as deviation"""
    deviation: float | None = None
    levels: tuple[str, ...] = ()
    """of text, sorted; empty where there are more than MOST_LEVELS"""
    sentinels: tuple[float, ...] = ()
    """codes that probably mean missing"""
    role: Role = "unreadable"
    reason: str = ""
    findings: tuple[Reading, ...] = ()
    """readings of the leak check that are implausibly high"""

    @property
    def is_zero_one(self) -> bool:
        """Whether the column holds 0 and 1 (false and true), both, and nothing else but missing."""
        if self.kind == "flag":
            return self.distinct == 2
        return self.kind == "number" and (self.distinct, self.lowest, self.highest) == (2, 0.0, 1.0)

    @property
    def is_key_type(self) -> bool:
        """Whether the column is text or of whole numbers."""
        return self.kind == "text" or (self.kind == "number" and "int" in self.dtype)

    @property
    def is_unique_key(self) -> bool:
        """Whether no two rows share a value and no row lacks one."""
        return self.is_key_type and self.distinct == self.rows > 1

    @property
    def missing_share(self) -> float:
        """Share of the rows without a value, in [0, 1]."""
        return self.missing / self.rows if self.rows else 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain data; the levels are left out, for they are values of customers."""
        document = asdict(replace(self, findings=(), levels=()))
        del document["levels"]
        shown = {key: str(value) if isinstance(value, date) else value for key, value in document.items()}
        return shown | {"findings": [finding.to_json() for finding in self.findings]}


def describe_column(values: pl.Series) -> Column:
    """Type, gaps, distinct values, range, levels and suspected sentinel codes of one column. NaN is missing."""
    if values.dtype.is_float():
        values = values.fill_nan(None)
    kind = _kind(values.dtype)
    present = values.drop_nulls()
    column = Column(
        name=values.name,
        dtype=str(values.dtype).lower(),
        rows=len(values),
        missing=len(values) - len(present),
        distinct=present.n_unique() if kind != "other" else len(present),
        kind=kind,
    )
    match kind:
        case "number":
            numbers = present.cast(pl.Float64)
            finite = numbers.filter(numbers.is_finite())
            return replace(
                column,
                lowest=finite.min(),
                highest=finite.max(),
                mean=_float(finite.mean()),
                deviation=_float(finite.std()),
                sentinels=find_sentinels(finite),
            )
        case "date":
            return replace(column, lowest=_day(present.min()), highest=_day(present.max()))
        case "text" if column.distinct <= MOST_LEVELS:
            return replace(column, levels=tuple(present.cast(pl.String).unique().sort()))
        case _:
            return column


def _kind(dtype: pl.DataType) -> Literal["number", "flag", "date", "text", "other"]:
    if dtype == pl.Boolean:
        return "flag"
    if dtype.is_numeric():
        return "number"
    if dtype in (pl.Date, pl.Datetime):
        return "date"
    return "text" if dtype in (pl.String, pl.Categorical, pl.Enum) else "other"


def _float(value: Any) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _day(value: Any) -> date | None:
    return value.date() if isinstance(value, datetime) else value


def find_sentinels(numbers: pl.Series) -> tuple[float, ...]:
    """Values that probably are codes and no measurements, ascending; the argument holds no missing value.

    A known code (SENTINEL_CODES) counts where it is outside of all other values and far from them, or, if negative,
    where nothing else is negative. Any other value counts where it is the far extreme, and frequent.
    """
    numbers = numbers.alias("value")
    is_code = numbers.is_in(list(SENTINEL_CODES))
    rest = numbers.filter(~is_code)
    if rest.is_empty():
        return ()
    low, high = float(rest.min()), float(rest.max())  # type: ignore[arg-type]  # numbers, and not empty
    width = float(rest.quantile(0.995)) - float(rest.quantile(0.005))  # type: ignore[arg-type]
    far = max(10.0, _FAR_RANGES * width)
    counted = numbers.filter(is_code).value_counts().sort("value")
    found = [
        float(value)
        for value, count in counted.iter_rows()
        if (max(low - value, value - high) >= far)
        or (value < 0 <= low and count >= _NEAR_SHARE * len(numbers) and rest.n_unique() > 20)
    ]
    return tuple(sorted({*found, *_far_extremes(rest)}))


def _far_extremes(numbers: pl.Series) -> list[float]:
    """The lowest or highest value where it is repeated and far from all the others."""
    extremes = [float(numbers.min()), float(numbers.max())]  # type: ignore[arg-type]  # numbers, and not empty
    found = []
    for extreme in extremes:
        others = numbers.filter(numbers != extreme)
        if len(numbers) - len(others) < _REPEATED_SHARE * len(numbers) or others.n_unique() < 10:
            continue
        low, high = float(others.min()), float(others.max())  # type: ignore[arg-type]
        if max(low - extreme, extreme - high) >= _FAR_RANGES * (high - low):
            found.append(extreme)
    return found

"""The fitted part of the feature plan as plain data: how row-wise features become columns of the encoded matrix.

Numbers are imputed, clipped, logged and standardised; categories get a slot a level, with one for missing and one for
levels unseen or rare in training; both may go through bins or tables of one value a bin or level. What fits these
values is `fitting` and `tables`; what computes with them is `query` and `models.feature_graph`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Literal

from crossrisk.features.rows import Plain, RowPlan

Log = Literal["none", "log1p", "signed_log"]


class NumericEncoding(Plain):
    """(log(clip(x or fill, low, high)) - mean) / scale, and a flag where x is missing.

    Of columns that were missing on exactly the same training rows, the first alone has the flag.
    """

    column: str
    fill: float
    low: float
    high: float
    log: Log = "none"
    """log1p: ln(1 + x), of low > -1; signed_log: sign(x) ln(1 + |x|); rounded to float32 before it is standardised,
    for two libraries' logarithms differ in the last bit of a float64"""
    mean: float
    scale: float
    flag: bool

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of its columns of the matrix."""
        return (self.column, missing_flag(self.column)) if self.flag else (self.column,)


class CategoryEncoding(Plain):
    """One output a level, then (where training held enough of them) one for missing, then one for all else."""

    column: str
    levels: tuple[str, ...]
    missing_slot: bool

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of its columns of the matrix."""
        missing = [missing_flag(self.column)] if self.missing_slot else []
        return (*(f"{self.column}={level}" for level in self.levels), *missing, other_slot(self.column))


class BinSlots(Plain):
    """One output a bin of a number, (-inf, e_1], (e_1, e_2], ..., (e_k, inf), then perhaps one for missing."""

    column: str
    edges: tuple[float, ...]
    """ascending; at least one"""
    missing_slot: bool
    fill_bin: int
    """position of the bin that missing counts into where it has no slot: that of the median"""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of its columns of the matrix."""
        missing = [f"{self.column} in no bin"] if self.missing_slot else []
        return (*(f"{self.column} {interval}" for interval in _intervals(self.edges)), *missing)


class _Table(Plain):
    """One value a key, in its own unit; the matrix holds (value - mean) / scale."""

    name: str
    """of its column of the matrix"""
    column: str
    """the row-wise feature that is looked up"""
    values: tuple[float, ...]
    missing: float
    mean: float
    scale: float
    uses_labels: bool
    """fitted on labels: training rows get a cross-fitted value instead (`crossrisk.features.tables.crossfit`)"""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of its columns of the matrix."""
        return (self.name,)

    def standardised(self, value: float) -> float:
        """(value - mean) / scale, as both compilers then round to float32."""
        return (value - self.mean) * (1.0 / self.scale)


class LevelTable(_Table):
    """A value a level of a category, one for missing, one for levels unseen or rare in training."""

    meaning: str
    """what the values are: "woe", "target_mean", "frequency", or such as "mean of income" """
    levels: tuple[str, ...]
    other: float


class BinTable(_Table):
    """A value a bin of a number, (-inf, e_1], ..., (e_k, inf), and one for missing."""

    meaning: str
    edges: tuple[float, ...]
    """ascending; values has one more"""


View = Literal["encoded", "native"]
"""Which matrix a contender is fitted on: the encoded one, or `NativeView`."""


class LevelCodes(Plain):
    """The levels of a category in the order of their codes."""

    column: str
    levels: tuple[str, ...]


class NativeView(Plain):
    """A second matrix, for trees that take missing numbers and categories as they are.

    Numbers are float32 with NaN for missing. A category is the position of its level, one more for levels unseen or
    rare in training, NaN for missing.
    """

    numbers: tuple[str, ...]
    categories: tuple[LevelCodes, ...]

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of its columns, other than those of the encoded matrix, for both are kept side by side."""
        return tuple(f"{name} as it is" for name in self.features)

    @property
    def features(self) -> tuple[str, ...]:
        """For each of `outputs` the feature that it is."""
        return (*self.numbers, *(one.column for one in self.categories))

    @property
    def categorical(self) -> tuple[int, ...]:
        """Positions of the categories among `outputs`."""
        return tuple(range(len(self.numbers), len(self.numbers) + len(self.categories)))


Encoding = NumericEncoding | CategoryEncoding | BinSlots | BinTable | LevelTable


class Dropped(Plain):
    """A feature that does not enter the matrix, and why."""

    feature: str
    reason: str


class FeaturePlan(Plain):
    """Row-wise part and fitted part together: all that scoring needs to know about features."""

    schema_version: Literal[2] = 2
    rows: RowPlan
    numerics: tuple[NumericEncoding, ...] = ()
    categories: tuple[CategoryEncoding, ...] = ()
    bins: tuple[BinSlots, ...] = ()
    bin_tables: tuple[BinTable, ...] = ()
    level_tables: tuple[LevelTable, ...] = ()
    native: NativeView | None = None
    """there where a contender is fitted on it"""
    view: View = "encoded"
    """the matrix of the contender that the plan is served with: what `columns` are"""
    dropped: tuple[Dropped, ...] = ()

    def served_as(self, view: View) -> FeaturePlan:
        """The plan for a contender that was fitted on this view. Raises ValueError where the plan has no such view."""
        self.columns_of(view)
        return self.model_copy(update={"view": view})

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns of the matrix that the plan is served with, in order."""
        return self.columns_of(self.view)

    @property
    def features_of_columns(self) -> tuple[str, ...]:
        """For each of `columns` the row-wise feature that it was made of: what a reason is named by."""
        return self.features_of_outputs if self.view == "encoded" else self._native.features

    def columns_of(self, view: View) -> tuple[str, ...]:
        """Names of the columns of a view's matrix, in order. Raises ValueError where the plan has no such view."""
        return self.outputs if view == "encoded" else self._native.outputs

    @property
    def _native(self) -> NativeView:
        if self.native is None:
            raise ValueError("the feature plan was fitted without a native view (lineup.boosted_inputs)")
        return self.native

    @property
    def encodings(self) -> Iterator[Encoding]:
        """All of them, in the order of their columns in the matrix."""
        yield from self.numerics
        yield from self.categories
        yield from self.bins
        yield from self.bin_tables
        yield from self.level_tables

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the columns of the encoded matrix, in order."""
        return tuple(name for encoding in self.encodings for name in encoding.outputs)

    @property
    def features_of_outputs(self) -> tuple[str, ...]:
        """For each of `outputs` the row-wise feature that it was made of."""
        return tuple(encoding.column for encoding in self.encodings for _ in encoding.outputs)

    @property
    def label_outputs(self) -> tuple[str, ...]:
        """Those of `outputs` that labels went into."""
        return tuple(table.name for table in (*self.bin_tables, *self.level_tables) if table.uses_labels)


def missing_flag(column: str) -> str:
    """Name of the output that says the column was missing."""
    return f"{column} is missing"


def other_slot(column: str) -> str:
    """Name of the output for levels unseen or rare in training."""
    return f"{column} is other"


def _intervals(edges: tuple[float, ...]) -> Iterator[str]:
    yield f"up to {edges[0]!r}"
    yield from (f"in ({low!r}, {high!r}]" for low, high in pairwise(edges))
    yield f"above {edges[-1]!r}"

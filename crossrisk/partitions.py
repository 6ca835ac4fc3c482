"""Ranges of rows of an ordered list of files: which partition holds which rows, and where these lie. Reads nothing.

A row's number is its place in the list of files, counted from 0; every range is half open, [start, stop). The same list
gives the same partitions and, within them, the same batches, wherever reading begins: that is what makes it possible to
take up work that was cut off.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import polars as pl


@dataclass(frozen=True)
class Partition:
    """A range of rows that is written to one file."""

    index: int
    start: int
    stop: int

    @property
    def rows(self) -> int:
        """How many."""
        return self.stop - self.start

    @property
    def name(self) -> str:
        """Of its file; the order of names is the order of rows."""
        return f"part-{self.index:05d}.parquet"


@dataclass(frozen=True)
class Span:
    """A range of rows within one of several pieces that follow each other."""

    piece: int
    """which of them"""
    first: int
    last: int
    """rows of the piece, [first, last)"""


MOST_PARTITIONS = 100_000
"""Their names have five digits, and so many files in one folder help nobody."""


def plan_partitions(rows: int, rows_per_partition: int) -> tuple[Partition, ...]:
    """Partitions of `rows_per_partition` rows each, the last of what is left; none of no row.

    Raises:
        ValueError: fewer than one row a partition, or more partitions than names for them.
    """
    if rows_per_partition < 1:
        raise ValueError(f"expected at least 1 row a partition, got {rows_per_partition}")
    starts = range(0, rows, rows_per_partition)
    if len(starts) > MOST_PARTITIONS:
        raise ValueError(
            f"{rows:,} rows in partitions of {rows_per_partition:,} are {len(starts):,} files, at most "
            f"{MOST_PARTITIONS:,} are written to one folder; take larger partitions"
        )
    return tuple(Partition(i, start, min(start + rows_per_partition, rows)) for i, start in enumerate(starts))


def join_neighbours(partitions: Sequence[Partition]) -> list[list[Partition]]:
    """The partitions, ascending, in runs without a gap between them: each run is read in one go."""
    runs: list[list[Partition]] = []
    for partition in partitions:
        if runs and runs[-1][-1].stop == partition.start:
            runs[-1].append(partition)
        else:
            runs.append([partition])
    return runs


def spans_of(lengths: Sequence[int], start: int, stop: int) -> list[Span]:
    """Where the rows [start, stop) lie in pieces of these lengths; pieces that hold none of them are left out."""
    edges = pairwise(accumulate(lengths, initial=0))
    found = ((piece, max(start, low) - low, min(stop, high) - low) for piece, (low, high) in enumerate(edges))
    return [Span(piece, first, last) for piece, first, last in found if first < last]


def batch_sizes(rows: int, batch_rows: int) -> list[int]:
    """Rows of each batch of a partition: `batch_rows`, the last what is left."""
    whole, rest = divmod(rows, batch_rows)
    return [batch_rows] * whole + ([rest] if rest else [])


def cut(frames: Iterable[pl.DataFrame], sizes: Iterable[int]) -> Iterator[pl.DataFrame]:
    """The rows of the frames, in their order, in frames of exactly these sizes, whatever the sizes they come in.

    Raises:
        ValueError: the frames hold fewer rows than the sizes ask for.
    """
    source = iter(frames)
    held: list[pl.DataFrame] = []
    for size in sizes:
        while (have := sum(frame.height for frame in held)) < size:
            following = next(source, None)
            if following is None:
                raise ValueError(f"expected a batch of {size:,} rows, the frames end after {have:,} of them")
            held.append(following)
        joined = held[0] if len(held) == 1 else pl.concat(held)
        yield joined[:size]
        held = [joined[size:]]

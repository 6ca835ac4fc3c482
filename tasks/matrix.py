"""Reading parts of the encoded matrix as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from models.fitted import Matrix


@dataclass(frozen=True)
class Part:
    """Rows of one or several parts of the split."""

    ids: pl.Series
    """(n,)"""
    parts: pl.Series
    """(n,)"""
    x: Matrix
    """(n, d)"""
    label: NDArray[np.float64]
    """(n,) 0, 1, or NaN where training may not see it"""

    @property
    def labelled(self) -> tuple[Matrix, NDArray[np.int8]]:
        """The rows whose label training may see, with it."""
        known = ~np.isnan(self.label)
        return self.x[known], self.label[known].astype(np.int8)


def read_parts(encoded: Path, columns: Sequence[str], parts: Sequence[str] | None = None) -> Part:
    """Rows of the named parts (default: all), in order of id."""
    rows = pl.scan_parquet(encoded)
    if parts is not None:
        rows = rows.filter(pl.col("part").is_in(list(parts)))
    frame = rows.select("id", "part", "label", *columns).collect()
    x: NDArray[Any] = np.ascontiguousarray(frame.select(columns).to_numpy())
    label = frame["label"].cast(pl.Float64).fill_null(np.nan).to_numpy()
    return Part(frame["id"], frame["part"], x, label)

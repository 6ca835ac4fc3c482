"""Names of our own for columns whose names in the files no model input and no stage can take.

Columns in, old and new names out: the map that [data.columns] of a portfolio holds. Which columns there are and what
they are for is `crossrisk.starting.profiling`; what else a name gives away is `crossrisk.starting.naming`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from crossrisk.config import RESERVED_NAMES
from crossrisk.features import RawColumn, check_servable_names
from crossrisk.starting.columns import FEATURE_ROLES, KEY_ROLES, Column

MOST_CHARACTERS = 60
"""A survey's question as a heading is cut there, at a word."""
_SPOKEN = {"%": " percent ", "#": " n "}


@dataclass(frozen=True)
class Renamed:
    """A column that the portfolio calls otherwise than the files do."""

    theirs: str
    ours: str
    why: str


def own_names(columns: Sequence[Column]) -> tuple[Renamed, ...]:
    """The columns that need another name, in the order given; the new names are unique whatever their case.

    Used columns need a name that a model's input, a stage and SQL can take. Columns that are left out keep theirs,
    unless it differs from another one in case alone: DuckDB, which validates, would take the one for the other.

    Args:
        columns: all columns of the files, roles concluded.
    """
    kept: dict[str, str] = {}
    taken = {column.name.lower() for column in columns}
    found: dict[str, Renamed] = {}
    for column in sorted(columns, key=lambda column: not _is_used(column)):  # of twins, the used one keeps its name
        why = _why_another(column, kept)
        if why is None:
            kept[column.name.lower()] = column.name
            continue
        ours = _free_name(clean_name(column.name) or f"column_{columns.index(column) + 1}", taken)
        taken.add(ours.lower())
        found[column.name] = Renamed(column.name, ours, why)
    return tuple(found[column.name] for column in columns if column.name in found)


def _is_used(column: Column) -> bool:
    return column.role in (*KEY_ROLES, *FEATURE_ROLES, "protected")


def _why_another(column: Column, kept: dict[str, str]) -> str | None:
    name = column.name
    if name.lower() in kept:
        return f"differs from {kept[name.lower()]!r} in case alone"
    if not _is_used(column) or name == column.role:  # `id` may be what the id is called
        return None
    if _is_free_to_use(name):
        return None
    if re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII):
        return "a word that Python, models or stages keep for themselves"
    return "more than letters, digits and underscores, or no letter first"


def _is_free_to_use(name: str) -> bool:
    try:
        check_servable_names([RawColumn(name=name, kind="number")])
    except ValueError:
        return False
    return name not in RESERVED_NAMES


def clean_name(name: str) -> str:
    """A name as lower-case words with underscores: `Income, monthly (USD)` is `income_monthly_usd`.

    Accents are dropped, a first digit is put behind `n_`; empty where no letter or digit is Latin. It may still be a
    word that is taken.
    """
    for symbol, spoken in _SPOKEN.items():
        name = name.replace(symbol, spoken)
    latin = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", latin)
    slug = re.sub(r"[^a-z0-9]+", "_", parted.lower()).strip("_")
    if len(slug) > MOST_CHARACTERS:
        slug = slug[: MOST_CHARACTERS + 1].rpartition("_")[0] or slug[:MOST_CHARACTERS]
    return f"n_{slug}" if slug[:1].isdigit() else slug


def _free_name(base: str, taken: set[str]) -> str:
    if not _is_free_to_use(base):
        base = f"{base}_given"
    candidate, number = base, 1
    while candidate in taken:
        number += 1
        candidate = f"{base}_{number}"
    return candidate

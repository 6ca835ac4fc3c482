"""What the tables of a portfolio's TOML have in common."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from crossrisk.limits import MOST_COLUMNS


class Form(BaseModel):
    """A table: frozen, and a key that nobody knows is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_tuples), Field(max_length=MOST_COLUMNS)]


def nearest(name: str, known: Sequence[str]) -> str:
    """What to say behind a name that nobody knows: the nearest known one and all of them; empty where none is."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    return f"; did you mean {close[0]!r}? Known: {', '.join(known)}" if close else ""

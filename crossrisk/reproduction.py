"""Whether what was published is what comes out again: recorded numbers beside re-derived ones, and code beside code.

Pure: plain data in, lines out. What is needed to re-derive is gathered by `tasks.past`, run by `flows.reproduce`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

TOLERANCE = 1e-9
"""Largest difference of two numbers that are the same: the last digits that another summation order moves."""


@dataclass(frozen=True)
class Line:
    """One published thing, as it was recorded and as it came out again."""

    name: str
    recorded: Any
    """a metric as plain data, a digest, a name; None: was not recorded"""
    derived: Any
    difference: float | None
    """the largest of its numbers, intervals included; None where something is no number on both sides"""
    same: bool

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def compare_recorded(recorded: Mapping[str, Any], derived: Mapping[str, Any]) -> tuple[Line, ...]:
    """One line for every name on either side, in alphabetical order; what only one side has is not the same.

    Args:
        recorded: name -> metric as plain data, or text.
        derived: likewise.
    """
    return tuple(_line(name, recorded.get(name), derived.get(name)) for name in sorted({*recorded, *derived}))


def _line(name: str, recorded: Any, derived: Any) -> Line:
    pairs = _pairs(recorded, derived)
    differences = [abs(was - now) for was, now in pairs if _is_number(was) and _is_number(now)]
    others_same = all(was == now for was, now in pairs if not (_is_number(was) and _is_number(now)))
    largest = max(differences, default=None)
    return Line(
        name,
        recorded,
        derived,
        difference=largest if others_same else None,
        same=others_same and (largest is None or largest <= TOLERANCE),
    )


def _pairs(recorded: Any, derived: Any) -> Sequence[tuple[Any, Any]]:
    if isinstance(recorded, Mapping) and isinstance(derived, Mapping):
        return [(recorded.get(key), derived.get(key)) for key in sorted({*recorded, *derived})]
    return [(recorded, derived)]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def code_warning(recorded: Mapping[str, Any] | str, now: Mapping[str, Any]) -> str | None:
    """Why numbers may differ though all inputs are there: other sources or libraries than then; else None.

    Args:
        recorded: `code` of the manifest; the first release recorded nothing but the digest.
        now: `crossrisk.provenance.code_version` of this installation.
    """
    then = {"digest": recorded} if isinstance(recorded, str) else recorded
    if then.get("digest") == now["digest"]:
        return None
    changed = [f"{key} {then[key]}, now {now.get(key)}" for key in sorted(then) if then[key] != now.get(key)]
    return f"sources or libraries are not those of then ({'; '.join(changed)}): a number that differs may be theirs"


def stage_warning(recorded: Mapping[str, str], derived: Mapping[str, str]) -> str | None:
    """The first step that was made from something else than then, where the code is that of then; else None.

    Args:
        recorded: step -> digest of what it was made from.
        derived: likewise, in the order of the steps: what comes after the first that differs differs with it.
    """
    name = next((name for name, digest in derived.items() if recorded.get(name, digest) != digest), None)
    if name is None:
        return None
    what = _MADE_FROM.get(name, "something")
    return f"step {name} was made from {what} other than then, with the same code and data"


_MADE_FROM = {
    "validate": "suites of expectations (beside the TOML, or shipped)",
    "split": "an earlier assignment of customers",
    "compared": "a champion, or a count of looks at its rows,",
}
"""step -> what else than the steps before it goes into it"""

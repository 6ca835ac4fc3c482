"""A first suite of expectations: rules that the profiled table itself meets.

A profile in, the document of a suite file out, as the loader of `expectations` reads it. What cannot be sets rows
aside, what is unusual warns, what splits the populations stops.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

from crossrisk.starting.columns import FEATURE_ROLES, Column
from crossrisk.starting.profiling import Profile

OWNER = "to be named"
MOST_LISTED = 60
"""Categories of more levels get no rule that lists them."""


def draft_suite(profile: Profile, name: str) -> dict[str, Any]:
    """Rules that the table itself meets: what is impossible sets rows aside, what is unusual warns.

    Args:
        profile: under the portfolio's names, each of them a plain word.
        name: of the suite.
    """
    rules = [*_table_rules(profile)]
    for column in profile.columns:
        if column.role in FEATURE_ROLES or column.role == "population":
            rules += _column_rules(column)
    taken: set[str] = set()
    for rule in rules:
        rule["name"] = _unique(rule["name"], taken)
    return {"schema_version": 1, "name": name, "max_quarantined_share": 0.01, "expectations": rules}


def _unique(name: str, taken: set[str]) -> str:
    candidate, number = name, 1
    while candidate in taken:
        number += 1
        candidate = f"{name}-{number}"
    taken.add(candidate)
    return candidate


def _rule(name: str, kind: str, action: str, why: str, **kwargs: Any) -> dict[str, Any]:
    meta = {"action": action, "why": why, "owner": OWNER}
    return {"name": name, "type": kind, "kwargs": kwargs, "meta": meta}


def _table_rules(profile: Profile) -> Iterator[dict[str, Any]]:
    rate = profile.bads / (profile.bads + profile.goods)
    yield _rule(
        "drafted-row-count", "expect_table_row_count_to_be_between", "warn",
        f"The draft saw {profile.rows:,} rows; much fewer is a truncated delivery or a filter.",
        min_value=profile.rows * 4 // 5,
    )  # fmt: skip
    yield _rule(
        "drafted-bad-rate", "expect_column_mean_to_be_between", "warn",
        f"The draft saw {rate:.1%} bads; twice or half of it is another label or another population.",
        column="${label}", min_value=_round(rate / 2), max_value=_round(min(1.0, rate * 2)),
    )  # fmt: skip


def _column_rules(column: Column) -> Iterator[dict[str, Any]]:
    slug = re.sub(r"[^a-z0-9]+", "-", column.name.lower()).strip("-")
    about: dict[str, Any] = {"column": column.name}
    if column.role == "population" and not column.missing:
        yield _rule(
            f"{slug}-given", "expect_column_values_to_not_be_null", "stop",
            "It tells target from source, and was never missing.", **about,
        )  # fmt: skip
    elif column.missing_share < 0.95:
        yield _rule(
            f"{slug}-known-rate", "expect_column_values_to_not_be_null", "warn",
            f"{column.missing_share:.1%} were missing in the draft; many more is a source that failed.",
            mostly=_round(max(0.0, 0.95 - column.missing_share)), **about,
        )  # fmt: skip
    if 0 < len(column.levels) <= MOST_LISTED and not any(_is_placeholder(level) for level in column.levels):
        yield _rule(
            f"{slug}-levels", "expect_column_values_to_be_in_set", "warn",
            "A level that the draft has not seen is a new product, a new spelling or a shifted column.",
            value_set=list(column.levels), **about,
        )  # fmt: skip
    if column.role == "numeric" and column.kind == "number":
        yield from _number_rules(column, slug)
    if column.role == "date":
        yield _rule(
            f"{slug}-before-decision", "expect_column_pair_values_a_to_be_greater_than_b", "quarantine",
            "No date of the draft was after the decision; one that is was not known then.",
            column_A="${decision_date}", column_B=column.name, or_equal=True,
        )  # fmt: skip


def _number_rules(column: Column, slug: str) -> Iterator[dict[str, Any]]:
    if column.sentinels or column.lowest is None:
        return  # codes would be the mean, and the negative values
    if column.lowest >= 0:
        yield _rule(
            f"{slug}-not-negative", "expect_column_values_to_be_between", "quarantine",
            "No value of the draft was negative; one that is, is a code or a wrong sign.",
            column=column.name, min_value=0,
        )  # fmt: skip
    if column.deviation:
        assert column.mean is not None
        yield _rule(
            f"{slug}-mean", "expect_column_mean_to_be_between", "warn",
            "Half a standard deviation around the mean of the draft: further away is another unit or population.",
            column=column.name, min_value=_round(column.mean - column.deviation / 2),
            max_value=_round(column.mean + column.deviation / 2),
        )  # fmt: skip


def _is_placeholder(text: str) -> bool:
    """Whether the loader of suites would take a value for a role: `${label}`."""
    return re.fullmatch(r"\$\{\w+\}", text) is not None


def _round(value: float, digits: int = 4) -> float:
    """To significant digits, as a person would write it."""
    if value == 0 or not math.isfinite(value):
        return value
    return round(value, digits - 1 - math.floor(math.log10(abs(value))))

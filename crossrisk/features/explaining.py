"""A column's way through the plan, in sentences and as the arrows of a drawing. Pages and terminals are elsewhere."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from crossrisk.features.plan import BinSlots, BinTable, CategoryEncoding, Encoding, FeaturePlan, NumericEncoding
from crossrisk.features.rows import RowPlan


@dataclass(frozen=True)
class Step:
    """What an encoding makes of a feature."""

    sentence: str
    outputs: tuple[str, ...]
    """columns of the encoded matrix"""


@dataclass(frozen=True)
class Way:
    """One feature, from raw columns to the encoded matrix."""

    feature: str
    raw: tuple[str, ...]
    """the raw columns it is made of"""
    made: str
    """how, in words"""
    steps: tuple[Step, ...]
    """none where the feature is dropped"""
    dropped: str | None
    """why it does not enter the matrix"""

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def describe_ways(plan: FeaturePlan) -> tuple[Way, ...]:
    """The way of every feature, in the order of the plan."""
    reasons = {one.feature: one.reason for one in plan.dropped}
    steps: dict[str, list[Step]] = {}
    for feature, step in _steps(plan):
        steps.setdefault(feature, []).append(step)
    features = (*plan.rows.numeric_features, *plan.rows.categories)
    return tuple(
        Way(name, plan.rows.inputs_of(name), describe_feature(plan.rows, name), tuple(steps.get(name, ())),
            None if name in steps else reasons.get(name))
        for name in features
    )  # fmt: skip


def _steps(plan: FeaturePlan) -> Iterator[tuple[str, Step]]:
    """What the view that is served makes of each feature."""
    if plan.view == "encoded" or plan.native is None:
        for encoding in plan.encodings:
            yield encoding.column, Step(describe_encoding(encoding), encoding.outputs)
        return
    said = ["as it is; missing stays missing"] * len(plan.native.numbers)
    said += [f"a code for each of {len(one.levels)} levels, one for levels unseen or rare; missing stays missing"
             for one in plan.native.categories]  # fmt: skip
    for feature, sentence, output in zip(plan.native.features, said, plan.native.outputs, strict=True):
        yield feature, Step(sentence, (output,))


def find_ways(plan: FeaturePlan, name: str) -> tuple[Way, ...]:
    """The ways that a raw column, a feature or a column of the matrix takes part in.

    Raises:
        ValueError: nothing in the plan is called so; the nearest name is given.
    """
    ways = describe_ways(plan)
    found = tuple(
        way for way in ways if name in (way.feature, *way.raw) or any(name in step.outputs for step in way.steps)
    )
    if not found:
        known = [*(c.name for c in plan.rows.raw_columns), *(way.feature for way in ways), *plan.columns]
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
        raise ValueError(f"nothing in the feature plan is called {name!r}; nearest: {nearest[0]!r}")
    return found


def describe_feature(rows: RowPlan, feature: str) -> str:
    """How a feature is made of its raw columns."""
    return " ".join(_sentences(rows, feature)) or "as it is"


def _sentences(rows: RowPlan, feature: str) -> Iterator[str]:
    for ratio in rows.ratios:
        if ratio.name == feature:
            yield f"{ratio.numerator} / {ratio.denominator}; missing where either is, or where the denominator is 0"
    for difference in rows.differences:
        if difference.name == feature:
            yield f"{difference.minuend} - {difference.subtrahend}; missing where either is"
    for age in rows.ages:
        if age.name == feature:
            yield f"months from {age.date} to {rows.decision_date}"
    for part in rows.date_parts:
        if part.name == feature:
            yield f"{part.part} of {part.date}"
    for sentinels in rows.sentinels:
        if sentinels.column in rows.inputs_of(feature):
            yield f"({sentinels.column} is missing where {', '.join(f'{code:g}' for code in sentinels.codes)})"


def describe_encoding(encoding: Encoding) -> str:
    """What an encoding does, in words."""
    match encoding:
        case NumericEncoding():
            log = {"none": "", "log1p": "; ln(1 + x)", "signed_log": "; sign(x) ln(1 + |x|)"}[encoding.log]
            flag = "; a flag where missing" if encoding.flag else ""
            return (
                f"missing becomes {encoding.fill + 0.0:g}; held within {encoding.low:g} to {encoding.high:g}{log}; "
                f"less {encoding.mean:g}, over {encoding.scale:g}{flag}"
            )
        case CategoryEncoding():
            missing = "one for missing" if encoding.missing_slot else "missing counting as unseen"
            return f"a slot for each of {len(encoding.levels)} levels, {missing}, one for levels unseen or rare"
        case BinSlots():
            missing = "one for missing" if encoding.missing_slot else "missing in that of the median"
            return f"a slot for each of {len(encoding.edges) + 1} bins, {missing}"
        case BinTable():
            return f"{encoding.meaning} of {len(encoding.edges) + 1} bins; missing {encoding.missing:.4g}"
        case _:
            return (
                f"{encoding.meaning} of {len(encoding.levels)} levels; missing {encoding.missing:.4g}, unseen or rare "
                f"{encoding.other:.4g}"
            )

"""One customer, scored by a published version: from `column=value` on a command line to a probability on the screen.

It reads the registry and writes nothing there; Prefect has no part in it, and TensorFlow runs in the child process of
`models.export_worker`, as for batches. Files of customers are no business of this module.
"""

from __future__ import annotations

import difflib
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl

from crossrisk.config import Loaded
from crossrisk.errors import InputError, PublishError
from crossrisk.features import RawColumn
from crossrisk.registry import Registry
from crossrisk.registry.asking import find_version, raw_columns_of
from crossrisk.stability import CategoryBins
from crossrisk.unseen import read_known_levels
from models.child import run_worker

SHOWN_NAMES = 10
"""Names in one sentence: a portfolio may have hundreds of columns, and of versions."""

_BOOLEANS = {"true": 1.0, "false": 0.0}
"""Where a number is expected, as the booleans of a Parquet file are read."""
_DTYPES = {"number": pl.Float64(), "category": pl.String(), "date": pl.Date()}


@dataclass(frozen=True)
class Reason:
    """A feature that makes this customer riskier than the mean customer that the version was fitted for."""

    feature: str
    contribution: float
    """to the log odds of bad, above 0"""
    points: float
    """of the score, below 0"""


@dataclass(frozen=True)
class Prediction:
    """What one version says of one customer."""

    portfolio: str
    version: int
    contender: str
    """what was published as this version"""
    as_of: str
    """logical date of the run that published it, YYYY-MM-DD"""
    probability: float
    """of bad, in (0, 1)"""
    score: float
    """points: higher is safer"""
    columns: int
    """raw columns that the version looks at"""
    missing: tuple[str, ...]
    """those of them that the model was given as missing values, in its order"""
    unseen: Mapping[str, str] = field(default_factory=dict)
    """category column -> the level given, cut to 40 characters, that training did not know"""
    untold: tuple[str, ...] = ()
    """category columns given a level that may be rare or unseen: not all levels of the version are listed"""
    reasons: tuple[Reason, ...] | None = None
    """at most five, the strongest first; None: the version was published by a release that gave none"""

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"schema_version": 1, **asdict(self)}


def predict(loaded: Loaded, assignments: Sequence[str], *, version: int | None = None) -> Prediction:
    """Score one customer with a version of a portfolio.

    Args:
        loaded: the portfolio and its folders.
        assignments: `column=value` for any of the version's raw columns; see `parse_row`.
        version: of the registry; None for the champion.

    Raises:
        InputError: nothing is published, no such version, or an assignment that the version cannot take.
        PublishError: the version, or what lies beside it, is damaged or cannot be read.
    """
    registry = Registry(loaded.folders.registry)
    answering = find_version(registry, version)
    columns = raw_columns_of(answering)
    row = parse_row(assignments, columns)
    unseen, untold = _compare_levels(row, read_known_levels(registry, answering))
    with registry.reading(answering.version):
        answer = _ask(answering.folder, row)
    reasons = answer["reasons"]
    return Prediction(
        portfolio=loaded.portfolio.name,
        version=answering.version,
        contender=answering.manifest["contender"],
        as_of=answering.manifest["as_of"],
        probability=float(answer["probability"]),
        score=float(answer["score"]),
        columns=len(columns),
        missing=tuple(column.name for column in columns if row[column.name][0] is None),
        unseen=unseen,
        untold=untold,
        reasons=None if reasons is None else tuple(Reason(**reason) for reason in reasons),
    )


def _compare_levels(
    row: pl.DataFrame, known_levels: Mapping[str, CategoryBins]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """The levels of a row that the version does not know, by column; and the columns of which that cannot be told."""
    unseen, untold = dict[str, str](), list[str]()
    for column, known in known_levels.items():
        level = row[column][0]
        if level is None or level in known.levels:
            continue
        if known.rare is None:
            untold.append(column)
        else:
            unseen[column] = known.name_unseen([level])[0].value
    return unseen, tuple(untold)


def describe(prediction: Prediction) -> str:
    """The prediction as lines for a terminal; of many missing columns the first ten are named."""
    lines = [
        ("probability", f"{prediction.probability:.4f} of bad"),
        ("score", f"{prediction.score:.1f} points (higher is safer)"),
        ("version", f"{prediction.version} of {prediction.portfolio}"),
        ("contender", f"{prediction.contender}, as of {prediction.as_of}"),
        ("missing", _missing_text(prediction)),
        *(("unseen", text) for text in _unseen_texts(prediction)),
        *(("reasons" if place == 0 else "", text) for place, text in enumerate(_reason_texts(prediction))),
    ]
    return "\n".join(f"{name:<12} {text}" for name, text in lines)


def _unseen_texts(prediction: Prediction) -> list[str]:
    unseen = prediction.unseen.items()
    texts = [f"{column}='{level}': training did not know it; scored as a rare level" for column, level in unseen]
    if prediction.untold:
        texts.append(f"cannot be told of {_some(prediction.untold)}: not all levels of the version are listed")
    return texts


def _reason_texts(prediction: Prediction) -> list[str]:
    if prediction.reasons is None:
        return ["none: the version was published by a release that gave none"]
    width = max((len(reason.feature) for reason in prediction.reasons), default=0)
    texts = [f"{reason.feature:<{width}} {reason.points:+.1f} points" for reason in prediction.reasons]
    return texts or ["none: no feature makes this customer riskier than the mean one"]


def _missing_text(prediction: Prediction) -> str:
    if not prediction.missing:
        return f"none of the {prediction.columns} columns"
    return f"{len(prediction.missing)} of {prediction.columns} columns: {_some(prediction.missing)}"


def _some(names: Sequence[str]) -> str:
    rest = len(names) - SHOWN_NAMES
    more = f" and {rest} more (all of them with --json)" if rest > 0 else ""
    return ", ".join(names[:SHOWN_NAMES]) + more


# --- the customer ---


def parse_row(assignments: Sequence[str], columns: Sequence[RawColumn]) -> pl.DataFrame:
    """One row (1, len(columns)) of raw columns, typed by their kind: Float64, String, Date.

    Args:
        assignments: `column=value`; numbers with a decimal point, or true and false for 1 and 0, dates as
            YYYY-MM-DD, an empty value is missing.
        columns: what the version looks at; those without an assignment are missing.

    Raises:
        InputError: no `=`, a column given twice or unknown (with the nearest known name), or a value of another kind.
    """
    kinds = {column.name: column.kind for column in columns}
    values: dict[str, str] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise InputError(f"--row expects column=value, such as {columns[0].name}=...; got {assignment!r}")
        if name not in kinds:
            raise InputError(f"--row {assignment}: the version has no raw column {name!r}{_nearest(name, kinds)}")
        if name in values:
            raise InputError(f"--row: {name} is given twice, as {values[name]!r} and as {text!r}; give it once")
        values[name] = text
    parsed = {name: [_parse(name, kinds[name], values.get(name, ""))] for name in kinds}
    return pl.DataFrame(parsed, schema={name: _DTYPES[kind] for name, kind in kinds.items()})


def _parse(name: str, kind: str, text: str) -> float | str | date | None:
    if text == "":
        return None
    try:
        match kind:
            case "number":
                return _BOOLEANS[text.lower()] if text.lower() in _BOOLEANS else _finite(text)
            case "date":
                return date.fromisoformat(text)
            case _:
                return text
    except ValueError:
        expected = {"number": "a number such as 1234.5", "date": "a date such as 2026-01-31"}[kind]
        raise InputError(f"--row {name}={text}: expected {expected}, got {text!r}; leave it out if unknown") from None


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _nearest(name: str, known: Mapping[str, str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    return f"; did you mean {close[0]!r}?" if close else ""


def _ask(model: Path, row: pl.DataFrame) -> dict[str, Any]:
    """What a version says of one row: its probability, its score and its reasons."""
    with tempfile.TemporaryDirectory() as scratch:
        customer = Path(scratch) / "customer.parquet"
        row.write_parquet(customer)
        spec = {"mode": "explain", "directory": str(model), "input": str(customer)}
        answered = run_worker("models.export_worker", spec, workdir=Path(scratch), failure=PublishError)
    answer: dict[str, Any] = answered["rows"][0]
    return answer

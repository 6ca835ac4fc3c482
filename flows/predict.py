"""One customer, scored by a published version: from `column=value` on a command line to a probability on the screen.

It reads the registry and writes nothing there; Prefect has no part in it, and TensorFlow runs in the child process of
`models.export_worker`, as for batches. Files of customers are no business of this module.
"""

from __future__ import annotations

import difflib
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl

from crossrisk.config import Loaded
from crossrisk.errors import InputError, PublishError
from crossrisk.features import RawColumn
from crossrisk.registry import Registry
from crossrisk.registry.asking import find_version, raw_columns_of
from models.child import run_worker

SHOWN_NAMES = 10
"""Names in one sentence: a portfolio may have hundreds of columns, and of versions."""

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
        PublishError: the version is damaged or cannot be read.
    """
    registry = Registry(loaded.folders.registry)
    answering = find_version(registry, version)
    columns = raw_columns_of(answering)
    row = parse_row(assignments, columns)
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
        reasons=None if reasons is None else tuple(Reason(**reason) for reason in reasons),
    )


def describe(prediction: Prediction) -> str:
    """The prediction as lines for a terminal; of many missing columns the first ten are named."""
    strongest, *others = _reason_texts(prediction)
    lines = {
        "probability": f"{prediction.probability:.4f} of bad",
        "score": f"{prediction.score:.1f} points (higher is safer)",
        "version": f"{prediction.version} of {prediction.portfolio}",
        "contender": f"{prediction.contender}, as of {prediction.as_of}",
        "missing": _missing_text(prediction),
        "reasons": strongest,
    }
    shown = [f"{name:<12} {text}" for name, text in lines.items()]
    return "\n".join([*shown, *(f"{'':<12} {text}" for text in others)])


def _reason_texts(prediction: Prediction) -> list[str]:
    if prediction.reasons is None:
        return ["none: the version was published by a release that gave none"]
    width = max((len(reason.feature) for reason in prediction.reasons), default=0)
    texts = [f"{reason.feature:<{width}} {reason.points:+.1f} points" for reason in prediction.reasons]
    return texts or ["none: no feature makes this customer riskier than the mean one"]


def _missing_text(prediction: Prediction) -> str:
    if not prediction.missing:
        return f"none of the {prediction.columns} columns"
    rest = len(prediction.missing) - SHOWN_NAMES
    more = f" and {rest} more (all of them with --json)" if rest > 0 else ""
    names = ", ".join(prediction.missing[:SHOWN_NAMES])
    return f"{len(prediction.missing)} of {prediction.columns} columns: {names}{more}"


# --- the customer ---


def parse_row(assignments: Sequence[str], columns: Sequence[RawColumn]) -> pl.DataFrame:
    """One row (1, len(columns)) of raw columns, typed by their kind: Float64, String, Date.

    Args:
        assignments: `column=value`; numbers with a decimal point, dates as YYYY-MM-DD, an empty value is missing.
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
                return _finite(text)
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

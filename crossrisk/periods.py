"""One result per logical period: what makes two runs the same question, and which scheduled runs come too late.

A run that asks what the ledger has an answer to gets that answer, whatever happened to the champion since: a retry
must not judge a model against itself, nor publish again what was taken back. Records in, answers out; no clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from crossrisk.config import Portfolio
from crossrisk.registry.ledger import champion_in, kind_of
from crossrisk.store import digest_of

Record = Mapping[str, Any]


def question_of(portfolio: Portfolio, *, calibrated: str, diagnosed: str) -> str:
    """Digest of what a run asks: its whole config, logical date included, and what was fitted on which data.

    Args:
        portfolio: as the run has it, overrides applied.
        calibrated: digest of the calibrated contenders: inputs, code, split, plan and training are in it.
        diagnosed: digest of the shift diagnosis.
    """
    config = portfolio.model_dump(mode="json")
    return digest_of({"config": config, "calibrated": calibrated, "diagnosed": diagnosed})


def setting_of(portfolio: Portfolio) -> str:
    """Digest of a config without its logical date: the same for all months of one schedule."""
    return digest_of(portfolio.model_dump(mode="json", exclude={"as_of"}))


def find_decision(records: Sequence[Record], question: str) -> Record | None:
    """The decision that answers a question, if it was asked before and its answer still stands.

    What published stands for good: a retry must not publish again what was taken back since. What did not stands while
    the champion is the one that it was compared with: after that the question is another.
    """
    champion = champion_in(records)
    answers = [record for record in records if kind_of(record) == "decision" and record.get("question") == question]
    standing = [
        answer
        for answer in answers
        if version_made(records, answer["run_id"]) is not None or answer["compared_with"] == champion
    ]
    return standing[-1] if standing else None


def ruling_on(records: Sequence[Record], run_id: str) -> Record | None:
    """What a person made of a run's decision, if anyone did."""
    rulings = [record for record in records if kind_of(record) == "ruling" and record["run_id"] == run_id]
    return rulings[-1] if rulings else None


def version_made(records: Sequence[Record], run_id: str) -> int | None:
    """The version that a run's decision, or what a person made of it, published, or that had its content already."""
    lines = [r for r in records if r.get("run_id") == run_id and kind_of(r) in ("decision", "ruling")]
    made = (record.get("version") or record.get("answers_already") for record in lines)
    return next((version for version in made if version is not None), None)


def why_superfluous(records: Sequence[Record], portfolio: Portfolio) -> str | None:
    """Why a scheduled run needs no result of its own: its period has one, or a later period has; else None.

    Only decisions under the same config count, its logical date apart: what somebody tried out on demand, with other
    values, settles nothing.
    """
    setting, as_of = setting_of(portfolio), portfolio.as_of.isoformat()
    decided = [r for r in records if kind_of(r) == "decision" and r.get("setting") == setting and r["as_of"] >= as_of]
    if not decided:
        return None
    latest = max(decided, key=lambda record: str(record["as_of"]))
    became = f"run {latest['run_id']}: {latest['decision']['verdict']}"
    if latest["as_of"] == as_of:
        return f"as of {as_of} was decided before ({became}); to decide anew, ask on demand with this date"
    return f"as of {as_of} is superseded: as of {latest['as_of']} was decided before ({became})"

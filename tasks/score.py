"""Scoring of many rows by a published version: the child that scores, partition by partition, and the summary.

What is asked was settled in `tasks.score_order`, which rows are not scored in `tasks.score_rules`; the folder that is
written is `tasks.score_folder`'s, the scoring itself `models.score_worker`'s. Nothing is decided or published here.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from prefect import task
from prefect.cache_policies import NO_CACHE

from crossrisk.errors import CrossriskError, InputError
from crossrisk.failpoints import reach
from crossrisk.partitions import Partition
from crossrisk.stability import UNSEEN_NAMED, psi
from crossrisk.store import Stage, digest_of
from crossrisk.unseen import UnseenCount, add_up
from models.child import Json, run_worker
from tasks.progress import progress
from tasks.score_folder import finished, keep_record
from tasks.score_order import BATCH_ROWS, Order
from tasks.score_rules import UNSCORED

logger = logging.getLogger("crossrisk.score")

SCORED = "scored"
"""status of a row that has a score"""
NOTED_UNSEEN_SHARE = 0.05
"""Of the scored rows, in one column: from here on a note asks. A few new levels a month are nothing; a column that is
written in another way than for training mostly touches all rows."""


@dataclass(frozen=True)
class Scored:
    """What was written."""

    records: tuple[Mapping[str, Any], ...]
    """of all partitions, in order"""
    reused: int
    """partitions that an earlier run had finished"""
    rows: int
    """that were scored now"""
    seconds: float
    """that it took"""


@task(name="score the partitions", cache_policy=NO_CACHE)
def score_partitions(order: Order, checked: Stage, partial: Path) -> Scored:
    """Score every partition that is not finished yet, in a child process, into the folder `partial`.

    Raises:
        CrossriskError: the child fails, or what it wrote is not what was asked.
        InputError: a file of the input was changed meanwhile.
    """
    records = finished(partial, order.partitions)
    pending = [partition for partition in order.partitions if partition.index not in records]
    before, rows = len(records), sum(partition.rows for partition in pending)
    started = time.monotonic()
    with progress("score") as report:

        def listen(event: Json) -> None:
            if event.pop("event") == "partition":
                _refuse_changed(order, partial, records)  # what is kept was made of what was asked about
                keep_record(partial, event)
                records[event["index"]] = event
                reach(f"score.{event['index']}")
                return
            done = event["rows"]
            report(done, rows, f"rows, {done / (time.monotonic() - started):,.0f} a second")

        _refuse_changed(order, partial, records)  # since it was validated
        try:
            if pending:
                run_worker(
                    "models.score_worker",
                    _spec(order, checked, partial, pending),
                    workdir=partial,
                    on_event=listen,
                    failure=CrossriskError,
                )
        finally:  # where the child fails because a file changed under it, that is what to say
            _refuse_changed(order, partial, records)
    _refuse_incomplete(order, records, partial)
    seconds = time.monotonic() - started
    logger.info("%d rows in %d partitions, %d of them from an earlier run; %.1f s", rows, len(records), before, seconds)
    return Scored(tuple(records[one.index] for one in order.partitions), before, rows, seconds)


def _refuse_changed(order: Order, partial: Path, records: Mapping[int, Mapping[str, Any]]) -> None:
    """Raise InputError where the input is no longer what was asked about; say what hinders a new start."""
    try:
        order.delivery.refuse_changed()
    except InputError as error:
        if not records:
            raise
        raise InputError(f"{error}, and remove {partial} before: it holds partitions of the old input") from error


def _spec(order: Order, checked: Stage, partial: Path, pending: Sequence[Partition]) -> Json:
    delivery = order.delivery
    own = [set(pq.read_schema(file.path).names) for file in delivery.files]
    return {
        "directory": str(order.answering.folder),
        "version": order.answering.version,
        "files": [
            {
                "path": str(file.path),
                "rows": file.rows,
                "folder_columns": sorted(set(delivery.read_columns) - names),
            }
            for file, names in zip(delivery.files, own, strict=True)
        ],
        "columns": dict(delivery.columns),
        "id": delivery.id,
        "unscored": str(checked.folder / UNSCORED),
        "partitions": [{"index": one.index, "start": one.start, "stop": one.stop} for one in pending],
        "folder": str(partial),
        "batch_rows": BATCH_ROWS,
        "bands": order.bands.to_json(),
        "reference": order.reference.to_json(),
        "known_levels": {name: one.levels for name, one in order.known_levels.items() if one.rare is not None},
        "reasons": order.reasons,
    }


def _refuse_incomplete(order: Order, records: Mapping[int, Mapping[str, Any]], partial: Path) -> None:
    """Raise CrossriskError where a row of the input is not in the output, or one more is."""
    for partition in order.partitions:
        written = pq.read_metadata(partial / partition.name).num_rows
        if not partition.rows == written == records[partition.index]["rows"]:
            raise CrossriskError(
                f"{partial / partition.name} holds {written:,} rows, {partition.rows:,} were to be scored; nothing was "
                "concluded, remove it and run again"
            )


# --- the summary ---


def summarise(portfolio: str, run_id: str, order: Order, checked: Stage, scored: Scored) -> Json:
    """What came of a scoring, as plain data, schema_version 1; it goes into the folder beside the partitions."""
    statuses, bands = _total(scored.records, "statuses"), _total(scored.records, "bands")
    rows, with_score = statuses.total(), statuses.pop(SCORED, 0)
    assert rows == order.delivery.rows, "counted partition by partition"
    histogram = [sum(counts) for counts in zip(*(one["histogram"] for one in scored.records), strict=True)]
    mean = sum(one["probability_sum"] for one in scored.records) / with_score if with_score else None
    labels = order.bands.labels
    unseen = _unseen(order, scored.records, with_score)
    return {
        "schema_version": 1,
        "run_id": run_id,
        "portfolio": portfolio,
        "version": order.answering.version,
        "contender": order.answering.manifest["contender"],
        "as_of": order.answering.manifest["as_of"],
        "question": digest_of(order.question),
        "rows": rows,
        "scored": with_score,
        "unscored": dict(sorted(statuses.items())),
        "mean_probability": mean,
        "score_psi": {
            **psi(order.reference.counts, histogram).to_json(),
            "histogram": {
                "labels": list(order.reference.bins.labels),
                "reference": list(order.reference.counts),
                "scored": histogram,
            },
        },
        "bands": [
            {"band": band, "holds": label, "rows": bands[str(band)]} for band, label in enumerate(labels, start=1)
        ],
        "bands_by": {"quantity": order.bands.quantity, "source": order.bands.source},
        "reasons": order.reasons,
        "unseen": unseen,
        "rules": _rules(checked),
        "notes": [*_notes(order, checked, rows), *_unseen_notes(unseen)],
        "input": order.delivery.to_json(),
        "partitions": [{key: one[key] for key in ("file", "rows", "sha256")} for one in scored.records],
        "reused_partitions": scored.reused,
        "seconds": round(scored.seconds, 3),
        "rows_per_second": round(scored.rows / scored.seconds) if scored.rows else None,
    }


def _total(records: Sequence[Mapping[str, Any]], key: str) -> Counter[str]:
    total: Counter[str] = Counter()
    for one in records:
        total.update(one[key])
    return total


def _unseen(order: Order, records: Sequence[Mapping[str, Any]], with_score: int) -> dict[str, Json]:
    """Of each category column: scored rows whose level the version does not know; null where that cannot be told."""
    found: dict[str, Json] = {}
    for column, known in order.known_levels.items():
        if known.rare is None:
            found[column] = {"rows": None, "share": None, "values": []}
            continue
        total = add_up(UnseenCount(**one["unseen"][column]) for one in records)
        found[column] = {
            "rows": total.rows,
            "share": total.rows / with_score if with_score else None,
            "values": list(total.values)[:UNSEEN_NAMED],
        }
    return found


def _unseen_notes(unseen: Mapping[str, Json]) -> list[str]:
    return [
        f"{one['share']:.1%} of the scored rows have a {column} that training did not know, such as "
        f"'{one['values'][0]}': scored as if rare; was it written in another way than for training?"
        for column, one in unseen.items()
        if (one["share"] or 0.0) >= NOTED_UNSEEN_SHARE
    ]


def _rules(checked: Stage) -> Json:
    """Which rules were applied, what they found, and which were left out and why."""
    results = checked.facts["results"]
    shown = ("rule", "action", "unexpected_count", "why", "owner")
    return {
        "applied": [result["rule"] for result in results],
        "failed": [{key: result[key] for key in shown} for result in results if not result["success"]],
        "left_out": checked.facts["skipped"],
    }


def _notes(order: Order, checked: Stage, rows: int) -> list[str]:
    """What a reader should know before using the scores."""
    notes = [] if order.is_champion else [f"version {order.answering.version} is not the champion"]
    unscored, limit = sum(checked.facts["unscored"].values()), checked.facts["max_quarantined_share"]
    if unscored > limit * rows:
        notes.append(
            f"{unscored / rows:.1%} of the rows are not scored; in training more than {limit:.1%} would stop the run: "
            "look at the delivery"
        )
    return notes

"""The ledger: one JSON line for whatever happened to a portfolio's champion, chained to the line before by SHA-256.

A last line without its end was torn by a death in the middle of writing it: readers pass over it, the next holder of
the lock removes it (`mend_end`). What a line means stays with those who write it; here is what keeps it unchanged.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from crossrisk.errors import InputError, PublishError
from crossrisk.store import canonical_json

SCHEMA_VERSION = 2
"""Of lines, manifests, pointer and intent. Those of the first release are read as they are: lines without a kind,
manifests without `identity` and golden batch, a pointer without a head."""
GENESIS = "0" * 64
TORN = "ledger.torn"
"""beside the ledger: what was removed from its end"""

Kind = Literal["decision", "ruling", "rollback", "prune", "canary"]
Record = dict[str, Any]


def kind_of(record: Mapping[str, Any]) -> Kind:
    """What a line records; those of the first release say it by the key `settles`."""
    kind: Kind = record.get("kind") or ("ruling" if "settles" in record else "decision")
    return kind


def versions_in(records: Sequence[Mapping[str, Any]]) -> list[int]:
    """Every version that was ever published, in the order of publication."""
    return [record["version"] for record in records if record.get("version") is not None]


def champion_in(records: Sequence[Mapping[str, Any]]) -> int | None:
    """The version in production, as the ledger has it; None before the first."""
    return max(versions_in(records), default=None)


def signed(by: str, what: str) -> str:
    """The name under a line, without spaces around it. Raises InputError where there is none."""
    if not by.strip():
        raise InputError(f"{what} needs a name (--by): it is kept in the ledger")
    return by.strip()


def read_ledger(ledger: Path) -> list[Record]:
    """All records, oldest first.

    Raises:
        PublishError: a line is broken, the chain does not hold, or a newer release wrote it.
    """
    if not ledger.exists():
        return []
    try:
        lines = ledger.read_bytes().split(b"\n")
    except OSError as error:
        raise PublishError(f"{ledger} cannot be read: {error.strerror}; restore it from a backup") from error
    records: list[Record] = []
    for number, text in enumerate(lines[:-1], start=1):
        records.append(_checked(ledger, number, text, _head(records)))
    with suppress(PublishError):  # nothing after the last end, or a torn line: its writer died, or is writing it now
        records.append(_checked(ledger, len(lines), lines[-1], _head(records)))
    return records


def _head(records: Sequence[Record]) -> str:
    return str(records[-1]["digest"]) if records else GENESIS


def _checked(ledger: Path, number: int, text: bytes, previous: str) -> Record:
    try:
        record: Record = json.loads(text)
        body = {key: value for key, value in record.items() if key != "digest"}
        holds = hashlib.sha256(canonical_json(body).encode()).hexdigest() == record["digest"]
        holds = holds and canonical_json(record).encode() == text
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PublishError(
            f"{ledger} line {number} is no ledger record: {error}; restore the ledger from a backup"
        ) from error
    if not holds or record["previous"] != previous:
        raise PublishError(f"{ledger} line {number} was changed after it was written; restore the ledger from a backup")
    refuse_newer(record, f"{ledger} line {number}")
    return record


def refuse_newer(document: Mapping[str, Any], where: str) -> None:
    """Raise PublishError where a newer release wrote something of a registry."""
    written = document.get("schema_version", 1)
    if not isinstance(written, int) or written > SCHEMA_VERSION:
        raise PublishError(
            f"{where} has schema_version {written}, this release reads up to {SCHEMA_VERSION}: a newer release wrote "
            "it; upgrade crossrisk"
        )


def append_ledger(ledger: Path, record: Mapping[str, Any]) -> Record:
    """Append a record, chained to the line before. Needs the lock.

    Raises:
        OSError: it could not be written whole; the ledger is as it was.
    """
    mend_end(ledger)
    line = {"schema_version": SCHEMA_VERSION, **record, "previous": _head(read_ledger(ledger))}
    line["digest"] = hashlib.sha256(canonical_json(line).encode()).hexdigest()
    with ledger.open("ab", buffering=0) as handle:  # a buffer would be written again when the file is closed
        start = handle.seek(0, os.SEEK_END)
        try:
            rest = memoryview((canonical_json(line) + "\n").encode())
            while rest:
                rest = rest[handle.write(rest) :]
            os.fsync(handle.fileno())
        except OSError:
            os.ftruncate(handle.fileno(), start)
            raise
    return line


def mend_end(ledger: Path) -> None:
    """Remove a torn line, and end a line that lacks but its end. Needs the lock: nobody else can be writing it."""
    if not ledger.exists():
        return
    content = ledger.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole == len(content):
        return
    is_record = len(read_ledger(ledger)) > content.count(b"\n")
    with ledger.open("r+b", buffering=0) as handle:
        if is_record:
            handle.seek(0, os.SEEK_END)
            handle.write(b"\n")
        else:
            with ledger.with_name(TORN).open("ab") as torn:  # nothing is lost that somebody may want to read
                torn.write(content[whole:] + b"\n")
            handle.truncate(whole)
        os.fsync(handle.fileno())

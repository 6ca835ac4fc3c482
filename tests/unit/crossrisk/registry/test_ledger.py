"""Rules of the ledger: a chain that shows every change, and that a death in the middle of a line does not break."""

import errno
import json
import os

import pytest

from crossrisk.errors import PublishError
from crossrisk.registry.ledger import GENESIS, TORN, append_ledger, kind_of, mend_end, read_ledger


@pytest.fixture
def ledger(tmp_path):
    """Three lines."""
    path = tmp_path / "ledger.jsonl"
    for number in range(3):
        append_ledger(path, {"number": number})
    return path


def numbers(ledger):
    return [record["number"] for record in read_ledger(ledger)]


def test_every_line_names_the_digest_of_the_line_before(ledger):
    records = read_ledger(ledger)
    assert [r["previous"] for r in records] == [GENESIS, records[0]["digest"], records[1]["digest"]]


@pytest.mark.parametrize("change", [{"number": 9}, {"digest": "0" * 64}, {"previous": GENESIS}, {"added": True}])
def test_a_changed_line_is_found(ledger, change):
    lines = ledger.read_text().splitlines(keepends=True)
    lines[1] = json.dumps(json.loads(lines[1]) | change) + "\n"
    ledger.write_text("".join(lines))
    with pytest.raises(PublishError, match=r"line 2 was changed|line 3 was changed"):
        read_ledger(ledger)


@pytest.mark.parametrize("kept", [(0, 2), (1, 2), (1, 0, 2), (0, 0, 1, 2)])
def test_a_line_that_is_missing_moved_or_doubled_is_found(ledger, kept):
    lines = ledger.read_text().splitlines(keepends=True)
    ledger.write_text("".join(lines[i] for i in kept))
    with pytest.raises(PublishError, match="was changed after it was written"):
        read_ledger(ledger)


@pytest.mark.parametrize("line", ["{", "[]", "17", '{"a": 1}', "", "\x00"])
def test_what_is_no_record_is_named_by_its_line(ledger, line):
    ledger.write_text(line + "\n" + ledger.read_text())
    with pytest.raises(PublishError, match=r"line 1 (is no ledger record|was changed)"):
        read_ledger(ledger)


def test_a_torn_last_line_is_passed_over_and_kept_aside_when_it_is_mended(ledger):
    torn = ledger.read_text().splitlines()[1][:40]
    with ledger.open("a") as handle:
        handle.write(torn)
    assert numbers(ledger) == [0, 1, 2]
    append_ledger(ledger, {"number": 3})
    assert numbers(ledger) == [0, 1, 2, 3]
    assert ledger.with_name(TORN).read_text() == torn + "\n"


def test_a_whole_last_line_without_its_end_is_a_line(ledger):
    ledger.write_text(ledger.read_text().rstrip("\n"))
    assert numbers(ledger) == [0, 1, 2]
    mend_end(ledger)
    assert ledger.read_text().endswith("}\n")
    append_ledger(ledger, {"number": 3})
    assert numbers(ledger) == [0, 1, 2, 3]
    assert not ledger.with_name(TORN).exists()


def test_a_line_that_cannot_be_written_leaves_the_ledger_as_it_was(ledger, monkeypatch):
    before = ledger.read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        append_ledger(ledger, {"number": 3})
    assert ledger.read_bytes() == before


def test_lines_of_the_first_release_are_read_and_those_of_a_newer_one_refused(tmp_path):
    ledger = tmp_path / "ledger.jsonl"
    append_ledger(ledger, {"schema_version": 1, "settles": "keep"})
    append_ledger(ledger, {"schema_version": 1, "decision": {}})
    assert [kind_of(record) for record in read_ledger(ledger)] == ["ruling", "decision"]
    append_ledger(ledger, {"schema_version": 3})
    ledger.open("a").write("\n")
    with pytest.raises(PublishError, match=r"schema_version 3, this release reads up to 2.*upgrade"):
        read_ledger(ledger)

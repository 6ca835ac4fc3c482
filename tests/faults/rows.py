"""The fault matrix: what may go wrong and what is promised then, a row a fault; the tests beside this file hold them.

A test belongs to a row by `@pytest.mark.fault(NUMBER)`. `missing` says which part of a row no test holds yet, and why:
a row may have tests and miss a part (then it holds in part), or have none (then it is not yet built).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One fault."""

    number: int
    fault: str
    expected: str
    missing: str | None = None
    """what no test holds yet; None: nothing"""


ROWS: tuple[Row, ...] = (
    Row(
        1,
        "killed (SIGKILL) at every step of a publish",
        "readers see the old or the new whole version; the next run recovers",
    ),
    Row(
        2,
        "SIGTERM or a cancellation, in training and in a publish",
        "clean state, the run says that it was stopped, nothing numbered",
    ),
    Row(
        3,
        "eight processes publish at once, fifty rounds",
        "distinct rising numbers, every manifest true, one champion",
    ),
    Row(
        4,
        "a poller like TF Serving's, every millisecond during 3",
        "it never lists a version whose manifest fails",
    ),
    Row(
        5,
        "a finished publish retried; one run twice; two runs of the same inputs",
        "no second version, the same record again",
    ),
    Row(
        6,
        "disk full, read-only registry, permission lost, two file systems",
        "a clear error, no partial version, the champion untouched",
    ),
    Row(
        7,
        "a lock left by kill -9; a lock held by a living process",
        "taken over at once; waited for, with a limit and a message",
    ),
    Row(
        8,
        "in the staged model: shard missing, byte flipped, file renamed",
        "verification refuses it, nothing numbered",
    ),
    Row(
        9,
        "junk among the versions: a file `7`, `0007`, `-1`, an empty `9`",
        "ignored or named; the next number is right",
    ),
    Row(
        10,
        "rollback to what is missing or broken, twice, during a publish",
        "refused with the reason; the same again; one after the other",
    ),
    Row(
        11,
        "pruning of a version that is champion, previous, labelled or read",
        "never removed; others leave by a rename first",
    ),
    Row(
        12,
        "Parquet truncated, empty, of another format, half a row group, mixed files",
        "the error names the file, which stays where it is; nothing is trained",
    ),
    Row(
        13,
        "a column missing, added, retyped, moved, in other case, nullable, with a new category, all null, times 100",
        "stop, set aside, warn or pass, as the severity of schema and suite has it",
    ),
    Row(
        14,
        "no target rows, no bads, one class in a slice, a tiny month",
        "a typed error or `insufficient`, never a crash or a number from nothing",
    ),
    Row(
        15,
        "labels late, restated, doubled, contradictory, from the future",
        "the maturity rule holds, revisions count as of the date, nothing leaks back",
    ),
    Row(
        16,
        "clock jumps, DST, month end, leap day, scheduled twice, six months missed",
        "one result a logical period",
    ),
    Row(
        17,
        "worker killed, server down midway, API times out",
        "a rerun skips finished stages by digest; nothing is published twice",
    ),
    Row(
        18,
        "Prefect's stored results deleted or broken",
        "computed again, with the same digests",
    ),
    Row(
        19,
        "in the training child: NaN loss, divergence, out of memory, killed",
        "a failed task with its cause; the parent lives, the champion stays",
    ),
    Row(
        20,
        "the gate is shown NaN, a missing slice, a zero baseline, no champion, no thresholds",
        "it never promotes silently",
    ),
    Row(
        21,
        "no network at all",
        "a retrain and a watched month pass, and nothing tries to get out",
    ),
    Row(
        22,
        "same seed and inputs twice; rows in other order; another number of threads",
        "the same parts for the same ids, metrics within the stated tolerance",
    ),
    Row(
        23,
        "ledger or manifest tampered with",
        "the hash chain tells",
    ),
    Row(
        24,
        "records and reports of another schema version",
        "migrated, or refused with a message that says so",
    ),
    Row(
        25,
        "shuffled labels, leaked target, constant score, PD doubled",
        "each is blocked, by a rule with a name",
    ),
    Row(
        26,
        "equally good models compared again and again",
        "promoted no more often than the stated level",
        "estimates without labels (CBPE) are not built: their interval coverage stands open",
    ),
)  # fmt: skip

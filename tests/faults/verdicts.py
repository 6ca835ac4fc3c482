"""From finished tests to a verdict a row, and its two forms: a table on the screen and a page. Nothing is run here.

A row holds where all its tests passed. Where `missing` says what no test looks at it holds in part, and does not count
as held. A test that was skipped or left out is no proof: its row does not count either, and fails nothing. A test
that did not finish (its process died) failed.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from rich.table import Table
from rich.text import Text
from rows import Row

Kind = Literal["holds", "in part", "FAILS", "skipped", "not yet built"]
_STYLES: Mapping[Kind, str] = {"holds": "green", "in part": "green", "FAILS": "bold red", "skipped": "yellow"}


@dataclass(frozen=True)
class Finished:
    """One test, as far as it came."""

    test: str
    """node id"""
    rows: tuple[int, ...] = ()
    outcome: Literal["passed", "failed", "skipped", "left out", "not finished"] = "not finished"
    seconds: float = 0.0
    detail: str = ""

    @property
    def has_failed(self) -> bool:
        return self.outcome in ("failed", "not finished")


@dataclass(frozen=True)
class Verdict:
    """What the tests of a row say of it."""

    row: Row
    kind: Kind
    why: str
    """of everything but a plain `holds`"""
    tests: tuple[Finished, ...]

    @property
    def is_held(self) -> bool:
        return self.kind == "holds"

    @property
    def seconds(self) -> float:
        return sum(test.seconds for test in self.tests)

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files that the tests are in."""
        return tuple(sorted({test.test.partition("::")[0].rpartition("/")[2] for test in self.tests}))

    def count(self, *outcomes: str) -> int:
        return sum(test.outcome in outcomes for test in self.tests)

    def __str__(self) -> str:
        said = "holds, in part" if self.kind == "in part" else self.kind
        return f"{said}: {self.why}" if self.why else said


def read_tests(lines: Iterable[str]) -> list[Finished]:
    """The tests that the recorder's lines tell of, in their order; later lines complete earlier ones."""
    tests: dict[str, Finished] = {}
    for line in map(json.loads, lines):
        event, name = line.pop("event"), line.pop("test")
        known = tests.get(name, Finished(name))
        match event:
            case "collected":
                tests[name] = replace(known, rows=tuple(line["rows"]))
            case "left out":
                tests[name] = replace(known, outcome="left out")
            case "finished":
                tests[name] = replace(known, **line)
    return list(tests.values())


def judge(rows: Sequence[Row], tests: Sequence[Finished]) -> list[Verdict]:
    """One verdict a row, in order."""
    return [_judge_row(row, tuple(test for test in tests if row.number in test.rows)) for row in rows]


def _judge_row(row: Row, tests: tuple[Finished, ...]) -> Verdict:
    failed = [test.test.rpartition("::")[2] for test in tests if test.has_failed]
    if failed:
        return Verdict(row, "FAILS", _some(failed), tests)
    if not tests:
        return Verdict(row, "not yet built", row.missing or "no test carries its number", tests)
    unseen = Counter(
        "left out by --quick" if test.outcome == "left out" else test.detail
        for test in tests
        if test.outcome in ("skipped", "left out")
    )
    if unseen:
        reasons = "; ".join(f"{reason} ({n} of {len(tests)} tests)" for reason, n in unseen.items())
        return Verdict(row, "skipped", reasons, tests)
    return Verdict(row, "in part" if row.missing else "holds", row.missing or "", tests)


def homeless_failures(tests: Sequence[Finished]) -> list[Finished]:
    """Failures that no row shows: a file that cannot be imported, a failed test of the matrix itself."""
    return [test for test in tests if test.has_failed and not test.rows]


def last_line(verdicts: Sequence[Verdict]) -> str:
    """How many rows hold."""
    return f"{sum(verdict.is_held for verdict in verdicts)} of {len(verdicts)} hold"


def summarise(verdicts: Sequence[Verdict]) -> str:
    """What stands behind the last line."""
    kinds = Counter(verdict.kind for verdict in verdicts)
    return (
        f"{last_line(verdicts)}, {kinds['in part']} in part (built but for what the verdict says); {kinds['FAILS']} "
        f"fail, {kinds['skipped']} were skipped, {kinds['not yet built']} are not yet built"
    )


# --- the two forms ---


def table(verdicts: Sequence[Verdict]) -> Table:
    """The matrix for a screen."""
    drawn = Table(title="the fault matrix", show_lines=True)
    drawn.add_column("row", justify="right")
    drawn.add_column("fault", ratio=3)
    drawn.add_column("expected", ratio=3)
    for heading in ("passed", "failed", "skipped", "seconds"):
        drawn.add_column(heading, justify="right")
    drawn.add_column("verdict", ratio=3)
    for verdict in verdicts:
        counts = (
            verdict.count("passed"),
            verdict.count("failed", "not finished"),
            verdict.count("skipped", "left out"),
        )
        cells = [verdict.row.fault, verdict.row.expected, *map(str, counts), f"{verdict.seconds:.1f}"]
        said = Text(str(verdict), style=_STYLES.get(verdict.kind, "dim"))
        drawn.add_row(str(verdict.row.number), *(Text(cell) for cell in cells), said)
    return drawn


def page(verdicts: Sequence[Verdict], machine: str) -> str:
    """The matrix for docs, as Markdown."""
    lines = [
        "# The fault matrix",
        "",
        "What may go wrong, what is promised then, and what tests found. Written by `make faults`; do not edit.",
        "",
        f"**{summarise(verdicts)}.** Machine: {machine}.",
        "",
        "| # | Fault | Expected | Tests | Seconds | Verdict |",
        "|---:|---|---|---|---:|---|",
        *(_page_line(verdict) for verdict in verdicts),
        "",
        "## Run it again",
        "",
        "```",
        "make faults                                         # everything, and this page anew",
        ".venv/bin/python tests/faults/run_matrix.py --quick # without the heavy tests; this page stays",
        ".venv/bin/python -m pytest tests/faults/FILE        # one file, as any other test",
        "```",
        "",
        "The last line says how many rows hold; the exit code is 1 where a row fails. A row whose tests were skipped",
        "here (for lack of something this machine does not have) does not count as held, and fails nothing.",
        "",
    ]
    return "\n".join(lines)


def _page_line(verdict: Verdict) -> str:
    row = verdict.row
    tests = f"{len(verdict.tests)} in {', '.join(verdict.files)}" if verdict.tests else ""
    cells = (str(row.number), row.fault, row.expected, tests, f"{verdict.seconds:.1f}", str(verdict))
    return f"| {' | '.join(_cell(cell) for cell in cells)} |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

"""Run the fault matrix, print it, and write it down where told: `make faults` does so in docs/faults.md.

    python tests/faults/run_matrix.py [FOLDER] [--quick] [--document FILE]

The tests run in a process of their own, so that one that takes its process with it is a row that fails and not the end
of the matrix. Progress goes to standard error, a line a test; the matrix to standard output, whose last line says how
many rows hold. Exit code 1 where anything failed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rows import ROWS
from verdicts import Finished, homeless_failures, judge, last_line, page, read_tests, summarise, table

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
WIDTH = 150
_POLL_SECONDS = 0.2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, write; the exit code."""
    options = _parser().parse_args(arguments)
    tests, said = run_tests(options.folder.resolve(), quick=options.quick)
    verdicts, homeless = judge(ROWS, tests), homeless_failures(tests)
    out = Console(width=WIDTH, highlight=False)
    for test in tests:
        if test.has_failed:
            out.print(f"{test.test}: {test.outcome}\n{test.detail}", markup=False)
    if not tests or any(test.outcome == "not finished" for test in tests):
        out.print(said, markup=False)  # pytest's own words say why
    out.print(table(verdicts))
    if options.document is not None and not options.quick:
        options.document.write_text(page(verdicts, describe_machine()), encoding="utf-8")
        out.print(f"written: {options.document}", soft_wrap=True)
    out.print(summarise(verdicts))
    if homeless:
        out.print(f"outside the rows: {len(homeless)} failed")
    print(last_line(verdicts), flush=True)
    return int(not tests or bool(homeless) or any(verdict.kind == "FAILS" for verdict in verdicts))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=HERE, help="of the tests; default: this one")
    parser.add_argument("--quick", action="store_true", help="without the heavy tests; writes no document")
    parser.add_argument("--document", type=Path, metavar="FILE", help="a page to write, such as docs/faults.md")
    return parser


def run_tests(folder: Path, *, quick: bool) -> tuple[list[Finished], str]:
    """The tests of a folder, each as far as it came, and what pytest printed; a line a test on standard error."""
    with tempfile.TemporaryDirectory() as scratch:
        record, output = Path(scratch) / "record.jsonl", Path(scratch) / "output"
        record.touch()
        command = [
            *(sys.executable, "-m", "pytest", str(folder), "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT)),
            *("-p", "recorder", "--record-faults", str(record), "-p", "no:cacheprovider"),
            *(["-m", "not heavy"] if quick else []),
        ]
        paths = os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH"))))
        with output.open("wb") as written, record.open(encoding="utf-8") as lines:
            process = subprocess.Popen(
                command, cwd=ROOT, env={**os.environ, "PYTHONPATH": paths}, stdout=written, stderr=subprocess.STDOUT
            )
            with process:
                _follow(process, lines)
        return read_tests(record.read_text(encoding="utf-8").splitlines()), output.read_text(errors="replace")


def _follow(process: subprocess.Popen[bytes], lines: TextIO) -> None:
    """Show finished tests until the process has ended."""
    rows: dict[str, list[int]] = {}
    rest = ""
    while True:
        has_ended = process.poll() is not None  # asked before reading: nothing is written after it
        *whole, rest = (rest + lines.read()).split("\n")
        for line in map(json.loads, whole):
            if line["event"] == "collected":
                rows[line["test"]] = line["rows"]
            elif line["event"] == "finished":
                numbers = ",".join(map(str, rows.get(line["test"], []))) or "-"
                shown = line["test"].removeprefix("tests/faults/")
                print(f"{numbers:>5}  {line['outcome']:<7} {line['seconds']:6.1f} s  {shown}", file=sys.stderr)
        if has_ended:
            return
        time.sleep(_POLL_SECONDS)


def describe_machine() -> str:
    """Cores, memory and the versions that the matrix depends on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = f"TensorFlow {version('tensorflow')}, Prefect {version('prefect')}"
    return f"{os.cpu_count()} cores, {memory:.0f} GiB of memory, Python {platform.python_version()}, {versions}"


if __name__ == "__main__":
    sys.exit(main())

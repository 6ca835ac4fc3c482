"""What pytest tells the fault matrix: one JSON line for every test it knows, leaves out or has finished.

A plugin, loaded by `run_matrix` in the process that runs the tests; lines go to the file that `--record-faults` names.

    {"event": "collected", "test": ..., "rows": [...]}     also of tests that are left out
    {"event": "left out", "test": ...}                     deselected by -m
    {"event": "finished", "test": ..., "outcome": passed | failed | skipped, "seconds": ..., "detail": ...}

`detail` is the reason of a skip and the traceback of a failure.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record-faults", metavar="FILE", help="append what happens to the tests of the fault matrix")


def pytest_configure(config: pytest.Config) -> None:
    path = config.getoption("--record-faults")
    if path:
        config.pluginmanager.register(Recorder(Path(path)))


class Recorder:
    """Writes the lines."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seconds: dict[str, float] = {}
        self.found: dict[str, tuple[str, str]] = {}

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> Iterator[None]:
        for item in items:  # before -m takes any out
            rows = sorted({number for mark in item.iter_markers("fault") for number in mark.args})
            self.write(event="collected", test=item.nodeid, rows=rows)
        return (yield)

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        for item in items:
            self.write(event="left out", test=item.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.write(event="finished", test=report.nodeid, outcome="failed", seconds=0.0, detail=report.longreprtext)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        test = report.nodeid
        self.seconds[test] = self.seconds.get(test, 0.0) + report.duration
        if report.failed:
            self.found[test] = ("failed", self.found.get(test, ("", ""))[1] + report.longreprtext)
        elif report.skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
            self.found.setdefault(test, ("skipped", reason.removeprefix("Skipped: ")))
        if report.when == "teardown":
            outcome, detail = self.found.get(test, ("passed", ""))
            seconds = round(self.seconds[test], 3)
            self.write(event="finished", test=test, outcome=outcome, seconds=seconds, detail=detail)

    def write(self, **line: Any) -> None:
        with self.path.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(line) + "\n")

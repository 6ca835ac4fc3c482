"""Seconds of the PSI of hundreds of features and of the metrics of a score on millions of rows.

    python benchmarks/bench_metrics.py --rows 2000000 --features 200

Of the numeric features every other one is continuous with 2% missing; the others are whole numbers from 0 to 12, as of
ages in years or counts of enquiries, with the special code -1 on a tenth of the rows. The texts have 30 levels, ten of
them rare in the reference, and one level more in the month. A reference is as long as a month, which is the dearest
case: in use it is the few thousand rows that a champion was fitted on. Every column is drawn from the seed when its
turn comes and dropped after it, so that memory does not grow with the features; drawing is not timed.

The floor is one numpy sort of each numeric column: what any method pays that puts its values in order.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TypeVar

import numpy as np
import polars as pl

from crossrisk.metrics import evaluate
from crossrisk.stability import describe_categories, describe_numbers, psi

FREEZE, COUNT, TEXTS, METRICS, FLOOR = (
    "freeze the reference's bins, numbers",
    "count the month and take the PSI, numbers",
    "the same two, texts",
    "metrics with intervals (evaluate)",
    "floor: one numpy sort a number column",
)
MONTH_SHIFT = 0.1
"""sd by which the month's continuous features lie higher"""
CODE = -1.0
T = TypeVar("T")


@dataclass(frozen=True)
class Line:
    """One line of the table."""

    work: str
    seconds: float
    """median over the repeats of the total over columns"""
    floor_ratio: float
    """seconds to those of the floor"""


class Clock:
    """Adds up seconds by work and repeat."""

    def __init__(self) -> None:
        self.seconds: dict[tuple[str, int], float] = {}

    def time(self, work: str, repeat: int, step: Callable[[], T]) -> T:
        """Run one step and add its time."""
        started = time.perf_counter()
        result = step()
        key = (work, repeat)
        self.seconds[key] = self.seconds.get(key, 0.0) + time.perf_counter() - started
        return result

    def median(self, work: str) -> float:
        """Of the repeats' totals."""
        return statistics.median(spent for (name, _), spent in self.seconds.items() if name == work)


def number_columns(rows: int, features: int, seed: int) -> Iterator[tuple[pl.Series, pl.Series, tuple[float, ...]]]:
    """Reference, month and special codes, one feature at a time."""
    for feature in range(features):
        rng = np.random.default_rng([seed, feature])
        if feature % 2 == 0:
            sides = [rng.standard_normal(rows) + shift for shift in (0.0, MONTH_SHIFT)]
            for side in sides:
                side[rng.integers(0, rows, rows // 50)] = np.nan
            yield pl.Series(sides[0]), pl.Series(sides[1]), ()
        else:
            sides = [rng.binomial(12, 0.2, rows).astype(np.float64) for _ in range(2)]
            for side in sides:
                side[rng.integers(0, rows, rows // 10)] = CODE
            yield pl.Series(sides[0]), pl.Series(sides[1]), (CODE,)


def text_columns(rows: int, features: int, seed: int) -> Iterator[tuple[pl.Series, pl.Series]]:
    """Reference and month, one feature at a time."""
    levels = pl.Series([f"level {i:02}" for i in range(31)])
    for feature in range(features):
        rng = np.random.default_rng([seed, 1_000_000 + feature])
        reference, month = (levels.gather((rng.random(rows) ** 2 * many).astype(np.int64)) for many in (30, 31))
        yield reference, month


def time_stability(clock: Clock, arguments: argparse.Namespace) -> None:
    """PSI of every feature; the floor is timed on the same columns."""
    columns = number_columns(arguments.rows, arguments.features, arguments.seed)
    for done, (before, after, codes) in enumerate(columns, start=1):
        values = before.to_numpy()
        for repeat in range(arguments.repeats):
            frozen = clock.time(FREEZE, repeat, lambda: describe_numbers(before, specials=codes))  # noqa: B023
            clock.time(COUNT, repeat, lambda: psi(frozen.counts, frozen.bins.count(after)))  # noqa: B023
            clock.time(FLOOR, repeat, lambda: np.sort(values))  # noqa: B023
        tell(f"numbers {done}/{arguments.features}")
    for done, (before, after) in enumerate(text_columns(arguments.rows, arguments.texts, arguments.seed), start=1):
        for repeat in range(arguments.repeats):
            frozen = clock.time(TEXTS, repeat, lambda: describe_categories(before))  # noqa: B023
            clock.time(TEXTS, repeat, lambda: psi(frozen.counts, frozen.bins.count(after)))  # noqa: B023
        tell(f"texts {done}/{arguments.texts}")


def time_metrics(clock: Clock, arguments: argparse.Namespace) -> None:
    """Every metric of one score, calibrated, with a bad rate near 7%."""
    rng = np.random.default_rng([arguments.seed, 2_000_000])
    probability = rng.beta(1.4, 18.6, arguments.rows)
    label = (rng.random(arguments.rows) < probability).astype(np.int8)
    for repeat in range(arguments.repeats):
        tell(f"metrics {repeat + 1}/{arguments.repeats}")
        clock.time(
            METRICS,
            repeat,
            lambda: evaluate(label, {"score": probability}, replicates=arguments.replicates, seed=arguments.seed),
        )


def tell(progress: str) -> None:
    """One line on stderr, written over the one before where it is a terminal."""
    print(progress, end="\r" if sys.stderr.isatty() else "\n", file=sys.stderr, flush=True)


def table(lines: list[Line], arguments: argparse.Namespace) -> str:
    """As text, with what was timed and on what."""
    head = (
        f"{arguments.rows:,} rows, {arguments.features} numbers, {arguments.texts} texts, median of "
        f"{arguments.repeats}; {platform.machine()}, {os.cpu_count()} cores, numpy {np.__version__}, "
        f"polars {pl.__version__}"
    )
    width = max(len(line.work) for line in lines)
    shown = [f"{line.work:<{width}}{line.seconds:>9.2f} s{line.floor_ratio:>8.2f} x floor" for line in lines]
    return "\n".join([head, "", *shown])


def main() -> None:
    """Time what the arguments ask for and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--features", type=int, default=200, help="numeric columns")
    parser.add_argument("--texts", type=int, default=5, help="categorical columns")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--replicates", type=int, default=1000, help="resamples asked of evaluate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-metrics", action="store_true", help="PSI alone")
    parser.add_argument("--json", action="store_true", help="print a JSON document in place of the table")
    arguments = parser.parse_args()
    if min(arguments.rows, arguments.features, arguments.texts, arguments.repeats) < 1:
        parser.error("rows, features, texts and repeats: expected 1 or more of each")

    clock = Clock()
    time_stability(clock, arguments)
    if not arguments.no_metrics:
        time_metrics(clock, arguments)
    timed = [work for work in (FREEZE, COUNT, TEXTS, METRICS) if (work, 0) in clock.seconds]
    floor = clock.median(FLOOR)
    seconds = {**{work: clock.median(work) for work in timed}, FLOOR: floor}
    seconds["all but the floor"] = sum(seconds[work] for work in timed)
    lines = [Line(work, spent, spent / floor) for work, spent in seconds.items()]
    if arguments.json:
        print(json.dumps({"arguments": vars(arguments), "lines": [asdict(line) for line in lines]}, indent=1))
    else:
        print(table(lines, arguments))


if __name__ == "__main__":
    main()

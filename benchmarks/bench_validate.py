"""Seconds and memory of validating a generated Parquet of millions of rows; `--rows` sets how many.

    python benchmarks/bench_validate.py --rows 3000000

The suite is the common one (nine rules apply), two rules for each of 36 columns and two more: 83 expectations. To
compare with: Great Expectations on pandas took 50 s and 1.3 GB for 3 million rows and as many expectations, and on
DuckDB in a prototype 2.6 to 4 s and 0.6 GB, no row set aside. The peak is of imports and work together.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import sys
import tempfile
import time
from pathlib import Path

import duckdb

NUMERIC_COLUMNS = 36


def write_rows(path: Path, rows: int) -> None:
    """Ids, dates, labels and normal columns with one in a thousand missing; `customer` repeats."""
    normal = "sqrt(-2 * ln(1 - random())) * cos(2 * pi() * random())"
    numeric = ", ".join(
        f"CASE WHEN random() < 0.001 THEN NULL ELSE {normal} END AS x_{i:02}" for i in range(NUMERIC_COLUMNS)
    )
    connection = duckdb.connect(config={"memory_limit": "1GB", "temp_directory": str(path.parent / "tmp")})
    connection.execute("SELECT setseed(0.5)")
    connection.execute(
        f"COPY (SELECT 'application-' || i AS id, 'customer-' || i // 2 AS customer, "
        f"DATE '2020-01-01' + (i % 700)::INTEGER AS decided, (i % 11 = 0)::TINYINT AS bad, {numeric} "
        f"FROM range({rows}) AS numbers(i)) TO '{path}' (FORMAT parquet, COMPRESSION zstd)"
    )
    connection.close()


def write_suite(path: Path) -> None:
    """Two rules a column: a range that a few normal values leave, and few missing. One range sets rows aside."""
    meta = {"action": "warn", "why": "to be timed", "owner": "benchmark"}
    rules = []
    for i in range(NUMERIC_COLUMNS):
        column = f"x_{i:02}"
        bounds = {"column": column, "min_value": -4, "max_value": 4}
        known = {"column": column, "mostly": 0.99}
        action = "quarantine" if i == 0 else "warn"
        meta_range = {**meta, "action": action}
        rules.append(("expect_column_values_to_be_between", f"range-{i}", bounds, meta_range))
        rules.append(("expect_column_values_to_not_be_null", f"known-{i}", known, meta))
    rules.append(
        ("expect_column_mean_to_be_between", "mean", {"column": "x_00", "min_value": -1, "max_value": 1}, meta)
    )
    rules.append(("expect_column_max_to_be_between", "largest", {"column": "x_01", "max_value": 8}, meta))
    expectations = [
        {"name": name, "type": kind, "kwargs": kwargs, "meta": meta_of} for kind, name, kwargs, meta_of in rules
    ]
    suite = {"schema_version": 1, "name": "bench", "max_quarantined_share": 0.01, "expectations": expectations}
    path.write_text(json.dumps(suite), encoding="utf-8")


def peak_gigabytes() -> float:
    """Largest resident memory of this process so far."""
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes / (1e9 if sys.platform == "darwin" else 1e6)


def main() -> None:
    """Generate in a child, then time imports, loading and validating here."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=3_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    measured: list[tuple[str, float]] = []
    with tempfile.TemporaryDirectory() as temporary:
        table, suite_file = Path(temporary, "rows.parquet"), Path(temporary, "bench.json")
        if (child := os.fork()) == 0:  # its memory must not count
            write_rows(table, arguments.rows)
            os._exit(0)
        if os.waitpid(child, 0)[1] != 0:
            raise SystemExit("the table could not be generated; its error is above")
        write_suite(suite_file)

        started = time.perf_counter()
        from expectations import load_suites
        from tasks.validate import validate_files

        roles = {"id": "id", "label": "bad", "decision_date": "decided", "customer": "customer"}
        suite = load_suites([str(suite_file)], roles)
        measured.append(("imports and suite", time.perf_counter() - started))
        after_import = peak_gigabytes()
        for repeat in range(arguments.repeats):
            started = time.perf_counter()
            report = validate_files([table], suite, Path(temporary, "out"), id_column="id", hive=False)
            measured.append((f"validation, run {repeat + 1}", time.perf_counter() - started))
    print(f"{report.rows:,} rows, {len(report.results)} expectations, {report.quarantined_ids:,} rows set aside")
    print(f"{platform.machine()}, {os.cpu_count()} cores, DuckDB {duckdb.__version__}\n")
    for name, seconds in measured:
        print(f"{name:<24}{seconds:>8.2f} s")
    print(f"{'peak after imports':<24}{after_import:>8.2f} GB")
    print(f"{'peak memory':<24}{peak_gigabytes():>8.2f} GB")


if __name__ == "__main__":
    main()

"""Rows a second and memory of `crossrisk score` on a generated delivery, beside the floor below which no scoring goes.

    python benchmarks/bench_batch.py [--rows 2000000] [--files 4] [--form logistic network] [--json PATH]

The floor reads the same columns of the same Parquet and writes an output of the same size, in one process, and scores
nothing. A portfolio of 20 numbers and 5 categories and a version of each form are made in a temporary folder: a
logistic regression, whose scoring costs next to nothing, and an ensemble of three networks 128-32 with random weights,
the shape that is trained by default. The command runs in a process of its own; its memory and its child's (RSS, at
their largest) are sampled ten times a second, `rows / s` is of the scoring step as the summary has it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
import psutil
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "data"))

NUMBERS = [f"x_{i:02}" for i in range(20)]
CATEGORIES = [f"c_{i}" for i in range(5)]
BATCH_ROWS = 50_000
SAMPLE_EVERY_S = 0.1
TOML = f"""
name = "bench"
as_of = 2024-12-31
[data]
path = "loans"
id = "id"
[label]
column = "bad"
[population]
source = "bad = 0"
target = "bad = 1"
[features]
numeric = {NUMBERS}
categorical = {CATEGORIES}
"""


def main() -> None:
    """Make the data and the versions, score, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--files", type=int, default=4)
    parser.add_argument("--form", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    results = []
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        in_child(write_rows, home / "data" / "rows", options.rows, options.files)
        megabytes = sum(file.stat().st_size for file in (home / "data" / "rows").iterdir()) / 1e6
        print(f"{options.rows:,} rows in {options.files} files, {megabytes:,.0f} MB\n")
        for form in options.form:
            in_child(publish, home / form, home / "data", form)
            results.append(run(home / form, form, options.rows))
            show(results[-1])
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


def in_child(work, *arguments: object) -> None:
    """Call a function in a fresh process: what it loads must not count, nor be forked."""
    process = multiprocessing.get_context("spawn").Process(target=work, args=arguments)
    process.start()
    process.join()
    if process.exitcode != 0:
        raise SystemExit(f"{work.__name__} failed; its error is above")


def write_rows(folder: Path, rows: int, files: int) -> None:
    """Normal numbers, a tenth of them missing, categories of ten levels, ids as text."""
    folder.mkdir(parents=True)
    edges = np.linspace(0, rows, files + 1).astype(int)
    for number, (first, last) in enumerate(itertools.pairwise(edges)):
        draw = np.random.default_rng(number)
        n = int(last - first)
        columns: dict[str, object] = {"id": [f"application-{row:09}" for row in range(first, last)]}
        for name in NUMBERS:
            values = draw.normal(size=n)
            values[draw.random(n) < 0.1] = np.nan
            columns[name] = pl.Series(values).fill_nan(None)
        for name in CATEGORIES:
            columns[name] = pl.Series([f"level {level}" for level in range(10)])[draw.integers(0, 10, n)]
        pl.DataFrame(columns).write_parquet(folder / f"{number:02}.parquet", row_group_size=100_000)


def logistic(width: int):
    """Random weights."""
    from models.fitted import Logistic

    return Logistic(np.random.default_rng(0).normal(0, 0.1, width), 0.0)


def network(width: int):
    """Three of them, 128-32, random weights."""
    from models.fitted import Network

    draw = np.random.default_rng(0)
    sizes = [(width, 128), (128, 32), (32, 1)]
    weights = tuple(draw.normal(0, 1 / np.sqrt(n), (3, n, m)).astype(np.float32) for n, m in sizes)
    return Network(weights, tuple(np.zeros((3, m), np.float32) for _, m in sizes), "relu")


FORMS = {"logistic": logistic, "network": network}


def publish(home: Path, data: Path, form: str) -> None:
    """Export a version of random weights on the features of the first rows, with these as its reference."""
    from registries import publish as place

    from crossrisk.config import load_portfolio
    from crossrisk.features import FitSettings, encoding_expressions, fit_plan, rowwise_expressions
    from crossrisk.registry import Registry
    from crossrisk.scoring import Scaling
    from crossrisk.stability import describe_numbers
    from models.bundle import export
    from models.fitted import Calibration, Contender

    home.mkdir()
    (home / "bench.toml").write_text(TOML)
    loaded = load_portfolio(home / "bench.toml", environ={"CROSSRISK_HOME": str(home), "CROSSRISK_DATA": str(data)})
    rows = loaded.portfolio.row_plan
    frame = pl.read_parquet(data / "rows" / "00.parquet", n_rows=20_000)
    features = frame.select(rowwise_expressions(rows))
    plan = fit_plan(features, rows, FitSettings())
    contender = Contender(form, FORMS[form](len(plan.outputs)), Calibration(-2.0, 1.0))
    score = describe_numbers(contender.probability(features.select(encoding_expressions(plan)).to_numpy()), decimals=6)
    reference = {
        "schema_version": 1, "plan": rows.model_dump(mode="json"), "rows": frame.height, "first_month": None,
        "last_month": None, "score": score.to_json(), "features": {},
    }  # fmt: skip
    place(
        Registry(loaded.folders.registry), time.time(), contender=form,
        write=lambda model: export(plan, contender, Scaling(600, 30, 20), model),
        companions={"reference.json": json.dumps(reference)},
        raw_columns=[column.model_dump() for column in rows.raw_columns],
    )  # fmt: skip


def run(home: Path, form: str, rows: int) -> dict:
    """One scoring, then the floor of it."""
    environ = {**os.environ, "CROSSRISK_HOME": str(home), "CROSSRISK_DATA": str(home.parent / "data")}
    command = [
        sys.executable, "-m", "flows.cli", "score", str(home / "bench.toml"), "--input", "rows",
        "--output", str(home / "out"), "--json",
    ]  # fmt: skip
    started = time.monotonic()
    with (home / "log").open("w") as log:
        process = psutil.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT)
        peaks = {"command": 0, "child": 0}
        while process.poll() is None:
            peaks = {who: max(peaks[who], memory) for who, memory in memory_of(process).items()}
            time.sleep(SAMPLE_EVERY_S)
    seconds = time.monotonic() - started
    answer = json.loads(process.stdout.read())
    if process.returncode != 0:
        raise SystemExit(f"{answer['message']}\n{(home / 'log').read_text()[-3000:]}")
    assert answer["rows"] == answer["scored"] == rows
    (record,) = (home / "work" / "bench" / "runs").glob("*/run.json")
    return {
        "form": form, "rows": rows, "seconds": seconds, "steps": json.loads(record.read_text())["seconds"],
        "rows_per_second": answer["rows_per_second"], "floor_seconds": floor(home),
        "peak_mb": {who: memory / 1e6 for who, memory in peaks.items()},
    }  # fmt: skip


def memory_of(process: psutil.Process) -> dict[str, int]:
    """Resident memory of the command and of the child that scores, in bytes; 0 of what is not there."""
    found = {"command": 0, "child": 0}
    for one in [process, *process.children()]:
        try:
            who = "command" if one.pid == process.pid else "child" if "models.score_worker" in one.cmdline() else ""
            if who:
                found[who] = one.memory_info().rss
        except psutil.NoSuchProcess:
            continue  # it ended between listing and asking
    return found


def floor(home: Path) -> float:
    """Seconds of reading what is read and writing what was written, batch by batch."""
    started = time.monotonic()
    for file in sorted((home.parent / "data" / "rows").iterdir()):
        with pq.ParquetFile(file) as parquet:
            for _ in parquet.iter_batches(batch_size=BATCH_ROWS, columns=["id", *NUMBERS, *CATEGORIES]):
                pass
    reading = time.monotonic() - started
    written = [pq.read_table(file) for file in sorted((home / "out").glob("part-*.parquet"))]
    started = time.monotonic()
    for number, table in enumerate(written):
        with (
            (home / f"floor-{number}").open("wb") as file,
            pq.ParquetWriter(file, table.schema, compression="zstd") as sink,
        ):
            for batch in table.to_batches(max_chunksize=BATCH_ROWS):
                sink.write_batch(batch)
            file.flush()
            os.fsync(file.fileno())
    return reading + time.monotonic() - started


def show(result: dict) -> None:
    """Print one result."""
    print(f"{result['form']}: {result['rows_per_second']:,} rows a second while scoring")
    for name, seconds in result["steps"].items():
        print(f"  {name:<24}{seconds:>8.1f} s")
    times = result["steps"]["score the partitions"] / result["floor_seconds"]
    print(f"  {'whole command':<24}{result['seconds']:>8.1f} s")
    print(f"  {'floor: read and write':<24}{result['floor_seconds']:>8.1f} s   scoring takes {times:.1f} times it")
    print(
        "  peak memory             " + ", ".join(f"{who} {mb:,.0f} MB" for who, mb in result["peak_mb"].items()) + "\n"
    )


if __name__ == "__main__":
    main()

"""The feature plan over monthly partitions: one Polars query a month against pandas and DuckDB doing the same.

    python benchmarks/bench_features.py [--rows 10000000] [--months 24] [--folder DIR] [--json PATH]

Raw Parquet of 100 columns in, Parquet of the float32 matrix out, one month after the other, on two threads each. Every
engine is one process over all months, so that its peak memory is its own; the three take turns, a month each, so that a
busy machine slows them alike. Medians over the months are shown with ratios; the floor is Polars reading all raw
columns and writing our matrix again without computing anything. All three matrices of the first month are compared.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("POLARS_MAX_THREADS", "2")

import numpy as np
import polars as pl

from crossrisk.features import (
    DAYS_PER_MONTH,
    Age,
    BinTable,
    FeaturePlan,
    FitSettings,
    LevelTable,
    NumericEncoding,
    Ratio,
    RowPlan,
    Sentinels,
    encoded_query,
    fit_plan,
    rowwise_expressions,
)

THREADS = 2
NUMBERS = tuple(f"amount_{i:02d}" for i in range(77))
CATEGORIES = tuple(f"category_{i:02d}" for i in range(19))
DATES = ("opened_on", "born_on", "moved_on", "decided_on")
LOGGED, BINNED = NUMBERS[:20], NUMBERS[20:30]
ROWS = RowPlan(
    decision_date="decided_on",
    numbers=NUMBERS,
    categories=CATEGORIES,
    sentinels=tuple(Sentinels(column=name, codes=(-999.0,)) for name in NUMBERS[:10]),
    ratios=tuple(Ratio(name=f"ratio_{i}", numerator=NUMBERS[i], denominator=NUMBERS[i + 1]) for i in range(5)),
    ages=tuple(Age(name=f"months_{date}", date=date) for date in DATES[:3]),
)
SETTINGS = FitSettings(
    min_level_rows=20,
    logs=dict.fromkeys(LOGGED, "log1p"),
    encodings={name: ("woe",) for name in (*BINNED, *CATEGORIES[10:])},
)


# --- data ---


def make_month(rows: int, seed: int) -> pl.DataFrame:
    """Raw columns as a bank writes them: amounts in cents, some missing, a code, levels with a tail, dates."""
    rng = np.random.default_rng(seed)
    columns: dict[str, Any] = {}
    for i, name in enumerate(NUMBERS):
        values = np.round(rng.lognormal(5 + i % 4, 1.0, rows), 2)
        values[rng.random(rows) < 0.05] = np.nan
        if i < 10:
            values[rng.random(rows) < 0.02] = -999.0
        columns[name] = pl.Series(values).fill_nan(None)
    levels = np.array([f"level {k}" for k in range(12)])
    for name in CATEGORIES:
        columns[name] = pl.Series(levels[np.minimum(rng.geometric(0.25, rows) - 1, 11)])
    for name in DATES:
        columns[name] = pl.Series(rng.integers(9_000, 20_000, rows).astype(np.int32)).cast(pl.Date)
    return pl.DataFrame(columns)


def make_plan() -> FeaturePlan:
    """A plan fitted on 50,000 rows of another month."""
    raw = make_month(50_000, seed=0)
    features = raw.select(rowwise_expressions(ROWS))
    risk = features[BINNED[0]].fill_null(0.0).log1p() + np.random.default_rng(1).normal(size=raw.height)
    return fit_plan(features, ROWS, SETTINGS, label=(risk > 8).cast(pl.Int8))


# --- the three engines: a month's file in, a month's matrix out ---


def by_polars(plan: FeaturePlan) -> Callable[[Path, Path], None]:
    """What Crossrisk does."""

    def run(source: Path, sink: Path) -> None:
        encoded_query(plan, pl.scan_parquet(source)).sink_parquet(sink, compression="zstd", compression_level=3)

    return run


def by_floor(plan: FeaturePlan) -> Callable[[Path, Path], None]:
    """Reads the raw columns, reads the matrix that `ours` has just left and writes it again; computes nothing."""

    def run(source: Path, sink: Path) -> None:
        pl.scan_parquet(source).select(pl.all().null_count()).collect(engine="streaming")
        matrix = pl.scan_parquet(sink.with_name("ours.parquet"))
        matrix.sink_parquet(sink, compression="zstd", compression_level=3)

    return run


def by_duckdb(plan: FeaturePlan) -> Callable[[Path, Path], None]:
    """The same in SQL."""
    import duckdb

    query = sql_of(plan)

    def run(source: Path, sink: Path) -> None:
        with duckdb.connect() as connection:
            connection.execute(f"SET threads = {THREADS}; SET preserve_insertion_order = true")
            connection.execute(
                f"COPY ({query.format(source=source)}) TO '{sink}' (FORMAT parquet, COMPRESSION zstd, "
                "COMPRESSION_LEVEL 3, PRESERVE_ORDER true)"
            )

    return run


def sql_of(plan: FeaturePlan) -> str:
    """The plan as one SQL query over {source}."""
    codes = {s.column: s.codes for s in plan.rows.sentinels}

    def number(name: str) -> str:
        coded = "".join(f" AND {name} <> {code!r}" for code in codes.get(name, ()))
        return f"CASE WHEN isfinite({name}){coded} THEN {name} END"

    rowwise = [f"{number(name)} AS {name}" for name in plan.rows.numbers]
    for r in plan.rows.ratios:
        below = f"({number(r.denominator)})"
        rowwise.append(f"CASE WHEN {below} <> 0 THEN ({number(r.numerator)}) / {below} END AS {r.name}")
    for a in plan.rows.ages:
        days = f"({plan.rows.decision_date} - {a.date})"
        rowwise.append(f"{days} * {1.0 / DAYS_PER_MONTH!r}::DOUBLE AS {a.name}")
    rowwise += [f"nullif({name}, '') AS {name}" for name in plan.rows.categories]
    outputs = [
        *(text for n in plan.numerics for text in _sql_number(n)),
        *(text for c in plan.categories for text in _sql_slots(c.column, c.levels, c.missing_slot)),
        *(_sql_bins(t) for t in plan.bin_tables),
        *(_sql_levels(t) for t in plan.level_tables),
    ]
    named = (f'({text})::FLOAT AS "{name}"' for text, name in zip(outputs, plan.outputs, strict=True))
    return f"WITH features AS (SELECT {', '.join(rowwise)} FROM '{{source}}') SELECT {', '.join(named)} FROM features"


def _sql_number(n: NumericEncoding) -> list[str]:
    held = f"least(greatest(coalesce({n.column}, {n.fill!r}), {n.low!r}), {n.high!r})"
    held = f"ln(1 + {held})::FLOAT::DOUBLE" if n.log == "log1p" else held
    return [f"({held} - {n.mean!r}) * {1.0 / n.scale!r}::DOUBLE", *([f"{n.column} IS NULL"] if n.flag else [])]


def _sql_slots(column: str, levels: Sequence[str], missing_slot: bool) -> list[str]:
    among = ", ".join(f"'{level}'" for level in levels)
    missing = [f"{column} IS NULL"] if missing_slot else []
    other = f"coalesce({column} NOT IN ({among}), {'false' if missing_slot else 'true'})"
    return [*(f"coalesce({column} = '{level}', false)" for level in levels), *missing, other]


def _sql_bins(t: BinTable) -> str:
    whens = " ".join(
        f"WHEN {t.column} <= {edge!r} THEN {t.standardised(value)!r}"
        for edge, value in zip(t.edges, t.values[:-1], strict=True)
    )
    missing, last = t.standardised(t.missing), t.standardised(t.values[-1])
    return f"CASE WHEN {t.column} IS NULL THEN {missing!r} {whens} ELSE {last!r} END"


def _sql_levels(t: LevelTable) -> str:
    pairs = zip(t.levels, t.values, strict=True)
    whens = " ".join(f"WHEN {t.column} = '{level}' THEN {t.standardised(value)!r}" for level, value in pairs)
    missing, other = t.standardised(t.missing), t.standardised(t.other)
    return f"CASE WHEN {t.column} IS NULL THEN {missing!r} {whens} ELSE {other!r} END"


def by_pandas(plan: FeaturePlan) -> Callable[[Path, Path], None]:
    """The same in pandas, column by column and vectorised, as a careful notebook does it."""
    import pandas as pd

    codes = {s.column: s.codes for s in plan.rows.sentinels}

    def run(source: Path, sink: Path) -> None:
        raw = pd.read_parquet(source)
        features: dict[str, Any] = {}

        def number(name: str) -> Any:
            values = raw[name].astype("float64")
            values = values.where(np.isfinite(values))
            return values.mask(values.isin(codes[name])) if name in codes else values

        for name in plan.rows.numbers:
            features[name] = number(name)
        for r in plan.rows.ratios:
            below = number(r.denominator)
            features[r.name] = number(r.numerator) / below.mask(below == 0)
        for a in plan.rows.ages:
            days = pd.to_datetime(raw[plan.rows.decision_date]) - pd.to_datetime(raw[a.date])
            features[a.name] = days.dt.days * (1.0 / DAYS_PER_MONTH)
        for name in plan.rows.categories:
            features[name] = raw[name].mask(raw[name] == "")
        pd.DataFrame(_pandas_outputs(plan, features)).to_parquet(sink, compression="zstd", compression_level=3)

    return run


def _pandas_outputs(plan: FeaturePlan, features: dict[str, Any]) -> dict[str, Any]:
    import pandas as pd

    outputs: list[Any] = []
    for n in plan.numerics:
        held = features[n.column].fillna(n.fill).clip(n.low, n.high)
        held = np.log1p(held).astype("float32").astype("float64") if n.log == "log1p" else held
        outputs.append((held - n.mean) * (1.0 / n.scale))
        if n.flag:
            outputs.append(features[n.column].isna())
    for c in plan.categories:
        text = features[c.column]
        outputs += [text == level for level in c.levels]
        named = text.isin(c.levels)
        if c.missing_slot:
            outputs.append(text.isna())
            named |= text.isna()
        outputs.append(~named)
    for t in plan.bin_tables:
        bins = pd.cut(features[t.column], [-np.inf, *t.edges, np.inf], labels=False)
        values = dict(enumerate(map(t.standardised, t.values)))
        outputs.append(bins.map(values).fillna(t.standardised(t.missing)))
    for t in plan.level_tables:
        known = dict(zip(t.levels, map(t.standardised, t.values), strict=True))
        found = features[t.column].map(known).fillna(t.standardised(t.other))
        outputs.append(found.where(features[t.column].notna(), t.standardised(t.missing)))
    return {name: column.astype("float32") for name, column in zip(plan.outputs, outputs, strict=True)}


ENGINES = {"ours": by_polars, "pandas": by_pandas, "duckdb": by_duckdb, "floor": by_floor}
TAKE_TURNS = ("ours", "pandas", "duckdb")


# --- one process an engine, driven month by month over a pipe ---


def serve(engine: str, plan_path: Path) -> None:
    """Child: for each line `source<TAB>sink` run the engine and answer with seconds and peak memory in MB."""
    run = ENGINES[engine](FeaturePlan.model_validate_json(plan_path.read_text(encoding="utf-8")))
    for line in sys.stdin:
        source, sink = line.rstrip("\n").split("\t")
        started = time.perf_counter()
        run(Path(source), Path(sink))
        seconds = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"seconds": seconds, "peak_mb": peak}), flush=True)


class Engine:
    """The parent's hold on one such child."""

    def __init__(self, name: str, plan_path: Path) -> None:
        self.name, self.seconds, self.peak_mb = name, list[float](), 0.0
        command = [sys.executable, __file__, "--serve", name, str(plan_path)]
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, source: Path, sink: Path) -> None:
        """One month."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(f"{source}\t{sink}\n")
        self._child.stdin.flush()
        answer = json.loads(self._child.stdout.readline() or "{}")
        if not answer:
            raise RuntimeError(f"{self.name} died with status {self._child.wait()}")
        self.seconds.append(answer["seconds"])
        self.peak_mb = answer["peak_mb"]

    def close(self) -> None:
        """End the child."""
        assert self._child.stdin is not None
        self._child.stdin.close()
        self._child.wait()


def compare(first: Path, other: Path) -> float:
    """Largest absolute difference of two matrices."""
    a, b = pl.read_parquet(first), pl.read_parquet(other)
    if a.shape != b.shape or a.columns != b.columns:
        raise RuntimeError(f"{other.name}: {b.shape} with {b.columns[:3]}..., expected {a.shape} {a.columns[:3]}...")
    return max(float(np.abs(a[name].to_numpy() - b[name].to_numpy()).max()) for name in a.columns)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--months", type=int, default=24)
    parser.add_argument("--folder", type=Path, help="where the months are written; default: a temporary folder")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve", nargs=2, metavar=("ENGINE", "PLAN"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve[0], Path(options.serve[1]))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        document = measure(Path(scratch), options.rows, options.months)
    if options.json:
        options.json.write_text(json.dumps(document, indent=1), encoding="utf-8")


def measure(folder: Path, rows: int, months: int) -> dict[str, Any]:
    """All engines over all months."""
    plan = make_plan()
    plan_path = folder / "plan.json"
    plan_path.write_text(plan.model_dump_json(), encoding="utf-8")
    each = rows // months
    print(f"{months} months of {each:,} rows x 100 raw columns -> {len(plan.outputs)} outputs, {THREADS} threads")
    engines = {name: Engine(name, plan_path) for name in ENGINES}
    differences: dict[str, float] = {}
    for month in range(months):
        source = folder / f"month-{month:02d}.parquet"
        make_month(each, seed=100 + month).write_parquet(source)
        turn = month % len(TAKE_TURNS)
        for name in (*TAKE_TURNS[turn:], *TAKE_TURNS[:turn], "floor"):
            engines[name].run(source, folder / f"{name}.parquet")
        if month == 0:
            matrices = {name: folder / f"{name}.parquet" for name in TAKE_TURNS}
            differences = {name: compare(matrices["ours"], matrices[name]) for name in TAKE_TURNS[1:]}
        source.unlink()
        shown = "  ".join(f"{name} {engine.seconds[-1]:.2f}" for name, engine in engines.items())
        print(f"  month {month + 1:2d} of {months}: {shown} s", file=sys.stderr)
    for engine in engines.values():
        engine.close()
    return _report(engines, differences, each * months)


def _report(engines: dict[str, Engine], differences: dict[str, float], rows: int) -> dict[str, Any]:
    ours = statistics.median(engines["ours"].seconds)
    print(f"{'':8} {'median s':>9} {'total s':>8} {'rows/s':>10} {'of ours':>8} {'peak MB':>8} {'differs by':>11}")
    document: dict[str, Any] = {"rows": rows, "engines": {}}
    for name, engine in engines.items():
        median, total = statistics.median(engine.seconds), sum(engine.seconds)
        differs = f"{differences[name]:.1e}" if name in differences else ""
        print(
            f"{name:8} {median:9.3f} {total:8.1f} {rows / total:10,.0f} {median / ours:7.2f}x {engine.peak_mb:8.0f} "
            f"{differs:>11}"
        )
        document["engines"][name] = {"median_s": median, "total_s": total, "peak_mb": engine.peak_mb}
    return document


if __name__ == "__main__":
    main()

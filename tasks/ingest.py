"""Ingest: find the Parquet files, refuse what cannot be what the portfolio describes, count what is there.

Schema before values, bytes before meaning: a truncated file, a renamed column or an empty population ends the run here
with the file or column named. Values are judged by `tasks.validate`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from prefect import task
from prefect.cache_policies import NO_CACHE

from crossrisk.config import Loaded, Portfolio
from crossrisk.errors import ConfigError, InputError
from crossrisk.labels import BOTH, SOURCE, TARGET, matured_label, month, population
from crossrisk.schema import SchemaFault, compare_schema, expected_columns
from crossrisk.store import Stage, digest_file, stage

logger = logging.getLogger("crossrisk.ingest")


@task(name="ingest", cache_policy=NO_CACHE)
def ingest(loaded: Loaded) -> Stage:
    """Find, check and count the input. Facts: files with digests, warnings, rows by population and month.

    Raises:
        ConfigError: a population rule is no SQL.
        InputError: no file, a file outside data.root, unreadable bytes, a schema fault, a row of both populations,
            an empty population, a label other than 0 and 1.
    """
    portfolio, root = loaded.portfolio, loaded.folders.data_root
    files = find_files(root, portfolio.data.path)
    digests = {str(f.relative_to(root)): digest_file(f) for f in files}
    inputs = {"files": digests, "portfolio": _slice(portfolio)}
    made = stage(loaded.folders.stages, "ingest", inputs, lambda folder: _inspect(files, portfolio, root, digests))
    logger.info("%d files, %s rows, by population %s", len(files), made.facts["rows"], made.facts["populations"])
    for warning in made.facts["warnings"]:
        logger.warning(warning)
    return made


def _slice(portfolio: Portfolio) -> dict[str, Any]:
    return portfolio.model_dump(mode="json", include={"as_of", "data", "label", "population", "features", "use"})


def find_files(root: Path, path: str) -> list[Path]:
    """Parquet files of a file, folder or glob below `root`, sorted by name, without hidden ones.

    Raises:
        InputError: nothing there, or something that lies (or links) outside root.
    """
    base = root.resolve()
    if not base.is_dir():
        raise InputError(
            f"data.root {root} is no folder; set CROSSRISK_DATA or data.root to where the Parquet files lie"
        )
    if Path(path).is_absolute() or ".." in Path(path).parts:
        raise InputError(f"data.path {path!r} leads outside data.root; give it relative to {root}")
    place = base / path
    if place.is_file():
        found = [place]
    elif place.is_dir():
        found = sorted(place.rglob("*.parquet"))
    else:
        found = sorted(f for f in base.glob(path) if f.is_file())
    visible = [f for f in found if not any(part.startswith((".", "_")) for part in f.relative_to(base).parts)]
    for file in visible:
        if not file.resolve().is_relative_to(base):
            raise InputError(f"{file.relative_to(base)} is a link to outside data.root; copy the file instead")
    if not visible:
        raise InputError(f"no Parquet file at {path!r} below {root}; check data.path and data.root")
    return visible


def scan(files: Sequence[Path]) -> pl.LazyFrame:
    """The input as one lazy frame; `key=value` folders become columns."""
    return pl.scan_parquet(list(files), hive_partitioning=is_hive(files), glob=False, extra_columns="ignore")


def scan_ingested(loaded: Loaded, ingested: Stage) -> pl.LazyFrame:
    """The lazy frame of an ingested input."""
    return scan(ingested_files(loaded, ingested))


def ingested_files(loaded: Loaded, ingested: Stage) -> list[Path]:
    """The files of an ingested input, in order."""
    return [loaded.folders.data_root.resolve() / entry["path"] for entry in ingested.facts["files"]]


def is_hive(files: Sequence[Path]) -> bool:
    """Whether the files lie in `key=value` folders."""
    return "=" in files[0].parent.name


def _inspect(files: Sequence[Path], portfolio: Portfolio, root: Path, digests: Mapping[str, str]) -> dict[str, Any]:
    rules = _rule_columns(portfolio)
    warnings = sorted({fault.message for file in files for fault in _check_file(file, root, portfolio, rules)})
    counts = _count(scan(files), portfolio)
    populations = dict(counts.group_by("population").agg(pl.col("rows").sum()).sort("population").iter_rows())
    _refuse_impossible(populations, counts, portfolio)
    return {
        "files": [{"path": path, "sha256": digest} for path, digest in digests.items()],
        "rows": int(counts["rows"].sum()),
        "populations": populations,
        "months": counts.drop("strange_labels").to_dicts(),
        "warnings": warnings,
    }


def _rule_columns(portfolio: Portfolio) -> frozenset[str]:
    columns: set[str] = set()
    for key, rule in (("source", portfolio.population.source), ("target", portfolio.population.target)):
        try:
            columns |= set(pl.sql_expr(rule).meta.root_names())
        except pl.exceptions.PolarsError as error:
            raise ConfigError(f"population.{key} is no SQL filter: {rule!r}: {error}") from error
    return frozenset(columns)


def _check_file(file: Path, root: Path, portfolio: Portfolio, rules: frozenset[str]) -> list[SchemaFault]:
    """Schema faults that do not stop; raises InputError for those that do, and for bytes that cannot be decoded."""
    name = file.relative_to(root.resolve())
    try:
        with pq.ParquetFile(file) as parquet:
            schema = _with_hive_columns(parquet.schema_arrow, file)
            faults = compare_schema(schema, portfolio, population_columns=rules)
            stopping = [fault.message for fault in faults if fault.stops]
            if stopping:
                raise InputError(
                    f"{name}: " + "; ".join(stopping) + ". Correct the file, or the column's name in the TOML"
                )
            wanted = {*rules, *expected_columns(portfolio)} & set(parquet.schema_arrow.names)
            for _ in parquet.iter_batches(columns=sorted(wanted)):
                pass  # decoding is the check: a footer can be whole above broken pages
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"{name}: not readable as Parquet (truncated or corrupt): {error}. Nothing was trained; deliver it again"
        ) from error
    return faults


def _with_hive_columns(schema: pa.Schema, file: Path) -> pa.Schema:
    for part in file.parts:
        key, equals, _ = part.partition("=")
        if equals and key not in schema.names:
            schema = schema.append(pa.field(key, pa.string()))
    return schema


def _count(rows: pl.LazyFrame, portfolio: Portfolio) -> pl.DataFrame:
    """Rows, matured rows and matured bads by population and month."""
    label = pl.col(portfolio.label.column)
    is_strange = label.is_not_null() & ~label.cast(pl.Float64).is_in([0.0, 1.0])
    return (
        rows.select(
            population(portfolio).alias("population"),
            month(portfolio).alias("month"),
            pl.when(~is_strange).then(matured_label(portfolio)).alias("label"),
            is_strange.alias("is_strange"),
        )
        .group_by("population", "month")
        .agg(
            pl.len().alias("rows"),
            pl.col("label").is_not_null().sum().alias("matured"),
            (pl.col("label") == 1).sum().alias("bads"),
            pl.col("is_strange").sum().alias("strange_labels"),
        )
        .sort("population", "month")
        .collect(engine="streaming")
    )


def _refuse_impossible(populations: Mapping[str, int], counts: pl.DataFrame, portfolio: Portfolio) -> None:
    strange = int(counts["strange_labels"].sum())
    if strange:
        raise InputError(
            f"label {portfolio.label.column!r}: expected 0, 1 or null, but {strange} rows hold something else; "
            "recode the label before it comes here"
        )
    if populations.get(BOTH):
        raise InputError(
            f"{populations[BOTH]} rows belong to both populations; make the two rules of [population] exclusive"
        )
    for name in (SOURCE, TARGET):
        if not populations.get(name):
            raise InputError(
                f"population {name!r} is empty: no row of {sum(populations.values())} meets "
                f"{getattr(portfolio.population, name)!r}; correct population.{name}"
            )

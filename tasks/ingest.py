"""Ingest: find the Parquet files, refuse what cannot be what the portfolio describes, count what is there.

Schema before values, bytes before meaning: a truncated file, a renamed column or an empty population ends the run here
with the file or column named. Values are judged by `tasks.validate`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import polars as pl
import polars.selectors as cs
import pyarrow as pa
import pyarrow.parquet as pq
from prefect import task
from prefect.cache_policies import NO_CACHE

from crossrisk.config import Loaded, Portfolio
from crossrisk.errors import ConfigError, InputError
from crossrisk.labels import BOTH, SOURCE, TARGET, matured_label, month, population
from crossrisk.schema import SchemaFault, compare_schema, expected_columns, tabled_columns
from crossrisk.store import Stage, digest_file, stage
from tasks.column_map import join_inputs, rename_columns, rename_fields
from tasks.label_files import Labelled, LabelTables, attach_labels, facts_of, provided_columns

logger = logging.getLogger("crossrisk.ingest")


ROWS = "rows.parquet"
"""of the stage: all rows under the portfolio's names, where those are not the files' own"""
LOANS = "loans"
_LABEL_FILES: tuple[Literal["outcomes", "revisions"], ...] = ("outcomes", "revisions")


@task(name="ingest", cache_policy=NO_CACHE)
def ingest(loaded: Loaded) -> Stage:
    """Find, check and count the input. Facts: files with digests, warnings, rows by population and month.

    Where source and target have an input each, columns have other names in the files, or the label is joined or
    computed, rows.parquet of the stage holds all rows under the portfolio's names; else the files are read in place.

    Raises:
        ConfigError: a rule of the populations or the label is no SQL, or does not fit the columns.
        InputError: no file, a file outside data.root, unreadable bytes, a schema fault, a row of both populations,
            types that differ between files, an empty population, label files that do not fit the loans.
    """
    portfolio, root = loaded.portfolio, loaded.folders.data_root
    found = {name: _find_input(name, portfolio, root) for name in portfolio.data.inputs}
    files = [
        {
            "path": str(file.relative_to(root)),
            "sha256": digest_file(file),
            **({"input": name} if name else {}),
            **({"holds": kind} if kind != LOANS else {}),
        }
        for name, of_input in found.items()
        for kind, some in of_input.items()
        for file in some
    ]
    inputs = {"files": files, "portfolio": _slice(portfolio)}
    made = stage(
        loaded.folders.stages,
        "ingest",
        inputs,
        lambda folder: {"files": files, **_inspect(found, portfolio, root, folder)},
    )
    logger.info("%d files, %s rows, by population %s", len(files), made.facts["rows"], made.facts["populations"])
    for warning in made.facts["warnings"]:
        logger.warning(warning)
    return made


Found = Mapping[str, Sequence[Path]]
"""Files of one input: `loans`, and where the portfolio names them `outcomes` and `revisions`."""


def _find_input(name: str, portfolio: Portfolio, root: Path) -> Found:
    found = {LOANS: find_files(root, portfolio.data.inputs[name].path, key=f"{_key(name)}.path")}
    for kind in _LABEL_FILES:
        path = portfolio.label.files_of(kind, name)
        if path is not None:
            found[kind] = find_files(root, path, key=f"label.{kind}.{name}".rstrip("."))
    return found


def _key(name: str) -> str:
    """Of an input, in the TOML."""
    return f"data.{name}" if name else "data"


def _slice(portfolio: Portfolio) -> dict[str, Any]:
    read = {"as_of", "data", "label", "population", "features"}
    return {**portfolio.model_dump(mode="json", include=read), "segments": portfolio.use.segments}


def find_files(root: Path, path: str, *, key: str = "data.path") -> list[Path]:
    """Parquet files of a file, folder or glob below `root`, sorted by name, without hidden ones; `key` of the TOML.

    Raises:
        InputError: nothing there, or something that lies (or links) outside root.
    """
    base = root.resolve()
    if not base.is_dir():
        raise InputError(
            f"data.root {root} is no folder; set CROSSRISK_DATA or data.root to where the Parquet files lie"
        )
    if Path(path).is_absolute() or ".." in Path(path).parts:
        raise InputError(f"{key} {path!r} leads outside data.root; give it relative to {root}")
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
        raise InputError(f"no Parquet file at {path!r} below {root}; check {key} and data.root")
    return visible


def scan(files: Sequence[Path]) -> pl.LazyFrame:
    """The input as one lazy frame; `key=value` folders become columns, dictionaries become strings."""
    rows = pl.scan_parquet(list(files), hive_partitioning=is_hive(files), glob=False, extra_columns="ignore")
    return rows.with_columns(cs.by_dtype(pl.Categorical, pl.Enum).cast(pl.String))


def scan_ingested(loaded: Loaded, ingested: Stage) -> pl.LazyFrame:
    """The lazy frame of an ingested input."""
    return scan(ingested_files(loaded, ingested))


def ingested_files(loaded: Loaded, ingested: Stage) -> list[Path]:
    """The files that hold the rows under the portfolio's names, in order."""
    if _needs_own_file(loaded.portfolio):
        return [ingested.folder / ROWS]
    return [loaded.folders.data_root / entry["path"] for entry in ingested.facts["files"]]


def is_hive(files: Sequence[Path]) -> bool:
    """Whether the files lie in `key=value` folders."""
    return "=" in files[0].parent.name


def _needs_own_file(portfolio: Portfolio) -> bool:
    return portfolio.data.has_two_inputs or bool(portfolio.data.columns) or portfolio.label.is_derived


def _inspect(found: Mapping[str, Found], portfolio: Portfolio, root: Path, folder: Path) -> dict[str, Any]:
    by_population = {name: _rule_columns(portfolio, name) for name in (SOURCE, TARGET)}
    rules = by_population[SOURCE] | by_population[TARGET]
    warnings: set[str] = set()
    tables = {name: _label_tables(files, portfolio, root, name) for name, files in found.items()}
    for name, files in found.items():
        columns = portfolio.data.inputs[name].columns
        for file in files[LOANS]:
            read = by_population.get(name, rules)  # of two inputs, each is looked at by the rule of its own population
            faults = _check_file(file, root, portfolio, read, columns, tables[name], key=f"{_key(name)}.columns")
            warnings |= {fault.message for fault in faults}
        named = {columns.get(one, one) for one in {*rules, *expected_columns(portfolio)}}
        _refuse_mixed_types(files[LOANS], root, named)
    rows, more, label_facts = _one_table(found, tables, portfolio, rules)
    if _needs_own_file(portfolio):
        rows.sink_parquet(folder / ROWS, compression="zstd")
        rows = pl.scan_parquet(folder / ROWS)
    counts = _count(rows, portfolio)
    populations = dict(counts.group_by("population").agg(pl.col("rows").sum()).sort("population").iter_rows())
    _refuse_impossible(populations, portfolio)
    return {
        "rows": int(counts["rows"].sum()),
        "populations": populations,
        "months": counts.to_dicts(),
        "warnings": [*sorted(warnings), *more],
        **({"label_files": label_facts} if label_facts else {}),
    }


def _label_tables(files: Found, portfolio: Portfolio, root: Path, name: str) -> LabelTables:
    """The label files of an input, decoded once and under the portfolio's names: its map holds for them too."""
    columns, label = portfolio.data.inputs[name].columns, portfolio.label
    needs = {"outcomes": {portfolio.data.id}, "revisions": {portfolio.data.id, str(label.known_date), label.column}}
    tables: dict[str, pl.LazyFrame] = {}
    for kind in (kind for kind in _LABEL_FILES if kind in files):
        for file in files[kind]:
            _check_label_file(file, root, columns, needs[kind], label.rule_columns | {label.column}, kind=kind)
        _refuse_mixed_types(files[kind], root, {columns.get(one, one) for one in needs[kind] | label.rule_columns})
        lines = scan(files[kind])
        present = set(lines.collect_schema())
        tables[kind] = rename_columns(lines, {ours: theirs for ours, theirs in columns.items() if theirs in present})
    return LabelTables(**tables)


def _check_label_file(
    file: Path, root: Path, columns: Mapping[str, str], needs: set[str], reads: frozenset[str], *, kind: str
) -> None:
    name = file.relative_to(root)
    with _decoding(file, root) as parquet:
        present = set(parquet.schema_arrow.names)
        absent = sorted(one for one in needs if columns.get(one, one) not in present)
        if absent:
            raise InputError(
                f"{name}: column {absent[0]!r} is missing, by which label.{kind} would be read; there are "
                f"{', '.join(sorted(present)[:8])}"
            )
        _decode(parquet, {columns.get(one, one) for one in needs | reads})


def _one_table(
    found: Mapping[str, Found], tables: Mapping[str, LabelTables], portfolio: Portfolio, rules: frozenset[str]
) -> tuple[pl.LazyFrame, tuple[str, ...], Mapping[str, Any]]:
    """All rows under the portfolio's names, what had to be done to bring them together, facts of the label files."""
    labelled: dict[str, Labelled] = {}
    for name, files in found.items():
        loans = rename_columns(scan(files[LOANS]), portfolio.data.inputs[name].columns)
        is_derived = portfolio.label.is_derived
        labelled[name] = attach_labels(loans, tables[name], portfolio, name=name) if is_derived else Labelled(loans)
    warnings = tuple(warning for one in labelled.values() for warning in one.warnings)
    if not portfolio.data.has_two_inputs:
        return labelled[""].rows, warnings, facts_of(labelled)
    joined = join_inputs({name: one.rows for name, one in labelled.items()}, portfolio, rule_columns=rules)
    return joined.rows, (*warnings, *joined.warnings), facts_of(labelled)


def _rule_columns(portfolio: Portfolio, name: str) -> frozenset[str]:
    """What the rule of a population reads."""
    rule = getattr(portfolio.population, name)
    try:
        return frozenset(pl.sql_expr(rule or "TRUE").meta.root_names())
    except pl.exceptions.PolarsError as error:
        raise ConfigError(f"population.{name} is no SQL filter: {rule!r}: {error}") from error


def _check_file(
    file: Path,
    root: Path,
    portfolio: Portfolio,
    rules: frozenset[str],
    columns: Mapping[str, str],
    tables: LabelTables,
    *,
    key: str,
) -> list[SchemaFault]:
    """Schema faults that do not stop; raises InputError for those that do, and for bytes that cannot be decoded."""
    name = file.relative_to(root)
    with _decoding(file, root) as parquet:
        whole = _with_hive_columns(parquet.schema_arrow, file, root)
        schema = rename_fields(whole, columns, file=str(name), key=key)
        elsewhere = provided_columns(portfolio, tables)
        faults = compare_schema(schema, portfolio, population_columns=rules, elsewhere=elsewhere)
        stopping = [fault for fault in faults if fault.stops and fault.column not in _may_lack(portfolio)]
        if stopping:
            said = "; ".join(fault.message + _hint_of_outcomes(fault, tables) for fault in stopping)
            raise InputError(f"{name}: {said}. Correct the file, or the column's name in the TOML")
        ours = {*rules, *expected_columns(portfolio)}
        _decode(parquet, {columns.get(one, one) for one in ours})
    return faults


def _hint_of_outcomes(fault: SchemaFault, tables: LabelTables) -> str:
    is_there = tables.outcomes is not None and fault.column in tables.outcomes.collect_schema()
    return (
        " (label.outcomes has it, but what is known after the decision is for the label alone: no feature, segment or "
        "population may be made of it)"
        if fault.kind == "missing" and is_there
        else ""
    )


@contextmanager
def _decoding(file: Path, root: Path) -> Iterator[pq.ParquetFile]:
    """An open Parquet file; what cannot be decoded inside the block becomes an InputError that names the file."""
    try:
        with pq.ParquetFile(file) as parquet:
            yield parquet
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"{file.relative_to(root)}: not readable as Parquet (truncated or corrupt): {error}. Nothing was trained; "
            "deliver it again"
        ) from error


def _decode(parquet: pq.ParquetFile, columns: set[str]) -> None:
    for _ in parquet.iter_batches(columns=sorted(columns & set(parquet.schema_arrow.names))):
        pass  # decoding is the check: a footer can be whole above broken pages


def _may_lack(portfolio: Portfolio) -> frozenset[str]:
    """Columns for tables only: one of two inputs may be without them; joining sees to it that one has them."""
    return frozenset(tabled_columns(portfolio)) if portfolio.data.has_two_inputs else frozenset()


def _with_hive_columns(schema: pa.Schema, file: Path, root: Path) -> pa.Schema:
    """The schema with the columns that `key=value` folders below root add, of the types that reading infers."""
    keys = {part.partition("=")[0] for part in file.relative_to(root).parts[:-1] if "=" in part}
    if keys - set(schema.names):
        inferred = (
            pl.scan_parquet([file], hive_partitioning=True, glob=False).select(*keys).head(1).collect().to_arrow()
        )
        for name in sorted(keys - set(schema.names)):
            schema = schema.append(inferred.schema.field(name))
    return schema


def _refuse_mixed_types(files: Sequence[Path], root: Path, columns: set[str]) -> None:
    """Name the first column whose type changes from one file to another."""
    first = pq.read_schema(files[0])
    for file in files[1:]:
        schema = pq.read_schema(file)
        for name in sorted(columns & set(first.names)):
            if not schema.field(name).type.equals(first.field(name).type):
                raise InputError(
                    f"column {name!r} is {first.field(name).type} in {files[0].relative_to(root)} and "
                    f"{schema.field(name).type} in {file.relative_to(root)}; write one type to all files (a month with "
                    "gaps often turns integers into floats)"
                )


def _count(rows: pl.LazyFrame, portfolio: Portfolio) -> pl.DataFrame:
    """Rows, matured rows and matured bads by population and month."""
    counts = (
        rows.select(
            population(portfolio).alias("population"),
            month(portfolio).alias("month"),
            matured_label(portfolio).alias("label"),
        )
        .group_by("population", "month")
        .agg(
            pl.len().alias("rows"),
            pl.col("label").is_not_null().sum().alias("matured"),
            (pl.col("label") == 1).sum().alias("bads"),
        )
        .sort("population", "month")
    )
    try:
        return counts.collect(engine="streaming")
    except pl.exceptions.PolarsError as error:  # files and schema have been checked: what is left is a rule
        raise ConfigError(
            f"the rules of [population] cannot be applied to the data: {error}. A rule must be true or false for a "
            "row; a date is written DATE '2024-05-01', a string in single quotes"
        ) from error


def _refuse_impossible(populations: Mapping[str, int], portfolio: Portfolio) -> None:
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

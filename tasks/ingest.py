"""Ingest: find the Parquet files, refuse what cannot be what the portfolio describes, count what is there.

Schema before values, bytes before meaning: a truncated file, a renamed column or an empty population ends the run here
with the file or column named. Values are judged by `tasks.validate`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import polars as pl
import polars.selectors as cs
from prefect import task
from prefect.cache_policies import NO_CACHE

from crossrisk.config import Loaded, Portfolio
from crossrisk.errors import ConfigError, InputError
from crossrisk.labels import BOTH, SOURCE, TARGET, matured_label, month, population
from crossrisk.pages.texts import visible_text
from crossrisk.store import Stage, digest_file, stage
from tasks.column_map import join_inputs, rename_columns
from tasks.input_files import (
    InputFile,
    decode,
    find_files,
    open_file,
    refuse_mixed,
    refuse_too_many_rows,
    uneven_columns,
)
from tasks.label_files import Labelled, LabelTables, attach_labels, facts_of
from tasks.loan_files import check_loans, columns_of_rules, data_key
from tasks.shared_files import refuse_shared_files, refuse_shared_loans, shared_files

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
        ConfigError: a rule of the populations or the label does not fit the columns.
        InputError: no file, a file outside data.root, unreadable bytes, a schema fault, files that are not one table, a
            file or a row of both populations, an empty population, label files that do not fit the loans.
    """
    portfolio, root = loaded.portfolio, loaded.folders.data_root
    found = {name: _find_input(name, portfolio, root) for name in portfolio.data.inputs}
    files = [
        _describe_file(file, root, name=name, kind=kind)
        for name, of_input in found.items()
        for kind, some in of_input.items()
        for file in some
    ]
    digests = {file["path"]: file["sha256"] for file in files}
    inputs = {"files": files, "portfolio": _slice(portfolio)}
    made = stage(
        loaded.folders.stages,
        "ingest",
        inputs,
        lambda folder: {"files": files, **_inspect(found, portfolio, root, folder, digests)},
    )
    logger.info("%d files, %s rows, by population %s", len(files), made.facts["rows"], made.facts["populations"])
    for warning in made.facts["warnings"]:
        logger.warning(visible_text(warning))
    return made


Found = Mapping[str, Sequence[Path]]
"""Files of one input: `loans`, and where the portfolio names them `outcomes` and `revisions`."""
Opened = Mapping[str, Sequence[InputFile]]
"""The same, with what their footers say."""


def _find_input(name: str, portfolio: Portfolio, root: Path) -> Found:
    found = {LOANS: find_files(root, portfolio.data.inputs[name].path, key=_key_of(LOANS, name))}
    for kind in _LABEL_FILES:
        path = portfolio.label.files_of(kind, name)
        if path is not None:
            found[kind] = find_files(root, path, key=_key_of(kind, name))
    return found


def _key_of(kind: str, name: str) -> str:
    """Of the TOML, where the path of these files stands."""
    return f"{data_key(name)}.path" if kind == LOANS else f"label.{kind}.{name}".rstrip(".")


def _describe_file(file: Path, root: Path, *, name: str, kind: str) -> dict[str, str]:
    facts = {"path": str(file.relative_to(root)), "sha256": digest_file(file)}
    return facts | ({"input": name} if name else {}) | ({"holds": kind} if kind != LOANS else {})


def _slice(portfolio: Portfolio) -> dict[str, Any]:
    read = {"as_of", "data", "label", "population", "features"}
    return {**portfolio.model_dump(mode="json", include=read), "segments": portfolio.use.segments}


# --- reading what was ingested ---


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


# --- inspecting ---


def _inspect(
    found: Mapping[str, Found], portfolio: Portfolio, root: Path, folder: Path, digests: Mapping[str, str]
) -> dict[str, Any]:
    """Facts of the input; writes rows.parquet into the folder where the portfolio needs one."""
    opened = {
        name: {kind: [open_file(file, root) for file in some] for kind, some in of_input.items()}
        for name, of_input in found.items()
    }
    for name, of_input in opened.items():
        for kind, some in of_input.items():
            refuse_too_many_rows(some, _key_of(kind, name))
    tables = {name: _label_tables(files, portfolio, name) for name, files in opened.items()}
    warnings = [
        warning
        for name, files in opened.items()
        for warning in check_loans(files[LOANS], tables[name], portfolio, name=name)
    ]
    rows_of = {name: sum(file.rows for file in files[LOANS]) for name, files in opened.items()}
    has_two = portfolio.data.has_two_inputs
    shared = shared_files(opened[SOURCE][LOANS], opened[TARGET][LOANS], digests) if has_two else []
    refuse_shared_files(shared, portfolio)
    rows, more, label_facts = _one_table(opened, tables, portfolio)
    if _needs_own_file(portfolio):
        rows.sink_parquet(folder / ROWS, compression="zstd")
        rows = pl.scan_parquet(folder / ROWS)
    counts = _count(rows, portfolio)
    populations = dict(counts.group_by("population").agg(pl.col("rows").sum()).sort("population").iter_rows())
    _refuse_impossible(populations, portfolio, rows_of)
    refuse_shared_loans(rows, portfolio, shared)
    return {
        "rows": int(counts["rows"].sum()),
        "populations": populations,
        "months": counts.to_dicts(),
        "warnings": [*warnings, *more],
        **({"label_files": label_facts} if label_facts else {}),
    }


def _label_tables(files: Opened, portfolio: Portfolio, name: str) -> LabelTables:
    """The label files of an input, decoded once and under the portfolio's names: its map holds for them too."""
    columns, label = portfolio.data.inputs[name].columns, portfolio.label
    needs = {"outcomes": {portfolio.data.id}, "revisions": {portfolio.data.id, str(label.known_date), label.column}}
    reads = label.rule_columns | {label.column, str(label.known_date)}
    tables: dict[str, pl.LazyFrame] = {}
    for kind in (kind for kind in _LABEL_FILES if kind in files):
        theirs = {columns.get(one, one) for one in needs[kind] | reads}
        for file in files[kind]:
            absent = sorted(one for one in needs[kind] if columns.get(one, one) not in file.schema.names)
            if absent:
                raise InputError(
                    f"{file.name}: column {absent[0]!r} is missing, by which label.{kind} would be read; there are "
                    f"{', '.join(sorted(file.schema.names)[:8])}"
                )
            decode(file, theirs)
        refuse_mixed(files[kind], theirs)
        lines = scan([file.path for file in files[kind]])
        present = set(lines.collect_schema())
        tables[kind] = rename_columns(lines, {ours: theirs for ours, theirs in columns.items() if theirs in present})
    return LabelTables(**tables)


def _one_table(
    opened: Mapping[str, Opened], tables: Mapping[str, LabelTables], portfolio: Portfolio
) -> tuple[pl.LazyFrame, list[str], Mapping[str, Any]]:
    """All rows under the portfolio's names, what had to be done to bring them together, facts of the label files."""
    labelled: dict[str, Labelled] = {}
    warnings: list[str] = []
    for name, files in opened.items():
        loans = scan([file.path for file in files[LOANS]])
        if _needs_own_file(portfolio):  # which holds all columns, so each must be one
            uneven = uneven_columns(files[LOANS])
            warnings += [
                f"column {column!r} {where}: not carried over, nothing in the portfolio names it"
                for column, where in uneven.items()
                if column not in portfolio.data.ignore
            ]
            loans = loans.drop(cs.by_name(*uneven, require_all=False))
        loans = rename_columns(loans, portfolio.data.inputs[name].columns)
        is_derived = portfolio.label.is_derived
        labelled[name] = attach_labels(loans, tables[name], portfolio, name=name) if is_derived else Labelled(loans)
        warnings += labelled[name].warnings
    if not portfolio.data.has_two_inputs:
        return labelled[""].rows, warnings, facts_of(labelled)
    rules = columns_of_rules(portfolio, "")
    joined = join_inputs({name: one.rows for name, one in labelled.items()}, portfolio, rule_columns=rules)
    return joined.rows, [*warnings, *joined.warnings], facts_of(labelled)


# --- populations ---


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
        said, *_plan_of_query = str(error).splitlines()
        raise ConfigError(
            f"the rules of [population] cannot be applied to the data: {said}. A rule must be true or false for a row; "
            "a date is written DATE '2024-05-01', a string in single quotes"
        ) from error


def _refuse_impossible(populations: Mapping[str, int], portfolio: Portfolio, rows: Mapping[str, int]) -> None:
    if populations.get(BOTH):
        raise InputError(
            f"{populations[BOTH]} rows belong to both populations; make the two rules of [population] exclusive"
        )
    for name in (SOURCE, TARGET):
        if not populations.get(name):
            of_input = name if portfolio.data.has_two_inputs else ""
            raise InputError(
                f"population {name!r} is empty: of the {rows[of_input]:,} rows of {data_key(of_input)}.path none meets "
                f"{getattr(portfolio.population, name)!r}; correct population.{name}"
            )

"""Great Expectations over Parquet through DuckDB: an in-memory database and one connection that stays open.

Here live the datasource, its execution engine, and `open_parquet_view`, which makes and takes down both. What is
expected of the rows, and what follows, stays out: `tasks.validate`.

Why an engine of our own: GX 1.24's SQL engine closes its connection between executing a query and fetching its
result, and DuckDB's result is gone with the connection. GX's own remedy, a list of dialects whose connection is
kept, has SQLite and SQL Server on it, not DuckDB.
"""

# ruff: noqa: S608  every name and value in our SQL has gone through quote_name or quote_value
from __future__ import annotations

import atexit
import logging
import os
import re
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")  # read when great_expectations is imported

import duckdb_engine
import duckdb_engine.datatypes
import great_expectations
import sqlalchemy as sa
from great_expectations.data_context.types.base import ProgressBarsConfig
from great_expectations.datasource.fluent.sql_datasource import SQLDatasource
from great_expectations.execution_engine.sqlalchemy_execution_engine import SqlAlchemyExecutionEngine

from crossrisk.errors import InputError

if TYPE_CHECKING:
    from great_expectations.core import ExpectationValidationResult
    from great_expectations.datasource.fluent.interfaces import Batch
    from great_expectations.expectations.expectation import Expectation

# GX logs a whole traceback for every query that fails, and Python prints it where no logging is set up. The same
# exception comes back in the expectation's result, and the report shows it.
logging.getLogger("great_expectations").addHandler(logging.NullHandler())

_FLOATS = ("FLOAT", "DOUBLE")
"""DuckDB's names of the types that have a NaN."""


@atexit.register
def _empty_duckdb_engine() -> None:
    """Let go of DuckDB's types before the interpreter ends.

    SQLAlchemy's compiler hooks outlive the modules that registered them, so those of duckdb_engine still hold
    DuckDB's types when DuckDB's binding counts them, and it then prints a page of "leaked" to the terminal
    (seen with duckdb 2.0, duckdb-engine 0.17, SQLAlchemy 2.1; nothing is lost, the process is ending).
    """
    for module in (duckdb_engine, duckdb_engine.datatypes):
        vars(module).clear()


class DuckDBExecutionEngine(SqlAlchemyExecutionEngine):
    """GX's SQL engine with one connection for its whole life."""

    _held: sa.Connection | None = None

    @contextmanager
    def get_connection(self) -> Iterator[sa.Connection]:
        """Give the one connection, with no transaction left over from the query before.

        DuckDB refuses every query in a transaction in which one has failed, be it at execute or at fetch; ending
        the transaction first keeps one failing expectation from failing all that follow.
        """
        if self._held is None:
            self._held = self.engine.connect()
        if self._held.in_transaction():
            self._held.rollback()
        yield self._held

    def close(self) -> None:
        """Close the connection and the engine; the in-memory database ends with them."""
        if self._held is not None:
            self._held.close()
            self._held = None
        super().close()


_EngineType = type[SqlAlchemyExecutionEngine]  # named out here: inside the datasource, `type` is a field


class DuckDBDatasource(SQLDatasource):
    """A GX datasource for DuckDB; GX finds it by its `type`, as `context.data_sources.add_duckdb_view`."""

    type: Literal["duckdb_view"] = "duckdb_view"  # type: ignore[assignment]  # GX's way to register a subclass

    @property
    def execution_engine_type(self) -> _EngineType:
        """The engine that keeps its connection."""
        return DuckDBExecutionEngine

    def get_engine(self) -> sa.Engine:
        """The execution engine's own SQLAlchemy engine: a second one would be a second thing to close."""
        return self.get_execution_engine().engine


ROWS = "applications"
"""The view of all columns; `read_columns`, which GX sees, has those that expectations read."""


@dataclass(frozen=True)
class ParquetView:
    """Open views over Parquet files, for GX and for our own SQL."""

    batch: Batch
    """The columns that expectations read, as Great Expectations sees them."""
    connection: sa.Connection
    """The connection that GX uses too: one query at a time."""
    columns: tuple[str, ...]
    """Names of all columns, hive partitions included."""


@dataclass(frozen=True)
class Finding:
    """What Great Expectations says of one expectation."""

    success: bool
    details: Mapping[str, Any]
    """GX's `result` in its format BASIC: counts, a few failing values, or what was observed."""
    error: str | None
    """Why the expectation could not be evaluated, in one line."""


@contextmanager
def open_parquet_view(
    files: Sequence[Path], *, reads: Collection[str], hive: bool, out: Path, memory_limit: str
) -> Iterator[ParquetView]:
    """Open the files as DuckDB views; nothing is read before a query asks for it.

    Whatever a query says, it reaches these files and the folder `out`: no other file, address, database or extension.

    Args:
        files: Parquet files; columns are matched by name, and a file may lack some (they are null there). NaN is
            null too.
        reads: Columns that expectations read, present or not. GX makes about one query per expectation, and over
            hundreds of columns each would spend most of its time on those it does not read.
        hive: Whether folders named `key=value` are columns.
        out: Folder that queries may write to; what does not fit into memory goes to `duckdb_tmp` in it meanwhile.
        memory_limit: DuckDB's own, such as `"1GB"`; Great Expectations comes on top.

    Raises:
        InputError: No file is given, or one of them is not readable Parquet.
    """
    if not files:
        raise InputError("no Parquet file to validate; check the data path in the config")
    # this one sets its own level, and would announce a temporary folder for docs that we do not build
    logging.getLogger("great_expectations.data_context.types.base").setLevel(logging.WARNING)
    context = great_expectations.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    datasource = context.data_sources.add_duckdb_view(
        name="parquet",
        # A named in-memory database, so that every connection of this call, and no other call, sees the views.
        connection_string=f"duckdb:///:memory:{uuid.uuid4().hex}",
        kwargs={"connect_args": {"config": _settings(out / "duckdb_tmp", memory_limit)}},
    )
    engine = datasource.get_execution_engine()
    try:
        columns = _create_views(engine, files, reads, hive=hive)
        _confine(engine, files, out)
        # A query, not a table: of a table GX asks SQLAlchemy's reflection, whose cache holds the dialect for good.
        asset = datasource.add_query_asset("rows", query="SELECT * FROM read_columns")
        batch = asset.add_batch_definition_whole_table("all").get_batch()
        with engine.get_connection() as connection:
            yield ParquetView(batch, connection, columns)
    finally:
        engine.close()
        context.data_sources.delete("parquet")  # GX keeps the last context; nothing of ours should stay in it


def check_expectations(view: ParquetView, expectations: Sequence[Expectation], *, examples: int) -> dict[str, Finding]:
    """Evaluate all expectations at once; findings by the name in their meta, `rule`.

    At once, because GX then asks for the aggregates of all of them in one or two queries. An expectation that cannot
    be evaluated is found so; the others are not touched by it.

    Args:
        view: The rows.
        expectations: As `expectations.build_expectation` makes them.
        examples: Failing values to bring back per expectation, at most.
    """
    suite = great_expectations.ExpectationSuite(name="rules", expectations=list(expectations))
    if not suite.expectations:
        return {}
    validation = view.batch.validate(
        suite, result_format={"result_format": "BASIC", "partial_unexpected_count": examples}
    )
    view.connection.rollback()  # of the last query: had it failed, DuckDB would refuse the caller's next one
    return {_rule_name(result): _finding(result) for result in validation.results}


def _rule_name(result: ExpectationValidationResult) -> str:
    if result.expectation_config is None:  # by its type only: GX gives every result the configuration it was asked for
        raise ValueError("Great Expectations returned a result without its configuration")
    return str(result.expectation_config.meta["rule"])


def _finding(result: ExpectationValidationResult) -> Finding:
    return Finding(bool(result.success), result.result, _exception(result.exception_info or {}))


def _exception(info: Mapping[str, Any]) -> str | None:
    """First line of the first exception; GX gives one for the expectation, or one for each of its metrics."""
    for entry in (info, *info.values()):
        if isinstance(entry, Mapping) and entry.get("raised_exception"):
            return first_line(entry["exception_message"])
    return None


def quote_name(name: str) -> str:
    """A column's or table's name as SQL, whatever characters it has."""
    return '"' + name.replace('"', '""') + '"'


def quote_value(value: object) -> str:
    """A plain value from JSON as SQL literal.

    Raises:
        ValueError: The value is not text, a number or a boolean.
    """
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, bool | int | float):
        return repr(value)
    raise ValueError(f"expected text, a number or a boolean, came {value!r}")


def path_pattern(file: Path) -> str:
    """The pattern that only this path fits, for `read_parquet`: `*`, `?` and `[` stand in brackets."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in str(file))


def first_line(error: BaseException | str) -> str:
    """What an error says, without the class in front of it and the SQL and traceback below."""
    line = str(error).strip().split("\n", 1)[0]
    return re.sub(r"^\(\S+\) ", "", line).rstrip(".")[:300]


def _settings(temporary: Path, memory_limit: str) -> Mapping[str, str]:
    return {
        "memory_limit": memory_limit,
        "temp_directory": str(temporary),
        # Nothing is fetched from the network, whatever a file name or a query asks for.
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
    }


def _create_views(
    engine: SqlAlchemyExecutionEngine, files: Sequence[Path], reads: Collection[str], *, hive: bool
) -> tuple[str, ...]:
    paths = ", ".join(quote_value(path_pattern(file)) for file in files)
    source = f"read_parquet([{paths}], union_by_name = true, hive_partitioning = {str(hive).lower()}, filename = false)"
    try:
        with engine.get_connection() as connection:
            run = connection.exec_driver_sql
            run("SET parquet_metadata_cache = true")  # reading the footers of wide files again costs more than the rows
            run("SET disabled_optimizers = 'statistics_propagation'")  # for _column
            columns = {name: _column(name, kind) for name, kind, *_ in run(f"DESCRIBE SELECT * FROM {source}")}
            read = [sql for name, sql in columns.items() if name in reads] or ["1 AS no_column_is_read"]
            run(f"CREATE VIEW {ROWS} AS SELECT {', '.join(columns.values())} FROM {source}")
            run(f"CREATE VIEW read_columns AS SELECT {', '.join(read)} FROM {source}")
            connection.commit()
    except sa.exc.SQLAlchemyError as error:
        raise InputError(f"cannot read {_named(files)} as Parquet: {first_line(error)}") from error
    return tuple(columns)


def _confine(engine: SqlAlchemyExecutionEngine, files: Sequence[Path], out: Path) -> None:
    """Take everything but the files and one folder out of reach; DuckDB does not give it back to a running database.

    Suites are untrusted, it is GX that makes SQL of their kwargs, and DuckDB takes a table's name for a file. Both
    forms of a path are allowed, because DuckDB asks for the pattern first and then for what it finds.
    """
    paths = ", ".join(quote_value(path) for file in files for path in (str(file), path_pattern(file)))
    with engine.get_connection() as connection:
        run = connection.exec_driver_sql
        run(f"SET allowed_paths = [{paths}]")
        run(f"SET allowed_directories = [{quote_value(str(out))}]")
        run("SET enable_external_access = false")
        connection.commit()


def _column(name: str, kind: str) -> str:
    """A column of the view, NaN made null.

    Parquet's statistics leave NaN out and DuckDB trusts them: it takes `isnan(x)` for false where they are finite, and
    `x > 2` holds or not depending on what else lies in the row group (duckdb 2.0). Hence the optimizer that reads
    them is off, and a NaN is a missing value, the same in every file.
    """
    quoted = quote_name(name)
    return f"CASE WHEN isnan({quoted}) THEN NULL ELSE {quoted} END AS {quoted}" if kind in _FLOATS else quoted


def _named(files: Sequence[Path]) -> str:
    return files[0].name if len(files) == 1 else f"{files[0].name} and {len(files) - 1} more files"

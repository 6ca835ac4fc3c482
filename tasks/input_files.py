"""The Parquet files of one input: which they are, whether their bytes can be read, whether they are one table.

Columns have the names of the files here. What a portfolio wants of them is judged in `tasks.ingest`, their values in
`tasks.validate`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from crossrisk.errors import InputError
from crossrisk.limits import MIB, MOST_CELL_BYTES, MOST_CHUNK_BYTES, MOST_COLUMNS, MOST_ROWS

_SUFFIX = ".parquet"
_TEXT = dict.fromkeys((pa.large_string(), pa.string_view()), pa.string())
"""Types that are read alike: which of them a file has is its writer's habit."""


@dataclass(frozen=True)
class InputFile:
    """What the footer of a Parquet file says, and the folders above it."""

    path: Path
    name: str
    """path below data.root: what messages call it"""
    schema: pa.Schema
    """with the columns that `key=value` folders add"""
    keys: tuple[str, ...]
    """of these folders, from the root down"""
    rows: int


# --- finding ---


def find_files(root: Path, path: str, *, key: str = "data.path") -> list[Path]:
    """Parquet files of a file, folder or glob below `root`, sorted by name, without hidden ones; `key` of the TOML.

    A folder called `x.parquet`, as Spark writes one table, is read like any folder, also where a glob finds it.

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
    places = [base / path] if (base / path).exists() else _glob(base, path, key)
    found = {file for place in places for file in _files_at(place, is_named=place == base / path)}
    visible = sorted(f for f in found if not any(part.startswith((".", "_")) for part in f.relative_to(base).parts))
    for file in visible:
        if not file.resolve().is_relative_to(base):
            raise InputError(f"{file.relative_to(base)} is a link to outside data.root; copy the file instead")
    if not visible:
        raise InputError(
            f"no Parquet file at {path!r} below {root}{_hint_of_folders(places, path, base)}; check {key} and data.root"
        )
    return visible


def _glob(base: Path, path: str, key: str) -> list[Path]:
    try:
        return list(base.glob(path))
    except ValueError as error:  # of the pattern, such as `a**`
        raise InputError(f"{key} {path!r} is no glob: {error}; write it as in loans/*/part-*.parquet") from error


def _files_at(place: Path, *, is_named: bool) -> list[Path]:
    if place.is_file():
        return [place]
    is_table = is_named or place.suffix == _SUFFIX
    return [file for file in place.rglob(f"*{_SUFFIX}") if file.is_file()] if is_table else []


def _hint_of_folders(places: Sequence[Path], path: str, base: Path) -> str:
    """What a glob found instead of files."""
    folders = sorted(str(place.relative_to(base)) for place in places if place.is_dir() and place != base / path)
    return f", but folders such as {folders[0]!r}, in which {path + '/*.parquet'!r} would look" if folders else ""


# --- reading ---


def open_file(path: Path, root: Path) -> InputFile:
    """Read the footer of a file below `root`.

    Raises:
        InputError: no Parquet, two columns of one name, or more columns than anybody means.
    """
    name, keys = str(path.relative_to(root)), _folder_keys(path, root)
    with _decoding(path, name) as parquet:
        schema, rows = parquet.schema_arrow, parquet.metadata.num_rows
    if len(schema) > MOST_COLUMNS:
        raise InputError(
            f"{name}: {len(schema):,} columns, at most {MOST_COLUMNS:,} are read; deliver those that are needed"
        )
    twice = sorted(column for column, times in Counter(schema.names).items() if times > 1)
    if twice:
        raise InputError(f"{name}: two columns are called {twice[0]!r}; a column needs a name of its own")
    return InputFile(path, name, _with_folder_columns(schema, path, keys), keys, rows)


def decode(file: InputFile, columns: Iterable[str], *, passed_over: Collection[str] = ()) -> Counter[str]:
    """Read all pages of the columns that the file has, and forget them.

    Decoding is the check: a footer can be whole above broken pages. Texts are read as dictionaries, in which a long one
    that a small file repeats a million times is one, and is refused before anything unpacks it.

    Args:
        file: to read.
        columns: to read of it, as far as it has them.
        passed_over: columns in which a text too long is the matter of its row: counted, and not refused.

    Returns:
        Bytes of the texts too long, unpacked, by column of `passed_over` that holds some.

    Raises:
        InputError: bytes that cannot be decoded, a text or a stretch of a column too large to hold.
    """
    with _decoding(file.path, file.name) as parquet:
        footer, own = parquet.metadata, sorted(set(columns) & set(parquet.schema_arrow.names))
    _refuse_large_chunks(footer, file.name, set(own))
    flat = {footer.schema.column(position).path for position in range(footer.num_columns)}
    found = Counter[str]()
    with _decoding(file.path, file.name, texts=[one for one in own if one in flat]) as parquet:
        for batch in parquet.iter_batches(columns=own):
            for column, values in zip(batch.schema.names, batch.columns, strict=True):
                if column in passed_over:
                    found[column] += _bytes_of_long_texts(values)
                else:
                    _refuse_long_texts(values, column, file.name)
    return +found


def _refuse_large_chunks(footer: pq.FileMetaData, name: str, columns: set[str]) -> None:
    for group in range(footer.num_row_groups):
        for position in range(footer.num_columns):
            chunk = footer.row_group(group).column(position)
            if chunk.path_in_schema in columns and chunk.total_uncompressed_size > MOST_CHUNK_BYTES:
                raise InputError(
                    f"{name}: row group {group} has {chunk.total_uncompressed_size // MIB:,} MiB of column "
                    f"{chunk.path_in_schema!r} unpacked, at most {MOST_CHUNK_BYTES // MIB:,} are read at once; write "
                    "smaller row groups"
                )


def _text_lengths(values: pa.Array) -> pa.Array | None:
    """Bytes of each text of a dictionary; None where the column holds no texts."""
    texts = values.dictionary if isinstance(values, pa.DictionaryArray) else None
    return pc.binary_length(texts) if texts is not None and pa.types.is_string(texts.type) else None


def _bytes_of_long_texts(values: pa.Array) -> int:
    """Of a column, unpacked: what every row of it that is too long would take."""
    lengths = _text_lengths(values)
    if lengths is None or (pc.max(lengths).as_py() or 0) <= MOST_CELL_BYTES:
        return 0
    of_rows = lengths.take(values.indices)
    return int(pc.sum(of_rows.filter(pc.greater(of_rows, MOST_CELL_BYTES))).as_py())


def _refuse_long_texts(values: pa.Array, column: str, name: str) -> None:
    lengths = _text_lengths(values)
    longest = None if lengths is None else pc.max(lengths).as_py()
    if (longest or 0) > MOST_CELL_BYTES:
        raise InputError(
            f"{name}: column {column!r} holds a text of {longest:,} bytes, at most {MOST_CELL_BYTES:,} are read: "
            "such a text is no category and no id; correct it, or leave the column out of the portfolio"
        )


def refuse_too_many_rows(files: Sequence[InputFile], key: str) -> None:
    """Refuse files of one kind that hold more rows than a portfolio can; `key` of the TOML.

    Footers say how many: compressed, a thousand million equal rows are a few kilobytes.

    Raises:
        InputError: with the count and the limit.
    """
    rows = sum(file.rows for file in files)
    if rows > MOST_ROWS:
        raise InputError(
            f"{key} leads to {rows:,} rows in {len(files)} file{'s' if len(files) > 1 else ''}, at most {MOST_ROWS:,} "
            "are read; deliver the months and columns that the portfolio needs"
        )


@contextmanager
def _decoding(path: Path, name: str, texts: Sequence[str] = ()) -> Iterator[pq.ParquetFile]:
    """An open Parquet file; what cannot be decoded inside the block becomes an InputError that names the file.

    Of the columns in `texts`, those that are text come as dictionaries.
    """
    try:
        # checksums are read where the writer left them (Spark does): in a column without compression nothing else tells
        with pq.ParquetFile(path, page_checksum_verification=True, read_dictionary=list(texts)) as parquet:
            yield parquet
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"{name}: not readable as Parquet (truncated or corrupt): {error}. Nothing was made of it; deliver it again"
        ) from error


def _folder_keys(path: Path, root: Path) -> tuple[str, ...]:
    folders = path.relative_to(root).parts[:-1]
    if not folders or "=" not in folders[-1]:  # then they are not read as columns either: `tasks.ingest.is_hive`
        return ()
    return tuple(folder.partition("=")[0] for folder in folders if "=" in folder)


def _with_folder_columns(schema: pa.Schema, path: Path, keys: Sequence[str]) -> pa.Schema:
    """The schema with the columns of `key=value` folders, of the types that reading infers."""
    added = sorted(set(keys) - set(schema.names))
    if added:
        inferred = pl.scan_parquet([path], hive_partitioning=True, glob=False).select(added).head(1).collect()
        for field in inferred.to_arrow().schema:
            schema = schema.append(field)
    return schema


# --- one table ---


def refuse_mixed(files: Sequence[InputFile], columns: Iterable[str]) -> None:
    """See to it that the files are one table as far as these columns go.

    Raises:
        InputError: files in `key=value` folders beside files in none (or of other keys), a column that only some files
            have, one whose type changes from file to file; with the first two files that differ.
    """
    for file in files:
        if file.keys != files[0].keys:
            raise InputError(
                f"{_layout(files[0])}, but {_layout(file)}: the columns made of folders would be missing from some "
                "rows. Move the files into the same folders, or give a path that finds one kind of them"
            )
    uneven = uneven_columns(files)
    for column in sorted(set(columns) & set(uneven)):
        raise InputError(
            f"column {column!r} {uneven[column]}; write it to all files, with one type (a month with gaps often turns "
            "integers into floats)"
        )


def uneven_columns(files: Sequence[InputFile]) -> Mapping[str, str]:
    """The columns that are not in all files, or not of one type, with where: no table can hold them."""
    types = {file.name: {field.name: _TEXT.get(field.type, field.type) for field in file.schema} for file in files}
    found: dict[str, str] = {}
    for column in dict.fromkeys(name for of_file in types.values() for name in of_file):
        having = [file for file, of_file in types.items() if column in of_file]
        first = types[having[0]][column]
        other = next((file for file in having if not types[file][column].equals(first)), None)
        if len(having) < len(types):
            lacking = next(file for file, of_file in types.items() if column not in of_file)
            found[column] = f"is in {having[0]} and missing in {lacking}"
        elif other is not None:
            found[column] = f"is {first} in {having[0]} and {types[other][column]} in {other}"
    return found


def _layout(file: InputFile) -> str:
    return f"{file.name} lies in folders of {', '.join(file.keys)}" if file.keys else f"{file.name} in no such folder"

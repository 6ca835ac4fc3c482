"""The Parquet files that are to be scored: found, opened, and refused where a version could not read them.

Nothing is scored and no value is judged here: rules are `tasks.score_rules`'. The same limits hold as for training data
(`crossrisk.limits`), and the same readers read (`tasks.input_files`); the label and whatever else a version does not
look at may be missing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossrisk.config import Loaded
from crossrisk.errors import InputError
from crossrisk.features import RawColumn
from crossrisk.labels import TARGET
from crossrisk.schema import Role, column_faults
from crossrisk.store import digest_file
from tasks.column_map import rename_fields
from tasks.ingest import is_hive
from tasks.input_files import InputFile, find_files, open_file, refuse_mixed, refuse_too_many_rows
from tasks.loan_files import data_key

_KEY = "--input"
"""what messages call the path"""
_WILDCARD = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class Delivery:
    """Files to score, in order: a row's number is its place in this list."""

    files: tuple[InputFile, ...]
    asked: Path
    """the file, folder or glob that was asked for, absolute"""
    digests: tuple[str, ...]
    """SHA-256 of each file"""
    states: tuple[tuple[int, int], ...]
    """size and time of change of each, when it was digested"""
    id: str
    """column of the id, as the files call it"""
    columns: Mapping[str, str]
    """raw column of the version -> its name in the files"""

    @property
    def rows(self) -> int:
        """Of all files."""
        return sum(file.rows for file in self.files)

    @property
    def paths(self) -> list[Path]:
        """Of all files."""
        return [file.path for file in self.files]

    @property
    def is_hive(self) -> bool:
        """Whether `key=value` folders are columns."""
        return is_hive(self.paths)

    @property
    def read_columns(self) -> list[str]:
        """What is read of the files, by their own names."""
        return [self.id, *self.columns.values()]

    def to_json(self) -> list[dict[str, Any]]:
        """What was read, for a record: path below what was asked for, rows and digest of each file."""
        pairs = zip(self.files, self.digests, strict=True)
        return [{"path": file.name, "rows": file.rows, "sha256": digest} for file, digest in pairs]

    def refuse_changed(self) -> None:
        """See to it that the files are still those that were digested.

        Raises:
            InputError: one is not.
        """
        for file, state in zip(self.files, self.states, strict=True):
            if not file.path.exists() or _state(file.path) != state:
                raise InputError(
                    f"{file.name} was changed while it was read; nothing was concluded: run again once it is written"
                )


def open_delivery(loaded: Loaded, path: str, raw_columns: Sequence[RawColumn], version: int) -> Delivery:
    """Find and open the files that are to be scored.

    The column map of the portfolio holds, as far as the version reads its columns: of two inputs that of the target,
    which is who the version is for.

    Args:
        loaded: the portfolio and its folders.
        path: Parquet file, folder (hive-partitioned or flat) or glob: absolute, or relative to data.root.
        raw_columns: what the version looks at.
        version: for messages.

    Raises:
        InputError: no file, one that is no Parquet or links outside, too many rows, no row at all, a column that is
            missing or of another type, files that are not one table.
    """
    data = loaded.portfolio.data
    name = TARGET if data.has_two_inputs else ""
    expected: dict[str, Role] = {data.id: "key", **{column.name: column.kind for column in raw_columns}}
    mapped = {ours: theirs for ours, theirs in data.inputs[name].columns.items() if ours in expected}
    above, below = _split(loaded.folders.data_root, path)
    files = [open_file(file, above) for file in find_files(above, below, key=_KEY)]
    refuse_too_many_rows(files, _KEY)
    for file in files:
        schema = rename_fields(file.schema, mapped, file=file.name, key=f"{data_key(name)}.columns")
        faults = [fault.message for fault in column_faults(schema, expected)]
        if faults:
            raise InputError(
                f"{file.name}: {'; '.join(faults)}. Version {version} reads {len(raw_columns)} columns and the id: "
                "deliver them so, or map their names in the portfolio"
            )
    theirs = {ours: mapped.get(ours, ours) for ours in expected}
    refuse_mixed(files, theirs.values())
    if not any(file.rows for file in files):
        raise InputError(f"{_KEY} {path!r} leads to {files[0].name}, and there is no row in it; deliver it again")
    states = tuple(_state(file.path) for file in files)  # before the digests: what changes meanwhile is noticed
    return Delivery(
        files=tuple(files),
        asked=above / below,
        digests=tuple(digest_file(file.path) for file in files),
        states=states,
        id=theirs[data.id],
        columns={column.name: theirs[column.name] for column in raw_columns},
    )


def _state(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _split(data_root: Path, path: str) -> tuple[Path, str]:
    """The folder that names are relative to, and the rest of the path.

    A path below data.root is the same whether it is given absolute or not. Elsewhere the folder is the one that holds
    what was asked for, or the last one before a wildcard: nothing that is found may link out of there.
    """
    whole = Path(path)
    if not whole.is_absolute():
        return data_root, path
    if whole.is_relative_to(data_root):
        return data_root, str(whole.relative_to(data_root))
    wild = next((at for at, part in enumerate(whole.parts) if _WILDCARD.search(part)), len(whole.parts) - 1)
    above = whole.parent if whole.exists() else Path(*whole.parts[:wild])
    if not above.is_dir():
        raise InputError(f"{_KEY} {path!r}: there is no folder {above}; correct the path")
    return above.resolve(), str(whole.relative_to(above))

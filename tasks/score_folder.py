"""The folder that a scoring writes: under another name until it is whole, then there by one rename.

    OUT.partial/part-00000.parquet ...    partitions, each whole or absent
    OUT.partial/_scoring/question.json    what is asked: who asks something else does not go on here
    OUT.partial/_scoring/00000.json ...   the record of each finished partition, with its digest
    OUT/...                               the same and summary.json, once all of it is there

Whoever writes holds a lock (flock) on the folder; a killed writer's is free, and the next goes on where it ended.
Readers of Parquet folders pass over names that begin with `_`. What is asked and written is `tasks.score`'s.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from crossrisk.errors import InputError
from crossrisk.partitions import Partition
from crossrisk.store import digest_file, make_private, read_json, write_json

Json = dict[str, Any]

SUMMARY = "summary.json"
_OWN, _QUESTION, _RECORDS = "_scoring", "question.json", "[0-9]*.json"


def partial_of(output: Path) -> Path:
    """Where a folder lies before it is whole."""
    return output.with_name(f"{output.name}.partial")


def refuse_unwritable(output: Path) -> None:
    """See to it that a folder which is not there yet can be made, before hours are spent on what goes into it.

    Raises:
        InputError: it cannot.
    """
    partial = partial_of(output)
    try:
        if output.is_file() or partial.is_file():
            raise InputError(f"--output {output}: a file is there; name a folder")
        if not output.exists() and not partial.exists():
            nearest = next(folder for folder in partial.parents if folder.exists())
            with tempfile.TemporaryDirectory(dir=nearest, prefix=".crossrisk-"):
                pass
    except OSError as error:
        raise _unwritable(output, partial, error) from error


def _unwritable(output: Path, partial: Path, error: OSError) -> InputError:
    return InputError(
        f"--output {output} cannot be written: no folder {partial} ({error.strerror}); name one elsewhere"
    )


def find_answer(output: Path, question: Mapping[str, Any]) -> Json | None:
    """The summary of a folder that answers the question; None where there is no folder, or an empty one.

    Raises:
        InputError: the folder is another's, answers another question, or is not what was written.
    """
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return None
    if not (output / SUMMARY).is_file() or not (output / _OWN / _QUESTION).is_file():
        raise InputError(f"{output} is there and was not written by crossrisk score; give another --output")
    _refuse_other(output, question, "give another --output, or move it away")
    summary: Json = read_json(output / SUMMARY)
    for one in summary["partitions"]:
        if not _is_as_written(output / one["file"], one["sha256"]):
            raise InputError(f"{output / one['file']} is not what was written; move {output} away, and score again")
    return summary


@contextmanager
def writing(output: Path, question: Mapping[str, Any]) -> Iterator[Path]:
    """The folder to write to, held by this process alone; with what an earlier one has finished in it.

    Raises:
        InputError: somebody else writes there at this moment, or what lies there is of another question.
    """
    partial = partial_of(output)
    try:
        held = os.open(make_private(partial), os.O_RDONLY)
    except OSError as error:
        raise _unwritable(output, partial, error) from error
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"another crossrisk score writes {partial} at this moment; wait for it") from None
        if (partial / _OWN / _QUESTION).exists() and any((partial / _OWN).glob(_RECORDS)):
            _refuse_other(partial, question, "give another --output, or remove it to start anew")
        elif {path.name for path in partial.iterdir()} - {_OWN} - {path.name for path in _half_written(partial)}:
            raise InputError(f"{partial} holds what crossrisk score did not write; move it away, or another --output")
        _sweep(partial)
        # where nothing is finished, whatever was asked here before is given up
        write_json(make_private(partial / _OWN) / _QUESTION, dict(question))
        yield partial
    finally:
        os.close(held)


def _refuse_other(folder: Path, question: Mapping[str, Any], move: str) -> None:
    kept = read_json(folder / _OWN / _QUESTION)
    differing = sorted(name for name in {*kept, *question} if kept.get(name) != question.get(name))
    if differing:
        raise InputError(
            f"{folder} holds scores of another question: its {', '.join(differing)} "
            f"{'differs' if len(differing) == 1 else 'differ'} from what is asked now; {move}"
        )


def _half_written(partial: Path) -> list[Path]:
    """What is left where a writer was killed: by `whole_file`, by `run_worker`, and partitions without a record."""
    recorded = {read_json(path)["file"] for path in (partial / _OWN).glob(_RECORDS)}
    is_ours = (partial / _OWN / _QUESTION).exists()
    parts = [path for path in partial.glob("part-*.parquet") if is_ours and path.name not in recorded]
    return [*parts, *partial.glob(".part-*.tmp"), *partial.glob(f".{SUMMARY}.*.tmp"), *partial.glob(".worker-*")]


def _sweep(partial: Path) -> None:
    """Take away what a killed writer had begun."""
    for path in _half_written(partial):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def keep_record(partial: Path, record: Mapping[str, Any]) -> None:
    """Note that a partition is finished."""
    write_json(_record_path(partial, record["index"]), dict(record))


def finished(partial: Path, partitions: Sequence[Partition]) -> dict[int, Json]:
    """Records of the partitions that are finished and still what was written, by index."""
    records = {one.index: _record_path(partial, one.index) for one in partitions}
    found: dict[int, Json] = {index: read_json(path) for index, path in records.items() if path.exists()}
    return {index: one for index, one in found.items() if _is_as_written(partial / one["file"], one["sha256"])}


def complete(partial: Path, output: Path, question: Mapping[str, Any], summary: Mapping[str, Any]) -> None:
    """Write the summary and give the folder its name; where another has answered the question first, this copy goes.

    Raises:
        InputError: something else has taken the name meanwhile.
    """
    write_json(partial / SUMMARY, dict(summary))
    for path in partial.rglob("*"):
        make_private(path)
    try:
        partial.rename(output)
    except OSError as error:
        if find_answer(output, question) is None:
            raise InputError(f"{partial} is whole but cannot be called {output.name}: {error.strerror}") from error
        shutil.rmtree(partial)
    above = os.open(output.parent, os.O_RDONLY)
    try:
        os.fsync(above)  # the name is in the folder above
    finally:
        os.close(above)


def _record_path(partial: Path, index: int) -> Path:
    return partial / _OWN / f"{index:05d}.json"


def _is_as_written(path: Path, sha256: str) -> bool:
    return path.is_file() and digest_file(path) == sha256

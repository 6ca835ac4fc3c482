"""Files that are whole or absent, digests, and stages: outputs addressed by the digest of what they were made from.

A stage whose digest exists is not made again, whatever happened to the run that made it. What goes into a stage stays
in `tasks`; versions, ledger and champion stay in `crossrisk.registry`.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import json
import os
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

STAGE = "stage.json"
"""What a stage was made from and found; a folder without it is no stage. It is as old as the stage's last use."""
_CODE_PACKAGES = ("crossrisk", "models", "tasks", "expectations")
_NUMERIC_LIBRARIES = ("numpy", "scipy", "polars", "pyarrow", "scikit-learn", "tensorflow", "keras", "duckdb")


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary name to write to; on leaving without an error it is fsynced and renamed to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def make_private(path: Path) -> Path:
    """Let nobody but its owner read a file (0600) or enter a folder (0700), whatever the umask; a folder is made.

    What lies in such a folder keeps its own mode: a model that is copied out of it can be read by the server.

    Raises:
        OSError: it belongs to somebody else.
    """
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
    mode = 0o600 if path.is_file() else 0o700
    if stat.S_IMODE(path.stat().st_mode) != mode:
        path.chmod(mode)
    return path


@contextmanager
def locked_if_free(lock: Path, mode: int) -> Iterator[bool]:
    """Hold a lock (flock, `mode` LOCK_SH or LOCK_EX) within the block, without waiting; False where it is not free.

    Without the file nobody holds it: true, and nothing is made.
    """
    if not lock.exists():
        yield True
        return
    with lock.open() as handle:
        try:
            fcntl.flock(handle, mode | fcntl.LOCK_NB)
            is_free = True
        except BlockingIOError:
            is_free = False
        yield is_free


def write_text(path: Path, text: str) -> Path:
    """Write a text file whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def write_json(path: Path, document: Any) -> Path:
    """Write plain data as JSON, whole or not at all. NaN and infinity are refused: they are no JSON."""
    return write_text(path, canonical_json(document, indent=1) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def canonical_json(document: Any, *, indent: int | None = None) -> str:
    """JSON with sorted keys and no surprises, so that equal documents have equal digests."""
    return json.dumps(document, sort_keys=True, ensure_ascii=False, allow_nan=False, indent=indent, default=str)


def digest_of(document: Any) -> str:
    """First 16 hexadecimal digits of the SHA-256 of plain data."""
    return hashlib.sha256(canonical_json(document).encode()).hexdigest()[:16]


def digest_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def library_versions() -> dict[str, str]:
    """Versions of the libraries that compute numbers."""
    return {name: importlib.metadata.version(name) for name in _NUMERIC_LIBRARIES}


@cache
def code_digest() -> str:
    """Digest of our own source and of the versions of the libraries that compute numbers."""
    root = Path(__file__).resolve().parent.parent
    sources: Iterable[Path] = (p for name in _CODE_PACKAGES for p in sorted((root / name).rglob("*.py")))
    return digest_of(
        {
            "sources": {str(p.relative_to(root)): digest_file(p) for p in sources},
            "libraries": library_versions(),
        }
    )


@dataclass(frozen=True)
class Stage:
    """A finished stage: what tasks hand to each other instead of data."""

    name: str
    folder: Path
    digest: str
    reused: bool
    seconds: float
    """what making it took, when it was made"""
    facts: Mapping[str, Any]
    """the counts and findings a colleague will need at night"""


def stage(
    stages: Path,
    name: str,
    inputs: Mapping[str, Any],
    build: Callable[[Path], Mapping[str, Any]],
) -> Stage:
    """Make a stage, or find it made.

    Args:
        stages: folder of all stages of the portfolio.
        name: of the stage.
        inputs: everything the output depends on, as plain data; our code's digest is added.
        build: writes its files into the empty folder it is given and returns the facts, as plain data.

    Two processes that make the same stage at once both succeed: the first to rename wins, the other's copy is dropped.
    """
    digest = digest_of({"name": name, "inputs": inputs, "code": code_digest()})
    folder = stages / name / digest
    with suppress(FileNotFoundError):  # not made, or taken away at this moment by `crossrisk.retention`
        _note_use(folder)
        return _found(name, folder, digest, reused=True)
    make_private(stages)  # rows of customers lie in there, by id
    making = stages / name / f".making-{digest}-{uuid.uuid4().hex[:8]}"
    making.mkdir(parents=True)
    started = time.monotonic()
    try:
        facts = build(making)
        seconds = round(time.monotonic() - started, 3)
        write_json(making / STAGE, {"inputs": inputs, "facts": facts, "seconds": seconds})
        try:
            making.rename(folder)
        except OSError:
            if not (folder / STAGE).exists():
                raise
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return _found(name, folder, digest, reused=False)


def _note_use(folder: Path) -> None:
    """Raises FileNotFoundError where there is no stage."""
    with suppress(PermissionError):  # who may only read another's stage uses it all the same
        os.utime(folder / STAGE)


def _found(name: str, folder: Path, digest: str, *, reused: bool) -> Stage:
    document = read_json(folder / STAGE)
    return Stage(name, folder, digest, reused, document["seconds"], document["facts"])

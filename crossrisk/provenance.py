"""Which code made something: release, commit, digests of sources and of the lock file. Read from this installation."""

from __future__ import annotations

import importlib.metadata
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

from crossrisk.store import code_digest, digest_file, library_versions

_ROOT = Path(__file__).resolve().parent.parent


@cache
def code_version() -> dict[str, Any]:
    """Release, commit (None outside a checkout), digest of code and libraries, their versions, SHA-256 of the lock."""
    lock = _ROOT / "requirements.lock"
    return {
        "release": importlib.metadata.version("crossrisk"),
        "commit": _commit(),
        "digest": code_digest(),
        "libraries": library_versions(),
        "lock_sha256": digest_file(lock) if lock.exists() else None,
    }


def _commit() -> str | None:
    if not (_ROOT / ".git").exists():
        return None
    asked = subprocess.run(["git", "-C", str(_ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return asked.stdout.strip() or None

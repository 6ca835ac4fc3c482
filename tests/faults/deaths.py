"""Starting `publisher.py` and other processes to kill them, and what must be true of a registry whatever died."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil

from crossrisk.failpoints import VARIABLE
from crossrisk.registry import Registry, digest_tree, locked

PUBLISHER = Path(__file__).with_name("publisher.py")
LIMIT_S = 60


def start(registry: Registry, what: str, text: str = "new", *, failpoint: str = "") -> subprocess.Popen[str]:
    """A publisher that dies, or stops, at a failpoint."""
    environ = {**os.environ, VARIABLE: failpoint, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(
        [sys.executable, str(PUBLISHER), str(registry.root), what, text],
        env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def run(registry: Registry, what: str, text: str = "new", *, failpoint: str = "") -> subprocess.CompletedProcess[str]:
    """The same, to its end."""
    process = start(registry, what, text, failpoint=failpoint)
    out, err = process.communicate(timeout=LIMIT_S)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def wait_until_stopped(process: subprocess.Popen[str]) -> None:
    """Until it has come to a failpoint that stops it."""
    deadline = time.monotonic() + LIMIT_S
    while psutil.Process(process.pid).status() != psutil.STATUS_STOPPED:
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.02)


def assert_readable(registry: Registry) -> int:
    """What any reader may rely on at any moment, recovered or not: the champion's number."""
    champion = registry.champion()
    assert champion is not None
    names = [path.name for path in registry.models.iterdir()]
    assert max(names) == max(names, key=int) == str(champion.version)
    for name in names:
        manifest = json.loads(registry.manifest_path(int(name)).read_text())
        assert manifest["files"] == digest_tree(registry.models / name)
    return champion.version


def assert_settled(registry: Registry) -> int:
    """What is true once somebody has held the lock again: nothing is left over, and all parts agree."""
    with locked(registry):
        pass
    champion = assert_readable(registry)
    assert not registry.intent.exists()
    assert not registry.trash.exists()
    assert not (registry.root / "staging").exists()
    assert json.loads(registry.pointer.read_text())["version"] == champion
    published = [record["version"] for record in registry.records() if record.get("version") is not None]
    pruned = [version for record in registry.records() for version in record.get("pruned", ())]
    assert sorted(set(published) - set(pruned)) == registry.versions()
    assert len(published) == len(set(published))
    manifests = {int(path.stem) for path in registry.manifest_path(0).parent.glob("*.json") if path.stem.isdigit()}
    assert manifests == set(published)
    return champion

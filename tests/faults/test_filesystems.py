"""Row 6: a full disk, a read-only registry, no permission, two file systems. Real ones, in a mount namespace."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from deaths import assert_readable, assert_settled
from registries import publish

from crossrisk.registry import Registry

NOW = 1_700_000_000
PUBLISHER = Path(__file__).with_name("publisher.py")


def in_a_namespace(script: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script where it may mount what it likes; skipped where that is refused."""
    allowed = subprocess.run(["unshare", "-Urm", "true"], capture_output=True, text=True, check=False)
    if allowed.returncode:
        pytest.skip(f"no unprivileged mount namespace here: {allowed.stderr.strip()}")
    path = os.pathsep.join(filter(None, sys.path))
    environ = {**os.environ, "PYTHONPATH": path, "PYTHON": sys.executable, "PUBLISHER": str(PUBLISHER), **variables}
    return subprocess.run(
        ["unshare", "-Urm", "sh", "-euc", script], env=environ, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.fixture
def registry(tmp_path):
    """One version."""
    made = Registry(tmp_path / "r")
    publish(made, NOW)
    return made


@pytest.mark.fault(6)
@pytest.mark.parametrize("free_kb", [0, 4, 8, 12, 16])
def test_a_disk_that_fills_up_is_a_clear_error_and_the_champion_stays(registry, tmp_path, free_kb):
    """On a tmpfs of 256 KB, filled up to some pages: the publication comes further each time, and never half."""
    (tmp_path / "out").mkdir()
    done = in_a_namespace(
        """
        mount -t tmpfs -o size=256k tmpfs "$DISK"
        cp -a "$ROOT/." "$DISK/"
        head -c "${FREE}k" /dev/zero > "$DISK/spare"
        cat /dev/zero > "$DISK/fill" 2> /dev/null || true
        rm "$DISK/spare"
        "$PYTHON" "$PUBLISHER" "$DISK" publish || echo "ended $?"
        cp -a "$DISK/." "$OUT/"
        """,
        ROOT=str(registry.root), DISK=str(make(tmp_path / "disk")), OUT=str(tmp_path / "out"), FREE=str(free_kb),
    )  # fmt: skip
    after = Registry(tmp_path / "out")
    assert "ended 1" in done.stdout, done
    assert "No space left on device" in done.stderr
    assert "the champion is as it was" in done.stderr or "is in place and whole" in done.stderr
    assert assert_readable(after) == assert_settled(after) or "is in place and whole" in done.stderr
    (after.root / "fill").unlink()
    assert publish(after, NOW + 50, "later").version == assert_settled(after)


def make(folder: Path) -> Path:
    folder.mkdir()
    return folder


@pytest.mark.fault(6)
@pytest.mark.parametrize("part", [".", "models", "manifests"])
def test_a_read_only_registry_is_a_clear_error_and_nothing_moves(registry, part):
    before = sorted(str(path) for path in registry.models.rglob("*"))
    done = in_a_namespace(
        """
        mount --bind "$PART" "$PART"
        mount -o remount,bind,ro "$PART"
        "$PYTHON" "$PUBLISHER" "$ROOT" publish && exit 7 || true
        """,
        ROOT=str(registry.root), PART=str(registry.root / part),
    )  # fmt: skip
    assert done.returncode == 0, done
    # a mount is a border as well: renaming into it fails as between two file systems
    assert "Read-only file system" in done.stderr or "must lie on one file system" in done.stderr
    assert "nothing was published and the champion is as it was" in done.stderr
    assert assert_settled(registry) == NOW
    assert sorted(str(path) for path in registry.models.rglob("*")) == before


@pytest.mark.fault(6)
def test_models_on_another_file_system_are_refused_before_anything_is_seen(registry, tmp_path):
    done = in_a_namespace(
        """
        mount -t tmpfs tmpfs "$DISK"
        cp -a "$ROOT/models/." "$DISK/"
        mount --bind "$DISK" "$ROOT/models"
        "$PYTHON" "$PUBLISHER" "$ROOT" publish && exit 7 || true
        ls "$ROOT/models"
        """,
        ROOT=str(registry.root), DISK=str(make(tmp_path / "disk")),
    )  # fmt: skip
    assert done.returncode == 0, done
    assert "models and staging must lie on one file system" in done.stderr
    assert done.stdout.split() == [str(NOW)]
    assert assert_settled(registry) == NOW


@pytest.mark.fault(6)
def test_a_registry_without_permission_is_a_clear_error(registry):
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, str(PUBLISHER), str(registry.root), "publish"]
    if os.geteuid() == 0:  # root may write anywhere: the publisher is somebody else
        for folder in [registry.root, *registry.root.parents][:6]:
            folder.chmod(folder.stat().st_mode | 0o055)
        command = [*somebody_else(environ), *command]
    else:
        registry.models.chmod(0o500)
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=60)
    registry.models.chmod(0o755)
    assert done.returncode == 1, done
    assert "Permission denied" in done.stderr
    assert "nothing was published and the champion is as it was" in done.stderr
    assert assert_settled(registry) == NOW


def somebody_else(environ: dict[str, str]) -> list[str]:
    """The beginning of a command that another user runs; skipped where nobody else can run our Python."""
    change = ["setpriv", "--reuid=65534", "--clear-groups"]
    if shutil.which(change[0]) is None:
        pytest.skip("setpriv is not here")
    command = [*change, sys.executable, "-c", "import crossrisk.registry"]
    tried = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"another user cannot run this Python: {tried.stderr.strip()[-200:]}")
    return change

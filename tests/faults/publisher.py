"""A process that changes a registry of small text models once, to be killed on the way: publisher.py ROOT WHAT [TEXT].

WHAT is publish, keep, rule, rollback or prune; verification is left out, all else is the real thing. Prints the
version it published. Not a test: tests start it, with CROSSRISK_FAILPOINT in its environment.
"""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "data"))

from registries import accept, publish, write_model

from crossrisk.registry import Registry, locked, publish_version, staging_folder
from crossrisk.registry.pending import find_pending, keep_pending
from crossrisk.registry.protocol import enter_record, prune_versions
from crossrisk.store import write_json

DECISION = {"kind": "decision", "as_of": "2024-12-31", "decision": {"verdict": "needs_approval"}}


def keep(registry: Registry, run_id: str) -> None:
    """Leave a challenger that waits for a person."""
    with locked(registry), staging_folder(registry) as folder:
        write_model(folder / "model", run_id)
        (folder / "companions").mkdir()
        write_json(folder / "manifest.json", {"contender": "stacked"})
        write_json(folder / "decision.json", {"decision": DECISION["decision"]})
        keep_pending(registry, run_id, folder)
        enter_record(registry, {**DECISION, "run_id": run_id, "version": None})


def rule(registry: Registry, run_id: str) -> int:
    """Publish what waits, as `crossrisk promote` does."""
    with locked(registry):
        bundle = find_pending(registry, run_id)
        with staging_folder(registry) as folder:
            shutil.copytree(bundle.folder, folder, dirs_exist_ok=True)
            record = {**DECISION, "kind": "ruling", "run_id": run_id}
            manifest = {"identity": run_id, "contender": "stacked"}
            placed = publish_version(registry, folder, manifest, record, now=time.time(), verify=accept)
        shutil.rmtree(bundle.folder)
    return placed.version


def roll_back(registry: Registry) -> int:
    """Back to the version before, as `crossrisk rollback` does."""
    from tasks import rollback

    rollback._verify_restored = accept
    return rollback.roll_back(registry, to=None, by="Grace", reason="test", now=time.time()).version


def prune(registry: Registry) -> None:
    """Remove the oldest version."""
    with locked(registry):
        oldest = registry.versions()[0]
        prune_versions(registry, [oldest], {"kind": "prune", "pruned": [oldest], "version": None})


def main(root: str, what: str, text: str = "new") -> None:
    """Do it once."""
    registry = Registry(Path(root))
    if what == "publish":
        print(publish(registry, time.time(), text).version)
    elif what == "keep":
        keep(registry, text)
    elif what == "rule":
        print(rule(registry, text))
    elif what == "rollback":
        print(roll_back(registry))
    elif what == "prune":
        prune(registry)
    else:
        raise SystemExit(f"publish, keep, rule, rollback or prune; got {what}")


if __name__ == "__main__":
    main(*sys.argv[1:])

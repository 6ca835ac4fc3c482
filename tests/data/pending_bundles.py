"""Challengers that wait in a registry, of small files, with what their verification left."""

from __future__ import annotations

from registries import write_model

from crossrisk.registry import Registry, digest_tree, locked, staging_folder
from crossrisk.registry.pending import keep_pending
from crossrisk.registry.protocol import enter_record
from crossrisk.store import write_json


def keep_verified(registry: Registry, run_id: str) -> None:
    """Keep a bundle that waits for a person, with its decision in the ledger."""
    with locked(registry), staging_folder(registry) as folder:
        model = write_model(folder / "model", run_id)
        (folder / "companions").mkdir()
        (folder / "companions" / "golden.parquet").write_text("golden")
        write_json(folder / "manifest.json", {"run_id": run_id, "verified_files": digest_tree(model)})
        write_json(folder / "decision.json", {"decision": {"verdict": "needs_approval"}})
        keep_pending(registry, run_id, folder)
        enter_record(registry, {"kind": "decision", "run_id": run_id, "version": None})

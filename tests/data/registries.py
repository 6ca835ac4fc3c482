"""Registries for tests: bundles of small files, published through the real protocol with a verifier that looks away."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from crossrisk.registry import Champion, Registry, locked, publish_version, staging_folder


def write_model(folder: Path, text: str = "model") -> Path:
    """Something with the files of a SavedModel."""
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_text(text)
    (folder / "variables" / "variables.index").write_text(text)
    return folder


def accept(bundle: Path) -> None:
    """A verifier that is content with everything."""


def publish(
    registry: Registry,
    now: float,
    text: str = "model",
    *,
    write: Callable[[Path], object] | None = None,
    companions: Mapping[str, str] | None = None,
    record: Mapping[str, Any] | None = None,
    verify: Callable[[Path], None] = accept,
    **manifest: Any,
) -> Champion:
    """Publish a model of `text`, or what `write` puts into a folder; the champion afterwards."""
    with locked(registry), staging_folder(registry) as folder:
        write(folder / "model") if write else write_model(folder / "model", text)
        (folder / "companions").mkdir()
        for name, content in (companions or {}).items():
            (folder / "companions" / name).write_text(content)
        run_id = f"run-{now}-{text}"
        full = {"identity": run_id, "run_id": run_id, "contender": "stacked", "as_of": "2024-12-31", **manifest}
        decision = {"kind": "decision", "run_id": run_id, "as_of": full["as_of"], "decision": {"verdict": "promote"}}
        return publish_version(registry, folder, full, {**decision, **(record or {})}, now=now, verify=verify)


def enter(registry: Registry, **record: Any) -> None:
    """A line of the ledger for a decision that published nothing."""
    from crossrisk.registry.protocol import enter_record

    with locked(registry):
        enter_record(registry, {"kind": "decision", "run_id": "kept", "version": None, **record})

"""What can be checked of a registry without TensorFlow: chain, agreement, digests, and what else lies in the base path.

Nothing is written, and nothing that is found stops the search for more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from crossrisk.errors import PublishError
from crossrisk.registry.layout import Registry, intended_version, read_manifest, read_object
from crossrisk.registry.ledger import versions_in
from crossrisk.registry.serving import STABLE, read_serving
from crossrisk.store import digest_file


@dataclass(frozen=True)
class Finding:
    """One thing that was checked."""

    what: str
    """ledger, champion, base path, pointer, publication, serving, version, companions, golden batch"""
    version: int | None
    """None where it is about the registry"""
    holds: bool
    said: str
    """what was found, and the next move where it does not hold"""

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def check_registry(registry: Registry) -> list[Finding]:
    """The registry as a whole: the chain, the agreement of its parts, strangers, and a publication that died."""
    return [
        _find("ledger", None, lambda: f"{len(registry.records())} lines, each names the one before"),
        _find("champion", None, lambda: _champion_text(registry)),
        _find("base path", None, lambda: _base_path_text(registry)),
        _find("pointer", None, lambda: _pointer_text(registry)),
        _find("publication", None, lambda: _intent_text(registry)),
        _find("serving", None, lambda: _serving_text(registry)),
    ]


def kept_versions(registry: Registry) -> list[int]:
    """Versions that must be there, published and not pruned, ascending; those that are, where no ledger can say."""
    try:
        records = registry.records()
    except PublishError:
        return registry.versions()
    pruned = {version for record in records for version in record.get("pruned", ())}
    return sorted(set(versions_in(records)) - pruned)


def check_version(registry: Registry, version: int) -> list[Finding]:
    """The files of a version and those that go with it, against their manifest."""
    return [
        _find("version", version, lambda: f"{len(registry.version(version).manifest['files'])} files as published"),
        _find("companions", version, lambda: _companions_text(registry, version)),
    ]


def _find(what: str, version: int | None, look: Callable[[], str]) -> Finding:
    try:
        return Finding(what, version, True, look())
    except PublishError as error:
        return Finding(what, version, False, str(error))


def _champion_text(registry: Registry) -> str:
    champion = registry.champion()
    return f"version {champion.version}: models, manifests, ledger and champion.json agree" if champion else "none yet"


def _base_path_text(registry: Registry) -> str:
    versions = registry.versions()
    known = {str(version) for version in versions if registry.manifest_path(version).exists()}
    there = sorted(path.name for path in registry.models.iterdir()) if registry.models.is_dir() else []
    strange = [name for name in there if name not in known]
    if strange:
        raise PublishError(
            f"{registry.models} holds {_listed(strange)}, which this tool did not publish; a server may try to load it "
            "until the next version gets a number above it: move it out of the base path"
        )
    return f"{len(versions)} versions and nothing else"


def _pointer_text(registry: Registry) -> str:
    records = registry.records()
    if not registry.pointer.exists():
        if not records:
            return "none yet"
        raise PublishError(f"{registry.pointer} is gone; whoever takes the lock next writes it anew")
    lines = read_object(registry.pointer).get("ledger", {}).get("lines", 0)
    if lines != len(records):
        raise PublishError(
            f"{registry.pointer} names line {lines} of {len(records)} as the ledger's last; whoever takes the lock "
            "next writes it anew"
        )
    return f"names the champion and line {lines}, the ledger's last"


def _serving_text(registry: Registry) -> str:
    serving = read_serving(registry)
    named = [version for version in serving.versions if version not in registry.versions()]
    if named:
        raise PublishError(f"a server is told of {named}, which are not in {registry.models}; run crossrisk serving")
    return f"{STABLE} is {serving.stable or 'none yet'}" + (f", {serving.arriving} arrives" if serving.arriving else "")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _intent_text(registry: Registry) -> str:
    if not registry.intent.exists():
        return "none is under way, none died"
    about = ", ".join(f"version {version}" for version in intended_version(registry)) or "a pruning"
    raise PublishError(
        f"{registry.intent} tells of {about}: a publisher is at work, or died; the next one finishes or sweeps it"
    )


def _companions_text(registry: Registry, version: int) -> str:
    expected = read_manifest(registry, version).get("companions", {})
    found = {name: digest_file(path) for name, path in registry.companions(version).items()}
    wrong = sorted(name for name in expected if found.get(name) != expected[name])
    if wrong:
        raise PublishError(
            f"{', '.join(wrong)} of version {version} lost or changed in {registry.manifest_path(version).parent}; "
            "restore from a backup"
        )
    return f"{len(expected)} files as published"

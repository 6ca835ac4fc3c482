"""A registry checked from outside: chain and digests, and every version asked again what it must say.

What needs no TensorFlow is in `crossrisk.registry.audit`; nothing is written.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from crossrisk.errors import CrossriskError
from crossrisk.registry import Registry
from crossrisk.registry.asking import PLAN
from crossrisk.registry.audit import Finding, check_registry, check_version, kept_versions
from tasks.publish import GOLDEN, verify_model


def audit(registry: Registry, *, all_versions: bool, on_finding: Callable[[Finding], None]) -> list[Finding]:
    """Check a registry and its champion, or all versions; some seconds each, TensorFlow starts anew for every one.

    Args:
        registry: of the portfolio.
        all_versions: also those that do not answer now.
        on_finding: told of each finding as it is made.
    """
    findings: list[Finding] = []

    def add(finding: Finding) -> None:
        findings.append(finding)
        on_finding(finding)

    for finding in check_registry(registry):
        add(finding)
    versions = kept_versions(registry)
    for version in reversed(versions if all_versions else versions[-1:]):
        for finding in check_version(registry, version):
            add(finding)
        add(_ask_again(registry, version))
    return findings


def _ask_again(registry: Registry, version: int) -> Finding:
    """Whether a version loads with both readers, has our signature, and answers its golden batch as it did."""
    golden, plan = (registry.companion_path(version, name) for name in (GOLDEN, PLAN))
    if not golden.exists():
        return Finding("golden batch", version, False, f"{golden} is not there: nothing to ask it; restore it")
    try:
        with registry.reading(version), tempfile.TemporaryDirectory() as scratch:
            said = verify_model(registry.models / str(version), golden, plan, workdir=Path(scratch))
    except (CrossriskError, OSError) as error:
        return Finding("golden batch", version, False, str(error))
    off = max(said["graph_reader"], said["object_reader"])
    return Finding(
        "golden batch", version, True, f"signature ours, {said['rows']} rows by two readers, at most {off:.1e} off"
    )

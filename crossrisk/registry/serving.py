"""Generated configuration of a server."""

from __future__ import annotations

from crossrisk.registry.layout import Registry


def write_configuration(registry: Registry) -> None:
    """Write it."""


def labelled_versions(registry: Registry) -> set[int]:
    """Versions named."""
    return set()

"""Stub until the colleague's version is merged."""

from pathlib import Path


def refuse_links(folder: Path) -> None:
    """Refuse."""

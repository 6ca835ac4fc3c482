"""Source-only: the network of the other methods, trained without a term that looks at the target's features."""

from __future__ import annotations

from models.deep.method import Method


class SourceOnly(Method):
    """Nothing is aligned: what every other method is held against, and what each of them is at mmd_weight 0."""

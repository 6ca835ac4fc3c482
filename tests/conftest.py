"""What all tests share: a quiet environment, the builders on the path, the real data sets where they are."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from crossrisk.quiet import make_quiet

make_quiet(os.environ)
sys.path.insert(0, str(Path(__file__).parent / "data"))


@pytest.fixture
def real_data() -> Path:
    """Root of the real data sets; the test is skipped, with the reason, where it is not there."""
    root = os.environ.get("CROSSRISK_DATA", "")
    if not root or not Path(root).is_dir():
        pytest.skip(f"CROSSRISK_DATA ({root or 'not set'}) is no folder with the real data sets; see docs/datasets.md")
    return Path(root).resolve()

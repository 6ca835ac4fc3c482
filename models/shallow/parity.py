"""The check that a plain form says what the library's fitted model says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from crossrisk.errors import TrainingError
from models.fitted import Floats, sigmoid

CHECKED_ROWS = 10_000
TOLERANCE = 1e-6
"""of a probability; the logit's bound at +/-16 moves one by 1.1e-7 at most"""


def refuse_disparity(raw_logit: Callable[[Any], Floats], predict_proba: Callable[[Any], Any], x: Any) -> None:
    """Raise TrainingError where the form's probability differs from the library's on the first rows of x."""
    rows = x[:CHECKED_ROWS]
    distance = float(np.abs(sigmoid(raw_logit(rows)) - np.asarray(predict_proba(rows))[:, 1]).max())
    if not distance <= TOLERANCE:
        raise TrainingError(
            f"plain form and library differ by {distance:.2e} in probability (at most {TOLERANCE:.0e} allowed); "
            "the library's internals may have changed with its version: see models/shallow"
        )

"""How the weight of the adaptation grows over a training: pure functions of the step, each in [0, 1]."""

from __future__ import annotations

import math
from typing import Literal

Schedule = Literal["article", "constant", "warm_up", "dann"]

ARTICLE_STEPS = 1000
"""A constant of the article, not the run's length."""


def scheduled(schedule: Schedule, step: int, *, planned: int, warm_up_steps: int) -> float:
    """The factor on mmd_weight at a step, counted by the updates made so far.

    Args:
        schedule: "article" 2 / (1 + exp(-10 step / 1000)) - 1; "dann" the same of step / planned (Ganin et al., JMLR
            2016, section 5.2.2); "warm_up" step / warm_up_steps, then 1; "constant" 1.
        step: 0 at the first update.
        planned: updates of a training that does not stop early.
        warm_up_steps: of "warm_up".
    """
    match schedule:
        case "article":
            return sigmoid_ramp(step / ARTICLE_STEPS)
        case "dann":
            return sigmoid_ramp(step / planned)
        case "warm_up":
            return min(1.0, step / warm_up_steps)
        case "constant":
            return 1.0
        case _:
            raise ValueError(f"unknown schedule {schedule!r}; expected article, constant, warm_up or dann")


def sigmoid_ramp(progress: float) -> float:
    """2 / (1 + exp(-10 progress)) - 1: 0 at 0, .46 at .1, .99 at .5."""
    return 2.0 / (1.0 + math.exp(-10.0 * progress)) - 1.0

"""What every metric is: a value, its interval, the counts behind it, and whether it may be relied on.

Notation of the package: y = 1 bad; m bads, n goods, N = m + n; a higher score is riskier, always. A metric that cannot
be computed has a status, never a silent number. How a metric is computed stays in the modules beside this one.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Status = Literal["ok", "insufficient", "undefined"]

MINIMUM_OF_EACH_CLASS = 30
"""Below 30 bads or 30 goods a value is shown but its status is `insufficient`."""


@dataclass(frozen=True)
class Metric:
    """A value with its interval, the counts behind it and whether it may be relied on."""

    value: float | None
    low: float | None
    high: float | None
    status: Status
    n_bad: int
    n_good: int
    interval: str | None = None
    """how low and high were found, such as `DeLong, logit scale`; None: there is no interval"""

    def to_json(self) -> dict[str, Any]:
        """Plain data; undefined numbers are None."""
        return asdict(self)


def status_of(n_bad: int, n_good: int, minimum: int = MINIMUM_OF_EACH_CLASS) -> Status:
    """`undefined` without both classes, `insufficient` with fewer than `minimum` of either, else `ok`."""
    if min(n_bad, n_good) == 0:
        return "undefined"
    return "ok" if min(n_bad, n_good) >= minimum else "insufficient"

"""Metrics of scored samples, one implementation for training, gate, report and command line.

Arrays in, frozen results out; no files, no plots. Notation and statuses: `crossrisk.metrics.base`.
"""

from crossrisk.metrics.base import MINIMUM_OF_EACH_CLASS, Metric, Status
from crossrisk.metrics.comparison import HIGHER_IS_BETTER, METRICS, Difference, Evaluation, evaluate
from crossrisk.metrics.curves import Curves, curves
from crossrisk.metrics.ranking import auc_value, ks_value

__all__ = [
    "HIGHER_IS_BETTER",
    "METRICS",
    "MINIMUM_OF_EACH_CLASS",
    "Curves",
    "Difference",
    "Evaluation",
    "Metric",
    "Status",
    "auc_value",
    "curves",
    "evaluate",
    "ks_value",
]

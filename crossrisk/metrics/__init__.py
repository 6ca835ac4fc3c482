"""Metrics of scored samples, one implementation for training, gate, report and command line.

Arrays in, frozen results out; no files, no plots. Notation and statuses: `crossrisk.metrics.base`.
"""

from crossrisk.metrics.base import (
    MINIMUM_OF_EACH_CLASS,
    Direction,
    KnownRows,
    Metric,
    Status,
    known_rows,
)
from crossrisk.metrics.comparison import (
    HIGHER_IS_BETTER,
    METRICS,
    Difference,
    Evaluation,
    GroupEvaluation,
    evaluate,
    evaluate_groups,
)
from crossrisk.metrics.curves import Curves, curves
from crossrisk.metrics.delong import PairedTest, auc_metric, gini_of_auc, paired_test
from crossrisk.metrics.kolmogorov import KolmogorovSmirnov, kolmogorov_smirnov
from crossrisk.metrics.ranking import auc_value, ks_value
from crossrisk.metrics.tables import (
    LIFT_SHARES,
    KsTable,
    Lift,
    RankBreak,
    bucket_edges,
    ks_table,
    lift_at,
)

__all__ = [
    "HIGHER_IS_BETTER",
    "LIFT_SHARES",
    "METRICS",
    "MINIMUM_OF_EACH_CLASS",
    "Curves",
    "Difference",
    "Direction",
    "Evaluation",
    "GroupEvaluation",
    "KnownRows",
    "KolmogorovSmirnov",
    "KsTable",
    "Lift",
    "Metric",
    "PairedTest",
    "RankBreak",
    "Status",
    "auc_metric",
    "auc_value",
    "bucket_edges",
    "curves",
    "evaluate",
    "evaluate_groups",
    "gini_of_auc",
    "known_rows",
    "kolmogorov_smirnov",
    "ks_table",
    "ks_value",
    "lift_at",
    "paired_test",
]

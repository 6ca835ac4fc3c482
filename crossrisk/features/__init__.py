"""The feature plan: what becomes of the raw columns, as plain data, fitted on training rows only.

One plan, two compilers: `query` makes Polars expressions of it for batches, `models.feature_graph` TensorFlow ops for
the SavedModel. Both compute in float64 and round to float32 at the same places, so that they agree to the last bit.

`rows` raw columns and the features that nothing is fitted for; `plan` the fitted part, as data; `settings`, `fitting`,
`tables` and `selection` make it of training rows; `explaining` says and draws a column's way. Files are
`tasks.features`' business.
"""

from crossrisk.features.fitting import fit_plan
from crossrisk.features.plan import (
    BinSlots,
    BinTable,
    CategoryEncoding,
    Dropped,
    FeaturePlan,
    LevelCodes,
    LevelTable,
    NativeView,
    NumericEncoding,
    View,
)
from crossrisk.features.query import encoded_query, encoding_expressions, native_expressions, rowwise_expressions
from crossrisk.features.rows import (
    DAYS_PER_MONTH,
    Age,
    DatePart,
    Difference,
    Ratio,
    RawColumn,
    RowPlan,
    Sentinels,
    check_servable_names,
)
from crossrisk.features.selection import SelectionRules
from crossrisk.features.settings import FitSettings
from crossrisk.features.tables import Aggregate, crossfit

__all__ = [
    "DAYS_PER_MONTH",
    "Age",
    "Aggregate",
    "BinSlots",
    "BinTable",
    "CategoryEncoding",
    "DatePart",
    "Difference",
    "Dropped",
    "FeaturePlan",
    "FitSettings",
    "LevelCodes",
    "LevelTable",
    "NativeView",
    "NumericEncoding",
    "Ratio",
    "RawColumn",
    "RowPlan",
    "SelectionRules",
    "Sentinels",
    "View",
    "check_servable_names",
    "crossfit",
    "encoded_query",
    "encoding_expressions",
    "fit_plan",
    "native_expressions",
    "rowwise_expressions",
]

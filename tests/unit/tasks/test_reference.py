"""Rules of what is kept for the months to come."""

import polars as pl

from crossrisk.features import DatePart, Difference, Ratio, RowPlan, Sentinels
from tasks.reference import countable_expressions


def test_every_feature_is_counted_once_whatever_else_is_made_of_a_column_with_codes():
    plan = RowPlan(
        decision_date=None,
        numbers=("x", "y"),
        categories=("region",),
        sentinels=(Sentinels(column="x", codes=(-1.0,)),),
        ratios=(Ratio(name="r", numerator="x", denominator="y"),),
        ages=(),
        differences=(Difference(name="d", minuend="x", subtrahend="y"),),
        date_parts=(DatePart(name="opened_month", date="on", part="month"),),
    )
    frame = pl.DataFrame({"x": [-1, 6], "y": [2.0, 3.0], "region": ["n", ""], "on": pl.Series([19_000, 19_040])})
    counted = frame.with_columns(pl.col("on").cast(pl.Int32).cast(pl.Date)).select(countable_expressions(plan, {"x"}))
    assert sorted(counted.columns) == sorted([*plan.numeric_features, *plan.categories])
    assert counted["x"].to_list() == [-1.0, 6.0]  # codes as they came
    assert counted["d"].to_list() == [None, 3.0]  # and missing where something is made of them
    assert counted["r"].to_list() == [None, 2.0]

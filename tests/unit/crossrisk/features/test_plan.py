"""Rules of the feature plan and its Polars compiler."""

from datetime import date

import numpy as np
import polars as pl
import pytest

from crossrisk.features import (
    Age,
    FeaturePlan,
    FitSettings,
    Ratio,
    RowPlan,
    Sentinels,
    encoded_query,
    encoding_expressions,
    fit_plan,
    rowwise_expressions,
)

ROWS = RowPlan(
    decision_date="opened",
    numbers=("x", "flag"),
    categories=("region",),
    sentinels=(Sentinels(column="x", codes=(-1.0, 99.0)),),
    ratios=(Ratio(name="x_to_y", numerator="x", denominator="y"),),
    ages=(Age(name="age_months", date="born"),),
)
FRAME = pl.DataFrame(
    {
        "opened": [date(2024, 1, 31)] * 6,
        "born": [date(2023, 1, 31), date(2024, 1, 31), None, date(2024, 3, 1), date(1990, 1, 31), date(2023, 12, 31)],
        "x": [1, -1, 99, None, 5, 8],
        "y": [2.0, 4.0, 0.0, 1.0, 0.0, float("nan")],
        "flag": [True, False, None, True, True, False],
        "region": ["n", "s", "", None, "n", "w"],
    }
)


def plan(frame=FRAME, min_level_rows=1, clip=(0.0, 1.0)) -> FeaturePlan:
    return fit_plan(
        frame.select(rowwise_expressions(ROWS)), ROWS, FitSettings(clip_quantiles=clip, min_level_rows=min_level_rows)
    )


def encode(fitted, frame=FRAME):
    return frame.lazy().select(rowwise_expressions(ROWS)).select(encoding_expressions(fitted)).collect()


def test_row_wise_features_are_worked_out_by_hand():
    features = FRAME.select(rowwise_expressions(ROWS))
    assert features["x"].to_list() == [1, None, None, None, 5, 8]
    assert features["x_to_y"].to_list() == [0.5, None, None, None, None, None]
    assert features["flag"].to_list() == [1, 0, None, 1, 1, 0]
    assert features["region"].to_list() == ["n", "s", None, None, "n", "w"]
    ages = features["age_months"].to_list()
    assert ages[2] is None
    assert ages[0] == pytest.approx(365 / 30.4375)
    assert ages[1] == 0
    assert ages[3] == pytest.approx(-30 / 30.4375)


def test_encoding_imputes_flags_clips_and_standardises():
    fitted = plan()
    x = next(n for n in fitted.numerics if n.column == "x")
    assert (x.fill, x.low, x.high, x.flag) == (5.0, 1.0, 8.0, True)
    matrix = encode(fitted)
    filled = np.array([1, 5, 5, 5, 5, 8.0])
    assert matrix["x"].to_numpy() == pytest.approx((filled - filled.mean()) / filled.std(), abs=1e-6)
    assert matrix["x is missing"].to_list() == [0, 1, 1, 1, 0, 0]
    assert matrix.null_count().sum_horizontal().item() == 0
    assert set(matrix.dtypes) == {pl.Float32}
    assert tuple(matrix.columns) == fitted.outputs


def test_unseen_levels_go_to_the_other_slot_and_rare_ones_too():
    fitted = plan(min_level_rows=2)
    region = next(c for c in fitted.categories if c.column == "region")
    assert region.levels == ("n",)
    assert region.missing_slot
    new = FRAME.with_columns(pl.Series("region", ["n", "mars", None, "", "s", "w"]))
    matrix = encode(fitted, new)
    assert matrix["region=n"].to_list() == [1, 0, 0, 0, 0, 0]
    assert matrix["region is missing"].to_list() == [0, 0, 1, 1, 0, 0]
    assert matrix["region is other"].to_list() == [0, 1, 0, 0, 1, 1]


def test_every_row_has_exactly_one_slot_of_a_category():
    fitted = plan(min_level_rows=2)
    slots = [name for name in fitted.outputs if name.startswith("region")]
    assert encode(fitted).select(pl.sum_horizontal(slots))["region=n"].to_list() == [1.0] * 6


def test_missing_without_a_slot_in_training_counts_as_other():
    fitted = plan(FRAME.filter(pl.col("region").is_in(["n", "s", "w"])))
    assert not fitted.categories[0].missing_slot
    assert encode(fitted)["region is other"].to_list() == [0, 0, 1, 1, 0, 0]


def test_extreme_values_are_clipped_to_what_training_held():
    fitted = plan()
    matrix = encode(fitted, FRAME.with_columns(x=pl.lit(1e30)))
    top = encode(fitted)["x"].max()
    assert matrix["x"].to_list() == [top] * 6


def test_a_feature_without_variation_is_dropped_and_named():
    fitted = plan(FRAME.with_columns(x=pl.lit(3), born=pl.lit(None, pl.Date)))
    assert {"x", "age_months"} <= {one.feature for one in fitted.dropped}
    assert "x" not in fitted.outputs


def test_the_plan_is_plain_json_and_comes_back_the_same():
    fitted = plan()
    assert FeaturePlan.model_validate_json(fitted.model_dump_json()) == fitted


def test_raw_columns_are_what_a_server_must_be_fed():
    assert [(c.name, c.kind) for c in ROWS.raw_columns] == [
        ("x", "number"), ("flag", "number"), ("y", "number"), ("region", "category"), ("born", "date"),
        ("opened", "date"),
    ]  # fmt: skip


def test_no_training_row_is_refused():
    with pytest.raises(ValueError, match="no training row"):
        plan(FRAME.clear())


def test_two_outputs_of_one_name_are_refused():
    clash = ROWS.model_copy(update={"numbers": ("x", "region=n")})
    frame = FRAME.with_columns(pl.Series("region=n", [1.0, 2, 3, 4, 5, 6]))
    with pytest.raises(ValueError, match="two outputs"):
        fit_plan(frame.select(rowwise_expressions(clash)), clash, FitSettings(clip_quantiles=(0, 1), min_level_rows=1))


def test_the_whole_plan_is_one_query_that_streams_and_reads_only_what_it_needs(tmp_path):
    wide = FRAME.with_columns(unused=pl.lit("x"), **{f"more_{i}": pl.lit(i) for i in range(5)})
    wide.write_parquet(tmp_path / "loans.parquet")
    query = encoded_query(plan(), pl.scan_parquet(tmp_path / "loans.parquet"), beside=["region"])
    streamed = query.collect(engine="streaming")
    assert streamed.columns == ["region", *plan().outputs]
    assert streamed.drop("region").equals(encode(plan()))
    assert streamed["region"].to_list() == FRAME["region"].to_list()
    assert "PROJECT 6/12 COLUMNS" in query.explain()
    assert "python" not in query.explain().lower()
    one_month = query.filter(pl.col("region") == "n").explain()
    assert "SELECTION" in one_month  # the filter on a column beside the matrix reaches the file


def test_a_constant_fills_what_is_missing_even_outside_what_training_held():
    settings = FitSettings(clip_quantiles=(0, 1), min_level_rows=1, constants={"x": 240.0})
    fitted = fit_plan(FRAME.select(rowwise_expressions(ROWS)), ROWS, settings)
    x = next(n for n in fitted.numerics if n.column == "x")
    assert (x.fill, x.low, x.high) == (240.0, 1.0, 240.0)


def test_log1p_of_values_that_have_none_is_refused_with_the_other_one():
    frame = FRAME.with_columns(x=pl.Series([-5, 1, 2, 3, 4, 8]))
    rows = ROWS.model_copy(update={"sentinels": ()})
    with pytest.raises(ValueError, match="training rows go down to -5; take signed_log"):
        fit_plan(frame.select(rowwise_expressions(rows)), rows, FitSettings(logs={"x": "log1p"}, clip_quantiles=(0, 1)))


def test_a_constant_that_has_no_logarithm_is_refused_too():
    rows = ROWS.model_copy(update={"sentinels": ()})
    frame = FRAME.with_columns(x=pl.Series([5, 1, None, 3, 4, 8]))
    settings = FitSettings(logs={"x": "log1p"}, constants={"x": -9.0}, clip_quantiles=(0, 1))
    with pytest.raises(ValueError, match="take signed_log"):
        fit_plan(frame.select(rowwise_expressions(rows)), rows, settings)


def test_values_without_a_mean_in_64_bits_are_refused_by_name():
    frame = FRAME.with_columns(x=pl.Series([1e308, -1e308, 1e308, 1.0, 1e308, -1e308]))
    rows = ROWS.model_copy(update={"sentinels": ()})
    with pytest.raises(ValueError, match=r"x: values from -1e\+308 to 1e\+308 have no mean"):
        fit_plan(frame.select(rowwise_expressions(rows)), rows, FitSettings(clip_quantiles=(0, 1)))

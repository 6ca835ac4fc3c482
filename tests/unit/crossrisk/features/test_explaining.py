"""Rules of the explained plan: every raw column leads to its features, every feature to its outputs or to a reason."""

import xml.etree.ElementTree as ET

import numpy as np
import polars as pl
import pytest

from crossrisk.features import (
    Age,
    DatePart,
    Difference,
    FeaturePlan,
    FitSettings,
    LevelCodes,
    NativeView,
    Ratio,
    RowPlan,
    SelectionRules,
    Sentinels,
    fit_plan,
    rowwise_expressions,
)
from crossrisk.features.explaining import describe_ways, find_ways
from crossrisk.pages.plan_drawing import draw_plan

ROWS = RowPlan(
    decision_date="decided",
    numbers=("income", "debt", "empty"),
    categories=("region",),
    sentinels=(Sentinels(column="debt", codes=(-1.0, 999.0)),),
    ratios=(Ratio(name="debt_ratio", numerator="debt", denominator="income"),),
    ages=(Age(name="age", date="born"),),
    differences=(Difference(name="left", minuend="income", subtrahend="debt"),),
    date_parts=(DatePart(name="month", date="decided", part="month"),),
)


@pytest.fixture(scope="module")
def plan() -> FeaturePlan:
    rng, n = np.random.default_rng(1), 500
    days = pl.Series(rng.integers(0, 3000, n), dtype=pl.Int32)
    frame = pl.DataFrame(
        {
            "income": rng.lognormal(7, 1, n),
            "debt": rng.lognormal(5, 1, n),
            "empty": [None] * n,
            "region": rng.choice(["n", "s", "<w>"], n),
            "born": days.cast(pl.Date),
            "decided": (days * 2 + 9000).cast(pl.Date),
        },
        schema_overrides={"empty": pl.Float64},
    )
    settings = FitSettings(
        logs={"income": "log1p"},
        encodings={"income": ("standard", "bins"), "region": ("one_hot", "woe")},
        select=SelectionRules(max_missing_share=0.5),
    )
    label = pl.Series(rng.integers(0, 2, n))
    return fit_plan(frame.select(rowwise_expressions(ROWS)), ROWS, settings, label=label)


def test_every_output_is_on_the_way_of_its_feature_and_on_no_other(plan):
    ways = describe_ways(plan)
    outputs = [output for way in ways for step in way.steps for output in step.outputs]
    assert sorted(outputs) == sorted(plan.outputs)
    by_feature = {output: way.feature for way in ways for step in way.steps for output in step.outputs}
    assert tuple(by_feature[output] for output in plan.outputs) == plan.features_of_outputs
    assert {way.feature for way in ways if way.dropped} == {"empty"}


def test_a_raw_column_leads_to_every_feature_that_is_made_of_it(plan):
    assert [way.feature for way in find_ways(plan, "debt")] == ["debt", "debt_ratio", "left"]
    assert [way.feature for way in find_ways(plan, "decided")] == ["age", "month"]
    assert [way.feature for way in find_ways(plan, "region=s")] == ["region"]
    made = {way.feature: way.made for way in find_ways(plan, "debt")}
    assert made["debt"] == "(debt is missing where -1, 999)"
    assert made["left"].startswith("income - debt; missing where either is")


def test_a_name_that_is_nowhere_is_refused_with_the_nearest(plan):
    with pytest.raises(ValueError, match="nearest: 'income'"):
        find_ways(plan, "incom")


def test_the_drawing_names_everything_once_and_nothing_of_the_data_is_markup(plan):
    ways = describe_ways(plan)
    document = ET.fromstring(draw_plan(ways, "plan <of> demo"))
    texts = [element.text for element in document.iter("{http://www.w3.org/2000/svg}text")]
    for name in ("income", "debt", "region", "born", "decided"):
        assert name in texts
    assert "plan <of> demo" in texts
    paths = list(document.iter("{http://www.w3.org/2000/svg}path"))
    arrows_in = sum(len(way.raw) for way in ways)
    arrows_out = sum(max(1, len(way.steps)) for way in ways)
    assert len(paths) == arrows_in + arrows_out


def test_a_plan_that_is_served_to_trees_as_it_is_says_so(plan):
    native = NativeView(numbers=("income", "debt"), categories=(LevelCodes(column="region", levels=("n", "s")),))
    served = plan.model_copy(update={"native": native}).served_as("native")
    ways = {way.feature: way for way in describe_ways(served)}
    assert [step.outputs for step in ways["region"].steps] == [("region as it is",)]
    assert "a code for each of 2 levels" in ways["region"].steps[0].sentence
    assert ways["income"].steps[0].sentence == "as it is; missing stays missing"
    assert find_ways(served, "region as it is") == (ways["region"],)

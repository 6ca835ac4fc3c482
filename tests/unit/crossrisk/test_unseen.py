"""Rules of unseen levels: what training knew in any way is known, and what cannot be told is not counted."""

from __future__ import annotations

import json

import polars as pl
import pytest
from builders import loans, portfolio
from hypothesis import given
from hypothesis import strategies as st
from registries import publish

from crossrisk.errors import PublishError
from crossrisk.features import FeaturePlan, FitSettings, fit_plan, rowwise_expressions
from crossrisk.registry import Registry
from crossrisk.stability import CategoryBins, Histogram, describe_categories
from crossrisk.unseen import (
    MOST_KEPT,
    UnseenCount,
    add_up,
    count_unseen,
    known_levels,
    read_known_levels,
)

FLAGS = CategoryBins(("", "false", "true"))


@pytest.fixture
def plan(tmp_path) -> FeaturePlan:
    """One category, region: north, south and west."""
    rows = portfolio(tmp_path).portfolio.row_plan
    return fit_plan(loans().select(rowwise_expressions(rows)), rows, FitSettings(min_level_rows=20))


# --- what is known ---


def test_a_level_of_the_source_alone_is_known_by_the_plan_and_a_rare_one_by_the_reference(plan):
    reference = describe_categories(["north", "north", "islands"], levels=1)
    known = known_levels({"region": reference}, plan)["region"]
    assert set(known.levels) == {"north", "south", "west", "islands", ""}
    assert known.rare == ()


def test_where_rare_levels_are_not_listed_an_unseen_one_cannot_be_told(plan):
    bins = CategoryBins(("north",), None)
    assert known_levels({"region": Histogram(bins, (9, 1, 0))}, plan)["region"].rare is None
    assert known_levels({"region": Histogram(bins, (9, 0, 1))}, plan)["region"].rare == (), "there is no rare level"
    assert known_levels({}, plan)["region"].rare is None


def test_a_column_that_the_score_does_not_depend_on_is_nobodys_matter(plan):
    without = plan.model_copy(update={"categories": ()})
    assert known_levels({"region": describe_categories(["north"])}, without) == {}


def published(folder, companions):
    registry = Registry(folder)
    columns = [{"name": "region", "kind": "category"}, {"name": "income_usd", "kind": "number"}]
    return registry, publish(registry, 1_700_000_000, companions=companions, raw_columns=columns)


def documents(plan: FeaturePlan) -> dict[str, str]:
    reference = {"features": {"region": describe_categories(["north", "islands"]).to_json()}}
    return {"plan.json": plan.model_dump_json(), "reference.json": json.dumps(reference)}


def test_the_levels_of_a_published_version_are_read_beside_it(tmp_path, plan):
    known = read_known_levels(*published(tmp_path, documents(plan)))
    assert "islands" in known["region"].levels


@pytest.mark.parametrize(
    "change",
    [
        lambda d: {"reference.json": d["reference.json"]},
        lambda d: {"plan.json": d["plan.json"]},
        lambda d: {**d, "plan.json": json.dumps({**json.loads(d["plan.json"]), "schema_version": 1})},
    ],
)
def test_of_a_version_of_an_earlier_release_nothing_can_be_told(tmp_path, plan, change):
    known = read_known_levels(*published(tmp_path, change(documents(plan))))
    assert known == {"region": CategoryBins((), None)}


@pytest.mark.parametrize("name", ["plan.json", "reference.json"])
@pytest.mark.parametrize("content", ["not JSON", "{}", '{"schema_version": 2, "features": {"region": {"levels": []}}}'])
def test_what_lies_beside_a_version_and_cannot_be_read_is_named(tmp_path, plan, name, content):
    registry, answering = published(tmp_path, {**documents(plan), name: content})
    with pytest.raises(PublishError, match=r"reference\.json or .*plan\.json beside it cannot be read"):
        read_known_levels(registry, answering)


# --- counting ---


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pl.Series([True, False, None]), UnseenCount()),
        (pl.Series([1, 0, 1, None], dtype=pl.Int8), UnseenCount(3, {"1": 2, "0": 1})),
        (pl.Series(["TRUE", "true", "", None, "b", "a"]), UnseenCount(3, {"TRUE": 1, "a": 1, "b": 1})),
        (pl.Series(["b", "true"], dtype=pl.Categorical), UnseenCount(1, {"b": 1})),
        (pl.Series([], dtype=pl.String), UnseenCount()),
    ],
)
def test_a_level_counts_by_the_text_that_the_model_is_given(values, expected):
    counted = count_unseen(values, FLAGS)
    assert counted == expected
    assert list(counted.values) == list(expected.values)


def test_bins_that_do_not_list_all_levels_count_nothing():
    with pytest.raises(ValueError, match="cannot be told from a rare one"):
        count_unseen(pl.Series(["a"]), CategoryBins(("b",), None))


@given(st.lists(st.sampled_from(["true", "false", "", None, "a", "b", "c"])), st.integers(1, 5))
def test_batches_add_up_to_the_whole(values, size):
    series = pl.Series(values, dtype=pl.String)
    batches = [count_unseen(series[at : at + size], FLAGS) for at in range(0, len(values), size)]
    counts = {level: values.count(level) for level in ("a", "b", "c") if level in values}
    whole = add_up(batches)
    assert whole == count_unseen(series, FLAGS) == UnseenCount(sum(counts.values()), counts)
    assert list(whole.values.values()) == sorted(counts.values(), reverse=True)


def test_of_a_free_text_the_rows_are_counted_and_few_values_kept():
    texts = [UnseenCount(40, {f"{part}-{i}": 1 for i in range(40)}) for part in range(3)]
    total = add_up([*texts, UnseenCount(5, {"1-7": 5})])
    assert (total.rows, len(total.values), next(iter(total.values.items()))) == (125, MOST_KEPT, ("1-7", 6))


def test_a_count_is_plain_data_and_back():
    counted = UnseenCount(3, {"1": 2, "0": 1})
    assert UnseenCount(**json.loads(json.dumps(counted.to_json()))) == counted

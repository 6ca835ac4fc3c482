"""The plain form and the exported walk of trees end on scikit-learn's leaves, whatever the row.

Forests are compared leaf by leaf with `tree_.apply`; boosted trees by the values of the leaves that the library ends
on, and by leaf with a slow walk written here from the library's own node records.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import polars as pl
import pytest
import tensorflow as tf
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier

from crossrisk.features import FitSettings, Ratio, RowPlan, encoding_expressions, fit_plan, rowwise_expressions
from models.bundle import raw_batch
from models.feature_graph import encode
from models.fitted import Contender, Trees, load_contender, save_contender, sigmoid
from models.form_graph import ContenderGraph
from models.shallow.trees import BoostedSettings, ForestSettings, boosted_form, fit_boosted, fit_forest
from models.tree_graph import TreeWalk

ROWS = 10_000
NUMBERS, CATEGORIES = (0, 1, 3, 5), (2, 4)
BOOSTED = BoostedSettings(rounds=30, learning_rate=0.1)
FOREST = ForestSettings(seeds=(7,), trees_per_seed=20, depth=8)


def training_rows(rows: int = 4000, *, missing: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Numbers with ties, a category of 40 codes with gaps, one of 3 codes, and missing values that tell something."""
    rng = np.random.default_rng(0)
    x = np.round(rng.normal(size=(rows, 6)), 1)
    x[:, 3] = rng.lognormal(0, 4, rows)
    x[:, 2], x[:, 4] = 3 * rng.integers(0, 40, rows), rng.integers(0, 3, rows)
    effect = rng.normal(size=120)[x[:, 2].astype(int)]
    if missing:
        x[rng.random((rows, 6)) < [0.2, 0.0, 0.1, 0.05, 0.0, 0.3]] = np.nan
    effect = effect + np.where(np.isnan(x[:, 0]), 1.0, x[:, 0]) - x[:, 1] * (x[:, 4] == 1)
    effect += 2 * np.isnan(x[:, 5])  # here missing is all there is to know
    return x.astype(np.float32), (rng.random(rows) < 1 / (1 + np.exp(1 - effect))).astype(np.int8)


def adversarial_rows(form: Trees, columns: tuple[int, ...], rows: int = ROWS) -> np.ndarray:
    """Rows of the trees' own thresholds, the float32 below and above each, and what no training row had."""
    rng = np.random.default_rng(1)
    x = training_rows(rows)[0]
    exact = np.unique(form.threshold)
    around = [exact, *(np.nextafter(exact, np.float32(way), dtype=np.float32) for way in (-np.inf, np.inf))]
    huge = np.array([3.4e38, -3.4e38, 1e-45, -1e-45, 0.0, -0.0, np.inf, -np.inf, np.nan], np.float32)
    odd = np.concatenate([*around, np.repeat(huge, 1 + len(exact) // 9)])
    for column in columns:
        drawn = rng.random(rows) < 0.8
        x[drawn, column] = rng.choice(odd, drawn.sum())
    unseen = np.array([1, 4, 117, 118, 119, 120, 255, 256, 300, 1e9, -1, -7, 0.5, 2.5, np.nan], np.float32)
    for column in set(CATEGORIES) - set(columns):
        drawn = rng.random(rows) < 0.5
        x[drawn, column] = rng.choice(unseen, drawn.sum())
    return x


@dataclass(frozen=True)
class Boosted:
    model: HistGradientBoostingClassifier
    form: Trees
    categorical: tuple[int, ...]


@cache
def boosted(*, missing: bool = True, categorical: tuple[int, ...] = CATEGORIES) -> Boosted:
    x, y = training_rows(missing=missing)
    model = HistGradientBoostingClassifier(
        max_iter=30, learning_rate=0.1, max_leaf_nodes=8, min_samples_leaf=50, early_stopping=False, random_state=3,
        categorical_features=list(categorical) or None,
    ).fit(x, y)  # fmt: skip
    return Boosted(model, fit_boosted(x, y, seed=3, settings=BOOSTED, categorical=categorical), categorical)


@cache
def forest(*, missing: bool = True) -> tuple[RandomForestClassifier, Trees]:
    x, y = training_rows(missing=missing)
    model = RandomForestClassifier(20, max_depth=8, min_samples_leaf=20, random_state=7).fit(x, y)
    return model, fit_forest(x, y, FOREST, threads=1)


def told_apart(form: Trees) -> Trees:
    """The same trees with a value for each leaf by which the sum over the trees tells any other leaf."""
    return replace(form, value=np.random.default_rng(2).random(form.value.shape))


def sum_of_values(form: Trees, leaves: list[np.ndarray]) -> np.ndarray:
    return np.sum([value[leaf] for value, leaf in zip(form.value, leaves, strict=True)], axis=0)


# --- forests ---


@pytest.mark.parametrize("missing", [True, False])
def test_forest_ends_on_the_library_s_leaves_on_random_and_on_adversarial_rows(missing: bool) -> None:
    model, form = forest(missing=missing)
    random = np.random.default_rng(4).normal(size=(ROWS, 6)).astype(np.float32)
    for x in (random, adversarial_rows(form, tuple(range(6)))):
        expected = [estimator.tree_.apply(x) for estimator in model.estimators_]
        for leaf, library in zip(form.leaves(x), expected, strict=True):
            assert (leaf == library).all()
        named = told_apart(form)
        walked = TreeWalk(named)(tf.constant(x)).numpy()
        np.testing.assert_allclose(walked, sum_of_values(named, expected), rtol=0, atol=1e-9)


def test_forest_that_saw_missing_values_sends_them_both_ways() -> None:
    form = forest()[1]
    assert form.missing_left is not None
    inner = form.left != np.arange(form.left.shape[1])
    assert 0.05 < form.missing_left[inner].mean() < 0.95


# --- boosted trees ---


def library_leaf(nodes: np.ndarray, bitsets: np.ndarray, row: np.ndarray, known: list[int | None]) -> int:
    """The slow walk over the library's own records; row in the library's order and numbering of categories."""
    at = 0
    while not nodes[at]["is_leaf"]:
        node = nodes[at]
        value = row[node["feature_idx"]]
        if np.isnan(value):
            left = node["missing_go_to_left"]
        elif node["is_categorical"]:
            code = int(value)
            assert 0 <= code < (known[node["feature_idx"]] or 0)  # the library's encoder made the others NaN
            left = bitsets[node["bitset_idx"], code // 32] >> np.uint32(code % 32) & np.uint32(1)
        else:
            left = value <= node["num_threshold"]
        at = int(node["left"] if left else node["right"])
    return at


def leaves_of_library(one: Boosted, x: np.ndarray) -> list[np.ndarray]:
    encoded = one.model._preprocess_X(x, reset=False)
    known: list[int | None] = [None] * 6
    if one.categorical:
        categories = one.model._preprocessor.named_transformers_["encoder"].categories_
        known[: len(categories)] = [int((~np.isnan(found)).sum()) for found in categories]
    predictors = [of_round[0] for of_round in one.model._predictors]
    return [
        np.array([library_leaf(p.nodes, p.raw_left_cat_bitsets, row, known) for row in encoded]) for p in predictors
    ]


CASES = [
    pytest.param({}, id="missing and categories"),
    pytest.param({"missing": False}, id="categories"),
    pytest.param({"categorical": ()}, id="missing"),
    pytest.param({"missing": False, "categorical": ()}, id="numbers"),
]


@pytest.mark.parametrize("case", CASES)
def test_boosted_trees_end_on_the_leaves_of_the_slow_walk_on_adversarial_rows(case: dict[str, Any]) -> None:
    one = boosted(**case)
    x = adversarial_rows(one.form, NUMBERS, rows=400)
    expected = leaves_of_library(one, x)
    for leaf, library in zip(one.form.leaves(x), expected, strict=True):
        assert (leaf == library).all()
    named = told_apart(one.form)
    walked = TreeWalk(named)(tf.constant(x)).numpy()
    np.testing.assert_allclose(walked, sum_of_values(named, expected), rtol=0, atol=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_boosted_trees_say_what_the_library_says_on_ten_thousand_random_and_adversarial_rows(
    case: dict[str, Any],
) -> None:
    one = boosted(**case)
    graph = tf.function(ContenderGraph(Contender("boosted", one.form), len(NUMBERS + CATEGORIES)))
    for x in (training_rows(ROWS)[0], adversarial_rows(one.form, NUMBERS)):
        expected = one.model.predict_proba(x)[:, 1]
        assert np.abs(sigmoid(one.form.raw_logit(x)) - expected).max() < 1e-12
        assert np.abs(graph(tf.constant(x)).numpy() - expected).max() < 1e-12


def test_the_cases_split_on_what_they_are_named_for() -> None:
    one = boosted()
    assert one.form.categories is not None
    assert one.form.missing_left is not None
    on_sets, on_thresholds = one.form.categories.which > 0, one.form.categories.which == 0
    assert set(np.unique(one.form.feature[on_sets])) == set(CATEGORIES)
    assert (one.form.missing_left & on_thresholds).any()
    assert np.isinf(one.form.threshold).any()  # a split of missing against all the rest
    assert boosted(categorical=()).form.categories is None


@pytest.mark.parametrize("unseen", [np.inf, -np.inf, -1.0, 1.0, 255.0, 256.0, 0.5, 1e9, 1e-45])
def test_value_that_is_no_code_of_the_training_rows_goes_where_missing_goes(unseen: float) -> None:
    form = boosted().form
    x = training_rows(500)[0]
    x[:, 2] = np.nan
    as_missing = form.raw_logit(x)
    x[:, 2] = unseen
    assert (form.raw_logit(x) == as_missing).all()
    walked = TreeWalk(form)(tf.constant(x)).numpy() + form.baseline
    np.testing.assert_allclose(walked, as_missing, rtol=0, atol=1e-12)


def test_category_of_one_code_and_missing_is_split_as_a_number() -> None:
    x, y = training_rows()
    rng = np.random.default_rng(0)
    x[:, 4] = np.where(rng.random(len(x)) < 0.3, np.nan, 2.0)
    y = (rng.random(len(y)) < np.where(np.isnan(x[:, 4]), 0.7, 0.2)).astype(np.int8)
    form = fit_boosted(x, y, seed=0, settings=BOOSTED, categorical=(2, 4))
    assert form.categories is not None
    assert set(np.unique(form.feature[form.categories.which > 0])) == {2}
    assert sigmoid(form.raw_logit(x[np.isnan(x[:, 4])])).mean() == pytest.approx(0.7, abs=0.05)


def test_codes_that_the_library_cannot_split_on_are_refused() -> None:
    x, y = training_rows()
    with pytest.raises(ValueError, match="categorical column 0: expected codes 0 to 255 or NaN, got values from -"):
        fit_boosted(x, y, seed=0, categorical=(0,))
    x[:, 2] = np.arange(len(x)) % 256
    with pytest.raises(ValueError, match="column 2 has 256 codes, the library splits on at most 255"):
        fit_boosted(x, y, seed=0, categorical=(2,))
    x[:, 2] = np.arange(len(x)) % 255
    assert fit_boosted(x, y, seed=0, settings=BOOSTED, categorical=(2,)).categories is not None


def test_training_rows_of_a_node_are_those_of_its_children() -> None:
    for form in (boosted().form, forest()[1]):
        assert form.rows is not None
        inner = form.left != np.arange(form.left.shape[1])
        inner &= form.rows > 0  # padding
        children = [np.take_along_axis(form.rows, side, axis=1) for side in (form.left, form.right)]
        assert (form.rows[inner] == (children[0] + children[1])[inner]).all()
        assert (form.rows[:, 0] == 4000).all()


# --- files ---


def test_missing_values_and_categories_come_back_from_the_files(tmp_path: Any) -> None:
    form = boosted().form
    save_contender(Contender("boosted", form), tmp_path)
    again = load_contender(tmp_path)
    x = adversarial_rows(form, NUMBERS)
    assert (again.raw_logit(x) == form.raw_logit(x)).all()
    assert isinstance(again.form, Trees)
    assert form.rows is not None
    assert (again.form.rows == form.rows).all()


def test_file_of_schema_1_is_read_as_trees_that_send_missing_values_right(tmp_path: Any) -> None:
    form = boosted(missing=False, categorical=()).form
    older = replace(form, missing_left=None, rows=None)
    save_contender(Contender("boosted", older), tmp_path)
    document = tmp_path / "model.json"
    document.write_text(document.read_text().replace('"schema_version": 2', '"schema_version": 1'))
    again = load_contender(tmp_path).form
    assert isinstance(again, Trees)
    assert again.missing_left is None
    assert again.rows is None
    x = training_rows(ROWS, missing=False)[0]
    assert (again.raw_logit(x) == form.raw_logit(x)).all()
    x[:, 0] = np.nan
    highest = x.copy()
    highest[:, 0] = np.inf
    assert (again.raw_logit(x) == again.raw_logit(highest)).all()


# --- raw columns to probability ---


def test_no_row_of_a_quarter_of_a_million_changes_its_leaf_between_raw_columns_and_probability() -> None:
    """At most one row in a million may differ by more than 1e-6, hence none here."""
    rng = np.random.default_rng(5)
    count = 250_000
    raw = pl.DataFrame(
        {
            "income": np.round(rng.lognormal(8, 1, count), 2),
            "debt": np.where(rng.random(count) < 0.1, np.nan, rng.integers(0, 9000, count)),
            "months": rng.integers(0, 60, count),
            "region": rng.choice(["north", "south", "isle"], count),
        }
    )
    rows = RowPlan(
        decision_date=None,
        numbers=("income", "debt", "months"),
        categories=("region",),
        sentinels=(),
        ages=(),
        ratios=(Ratio(name="debt_to_income", numerator="debt", denominator="income"),),
    )
    features = raw.select(rowwise_expressions(rows))
    plan = fit_plan(features[:5000], rows, FitSettings())
    x = features.select(encoding_expressions(plan)).to_numpy().astype(np.float32)
    y = (rng.random(5000) < 1 / (1 + np.exp(-x[:5000, 0] + x[:5000, 1]))).astype(np.int8)
    batch = {name: tf.constant(v) for name, v in raw_batch(raw, plan.rows.raw_columns).items()}
    encoded = encode(plan, batch)
    settings = ForestSettings(seeds=(0,), trees_per_seed=20, depth=8)
    library_forest = RandomForestClassifier(20, max_depth=8, min_samples_leaf=20, random_state=0).fit(x[:5000], y)
    library_boosted = HistGradientBoostingClassifier(max_iter=30, early_stopping=False).fit(x[:5000], y)
    contenders = {
        "forest": (library_forest, fit_forest(x[:5000], y, settings, threads=1)),
        "boosted": (library_boosted, boosted_form(library_boosted, ())),
    }
    for name, (model, form) in contenders.items():
        got = tf.function(ContenderGraph(Contender(name, form), encoded.shape[1]))(encoded).numpy()
        mismatches = int((np.abs(got - model.predict_proba(x)[:, 1]) > 1e-6).sum())
        assert mismatches <= count // 1_000_000, f"{name}: {mismatches} of {count:,} rows"

"""Random forest and histogram gradient boosting, taken apart into the padded arrays of `models.fitted.Trees`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier

from models.fitted import CATEGORY_CODES, CategorySplits, Matrix, Trees, category_codes
from models.shallow.parity import refuse_disparity


@dataclass(frozen=True)
class BoostedSettings:
    """The reference recipe of the real splits; the library's defaults give about .02 AUC less there."""

    rounds: int = 200
    learning_rate: float = 0.03
    leaves: int = 8
    min_leaf_rows: int = 50


@dataclass(frozen=True)
class ForestSettings:
    """One forest a seed; all of them averaged is the contender, their spread is reported."""

    seeds: tuple[int, ...]
    depth: int = 10
    trees_per_seed: int = 60
    min_leaf_rows: int = 20


def fit_boosted(
    x: Matrix,
    y: NDArray[np.int8],
    *,
    seed: int,
    settings: BoostedSettings | None = None,
    categorical: Sequence[int] = (),
) -> Trees:
    """Histogram gradient boosting, with the library's own treatment of missing values and of categories.

    Args:
        x: encoded matrix (n, d); NaN is missing.
        y: labels (n,), 1 = bad.
        seed: of the library's random numbers.
        settings: rounds, leaves and the like.
        categorical: positions of columns that hold codes 0 to 255 of a category, or NaN.

    Raises:
        ValueError: a categorical column holds something else, or more codes than the library can split on.
        TrainingError: the plain form says something else than the library.
    """
    s = settings or BoostedSettings()
    categorical = _splittable(x, categorical)
    model = HistGradientBoostingClassifier(
        max_iter=s.rounds,
        learning_rate=s.learning_rate,
        max_leaf_nodes=s.leaves,
        min_samples_leaf=min(s.min_leaf_rows, max(1, len(y) // 10)),
        categorical_features=categorical or None,
        early_stopping=False,
        random_state=seed,
    ).fit(x, y)
    form = boosted_form(model, categorical)
    refuse_disparity(form.raw_logit, model.predict_proba, x)
    return form


def boosted_form(model: HistGradientBoostingClassifier, categorical: Sequence[int]) -> Trees:
    """A fitted HistGradientBoosting of two classes as plain arrays; `categorical`: ascending, as it was fitted with."""
    predictors = [of_round[0] for of_round in model._predictors]
    codes = _codes_of(model) if categorical else []
    # the library fits on a matrix with the categories in front; column_of leads back
    numeric = [c for c in range(model.n_features_in_) if c not in set(categorical)]
    column_of = np.array([*categorical, *numeric])
    trees, sets = [], [np.zeros(CATEGORY_CODES + 1, np.bool_)]
    for predictor in predictors:
        trees.append(_boosted_tree(predictor.nodes, column_of))
        for node in np.flatnonzero(predictor.nodes["is_categorical"] & ~predictor.nodes["is_leaf"].astype(bool)):
            record = predictor.nodes[node]
            trees[-1]["which"][node] = len(sets)
            bits = predictor.raw_left_cat_bitsets[record["bitset_idx"]]
            sets.append(_goes_left(bits, codes[record["feature_idx"]], bool(record["missing_go_to_left"])))
    arrays = _pad(trees)
    which = arrays.pop("which")
    return Trees(
        **arrays,
        depth=max(int(predictor.nodes["depth"].max()) for predictor in predictors),
        link="sum",
        baseline=float(np.ravel(model._baseline_prediction)[0]),
        categories=CategorySplits(which, np.stack(sets)) if len(sets) > 1 else None,
    )


def fit_forest(x: Matrix, y: NDArray[np.int8], settings: ForestSettings, *, threads: int) -> Trees:
    """Random forests of all seeds as one: the mean of their trees' leaf probabilities."""
    models = []
    for seed in settings.seeds:
        model = RandomForestClassifier(
            settings.trees_per_seed,
            max_depth=settings.depth,
            min_samples_leaf=min(settings.min_leaf_rows, max(1, len(y) // 50)),
            random_state=seed,
            n_jobs=threads,
        ).fit(x, y)
        refuse_disparity(forest_form([model]).raw_logit, model.predict_proba, x)
        models.append(model)
    return forest_form(models)


def forest_form(models: Sequence[RandomForestClassifier]) -> Trees:
    """Fitted forests of two classes as plain arrays, all their trees as one forest."""
    trees = [estimator.tree_ for model in models for estimator in model.estimators_]
    return Trees(**_pad([_forest_tree(t) for t in trees]), depth=max(int(t.max_depth) for t in trees), link="mean")


def split_by_seed(form: Trees, settings: ForestSettings) -> list[Trees]:
    """The forest of each seed alone, in the order of the seeds."""
    k = settings.trees_per_seed
    names = ("feature", "threshold", "left", "right", "value", "missing_left", "rows")
    held = {
        name: array for name in names if (array := getattr(form, name)) is not None
    }  # older files lack the last two
    return [
        replace(form, **{name: array[i * k : (i + 1) * k] for name, array in held.items()})
        for i in range(len(settings.seeds))
    ]


def round_down_to_float32(thresholds: NDArray[np.float64]) -> NDArray[np.float32]:
    """Largest float32 not above each threshold: for a float32 x, x <= threshold then compares the same."""
    with np.errstate(over="ignore"):
        nearest = thresholds.astype(np.float32)
    below = np.nextafter(nearest, np.float32(-np.inf))
    return np.where(nearest > thresholds, below, nearest).astype(np.float32)


def _splittable(x: Matrix, categorical: Sequence[int]) -> list[int]:
    """The categorical columns, ascending, that have two codes or more.

    With one code alone the library writes a split of code against missing as a categorical node without a set
    (scikit-learn 1.9, grower._fill_predictor_arrays), and predicts by another node's; as a number it is right.
    """
    kept = []
    for column in sorted(set(categorical)):
        values = np.unique(x[~np.isnan(x[:, column]), column])
        if (category_codes(values) == CATEGORY_CODES).any():
            raise ValueError(
                f"categorical column {column}: expected codes 0 to {CATEGORY_CODES - 1} or NaN, got values "
                f"from {values[0]:g} to {values[-1]:g}; encode the category, and fold its rare levels"
            )
        if len(values) == CATEGORY_CODES:
            raise ValueError(
                f"categorical column {column} has {len(values)} codes, the library splits on at most "
                f"{CATEGORY_CODES - 1}; fold its rare levels"
            )
        if len(values) > 1:
            kept.append(column)
    return kept


def _codes_of(model: HistGradientBoostingClassifier) -> list[NDArray[np.intp]]:
    """For each categorical column, the codes that training rows had; the library numbers them in this order."""
    encoder = model._preprocessor.named_transformers_["encoder"]
    return [found[~np.isnan(found)].astype(np.intp) for found in encoder.categories_]


def _goes_left(bits: NDArray[np.uint32], codes: NDArray[np.intp], missing_left: bool) -> NDArray[np.bool_]:
    """One row of `CategorySplits.goes_left`: bits (8,) of 32 hold the numbers of the codes that go left."""
    numbers = (bits[:, np.newaxis] >> np.arange(32, dtype=np.uint32) & 1).astype(np.bool_).ravel()
    goes_left = np.full(CATEGORY_CODES + 1, missing_left)
    goes_left[codes] = numbers[: len(codes)]
    return goes_left


def _boosted_tree(nodes: NDArray[Any], column_of: NDArray[np.intp]) -> dict[str, NDArray[Any]]:
    tree = _tree(
        is_leaf=nodes["is_leaf"].astype(bool),
        feature=column_of[nodes["feature_idx"]],
        threshold=nodes["num_threshold"],
        left=nodes["left"],
        right=nodes["right"],
        value=nodes["value"],
        missing_left=nodes["missing_go_to_left"],
        rows=nodes["count"],
    )
    return tree | {"which": np.zeros(len(nodes), np.int32)}


def _forest_tree(tree: Any) -> dict[str, NDArray[Any]]:
    shares = tree.value[:, 0, :]
    return _tree(
        is_leaf=tree.children_left < 0,
        feature=tree.feature,
        threshold=tree.threshold,
        left=tree.children_left,
        right=tree.children_right,
        value=shares[:, -1] / shares.sum(axis=1),
        missing_left=tree.missing_go_to_left,
        rows=tree.weighted_n_node_samples,  # a row that the bootstrap drew twice counts twice, as in its value
    )


def _tree(
    *, is_leaf: Any, feature: Any, threshold: Any, left: Any, right: Any, value: Any, missing_left: Any, rows: Any
) -> dict[str, NDArray[Any]]:
    itself = np.arange(len(is_leaf))
    return {
        "feature": np.where(is_leaf, 0, feature).astype(np.int32),
        "threshold": round_down_to_float32(np.where(is_leaf, 0.0, threshold)),
        "left": np.where(is_leaf, itself, left).astype(np.int32),
        "right": np.where(is_leaf, itself, right).astype(np.int32),
        "value": np.where(is_leaf, value, 0.0).astype(np.float64),
        "missing_left": missing_left.astype(np.bool_) & ~is_leaf,
        "rows": np.rint(rows).astype(np.int32),
    }


def _pad(trees: Sequence[dict[str, NDArray[Any]]]) -> dict[str, Any]:
    size = max(len(tree["feature"]) for tree in trees)
    padded = {}
    for name in trees[0]:
        padded[name] = np.zeros((len(trees), size), trees[0][name].dtype)
        for t, tree in enumerate(trees):
            padded[name][t, : len(tree[name])] = tree[name]
    return padded

"""Random forest and histogram gradient boosting, taken apart into the padded arrays of `models.fitted.Trees`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier

from models.fitted import Matrix, Trees
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


def fit_boosted(x: Matrix, y: NDArray[np.int8], *, seed: int, settings: BoostedSettings | None = None) -> Trees:
    """Histogram gradient boosting on the float32 matrix x (n, d), labels y (n,)."""
    s = settings or BoostedSettings()
    model = HistGradientBoostingClassifier(
        max_iter=s.rounds,
        learning_rate=s.learning_rate,
        max_leaf_nodes=s.leaves,
        min_samples_leaf=min(s.min_leaf_rows, max(1, len(y) // 10)),
        early_stopping=False,
        random_state=seed,
    ).fit(x, y)
    nodes = [predictors[0].nodes for predictors in model._predictors]
    form = Trees(
        **_pad([_boosted_tree(n) for n in nodes]),
        depth=max(int(n["depth"].max()) for n in nodes),
        link="sum",
        baseline=float(np.ravel(model._baseline_prediction)[0]),
    )
    refuse_disparity(form.raw_logit, model.predict_proba, x)
    return form


def fit_forest(x: Matrix, y: NDArray[np.int8], settings: ForestSettings, *, threads: int) -> Trees:
    """Random forests of all seeds as one: the mean of their trees' leaf probabilities."""
    trees: list[dict[str, NDArray[Any]]] = []
    depth = 0
    for seed in settings.seeds:
        model = RandomForestClassifier(
            settings.trees_per_seed,
            max_depth=settings.depth,
            min_samples_leaf=min(settings.min_leaf_rows, max(1, len(y) // 50)),
            random_state=seed,
            n_jobs=threads,
        ).fit(x, y)
        fitted = [estimator.tree_ for estimator in model.estimators_]
        one_seed = [_forest_tree(t) for t in fitted]
        seed_depth = max(int(t.max_depth) for t in fitted)
        refuse_disparity(Trees(**_pad(one_seed), depth=seed_depth, link="mean").raw_logit, model.predict_proba, x)
        trees += one_seed
        depth = max(depth, seed_depth)
    return Trees(**_pad(trees), depth=depth, link="mean")


def split_by_seed(form: Trees, settings: ForestSettings) -> list[Trees]:
    """The forest of each seed alone, in the order of the seeds."""
    k = settings.trees_per_seed
    names = ("feature", "threshold", "left", "right", "value")
    return [
        Trees(**{n: getattr(form, n)[i * k : (i + 1) * k] for n in names}, depth=form.depth, link="mean")
        for i in range(len(settings.seeds))
    ]


def round_down_to_float32(thresholds: NDArray[np.float64]) -> NDArray[np.float32]:
    """Largest float32 not above each threshold: for a float32 x, x <= threshold then compares the same."""
    with np.errstate(over="ignore"):
        nearest = thresholds.astype(np.float32)
    below = np.nextafter(nearest, np.float32(-np.inf))
    return np.where(nearest > thresholds, below, nearest).astype(np.float32)


def _boosted_tree(nodes: NDArray[Any]) -> dict[str, NDArray[Any]]:
    is_leaf = nodes["is_leaf"].astype(bool)
    return _tree(is_leaf, nodes["feature_idx"], nodes["num_threshold"], nodes["left"], nodes["right"], nodes["value"])


def _forest_tree(tree: Any) -> dict[str, NDArray[Any]]:
    is_leaf = tree.children_left < 0
    shares = tree.value[:, 0, :]
    bad_share = shares[:, -1] / shares.sum(axis=1)
    return _tree(is_leaf, tree.feature, tree.threshold, tree.children_left, tree.children_right, bad_share)


def _tree(is_leaf: Any, feature: Any, threshold: Any, left: Any, right: Any, value: Any) -> dict[str, NDArray[Any]]:
    itself = np.arange(len(is_leaf))
    return {
        "feature": np.where(is_leaf, 0, feature).astype(np.int32),
        "threshold": round_down_to_float32(np.where(is_leaf, 0.0, threshold)),
        "left": np.where(is_leaf, itself, left).astype(np.int32),
        "right": np.where(is_leaf, itself, right).astype(np.int32),
        "value": np.where(is_leaf, value, 0.0).astype(np.float64),
    }


def _pad(trees: Sequence[dict[str, NDArray[Any]]]) -> dict[str, Any]:
    size = max(len(tree["feature"]) for tree in trees)
    padded = {}
    for name in trees[0]:
        padded[name] = np.zeros((len(trees), size), trees[0][name].dtype)
        for t, tree in enumerate(trees):
            padded[name][t, : len(tree[name])] = tree[name]
    return padded

"""The domain classifier: can target rows be told from source rows by their features? Labels have no part in it.

What an AUC means for a transfer is said in `crossrisk.shift.diagnosis`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import StratifiedKFold
from threadpoolctl import threadpool_limits

from crossrisk.metrics import auc_value
from crossrisk.shift import DEFINED_AUC, DomainGap, FeatureGap
from models.fitted import Floats, Matrix

FOLDS = 3
MOST_ROWS = 10_000
"""of each population: the standard error is then below .004"""
FEWEST_ROWS = 60
"""of each population; below, a fold judges on fewer than 20"""
SHOWN_FEATURES = 10
ROUNDS, LEARNING_RATE, LEAVES, LEAF_ROWS = 60, 0.1, 8, 20
"""A quarter of the rounds of the boosted contenders: on the real splits more of them move the AUC by less than .01."""


def tell_apart(x_source: Matrix, x_target: Matrix, names: Sequence[str], *, seed: int) -> DomainGap:
    """Cross-fitted AUC of boosted trees that tell target from source, and the features that do so alone.

    At most MOST_ROWS of each population, drawn by the seed; the two weigh the same. The AUC is the mean over FOLDS
    folds, each judged by a classifier that has not seen it; its standard error takes the classifiers as fixed.

    Args:
        x_source: (n_s, d) encoded rows.
        x_target: (n_t, d) encoded rows.
        names: (d,) of the columns.
        seed: of the rows, the folds and the trees.

    Raises:
        ValueError: the matrices have other columns than `names`.
    """
    for rows in (x_source, x_target):
        if rows.ndim != 2 or rows.shape[1] != len(names):
            raise ValueError(f"expected matrices of {len(names)} named columns, got shape {rows.shape}")
    rng = np.random.default_rng(seed)
    drawn = [x[rng.permutation(len(x))[:MOST_ROWS]] for x in (x_source, x_target)]
    counts = len(drawn[0]), len(drawn[1])
    if min(counts) < FEWEST_ROWS:
        return DomainGap("insufficient", None, None, (), (), *counts)
    x, is_target = np.concatenate(drawn), np.repeat(np.array([0, 1], np.int8), counts)
    auc, error = _cross_fit(x, is_target, seed)
    alone = [auc_value(is_target, x[:, j]) for j in range(len(names))]
    ranked = [int(j) for j in np.argsort(-np.abs(np.asarray(alone) - 0.5), kind="stable")[:SHOWN_FEATURES]]
    return DomainGap(
        status="ok",
        auc=auc,
        standard_error=error,
        features=tuple(FeatureGap(names[j], alone[j]) for j in ranked),
        defining=tuple(names[j] for j in _defining(x, is_target, ranked, seed)) if auc >= DEFINED_AUC else (),
        n_source=counts[0],
        n_target=counts[1],
    )


def _cross_fit(x: Matrix, is_target: NDArray[np.int8], seed: int) -> tuple[float, float]:
    """Mean AUC over the folds with its standard error."""
    areas, variances = [], []
    for fit, check in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(x, is_target):
        model = HistGradientBoostingClassifier(
            max_iter=ROUNDS,
            learning_rate=LEARNING_RATE,
            max_leaf_nodes=LEAVES,
            min_samples_leaf=LEAF_ROWS,
            early_stopping=False,
            class_weight="balanced",
            random_state=seed,
        )
        with threadpool_limits(1):  # on two busy cores its two threads wait for each other: 30 s instead of 8
            score = model.fit(x[fit], is_target[fit]).decision_function(x[check])
        areas.append(auc_value(is_target[check], score))
        variances.append(_auc_variance(score[is_target[check] == 1], score[is_target[check] == 0]))
    return float(np.mean(areas)), float(np.sqrt(np.sum(variances)) / FOLDS)


def _auc_variance(target: Floats, source: Floats) -> float:
    """DeLong's variance: that of the placements of either sample in the other, each over its rows."""
    return sum(
        float(np.var(_placements(rows, among), ddof=1)) / len(rows)
        for rows, among in ((target, source), (source, target))
    )


def _placements(rows: Floats, among: Floats) -> Floats:
    ordered = np.sort(among)
    twice = np.searchsorted(ordered, rows, side="left") + np.searchsorted(ordered, rows, side="right")
    return np.asarray(twice / (2 * len(among)), np.float64)


def _defining(x: Matrix, is_target: NDArray[np.int8], ranked: Sequence[int], seed: int) -> list[int]:
    """The fewest of the ranked columns, from the first on, that define the split together; all if they do not."""
    for k in range(1, len(ranked)):
        if _cross_fit(x[:, ranked[:k]], is_target, seed)[0] >= DEFINED_AUC:
            return list(ranked[:k])
    return list(ranked)

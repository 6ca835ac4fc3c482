"""The lineup: names of the shallow contenders -> how each is fitted, and on which rows.

Pure: arrays in, a Contender out. Networks are trained in a child process (`models.deep_worker`); what a name
means is said in docs/method.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossrisk.features import View
from models.fitted import Contender, Form, Matrix
from models.shallow.logistic import fit_logistic
from models.shallow.stacked import fit_stacked
from models.shallow.trees import ForestSettings, fit_boosted, fit_forest

IS_TARGET = (1.0,)
"""The population flag of pooled contenders, constant at serving: everyone who is scored is of the target."""


@dataclass(frozen=True)
class TrainingRows:
    """Labelled rows of the two populations, encoded."""

    x_source: Matrix
    """(n_s, d)"""
    y_source: NDArray[np.int8]
    x_target: Matrix
    """(n_t, d); may have no row"""
    y_target: NDArray[np.int8]
    view: View = "encoded"
    """which matrix of the feature plan the rows are of"""
    categorical: tuple[int, ...] = ()
    """positions of the columns that hold codes of categories"""

    @property
    def target_bads(self) -> int:
        """Bads among the labelled target rows."""
        return int(self.y_target.sum())


@dataclass(frozen=True)
class FittedBaseline:
    """A contender with the facts its task reports."""

    contender: Contender
    facts: Mapping[str, Any] = field(default_factory=dict)


def needs_target_labels(name: str) -> bool:
    """Whether a contender cannot be fitted without labels of the target."""
    return name.startswith(("target_", "pooled_", "stacked", "fine_tuned"))


def fit_baseline(name: str, rows: TrainingRows, *, seed: int, forest: ForestSettings, threads: int) -> FittedBaseline:
    """Fit one shallow contender.

    Raises:
        ValueError: unknown name.
        TrainingError: the fit failed, or the plain form disagrees with the library.
    """
    x_s, y_s, x_t, y_t = rows.x_source, rows.y_source, rows.x_target, rows.y_target
    form: Form
    match name:
        case "source_logistic":
            form = fit_logistic(x_s, y_s)
        case "source_boosted":
            form = fit_boosted(x_s, y_s, seed=seed, categorical=rows.categorical)
        case "source_forest":
            form = fit_forest(x_s, y_s, forest, threads=threads)
            return FittedBaseline(
                Contender(name, form, view=rows.view), {"trees": len(form.feature), "seeds": len(forest.seeds)}
            )
        case "target_logistic":
            form = fit_logistic(x_t, y_t)
        case "target_boosted":
            form = fit_boosted(x_t, y_t, seed=seed, categorical=rows.categorical)
        case "pooled_logistic" | "pooled_boosted":
            x, y = _pool(rows)
            if name == "pooled_logistic":
                form = fit_logistic(x, y)
            else:
                form = fit_boosted(x, y, seed=seed, categorical=rows.categorical)
            return FittedBaseline(Contender(name, form, constants=IS_TARGET, view=rows.view))
        case "stacked":
            form = fit_stacked((fit_logistic(x_s, y_s), fit_boosted(x_s, y_s, seed=seed)), x_t, y_t)
        case _:
            raise ValueError(f"unknown shallow contender {name!r}")
    return FittedBaseline(Contender(name, form, view=rows.view))


def _pool(rows: TrainingRows) -> tuple[Matrix, NDArray[np.int8]]:
    """Both populations with the population flag as last column: (n_s + n_t, d + 1)."""
    flag = np.repeat(np.array([0, 1], np.float32), [len(rows.x_source), len(rows.x_target)])[:, None]
    x = np.concatenate([np.concatenate([rows.x_source, rows.x_target]), flag], axis=1)
    return x, np.concatenate([rows.y_source, rows.y_target])

"""The picture of a network's trainings as inline SVG. Plain data of history.json in, markup out.

Nothing that a reader could quote is computed here: means of stretches and of seeds are drawn, never written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from crossrisk.pages.networks import chosen_trainings, stop_aucs
from crossrisk.pages.plots import BLUE, FAINT_STYLES, GREY, INK, Floats, drawing_of

TRAINING_POINTS = 60
"""Means of equal stretches drawn of a curve: a batch's loss is mostly noise, and every point costs 25 bytes a line."""

DISTANCES: Mapping[str, str] = {
    "dan": "MMD (batch)",
    "ddc": "MMD (batch)",
    "dsan": "MMD by class (batch)",
    "deep_coral": "CORAL distance (batch)",
    "dann": "domain loss (batch)",
}
"""Method -> what it makes small, as its panel is called; the others align nothing."""
_NOT_ALIGNED = "distance: nothing is aligned"

_AT_EVALUATIONS = (("stop_auc", "AUC on the stop rows"), ("stop_ks", "KS on the stop rows"))

History = Mapping[str, Sequence[float]]


def draw_training(name: str, history: Mapping[str, Any]) -> Markup:
    """Small multiples of a network's trainings: the chosen mmd_weight strong, one line a seed, its checkpoints as dots.

    Of the other weights the mean of their seeds is drawn: thirty lines in a panel tell nothing.

    Args:
        name: of the contender.
        history: of `models.deep_worker`, or an earlier release's.
    """
    chosen = history["chosen_mmd_weight"]
    styles = _styles([one["mmd_weight"] for one in history["candidates"]], chosen)
    drawn = {
        one["mmd_weight"]: [t["history"] for t in one["trainings"]]
        if one["mmd_weight"] == chosen
        else [_mean_history([t["history"] for t in one["trainings"]])]
        for one in history["candidates"]
    }
    with drawing_of(f"training {name}", "Training curves of the network", 10.4, 5.0) as drawing:
        grid = drawing.figure.subplots(2, 4)
        for axes, (key, title) in zip(grid.flat, _panels(history), strict=False):
            axes.set_title(title)
            lines = [(one, styles[weight]) for weight, of_weight in drawn.items() for one in of_weight if one.get(key)]
            for one, style in lines if title != _NOT_ALIGNED else ():
                axes.plot(_thinned(_steps_of(one, key)), _thinned(one[key]), **style)
            if not axes.lines:
                axes.text(0.5, 0.5, "not logged", transform=axes.transAxes, ha="center", color=GREY)
        band = _mean_history(drawn[chosen])
        has_band = bool(band.get("mmd_no_shift_band"))
        if has_band:
            steps, values = _steps_of(band, "mmd_no_shift_band"), band["mmd_no_shift_band"]
            grid[1, 0].plot(_thinned(steps), _thinned(values), color=INK, linestyle=":", linewidth=0.9)
        _draw_checkpoints(grid[1, 1], chosen_trainings(history))
        for axes in grid[1]:
            axes.set_xlabel("step")
        _draw_legend(grid[1, 3], styles, chosen, has_band=has_band)
    return drawing.svg


def _panels(history: Mapping[str, Any]) -> list[tuple[str, str]]:
    layers = history.get("layers", ())
    return [
        ("total_loss", "total loss"),
        ("classification_loss", "classification loss"),
        ("mmd", DISTANCES.get(history.get("method", "dan"), _NOT_ALIGNED)),
        ("mmd_weight", "lambda: mmd_weight x schedule"),
        ("mmd_unbiased", f"MMD, unbiased ({layers[-1]})" if layers else "MMD, unbiased"),
        *_AT_EVALUATIONS,
    ]


def _styles(mmd_weights: Sequence[float], chosen: float) -> dict[float, dict[str, Any]]:
    """Line of each mmd_weight; drawn from the first to the last, so the chosen one comes on top by its zorder."""
    faint = iter(FAINT_STYLES * (1 + len(mmd_weights) // len(FAINT_STYLES)))
    strong = {"color": BLUE, "linestyle": "-", "linewidth": 0.9, "alpha": 0.8, "zorder": 3}
    return {weight: strong if weight == chosen else {**next(faint), "linewidth": 1.2} for weight in mmd_weights}


def _mean_history(histories: Sequence[History]) -> dict[str, Sequence[float]]:
    """Means over the seeds, as far as the longest went: at each step over those that still trained."""
    names = [name for name in histories[0] if all(name in one for one in histories)]
    return {name: _mean([one[name] for one in histories]) for name in names}


def _mean(series: Sequence[Sequence[float]]) -> list[float]:
    longest = max(len(one) for one in series)
    padded = np.full((len(series), longest), np.nan)
    for place, one in enumerate(series):
        padded[place, : len(one)] = one
    means: list[float] = np.nanmean(padded, axis=0).tolist()
    return means


def _steps_of(history: History, key: str) -> Sequence[float]:
    return history["step"] if len(history[key]) == len(history["step"]) else history["evaluation_step"]


def _thinned(values: Sequence[float]) -> Floats:
    """Means of at most TRAINING_POINTS stretches of equal length."""
    parts = np.array_split(np.asarray(values, np.float64), min(len(values), TRAINING_POINTS))
    return np.array([part.mean() for part in parts])


def _draw_checkpoints(axes: Any, trainings: Sequence[Mapping[str, Any]]) -> None:
    for training, auc in zip(trainings, stop_aucs(trainings), strict=True):
        axes.plot([training["best_step"]], [auc], marker="o", color=BLUE, markeredgecolor="white", zorder=4)


def _draw_legend(axes: Any, styles: Mapping[float, Mapping[str, Any]], chosen: float, *, has_band: bool) -> None:
    axes.set_axis_off()
    for weight, style in styles.items():
        what = "chosen, a line a seed" if weight == chosen else "mean of the seeds"
        axes.plot([], [], label=f"mmd_weight {weight:g}: {what}", **style)
    axes.plot([], [], color=BLUE, marker="o", markeredgecolor="white", linestyle="none", label="checkpoint kept")
    if has_band:
        axes.plot([], [], color=INK, linestyle=":", linewidth=0.9, label="MMD if nothing had shifted")
    axes.legend(loc="center left", alignment="left")

"""The pictures of a monthly watch as inline SVG, in the style of `crossrisk.pages.plots`. Plain data in, markup out.

A month without a number stays a gap. Names are untrusted: they are drawn as plain text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from crossrisk.pages.plots import BLUE, GREEN, GREY, INK, ORANGE, SKY, VERMILION, drawing_of, label_months
from crossrisk.stability import AMBER_PSI, RED_PSI

MOST_FEATURES = 15
_NAME_LETTERS = 40
_PANELS = (("auc", "AUC"), ("ks", "KS"), ("observed_expected", "observed / expected"))


def draw_psi_by_month(months: Sequence[Mapping[str, Any]]) -> Markup | None:
    """Score PSI by month with the noise of so many rows; `month`, `value`, `critical` each; None without a number."""
    at = [place for place, one in enumerate(months) if one["value"] is not None]
    if not at:
        return None
    values, noise = ([months[place][key] for place in at] for key in ("value", "critical"))
    with drawing_of("psi-months", "Score PSI by month", 5.0, 3.4) as drawing:
        axes = drawing.figure.subplots()
        axes.bar(at, noise, 0.8, color="#e5e9ef", label="95% of months without a shift")
        axes.plot(at, values, color=BLUE, marker="o", label="score PSI")
        for cut, colour, style in ((AMBER_PSI, ORANGE, "--"), (RED_PSI, VERMILION, "-.")):
            axes.axhline(cut, color=colour, linestyle=style, linewidth=1)
        axes.set_ylim(0, max(1.4 * RED_PSI, 1.25 * max(*values, *noise)))
        axes.set_ylabel("PSI")
        axes.legend(loc="upper left")
        label_months(axes, [one["month"] for one in months])
        axes.tick_params(axis="x", labelrotation=45)
    return drawing.svg


def draw_score_bins(labels: Sequence[str], reference: Sequence[int], month: Sequence[int]) -> Markup | None:
    """Shares of rows by bin of the reference's probability, month beside reference; None where either has no row."""
    shown = [place for place in range(len(labels)) if reference[place] or month[place]]
    if not (sum(reference) and sum(month)):
        return None
    with drawing_of("score-bins", "Shares of rows by predicted probability", 5.0, 3.4) as drawing:
        axes = drawing.figure.subplots()
        at = np.arange(len(shown))
        before, now = ([counts[place] / sum(counts) for place in shown] for counts in (reference, month))
        axes.bar(at - 0.2, before, 0.4, label="reference", facecolor="white", edgecolor=GREY, hatch="////")
        axes.bar(at + 0.2, now, 0.4, label="month", facecolor=BLUE)
        axes.set_xticks(at, [labels[place] for place in shown], rotation=45, ha="right")
        axes.set(ylabel="share of rows", xlabel="predicted probability, bins of the reference")
        axes.margins(y=0.2)
        axes.legend(loc="upper left", ncols=2)
    return drawing.svg


def draw_performance(
    months: Sequence[Mapping[str, Any]], recorded_auc: float | None, band: tuple[float, float]
) -> Markup | None:
    """AUC, KS, observed/expected by month with intervals; hollow where bads are too few; None without a number.

    Args:
        months: `month` and, by key, a metric as of `Metric.to_json`, or None.
        recorded_auc: at publication.
        band: of observed/expected that the gate accepts.
    """
    if not any(one[key] and one[key]["value"] is not None for one in months for key, _ in _PANELS):
        return None
    with drawing_of("performance", "Performance by month with intervals", 10.4, 3.0) as drawing:
        panels = drawing.figure.subplots(1, len(_PANELS))
        for axes, (key, title) in zip(panels, _PANELS, strict=True):
            axes.set_title(title)
            for place, one in enumerate(months):
                _draw_metric(axes, place, one[key])
            label_months(axes, [one["month"] for one in months])
            axes.tick_params(axis="x", labelrotation=90)
        if recorded_auc is not None:
            panels[0].axhline(recorded_auc, color=VERMILION, linestyle="--", linewidth=1)
        panels[2].axhspan(*band, color=GREEN, alpha=0.12, linewidth=0)
        panels[2].axhline(1.0, color=INK, linestyle=":", linewidth=1)
    return drawing.svg


def _draw_metric(axes: Any, place: int, metric: Mapping[str, Any] | None) -> None:
    if metric is None or metric["value"] is None:
        return
    colour = BLUE if metric["status"] == "ok" else GREY
    if metric["low"] is not None:
        axes.plot([place, place], [metric["low"], metric["high"]], color=colour, linewidth=1.2)
    face = colour if metric["status"] == "ok" else "white"
    axes.plot([place], [metric["value"]], marker="o", color=colour, markerfacecolor=face, linestyle="none")


def draw_feature_psi(features: Sequence[Mapping[str, Any]]) -> Markup | None:
    """Bars of the largest feature PSIs, a tick where noise ends; `feature`, `value`, `critical` each, largest first."""
    shown = [one for one in features if one["value"] is not None][:MOST_FEATURES]
    if not shown:
        return None
    with drawing_of("features", "Features by PSI, largest first", 10.4, 0.8 + 0.21 * len(shown)) as drawing:
        axes = drawing.figure.subplots()
        lines = range(len(shown))
        axes.barh(lines, [one["value"] for one in shown], color=SKY, height=0.7)
        axes.plot([one["critical"] for one in shown], lines, color=INK, marker="|", markersize=11, linestyle="none")
        for cut, colour, style in ((AMBER_PSI, ORANGE, "--"), (RED_PSI, VERMILION, "-.")):
            axes.axvline(cut, color=colour, linestyle=style, linewidth=1)
        axes.set_yticks(lines, [one["feature"][:_NAME_LETTERS] for one in shown])
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.set_xlabel("PSI")
        axes.grid(axis="y", visible=False)
    return drawing.svg

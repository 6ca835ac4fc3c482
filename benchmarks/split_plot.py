"""The paired differences of the credit splits as a picture: one panel a split, one bar a question."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from split_table import OF_CHOSEN, OF_METHODS, Interval, Judged

from crossrisk.pages.plots import BLUE, GREY, INK, VERMILION

STYLES = {"helps": (BLUE, "^"), "does nothing": (GREY, "o"), "hurts": (VERMILION, "v")}
"""colours of Okabe and Ito, and a marker each: told apart without colour"""
PANEL_IN, BAR_IN, MARGIN_IN = 1.9, 0.2, 1.2


def draw_differences(splits: Sequence[Judged], path: Path, form: str) -> None:
    """Draw every contrast that a split answers, as `svg`, `png` or `pdf`."""
    contrasts = [one for one in (*OF_CHOSEN, *OF_METHODS) if any(one.ask(judged) for judged in splits)]
    size = (3 + PANEL_IN * len(splits), MARGIN_IN + BAR_IN * len(contrasts))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(1, len(splits), sharey=True, squeeze=False)[0]
    for panel, judged in zip(panels, splits, strict=True):
        panel.axvline(0, color=INK, linewidth=0.8)
        for place, contrast in enumerate(contrasts):
            _mark(panel, place, contrast.ask(judged))
        panel.set_title(judged.split.title.replace(" -> ", " ->\n", 1), fontsize=8)
        panel.tick_params(labelsize=7)
        panel.grid(axis="x", linewidth=0.3)
    panels[0].set_yticks(range(len(contrasts)), [one.title for one in contrasts])
    panels[0].invert_yaxis()
    figure.supxlabel("difference of AUC, 95% interval; triangles: it leaves out 0", fontsize=8)
    figure.savefig(path, format=form)


def _mark(panel: Axes, place: int, found: Interval | None) -> None:
    if found is None:
        return
    colour, marker = STYLES[found.verdict]
    panel.plot([found.low, found.high], [place, place], color=colour, linewidth=1.5)
    panel.plot([found.value], [place], color=colour, marker=marker, markersize=4)

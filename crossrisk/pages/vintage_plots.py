"""The picture of the vintages as inline SVG. Plain data of `crossrisk.vintages` in, markup out.

No number is computed here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from crossrisk.pages.plots import GREY, POPULATION_STYLES, drawing_of, label_months, months_between


def draw_vintages(described: Mapping[str, Any]) -> Markup:
    """Left: cumulative bad share by months on book, a thin line a vintage and a strong one a population, with its band.

    Right: the vintages at equal months on book, with intervals. Both end at the month on book of the comparison.

    Args:
        described: of `crossrisk.vintages.describe_vintages`.
    """
    months = described["months"]
    title = f"Cumulative bad share by months on book, and of every vintage at {months} months"
    with drawing_of("vintages", title, 10.4, 3.9) as drawing:
        curves, reads = drawing.figure.subplots(1, 2, width_ratios=(1, 1.3))
        for one in described["vintages"]:
            style = _style(one["population"])
            curves.plot(
                one["months_on_book"][:months],
                one["share"][:months],
                color=style["color"],
                linestyle=style["linestyle"],
                linewidth=0.6,
                alpha=0.35,
            )
        for one in described["populations"]:
            _draw_population(curves, one)
        curves.set(xlabel="months on book", ylabel="share of booked accounts", xlim=(0, months * 1.02))
        curves.set_ylim(bottom=0)
        curves.set_title("bad by months on book")
        curves.legend(loc="upper left")
        _draw_reads(reads, described)
    return drawing.svg


def _style(population: str) -> Mapping[str, Any]:
    return POPULATION_STYLES.get(population, {"color": GREY, "linestyle": ":", "marker": "s"})


def _draw_population(axes: Any, one: Mapping[str, Any]) -> None:
    style, at = _style(one["population"]), one["months_on_book"]
    axes.fill_between(at, one["low"], one["high"], color=style["color"], alpha=0.15, linewidth=0)
    label = f"{one['population']}, {one['vintages']} vintage{'s' if one['vintages'] != 1 else ''}"
    axes.plot(at, one["share"], label=label, linewidth=2, color=style["color"], linestyle=style["linestyle"])


def _draw_reads(axes: Any, described: Mapping[str, Any]) -> None:
    reached = [one for one in described["vintages"] if one["at_months"] is not None]
    axis = months_between(min(one["vintage"] for one in reached), max(one["vintage"] for one in reached))
    place = {month: position for position, month in enumerate(axis)}
    for population in dict.fromkeys(one["population"] for one in reached):
        rows = [(place[one["vintage"]], one["at_months"]) for one in reached if one["population"] == population]
        axes.errorbar(
            [at for at, _ in rows],
            [read["share"] for _, read in rows],
            ([read["share"] - read["low"] for _, read in rows], [read["high"] - read["share"] for _, read in rows]),
            label=population,
            elinewidth=0.6,
            markersize=3.5,
            **_style(population),
        )
    # a month of three accounts has an interval up to 1: cut, not shown
    axes.set_ylim(0, max(1.5 * max(one["at_months"]["share"] for one in reached), 0.01))
    axes.set_title(f"share bad at {described['months']} months on book, with 95% interval")
    axes.set_xlabel("month of origination")
    axes.legend(loc="upper right")
    label_months(axes, axis)
    axes.tick_params(axis="x", rotation=30)  # half a page wide: names of months would touch

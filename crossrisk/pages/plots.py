"""The pictures of a run report as inline SVG. Plain data in, markup out; equal data give equal bytes.

Nothing here reads files, knows the report's document or computes a number that a reader could quote: values come from
`crossrisk.metrics`, this module only places them. Series differ by line and marker as well as by colour (Okabe and
Ito), so a picture survives colour blindness and a grey printer. Names are untrusted: they are drawn as plain text.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import StringIO
from typing import Any, Literal

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray

from crossrisk.metrics.base import wilson

Floats = NDArray[np.float64]
Role = Literal["challenger", "champion", "reference", "contender"]

BLUE, VERMILION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
SKY, PURPLE, GREY, INK = "#56B4E9", "#CC79A7", "#6b7280", "#1f2937"

ROLE_STYLES: Mapping[Role, Mapping[str, Any]] = {
    "challenger": {"color": BLUE, "marker": "o", "markerfacecolor": BLUE},
    "champion": {"color": VERMILION, "marker": "D", "markerfacecolor": VERMILION},
    "reference": {"color": GREY, "marker": "s", "markerfacecolor": "white"},
    "contender": {"color": GREY, "marker": "o", "markerfacecolor": GREY},
}
POPULATION_STYLES: Mapping[str, Mapping[str, Any]] = {
    "source": {"color": BLUE, "linestyle": "-", "marker": "o"},
    "target": {"color": VERMILION, "linestyle": "--", "marker": "D"},
    "judged": {"color": GREEN, "linestyle": "-.", "marker": "^"},
}
PART_STYLES: Mapping[str, Mapping[str, Any]] = {
    "source_fit": {"facecolor": BLUE},
    "source_stop": {"facecolor": SKY, "hatch": "////"},
    "target_fit": {"facecolor": VERMILION},
    "target_unlabelled": {"facecolor": PURPLE},
    "target_select": {"facecolor": ORANGE, "hatch": "////"},
    "target_test": {"facecolor": GREEN, "hatch": "xx"},
}
FAINT_STYLES = (
    {"color": GREY, "linestyle": "--"},
    {"color": ORANGE, "linestyle": ":"},
    {"color": PURPLE, "linestyle": "-."},
    {"color": SKY, "linestyle": (0, (5, 1))},
)
MONTH_LABELS = 12
"""At most so many month names fit under a picture of the page's width."""

_STYLE = {
    "svg.fonttype": "none",  # text stays text: small, searchable, in the page's own font
    "text.parse_math": False,  # a column may be called "a$b$c"
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # ships with matplotlib: the same metrics, hence bytes, on every machine
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": "#9aa4b2",
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e5e9ef",
    "grid.linewidth": 0.7,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.6,
    "lines.markersize": 5.0,
    "hatch.linewidth": 0.6,
}


@dataclass(frozen=True)
class Estimate:
    """A number with its interval; None where undefined."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Whiskers:
    """One line of the forest plot: a contender and its estimates, one a panel."""

    name: str
    role: Role
    estimates: Sequence[Estimate]


@dataclass(frozen=True)
class Panel:
    """One column of the forest plot."""

    title: str
    at: float | None = None
    """a value worth a line, such as 0.5 of an AUC"""
    band: tuple[float, float] | None = None
    """a range worth a shade, such as the gate's bounds"""


@dataclass
class Drawing:
    """A figure being drawn; its markup is there once the block of `drawing_of` is left."""

    figure: Figure
    svg: Markup = field(default=Markup())


@contextmanager
def drawing_of(name: str, description: str, width: float, height: float) -> Iterator[Drawing]:
    """A figure of `width` x `height` inches under our style, turned into SVG at the end of the block.

    matplotlib reads its style both when an artist is made and when it is drawn, so both happen inside. The salt makes
    ids the same on every run and different between pictures, which all share one page.
    """
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": f"crossrisk {name}"}), warnings.catch_warnings():
        # of names in scripts that the measuring font lacks: the browser draws the text, in a font that has them
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        layout = ConstrainedLayoutEngine(h_pad=0.07, hspace=0.02)  # titles keep clear of the ticks above them
        drawing = Drawing(Figure(figsize=(width, height), layout=layout))
        yield drawing
        written = StringIO()
        drawing.figure.savefig(
            written,
            format="svg",
            transparent=True,
            metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")),  # None: leave it out
        )
    svg = written.getvalue()
    svg = svg[svg.index("<svg") :].replace("<svg", f'<svg role="img" aria-label="{escape(description)}"', 1)
    # ids of groups are never referred to and would be repeated in the page; those of <path>, <clipPath> are needed
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    # a hundredth of a point is below what a printer resolves; six decimals double the page
    svg = re.sub(r' d="[^"<>]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path.group()), svg)
    drawing.svg = Markup(svg)  # noqa: S704 - matplotlib escapes text, we the label


# --- contenders ---


def draw_intervals(rows: Sequence[Whiskers], panels: Sequence[Panel]) -> Markup:
    """Forest plot: one line a contender, first on top, one panel a metric; undefined estimates stay empty."""
    names = ", ".join(panel.title for panel in panels)
    with drawing_of("intervals", f"{names} of every contender with intervals", 10.4, 0.9 + 0.27 * len(rows)) as drawing:
        grid = drawing.figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for position, (axes, panel) in enumerate(zip(grid, panels, strict=True)):
            axes.set_title(panel.title)
            axes.grid(axis="y", visible=False)
            if panel.band:
                axes.axvspan(*panel.band, color=GREEN, alpha=0.12, linewidth=0)
            if panel.at is not None:
                axes.axvline(panel.at, color=INK, linestyle=":", linewidth=1)
            for line, row in enumerate(rows):
                _draw_estimate(axes, line, row.estimates[position], row.role)
        grid[0].set_yticks(range(len(rows)), [row.name for row in rows])
        grid[0].set_ylim(len(rows) - 0.4, -0.6)
    return drawing.svg


def _draw_estimate(axes: Any, line: int, estimate: Estimate, role: Role) -> None:
    style = ROLE_STYLES[role]
    if estimate.value is None:
        return
    if estimate.low is not None and estimate.high is not None:
        width = 2.4 if role in ("challenger", "champion") else 1.2
        axes.plot([estimate.low, estimate.high], [line, line], color=style["color"], linewidth=width)
    axes.plot([estimate.value], [line], linestyle="none", **style)


# --- one sample: ranking, calibration, scores ---


def draw_roc(curves: Mapping[Role, Mapping[str, Sequence[float]]], legend: Mapping[Role, str]) -> Markup:
    """ROC curves; `curves` as of `crossrisk.metrics.Curves`, `legend` what each is called."""
    with drawing_of("roc", "ROC curve", 5.0, 4.1) as drawing:
        axes = drawing.figure.subplots()
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
        for role, curve in curves.items():
            style = _line_style(role)
            axes.plot(curve["false_positive"], curve["true_positive"], label=legend[role], **style)
        axes.set(xlabel="share of goods declined", ylabel="share of bads declined", xlim=(0, 1), ylim=(0, 1.01))
        axes.legend(loc="lower right")
    return drawing.svg


def draw_ks(curve: Mapping[str, Sequence[float]], ks: float) -> Markup:
    """Cumulative shares of goods and bads by probability, and where they are furthest apart; `ks` is written there."""
    score, bads, goods = (np.asarray(curve[key], np.float64) for key in ("score", "share_bad", "share_good"))
    widest = int(np.abs(goods - bads).argmax())
    with drawing_of("ks", "Cumulative shares of goods and bads", 5.0, 4.1) as drawing:
        axes = drawing.figure.subplots()
        axes.step(score, goods, where="post", color=BLUE, label="goods")
        axes.step(score, bads, where="post", color=VERMILION, linestyle="--", label="bads")
        axes.plot([score[widest]] * 2, [bads[widest], goods[widest]], color=INK, linewidth=1.2, marker="_")
        axes.annotate(
            f"KS {ks:.3f} at {score[widest]:.3f}",
            (score[widest], (bads[widest] + goods[widest]) / 2),
            xytext=(6, 0),
            textcoords="offset points",
            verticalalignment="center",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
        )
        axes.set(xlabel="predicted probability", ylabel="share at or below", ylim=(0, 1.01))
        axes.set_xlim(left=0)
        axes.legend(loc="lower right")
    return drawing.svg


def draw_calibration(curves: Mapping[Role, Mapping[str, Sequence[float]]], legend: Mapping[Role, str]) -> Markup:
    """Bad rate against mean probability by bin, with Wilson's 95% interval; the diagonal is perfect."""
    with drawing_of("calibration", "Calibration by decile", 5.0, 4.1) as drawing:
        axes = drawing.figure.subplots()
        top = 0.0
        for role, curve in curves.items():
            observed, rows = np.asarray(curve["observed"]), np.asarray(curve["bin_rows"])
            low, high = wilson(observed * rows, rows, 0.95)
            axes.errorbar(
                curve["predicted"],
                observed,
                yerr=(observed - low, high - observed),
                elinewidth=0.9,
                capsize=2,
                label=legend[role],
                **_line_style(role, marker=True),
            )
            top = max(top, float(high.max()), max(curve["predicted"]))
        axes.plot([0, top], [0, top], color=GREY, linewidth=0.8, linestyle=":")
        axes.set(xlabel="mean predicted probability", ylabel="observed bad rate")
        axes.set(xlim=(0, top * 1.04), ylim=(0, top * 1.04))
        axes.legend(loc="upper left")
    return drawing.svg


def draw_histograms(edges: Sequence[float], shares: Mapping[str, Sequence[float]]) -> Markup:
    """Shares of rows by predicted probability, one outline a population, in the order of `POPULATION_STYLES`."""
    with drawing_of("histograms", "Histograms of predicted probability by population", 5.0, 4.1) as drawing:
        axes = drawing.figure.subplots()
        for name, style in POPULATION_STYLES.items():
            if name in shares:
                line = {key: value for key, value in style.items() if key != "marker"}
                axes.stairs(shares[name], edges, label=name, linewidth=1.6, **line)
        axes.set(xlabel="predicted probability", ylabel="share of rows")
        axes.set_xlim(0, edges[-1])
        axes.legend(loc="upper right")
    return drawing.svg


def _line_style(role: Role, *, marker: bool = False) -> dict[str, Any]:
    style = {"color": ROLE_STYLES[role]["color"], "linestyle": "-" if role == "challenger" else "--"}
    return style | {"marker": ROLE_STYLES[role]["marker"]} if marker else style


# --- data ---


def draw_months(months: Sequence[Mapping[str, Any]]) -> Markup | None:
    """Rows and bad rate by month: `population`, `month` (YYYY-MM), `rows`, `matured`, `bads` each; None undated."""
    dated = [row for row in months if row["month"] is not None and row["population"] in ("source", "target")]
    if not dated:
        return None
    axis = months_between(min(row["month"] for row in dated), max(row["month"] for row in dated))
    place = {month: position for position, month in enumerate(axis)}
    with drawing_of("months", "Rows and bad rate by month and population", 10.4, 5.0) as drawing:
        panels = drawing.figure.subplots(3, 1, sharex=True)
        for axes, population in zip(panels, ("source", "target"), strict=False):
            rows = [row for row in dated if row["population"] == population]
            at = [place[row["month"]] for row in rows]
            colour = POPULATION_STYLES[population]["color"]
            axes.bar(at, [row["matured"] for row in rows], color=colour, label="label known", width=0.8)
            unknown = [row["rows"] - row["matured"] for row in rows]
            if any(unknown):
                below = [row["matured"] for row in rows]
                axes.bar(
                    at, unknown, 0.8, below, facecolor="white", edgecolor=colour, hatch="////", label="label unknown"
                )
                axes.legend(loc="upper left")
            axes.set_title(f"{population}: rows")
            _draw_bad_rate(panels[2], population, [row for row in rows if row["matured"]], place)
        panels[2].set_title("bad rate of rows with a known label, with 95% interval")
        highest = max((row["bads"] / row["matured"] for row in dated if row["matured"]), default=1.0)
        panels[2].set_ylim(0, max(1.5 * highest, 0.01))  # a month of three rows has an interval up to 1: cut, not shown
        panels[2].legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
        label_months(panels[2], axis)
    return drawing.svg


def _draw_bad_rate(axes: Any, population: str, rows: Sequence[Mapping[str, Any]], place: Mapping[str, int]) -> None:
    matured = np.array([row["matured"] for row in rows], np.float64)
    rate = np.array([row["bads"] for row in rows], np.float64) / matured
    low, high = wilson(rate * matured, matured, 0.95)
    at = [place[row["month"]] for row in rows]
    axes.errorbar(
        at, rate, (rate - low, high - rate), label=population, elinewidth=0.6, ms=3.5, **POPULATION_STYLES[population]
    )


def draw_split(cells: Sequence[tuple[str, str, int]]) -> Markup:
    """Rows by month and part, stacked; `cells` are (part, month, rows), where month may also be a word.

    Words ("merged", "undated") stand behind the months. The populations share the axis, so that one sees which part
    lies out of time.
    """
    months = sorted({month for _, month, _ in cells if _is_month(month)})
    words = sorted({month for _, month, _ in cells if not _is_month(month)})
    axis = [*(months_between(months[0], months[-1]) if months else []), *words]
    place = {name: position for position, name in enumerate(axis)}
    parts = sorted({part for part, _, _ in cells}, key=part_order)
    with drawing_of("split", "Rows by month and part of the split", 10.4, 3.9) as drawing:
        panels = drawing.figure.subplots(2, 1, sharex=True)
        for axes, population in zip(panels, ("source", "target"), strict=True):
            below = np.zeros(len(axis))
            for part in (part for part in parts if part.startswith(population)):
                rows = np.zeros(len(axis))
                for _, month, count in (cell for cell in cells if cell[0] == part):
                    rows[place[month]] += count
                style = PART_STYLES.get(part, {"facecolor": GREY})
                axes.bar(range(len(axis)), rows, 0.8, below, label=part, edgecolor="white", linewidth=0.3, **style)
                below += rows
            axes.set_title(f"{population}: rows")
            axes.margins(y=0.28)
            if below.any():
                axes.legend(loc="upper left", ncols=3)
        label_months(panels[1], axis)
    return drawing.svg


def part_order(part: str) -> tuple[int, str]:
    """Sorting key: the known parts from fitting to judging, then others by name."""
    known = list(PART_STYLES)
    return (known.index(part) if part in known else len(known), part)


def months_between(first: str, last: str) -> list[str]:
    """Every month from first to last (YYYY-MM), both included: a month without rows must show as a gap."""
    start, end = (12 * int(month[:4]) + int(month[5:7]) - 1 for month in (first, last))
    return [f"{number // 12:04d}-{number % 12 + 1:02d}" for number in range(start, end + 1)]


def _is_month(name: str) -> bool:
    return re.fullmatch(r"\d{4}-\d{2}", name) is not None


def label_months(axes: Any, axis: Sequence[str]) -> None:
    """Label an axis of months, at most so many of them, and every word that stands beside the months."""
    words = [position for position, name in enumerate(axis) if not _is_month(name)]
    months = [position for position, name in enumerate(axis) if _is_month(name)]
    shown = [*months[:: -(-len(months) // MONTH_LABELS) or 1], *words]
    axes.set_xticks(shown, [axis[position] for position in shown])
    axes.set_xlim(-0.8, len(axis) - 0.2)


# --- the run ---


def draw_seconds(seconds: Mapping[str, float]) -> Markup:
    """Horizontal bars of seconds a step, longest on top."""
    steps = sorted(seconds.items(), key=lambda item: (-item[1], item[0]))
    with drawing_of("seconds", "Seconds of each step", 10.4, 0.5 + 0.19 * len(steps)) as drawing:
        axes = drawing.figure.subplots()
        bars = axes.barh(range(len(steps)), [value for _, value in steps], color=SKY, height=0.7)
        axes.bar_label(bars, [f"{value:.1f} s" for _, value in steps], padding=3)
        axes.set_yticks(range(len(steps)), [name for name, _ in steps])
        axes.set_ylim(len(steps) - 0.5, -0.5)
        axes.grid(axis="y", visible=False)
        axes.margins(x=0.1)
    return drawing.svg

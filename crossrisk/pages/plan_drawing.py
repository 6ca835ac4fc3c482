"""The feature plan as a drawing: raw columns, features and what enters the matrix, side by side, joined by lines.

Plain SVG, so that it opens in a browser, scales, and its names can be searched. What is drawn comes from
`crossrisk.features.explaining`.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from crossrisk.features.explaining import Way
from crossrisk.pages.texts import visible_text

ROW, WIDTH, MARGIN = 26, 1180, 40
COLUMNS = (20, 330, 690)
"""x of raw columns, features and encodings"""
LONGEST = 44
"""characters of a name that fit a column; the rest is in the tooltip"""
LONGEST_ENCODING = 76
LIVE, GONE = "#0072b2", "#d55e00"
"""blue and vermilion of Okabe and Ito's palette, told apart in all kinds of colour blindness"""


def draw_plan(ways: Sequence[Way], title: str) -> str:
    """The ways as one SVG document.

    Args:
        ways: features from raw columns to encodings.
        title: above the drawing.
    """
    raw = list(dict.fromkeys(column for way in ways for column in way.raw))
    ways = sorted(ways, key=lambda way: raw.index(way.raw[0]))  # a ratio beside its numerator: short lines
    ends = [(way, text) for way in ways for text in _ends(way)]
    height = MARGIN + ROW * (max(len(raw), len(ways), len(ends)) + 2)
    raw_at = {column: _place(i, len(raw), height) for i, column in enumerate(raw)}
    way_at = {way.feature: _place(i, len(ways), height) for i, way in enumerate(ways)}
    parts: list[str] = []
    for way in ways:
        parts += (_line(COLUMNS[0] + 250, raw_at[column], COLUMNS[1], way_at[way.feature]) for column in way.raw)
        parts.append(_text(COLUMNS[1], way_at[way.feature], way.feature, way.made))
    parts += (_text(COLUMNS[0], y, column, column) for column, y in raw_at.items())
    for i, (way, text) in enumerate(ends):
        y, colour = _place(i, len(ends), height), GONE if way.dropped else LIVE
        parts.append(_line(COLUMNS[1] + 300, way_at[way.feature], COLUMNS[2], y, colour, dashed=bool(way.dropped)))
        parts.append(_text(COLUMNS[2], y, text, text, longest=LONGEST_ENCODING))
    heads = zip(COLUMNS, ("raw columns", "features", "enters the matrix as"), strict=True)
    head = "".join(f'<text x="{x}" y="52" font-weight="bold">{name}</text>' for x, name in heads)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>'
        f'<text x="20" y="26" font-size="16">{_safe(title)}</text>{head}{"".join(parts)}</svg>\n'
    )


def _ends(way: Way) -> list[str]:
    if way.dropped is not None:
        return [f"dropped: {way.dropped}"]
    return [f"{len(step.outputs)} × {step.sentence}" for step in way.steps]


def _place(position: int, count: int, height: int) -> float:
    """Rows of a short column are spread over the height of the longest."""
    return MARGIN + ROW + (height - MARGIN - 2 * ROW) * (position + 0.5) / max(1, count)


def _line(x1: float, y1: float, x2: float, y2: float, colour: str = "#999999", *, dashed: bool = False) -> str:
    middle, dash = (x1 + x2) / 2, ' stroke-dasharray="4 3"' if dashed else ""
    curve = f"M{x1:.0f} {y1:.1f} C{middle:.0f} {y1:.1f} {middle:.0f} {y2:.1f} {x2 - 4:.0f} {y2:.1f}"
    return f'<path d="{curve}" fill="none" stroke="{colour}"{dash}/>'


def _text(x: float, y: float, text: str, tip: str, longest: int = LONGEST) -> str:
    shown = text if len(text) <= longest else f"{text[: longest - 1]}…"
    return f'<text x="{x:.0f}" y="{y + 4:.1f}">{_safe(shown)}<title>{_safe(tip)}</title></text>'


def _safe(text: str) -> str:
    return escape(visible_text(text))

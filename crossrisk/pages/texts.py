"""What all pages share: the templates' environment, and how a number, a share or a foreign name is written.

Pure: values in, text out. What a page says is `crossrisk.pages.reporting`, `crossrisk.pages.monitor_page` and
`crossrisk.pages.run_page`; names come from data and are untrusted everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

Document = Mapping[str, Any]

TEMPLATES = Path(__file__).parent / "templates"
DASH = "–"


@dataclass(frozen=True)
class Words:
    """How a verdict, a light or a state is said on a page."""

    sign: str
    """tells it from others in grey print"""
    word: str
    meaning: str


def refuse_other_schema(result: Document) -> None:
    """Raise ValueError where another release wrote a result document."""
    if result["schema_version"] != 1:
        raise ValueError(
            f"result of schema_version {result['schema_version']}, expected 1; draw it with the release that wrote it"
        )


def number_text(value: float | None, digits: int = 3) -> str:
    """A number with fixed decimals; a dash where it is undefined."""
    return DASH if value is None else f"{value:.{digits}f}"


def signed_text(value: float | None, digits: int = 4) -> str:
    """A difference with its sign; a dash where it is undefined."""
    return DASH if value is None else f"{value:+.{digits}f}"


def percent_text(value: float | None, digits: int = 1) -> str:
    """A share in percent; a dash where it is undefined."""
    return DASH if value is None else f"{value:.{digits}%}"


def count_text(value: int | None) -> str:
    """A count with thousands apart; a dash where it is unknown."""
    return DASH if value is None else f"{value:,}"


def interval_text(metric: Document, digits: int) -> str:
    """The interval of a metric, such as "0.604–0.632"; empty where it has none."""
    low, high = metric.get("low"), metric.get("high")
    return "" if low is None or high is None else f"{low:.{digits}f}–{high:.{digits}f}"


def metric_text(metric: Document | None, digits: int) -> str:
    """Value, interval and a status that is not ok, such as "0.618 (0.604–0.632)"; a dash for None."""
    if metric is None:
        return DASH
    interval = interval_text(metric, digits)
    status = "" if metric["status"] == "ok" else f" {metric['status']}"
    return number_text(metric["value"], digits) + (f" ({interval})" if interval else "") + status


def markdown_text(text: str) -> str:
    """Text that Markdown shows as it is: one line, no HTML, no formula and no address that a viewer makes a link of."""
    plain = re.sub(r"\s", " ", str(text)).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|#~$]|:(?=//)|(?<=www)\.)", r"\\\1", plain, flags=re.IGNORECASE)


def visible_text(text: str) -> str:
    """Text that cannot steer a terminal: what does not print is written as its code point. Line ends stay."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def environment() -> jinja2.Environment:
    """Templates with every value escaped, a missing one an error, and the texts of this module as filters."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "number": number_text,
        "signed": signed_text,
        "percent": percent_text,
        "thousands": count_text,
        "interval": interval_text,
    }
    return made

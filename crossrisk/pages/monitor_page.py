"""The report of a watched month: the document of `tasks.monitor_report` as a page, Markdown, table rows, lines.

Pure: the document in, text out. Numbers are formatted as in the run report (`crossrisk.pages.reporting`) and computed
elsewhere; pictures are drawn in `monitor_plots`; what is said around them is in templates/monitor.html.j2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from crossrisk.monitoring import LIGHT_OF_VERDICT
from crossrisk.pages.monitor_plots import draw_feature_psi, draw_performance, draw_psi_by_month, draw_score_bins
from crossrisk.pages.texts import (
    Document,
    Words,
    count_text,
    environment,
    interval_text,
    markdown_text,
    percent_text,
    refuse_other_schema,
)

FEATURES_SHOWN = 25
SHOWN_METRICS = (("auc", "AUC", 3), ("ks", "KS", 3), ("observed_expected", "observed / expected", 2))
"""key, heading, decimals: those of the run report"""


LIGHTS: Mapping[str, Words] = {
    "green": Words("●", "Green", "Everything that is watched could be judged, and nothing has moved beyond noise."),
    "amber": Words("▲", "Amber", "Something has moved beyond noise: look at it before the next retrain."),
    "red": Words("■", "Red", "The champion no longer says what it said when it was published: retrain, or roll back."),
    "grey": Words("○", "Grey", "Nothing has moved beyond noise, but not everything can be judged yet."),
}


def render_month(result: Document) -> str:
    """The month as one HTML page: no script, nothing fetched, every name escaped.

    Args:
        result: the document, schema_version 1.

    Raises:
        ValueError: another schema_version.
        jinja2.UndefinedError, KeyError: the document lacks a part.
    """
    refuse_other_schema(result)
    page = environment().get_template("monitor.html.j2")
    return page.render(
        run=result,
        words=LIGHTS[result["light"]],
        meaning=meaning_text(result),
        lights=LIGHTS,
        light_of=LIGHT_OF_VERDICT,
        shown_metrics=SHOWN_METRICS,
        features=[(one, moved_text(one["moved"])) for one in result["feature_psi"][:FEATURES_SHOWN]],
        verdicts=_verdict_counts(result),
        months=_months(result),
        pictures=_pictures(result),
    )


def meaning_text(result: Document) -> str:
    """What the light means for this month, one sentence; of a month without rows, that and where to look instead."""
    words, empty = LIGHTS[result["light"]].meaning, empty_text(result)
    if empty is None:
        return words
    said = f"{empty[0].upper()}{empty[1:]}."
    return said if result["light"] == "grey" else f"{words} {said}"


def empty_text(result: Document) -> str | None:
    """That the watched month holds no row, and the next move; None where it holds some."""
    month, last = result["month"], result["volumes"]["last_month_with_rows"]
    if result["volumes"]["rows"]:
        return None
    if last is None:
        return f"no target row in {month}, nor in any month up to as_of: check population.target and data.decision_date"
    return f"no target row in {month}: the last month with rows is {last}, watch it with --month {last}"


def _months(result: Document) -> list[tuple[Document, Document, Document]]:
    """(volume, score PSI, performance) of every month, oldest first."""
    parts = (result[part]["months"] for part in ("volumes", "score_psi", "performance"))
    return list(zip(*parts, strict=True))


def _verdict_counts(result: Document) -> dict[str, int]:
    """Features by verdict, worst first, those that occur."""
    verdicts = [one["verdict"] for one in result["feature_psi"]]
    order = ("red", "amber", "detected, small", "small sample", "ok")
    return {verdict: verdicts.count(verdict) for verdict in order if verdict in verdicts}


def _pictures(result: Document) -> dict[str, Markup | None]:
    score, performance = result["score_psi"], result["performance"]
    low, high = result["gate"]["observed_expected"]
    histogram = score["histogram"]
    return {
        "psi": draw_psi_by_month(score["months"]),
        "score": draw_score_bins(histogram["labels"], histogram["reference"], histogram["month"]),
        "performance": draw_performance(performance["months"], performance["recorded_auc"], (low, high)),
        "features": draw_feature_psi(result["feature_psi"]),
    }


def summarise_month(result: Document) -> str:
    """Light and reasons as Markdown, for a Prefect artifact."""
    words, champion = LIGHTS[result["light"]], result["champion"]
    signs = (LIGHTS[signal["light"]] for signal in result["signals"])
    reasons = [f"- {sign.sign} {markdown_text(reason)}" for sign, reason in zip(signs, result["reasons"], strict=True)]
    facts = (
        f"{markdown_text(result['portfolio'])}, month {markdown_text(result['month'])} as of "
        f"{markdown_text(result['as_of'])}; champion version "
        f"{champion['version']} ({markdown_text(champion['contender'])}), run {markdown_text(result['run_id'])}"
    )
    notes = [f"- {markdown_text(note)}" for note in result["notes"]]
    heading = [f"# {words.sign} {words.word}", "", meaning_text(result), ""]
    return "\n".join([*heading, *reasons, "", facts, "", *notes]) + "\n"


def month_lines(result: Document) -> list[str]:
    """What a terminal shows: light, reasons, what the month holds, where the report is."""
    words, volumes = LIGHTS[result["light"]], result["volumes"]
    mean = percent_text(volumes["mean_probability"])
    held = f"{count_text(volumes['rows'])} rows, mean probability {mean}, {count_text(volumes['matured'])} labels known"
    return [
        f"{words.sign} {words.word}: {result['portfolio']}, {result['month']} as of {result['as_of']}, "
        f"champion {result['champion']['version']} ({result['champion']['contender']})",
        *(f"  {LIGHTS[signal['light']].sign} {signal['reason']}" for signal in result["signals"]),
        f"  {empty_text(result) or held}",
        *(f"  {note}" for note in result["notes"]),
        *(f"{name:<10} {path}" for name, path in result["paths"].items()),
    ]


def month_rows(result: Document) -> list[dict[str, str | float | None]]:
    """One row a month, oldest first, for a table of plain values, rounded as the page shows them."""
    rows: list[dict[str, str | float | None]] = []
    for volume, psi, performance in _months(result):
        row: dict[str, str | float | None] = {key: volume[key] for key in ("month", "rows", "matured", "bads")}
        row |= {"score_psi": _rounded(psi["value"], 3), "verdict": psi["verdict"]}
        for key, _, digits in SHOWN_METRICS:
            metric = performance[key] or {}
            row[key] = _rounded(metric.get("value"), digits)
            row[f"{key}_interval"] = interval_text(metric, digits) or None
        rows.append(row)
    return rows


def feature_rows(result: Document) -> list[dict[str, str | float | None]]:
    """One row a feature that the page shows, largest PSI first, for a table of plain values."""
    return [
        {
            "feature": one["feature"],
            "psi": _rounded(one["value"], 3),
            "noise": _rounded(one["critical"], 3),
            "verdict": one["verdict"],
            "moved_most": moved_text(one["moved"]),
        }
        for one in result["feature_psi"][:FEATURES_SHOWN]
    ]


def moved_text(moved: Mapping[str, Any] | None) -> str | None:
    """The bin that moved most, such as "missing: 5.0% → 31.0%"; None where nothing could be compared."""
    if moved is None:
        return None
    return f"{moved['label']}: {percent_text(moved['share_reference'])} → {percent_text(moved['share'])}"


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)

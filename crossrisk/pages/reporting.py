"""The run report: one result document (see `tasks.report.build_result`) as a page, as Markdown, as table rows.

Pure: the document in, text out; the same document gives the same bytes, also when it comes back from its JSON twin with
its keys in another order. Numbers are formatted here and computed elsewhere; pictures are drawn in `plots`;
what is said around them is in templates/report.html.j2. Names come from data and are untrusted everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from crossrisk.metrics import HIGHER_IS_BETTER
from crossrisk.pages import plots
from crossrisk.pages.networks import describe_networks, read_trainings
from crossrisk.pages.plots import Estimate, Panel, Role, Whiskers
from crossrisk.pages.texts import (
    Document,
    Words,
    environment,
    interval_text,
    markdown_text,
    metric_text,
    number_text,
    refuse_other_schema,
)
from crossrisk.pages.training_plots import draw_training
from crossrisk.pages.vintage_plots import draw_vintages

CHAMPION = "champion"
"""Name of the champion's line among the contenders."""

SHOWN_METRICS = (
    ("auc", "AUC", 3),
    ("ks", "KS", 3),
    ("brier", "Brier", 4),
    ("log_loss", "log loss", 4),
    ("observed_expected", "observed / expected", 2),
)
"""key, heading, decimals: those of the terminal, so that two screens show the same digits"""


VERDICTS: Mapping[str, Words] = {
    "promote": Words("▲", "Promote", "The challenger is the new champion; the reasons say why."),
    "bootstrap": Words("●", "Bootstrap", "There was no champion; the challenger is the first."),
    "keep": Words("■", "Keep", "The champion stays; a normal answer where the evidence does not suffice."),
    "reject": Words("✕", "Reject", "The challenger is refused; nothing was published."),
    "needs_approval": Words(
        "?",
        "Needs approval",
        "It would be published, but a named person decides: crossrisk promote. Nothing has moved.",
    ),
    "override": Words("!", "Override", "A named person published what the gate had not; the reasons say why."),
}


OUTCOMES: Mapping[str, str] = {
    "pass": "✓ holds",
    "fail": "✕ fails",
    "ask": "? a person decides",
    "unknown": "○ not known",
    "not applicable": "– not applicable",
}
"""How the outcome of a rule is said: a sign that is told apart in grey print, and a word"""


GROUPS_SHOWN = 14
"""lines of one segment or protected column on the page, largest first: a postcode may have hundreds"""


@dataclass(frozen=True)
class ContenderLine:
    """One line of the contender table."""

    name: str
    role: Role
    metrics: Mapping[str, Any]
    """metric -> value, low, high, status; empty where the contender was not fitted"""
    select_auc: float | None
    notes: tuple[str, ...]
    """what it is in this run: challenger, published, reference, not fitted and why"""


# --- the three forms ---


def render_report(result: Document) -> str:
    """The run as one HTML page: no script, nothing fetched, every name escaped.

    Args:
        result: the result document, schema_version 1.

    Raises:
        ValueError: another schema_version.
        jinja2.UndefinedError, KeyError: the document lacks a part.
    """
    refuse_other_schema(result)
    lines = contender_lines(result)
    page = environment().get_template("report.html.j2")
    return page.render(
        run=result,
        verdict=VERDICTS.get(result["verdict"], Words("◆", result["verdict"], "")),
        shown_metrics=SHOWN_METRICS,
        outcomes=OUTCOMES,
        groups_shown=GROUPS_SHOWN,
        contenders=lines,
        readings=_readings(result["differences"]),
        checks=_checks(result["validation"]),
        parts=sorted(result["split"]["parts"].items(), key=lambda item: plots.part_order(item[0])),
        networks=describe_networks(result),
        pictures=_pictures(result, lines),
        trainings=_draw_trainings(result),
    )


def summarise(result: Document) -> str:
    """The decision as Markdown, for a Prefect artifact: verdict, reasons, contender table."""
    judged, champion = result["judged"], result["champion"]
    words = VERDICTS.get(result["verdict"], Words("◆", result["verdict"], ""))
    heading = f"# {words.sign} {markdown_text(words.word)}: {markdown_text(result['challenger'])}"
    facts = (
        f"{markdown_text(result['portfolio'])} as of {markdown_text(result['as_of'])}, "
        f"run {markdown_text(result['run_id'])}; "
        f"judged on {judged['rows']:,} rows of {markdown_text(judged['part'])} with {judged['bads']:,} bads; "
        f"champion {champion['before'] or 'none'} before, {champion['after'] or 'none'} after"
    )
    titles = ["contender", "what it is", *(title for _, title, _ in SHOWN_METRICS)]
    table = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for line in contender_lines(result):
        cells = [markdown_text(metric_text(line.metrics.get(key), digits)) for key, _, digits in SHOWN_METRICS]
        table.append(f"| {' | '.join([markdown_text(line.name), markdown_text('; '.join(line.notes)), *cells])} |")
    reasons = [f"- {markdown_text(reason)}" for reason in result["reasons"]]
    return "\n".join([heading, "", words.meaning, "", *reasons, "", facts, "", *table]) + "\n"


def contender_rows(result: Document) -> list[dict[str, str | float | None]]:
    """One row a contender, in the order of `contender_lines`, for a table of plain values.

    Values are rounded to the digits that the page shows; undefined ones are None. `*_interval` is text.
    """
    rows: list[dict[str, str | float | None]] = []
    for line in contender_lines(result):
        row: dict[str, str | float | None] = {"contender": line.name, "what_it_is": "; ".join(line.notes) or None}
        for key, _, digits in SHOWN_METRICS:
            metric = line.metrics.get(key, {})
            value = metric.get("value")
            row[key] = None if value is None else round(value, digits)
            row[f"{key}_interval"] = interval_text(metric, digits) or None
        row["auc_on_select"] = None if line.select_auc is None else round(line.select_auc, 3)
        row["status"] = line.metrics["auc"]["status"] if line.metrics else "not fitted"
        rows.append(row)
    return rows


def contender_lines(result: Document) -> list[ContenderLine]:
    """All contenders and the champion: highest AUC on the judged rows first, those not fitted last; ties by name."""
    facts, metrics = result["contender_facts"], result["contenders"]
    lines = [_contender_line(name, facts.get(name), metrics.get(name, {}), result) for name in {**facts, **metrics}]
    return sorted(lines, key=lambda line: (not line.metrics, -_auc_or_below_all(line), line.name))


def _auc_or_below_all(line: ContenderLine) -> float:
    value = line.metrics["auc"]["value"] if line.metrics else None
    return -1.0 if value is None else value


def _contender_line(name: str, own: Document | None, metrics: Document, result: Document) -> ContenderLine:
    if own is None:
        champion = result["champion"]
        note = f"champion: version {champion['before']}, {champion['before_contender']}"
        return ContenderLine(name, "champion", metrics, None, (note,))
    if not own["fitted"]:
        return ContenderLine(name, "contender", {}, own["select_auc"], (f"not fitted: {own['reason']}",))
    if name == result["challenger"]:
        version = result["version"]
        notes = ("challenger", f"published as {version}" if version else "not published")
        return ContenderLine(name, "challenger", metrics, own["select_auc"], notes)
    if not own["publishable"]:
        return ContenderLine(name, "reference", metrics, own["select_auc"], ("reference: shown, never published",))
    return ContenderLine(name, "contender", metrics, own["select_auc"], ())


# --- words ---


def _readings(differences: Mapping[str, Document]) -> list[tuple[str, Document, str]]:
    """(heading, difference, what it says) of each metric against the champion."""
    shown = [(key, title) for key, title, _ in SHOWN_METRICS if key in differences]
    return [(title, differences[key], _reading(key, differences[key])) for key, title in shown]


def _reading(metric: str, difference: Document) -> str:
    low, high = difference["low"], difference["high"]
    if low is None or high is None:
        return "undefined"
    if low <= 0 <= high:
        return "not told apart"
    if metric == "observed_expected":
        return "differs; 1 is best, so neither sign is better"
    return "better beyond noise" if (low > 0) == (metric in HIGHER_IS_BETTER) else "worse beyond noise"


def _checks(validation: Document) -> list[Document]:
    """The validation's rules, those that failed first, otherwise in the order of the validation's page."""
    return sorted(validation.get("results", ()), key=lambda check: bool(check["success"]))


# --- the page ---


def _pictures(result: Document, lines: Sequence[ContenderLine]) -> dict[str, Markup | None]:
    """Every picture of the page but those of trainings by name; None where there is nothing to draw."""
    return {
        "intervals": _intervals(lines, result["gate"]["observed_expected"]),
        **_performance(result),
        "histograms": plots.draw_histograms(result["histograms"]["edges"], result["histograms"]["shares"]),
        "months": plots.draw_months(result["input"]["months"]),
        "vintages": draw_vintages(result["vintages"]) if result["vintages"] else None,
        "split": plots.draw_split(cells_by_month(result["split"]["strata"])),
        "seconds": plots.draw_seconds(result["seconds"]) if result["seconds"] else None,
    }


def _draw_trainings(result: Document) -> dict[str, Markup]:
    """Contender -> training curves of its networks."""
    return {name: draw_training(name, history) for name, history in read_trainings(result).items()}


def _intervals(lines: Sequence[ContenderLine], observed_expected: Sequence[float]) -> Markup:
    low, high = observed_expected
    panels = [
        Panel("AUC", at=0.5),
        Panel("KS"),
        Panel("observed / expected", at=1.0, band=(low, high)),
    ]
    keys = ("auc", "ks", "observed_expected")
    rows = [
        Whiskers(line.name, line.role, [_estimate(line.metrics[key]) for key in keys]) for line in lines if line.metrics
    ]
    return plots.draw_intervals(rows, panels)


def _estimate(metric: Document) -> Estimate:
    return Estimate(metric["value"], metric["low"], metric["high"])


def _performance(result: Document) -> dict[str, Markup | None]:
    """ROC, KS and calibration of the challenger, with the champion beside it; None where one class is absent."""
    if not result["curves"]:
        return {"roc": None, "ks": None, "calibration": None}
    roles: dict[str, Role] = {result["challenger"]: "challenger", CHAMPION: "champion"}
    drawn = {role: result["curves"][name] for name, role in roles.items() if name in result["curves"]}
    names = {role: name if name == CHAMPION else f"challenger: {name}" for name, role in roles.items()}
    metrics = result["contenders"]
    with_auc = {
        role: f"{names[role]}, AUC {number_text(metrics[name]['auc']['value'])}"
        for name, role in roles.items()
        if role in drawn
    }
    return {
        "roc": plots.draw_roc(drawn, with_auc),
        "ks": plots.draw_ks(drawn["challenger"], metrics[result["challenger"]]["ks"]["value"]),
        "calibration": plots.draw_calibration(drawn, names),
    }


def cells_by_month(strata: Sequence[Document]) -> list[tuple[str, str, int]]:
    """(part, month or word, rows), summed over labels; a stratum is called "population month label"."""
    cells: dict[tuple[str, str], int] = {}
    for stratum in strata:
        _, month, _ = stratum["stratum"].split(" ")
        cells[stratum["part"], month] = cells.get((stratum["part"], month), 0) + stratum["rows"]
    return [(part, month, rows) for (part, month), rows in sorted(cells.items())]

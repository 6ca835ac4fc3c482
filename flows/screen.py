"""What a finished run looks like in a terminal: the contender table, the verdict, where things are, where time went.

Numbers and their order are those of the report (`crossrisk.pages.reporting`), so that two screens cannot disagree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from crossrisk.pages.reporting import SHOWN_METRICS, VERDICTS, contender_lines
from crossrisk.pages.texts import metric_text, number_text, visible_text
from crossrisk.registry.audit import Finding

WITH_INTERVAL = ("auc", "ks", "observed_expected")
"""the other metrics' intervals are in the report: a terminal is not wide enough"""
STYLES = {"challenger": "bold", "reference": "dim", "champion": "italic"}
WIDTH_OF_PIPES = 150
SHOWN_PATHS = ("model", "pending", "report", "memo", "card")
"""the others, twins in other forms, are in --json and beside these"""


def open_console() -> Console:
    """Standard output, as wide as the terminal, or as a table needs where it is a pipe."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(width=WIDTH_OF_PIPES, highlight=False)


def plain(text: str, style: str = "") -> Text:
    """Text from outside: no markup of rich, nothing that steers the terminal."""
    return Text(visible_text(text), style=style)


def show_result(result: Mapping[str, Any]) -> None:
    """Print a run's result on standard output."""
    console = open_console()
    console.print(_contender_table(result))
    judged = result["judged"]
    console.print(f"judged on {judged['rows']:,} rows of {judged['part']} with {judged['bads']:,} bads")
    for note in judged["notes"]:
        console.print(plain(note))
    words = VERDICTS[result["verdict"]]
    console.print(Text(f"\n{words.sign} {words.word}: {result['challenger']}", style="bold"))
    for reason in result["reasons"]:
        console.print(plain(f"  {reason}"))
    if result["serving"]:
        console.print(plain(f"  {result['serving']}"))
    if result["decided_by"]:
        console.print(Text(f"  decided before, by run {result['decided_by']}: nothing was decided or published anew"))
    console.print()
    for name in SHOWN_PATHS:
        if result["paths"][name]:
            console.print(plain(f"{name:<8} {result['paths'][name]}"), soft_wrap=True)
    seconds = result["seconds"]
    console.print(f"\nseconds: {', '.join(f'{name} {value:.1f}' for name, value in seconds.items())}")
    console.print(f"all steps {sum(seconds.values()):.1f}")


def _contender_table(result: Mapping[str, Any]) -> Table:
    table = Table(title=f"{result['portfolio']} as of {result['as_of']}, preset {result['preset']}", title_style="bold")
    table.add_column("contender", no_wrap=True)
    for _, title, _ in SHOWN_METRICS:
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("AUC choosing", justify="right")
    table.add_column("")
    for line in contender_lines(result):
        cells = [_cell(line.metrics.get(key), key, digits) for key, _, digits in SHOWN_METRICS]
        note = plain("; ".join(line.notes))
        table.add_row(plain(line.name), *cells, number_text(line.select_auc), note, style=STYLES.get(line.role))
    return table


def _cell(metric: Mapping[str, Any] | None, key: str, digits: int) -> str:
    if metric is None or key in WITH_INTERVAL:
        return metric_text(metric, digits)
    return number_text(metric["value"], digits)


def show_history(portfolio: str, lines: Sequence[Mapping[str, str]], champion: int | None) -> None:
    """Print what happened to a portfolio's champion, oldest first; the champion's line is bold."""
    table = Table(title=f"{portfolio}: {len(lines)} lines, champion {champion or 'none'}", title_style="bold")
    for name in ("when", "as of", "what", "version", "who"):
        table.add_column(name if name != "when" else "when (UTC)", no_wrap=True)
    table.add_column("why")
    for line in lines:
        is_champion = champion is not None and line["version"] == str(champion)
        cells = (plain(line[name]) for name in ("when", "as of", "what", "version", "who", "why"))
        table.add_row(*cells, style="bold" if is_champion else None)
    open_console().print(table)


def show_finding(finding: Finding) -> None:
    """Print one check of a registry, as it is made."""
    sign = "✓" if finding.holds else "✗"
    about = f" {finding.version}" if finding.version else ""
    style = "" if finding.holds else "bold"
    open_console().print(plain(f"{sign} {finding.what}{about}: {finding.said}", style), soft_wrap=True)

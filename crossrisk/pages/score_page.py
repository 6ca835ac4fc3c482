"""The summary of a scoring (`tasks.score`) as a page and as lines for a terminal. Pure: the document in, text out.

Every name comes from data and is untrusted; numbers are computed elsewhere, what is said around them is in
templates/score.html.j2.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from crossrisk.pages.plots import BLUE, GREY, drawing_of
from crossrisk.pages.texts import (
    DASH,
    Document,
    count_text,
    environment,
    number_text,
    percent_text,
    refuse_other_schema,
)

_WIDTH = 12
"""of the names on the left of a terminal, as `crossrisk predict` has them"""


def render_scores(result: Document) -> str:
    """A scoring as one HTML page: no script, nothing fetched, every name escaped.

    Args:
        result: the summary, schema_version 1, with the folder under `paths`.

    Raises:
        ValueError: another schema_version.
    """
    refuse_other_schema(result)
    histogram = result["score_psi"]["histogram"]
    picture = _draw_shares(histogram["labels"], histogram["reference"], histogram["scored"])
    return (
        environment()
        .get_template("score.html.j2")
        .render(run=result, picture=picture, psi=psi_text(result), unseen=unseen_texts(result))
    )


def _draw_shares(labels: Sequence[str], reference: Sequence[int], scored: Sequence[int]) -> Markup | None:
    """Shares of rows by bin of the reference's probability, this delivery beside it; None where either has no row."""
    if not (sum(reference) and sum(scored)):
        return None
    shown = [place for place in range(len(labels)) if reference[place] or scored[place]]
    before, now = ([counts[place] / sum(counts) for place in shown] for counts in (reference, scored))
    with drawing_of("scored", "Shares of rows by predicted probability", 7.5, 3.4) as drawing:
        axes = drawing.figure.subplots()
        at = np.arange(len(shown))
        axes.bar(at - 0.2, before, 0.4, label="at publication", facecolor="white", edgecolor=GREY, hatch="////")
        axes.bar(at + 0.2, now, 0.4, label="scored now", facecolor=BLUE)
        axes.set_xticks(at, [labels[place] for place in shown], rotation=45, ha="right")
        axes.set(ylabel="share of rows", xlabel="predicted probability, tenths at publication")
        axes.margins(y=0.2)
        axes.legend(loc="upper left", ncols=2)
    return drawing.svg


def psi_text(result: Document) -> str:
    """PSI of the score with its reading, such as "0.013 (ok, noise up to 0.020)"; a dash where nothing was scored."""
    psi = result["score_psi"]
    if psi["value"] is None:
        return DASH
    return f"{number_text(psi['value'])} ({psi['verdict']}, noise up to {number_text(psi['critical'])})"


def unseen_texts(result: Document) -> list[str]:
    """What is said of category columns in which some rows have, or may have, a level that training did not know."""
    texts = []
    for column, one in result["unseen"].items():
        if one["rows"]:
            values = ", ".join(f"'{value}'" for value in one["values"])
            texts.append(f"{column}: {count_text(one['rows'])} rows ({percent_text(one['share'])}), such as {values}")
    untold = [column for column, one in result["unseen"].items() if one["rows"] is None]
    if untold:
        texts.append(f"cannot be told of {', '.join(untold)}: not all levels of the version are listed")
    return texts


def score_lines(result: Document) -> list[str]:
    """What a terminal shows: rows, those without a score and why, PSI, bands, unseen levels, speed, where it lies."""
    rows, speed = result["rows"], result["rows_per_second"]
    lines = [
        ("version", f"{result['version']} of {result['portfolio']} ({result['contender']}, as of {result['as_of']})"),
        ("rows", f"{count_text(rows)} of {len(result['input'])} files, {count_text(result['scored'])} scored"),
        *(("", f"{count_text(count)} {status}") for status, count in result["unscored"].items()),
        ("probability", f"{percent_text(result['mean_probability'], 2)} on average"),
        ("score PSI", psi_text(result)),
        *(
            ("bands" if place == 0 else "", f"{band['band']:>3}  {count_text(band['rows']):>12}  {band['holds']}")
            for place, band in enumerate(result["bands"])
        ),
        ("", f"of the {result['bands_by']['quantity']}, by {result['bands_by']['source']}; 1 is the riskiest"),
        *(("unseen", text) for text in unseen_texts(result)),
        *(("rule", f"{one['rule']} ({one['action']}): {one['why']}") for one in result["rules"]["failed"]),
        *(("note", note) for note in result["notes"]),
        ("seconds", f"{result['seconds']:.1f}" + (f", {count_text(speed)} rows a second" if speed else "")),
        *((name, path) for name, path in result["paths"].items()),
    ]
    return [f"{name:<{_WIDTH}} {text}" for name, text in lines]

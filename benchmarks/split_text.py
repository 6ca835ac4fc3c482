"""The results of the credit splits in words: Markdown tables, a verdict a method, a line a target. Text only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby

from split_lineup import CHOSEN, CHOSEN_POOLED, PREFERRED, UNALIGNED
from split_table import OF_CHOSEN, OF_METHODS, WELL_CALIBRATED, Contrast, Interval, Judged, check_targets

Choices = Mapping[str, Sequence[str]]
"""what was chosen in each draw: of CHOSEN, of CHOSEN_POOLED, and of every adapter's weights"""


def say_all(splits: Sequence[Judged], choices: Mapping[str, Choices]) -> str:
    """The whole page of a set of judged splits; choices by name of the split."""
    head = ["", *(judged.split.title for judged in splits)]
    draws = ["draws", *(str(judged.draws) for judged in splits)]
    bads = ["bads in the test", *(f"{judged.areas.n_bad:,}" for judged in splits)]
    contrasts = [row for row in map(lambda one: _row_of(one, splits), (*OF_CHOSEN, *OF_METHODS)) if any(row[1:])]
    parts = (
        "AUC on the rows that judge, mean over the draws; in brackets the reference table's",
        _markdown([head, draws, bads, *_areas(splits), *_levels(splits)]),
        "Differences of AUC, mean over the draws, with 95% intervals (test rows and draws); * leaves out 0, as one in "
        f"twenty does by luck. {UNALIGNED}: every adapter's network at mmd_weight 0, source and target labels. Best: "
        "by this table's AUC",
        _markdown([head, *contrasts]),
        "What was chosen, by how many draws",
        _markdown([head, *_choices(splits, choices)]),
        "Verdicts (does nothing: the interval holds 0)",
        "\n".join(_verdicts(splits)),
        "Targets",
        "\n".join(_targets(splits)),
    )
    return "\n\n".join(parts)


def _areas(splits: Sequence[Judged]) -> list[list[str]]:
    names = [CHOSEN, CHOSEN_POOLED, *PREFERRED, UNALIGNED]
    rows = [[name, *(_area(judged, name) for judged in splits)] for name in names]
    return [row for row in rows if any(row[1:])]


def _area(judged: Judged, name: str) -> str:
    if name not in judged.places:
        return ""
    reference = judged.split.reference.get(name)
    return _figure(judged.auc(name)) + (f" ({_figure(reference)})" if reference is not None else "")


def _levels(splits: Sequence[Judged]) -> list[list[str]]:
    """Observed over expected of what was chosen, and in how many draws it was within the target's limits."""
    low, high = WELL_CALIBRATED
    rows = []
    for key in (CHOSEN, CHOSEN_POOLED):
        cells = []
        for judged in splits:
            found, by_draw = judged.calibration(key), judged.observed_expected[key]
            within = int(((by_draw >= low) & (by_draw <= high)).sum())
            cells.append(f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}], {within} of {judged.draws}")
        rows.append([f"observed/expected of {key}, draws within {low} to {high}", *cells])
    return rows


def _row_of(contrast: Contrast, splits: Sequence[Judged]) -> list[str]:
    found = [contrast.ask(judged) for judged in splits]
    return [contrast.title, *("" if one is None else _difference(one) for one in found)]


def _choices(splits: Sequence[Judged], choices: Mapping[str, Choices]) -> list[list[str]]:
    keys = dict.fromkeys(key for of_split in choices.values() for key in of_split)
    return [[key, *(_counted(choices[judged.split.name].get(key, ())) for judged in splits)] for key in keys]


def _counted(values: Sequence[str]) -> str:
    return ", ".join(f"{value} {count}" for value, count in Counter(values).most_common())


def _verdicts(splits: Sequence[Judged]) -> list[str]:
    """A line a split and method; `does nothing` where the interval holds 0."""
    lines = []
    for judged in splits:
        for method, contrasts in groupby(OF_METHODS, lambda one: one.method):
            said = [
                f"{one.first} {found.verdict} over {one.second[0]} ({_difference(found)})"
                for one in contrasts
                if (found := one.ask(judged))
            ]
            if said:
                lines.append(f"- {judged.split.title}: {method}: {'; '.join(said)}")
    return lines


def _targets(splits: Sequence[Judged]) -> list[str]:
    lines = []
    for judged in splits:
        for target in check_targets(judged):
            said = "met" if target.missed_by == 0 else f"missed by {target.missed_by:.4f}"
            found = target.found
            interval = f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"
            lines.append(f"- {target.split.title}: {target.title}: {said}, {interval}")
    return lines


def _difference(found: Interval) -> str:
    star = "" if found.verdict == "does nothing" else "*"
    return f"{found.value:+.3f}{star} [{found.low:+.3f}, {found.high:+.3f}]"


def _figure(auc: float) -> str:
    return f"{auc:.3f}".lstrip("0")


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)

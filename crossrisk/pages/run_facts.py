"""What the decision memo and the model card both say of a run: label, rows, contenders, change, limits.

Pure: the result document (`tasks.report.build_result`, schema_version 1) in, plain data and sentences out; numbers stay
numbers. What each page adds is in `memo` and `model_card`; how it is laid out, their templates.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from crossrisk.pages.networks import chosen_trainings, read_trainings, stop_aucs
from crossrisk.pages.plots import part_order
from crossrisk.pages.reporting import contender_lines
from crossrisk.pages.texts import DASH, Document, environment, markdown_text, metric_text
from crossrisk.rules import alpha_of_look
from crossrisk.store import digest_of

Json = dict[str, Any]

COMPARED_METRICS = ("auc", "ks", "observed_expected")
"""By which contenders stand beside each other: ranking, and whether the level is right."""
PART_USES: Mapping[str, str] = {
    "source_fit": "fits",
    "source_stop": "stops",
    "target_fit": "fits",
    "target_select": "chooses",
    "target_test": "judges",
    "target_unlabelled": "aligns, judges",
}
PSI_WORDS: Mapping[str, str] = {
    "ok": "not told apart",
    "detected, small": "apart, little",
    "amber": "apart",
    "red": "far apart",
    "small sample": "too few rows to tell",
}
"""Between populations a shift is expected: no alarm colour."""
PSI_PAIRS = ("target against source", "test against fitting")
"""Populations that are compared: the adapted v the known one, and the months that judge v those that trained."""


def check_schema(result: Document) -> None:
    """Refuse a result that another release wrote.

    Raises:
        ValueError: another schema_version than 1.
    """
    if result["schema_version"] != 1:
        raise ValueError(
            f"result of schema_version {result['schema_version']}, expected 1; tell it with the release that wrote it"
        )


# --- what the run rests on ---


def describe_label(result: Document) -> Json:
    """The label contract, as configured and as one sentence."""
    label = result["config"]["label"]
    event = label.get("event") or f"{label['column']} = 1"
    months, lag, known = label["window_months"], label["reporting_lag_days"], label["known_date"]
    said = [f"Bad: {event}"]
    said.append(f"within {months} months on book" if months else "as finally resolved, no window")
    if lag:
        said.append(f"known {lag} days after the window closes")
    if known:
        said.append(f"not before {known}")
    if label.get("within_window"):
        said.append("an event known after the window is none of this label")
    if label.get("grey"):
        said.append(f"neither good nor bad where {label['grey']}")
    unknown = f"What has not matured by {result['as_of']} is unknown, never good."
    return {"contract": dict(label), "sentence": f"{'; '.join(said)}. {unknown}"}


def describe_populations(result: Document) -> list[Json]:
    """Source and target: rule, rows kept, matured labels, bads."""
    rules, counts = result["config"]["population"], result["labels"]["populations"]
    return [
        {"population": name, "rule": rules[name] or "every row of its own input", **counts.get(name, {})}
        for name in ("source", "target")
    ]


def describe_parts(result: Document) -> list[Json]:
    """Every part of the split, in the order of its use: months, rows, labels, bads."""
    parts = sorted(result["split"]["parts"].items(), key=lambda item: part_order(item[0]))
    return [{"part": name, "use": PART_USES.get(name, ""), **counts} for name, counts in parts]


def describe_training_priors(result: Document) -> list[Json]:
    """Bad rate of the labelled rows of each part that is fitted on; None where a part has no label that is used."""
    fitted = [part for part in describe_parts(result) if part["part"] in ("source_fit", "target_fit")]
    return [
        {
            "part": part["part"],
            "bads": part["bads_used"],
            "rows": part["labelled"],
            # a label budget uses some labels only, and how many goods came with them is not counted
            "bad_rate": part["bads"] / part["labelled"] if part["bads"] and part["bads"] == part["bads_used"] else None,
        }
        for part in fitted
    ]


def describe_contenders(result: Document) -> list[Json]:
    """Every contender and the champion, losers and unfitted ones too: highest AUC first."""
    return [
        {
            "name": line.name,
            "role": line.role,
            "notes": list(line.notes),
            "select_auc": line.select_auc,
            "metrics": {key: dict(metric) for key, metric in sorted(line.metrics.items())},
        }
        for line in contender_lines(result)
    ]


def describe_spread(result: Document) -> list[Json]:
    """How much the seed alone moves a contender that was fitted with several: AUC by seed, lowest, highest, spread."""
    found = []
    forest = [one["auc"] for one in result["forest_spread"] if one["auc"] is not None]
    if len(forest) > 1:
        found.append(_spread("source_forest", "judged rows", forest))
    for name, history in read_trainings(result).items():
        networks = stop_aucs(chosen_trainings(history))
        if len(networks) > 1:
            found.append(_spread(name, "rows that chose the stop", networks))
    return found


def _spread(name: str, rows: str, aucs: Sequence[float]) -> Json:
    low, high = min(aucs), max(aucs)
    return {"contender": name, "rows": rows, "auc": list(aucs), "low": low, "high": high, "spread": high - low}


def describe_calibration(result: Document) -> Json:
    """Calibration of the challenger: what was fitted on target_select, and what the judged rows say of it."""
    name = result["challenger"]
    fitted = result["contender_facts"][name]["calibration"] or {}
    return {
        "prior_shift": fitted.get("prior_shift"),
        "intercept": fitted.get("intercept"),
        "slope": fitted.get("slope"),
        "judged_slope": dict(result["calibration_slope"]),
        "observed_expected": dict(result["contenders"][name]["observed_expected"]),
    }


def describe_stability(result: Document) -> list[Json]:
    """PSI of the challenger's probability between populations and between months, with the noise behind it."""
    found = [(pair, result["population_psi"][pair]) for pair in PSI_PAIRS if pair in result["population_psi"]]
    return [{"pair": pair, **one, "reading": PSI_WORDS[one["verdict"]]} for pair, one in found]


def describe_diagnosis(result: Document) -> Json:
    """What the shift diagnosis found, in sentences."""
    diagnosis = result["diagnosis"]
    sentences = [text for text in (diagnosis.get("meaning"), *diagnosis.get("sentences", ())) if text]
    return {
        "drivers_shift": diagnosis.get("risk_drivers"),
        "sentences": sentences or ["Not diagnosed in this run."],
    }


def describe_group_columns(lines: Sequence[Document], *, minimum: int, most: int) -> list[Json]:
    """Groups by column, the largest first: those that a page has room for, how many more, the lowest approval ratio.

    Args:
        lines: of `tasks.breakdowns.group_table`: by column, rows descending.
        minimum: bads and goods of a group that is judged.
        most: groups shown, of all columns together.
    """
    columns = list(dict.fromkeys(line["column"] for line in lines))
    each, left = max(1, most // max(len(columns), 1)), most
    found = []
    for column in columns:
        groups = [dict(line) for line in lines if line["column"] == column]
        shown = min(each, left)
        left -= shown
        found.append({"column": column, "groups": groups, "shown": shown, "minimum": minimum, **_lowest(groups)})
    return found


def _lowest(groups: Sequence[Json]) -> Json:
    """The judged group with the lowest approval ratio."""
    judged = [one for one in groups if one["status"] == "ok" and one["approval_ratio"] is not None]
    lowest = min(judged, key=lambda one: (one["approval_ratio"], one["segment"]), default=None)
    return {
        "judged": sum(one["status"] == "ok" for one in groups),
        "lowest_approval_ratio": lowest["approval_ratio"] if lowest else None,
        "lowest_approval_group": lowest["segment"] if lowest else None,
    }


# --- features and what changed ---


def define_features(features: Document) -> dict[str, Json]:
    """Name -> kind, source columns and definition of each feature that a [features] table asks for."""
    codes = features["sentinels"]
    found: dict[str, Json] = {}
    for name in features["numeric"]:
        missing = f"; missing where {', '.join(f'{code:g}' for code in codes[name])}" if codes.get(name) else ""
        found[name] = {"kind": "number", "columns": [name], "definition": f"as it is{missing}"}
    for name in features["categorical"]:
        found[name] = {"kind": "category", "columns": [name], "definition": "one slot a level"}
    for name, (numerator, denominator) in sorted(features["ratios"].items()):
        columns = [numerator, denominator]
        found[name] = {"kind": "ratio", "columns": columns, "definition": f"{numerator} / {denominator}"}
    for name, column in sorted(features["ages"].items()):
        found[name] = {"kind": "age", "columns": [column], "definition": f"months from {column} to the decision"}
    # keys that configs of an earlier release do not have
    for name, (minuend, subtrahend) in sorted(features.get("differences", {}).items()):
        columns = [minuend, subtrahend]
        found[name] = {"kind": "difference", "columns": columns, "definition": f"{minuend} - {subtrahend}"}
    for name, (column, part) in sorted(features.get("date_parts", {}).items()):
        found[name] = {"kind": "date part", "columns": [column], "definition": f"{part} of {column}"}
    for name, encodings in features.get("encodings", {}).items():
        found[name]["definition"] += f"; enters as {', '.join(encodings)}"
    for name, log in features.get("logs", {}).items():
        found[name]["definition"] += f"; {log}"
    for name, (number, statistic, by) in sorted(features.get("aggregates", {}).items()):
        definition = f"{statistic} of {number} among training rows of the same {by}"
        found[name] = {"kind": "aggregate", "columns": [by], "definition": definition}
    return found


def describe_change(result: Document) -> Json:
    """Material class of the change, and what differs from the champion before, in sentences.

    Classes: first model; other label contract, other populations, other features, other kind of model (any of them);
    else refit of the same kind.
    """
    champion, challenger = result["champion"], result["challenger"]
    if champion["before"] is None:
        return {"classes": ["first model"], "sentences": ["There is no champion to replace."]}
    old, new = champion["manifest"]["config"], result["config"]
    classes, sentences = [], []
    for key, title in (("label", "other label contract"), ("population", "other populations")):
        differing = _differing(old[key], new[key])
        if differing:
            classes.append(title)
            sentences += [f"{key}.{name}: {_said(old[key], name)} → {_said(new[key], name)}." for name in differing]
    features = _compare_features(define_features(old["features"]), define_features(new["features"]))
    if features:
        classes.append("other features")
        sentences += features
    if champion["before_contender"] != challenger:
        classes.append("other kind of model")
        sentences.append(f"Kind of model: {champion['before_contender']} → {challenger}.")
    fitted = f"Fitted as of {result['as_of']}; the champion as of {champion['manifest']['as_of']}."
    return {"classes": classes or ["refit of the same kind"], "sentences": [*sentences, fitted]}


def _differing(old: Document, new: Document) -> list[str]:
    """Keys of another value; a key that an earlier release did not know is no change while it is not set."""
    return sorted(key for key in {*old, *new} if (old.get(key) or None) != (new.get(key) or None))


def _said(table: Document, key: str) -> str:
    return str(table.get(key) or "not set")


def _compare_features(old: Mapping[str, Json], new: Mapping[str, Json]) -> list[str]:
    changed = {
        "Features added": sorted(set(new) - set(old)),
        "Features dropped": sorted(set(old) - set(new)),
        "Features defined otherwise": sorted(name for name in set(old) & set(new) if old[name] != new[name]),
    }
    return [f"{title} ({len(names)}): {_first(names)}." for title, names in changed.items() if names]


def _first(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def digest_inputs(result: Document) -> str:
    """Digest of paths and SHA-256 of all input files."""
    return digest_of([[file["path"], file["sha256"]] for file in result["input"]["files"]])


# --- limits ---


def list_limits(result: Document) -> list[str]:
    """What the numbers of this run do not say, one sentence each."""
    return [
        "Accepted applicants only: of those who were declined no outcome is in the data, so nothing here holds for a "
        "wider acceptance.",
        _say_bads(result),
        "Intervals hold the luck of the judged rows; not that of the seed, and not that of the months.",
        *_say_rows(result),
        *result["judged"]["notes"],
        f"Not measured: {'; '.join(_unmeasured(result))}.",
    ]


def _say_bads(result: Document) -> str:
    auc, bads = result["contenders"][result["challenger"]]["auc"], result["judged"]["bads"]
    minimum = result["gate"]["min_test_bads"]
    if auc["status"] != "ok":
        return f"Few bads: {bads} in the test, {minimum} bads and goods needed: nothing is claimed about the target."
    if auc["low"] is None or auc["high"] is None:
        return f"{bads:,} bads judge; the AUC has no interval."
    return f"{bads:,} bads judge: they tell the AUC to within about ±{(auc['high'] - auc['low']) / 2:.3f}, no better."


def _say_rows(result: Document) -> list[str]:
    """How the judging rows were drawn, and how often they were looked at."""
    judged, alpha = result["judged"], result["gate"]["alpha"]
    said = []
    if result["preset"] == "article":
        said.append(
            "Preset article: published whatever the comparison says; the rows that judge lent their features to the "
            "alignment, and the stop was chosen on target_select."
        )
    elif judged["months"]:
        said.append(
            "The test is whole months, not stratified: its mix of customers is that of those months, and may differ."
        )
    else:
        said.append("The portfolio has no decision date: the test is drawn by lot and is not out of time.")
    if result["preset"] != "article":
        said.append("target_select chose challenger and calibration: AUC there is optimistic and decides nothing.")
    if judged["look"] > 1:
        said.append(
            f"Repeated look {judged['look']}: earlier decisions about this champion saw rows of the same months; the "
            f"paired test is held at {alpha_of_look(alpha, judged['look']):.4f}, not at {alpha:g}."
        )
    return said


def _unmeasured(result: Document) -> list[str]:
    # an undecided primary rule is insufficient evidence, and was measured
    unknown = [one["rule"] for one in result["checks"] if one["outcome"] == "unknown" and one["rule"] != "primary"]
    missing = [f"{rule} (see the gate)" for rule in unknown]
    if result["diagnosis"].get("risk_drivers") is None:
        missing.append("whether risk drivers differ between the populations")
    if not result["config"]["use"]["segments"]:
        missing.append("segments (none configured)")
    if not result["config"]["features"]["protected"]:
        missing.append("protected groups (none configured)")
    return [*missing, "reasons for a single customer", "profit and loss", "behaviour under another economy"]


# --- Markdown ---


def markdown_environment() -> jinja2.Environment:
    """The pages' templates for Markdown: every value that is printed is shown as it is, by default.

    A template's own text is Markdown; what stands in double braces never is, and cannot break out of its line or cell.
    """
    made = environment().overlay(autoescape=False, finalize=_as_text)
    made.filters |= {"metric": metric_text}
    return made


def _as_text(value: object) -> str:
    return DASH if value is None else markdown_text(re.sub(r"\s+", " ", str(value)))

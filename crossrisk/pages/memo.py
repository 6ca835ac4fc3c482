"""The decision memo of a run: two pages for whoever signs, as data, as HTML and as Markdown.

Pure: the result document (`tasks.report.build_result`, schema_version 1) in; the same document gives the same bytes.
`build_memo` says everything, with numbers as numbers; the templates memo.html.j2 and memo.md.j2 only lay it out and
leave room for a signature. Names come from data and are untrusted everywhere. No number is computed here that the
decision rests on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crossrisk.pages.networks import describe_network, read_trainings
from crossrisk.pages.reporting import CHAMPION, OUTCOMES, SHOWN_METRICS, VERDICTS
from crossrisk.pages.run_facts import (
    COMPARED_METRICS,
    Json,
    check_schema,
    describe_calibration,
    describe_change,
    describe_contenders,
    describe_diagnosis,
    describe_group_columns,
    describe_label,
    describe_parts,
    describe_populations,
    describe_spread,
    describe_stability,
    digest_inputs,
    list_limits,
    markdown_environment,
)
from crossrisk.pages.texts import Document, Words, environment
from crossrisk.rules import alpha_of_look
from crossrisk.store import digest_of

MOST_REASONS = 3
"""Reasons on the page; a rejection may have a dozen, and each stands in the list of rules too."""
MOST_GROUPS = 8
"""Segments, and protected groups, on the page: what two sheets hold beside nine contenders. All are in the JSON."""
_METRICS = {key: (title, digits) for key, title, digits in SHOWN_METRICS} | {"gini": ("Gini", 3)}
_UNKNOWN_OUTCOMES = "Unknown outcomes: declined applicants are not in the data; who is swapped in was once approved."


# --- the memo as data ---


def build_memo(result: Document) -> Json:
    """Everything that the memo says, as plain data: numbers as numbers, None where undefined.

    Args:
        result: the result document, schema_version 1.

    Raises:
        ValueError: another schema_version.
        KeyError: the document lacks a part.
    """
    check_schema(result)
    gate = result["gate"]
    return {
        "schema_version": 1,
        "kind": "decision memo",
        **{key: result[key] for key in ("run_id", "portfolio", "as_of", "preset", "challenger", "requested_by")},
        "recommendation": _recommend(result),
        "headline": _headline(result),
        "leaks": list(result["leaks"]["leaks"]),
        "replacement": _replacement(result),
        "populations": describe_populations(result),
        "label": describe_label(result),
        "parts": describe_parts(result),
        "judged": {key: result["judged"][key] for key in ("part", "rows", "bads", "months", "look")},
        "confidence": result["gate_confidence"],
        "contenders": describe_contenders(result),
        "comparison": _compare(result),
        "checks": [dict(check) for check in result["checks"]],
        "seed_spread": describe_spread(result),
        "calibration": describe_calibration(result),
        "stability": describe_stability(result),
        "diagnosis": describe_diagnosis(result),
        "network": _describe_network(result),
        "segments": describe_group_columns(result["segments"], minimum=gate["min_segment_bads"], most=MOST_GROUPS),
        "protected": describe_group_columns(result["protected"], minimum=gate["min_segment_bads"], most=MOST_GROUPS),
        "cutoff": {
            "probability": result["cutoff"]["probability"],
            "models": [dict(line) for line in result["cutoff"]["table"]],
            "swap_set": [dict(line) for line in result["swap_set"]],
            "note": _UNKNOWN_OUTCOMES,
        },
        "limits": list_limits(result),
        "fallback": _fall_back(result),
        "expires": result["expires"],
        "signature": {"approver": None, "date": None, "conditions": None},
        "input": {"files": [dict(file) for file in result["input"]["files"]], "digest": digest_inputs(result)},
        "config_digest": digest_of(result["config"]),
    }


def _recommend(result: Document) -> Json:
    verdict, challenger, before = result["verdict"], result["challenger"], result["champion"]["before"]
    words = VERDICTS.get(verdict, Words("◆", verdict, ""))
    failed, waits = _failed_rules(result), result["decided_by"] or result["run_id"]
    titles = {
        "promote": f"Promote {challenger}",
        "bootstrap": f"Bootstrap with {challenger}",
        "keep": "Keep the champion: insufficient evidence",
        "reject": f"Reject {challenger}: {', '.join(failed)}" if failed else f"Reject {challenger}",
        "needs_approval": f"{challenger} needs approval",
        "override": f"Override: {challenger} was published by a named person",
    }
    consequences = {
        "promote": f"It replaces version {before}.",
        "bootstrap": "There was no champion; it is the first.",
        "keep": f"Version {before} stays; a normal answer. Nothing was published.",
        "reject": "Nothing was published; " + (f"version {before} stays." if before else "there is still no champion."),
        "needs_approval": "Nothing has moved. A named person other than the requester decides: "
        f"crossrisk promote CONFIG --run {waits} --decision approve --by NAME --reason TEXT (or reject).",
    }
    return {
        "verdict": verdict,
        "sign": words.sign,
        "title": titles.get(verdict, f"{words.word}: {challenger}"),
        "consequence": consequences.get(verdict, words.meaning),
        "reasons": list(result["reasons"]),
        "failed_rules": failed,
    }


def _failed_rules(result: Document) -> list[str]:
    """The rules for which a challenger was refused: those that fail, else those whose number is missing."""
    if result["verdict"] != "reject":
        return []
    by_outcome = {
        outcome: [check["rule"] for check in result["checks"] if check["outcome"] == outcome]
        for outcome in ("fail", "unknown")
    }
    return by_outcome["fail"] or by_outcome["unknown"]


def _headline(result: Document) -> Json:
    """The one number: the difference that the primary rule looks at, or the AUC where there is no champion."""
    metric, challenger = result["gate"]["primary_metric"], result["challenger"]
    is_difference = metric in result["differences"]
    if is_difference:
        what, confidence = f"{_METRICS[metric][0]} of {challenger} minus the champion's", _confidence_of_look(result)
        found = result["differences"][metric]
    else:
        metric = "auc"
        what, confidence = f"AUC of {challenger}", result["gate_confidence"]
        found = result["contenders"][challenger]["auc"]
    return {
        "what": what,
        "metric": metric,
        "digits": _METRICS[metric][1],
        "is_difference": is_difference,
        "confidence": confidence,
        **{key: found[key] for key in ("value", "low", "high", "status")},
    }


def _confidence_of_look(result: Document) -> float:
    return 1 - alpha_of_look(result["gate"]["alpha"], result["judged"]["look"])


def _replacement(result: Document) -> Json:
    champion = result["champion"]
    before = champion["manifest"] if champion["before"] is not None else None
    return {
        "champion": champion["before"],
        "champion_contender": champion["before_contender"],
        "champion_as_of": before["as_of"] if before else None,
        "champion_expires": before["expires"] if before else None,
        "contender": result["challenger"],
        "version": result["version"],
        "change": describe_change(result),
    }


def _compare(result: Document) -> Json:
    """Challenger minus champion on the same rows, and the terms on which the primary rule looks at it."""
    gate, look = result["gate"], result["judged"]["look"]
    lines = [
        {"metric": key, "title": _METRICS[key][0], "digits": _METRICS[key][1], "p": None, **result["differences"][key]}
        for key in dict.fromkeys([gate["primary_metric"], *(key for key, _, _ in SHOWN_METRICS)])
        if key in result["differences"]
    ]
    return {
        "lines": lines,
        "primary_metric": gate["primary_metric"],
        "rule": gate["rule"],
        "margin": gate["margin"],
        "alpha": gate["alpha"],
        "look": look,
        "alpha_of_look": alpha_of_look(gate["alpha"], look),
        "confidence": _confidence_of_look(result),
        "sentence": _say_terms(result),
    }


def _say_terms(result: Document) -> str:
    gate, judged = result["gate"], result["judged"]
    look = judged["look"]
    spent = f"alpha {gate['alpha']:g}, of which this look may spend {alpha_of_look(gate['alpha'], look):.4f}"
    repeated = "the first look at these rows" if look == 1 else f"look {look}: rows seen by earlier decisions count"
    return f"Rule {gate['rule']} of {gate['primary_metric']}, margin {gate['margin']:g}; {spent} ({repeated})."


def _describe_network(result: Document) -> Json | None:
    """Of a challenger that is a network: how far apart its layers still are, the target's bad rate that it was told."""
    history = read_trainings(result).get(result["challenger"])
    if history is None:
        return None
    network = describe_network(result["challenger"], history)
    return {key: network[key] for key in ("method", "mmd_weight", "layers", "target_prior", "sentences")}


def _fall_back(result: Document) -> Json:
    """Which version answers if this one must not, and the command that makes it so."""
    before, version = result["champion"]["before"], result["version"]
    if version is None:
        answers = f"version {before} goes on answering" if before else "no version answers yet"
        said = f"Nothing was published: {answers}, and nothing has to be taken back."
        return {"version": before, "command": None, "sentence": said}
    if before is None:
        said = (
            "There is no earlier version to go back to: take the model out of service where it is served, and what "
            "decided before it decides again."
        )
        return {"version": None, "command": None, "sentence": said}
    said = (
        f"Version {before} is kept whole. The command verifies it and publishes it again under a new, higher number, "
        "so that every reader of the newest version follows; who asked for it and why is kept in the ledger."
    )
    command = f"crossrisk rollback CONFIG --to {before} --by NAME --reason TEXT"
    return {"version": before, "command": command, "sentence": said}


# --- the memo as pages ---


def render_memo_html(memo: Document) -> str:
    """The memo as one HTML page that prints on two A4 sheets: no script, nothing fetched, every name escaped.

    Args:
        memo: of `build_memo`.
    """
    return environment().get_template("memo.html.j2").render(_view(memo))


def render_memo_markdown(memo: Document) -> str:
    """The memo as Markdown; no name from the data is read as Markdown or HTML.

    Args:
        memo: of `build_memo`.
    """
    return markdown_environment().get_template("memo.md.j2").render(_view(memo))


def _view(memo: Document) -> Mapping[str, Any]:
    """What both layouts need beside the memo: words for outcomes, columns of the contender table, room for reasons."""
    return {
        "memo": memo,
        "outcomes": OUTCOMES,
        "columns": [(key, *_METRICS[key]) for key in COMPARED_METRICS],
        "champion": CHAMPION,
        "most_reasons": MOST_REASONS,
    }

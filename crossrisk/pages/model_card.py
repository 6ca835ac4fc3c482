"""The model card of a run: what the challenger is, what it is for, what it was made of, how it did, how it is watched.

Pure: the result document (`tasks.report.build_result`, schema_version 1) in; the same document gives the same bytes.
`build_card` says everything, with numbers as numbers; the templates card.html.j2 and card.md.j2 only lay it out. What
nobody measured or named is said to be so, never made up. Thresholds of the watch are those of `crossrisk.monitoring`
and `crossrisk.stability`. Names come from data and are untrusted everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from crossrisk.monitoring import MONTHS_SHOWN
from crossrisk.pages.networks import chosen_trainings, describe_network, read_trainings
from crossrisk.pages.reporting import SHOWN_METRICS
from crossrisk.pages.run_facts import (
    COMPARED_METRICS,
    Json,
    check_schema,
    define_features,
    describe_calibration,
    describe_change,
    describe_contenders,
    describe_diagnosis,
    describe_label,
    describe_parts,
    describe_populations,
    describe_spread,
    describe_stability,
    describe_training_priors,
    digest_inputs,
    list_limits,
    markdown_environment,
)
from crossrisk.pages.texts import Document, environment
from crossrisk.stability import AMBER_P, AMBER_PSI, DETECTED_P, NULL_TAIL, RED_PSI, ZERO_RULE
from crossrisk.store import digest_of

NOT_NAMED = "not named in the portfolio"
NOT_MEASURED = "not measured"
NOT_DECLARED = "not declared"
MOST_GROUPS = 30
"""Groups of a column on the page, the largest first: a postcode has hundreds. All are in the JSON."""

KINDS: Mapping[str, str] = {
    "source_logistic": "logistic regression with L2 penalty, fitted on source labels",
    "source_boosted": "gradient boosted trees, fitted on source labels",
    "source_forest": "random forests of several seeds, averaged, fitted on source labels",
    "target_logistic": "logistic regression with L2 penalty, fitted on target labels",
    "target_boosted": "gradient boosted trees, fitted on target labels",
    "pooled_logistic": "logistic regression with L2 penalty on both populations; the population is a feature, "
    "constant at serving",
    "pooled_boosted": "gradient boosted trees on both populations; the population is a feature, constant at serving",
    "stacked": "logistic regression on target labels over the logit of a source model and a few features",
    "source_network": "ensemble of neural networks, fitted on source labels, nothing adapted",
    "fine_tuned": "ensemble of neural networks fitted on source labels, with a new head then tuned on target labels, "
    "the layers below it slower and later",
    "dan": "deep adaptation network: an ensemble of networks shared by source and target, whose inner pictures of the "
    "two are drawn together by maximum mean discrepancy (MMD)",
    "ddc": "deep domain confusion: an ensemble of networks shared by source and target, drawn together in one narrow "
    "layer by maximum mean discrepancy (MMD) with one kernel",
    "deep_coral": "deep CORAL: an ensemble of networks shared by source and target, whose inner pictures of the two "
    "are given alike variances and correlations",
    "dann": "domain-adversarial networks: an ensemble of networks shared by source and target, trained so that a "
    "classifier cannot tell from their inner pictures which of the two a row comes from",
    "dsan": "deep subdomain adaptation: an ensemble of networks shared by source and target, whose inner pictures of "
    "bads, and of goods, are drawn together by maximum mean discrepancy (MMD)",
}
"""What each contender is; how it is fitted: docs/method.md."""


# --- the card as data ---


def build_card(result: Document) -> Json:
    """Everything that the card says, as plain data: numbers as numbers, None where undefined or not measured.

    Args:
        result: the result document, schema_version 1.

    Raises:
        ValueError: another schema_version.
        KeyError: the document lacks a part.
    """
    check_schema(result)
    challenger, gate = result["challenger"], result["gate"]
    return {
        "schema_version": 1,
        "kind": "model card",
        "identity": _identify(result),
        "use": _describe_use(result),
        "populations": describe_populations(result),
        "label": describe_label(result),
        "parts": describe_parts(result),
        "lineage": _trace(result),
        "features": _describe_features(result),
        "protected_columns": list(result["config"]["features"]["protected"]),
        "architecture": _describe_architecture(result),
        "training_priors": describe_training_priors(result),
        "alternatives": describe_contenders(result),
        "results": {
            "judged": {key: result["judged"][key] for key in ("part", "rows", "bads", "months", "look")},
            "confidence": result["gate_confidence"],
            "metrics": {key: dict(metric) for key, metric in sorted(result["contenders"][challenger].items())},
            "slices": [dict(line) for line in result["segments"]],
            "minimum": gate["min_segment_bads"],
        },
        "calibration": describe_calibration(result),
        "stability": {
            "populations": describe_stability(result),
            "score_psi_against_champion": result["evidence"]["score_psi"],
            "seed_spread": describe_spread(result),
            "zero_rule": ZERO_RULE,
        },
        "diagnosis": describe_diagnosis(result),
        "explanation": "Not yet: no importance of a feature and no reasons for a single customer are computed.",
        "fairness": [dict(line) for line in result["protected"]],
        "limits": [*(f"Possible leak: {leak}" for leak in result["leaks"]["leaks"]), *list_limits(result)],
        "monitoring": _plan_monitoring(result),
        "changes": _list_changes(result),
    }


def _identify(result: Document) -> Json:
    config, version = result["config"], result["version"]
    status = f"published as version {version}" if version else f"not published: {result['verdict']}"
    return {
        **{key: result[key] for key in ("portfolio", "run_id", "as_of", "preset", "version", "expires")},
        "contender": result["challenger"],
        "status": status,
        "owner": config.get("owner") or NOT_NAMED,
        "tier": config.get("tier") or NOT_NAMED,
        "requested_by": result["requested_by"],
        "model_digest": digest_of(result["candidate"]["files"]),
        "model_files": dict(result["candidate"]["files"]),
        "code_digest": result["code"],
        "config_digest": digest_of(config),
        "input_digest": digest_inputs(result),
        "size_mb": result["candidate"]["size_mb"],
        "latency_p95_ms": result["candidate"]["latency"]["p95_ms"],
        "verified_difference": result["verified_difference"],
    }


def _describe_use(result: Document) -> Json:
    use, name = result["config"]["use"], result["portfolio"]
    cutoff = use["cutoff_probability"]
    scale = (
        f"Its score is {use['score_at_odds']:g} points at {use['odds']:g} goods to a bad, "
        f"{use['points_to_double']:g} more where the odds double."
    )
    return {
        "intended": [
            f"The probability that an applicant of the target of {name} becomes bad, as the label below says.",
            f"Applicants above {cutoff:.1%} are declined." if cutoff is not None else "No cut-off is configured.",
            scale,
        ],
        "forbidden": [
            "Other populations than the target, the source included: it is judged on target rows alone.",
            "Kinds of applicants that used to be declined: no outcome of theirs is in the data.",
            "As the reasons for a decision about a person: it gives none.",
            "As a finding of fairness or of lawfulness: its tables are evidence, for people to judge.",
            f"After {result['expires']} without a review.",
        ],
    }


def _trace(result: Document) -> Json:
    """Where the rows come from, and how many were left out on the way."""
    given, validation = result["input"], result["validation"]
    months = sorted({line["month"] for line in given["months"] if line["month"]})
    return {
        "files": [dict(file) for file in given["files"]],
        "rows": given["rows"],
        "first_month": months[0] if months else None,
        "last_month": months[-1] if months else None,
        "left_out": [{"reason": reason, "rows": rows} for reason, rows in sorted(result["labels"]["left_out"].items())],
        "validation": validation["outcome"],
        "quarantined_ids": validation.get("quarantined_ids"),
        "warnings": list(given["warnings"]),
    }


def _describe_features(result: Document) -> list[Json]:
    """Every feature with its source; what nobody declared or measured says so."""
    config = result["config"]["features"]
    dropped, known = set(result["features"]["dropped"]), config.get("timestamps") or {}
    return [
        {
            "name": name,
            **one,
            "known_at": ", ".join(known[column] for column in one["columns"] if column in known) or NOT_DECLARED,
            "expected_direction": NOT_DECLARED,
            "importance": NOT_MEASURED,
            "enters": name not in dropped,
        }
        for name, one in define_features(config).items()
    ]


def _describe_architecture(result: Document) -> Json:
    challenger, history = result["challenger"], read_trainings(result).get(result["challenger"])
    described: Json = {"contender": challenger, "kind": KINDS.get(challenger, challenger), "network": None}
    if history is None:
        return described
    network = describe_network(challenger, history)
    kept = ("seed", "best_step", "stopped_step", "stop_reason")
    preset = "article" if result["preset"] == "article" else challenger
    return described | {
        "network": {
            **{key: network[key] for key in ("method", "mmd_weight", "layers", "target_prior", "sentences")},
            # an earlier release chose on the stop rows
            "grid": [
                {"mmd_weight": one["mmd_weight"], "auc": one.get("choose_auc", one["stop_auc"])}
                for one in history["candidates"]
            ],
            "trainings": [{key: one[key] for key in kept} for one in chosen_trainings(history)],
            "settings": f"models/deep/presets.py, preset {preset}",
        }
    }


def _plan_monitoring(result: Document) -> Json:
    """What `crossrisk monitor` looks at each month, with the numbers that it looks with."""
    gate = result["gate"]
    low, high = gate["observed_expected"]
    enough = f"fewer than {gate['min_test_bads']} known bads or goods"
    return {
        "command": "crossrisk monitor CONFIG",
        "months_shown": MONTHS_SHOWN,
        "signals": [
            {
                "signal": "score PSI",
                "amber": f"{AMBER_PSI:g} or more, p below {AMBER_P:g}",
                "red": f"{RED_PSI:g} or more, p below {AMBER_P:g}",
                "grey": f"noise alone exceeds {AMBER_PSI:g} in {NULL_TAIL:.0%} of such months",
            },
            {
                "signal": "feature PSI",
                "amber": f"{RED_PSI:g} or more, p below {DETECTED_P:g} divided by the features watched",
                "red": "never: a feature alone may not move the score",
                "grey": "too few rows for any of them",
            },
            {
                "signal": "AUC",
                "amber": "the interval leaves out the AUC recorded at publication",
                "red": f"the interval ends below {gate['auc_floor']:.3f}",
                "grey": enough,
            },
            {
                "signal": "observed/expected",
                "amber": "the interval leaves out 1",
                "red": f"so, and the value lies outside {low:.2f} to {high:.2f}",
                "grey": enough,
            },
        ],
        "thresholds": {
            "amber_psi": AMBER_PSI,
            "red_psi": RED_PSI,
            "amber_p": AMBER_P,
            "feature_p": DETECTED_P,
            "null_tail": NULL_TAIL,
            "auc_floor": gate["auc_floor"],
            "observed_expected": [low, high],
            "min_bads": gate["min_test_bads"],
        },
        "review_by": result["expires"],
    }


def _list_changes(result: Document) -> Json:
    """Against the last version: what differs, and what was recorded of it when it was published."""
    champion = result["champion"]
    recorded = (champion["manifest"]["metrics"] or {}) if champion["before"] is not None else {}
    return {
        "version": champion["before"],
        "contender": champion["before_contender"],
        "recorded": {key: recorded.get(key) for key in ("auc", "observed_expected")},
        **describe_change(result),
    }


# --- the card as pages ---


def render_card_html(card: Document) -> str:
    """The card as one HTML page: no script, nothing fetched, every name escaped.

    Args:
        card: of `build_card`.
    """
    return environment().get_template("card.html.j2").render(_view(card))


def render_card_markdown(card: Document) -> str:
    """The card as Markdown; no name from the data is read as Markdown or HTML.

    Args:
        card: of `build_card`.
    """
    return markdown_environment().get_template("card.md.j2").render(_view(card))


def _view(card: Document) -> Mapping[str, Any]:
    """What both layouts need beside the card: the metrics' headings, and the lines of its tables by group."""
    return {
        "card": card,
        "columns": SHOWN_METRICS,
        "compared": [shown for shown in SHOWN_METRICS if shown[0] in COMPARED_METRICS],
        "slices": _by_column(card["results"]["slices"]),
        "fairness": _by_column(card["fairness"]),
    }


def _by_column(lines: Sequence[Document]) -> list[tuple[str, Sequence[Document], int]]:
    """(column, lines that are shown, how many smaller ones are not) of a table by group."""
    columns = {column: [line for line in lines if line["column"] == column] for column in _columns(lines)}
    return [(column, of[:MOST_GROUPS], len(of[MOST_GROUPS:])) for column, of in columns.items()]


def _columns(lines: Sequence[Document]) -> list[str]:
    return list(dict.fromkeys(line["column"] for line in lines))

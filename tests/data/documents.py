"""Result documents of made-up runs: what `tasks.report.build_result` would return, for the pages drawn from it."""

from __future__ import annotations

from typing import Any

import numpy as np

from crossrisk.config import Portfolio, expiry, parse_portfolio
from crossrisk.contenders import ADAPTERS, NETWORKS
from crossrisk.evidence import Evidence
from crossrisk.metrics import METRICS, Metric, curves, evaluate
from crossrisk.policy import decide
from crossrisk.stability import psi

Json = dict[str, Any]
HOSTILE = "<script>alert(1)</script>&\"'`x`|[a](http://b)*\r\n# c"
"""A name that is HTML, Markdown, a table cell and two lines."""
CONTENDERS = ("source_logistic", "source_forest", "pooled_boosted", "dan")


def portfolio(**changes: Any) -> Portfolio:
    """The portfolio of the document; `changes` replace whole tables."""
    toml = {
        "name": "toy",
        "as_of": "2024-09-30",
        "data": {"path": "loans.parquet", "id": "loan_id", "decision_date": "opened_on"},
        "label": {"column": "bad", "window_months": 6, "reporting_lag_days": 30},
        "population": {"source": "product = 'loan'", "target": "product = 'card'"},
        "features": {
            "numeric": ["income_usd", "flat"],
            "categorical": ["region"],
            "protected": ["sex"],
            "ratios": {"balance_to_income": ["balance_usd", "income_usd"]},
            "ages": {"history_months": "first_account_on"},
            "sentinels": {"balance_usd": [-1.0]},
        },
        "gate": {"replicates": 100, "observed_expected": [0.1, 10.0], "calibration_slope": [0.01, 100.0]},
        "use": {"cutoff_probability": 0.25, "segments": ["purpose"]},
    }
    return parse_portfolio(toml | changes, where="toy.toml")


def document(names: tuple[str, ...] = CONTENDERS, *, champion: bool = False, rows: int = 600) -> Json:
    """A plausible result: the last contender ranks best and is the challenger; months 2024-01 to 2024-06."""
    rng = np.random.default_rng(3)
    label = (rng.random(rows) < 0.15).astype(np.int8)
    judged = {
        name: 1 / (1 + np.exp(1.9 - rank / len(names) * label - rng.normal(0, 0.7, rows)))
        for rank, name in enumerate([*(["champion"] if champion else []), *names])
    }
    evaluation = evaluate(label, judged, replicates=100, seed=1)
    challenger = names[-1]
    config = portfolio()
    metrics = {name: {k: m.to_json() for k, m in by.items()} for name, by in evaluation.metrics.items()}
    differences = {k: evaluation.difference(challenger, "champion", k) for k in METRICS} if champion else {}
    bads = int(label.sum())
    slope = Metric(0.94, 0.61, 1.27, "ok", bads, rows - bads)
    evidence = Evidence(
        challenger=challenger,
        metrics={**evaluation.metrics[challenger], "calibration_slope": slope},
        champion=1725019200 if champion else None,
        differences=differences,
        source_only=False,
        score_psi=0.04 if champion else None,
        is_network=challenger in NETWORKS,
        source_auc_fall=0.004,
        latency_p95_ms=3.0,
        size_mb=1.2,
    )
    drawn = [challenger, *(["champion"] if champion else [])]
    return {
        "schema_version": 1,
        "run_id": "2024-09-30-abcd1234",
        "portfolio": "toy",
        "as_of": "2024-09-30",
        "preset": "honest",
        "verdict": "promote" if champion else "bootstrap",
        "reasons": [f"AUC of {challenger}: better beyond noise"],
        "challenger": challenger,
        "version": 1727697600,
        "decided_by": None,
        "serving": None,
        "champion": {
            "before": 1725019200 if champion else None,
            "before_contender": "source_logistic" if champion else None,
            "manifest": champion_manifest() if champion else None,
            "after": 1727697600,
        },
        "verified_difference": 6.1e-8,
        "contenders": metrics,
        "contender_facts": {
            name: {
                "fitted": True,
                "reason": None,
                "publishable": not name.startswith("pooled"),
                "select_auc": 0.6,
                "calibration": {"intercept": -0.1, "slope": 0.9},
            }
            for name in names
        },
        "differences": {key: one.to_json() for key, one in differences.items()},
        "checks": [check.to_json() for check in decide(evidence, config.gate).checks],
        "evidence": evidence.to_json(),
        "candidate": {
            "size_mb": 1.2,
            "latency": {"median_ms": 2.0, "p95_ms": 3.0, "calls": 200},
            "files": {"saved_model.pb": "cd" * 32},
        },
        "code": "0123456789abcdef",
        "vintages": None,
        "leaks": {"leaks": [], "strongest": {}},
        "diagnosis": {"risk_drivers": None},
        "judged": {
            "part": "target_test",
            "rows": rows,
            "bads": bads,
            "months": ["2024-06"],
            "look": 1,
            "notes": [],
        },
        "forest_spread": [{"auc": 0.61, "ks": 0.17}, {"auc": 0.62, "ks": 0.18}],
        "article": None,
        "segments": [group_line("purpose", "car", 0.63), group_line("purpose", "house", None)],
        "protected": [group_line("sex", "f", 0.6)],
        "swap_set": [
            {"set": name, "rows": rows // 4, "bads": 20, "bad_rate": 80 / rows, "mean_probability": 0.13}
            for name in ("approved by both", "swapped in", "swapped out", "declined")
        ]
        if champion
        else [],
        "population_psi": {
            "target against source": psi([90, 80, 70], [40, 60, 120]).to_json(),
            "test against fitting": psi([90, 80, 70], [44, 41, 36]).to_json(),
        },
        "calibration_slope": slope.to_json(),
        "config": config.model_dump(mode="json"),
        "expires": expiry(config).isoformat(),
        "requested_by": "a.analyst",
        "gate_confidence": 0.95,
        "cutoff": {
            "probability": 0.25,
            "table": [{"model": challenger, "approved_share": 0.71, "approved_bad_rate": None}],
        },
        "gate": config.gate.model_dump(mode="json"),
        "input": {
            "rows": 1300,
            "files": [{"path": "loans.parquet", "sha256": "ab" * 32}],
            "populations": {"source": 700, "target": 500, "neither": 100},
            "months": month_lines(),
            "warnings": ["column 'extra' is not used"],
        },
        "validation": validation_facts(),
        "labels": {
            "left_out": {"of no population": 100},
            "populations": {
                "source": {"rows": 700, "matured": 700, "bads": 70},
                "target": {"rows": 500, "matured": 400, "bads": 60},
            },
        },
        "split": split_facts(),
        "features": {"outputs": 12, "dropped": ["flat"]},
        "curves": {name: {k: v.tolist() for k, v in vars(curves(label, judged[name])).items()} for name in drawn},
        "histograms": {
            "edges": [0.0, 0.1, 0.2, 0.3],
            "shares": {"source": [0.5, 0.3, 0.2], "target": [0.4, 0.4, 0.2], "judged": [0.3, 0.4, 0.3]},
        },
        "trainings": {name: training_history(name) for name in names if name in NETWORKS},
        "reused": ["ingest"],
        "seconds": {"ingest": 0.4, "train dan": 31.2},
        "paths": {"model": None}
        | {name: f"runs/x/{name}.html" for name in ("report", "validation", "memo", "model_card")},
    }


def smallest() -> Json:
    """No champion, no network, no segments, no protected column, no cut-off, no date, one contender."""
    result = document(("source_logistic",), rows=80)
    result |= {"segments": [], "protected": [], "swap_set": [], "forest_spread": [], "population_psi": {}}
    result["verified_difference"] = None
    result["cutoff"] = {"probability": None, "table": []}
    result["judged"]["months"] = []
    result["config"]["use"] |= {"segments": [], "cutoff_probability": None}
    result["config"]["features"]["protected"] = []
    result["validation"] = {"outcome": "pass"}
    for part in result["split"]["parts"].values():
        part |= {"first_month": None, "last_month": None}
    for line in result["input"]["months"]:
        line["month"] = None
    return result


def champion_manifest(**changes: Any) -> Json:
    """What the document knows of the champion's own version; `changes` replace tables of its portfolio."""
    auc = Metric(0.61, 0.57, 0.65, "ok", 120, 500).to_json()
    return {
        "as_of": "2024-08-31",
        "run_id": "2024-08-31-0000aaaa",
        "expires": "2025-08-31",
        "metrics": {"auc": auc, "observed_expected": Metric(1.04, 0.9, 1.2, "ok", 120, 500).to_json()},
        "config": portfolio(**changes).model_dump(mode="json"),
    }


def month_lines() -> list[Json]:
    """Rows by population and month."""
    months = [f"2024-0{number}" for number in range(1, 7)]
    return [
        {"population": population, "month": month, "rows": 100, "matured": matured, "bads": 12}
        for population, matured in (("source", 100), ("target", 80), ("neither", 50))
        for month in months
    ]


def group_line(column: str, name: str, auc: float | None) -> Json:
    """One line of a table by group; without an AUC it is a small one."""
    known = Metric(auc, None, None, "ok" if auc else "insufficient", 40 if auc else 20, 160)
    return {
        "column": column,
        "segment": name,
        "rows": 200,
        "bads": known.n_bad,
        "bad_rate": 0.1,
        "mean_probability": 0.12,
        "status": known.status,
        "auc": known.to_json(),
        "observed_expected": Metric(0.83, 0.6, 1.1, known.status, known.n_bad, 160).to_json(),
        "approved_share": 0.7,
        "goods_approved": 0.72,
        "bads_approved": 0.5,
        "approval_ratio": 0.98,
    }


def validation_facts() -> Json:
    """What validation found: one rule holds, one does not."""
    check = {"type": "expect", "columns": ["income"], "why": "no income is negative", "owner": "data", "observed": None}
    failed = {"action": "warn", "success": False, "unexpected_count": 3, "unexpected_share": 0.002}
    held = {"action": "stop", "success": True, "unexpected_count": 0, "unexpected_share": 0.0}
    return {
        "outcome": "pass",
        "reasons": [],
        "rows": 1300,
        "quarantined_ids": 0,
        "quarantined_share": 0.0,
        "results": [
            {"rule": "id-unique", **check, **held, "examples": [], "error": None},
            {"rule": "income-positive", **check, **failed, "examples": [-1], "error": None},
        ],
        "skipped": [{"rule": "customer-not-null", "reason": "no customer"}],
    }


def split_facts() -> Json:
    """Parts and strata of a split."""
    count = {"rows": 300, "labelled": 300, "bads": 40, "bads_used": 40}
    window = {"first_month": "2024-01", "last_month": "2024-03"}
    parts = ("source_fit", "source_stop", "target_fit", "target_select", "target_test")
    return {
        "parts": {part: count | window for part in parts},
        "strata": [
            {"stratum": "source 2024-01 0", "part": "source_fit", "rows": 90},
            {"stratum": "source 2024-01 1", "part": "source_fit", "rows": 10},
            {"stratum": "source merged 1", "part": "source_stop", "rows": 4},
            {"stratum": "target 2024-03 unknown", "part": "target_test", "rows": 55},
        ],
        "notes": ["source: cells below 10 customers merged"],
        "earlier": None,
    }


def training_history(name: str = "dan", *, seeds: int = 1) -> Json:
    """The history of a network: an adapter's has a grid of three weights, the others' one."""
    aligns = name in ADAPTERS
    method = "source_only" if name == "source_network" else name
    layers = ["hidden_1", "hidden_2"] if name != "fine_tuned" else []
    trainings = [_training(seed, layers) for seed in range(1, seeds + 1)]
    weights = (0.0, 0.1, 1.0) if aligns else (0.0,)
    prior = {"value": 0.081, "from": "bbse", "reason": None} if aligns else NO_PRIOR
    return {
        "schema_version": 2,
        "method": method,
        "layers": layers or ["hidden_2"],
        "target_prior": prior,
        "chosen_mmd_weight": 0.1 if aligns else 0.0,
        "candidates": [
            {"mmd_weight": w, "stop_auc": 0.62 - w / 50, "choose_auc": 0.63 - w / 50, "trainings": trainings}
            for w in weights
        ],
    }


NO_PRIOR = {"value": None, "from": "none", "reason": "not asked for"}


def _training(seed: int, layers: list[str]) -> Json:
    steps = list(range(40))
    history = {
        "step": steps,
        "total_loss": [0.7 - s / 100 for s in steps],
        "classification_loss": [0.6 - s / 100 for s in steps],
        "mmd": [0.1] * 40,
        "mmd_weight": [s / 40 for s in steps],
        "evaluation_step": [20, 40],
        "stop_auc": [0.6, 0.62],
        "stop_ks": [0.2, 0.21],
    }
    for layer in layers:
        history |= {
            f"mmd_{layer}": [0.05] * 40,
            f"mmd_unbiased_{layer}": [0.15, 0.021],
            f"mmd_no_shift_band_{layer}": [0.002, 0.001],
            f"mmd_fixed_{layer}": [0.15, 0.031],
        }
    if layers:
        last = layers[-1]
        history |= {name: history[f"{name}_{last}"] for name in ("mmd_unbiased", "mmd_no_shift_band")}
    return {"seed": seed, "best_step": 40, "stopped_step": 40, "stop_reason": "max_steps", "history": history}


def earlier_release(result: Json) -> Json:
    """The same result as a release wrote it that had one network, without layers and without the target's bad rate."""
    history = result["trainings"].get("dan")
    if history is not None:
        history = {key: value for key, value in history.items() if key not in ("method", "layers", "target_prior")}
        history["schema_version"] = 1
        for candidate in history["candidates"]:
            del candidate["choose_auc"]
        for training in (t for one in history["candidates"] for t in one["trainings"]):
            own = training["history"]
            training["history"] = {k: v for k, v in own.items() if not k.endswith(("_hidden_1", "_hidden_2"))}
    return {key: value for key, value in result.items() if key != "trainings"} | {"training": history}


def undefined() -> Json:
    """A metric of rows that hold one class only."""
    return {"value": None, "low": None, "high": None, "status": "undefined", "n_bad": 0, "n_good": 9}

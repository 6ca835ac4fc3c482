"""Row 20: the gate is shown numbers that are none, a slice or a baseline that is not there, or has nothing to go by.

It may keep, reject or ask, with the reason; it may not publish.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from bench_gate import AUC, draw

from crossrisk.config import GateConfig
from crossrisk.evidence import Evidence, Segment
from crossrisk.metrics import Difference, Metric, evaluate
from crossrisk.metrics.calibration import calibration_slope
from crossrisk.metrics.rows import scored
from crossrisk.policy import decide
from tasks.guardrails import primary_differences, score_psi

pytestmark = pytest.mark.fault(20)

GATE = GateConfig()
BETTER = Difference("auc", 0.03, 0.01, 0.05, "ok", 0.001)
SHOWN = Evidence(
    challenger="dan",
    metrics={
        "auc": Metric(0.70, 0.66, 0.74, "ok", 200, 2000),
        "observed_expected": Metric(1.0, 0.9, 1.1, "ok", 200, 2000),
        "calibration_slope": Metric(1.0, 0.8, 1.2, "ok", 200, 2000),
    },
    champion=1_700_000_000,
    differences={"auc": BETTER},
    source_only=False,
    alternatives={"source_logistic": BETTER, "target_logistic": BETTER},
    segments=(Segment("region = north", 60, 600, BETTER), Segment("region = south", 60, 600, BETTER)),
    score_psi=0.05,
    is_network=True,
    source_auc_fall=0.001,
    latency_p95_ms=4.0,
    size_mb=2.0,
    drivers_shift="none seen",
)
"""Everything holds: what every fault below is done to."""

SHOWN_ONLY = {  # numbers that stand in a sentence beside the one that is read
    "metrics.auc.value", "metrics.auc.high", "metrics.observed_expected.low", "metrics.observed_expected.high",
    "metrics.calibration_slope.value", "differences.auc.value", "differences.auc.p",
    *(f"alternatives.{name}.{key}" for name in ("source_logistic", "target_logistic") for key in ("value", "low", "p")),
    *(f"segments.{place}.difference.{key}" for place in (0, 1) for key in ("value", "low", "p")),
}  # fmt: skip


def numbers(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all measured numbers (floats; counts are integers) of a JSON document."""
    if isinstance(document, float):
        yield path
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in items:
        yield from numbers(value, (*path, key))


DOCUMENT = json.loads(json.dumps(SHOWN.to_json()))
READ = sorted(path for path in map(lambda p: ".".join(map(str, p)), numbers(DOCUMENT)) if path not in SHOWN_ONLY)


def shown_with(path: str, value: float | None) -> Evidence:
    document = json.loads(json.dumps(DOCUMENT))
    *parents, last = path.split(".")
    place = document
    for key in parents:
        place = place[int(key)] if isinstance(place, list) else place[key]
    assert isinstance(place[last], float)
    place[last] = value
    return Evidence.from_json(document)


def test_the_evidence_that_every_fault_is_done_to_promotes():
    assert decide(SHOWN, GATE).verdict == "promote"
    assert len(READ) == 14  # nothing slipped out of the walk below


@pytest.mark.parametrize("path", sorted(SHOWN_ONLY))
def test_the_numbers_left_out_of_the_walk_decide_nothing(path):
    assert decide(shown_with(path, None), GATE).verdict == "promote"


@pytest.mark.parametrize("value", [None, float("nan")], ids=["missing", "nan"])
@pytest.mark.parametrize("path", READ)
def test_no_number_that_the_gate_reads_may_be_missing_or_nan(path, value):
    decision = decide(shown_with(path, value), GATE)
    assert not decision.publishes, decision.reasons
    assert decision.reasons


@pytest.mark.parametrize("value", [None, float("nan")], ids=["missing", "nan"])
@pytest.mark.parametrize("path", [path for path in READ if not path.startswith(("differences", "alt", "seg", "score"))])
def test_nor_for_a_first_champion(path, value):
    first = replace(shown_with(path, value), champion=None, differences={}, segments=(), score_psi=None)
    assert not decide(first, GATE).publishes


def test_a_metric_that_was_not_delivered_does_not_promote():
    without = replace(SHOWN, metrics={k: v for k, v in SHOWN.metrics.items() if k != "calibration_slope"})
    assert decide(without, GATE).verdict == "reject"
    assert decide(replace(SHOWN, differences={}), GATE).verdict == "keep"


@pytest.mark.parametrize("difference", [None, Difference("auc", None, None, None, "undefined")])
def test_a_slice_without_its_number_keeps_the_champion_and_is_named(difference):
    segments = (Segment("region = north", 60, 600, BETTER), Segment("region = south", 60, 600, difference))
    decision = decide(replace(SHOWN, segments=segments), GATE)
    assert decision.verdict == "keep"
    assert "undefined in region = south" in decision.reasons[0]


@pytest.mark.parametrize("status", ["insufficient", "undefined"])
def test_a_difference_that_may_not_be_relied_on_keeps_the_champion(status):
    decision = decide(replace(SHOWN, differences={"auc": replace(BETTER, status=status)}), GATE)
    assert decision.verdict == "keep"
    assert "insufficient evidence" in decision.reasons[0]


# --- baselines ---


def judged(challenger: np.ndarray, champion: np.ndarray, label: np.ndarray, metric: str) -> Evidence:
    """Evidence as `tasks.compare` measures it."""
    gate = GateConfig(primary_metric=metric, replicates=200)
    found = evaluate(label, {"dan": challenger, "champion": champion}, replicates=200, seed=1)
    frame = pl.DataFrame({"dan": challenger, "champion": champion})
    differences = primary_differences(found, "dan", gate, look=1)
    slope = calibration_slope(scored(label, challenger))
    return replace(
        SHOWN,
        metrics={**found.metrics["dan"], "calibration_slope": slope},
        differences={key: Difference(**one) for key, one in differences.items()},
        score_psi=score_psi(frame, "dan"),
    )


@pytest.mark.parametrize("metric", ["auc", "gini", "ks", "brier", "log_loss"])
@pytest.mark.parametrize("constant", [0.0, 0.1, 1.0])
def test_a_baseline_of_zero_is_never_divided_by(metric, constant):
    """A champion that says the same of everybody has Gini 0, KS 0 and one bin of scores: PSI asks a person."""
    label, good, _ = draw(np.random.default_rng(3), 200, (0.75, AUC), 0.5)
    baseline = np.full_like(good, constant)
    gate = GateConfig(primary_metric=metric)
    decision = decide(judged(good, baseline, label, metric), gate)
    assert not decision.publishes, decision.reasons
    assert decide(judged(baseline, baseline, label, metric), gate).verdict == "reject"


def test_a_challenger_equal_to_the_champion_is_a_tie_and_keeps_it():
    label, good, _ = draw(np.random.default_rng(3), 200, (AUC, AUC), 0.5)
    assert decide(judged(good, good, label, "auc"), GATE).verdict == "keep"


# --- nothing to go by ---


def test_without_a_champion_there_is_a_bootstrap_and_no_promotion():
    first = replace(SHOWN, champion=None, differences={}, score_psi=None)
    decision = decide(first, GATE)
    assert decision.verdict == "bootstrap"
    assert "no champion yet" in decision.reasons[0]
    below = replace(first, metrics={**first.metrics, "auc": Metric(0.52, 0.47, 0.57, "ok", 200, 2000)})
    assert decide(below, GATE).verdict == "reject"


def test_without_thresholds_nothing_promotes_however_good():
    decision = decide(SHOWN, GateConfig(rule="none"))
    assert (decision.verdict, "no threshold is configured" in decision.reasons[0]) == ("keep", True)


@pytest.mark.parametrize(
    "numbers", [{"alpha": float("nan")}, {"margin": float("nan")}, {"auc_floor": float("nan")}, {"score_psi": 0.0},
                {"rule": "non_inferiority", "margin": 0.0}, {"observed_expected": (0.0, 9.0)}, {"alpha": 0.5}],
)  # fmt: skip
def test_a_threshold_that_is_none_is_refused_before_any_run(numbers):
    with pytest.raises(ValueError, match=next(iter(numbers))):
        GateConfig(**numbers)

"""What the gate is told of a challenger."""

from types import SimpleNamespace

import pytest

from crossrisk.config import GateConfig
from crossrisk.contenders import CONTENDERS
from crossrisk.policy import decide
from tasks.decide import gather_evidence

METRIC = {"value": 0.7, "low": 0.6, "high": 0.8, "status": "ok", "n_bad": 200, "n_good": 1000}
ABOUT_1 = METRIC | {"value": 1.0, "low": 0.9, "high": 1.1}
LOSES = {"metric": "auc", "value": -0.05, "low": -0.08, "high": -0.02, "p": 0.001, "status": "ok"}


def told(challenger, **changes):
    """The gate's evidence of a challenger that was compared where risk drivers differ."""
    metrics = {"auc": METRIC, "observed_expected": ABOUT_1}
    compared = {
        "challenger": challenger, "metrics": {challenger: metrics}, "slope": ABOUT_1, "champion": None, "look": 1,
        "differences": {}, "alternatives": {}, "segment_differences": [], "score_psi": None, "source_auc_fall": None,
        **changes,
    }  # fmt: skip
    loaded = SimpleNamespace(portfolio=SimpleNamespace(preset="honest"))
    return gather_evidence(loaded, compared, {"latency": {"p95_ms": 4.0}, "size_mb": 2.0}, "large", [])


@pytest.mark.parametrize("challenger", CONTENDERS)
def test_all_but_what_target_labels_taught_must_win_on_rows_where_drivers_differ(challenger):
    taught = {"target_logistic", "target_boosted", "stacked"}
    assert told(challenger).borrows == (challenger not in taught)
    checks = {check.rule: check.outcome for check in decide(told(challenger), GateConfig()).checks}
    assert checks["shift of drivers"] == ("not applicable" if challenger in taught else "ask")


def test_stacked_is_rejected_where_it_loses_to_the_targets_own_model():
    decision = decide(told("stacked", alternatives={"target_logistic": LOSES}), GateConfig())
    assert decision.verdict == "reject"
    assert any(reason.startswith("negative transfer: ") for reason in decision.reasons)

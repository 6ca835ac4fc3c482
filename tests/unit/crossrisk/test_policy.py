"""Rules of the gate: each rule on its own, then what verdict follows from all of them."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossrisk.config import GateConfig
from crossrisk.evidence import Evidence, Segment
from crossrisk.looks import count_look
from crossrisk.metrics import Difference, Metric
from crossrisk.policy import decide, decide_as_article, read_decision, settle
from crossrisk.rules import alpha_of_look, check_rules

GATE = GateConfig()
GOOD = {
    "auc": Metric(0.65, 0.62, 0.68, "ok", 200, 1000),
    "observed_expected": Metric(1.02, 0.9, 1.15, "ok", 200, 1000),
    "calibration_slope": Metric(0.95, 0.8, 1.1, "ok", 200, 1000),
}
FEW = {
    "auc": Metric(0.7, 0.4, 0.9, "insufficient", 12, 300),
    "observed_expected": Metric(2.0, 1, 3, "insufficient", 12, 300),
    "calibration_slope": Metric(3.0, 2, 4, "insufficient", 12, 300),
}


def difference(low, high, status="ok"):
    return Difference("auc", (low + high) / 2, low, high, status)


BETTER, WORSE, TIE = difference(0.001, 0.03), difference(-0.05, -0.001), difference(-0.01, 0.02)


def evidence(champion=None, auc=None, **changes):
    base = Evidence(
        "stacked",
        GOOD,
        champion,
        {} if auc is None else {"auc": auc},
        source_only=False,
        score_psi=None if champion is None else 0.05,
        latency_p95_ms=4.0,
        size_mb=2.0,
    )
    return replace(base, **changes)


def outcome(rule, shown, gate=GATE):
    return {check.rule: check.outcome for check in check_rules(shown, gate)}[rule]


# --- verdicts ---


def test_the_first_model_that_meets_the_floors_is_a_bootstrap():
    decision = decide(evidence(), GATE)
    assert decision.verdict == "bootstrap"
    assert decision.publishes


def test_better_beyond_noise_promotes():
    assert decide(evidence(7, BETTER), GATE).verdict == "promote"


@pytest.mark.parametrize("shown", [difference(0.0, 0.0), TIE])
def test_gate_keeps_champion_on_a_tie(shown):
    decision = decide(evidence(7, shown), GATE)
    assert decision.verdict == "keep"
    assert "insufficient evidence" in decision.reasons[0]
    assert not decision.publishes


def test_worse_beyond_noise_is_rejected():
    assert decide(evidence(7, WORSE), GATE).verdict == "reject"


def test_better_than_zero_but_not_than_the_margin_keeps():
    assert decide(evidence(7, difference(0.005, 0.05)), GateConfig(margin=0.01)).verdict == "keep"


def test_non_inferiority_promotes_what_is_not_worse_by_the_margin_and_rejects_what_is():
    gate = GateConfig(rule="non_inferiority", margin=0.01)
    assert decide(evidence(7, difference(-0.009, 0.02)), gate).verdict == "promote"
    assert decide(evidence(7, difference(-0.011, 0.02)), gate).verdict == "keep"
    assert decide(evidence(7, difference(-0.05, -0.02)), gate).verdict == "reject"


def test_without_a_threshold_nothing_is_ever_promoted():
    gate = GateConfig(rule="none")
    assert decide(evidence(7, difference(0.1, 0.3)), gate).verdict == "keep"
    assert "no threshold" in decide(evidence(7, difference(0.1, 0.3)), gate).reasons[0]


def test_where_less_is_better_the_sign_turns():
    gate = GateConfig(primary_metric="log_loss")
    shown = evidence(7, differences={"log_loss": difference(-0.02, -0.01)})
    assert decide(shown, gate).verdict == "promote"
    assert decide(evidence(7, differences={"log_loss": difference(0.01, 0.02)}), gate).verdict == "reject"


@pytest.mark.parametrize("status", ["insufficient", "undefined"])
def test_an_unusable_difference_never_promotes(status):
    assert decide(evidence(7, difference(0.1, 0.2, status)), GATE).verdict == "keep"
    assert decide(evidence(7), GATE).verdict == "keep"


def test_with_few_test_bads_only_a_source_model_may_be_the_first():
    assert decide(evidence(metrics=FEW), GATE).verdict == "reject"
    decision = decide(evidence(metrics=FEW, source_only=True), GATE)
    assert decision.verdict == "bootstrap"
    assert "nothing is claimed" in decision.reasons[1]


def test_a_portfolio_may_ask_for_a_person_every_time():
    gate = GateConfig(approval="required")
    for shown in (evidence(), evidence(7, BETTER), evidence(metrics=FEW, source_only=True)):
        assert decide(shown, gate).verdict == "needs_approval"
    assert decide(evidence(7, WORSE), gate).verdict == "reject"
    assert decide(evidence(7, TIE), gate).verdict == "keep"


def test_preset_article_publishes_what_the_comparison_would_reject():
    decision = decide_as_article(evidence(7, WORSE), GATE)
    assert decision.verdict == "promote"
    assert decision.publishes
    assert "publishes stacked whatever the comparison says" in decision.reasons[0]
    assert "reject" in decision.reasons[1]


# --- each rule refuses by its name ---

REFUSED = [
    ("auc floor", {"metrics": GOOD | {"auc": Metric(0.55, 0.5, 0.6, "ok", 200, 1000)}}),
    ("auc floor", {"metrics": GOOD | {"auc": Metric(0.5, None, None, "ok", 200, 1000)}}),
    ("auc ceiling", {"metrics": GOOD | {"auc": Metric(0.99, 0.98, 0.995, "ok", 200, 1000)}}),
    ("observed/expected", {"metrics": GOOD | {"observed_expected": Metric(0.5, 0.4, 0.6, "ok", 200, 1000)}}),
    ("observed/expected", {"metrics": GOOD | {"observed_expected": Metric(None, None, None, "ok", 200, 1000)}}),
    ("calibration slope", {"metrics": GOOD | {"calibration_slope": Metric(0.4, 0.3, 0.5, "ok", 200, 1000)}}),
    ("calibration slope", {"metrics": GOOD | {"calibration_slope": Metric(None, None, None, "ok", 200, 1000)}}),
    ("source AUC", {"is_network": True, "source_auc_fall": 0.03}),
    ("source AUC", {"is_network": True, "source_auc_fall": None}),
    ("source AUC", {"is_network": True, "source_auc_fall": float("nan")}),
    ("negative transfer", {"alternatives": {"target_logistic": WORSE, "source_logistic": BETTER}}),
    ("latency", {"latency_p95_ms": 51.0}),
    ("size", {"size_mb": 201.0}),
]


def test_a_perfect_auc_is_refused_as_a_leak_though_it_has_no_interval():
    perfect = evidence(metrics=GOOD | {"auc": Metric(1.0, None, None, "ok", 200, 1000)})
    assert outcome("auc ceiling", perfect) == "fail"


@pytest.mark.parametrize("champion", [None, 7])
@pytest.mark.parametrize(("rule", "change"), REFUSED)
def test_a_rule_that_fails_rejects_and_is_named_whatever_else_holds(champion, rule, change):
    decision = decide(evidence(champion, BETTER, **change), GATE)
    assert decision.verdict == "reject"
    assert decision.reasons[0].startswith(f"{rule}: ")
    assert len(decision.reasons) == 1


def test_a_segment_that_falls_beyond_the_margin_rejects_and_is_named():
    falls = Segment("region = north", 40, 400, difference(-0.12, -0.04))
    holds = Segment("region = south", 40, 400, difference(-0.06, 0.04))
    small = Segment("region = east", 5, 400, None)
    decision = decide(evidence(7, BETTER, segments=(falls, holds, small)), GATE)
    assert decision.verdict == "reject"
    assert "region = north" in decision.reasons[0]
    assert decide(evidence(7, BETTER, segments=(holds, small)), GATE).verdict == "promote"


def test_a_missing_slice_never_promotes():
    undefined = Segment("region = north", 40, 400, None)
    assert decide(evidence(7, BETTER, segments=(undefined,)), GATE).verdict == "keep"


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        ("leaks", {"leaks": ("recoveries alone reaches AUC .994",)}),
        ("score PSI", {"score_psi": 0.3}),
        ("shift of drivers", {"drivers_shift": "large"}),
        ("shift of drivers", {"drivers_shift": "large", "alternatives": {"target_logistic": TIE}}),
    ],
)
def test_what_a_rule_asks_about_waits_for_a_person(rule, change):
    decision = decide(evidence(7, BETTER, **change), GATE)
    assert decision.verdict == "needs_approval"
    assert decision.reasons[-1].startswith(f"{rule}: ")
    assert not decision.publishes


def test_where_drivers_differ_a_model_that_borrows_passes_by_winning_on_rows_and_others_are_not_asked():
    shown = {"drivers_shift": "large", "alternatives": {"target_logistic": BETTER}}
    assert decide(evidence(7, BETTER, **shown), GATE).verdict == "promote"
    own = decide(evidence(7, BETTER, challenger="target_logistic", drivers_shift="large", borrows=False), GATE)
    assert own.verdict == "promote"
    assert own.reasons[-1].startswith("do not transfer: risk drivers differ")
    corrected = decide(evidence(7, BETTER, challenger="stacked", drivers_shift="large", borrows=False), GATE)
    assert corrected.verdict == "promote"
    assert corrected.reasons[-1].endswith("the source counts for as much as the target's labels bear out")


@pytest.mark.parametrize("change", [{"score_psi": None}, {"latency_p95_ms": None}, {"size_mb": None}])
def test_a_number_that_is_not_known_keeps_the_champion(change):
    decision = decide(evidence(7, BETTER, **change), GATE)
    assert decision.verdict == "keep"
    assert "never promotes" in decision.reasons[0]


@pytest.mark.parametrize("change", [{"latency_p95_ms": None}, {"size_mb": None}])
def test_a_first_model_that_was_not_measured_is_not_published(change):
    assert decide(evidence(**change), GATE).verdict == "reject"


@given(
    low=st.one_of(st.none(), st.floats(0, 1)),
    ratio=st.one_of(st.none(), st.floats(0, 5)),
    slope=st.one_of(st.none(), st.floats(-2, 4)),
    gain=st.one_of(st.none(), st.floats(-0.3, 0.3)),
    psi=st.one_of(st.none(), st.floats(0, 2)),
    bads=st.integers(0, 60),
)
def test_what_is_promoted_meets_every_number(low, ratio, slope, gain, psi, bads):
    metrics = {
        "auc": Metric(low, low, low, "ok", bads, 900),
        "observed_expected": Metric(ratio, ratio, ratio, "ok", bads, 900),
        "calibration_slope": Metric(slope, slope, slope, "ok", bads, 900),
    }
    shown = None if gain is None else difference(gain, gain)
    decision = decide(evidence(7, shown, metrics=metrics, score_psi=psi), GATE)
    holds = (
        low is not None
        and 0.5 < low <= 0.95
        and ratio is not None
        and 0.8 <= ratio <= 1.25
        and slope is not None
        and 0.67 <= slope <= 1.5
        and gain is not None
        and gain > 0
        and psi is not None
        and psi < 0.25
        and bads >= 30
    )
    assert (decision.verdict == "promote") == holds
    assert outcome("latency", evidence()) == "pass"


# --- repeated looks ---


def test_the_alpha_of_all_looks_together_is_alpha_at_most():
    spent = [alpha_of_look(0.05, look) for look in range(1, 5000)]
    assert 0.0499 < sum(spent) <= 0.05
    assert spent == sorted(spent, reverse=True)
    with pytest.raises(ValueError, match="count from 1"):
        alpha_of_look(0.05, 0)


def record(champion, months, comparison):
    return {"compared_with": champion, "judged": {"months": months, "comparison": comparison}}


def test_a_look_is_counted_where_rows_are_seen_again_for_the_same_champion():
    ledger = [
        record(None, ["2025-01"], "a"),
        record(7, ["2025-01", "2025-02"], "b"),
        record(7, ["2025-02", "2025-03"], "c"),
        record(7, ["2025-02", "2025-03"], "c"),
        {"compared_with": 7, "ruling": {}},
        record(7, ["2024-01"], "d"),
    ]
    assert count_look(ledger, champion=7, months=["2025-03", "2025-04"], comparison="e") == 2
    assert count_look(ledger, champion=7, months=["2025-02"], comparison="e") == 3
    assert count_look(ledger, champion=8, months=["2025-02"], comparison="e") == 1
    assert count_look(ledger, champion=None, months=["2025-01"], comparison="e") == 1
    assert count_look(ledger, champion=7, months=[], comparison="e") == 4


def test_the_same_comparison_told_again_is_no_new_look():
    ledger = [record(7, ["2025-01"], "a")]
    assert count_look(ledger, champion=7, months=["2025-01"], comparison="a") == 1


# --- people ---


def test_approval_publishes_what_waits_and_names_the_person():
    waiting = decide(evidence(7, BETTER, score_psi=0.4), GATE)
    settled = settle(waiting, "approve", by="Ada", reason="cut-offs are set anew", bootstraps=False)
    assert settled.verdict == "promote"
    assert settled.reasons[0] == "approve by Ada: cut-offs are set anew"
    assert settle(waiting, "approve", by="Ada", reason="x", bootstraps=True).verdict == "bootstrap"
    assert settle(waiting, "reject", by="Ada", reason="x", bootstraps=False).verdict == "reject"


def test_what_the_gate_refused_takes_an_override():
    refused = decide(evidence(7, WORSE), GATE)
    with pytest.raises(ValueError, match="takes an override"):
        settle(refused, "approve", by="Ada", reason="x", bootstraps=False)
    assert settle(refused, "override", by="Ada", reason="x", bootstraps=False).publishes


@pytest.mark.parametrize(("by", "reason"), [("", "x"), (" ", "x"), ("Ada", ""), ("Ada", " ")])
def test_a_ruling_needs_a_name_and_a_reason(by, reason):
    with pytest.raises(ValueError, match="a name and a reason"):
        settle(decide(evidence(7, WORSE), GATE), "override", by=by, reason=reason, bootstraps=False)


def test_what_was_carried_out_waits_for_nobody():
    with pytest.raises(ValueError, match="waits for nobody"):
        settle(decide(evidence(7, BETTER), GATE), "override", by="Ada", reason="x", bootstraps=False)


def test_evidence_and_decision_come_back_from_plain_data():
    shown = evidence(7, TIE, segments=(Segment("a = b", 40, 400, TIE),), alternatives={"target_logistic": BETTER})
    assert Evidence.from_json(shown.to_json()) == shown
    assert read_decision(decide(shown, GATE).to_json()) == decide(shown, GATE)

"""Rules of the gate."""

from dataclasses import replace

import pytest

from crossrisk.config import GateConfig
from crossrisk.metrics import Difference, Metric
from crossrisk.policy import Evidence, decide, decide_as_article

GATE = GateConfig()
GOOD = {
    "auc": Metric(0.65, 0.62, 0.68, "ok", 200, 1000),
    "observed_expected": Metric(1.02, 0.9, 1.15, "ok", 200, 1000),
}


def evidence(champion=None, difference=None, **changes):
    differences = {} if difference is None else {"auc": difference}
    base = Evidence("stacked", GOOD, champion, differences, source_only=False)
    return replace(base, **changes)


def better(low, high, status="ok"):
    return Difference("auc", (low + high) / 2, low, high, status)


def test_the_first_model_that_meets_the_floors_is_a_bootstrap():
    decision = decide(evidence(), GATE)
    assert decision.verdict == "bootstrap"
    assert decision.publishes


def test_better_beyond_noise_promotes():
    assert decide(evidence(7, better(0.001, 0.03)), GATE).verdict == "promote"


def test_gate_keeps_champion_on_a_tie():
    decision = decide(evidence(7, better(0.0, 0.0)), GATE)
    assert decision.verdict == "keep"
    assert "insufficient evidence" in decision.reasons[0]
    assert not decision.publishes


def test_better_but_not_beyond_noise_keeps():
    assert decide(evidence(7, better(-0.001, 0.05)), GATE).verdict == "keep"


def test_better_than_zero_but_not_than_the_margin_keeps():
    gate = GateConfig(superiority_margin_auc=0.01)
    assert decide(evidence(7, better(0.005, 0.05)), gate).verdict == "keep"


def test_worse_beyond_noise_is_rejected():
    assert decide(evidence(7, better(-0.05, -0.001)), GATE).verdict == "reject"


@pytest.mark.parametrize("ratio", [0.79, 1.26, None])
@pytest.mark.parametrize("champion", [None, 7])
def test_a_miscalibrated_challenger_is_rejected_whatever_its_ranking(ratio, champion):
    metrics = GOOD | {"observed_expected": Metric(ratio, None, None, "ok", 200, 1000)}
    decision = decide(evidence(champion, better(0.01, 0.1), metrics=metrics), GATE)
    assert decision.verdict == "reject"
    assert "observed/expected" in decision.reasons[0]


@pytest.mark.parametrize("low", [0.5, 0.49, None])
def test_an_auc_that_may_be_chance_is_rejected(low):
    metrics = GOOD | {"auc": Metric(0.55, low, 0.6, "ok", 200, 1000)}
    assert decide(evidence(metrics=metrics), GATE).verdict == "reject"


def test_a_network_that_forgets_the_source_is_rejected():
    assert decide(evidence(is_network=True, source_auc_fall=0.03), GATE).verdict == "reject"
    assert decide(evidence(is_network=True, source_auc_fall=0.01), GATE).verdict == "bootstrap"
    assert decide(evidence(is_network=False), GATE).verdict == "bootstrap"


def test_an_undefined_fall_on_the_source_never_passes():
    for fall in (None, float("nan")):
        assert decide(evidence(is_network=True, source_auc_fall=fall), GATE).verdict == "reject"


@pytest.mark.parametrize("status", ["insufficient", "undefined"])
def test_an_unusable_difference_never_promotes(status):
    assert decide(evidence(7, better(0.1, 0.2, status)), GATE).verdict == "keep"


def test_with_few_test_bads_only_a_source_model_may_be_the_first():
    few = {
        "auc": Metric(0.7, 0.4, 0.9, "insufficient", 12, 300),
        "observed_expected": Metric(2.0, 1, 3, "insufficient", 12, 300),
    }
    assert decide(evidence(metrics=few), GATE).verdict == "reject"
    decision = decide(evidence(metrics=few, source_only=True), GATE)
    assert decision.verdict == "bootstrap"
    assert "nothing is claimed" in decision.reasons[1]


def test_preset_article_publishes_what_the_comparison_would_reject():
    worse = evidence(7, better(-0.05, -0.001))
    decision = decide_as_article(worse, GATE)
    assert decision.verdict == "promote"
    assert decision.publishes
    assert "publishes stacked whatever the comparison says" in decision.reasons[0]
    assert decision.reasons[1] == f"the comparison alone would say reject: {decide(worse, GATE).reasons[0]}"


def test_preset_article_publishes_on_a_tie_and_with_a_missed_floor():
    tie = decide_as_article(evidence(7, better(0.0, 0.0)), GATE)
    assert (tie.verdict, "would say keep: " in tie.reasons[1]) == ("promote", True)
    metrics = GOOD | {"observed_expected": Metric(9.0, None, None, "ok", 200, 1000)}
    missed = decide_as_article(evidence(metrics=metrics), GATE)
    assert (missed.verdict, "would say reject: " in missed.reasons[1]) == ("bootstrap", True)


@pytest.mark.parametrize(("champion", "verdict"), [(None, "bootstrap"), (7, "promote")])
def test_preset_article_says_so_when_the_comparison_agrees(champion, verdict):
    decision = decide_as_article(evidence(champion, better(0.001, 0.03)), GATE)
    assert decision.verdict == verdict
    assert f"would say {verdict}: " in decision.reasons[1]


def test_preset_article_gives_every_reason_of_the_comparison():
    metrics = GOOD | {"auc": Metric(0.5, 0.4, 0.6, "ok", 200, 1000)}
    both = evidence(metrics=metrics, source_auc_fall=0.5)
    said = decide_as_article(both, GATE).reasons[1]
    assert [reason for reason in decide(both, GATE).reasons if reason not in said] == []

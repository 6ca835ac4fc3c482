"""Rows 25 and 26: challengers broken on purpose are blocked by a rule with a name; equally good ones by noise.

The scores of `benchmarks/bench_gate.py`, where the truth is known, and once the whole way with broken data.
"""

import math

import numpy as np
import polars as pl
import pytest
from bench_gate import AUC, GATE, draw, judge, promotions, regressions
from builders import FLOW_TOML, loans_with_noise, portfolio
from steps import Walk

from crossrisk.policy import Decision

RULES = {
    "shuffled labels": "auc floor",
    "leaked target": "auc ceiling",
    "constant score": "auc floor",
    "PD doubled": "observed/expected",
    "sign flipped": "auc floor",
}


def refused_by(decision: Decision) -> set[str]:
    return {check.rule for check in decision.checks if check.outcome == "fail"}


@pytest.mark.fault(25)
@pytest.mark.parametrize("bads", [105, 350])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_each_injected_regression_is_rejected_by_the_rule_made_for_it(bads, seed):
    found = regressions(bads, seed)
    assert set(found) == set(RULES)
    for name, decision in found.items():
        assert decision.verdict == "reject", name
        assert RULES[name] in refused_by(decision), name
        assert decision.reasons


@pytest.mark.fault(25)
def test_the_same_models_unbroken_are_not_rejected():
    label, good, champion = draw(np.random.default_rng(1), 350, (AUC, AUC), 0.8)
    assert judge(label, good, champion).verdict in ("keep", "promote")


@pytest.mark.fault(25)
@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_odds_off_by_two_are_blocked_though_the_ranking_is_perfectly_kept(factor):
    label, good, champion = draw(np.random.default_rng(1), 350, (AUC, AUC), 0.8)
    odds = good / (1 - good) * factor
    decision = judge(label, odds / (1 + odds), champion)
    assert (decision.verdict, refused_by(decision)) == ("reject", {"observed/expected"})


BASELINE = ("lineup.contenders=['source_logistic']",)


@pytest.mark.fault(25)
@pytest.mark.heavy
def test_shuffled_labels_come_to_no_model_the_whole_way(tmp_path):
    frame = loans_with_noise(6000)
    shuffled = frame.with_columns(frame["bad"].shuffle(seed=1))
    decision = Walk(portfolio(tmp_path, shuffled, toml=FLOW_TOML, overrides=BASELINE)).decide().decision
    assert decision.verdict == "reject"
    assert "auc floor" in refused_by(decision)


@pytest.mark.fault(25)
@pytest.mark.heavy
def test_a_leaked_target_waits_for_a_person_or_is_rejected_the_whole_way(tmp_path):
    leaked = loans_with_noise().with_columns(n7=pl.col("bad") + 0.3 * pl.col("n7"))
    walk = Walk(portfolio(tmp_path, leaked, toml=FLOW_TOML, overrides=BASELINE))
    decision = walk.decide().decision
    assert not decision.publishes
    assert "auc ceiling" in refused_by(decision)
    assert any("n7" in found for found in walk["leaks"].facts["leaks"])
    assert [check.outcome for check in decision.checks if check.rule == "leaks"] == ["ask"]


# --- 26 ---

COMPARISONS = 500
FALSE_ALARM = 1e-6
"""Chance that the test below fails though the gate keeps its level."""


def most_promotions(level: float, comparisons: int, chance: float) -> int:
    """The smallest count that a binomial of this level exceeds with less than the chance (exact tail sum)."""
    log = math.log
    tail, count = 0.0, comparisons
    while True:
        term = (
            math.lgamma(comparisons + 1) - math.lgamma(count + 1) - math.lgamma(comparisons - count + 1)
            + count * log(level) + (comparisons - count) * log(1 - level)
        )  # fmt: skip
        tail += math.exp(term)
        if tail >= chance:
            return count
        count -= 1


@pytest.mark.fault(26)
def test_the_bound_is_that_of_the_binomial():
    assert most_promotions(0.5, 3, 0.2) == 2  # P(3 of 3) = 1/8 < 0.2 <= P(at least 2) = 1/2
    assert most_promotions(0.5, 3, 0.1) == 3


@pytest.mark.fault(26)
@pytest.mark.parametrize("bads", [105, 350])
@pytest.mark.parametrize("correlation", [0.6, 0.9])
def test_equally_good_models_are_promoted_no_more_often_than_alpha(bads, correlation):
    found = promotions(0.0, bads, correlation, COMPARISONS, seed=26)
    assert found.count <= most_promotions(GATE.alpha, COMPARISONS, FALSE_ALARM)


@pytest.mark.fault(26)
def test_the_bound_would_catch_a_gate_that_looks_at_the_point_alone():
    rng = np.random.default_rng(26)
    leads = 0
    for _ in range(100):
        primary = judge(*draw(rng, 105, (AUC, AUC), 0.8)).checks[0]
        leads += ": +" in primary.found
    assert leads > most_promotions(GATE.alpha, 100, FALSE_ALARM)


@pytest.mark.fault(26)
def test_a_gain_that_is_there_is_promoted():
    assert promotions(0.05, 350, 0.9, 50, seed=26).count >= 45

"""Rules of the comparison: what the intervals are called, pairs, large samples, groups, plain data."""

import json

import numpy as np
import polars as pl
import pytest

from crossrisk.metrics import (
    METRICS,
    Difference,
    Metric,
    auc_metric,
    comparison,
    evaluate,
    evaluate_groups,
    kolmogorov_smirnov,
    paired_test,
)


def drawn(rows=3000, seed=0):
    rng = np.random.default_rng(seed)
    logit = rng.normal(-2.5, 1, rows)
    label = (rng.random(rows) < 1 / (1 + np.exp(-logit))).astype(int)
    return label, {
        "a": 1 / (1 + np.exp(-logit)),
        "b": 1 / (1 + np.exp(-0.9 * logit + rng.normal(0, 0.4, rows))),
    }


def test_every_interval_has_a_name():
    label, contenders = drawn()
    evaluation = evaluate(label, contenders, replicates=100, seed=0)
    assert {key: metric.interval for key, metric in evaluation.metrics["a"].items()} == {
        "auc": "DeLong, logit scale",
        "gini": "DeLong, logit scale",
        "ks": "normal at the maximum, bias-corrected",
        **dict.fromkeys(("brier", "log_loss"), "normal, per-row losses"),
        "observed_expected": "gamma (Jeffreys), effective bads",
    }
    assert {key: evaluation.difference("a", "b", key).interval for key in METRICS} == {
        **dict.fromkeys(("auc", "gini"), "paired DeLong"),
        **dict.fromkeys(("ks", "brier", "log_loss", "observed_expected"), "paired percentile bootstrap"),
    }


def test_the_comparison_and_the_metrics_alone_say_the_same():
    label, contenders = drawn()
    evaluation = evaluate(label, contenders, replicates=100, seed=7, minimum=50)
    found = evaluation.metrics["b"]
    for field in ("value", "low", "high"):
        expected = getattr(auc_metric(label, contenders["b"], minimum=50), field)
        assert getattr(found["auc"], field) == pytest.approx(expected, rel=1e-12)
    assert found["ks"] == kolmogorov_smirnov(label, contenders["b"], seed=7, minimum=50).metric
    test, difference = paired_test(label, contenders["a"], contenders["b"]), evaluation.difference("a", "b", "auc")
    assert (difference.value, difference.low, difference.high, difference.p) == (
        test.difference,
        test.low,
        test.high,
        test.p,
    )
    gini = evaluation.difference("a", "b", "gini")
    assert (gini.value, gini.low, gini.high, gini.p) == (2 * test.difference, 2 * test.low, 2 * test.high, test.p)


def test_only_a_test_has_a_p_value():
    label, contenders = drawn()
    evaluation = evaluate(label, contenders, replicates=100, seed=0)
    assert [key for key in METRICS if evaluation.difference("a", "b", key).p is not None] == ["auc", "gini"]


@pytest.mark.parametrize("rows", [3000, 0])
@pytest.mark.parametrize("large", [False, True])
def test_metrics_and_differences_survive_json(rows, large, monkeypatch):
    monkeypatch.setattr(comparison, "MOST_ROWS_RESAMPLED", 10 if large else 10_000)
    label, contenders = drawn(rows)
    evaluation = evaluate(label, contenders, replicates=100, seed=0)
    for key in METRICS:
        metric, difference = evaluation.metrics["a"][key], evaluation.difference("a", "b", key)
        assert Metric(**json.loads(json.dumps(metric.to_json(), allow_nan=False))) == metric
        assert Difference(**json.loads(json.dumps(difference.to_json(), allow_nan=False))) == difference


@pytest.mark.parametrize("large", [False, True])
def test_a_contender_against_itself_differs_by_nothing(large, monkeypatch):
    monkeypatch.setattr(comparison, "MOST_ROWS_RESAMPLED", 10 if large else 10_000)
    label, contenders = drawn()
    for names in (["a"], ["a", "b"]):
        evaluation = evaluate(label, {name: contenders[name] for name in names}, replicates=100, seed=0)
        for key in METRICS:
            found = evaluation.difference("a", "a", key)
            assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)
            assert found.p == (1.0 if key in ("auc", "gini") else None)


def test_a_difference_of_an_undefined_metric_is_undefined():
    evaluation = evaluate(np.zeros(50), {"a": np.full(50, 0.1), "b": np.full(50, 0.2)}, replicates=100, seed=0)
    assert evaluation.difference("a", "b", "ks") == Difference("ks", None, None, None, "undefined")


@pytest.mark.parametrize("large", [False, True])
def test_observed_over_an_expectation_of_nothing_is_undefined_and_not_nan(large, monkeypatch):
    monkeypatch.setattr(comparison, "MOST_ROWS_RESAMPLED", 10 if large else 10_000)
    label = np.arange(200) < 50
    found = evaluate(label, {"a": np.zeros(200)}, replicates=100, seed=0).metrics["a"]
    assert (found["observed_expected"].value, found["observed_expected"].status) == (None, "undefined")
    assert (found["auc"].value, found["auc"].low, found["brier"].value) == (0.5, None, 0.25)


def test_one_bad_has_values_and_no_interval_of_the_auc():
    found = evaluate([1, 0, 0, 0], {"a": [0.4, 0.3, 0.5, 0.1]}, replicates=100, seed=0).metrics["a"]
    assert (found["auc"].value, found["auc"].low, found["auc"].status) == (pytest.approx(2 / 3), None, "insufficient")
    assert found["brier"].low is not None


def test_large_samples_name_the_limit_that_they_use(monkeypatch):
    label, contenders = drawn()
    monkeypatch.setattr(comparison, "MOST_ROWS_RESAMPLED", 2999)
    evaluation = evaluate(label, contenders, replicates=100, seed=0)
    assert evaluation.difference("a", "b", "ks").interval == "paired normal"


def test_the_normal_limit_is_near_the_bootstrap_for_pairs_too(monkeypatch):
    label, contenders = drawn(20_000)
    resampled = evaluate(label, contenders, replicates=1000, seed=1)
    monkeypatch.setattr(comparison, "MOST_ROWS_RESAMPLED", 0)
    limit = evaluate(label, contenders, replicates=1000, seed=1)
    for key in ("brier", "log_loss", "observed_expected"):
        exact, found = resampled.difference("a", "b", key), limit.difference("a", "b", key)
        assert found.value == exact.value
        assert found.high - found.low == pytest.approx(exact.high - exact.low, rel=0.1)
        assert (found.high + found.low) / 2 == pytest.approx(
            (exact.high + exact.low) / 2, abs=0.1 * (found.high - found.low)
        )


# --- groups ---


def test_a_group_is_judged_as_if_it_were_alone():
    label, contenders = drawn()
    group = np.where(np.arange(3000) % 3 == 0, "north", "south")
    north, south = evaluate_groups(group, label, contenders["a"], replicates=100, seed=5)
    assert (north.group, south.group) == ("north", "south")
    rows = group == "south"
    alone = evaluate(label[rows], {"a": contenders["a"][rows]}, replicates=100, seed=5).metrics["a"]
    assert south.metrics == alone
    assert (south.rows, south.unknown_labels, south.missing_scores) == (2000, 0, 0)


def test_ugly_groups_have_statuses_and_counts_and_no_exception():
    group = ["2024-01"] * 40 + ["2024-02"] * 40 + ["2024-03"] * 3 + [None] * 2
    label = [0] * 40 + [0, 1] * 20 + [None] * 3 + [1, 0]
    p = [0.1] * 40 + [None] * 2 + list(np.linspace(0.1, 0.2, 38)) + [0.1] * 3 + [0.1, 0.2]
    found = evaluate_groups(pl.Series(group), label, p, replicates=100, seed=0)
    assert [one.group for one in found] == ["2024-01", "2024-02", "2024-03", None]
    assert [(one.rows, one.unknown_labels, one.missing_scores) for one in found] == [
        (40, 0, 0),
        (40, 0, 2),
        (3, 3, 0),
        (2, 0, 0),
    ]
    assert [one.metrics["auc"].status for one in found] == ["undefined", "insufficient", "undefined", "insufficient"]
    assert (found[1].metrics["auc"].n_bad, found[1].metrics["auc"].n_good) == (19, 19)


def test_groups_of_another_length_are_refused():
    with pytest.raises(ValueError, match=r"one group, label and probability a row, got .*'group': 1"):
        evaluate_groups(["a"], [0, 1], [0.1, 0.2], replicates=100, seed=0)
    assert evaluate_groups([], [], [], replicates=100, seed=0) == ()

"""Rules of selection: each drops what it is for, says why in figures, and drops nothing unless it is set."""

import numpy as np
import polars as pl
import pytest

from crossrisk.features import FitSettings, RowPlan, SelectionRules, fit_plan

N = 4_000
RNG = np.random.default_rng(11)
RISK = RNG.normal(size=N)
LABEL = pl.Series((RISK + RNG.normal(size=N) > 1.2).astype(np.int8))
IS_TARGET = pl.Series(np.arange(N) % 4 == 0)
MOVED = np.where(IS_TARGET.to_numpy(), 3.0, 0.0)
FRAME = pl.DataFrame(
    {
        "risk": RISK,
        "twin": RISK + 0.01 * RNG.normal(size=N),
        "noise": RNG.normal(size=N),
        "moved": RNG.normal(size=N) + MOVED,
        "rare": np.where(np.arange(N) % 500 == 0, 1.0, 0.0),
        "gone": pl.Series([None if i % 50 else 1.0 * i for i in range(N)]),
        "region": RNG.choice(["n", "s", "w"], N),
        "grade": np.where(RISK > 0, "high", "low"),
    }
)
ROWS = RowPlan(
    decision_date=None,
    numbers=("risk", "twin", "noise", "moved", "rare", "gone"),
    categories=("region", "grade"),
    sentinels=(),
    ratios=(),
    ages=(),
)


def dropped(**rules):
    settings = FitSettings(select=SelectionRules(**rules))
    plan = fit_plan(FRAME, ROWS, settings, label=LABEL, is_target=IS_TARGET)
    reasons = {one.feature: one.reason for one in plan.dropped}
    assert not set(reasons) & set(plan.features_of_outputs)
    return reasons


def test_no_rule_drops_anything_unless_it_is_set():
    assert set(dropped()) <= {"rare"}  # whose clipped values do not vary


@pytest.mark.parametrize(
    ("rules", "feature", "said"),
    [
        ({"max_missing_share": 0.9}, "gone", "missing on 98.0% of training rows, at most 90.0%"),
        ({"max_same_share": 0.99}, "rare", "99.80% of training rows have one value"),
        ({"max_psi": 0.25}, "moved", "PSI of the target against the source"),
        ({"max_correlation": 0.95}, "twin", "correlation +1.000 with 'risk'"),
    ],
)
def test_a_rule_drops_what_it_is_for_and_nothing_else(rules, feature, said):
    reasons = dropped(**rules)
    assert set(reasons) - {"rare"} == {feature} - {"rare"}
    assert said in reasons[feature]


def test_features_whose_iv_is_noise_are_dropped_and_informative_ones_are_kept():
    reasons = dropped(iv_above_noise=True)
    assert {"noise", "region"} <= set(reasons)
    assert not {"risk", "twin", "grade"} & set(reasons)
    assert "noise alone reaches" in reasons["noise"]


def test_about_one_in_twenty_features_of_pure_noise_passes():
    rng = np.random.default_rng(2)
    names = tuple(f"n{i}" for i in range(200))
    frame = pl.DataFrame({name: rng.normal(size=1500) for name in names})
    rows = ROWS.model_copy(update={"numbers": names, "categories": ()})
    label = pl.Series((rng.random(1500) < 0.15).astype(np.int8))
    plan = fit_plan(frame, rows, FitSettings(select=SelectionRules(iv_above_noise=True)), label=label)
    assert 1 <= len(plan.numerics) <= 22  # 10 expected, 3.1 the standard deviation


def test_of_two_correlated_features_the_one_with_less_information_goes():
    weaker = FRAME.with_columns(risk=pl.col("twin"), twin=pl.col("risk"))
    settings = FitSettings(select=SelectionRules(max_correlation=0.95))
    plan = fit_plan(weaker, ROWS, settings, label=LABEL)
    values = {name: float(np.corrcoef(weaker[name], LABEL)[0, 1]) for name in ("risk", "twin")}
    assert values["twin"] > values["risk"]
    without_labels = fit_plan(weaker, ROWS, settings)
    assert "twin" in {one.feature for one in without_labels.dropped}  # the first by place stays
    assert len({"risk", "twin"} & set(plan.features_of_outputs)) == 1


def test_what_an_analyst_keeps_no_rule_drops():
    assert "gone" not in dropped(max_missing_share=0.9, keep=("gone",))
    assert "twin" not in dropped(max_correlation=0.95, keep=("twin",))


@pytest.mark.parametrize(("rules", "said"), [({"max_psi": 0.2}, "of the target"), ({"iv_above_noise": True}, "labels")])
def test_a_rule_without_what_it_needs_is_refused(rules, said):
    with pytest.raises(ValueError, match=said):
        fit_plan(FRAME, ROWS, FitSettings(select=SelectionRules(**rules)))


def test_a_feature_to_keep_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match=r"select\.keep names 'nobody'"):
        dropped(keep=("nobody",))

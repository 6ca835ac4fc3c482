"""Rules of the shift diagnosis: each estimator finds its own shift, at its stated rate, and no other."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from crossrisk.metrics import auc_value
from crossrisk.shift import (
    Diagnosis,
    DomainGap,
    FeatureGap,
    HomeError,
    auc_at_stake,
    concept_shift,
    estimate_label_shift,
    level_shift,
    measure_home_error,
    read_diagnosis,
    support_of,
)
from crossrisk.shift.base import fit_line
from crossrisk.shift.label import midranks
from crossrisk.shift.support import TAIL

DRIVERS = 20
NAMES = [f"x{j}" for j in range(DRIVERS)]
EFFECTS = np.r_[0.5, -0.45, 0.4, 0.3, -0.3, 0.2, np.zeros(DRIVERS - 6)]
REVERSED = np.r_[-0.3 * EFFECTS[:3], EFFECTS[3:]]
"""trap 6: three drivers' effects reversed and shrunk"""


def drawn(rows, effects=EFFECTS, *, seed, correlation=0.5, level=-2.3):
    """Correlated features and labels: (x, y)."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(rows, 1)) * np.sqrt(correlation)
    x = (shared + np.sqrt(1 - correlation) * rng.normal(size=(rows, DRIVERS))).astype(np.float32)
    return x, (rng.random(rows) < expit(x @ effects + level)).astype(float)


def fitted(x, y):
    model = LogisticRegression(C=0.03, solver="newton-cg").fit(x, y)
    return lambda rows: (rows @ model.coef_[0] + model.intercept_[0]).astype(float)


# --- the line ---


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_a_line_leaves_residuals_that_neither_level_nor_logit_explain(seed):
    rng = np.random.default_rng(seed)
    raw = rng.normal(3, 5, 200)
    y = (rng.random(200) < expit(0.3 * raw - 1.5)).astype(float)
    residual = y - expit(fit_line(raw, y).logit(raw))
    assert residual.sum() == pytest.approx(0, abs=1e-6)
    assert residual @ (raw - raw.mean()) / raw.std() == pytest.approx(0, abs=0.01)  # RIDGE's doing


def test_a_line_through_separable_rows_is_finite_and_one_through_a_constant_is_flat():
    steep = fit_line(np.arange(10.0), np.repeat([0.0, 1.0], 5))
    assert 1 < steep.slope < 100
    flat = fit_line(np.full(10, 7.0), np.repeat([0.0, 1.0], [8, 2]))
    assert (flat.slope, flat.intercept) == pytest.approx((0.0, logit(0.2)))


@pytest.mark.parametrize(
    ("raw", "y", "message"),
    [
        ([1.0, 2.0], [1.0, 1.0], "both classes"),
        ([1.0, np.inf], [0.0, 1.0], "not finite"),
        ([1.0, 2.0], [0.0, np.nan], "0 or 1"),
        ([1.0], [0.0, 1.0], "shapes"),
    ],
)
def test_a_line_refuses_what_it_cannot_be_fitted_to(raw, y, message):
    with pytest.raises(ValueError, match=message):
        fit_line(np.array(raw), np.array(y))


# --- support ---


def columns(number, category):
    return {"number": np.array(number, float), "category": np.array(category, object)}


def test_rows_outside_support_are_those_beyond_the_range_or_of_an_unseen_level_or_gap():
    source = columns([1, 2, 3, 4], ["a", "b", "a", "b"])
    target = columns([1, 4, 5, 0, np.nan], ["a", "c", "a", "b", None])
    found = support_of(source, target, home=columns([2, 9], ["a", "a"]))
    assert (found.share, found.share_home) == (0.8, 0.5)
    assert {f.feature: f.share for f in found.features} == {"number": 0.6, "category": 0.4}


def test_what_the_source_lacks_too_is_no_gap_and_a_column_it_never_has_is_one():
    target = columns([1, np.nan], ["a", None])
    assert support_of(columns([1, np.nan], ["a", None]), target).share == 0.0
    assert support_of(columns([np.nan, np.nan], ["a", None]), target).share == 0.5


def test_without_shift_both_shares_are_the_two_tails():
    rng = np.random.default_rng(0)
    rows = [columns(rng.normal(size=20_000), ["a"] * 20_000) for _ in range(3)]
    found = support_of(rows[0], rows[1], home=rows[2])
    assert [found.share, found.share_home] == pytest.approx([2 * TAIL] * 2, abs=0.001)


def test_support_without_rows_is_undefined_and_other_columns_are_refused():
    assert support_of(columns([1], ["a"]), columns([], [])).share is None
    assert support_of(columns([1], ["a"]), columns([1], ["a"]), home=columns([], [])).share_home is None
    with pytest.raises(ValueError, match="expected the columns"):
        support_of(columns([1], ["a"]), {"number": np.array([1.0])})


# --- label shift ---


def mixed(rows, prior, *, seed):
    """Scores of label shift: each class has its own distribution, whatever the prior."""
    rng = np.random.default_rng(seed)
    y = (rng.random(rows) < prior).astype(float)
    return rng.normal(size=rows) + y, y


def test_bbse_by_hand():
    # ranks of the source 1/8, 3/8, 5/8, 7/8: goods 1/4 on average, bads 3/4; both target rows lie at 1/2
    found = estimate_label_shift(np.arange(4.0), np.array([0.0, 0, 1, 1]), np.array([1.5, 1.5]), np.full(2, np.nan))
    assert found.prior_target == pytest.approx(0.5)
    assert found.condition == pytest.approx(2.0)  # of [[.75, .25], [.25, .75]]
    assert (found.status, found.observed, found.z) == ("insufficient", None, None)


def test_bbse_finds_the_prior_and_both_of_its_standard_errors_are_right():
    z, check = [], []
    for seed in range(300):
        found = estimate_label_shift(*mixed(2000, 0.3, seed=seed), *mixed(1500, 0.1, seed=seed + 1000))
        z.append((found.prior_target - 0.1) / found.standard_error)
        check.append(found.z)
    for values in (z, check):
        assert np.mean(values) == pytest.approx(0, abs=0.2)
        assert np.std(values) == pytest.approx(1, abs=0.15)


def test_bbse_does_not_look_at_the_labels_of_the_target():
    source, (raw, y) = mixed(500, 0.3, seed=1), mixed(500, 0.1, seed=2)
    honest, poisoned = (estimate_label_shift(*source, raw, labels) for labels in (y, 1 - y))
    assert honest.observed != poisoned.observed
    assert dataclasses.replace(poisoned, observed=honest.observed, z=honest.z) == honest


@given(st.floats(0.1, 5), st.floats(-3, 3))
@settings(max_examples=20, deadline=None)
def test_bbse_needs_no_calibration(slope, intercept):
    (raw_s, y_s), (raw_t, y_t) = mixed(300, 0.3, seed=3), mixed(300, 0.1, seed=4)
    found = estimate_label_shift(intercept + slope * raw_s, y_s, intercept + slope * raw_t, y_t)
    assert found.prior_target == pytest.approx(estimate_label_shift(raw_s, y_s, raw_t, y_t).prior_target)


def test_bbse_is_ill_posed_where_the_score_ranks_nothing_or_the_wrong_way():
    rng, labels = np.random.default_rng(0), np.repeat([0.0, 1.0], [900, 100])
    assert estimate_label_shift(rng.normal(size=1000), labels, rng.normal(size=500), labels[:500]).status == "ill-posed"
    assert estimate_label_shift(-labels, labels, rng.normal(size=500), labels[:500]).status == "ill-posed"
    assert estimate_label_shift(np.ones(1000), labels, np.ones(500), labels[:500]).prior_target is None


def test_bbse_is_undefined_without_held_out_source_labels():
    assert estimate_label_shift(np.empty(0), np.empty(0), *mixed(50, 0.3, seed=0)).status == "undefined"


@given(st.lists(st.integers(0, 5), min_size=1, max_size=9), st.lists(st.integers(-1, 6), max_size=9))
def test_midranks_are_shares_below_plus_half_of_the_ties(reference, values):
    slow = [np.mean([(r < v) + (r == v) / 2 for r in reference]) for v in values]
    assert midranks(np.array(reference, float), np.array(values, float)).tolist() == pytest.approx(slow)


# --- level ---


def test_level_and_slope_are_measured_against_the_model_calibrated_at_home():
    rng = np.random.default_rng(0)
    truth = rng.normal(-2, 1, 40_000)
    y_home = (rng.random(40_000) < expit(truth)).astype(float)
    y = (rng.random(40_000) < expit(1.0 + truth)).astype(float)
    found = level_shift(4 + 2 * truth, y_home, 4 + 2 * truth, y)  # a raw logit that is off at home too
    assert abs(found.offset - 1.0) < 3 * found.offset_error < 0.15
    assert abs(found.slope - 1.0) < 3 * found.slope_error < 0.15
    assert found.predicted_observed == pytest.approx(expit(truth).mean() / y.mean(), rel=0.05)
    assert (found.status, found.auc) == ("ok", auc_value(y, truth))


def test_the_errors_of_level_and_slope_include_those_at_home():
    offsets, slopes = [], []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        home, here = rng.normal(-2, 1, 1000), rng.normal(-1, 1, 1500)
        labels = [(rng.random(len(truth)) < expit(truth)).astype(float) for truth in (home, here)]
        found = level_shift(home, labels[0], here, labels[1])
        offsets.append(found.offset / found.offset_error)
        slopes.append((found.slope - 1) / found.slope_error)
    assert [np.std(offsets), np.std(slopes)] == pytest.approx([1, 1], abs=0.15)


def test_a_level_needs_both_classes_in_both_populations():
    raw, y = np.arange(6.0), np.array([0.0, 1, 0, 1, 0, 1])
    assert level_shift(raw, y, raw, y).status == "insufficient"
    assert level_shift(raw, np.zeros(6), raw, y).status == "undefined"
    assert level_shift(np.ones(6), y, raw, y).slope is None


# --- Y|X shift ---


def test_the_statistic_is_that_of_its_definition():
    x, y = drawn(900, seed=1)
    raw = (x @ REVERSED).astype(float)
    p = expit(fit_line(raw, y).logit(raw))
    W = np.diag(p * (1 - p))
    Z = np.column_stack([np.ones(900), raw])
    rest = x - Z @ np.linalg.inv(Z.T @ W @ Z) @ Z.T @ W @ x
    eigenvalues, vectors = np.linalg.eigh(rest.T @ W @ rest)
    real = eigenvalues > 1e-6 * eigenvalues.max()  # raw is a combination of the columns
    z = (vectors.T @ rest.T @ (y - p))[real] / np.sqrt(eigenvalues[real])
    t = 0.25 * np.trace(W) / eigenvalues.sum()
    s = t * eigenvalues[real] / (1 + t * eigenvalues[real])
    found = concept_shift(x, raw, y, NAMES, seed=0)
    assert found.statistic == pytest.approx((s * z**2).sum() / s.sum(), rel=1e-6)
    assert found.columns == DRIVERS


def test_without_shift_one_portfolio_in_twenty_is_named_where_the_source_model_is_exact():
    found = []
    for seed in range(300):
        x, y = drawn(900, seed=seed)  # about 100 bads
        found.append(concept_shift(x, (x @ EFFECTS).astype(float), y, NAMES, seed=seed, draws=200))
    assert 80 < np.mean([f.n_bad for f in found]) < 130
    assert 0.02 < np.mean([f.p <= 0.05 for f in found]) < 0.09
    assert np.mean([f.statistic for f in found]) == pytest.approx(1, abs=0.05)
    assert np.mean([f.expected for f in found]) == pytest.approx(1, abs=0.02)


def test_a_source_model_with_errors_of_its_own_is_named_no_more_often():
    seen, careless = [], []
    for seed in range(60):
        (x_fit, y_fit), (x_home, y_home), (x, y) = (
            drawn(rows, seed=3 * seed + k) for k, rows in enumerate((6500, 1600, 3000))
        )
        raw = fitted(x_fit, y_fit)
        home = measure_home_error(x_home, raw(x_home), y_home, y_fit)
        seen.append(concept_shift(x, raw(x), y, NAMES, seed=seed, home=home, draws=200).p <= 0.05)
        careless.append(concept_shift(x, raw(x), y, NAMES, seed=seed, draws=200).p <= 0.05)
    assert np.mean(seen) <= 0.10
    assert np.mean(careless) > 0.20  # why it is worth the trouble


@pytest.mark.parametrize(("rows", "correlation", "power"), [(900, 0.0, 0.6), (900, 0.5, 0.2), (4000, 0.5, 0.8)])
def test_reversed_drivers_are_seen(rows, correlation, power):
    verdicts = []
    for seed in range(50):
        x, y = drawn(rows, REVERSED, seed=seed, correlation=correlation)
        raw = (x @ EFFECTS).astype(float)
        verdicts.append(concept_shift(x, raw, y, NAMES, seed=seed, draws=200).verdict)
    assert np.mean([v == "large" for v in verdicts]) > power


def test_the_carriers_are_the_drivers_that_changed_with_their_signs():
    x, y = drawn(20_000, EFFECTS + np.r_[np.zeros(6), 0.5, -0.4, np.zeros(12)], seed=1, correlation=0.0)
    found = concept_shift(x, (x @ EFFECTS).astype(float), y, NAMES, seed=1)
    assert [(c.feature, c.direction) for c in found.carriers[:2]] == [("x6", "riskier"), ("x7", "safer")]


def test_the_auc_at_stake_is_what_the_truth_would_gain():
    effects = EFFECTS + np.r_[np.zeros(6), 0.3, -0.3, 0.3, -0.3, np.zeros(10)]
    x, y = drawn(20_000, effects, seed=2, correlation=0.0)
    raw = (x @ EFFECTS).astype(float)
    found = concept_shift(x, raw, y, NAMES, seed=2)
    assert found.verdict == "large"
    assert found.auc_at_stake == pytest.approx(auc_value(y, x @ effects) - auc_value(y, raw), abs=0.015)
    assert found.drift == pytest.approx(0.6, abs=0.1)


def test_ten_thousand_bads_do_not_make_a_trifle_large():
    x, y = drawn(100_000, EFFECTS + np.r_[np.zeros(6), 0.08, np.zeros(13)], seed=3, correlation=0.0)
    found = concept_shift(x, (x @ EFFECTS).astype(float), y, NAMES, seed=3, draws=400)
    assert found.n_bad > 10_000
    assert found.p < 0.01
    assert (found.verdict, found.auc_at_stake) == ("small", pytest.approx(0.002, abs=0.002))


def test_what_recalibration_repairs_is_no_concept_shift():
    x, y = drawn(4000, 0.5 * EFFECTS, seed=4, level=-1.0)
    assert concept_shift(x, (x @ EFFECTS).astype(float), y, NAMES, seed=4).verdict == "none seen"


def test_few_bads_are_insufficient():
    x, y = drawn(900, seed=5)
    few = y.cumsum() <= 29
    found = concept_shift(x[few], (x[few] @ EFFECTS).astype(float), y[few], NAMES, seed=0)
    assert (found.verdict, found.p, found.ratio, found.n_bad) == ("insufficient", None, None, 29)


def test_columns_without_information_do_not_enter_and_twins_are_carried_once():
    x, y = drawn(3000, REVERSED, seed=6)
    raw = (x @ EFFECTS).astype(float)
    rare = (np.arange(3000) < 5).astype(np.float32)
    wide = np.column_stack([x, x[:, 4], np.full(3000, 4.0), raw, rare]).astype(np.float32)
    alone = concept_shift(x, raw, y, NAMES, seed=6)
    found = concept_shift(wide, raw, y, [*NAMES, "twin", "constant", "logit", "rare"], seed=6)
    assert found.columns == alone.columns + 1
    carried = [c.feature for c in found.carriers]
    assert len({"x4", "twin"} & set(carried)) == 1
    idle = np.full((3000, 1), 1.0, np.float32)
    assert concept_shift(idle, raw, y, ["constant"], seed=6).verdict == "insufficient"
    assert measure_home_error(idle, raw, y, y).misfit == 0.0


@given(st.randoms(use_true_random=False))
@settings(max_examples=10, deadline=None)
def test_the_statistic_depends_neither_on_the_order_of_rows_nor_of_columns_nor_on_calibration(random):
    x, y = drawn(600, REVERSED, seed=7)
    raw = (x @ EFFECTS).astype(float)
    rows, names = list(range(600)), list(range(DRIVERS))
    random.shuffle(rows)
    random.shuffle(names)
    base = concept_shift(x, raw, y, NAMES, seed=7, draws=50)
    moved = concept_shift(x[rows][:, names], 3 * raw[rows] - 2, y[rows], [NAMES[j] for j in names], seed=7, draws=50)
    assert moved.statistic == pytest.approx(base.statistic, rel=1e-4)  # RIDGE stands on the standardised logit
    assert [c.feature for c in moved.carriers] == [c.feature for c in base.carriers]


def test_home_errors_are_those_of_estimation_and_of_a_line_where_the_truth_bends():
    x, _ = drawn(30_000, seed=8, correlation=0.0)
    rng = np.random.default_rng(8)
    bent = np.column_stack([x, x[:, 0] ** 2 - 1]).astype(np.float32)
    y = (rng.random(30_000) < expit(x @ EFFECTS - 2.3 + 0.3 * bent[:, -1])).astype(float)
    raw = (x @ EFFECTS).astype(float)
    home = measure_home_error(bent, raw, y, np.repeat([0.0, 1.0], [900, 100]))
    assert home.information == pytest.approx(1000 * 0.1 * 0.9)
    assert home.misfit == pytest.approx(0.3**2 / 21, rel=0.7)
    few = y.cumsum() <= 29
    assert measure_home_error(bent[few], raw[few], y[few], np.empty(0)) == HomeError()


def test_the_same_seed_gives_the_same_p():
    x, y = drawn(500, seed=9)
    raw = (x @ EFFECTS).astype(float)
    first, again, other = (concept_shift(x, raw, y, NAMES, seed=s, draws=150) for s in (1, 1, 2))
    assert first == again
    assert first.critical != other.critical


def test_names_that_do_not_fit_the_columns_are_refused():
    x, y = drawn(100, seed=0)
    with pytest.raises(ValueError, match="one name for each of 20 columns, got 1"):
        concept_shift(x, np.zeros(100), y, ["x0"], seed=0)
    with pytest.raises(ValueError, match="same rows"):
        concept_shift(x[:50], np.zeros(100), y, NAMES, seed=0)


@given(st.floats(0.0, 2.0), st.floats(0.0, 1.0))
@settings(max_examples=30, deadline=None)
def test_more_drift_puts_more_auc_at_stake(drift, more):
    logits = np.random.default_rng(0).normal(-2, 0.6, 500)
    assert auc_at_stake(logits, 0.0) == pytest.approx(0, abs=1e-12)
    assert auc_at_stake(logits, drift + more) >= auc_at_stake(logits, drift) - 1e-9


def test_the_auc_at_stake_agrees_with_drawing_it():
    rng = np.random.default_rng(1)
    logits = rng.normal(-2, 0.6, 400_000)
    truth = logits + rng.normal(0, 0.5, 400_000)
    y = rng.random(400_000) < expit(truth)
    assert auc_at_stake(logits[:20_000], 0.5) == pytest.approx(auc_value(y, truth) - auc_value(y, logits), abs=0.003)


# --- the diagnosis ---


def diagnosis(**changed):
    """Nothing differs, and enough rows to say so."""
    x, y = drawn(4000, seed=11)
    raw = (x @ EFFECTS - 2.3).astype(float)
    found = Diagnosis(
        contender="source_logistic",
        domain=DomainGap("ok", 0.51, 0.006, (FeatureGap("dti", 0.52),), (), 5000, 4000),
        support=support_of({"dti": x[:, 0].astype(float)}, {"dti": x[:, 0].astype(float)}),
        label=estimate_label_shift(raw[:2000], y[:2000], raw[2000:], y[2000:]),
        level=level_shift(raw[:2000], y[:2000], raw[2000:], y[2000:]),
        concept=concept_shift(x[2000:], raw[2000:], y[2000:], NAMES, seed=1),
    )
    return dataclasses.replace(
        found, **{name: dataclasses.replace(getattr(found, name), **to) for name, to in changed.items()}
    )


UNSEEN = {"verdict": "insufficient", "statistic": None, "expected": None, "critical": None, "p": None, "drift": None,
          "auc_at_stake": None, "auc_detectable": None, "carriers": (), "n_bad": 12}  # fmt: skip
CASES = {
    "nothing": ({}, (), "Borrowing looks safe."),
    "features": ({"domain": {"auc": 0.7}}, ("covariate",), "Borrowing looks safe."),
    "features within noise": ({"domain": {"auc": 0.6, "standard_error": 0.04}}, (), "Borrowing looks safe."),
    "level": ({"level": {"offset": 0.9, "offset_error": 0.1}}, ("level",), "Borrowing changes priors only"),
    "a certain trifle": ({"level": {"offset": 0.09, "offset_error": 0.001}}, (), "Borrowing looks safe."),
    "slope": ({"level": {"slope": 0.6, "slope_error": 0.05}}, ("level",), "Borrowing changes priors only"),
    "slope lost": ({"level": {"slope": 0.1, "slope_error": 0.1}}, ("concept",), "Risk drivers differ: contenders"),
    "class mix": (
        {"level": {"offset": 0.9, "offset_error": 0.1},
         "label": {"prior_source": 0.1, "prior_target": 0.3, "standard_error": 0.02, "z": 0.4}},
        ("label",), "Borrowing changes priors only",
    ),
    "not class mix alone": (
        {"level": {"offset": 0.9, "offset_error": 0.1},
         "label": {"prior_source": 0.1, "prior_target": 0.3, "standard_error": 0.02, "z": 4.0}},
        ("level",), "Borrowing changes priors only",
    ),
    "little power": (
        {"concept": {"auc_detectable": 0.04, "n_bad": 45}}, (), "Borrowing looks safe, as far as 45 bads can show."
    ),
    "small concept": ({"concept": {"verdict": "small"}}, ("concept",), "Risk drivers differ a little"),
    "large concept": (
        {"concept": {"verdict": "large"}, "level": {"offset": 0.9, "offset_error": 0.1}},
        ("concept",), "Risk drivers differ: contenders that target labels did not teach must win on rows",
    ),
    "few bads": ({"concept": UNSEEN, "level": {"status": "insufficient"}}, (), "Nothing can be said"),
    "no level": ({"level": {"status": "undefined"}}, (), "Borrowing looks safe as far as"),
    "outside support": ({"support": {"share": 0.3, "share_home": 0.01}}, (), "30% of target rows lie where"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_finding_has_its_kind_its_meaning_and_its_sentences(case):
    changed, kinds, meaning = CASES[case]
    found = diagnosis(**changed)
    assert found.kinds == kinds
    assert meaning in found.meaning
    assert found.blocks_transfer == (case in ("slope lost", "large concept"))
    assert len(found.sentences) == 5
    assert all(s.endswith(".") and "None" not in s and "nan" not in s for s in found.sentences)


def test_features_that_define_the_split_are_to_be_dropped_or_clipped():
    one = diagnosis(domain={"auc": 1.0, "standard_error": 0.0, "defining": ("lines",)})
    two = diagnosis(domain={"auc": 1.0, "standard_error": 0.0, "defining": ("pay_1", "pay_2")})
    assert one.sentences[0].startswith("lines defines the split")
    assert "drop or clip it before any density ratio" in one.sentences[0]
    assert two.sentences[0].startswith("pay_1 and pay_2 together define the split")


def test_sentences_carry_the_figures():
    said = " ".join(diagnosis(domain={"auc": 0.73}, concept={"verdict": "large"}).sentences)
    assert "domain AUC 0.73 ± 0.01" in said
    assert "dti (0.52, higher in the target)" in said
    assert "AUC at stake" in said
    assert "riskier in the target than the source says with more" in said


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_diagnosis_survives_json(case):
    found = diagnosis(**CASES[case][0])
    document = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert read_diagnosis(document) == found
    assert document["kinds"] == list(found.kinds)
    assert document["sentences"] == list(found.sentences)


def test_a_diagnosis_without_a_source_contender_says_so():
    nobody = np.empty(0)
    found = dataclasses.replace(
        diagnosis(),
        contender=None,
        label=estimate_label_shift(nobody, nobody, nobody, nobody),
        level=level_shift(nobody, nobody, nobody, nobody),
        concept=concept_shift(np.empty((0, 1)), nobody, nobody, ["x"], seed=0),
    )
    assert found.kinds == ()
    assert found.meaning.startswith("Nothing can be said about risk drivers")
    assert "no source-only contender" in found.sentences[-1]

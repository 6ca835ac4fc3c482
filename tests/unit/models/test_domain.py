"""Rules of the domain classifier."""

import numpy as np
import pytest

from crossrisk.metrics import auc_value
from models.shallow.domain import FEWEST_ROWS, MOST_ROWS, _auc_variance, tell_apart

NAMES = [f"x{j}" for j in range(5)]


def normal(rows, *, seed, shift=0.0):
    x = np.random.default_rng(seed).normal(size=(rows, 5)).astype(np.float32)
    x[:, 1] += shift
    return x


@pytest.mark.flow
def test_populations_alike_have_an_auc_of_one_half_within_noise():
    z = [
        (found.auc - 0.5) / found.standard_error
        for seed in range(6)
        for found in [tell_apart(normal(600, seed=seed), normal(300, seed=seed + 100), NAMES, seed=seed)]
    ]
    assert abs(np.mean(z)) < 1.2
    assert max(np.abs(z)) < 3.0


def test_a_moved_feature_is_found_and_named_with_its_direction():
    found = tell_apart(normal(2000, seed=0), normal(500, seed=1, shift=-1.0), NAMES, seed=0)
    assert found.auc == pytest.approx(0.74, abs=0.03)  # at best Phi(1 / sqrt 2) = .76
    assert found.features[0].feature == "x1"
    assert found.features[0].auc == pytest.approx(0.24, abs=0.03)
    assert found.defining == ()


def test_a_difference_that_no_feature_shows_alone_is_found():
    source, target = normal(2000, seed=0), normal(2000, seed=1)
    target[:, 1] = 0.9 * target[:, 0] + 0.45 * target[:, 1]  # standard normal as before, but no longer independent
    found = tell_apart(source, target, NAMES, seed=0)
    assert max(abs(f.auc - 0.5) for f in found.features) < 0.05
    assert found.auc > 0.7


def test_the_feature_that_defines_the_split_is_named_alone():
    source, target = normal(800, seed=0), normal(300, seed=1)
    source[:, 3], target[:, 3] = np.abs(source[:, 3]), -np.abs(target[:, 3]) - 0.01
    found = tell_apart(source, target, NAMES, seed=0)
    assert found.auc == pytest.approx(1.0, abs=0.002)
    assert found.defining == ("x3",)


def test_features_that_define_the_split_together_are_named_together():
    x = normal(4000, seed=0)
    is_target = (x[:, 0] < 0) & (x[:, 2] < 0)
    found = tell_apart(x[~is_target], x[is_target], NAMES, seed=0)
    assert set(found.defining) == {"x0", "x2"}


def test_rows_are_bounded_and_drawn_by_the_seed():
    source, target = normal(MOST_ROWS + 500, seed=0), normal(200, seed=1, shift=0.5)
    first, again = (tell_apart(source, target, NAMES, seed=4) for _ in range(2))
    assert first == again
    assert (first.n_source, first.n_target) == (MOST_ROWS, 200)


def test_few_rows_are_insufficient_and_other_columns_refused():
    found = tell_apart(normal(500, seed=0), normal(FEWEST_ROWS - 1, seed=1), NAMES, seed=0)
    assert (found.status, found.auc, found.n_target) == ("insufficient", None, FEWEST_ROWS - 1)
    with pytest.raises(ValueError, match="5 named columns"):
        tell_apart(normal(100, seed=0), normal(100, seed=1)[:, :4], NAMES, seed=0)


def test_the_standard_error_is_the_spread_of_aucs_over_samples():
    rng = np.random.default_rng(0)
    areas, variances = [], []
    for _ in range(400):
        target, source = rng.normal(0.5, 1, 80), rng.normal(0, 1, 150)
        areas.append(auc_value(np.repeat([1, 0], [80, 150]), np.r_[target, source]))
        variances.append(_auc_variance(target, source))
    assert np.sqrt(np.mean(variances)) == pytest.approx(np.std(areas), rel=0.12)

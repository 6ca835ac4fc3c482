"""Rules of the two-sample test: the estimate is the loss's, 5% of equal samples are called different, shifts found."""

import numpy as np
import pytest
import tensorflow as tf

from models.mmd import mk_mmd2
from models.two_sample import FAMILY, two_sample_test


def test_the_estimate_is_that_of_the_training_s_mmd():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(40, 6)).astype(np.float32), rng.normal(0.3, 1.5, size=(25, 6)).astype(np.float32)
    expected = mk_mmd2(tf.constant(x), tf.constant(y), FAMILY, "unbiased")
    assert two_sample_test(x, y, permutations=1, seed=0).mmd2 == pytest.approx(float(expected), abs=1e-6)


def test_samples_of_one_distribution_are_called_different_in_five_of_a_hundred_cases():
    rng = np.random.default_rng(2)
    samples = ((rng.gamma(2, size=(30, 4)), rng.gamma(2, size=(20, 4))) for _ in range(400))
    p = np.array([two_sample_test(x, y, permutations=99, seed=i).p for i, (x, y) in enumerate(samples)])
    assert 0.03 <= np.mean(p <= 0.05) <= 0.075  # .05 expected; its standard error is .011
    assert 0.43 <= np.mean(p <= 0.5) <= 0.57


@pytest.mark.parametrize("change", ["mean", "spread", "dependence"])
def test_a_shift_of_mean_spread_or_dependence_is_found(change):
    rng = np.random.default_rng(3)
    x = rng.normal(size=(300, 3))
    y = rng.normal(size=(300, 3))
    if change == "mean":
        y += 0.5
    elif change == "spread":
        y *= 1.6
    else:
        y[:, 1] = 0.9 * y[:, 0] + np.sqrt(1 - 0.81) * y[:, 1]
    found = two_sample_test(x.astype(np.float32), y.astype(np.float32), permutations=199, seed=0)
    assert found.p == 1 / 200
    assert found.mmd2 > 5 * found.null_sd


def test_activations_without_variance_show_nothing():
    same = np.full((10, 3), 1_000.0, np.float32)
    found = two_sample_test(same, same, permutations=19, seed=0)
    assert (found.mmd2, found.p) == (pytest.approx(0.0, abs=1e-9), 1.0)


def test_a_common_offset_changes_nothing():
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(50, 5)), rng.normal(0.4, size=(60, 5))
    plain = two_sample_test(x.astype(np.float32), y.astype(np.float32), permutations=49, seed=1)
    moved = two_sample_test((x + 1000).astype(np.float32), (y + 1000).astype(np.float32), permutations=49, seed=1)
    assert moved.mmd2 == pytest.approx(plain.mmd2, abs=1e-4)
    assert moved.p == plain.p


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (np.zeros((3, 2)), np.zeros((9, 2)), "at least 4 rows"),
        (np.zeros((9, 2)), np.zeros((9, 3)), "expected samples"),
        (np.full((9, 2), np.nan), np.zeros((9, 2)), "finite"),
    ],
)
def test_samples_that_cannot_be_compared_are_refused(first, second, said):
    with pytest.raises(ValueError, match=said):
        two_sample_test(first.astype(np.float32), second.astype(np.float32), permutations=9, seed=0)

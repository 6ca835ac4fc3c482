"""The no-shift band against estimates between fresh samples of one population."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from models.kernel_family import KernelFamily
from models.mmd import mk_mmd2, no_shift_band
from tests.data.mmd_batches import (
    FIXED,
    batches,
    widths,
)


@pytest.mark.parametrize("family", [KernelFamily(), FIXED, KernelFamily(bandwidth="median")], ids=str)
def test_no_shift_band_is_the_spread_of_the_unbiased_estimate_over_the_halves(family: KernelFamily) -> None:
    x, _ = batches(12, 1, d=3, leading=(2,))
    rng = np.random.default_rng(0)
    halves = np.stack([rng.permutation(np.repeat([1.0, -1.0], 6)) for _ in range(7)])
    bands = no_shift_band(x, tf.constant(halves), family).numpy()
    for member in range(2):
        rows = x[member].numpy()
        centre = tf.constant(widths(rows[:6], rows[6:], family)[family.num // 2], tf.float64)
        estimates = [float(mk_mmd2(rows[h > 0], rows[h < 0], family, "unbiased", centre=centre)) for h in halves]
        assert bands[member] == pytest.approx(np.std(estimates), rel=1e-9)


def test_the_band_of_one_population_is_the_spread_of_the_estimate_between_fresh_samples_of_it() -> None:
    rng = np.random.default_rng(5)
    halves = np.stack([rng.permutation(np.repeat([1.0, -1.0], 20)) for _ in range(16)])
    bands = no_shift_band(rng.normal(size=(300, 40, 3)), halves, FIXED).numpy()
    fresh = mk_mmd2(rng.normal(size=(600, 20, 3)), rng.normal(size=(600, 20, 3)), FIXED, "unbiased").numpy()
    assert np.mean(bands) == pytest.approx(np.std(fresh), rel=0.12)


@pytest.mark.parametrize("rows", [2, 5])
def test_no_shift_band_refuses_a_sample_that_has_no_halves(rows: int) -> None:
    with pytest.raises(ValueError, match=r"shape \(\.\.\., 2 m, d\)"):
        no_shift_band(tf.zeros([rows, 3]), tf.ones([2, rows]), KernelFamily())


def test_no_shift_band_refuses_halves_of_another_sample() -> None:
    with pytest.raises(ValueError, match="one sign for each of the 8 rows"):
        no_shift_band(np.zeros((8, 2), np.float32), np.ones((4, 6), np.float32), KernelFamily())

"""Rules of WOE and IV: declared sign, one constant, empty bins, the noise null, the interval."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossrisk.metrics.woe import information_value

BAD_OVER_GOOD, GOOD_OVER_BAD = "ln(bad/good)", "ln(good/bad)"
counts = st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), min_size=1, max_size=8)


def measure(bads, goods, sign=BAD_OVER_GOOD, **options):
    return information_value(bads, goods, names=[f"bin {i}" for i in range(len(bads))], sign=sign, **options)


def test_values_worked_by_hand() -> None:
    found = measure([30, 10], [20, 80])
    bad, good = np.array([30.5, 10.5]) / 41, np.array([20.5, 80.5]) / 101
    assert [each.woe for each in found.bins] == pytest.approx(np.log(bad / good).tolist())
    assert found.iv.value == pytest.approx(((bad - good) * np.log(bad / good)).sum())
    assert found.null_mean == pytest.approx(1 / 40 + 1 / 100)
    assert found.critical == pytest.approx(3.8415 * (1 / 40 + 1 / 100), rel=1e-4)
    assert found.net == pytest.approx(found.iv.value - found.null_mean)


def test_declared_sign_turns_the_woe_and_leaves_the_iv() -> None:
    one, other = measure([30, 10], [20, 80]), measure([30, 10], [20, 80], GOOD_OVER_BAD)
    assert [each.woe for each in one.bins] == [-each.woe for each in other.bins]
    assert one.bins[0].woe > 0  # the riskier bin, under ln(bad/good)
    assert one.iv == other.iv
    assert (one.sign, other.sign) == (BAD_OVER_GOOD, GOOD_OVER_BAD)


@given(counts)
def test_table_adds_up_to_the_iv_with_one_constant(rows) -> None:
    bads, goods = zip(*rows, strict=True)
    found = measure(bads, goods)
    json.dumps(found.to_json(), allow_nan=False)
    assert (sum(each.n_bad for each in found.bins), sum(each.n_good for each in found.bins)) == (sum(bads), sum(goods))
    if found.iv.status != "undefined":
        filled = [each for each in found.bins if each.woe is not None]
        assert found.iv.value == pytest.approx(sum(each.contribution for each in filled), abs=1e-12)
        m, n = sum(bads) + len(filled) / 2, sum(goods) + len(filled) / 2
        for each in filled:
            bad, good = (each.n_bad + 0.5) / m, (each.n_good + 0.5) / n
            assert each.woe == pytest.approx(math.log(bad / good))
            assert each.contribution == pytest.approx((bad - good) * math.log(bad / good), abs=1e-15)


@given(counts, st.randoms())
def test_order_of_bins_decides_nothing(rows, random) -> None:
    shuffled = random.sample(rows, len(rows))
    one, other = measure(*zip(*rows, strict=True)), measure(*zip(*shuffled, strict=True))
    assert (one.iv.value or 0) == pytest.approx(other.iv.value or 0, abs=1e-12)
    assert one.verdict == other.verdict


def test_bin_without_rows_says_nothing_and_changes_nothing() -> None:
    found, without = measure([30, 0, 10], [20, 0, 80]), measure([30, 10], [20, 80])
    assert (found.bins[1].woe, found.bins[1].contribution) == (None, None)
    assert found.iv == without.iv
    assert found.critical == without.critical


def test_bin_without_bads_has_a_finite_woe() -> None:
    found = measure([0, 40], [100, 300])
    assert found.bins[0].woe == pytest.approx(math.log((0.5 / 41) / (100.5 / 401)))


@pytest.mark.parametrize(("bads", "goods"), [([0, 0], [10, 20]), ([10, 20], [0, 0]), ([0], [0]), ([], [])])
def test_one_class_is_a_status(bads, goods) -> None:
    found = measure(bads, goods)
    assert (found.iv.value, found.iv.status, found.verdict, found.p) == (None, "undefined", "undefined", None)
    assert len(found.bins) == len(bads)


def test_one_bin_carries_nothing() -> None:
    found = measure([40], [400])
    assert (found.iv.value, found.critical, found.verdict, found.bins[0].woe) == (0.0, 0.0, "not above noise", 0.0)


def test_few_bads_are_insufficient_and_still_judged() -> None:
    found = measure([3, 1], [100, 100])
    assert (found.iv.status, found.verdict) == ("insufficient", "not above noise")


def test_strong_feature_is_above_noise_with_an_interval_above_zero() -> None:
    found = measure([150, 70, 25], [800, 1200, 1360])
    assert found.verdict == "above noise"
    assert 0 < found.iv.low < found.net < found.iv.high


@pytest.mark.parametrize(
    ("bads", "goods", "message"),
    [
        ([1, 2], [1], "for 2 bins"),
        ([1, -2], [1, 2], "at least 0"),
        ([1, 2.5], [1, 2], "whole counts"),
        ([1, np.nan], [1, 2], "whole counts"),
        ([1, np.inf], [1, 2], "whole counts"),
    ],
)
def test_counts_that_are_none_are_refused(bads, goods, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measure(bads, goods)


def test_sign_must_be_one_of_the_two() -> None:
    with pytest.raises(ValueError, match="expected the sign"):
        measure([1], [1], "bad")


@pytest.mark.parametrize(("bads", "goods", "bins"), [(245, 3360, 10), (105, 1400, 5), (350, 4800, 20)])
def test_noise_is_above_noise_in_about_one_feature_of_twenty(bads: int, goods: int, bins: int) -> None:
    rng = np.random.default_rng(bins)
    share = rng.dirichlet(np.full(bins, 20.0))
    found = [measure(rng.multinomial(bads, share), rng.multinomial(goods, share)) for _ in range(1500)]
    assert 0.03 <= np.mean([each.verdict == "above noise" for each in found]) <= 0.065
    assert found[0].null_mean == pytest.approx(np.mean([each.iv.value for each in found]), rel=0.06)


@pytest.mark.parametrize("strength", [0.0, 0.3, 0.6, 1.2])
@pytest.mark.parametrize(("bads", "goods"), [(105, 1400), (1000, 5500)])
def test_interval_covers_the_iv_without_noise(bads: int, goods: int, strength: float) -> None:
    good = np.full(8, 1 / 8)
    bad = good * np.exp(strength * np.linspace(-1, 1, 8))
    bad /= bad.sum()
    truth = float(((bad - good) * np.log(bad / good)).sum())
    rng = np.random.default_rng(bads)
    found = [measure(rng.multinomial(bads, bad), rng.multinomial(goods, good)).iv for _ in range(1000)]
    covered = np.mean([each.low <= truth <= each.high for each in found])
    if strength == 0:
        assert 0.965 <= covered <= 0.985  # an interval that starts at 0 can only be too high: one tail of 2.5%
    else:
        assert 0.93 <= covered <= 0.97


def test_standard_error_of_the_woe_is_its_spread_over_samples() -> None:
    rng = np.random.default_rng(3)
    bad, good = np.array([0.5, 0.3, 0.2]), np.array([0.3, 0.3, 0.4])
    found = [measure(rng.multinomial(400, bad), rng.multinomial(4000, good)).bins for _ in range(2000)]
    for place in range(3):
        spread = np.std([bins[place].woe for bins in found])
        assert found[0][place].standard_error == pytest.approx(spread, rel=0.15)

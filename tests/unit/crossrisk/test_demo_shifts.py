"""Rules of the generated shifts: in each, one thing moves, and the returned truth is the truth."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp, kstest

from crossrisk.demo_shifts import (
    COLUMNS,
    EDGE,
    SHIFTS,
    KnownRows,
    Shift,
    ShiftSizes,
    bad_probability,
    draw_shift,
)
from crossrisk.metrics import auc_value

MANY = ShiftSizes(source_fit=20_000, source_stop=10, target_fit=20_000, target_test=10)
FEW = ShiftSizes(source_fit=50, source_stop=40, target_fit=30, target_test=20)
SAMPLES = ("source_fit", "source_stop", "target_fit", "target_test")
CERTAIN = 1e-4
"""A p below this refutes a rule; the draws are seeded, so a rule that holds once holds always."""

shifts = st.sampled_from(SHIFTS)
strengths = st.floats(0, 1)
seeds = st.integers(0, 2**32 - 1)


def pair(shift: Shift, strength: float = 1.0) -> tuple[KnownRows, KnownRows]:
    drawn = draw_shift(shift, 11, strength=strength, sizes=MANY)
    return drawn.source_fit, drawn.target_fit


def identical(one: KnownRows, other: KnownRows) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("x", "y", "probability"))


def share_a_distribution(one: np.ndarray, other: np.ndarray) -> bool:
    """Column by column, and for the sum of the columns, which a change of their correlation would move."""
    columns = [*zip(one.T, other.T, strict=True), (one.sum(axis=1), other.sum(axis=1))]
    return all(ks_2samp(a, b).pvalue > CERTAIN for a, b in columns)


# --- every shift ---


@settings(max_examples=40)
@given(shifts, strengths, seeds)
def test_arrays_have_their_shapes_types_and_ranges(shift: Shift, strength: float, seed: int) -> None:
    drawn = draw_shift(shift, seed, strength=strength, sizes=FEW)
    for name in SAMPLES:
        rows, n = getattr(drawn, name), getattr(FEW, name)
        assert rows.x.shape == (n, len(COLUMNS))
        assert rows.y.shape == rows.probability.shape == (n,)
        assert rows.x.dtype == rows.y.dtype == np.float32
        assert set(np.unique(rows.y)) <= {0.0, 1.0}
        assert ((rows.probability > 0) & (rows.probability < 1)).all()


@settings(max_examples=40)
@given(shifts, strengths, seeds)
def test_returned_probability_is_the_formulas_for_the_stored_rows(shift: Shift, strength: float, seed: int) -> None:
    drawn = draw_shift(shift, seed, strength=strength, sizes=FEW)
    for rows in (drawn.source_fit, drawn.source_stop):
        assert np.array_equal(rows.probability, bad_probability(rows.x))
    for rows in (drawn.target_fit, drawn.target_test):
        assert np.array_equal(rows.probability, bad_probability(rows.x, shift, strength))


@settings(max_examples=20)
@given(shifts, seeds)
def test_at_strength_zero_every_shift_is_none_to_the_last_bit(shift: Shift, seed: int) -> None:
    one, none = (draw_shift(kind, seed, strength=0.0, sizes=FEW) for kind in (shift, "none"))
    assert all(identical(getattr(one, name), getattr(none, name)) for name in SAMPLES)


@settings(max_examples=20)
@given(shifts, strengths, seeds)
def test_source_of_a_seed_does_not_depend_on_the_shift(shift: Shift, strength: float, seed: int) -> None:
    one, none = draw_shift(shift, seed, strength=strength, sizes=FEW), draw_shift("none", seed, sizes=FEW)
    assert identical(one.source_fit, none.source_fit)
    assert identical(one.source_stop, none.source_stop)


def test_samples_are_drawn_apart_and_repeat_with_the_seed_alone() -> None:
    same_size = ShiftSizes(30, 30, 30, 30)
    drawn, again, other = (draw_shift("none", seed, sizes=same_size) for seed in (1, 1, 2))
    first_values = {float(getattr(drawn, name).x[0, 0]) for name in SAMPLES}
    assert len(first_values) == len(SAMPLES)
    assert all(identical(getattr(drawn, name), getattr(again, name)) for name in SAMPLES)
    assert not any(identical(getattr(drawn, name), getattr(other, name)) for name in SAMPLES)


def test_a_sample_does_not_move_when_another_gets_more_rows() -> None:
    few, more = (draw_shift("label", 5, sizes=sizes) for sizes in (FEW, replace(FEW, source_fit=70)))
    assert identical(few.target_test, more.target_test)


@pytest.mark.parametrize("shift", SHIFTS)
def test_labels_follow_the_returned_probability(shift: Shift) -> None:
    _, target = pair(shift)
    tenths = np.array_split(np.argsort(target.probability), 10)
    for rows in tenths:
        p = target.probability[rows]
        standard_error = np.sqrt((p * (1 - p)).sum()) / len(rows)
        assert abs(target.y[rows].mean() - p.mean()) < 4 * standard_error


@pytest.mark.parametrize("shift", SHIFTS)
def test_best_auc_is_what_the_truth_reaches_and_bad_rate_what_the_labels_show(shift: Shift) -> None:
    for rows in pair(shift):
        assert auc_value(rows.y, rows.probability) == pytest.approx(rows.best_auc, abs=0.01)
        assert rows.y.mean() == pytest.approx(rows.bad_rate, abs=0.01)


# --- none ---


def test_without_a_shift_both_populations_are_one() -> None:
    source, target = pair("none")
    assert share_a_distribution(source.x, target.x)
    assert source.bad_rate == pytest.approx(target.bad_rate, abs=0.01)
    assert np.array_equal(bad_probability(target.x, "none"), bad_probability(target.x))


# --- covariate ---


@settings(max_examples=20)
@given(strengths, seeds)
def test_covariate_shift_keeps_the_risk_of_every_row(strength: float, seed: int) -> None:
    target = draw_shift("covariate", seed, strength=strength, sizes=FEW).target_fit
    assert np.array_equal(target.probability, bad_probability(target.x))


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_covariate_shift_moves_tempting_and_nuisance_as_written_and_nothing_else(strength: float) -> None:
    source, target = pair("covariate", strength)
    moved = {"tempting": (4 * strength, 1 + strength / 2), "nuisance": (strength, 1.0)}
    for column, name in enumerate(COLUMNS):
        assert kstest(source.x[:, column], "norm").pvalue > CERTAIN
        assert kstest(target.x[:, column], "norm", args=moved.get(name, (0.0, 1.0))).pvalue > CERTAIN


def test_covariate_shift_at_full_strength_leaves_the_bad_rate_and_takes_tempting_beyond_its_edge() -> None:
    source, target = pair("covariate")
    assert source.bad_rate == pytest.approx(target.bad_rate, abs=0.02)
    tempting = COLUMNS.index("tempting")
    assert (source.x[:, tempting] < EDGE).mean() == pytest.approx(0.977, abs=0.01)
    assert (target.x[:, tempting] < EDGE).mean() == pytest.approx(0.091, abs=0.01)


def test_tempting_ranks_better_than_a_robust_column_in_the_source_and_misleads_in_the_target() -> None:
    source, target = pair("covariate")
    tempting, robust = COLUMNS.index("tempting"), COLUMNS.index("robust_a")
    assert auc_value(source.y, source.x[:, tempting]) > auc_value(source.y, source.x[:, robust]) + 0.05
    assert auc_value(target.y, target.x[:, tempting]) < 0.5
    beyond = target.x[:, tempting] >= EDGE
    assert auc_value(target.y[beyond], target.x[beyond, tempting]) == pytest.approx(0.5, abs=0.02)


# --- label ---


def test_label_shift_keeps_the_distribution_of_each_class() -> None:
    source, target = pair("label")
    for of_class in (0.0, 1.0):
        assert share_a_distribution(source.x[source.y == of_class], target.x[target.y == of_class])


def test_label_shift_moves_the_mixture_that_the_classes_make() -> None:
    source, target = pair("label")
    assert target.bad_rate > source.bad_rate + 0.4
    assert not share_a_distribution(source.x, target.x)


@settings(max_examples=20)
@given(strengths, seeds)
def test_label_shift_raises_every_log_odds_by_twice_its_strength(strength: float, seed: int) -> None:
    target = draw_shift("label", seed, strength=strength, sizes=FEW).target_fit
    p, before = target.probability, bad_probability(target.x)
    rise = np.log(p / (1 - p)) - np.log(before / (1 - before))
    np.testing.assert_allclose(rise, 2 * strength, atol=1e-9)


# --- concept ---


def test_concept_shift_keeps_the_columns_and_turns_tempting_over() -> None:
    source, target = pair("concept")
    assert share_a_distribution(source.x, target.x)
    assert source.bad_rate == pytest.approx(target.bad_rate, abs=0.03)
    tempting = COLUMNS.index("tempting")
    assert auc_value(source.y, source.x[:, tempting]) > 0.65
    assert auc_value(target.y, target.x[:, tempting]) < 0.35


def test_concept_shift_halfway_leaves_tempting_without_effect() -> None:
    x = draw_shift("none", 3, sizes=FEW).source_fit.x.copy()
    before = bad_probability(x, "concept", 0.5)
    x[:, COLUMNS.index("tempting")] += 1.0
    assert np.array_equal(bad_probability(x, "concept", 0.5), before)


# --- by hand, and refused ---


def test_probability_by_hand() -> None:
    x = np.array([[1, 0.5, 1, 9, 9, 9], [1, 0.5, EDGE, 9, 9, 9]], np.float32)
    # -1.8 + 0.8 * 1.5 + 1.6 = 1.0, and -0.6 where tempting says nothing
    np.testing.assert_allclose(bad_probability(x), [1 / (1 + np.exp(-1)), 1 / (1 + np.exp(0.6))])


def test_what_is_out_of_range_is_refused_with_what_is_expected() -> None:
    with pytest.raises(ValueError, match="unknown shift 'drift'; expected one of none, covariate, label, concept"):
        draw_shift("drift", 0)  # type: ignore[arg-type]
    for strength in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"strength must lie in \[0, 1\]"):
            draw_shift("label", 0, strength=strength)
    with pytest.raises(ValueError, match="at least 1 row, got 0"):
        draw_shift("label", 0, sizes=replace(FEW, target_fit=0))

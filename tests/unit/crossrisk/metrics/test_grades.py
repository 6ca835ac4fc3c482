"""Rules of the grade table: edges, unseen names, empty grades, Jeffreys."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

from crossrisk.metrics.grades import Grading, grade_by_edges, grade_by_name, grade_table
from crossrisk.metrics.rows import scored


def test_edges_are_left_open_right_closed_with_infinite_ends() -> None:
    grading = grade_by_edges([-5.0, 0.1, 0.10001, 0.2, 9.0], (0.1, 0.2))
    assert grading.names == ("(-inf, 0.1]", "(0.1, 0.2]", "(0.2, inf]")
    assert grading.place.tolist() == [0, 0, 1, 1, 2]


def test_no_edges_are_one_grade() -> None:
    assert grade_by_edges([0.1, 0.9], ()).names == ("(-inf, inf]",)


@pytest.mark.parametrize("edges", [(0.2, 0.1), (0.1, 0.1), (0.1, np.inf)])
def test_edges_must_ascend(edges) -> None:
    with pytest.raises(ValueError, match="ascending"):
        grade_by_edges([0.1], edges)


def test_values_that_cannot_be_graded_are_refused_with_their_number() -> None:
    with pytest.raises(ValueError, match="2 of 3 rows"):
        grade_by_edges([0.1, np.nan, np.inf], (0.5,))


@pytest.mark.parametrize("form", [list, pl.Series])
def test_names_outside_the_scale_and_missing_names_have_grades_of_their_own(form) -> None:
    grading = grade_by_name(form(["B", "A", "Z", None]), ("A", "B"))
    assert grading.names == ("A", "B", "unseen", "missing")
    assert grading.place.tolist() == [1, 0, 2, 3]


def test_scale_that_names_a_grade_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="distinct"):
        grade_by_name(["A"], ("A", "missing"))


def test_grading_points_into_its_scale() -> None:
    with pytest.raises(ValueError, match="positions below 1"):
        Grading(("A",), np.array([0, 1]))


def test_table_reconciles_and_keeps_empty_grades() -> None:
    label, p = [1, 0, 0, 1, 0], [0.05, 0.15, 0.15, 0.9, 0.9]
    table = grade_table(scored(label, p), grade_by_edges(p, (0.1, 0.2, 0.5)))
    assert [grade.n for grade in table] == [1, 2, 0, 2]
    assert [grade.bad_rate.n_bad for grade in table] == [1, 0, 0, 1]
    empty = table[2]
    assert (empty.mean_probability, empty.bad_rate.value, empty.bad_rate.status) == (None, None, "undefined")
    assert (empty.observed_expected.status, empty.jeffreys_p) == ("undefined", None)
    json.dumps([grade.to_json() for grade in table], allow_nan=False)


def test_grade_without_bads_has_a_rate_an_upper_bound_and_a_status() -> None:
    p = np.full(200, 0.01)
    (grade,) = grade_table(scored(np.zeros(200), p), grade_by_edges(p, ()))
    assert (grade.bad_rate.value, grade.bad_rate.low, grade.bad_rate.status) == (0.0, 0.0, "insufficient")
    assert 0 < grade.bad_rate.high < 0.02
    assert grade.jeffreys_p > 0.9


def test_pd_below_the_bad_rate_has_a_small_p_and_above_it_a_large_one() -> None:
    label = np.r_[np.ones(60), np.zeros(940)]
    for probability, is_small in ((0.03, True), (0.12, False)):
        p = np.full(1000, probability)
        (grade,) = grade_table(scored(label, p), grade_by_edges(p, ()))
        assert (grade.jeffreys_p < 0.01) is is_small


def test_jeffreys_test_rejects_a_right_pd_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(8)
    bads = rng.binomial(2000, 0.05, 3000)
    grading = grade_by_edges(np.zeros(2000), ())
    p = np.full(2000, 0.05)
    rejected = [grade_table(scored(np.arange(2000) < bad, p), grading)[0].jeffreys_p < 0.05 for bad in bads.tolist()]
    assert 0.04 <= np.mean(rejected) <= 0.06


def test_probability_of_zero_has_no_ratio() -> None:
    (grade,) = grade_table(scored([0, 1], [0.0, 0.0]), grade_by_edges([0.0, 0.0], ()))
    assert grade.observed_expected.status == "undefined"
    assert grade.bad_rate.value == 0.5


def test_every_row_needs_a_grade() -> None:
    with pytest.raises(ValueError, match="a grade for each of 2 rows"):
        grade_table(scored([0, 1], [0.1, 0.2]), grade_by_edges([0.1], ()))

"""Rules of the rows under every metric: unknown ones are refused or counted, nothing is turned or dropped."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from crossrisk.metrics.rows import is_known, scored, tail


def test_rows_count_their_classes() -> None:
    rows = scored([1, 0, 0], [0.5, 0.1, 0.0])
    assert (rows.n_bad, rows.n_good, rows.excluded) == (1, 2, 0)


@pytest.mark.parametrize("form", [list, tuple, np.array, pl.Series])
def test_lists_arrays_and_series_are_the_same_rows(form) -> None:
    rows = scored(form([1, 0, 0]), form([0.5, 0.1, 0.2]))
    assert rows.bad.tolist() == [True, False, False]
    assert rows.probability.tolist() == [0.5, 0.1, 0.2]


def test_unknown_rows_are_refused_with_their_number() -> None:
    with pytest.raises(ValueError, match=r"of 4 rows 1 have no label and 2 no finite probability"):
        scored([1, None, 0, 0], [0.5, 0.1, np.nan, np.inf])


def test_unknown_rows_are_excluded_only_on_request_and_counted() -> None:
    rows = scored(pl.Series([1, None, 0, 0]), pl.Series([0.5, 0.1, None, 0.3]), unknown="exclude")
    assert (rows.n_bad, rows.n_good, rows.excluded) == (1, 1, 2)
    assert rows.probability.tolist() == [0.5, 0.3]
    assert is_known([1, None, 0, 0], [0.5, 0.1, None, 0.3]).tolist() == [True, False, False, True]


def test_misspelt_permission_to_exclude_is_none() -> None:
    with pytest.raises(ValueError, match="unknown='exclude'"):
        scored([1, None], [0.5, 0.1], unknown="drop")


@pytest.mark.parametrize("probability", [[1.2, 0.3], [-0.1, 0.3], [2.5, -3.0]])
def test_numbers_that_are_no_probabilities_are_refused_not_turned(probability: list[float]) -> None:
    with pytest.raises(ValueError, match=r"probabilities of bad in \[0, 1\], [12] of 2 rows"):
        scored([1, 0], probability)


def test_labels_other_than_zero_and_one_are_refused() -> None:
    with pytest.raises(ValueError, match="1 of 2 rows have another"):
        scored([2, 0], [0.1, 0.2])


@pytest.mark.parametrize(("label", "probability"), [([1, 0], [0.1]), ([[1, 0]], [[0.1, 0.2]])])
def test_rows_need_a_label_and_a_probability_each(label, probability) -> None:
    with pytest.raises(ValueError, match="a label and a probability a row"):
        scored(label, probability)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0])
def test_confidence_is_a_share(confidence: float) -> None:
    with pytest.raises(ValueError, match=r"such as 0\.95"):
        tail(confidence)

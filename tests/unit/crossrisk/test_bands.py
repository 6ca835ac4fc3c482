"""Rules of bands: 1 is the riskiest, every score is in one, a boundary belongs to the safer side."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossrisk.bands import Bands, band_by_points, band_by_tenths, read_bands
from crossrisk.stability import NumberBins, describe_numbers

NOTHING = np.empty(0)


def by_points(boundaries, score):
    return band_by_points(boundaries).assign(np.zeros(len(score)), np.array(score, float)).tolist()


def test_a_score_on_a_boundary_is_in_the_safer_band():
    assert by_points([560, 580, 600], [559.9, 560, 579.9, 580, 600, 1000]) == [1, 2, 2, 3, 4, 4]


def test_bands_of_points_are_named_from_the_riskiest():
    assert band_by_points([560, 580]).labels == ("below 560", "560 to 580", "580 and above")


def test_tenths_are_the_bins_of_the_reference_turned_round():
    bands = band_by_tenths(NumberBins((0.1, 0.2)))
    assert bands.assign(np.array([0.05, 0.1, 0.15, 0.2, 0.3]), NOTHING).tolist() == [3, 3, 2, 2, 1]
    assert bands.labels == ("above 0.2", "0.1 to 0.2", "up to 0.1")


def test_tenths_of_the_rows_that_drew_them_hold_a_tenth_each():
    probability = np.random.default_rng(0).beta(1, 8, 5000)
    histogram = describe_numbers(probability, decimals=6)
    bands = band_by_tenths(histogram.bins).assign(probability, NOTHING)
    assert np.bincount(bands, minlength=11)[1:].tolist() == list(histogram.counts[:10])[::-1]


@given(
    score=st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=20),
    boundaries=st.lists(st.floats(-1e3, 1e3), max_size=5, unique=True).map(sorted),
)
def test_a_higher_score_is_never_in_a_riskier_band(score, boundaries):
    ordered = by_points(boundaries, sorted(score))
    assert ordered == sorted(ordered)
    assert set(ordered) <= set(range(1, len(boundaries) + 2))


def test_without_a_boundary_there_is_one_band():
    assert by_points([], [1.0, 2.0]) == [1, 1]
    assert band_by_points([]).labels == ("any",)


@pytest.mark.parametrize("boundaries", [(2.0, 1.0), (1.0, 1.0), (float("nan"),), (float("inf"),)])
def test_boundaries_that_do_not_ascend_are_refused(boundaries):
    with pytest.raises(ValueError, match="strictly ascending"):
        Bands("score", boundaries, "test")


def test_bands_read_back_as_they_were_written():
    bands = band_by_points([560.5, 580])
    assert read_bands(json.loads(json.dumps(bands.to_json()))) == bands

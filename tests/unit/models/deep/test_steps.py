"""The rules of a training that are not its mathematics: batches, checkpoint, early stop, rows that are refused."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from networks import SMALL_ARTICLE, SMALL_DAN, training_set

from crossrisk.metrics import paired_test
from models.deep.presets import ARTICLE, DAN
from models.deep.spec import DeepSpec, TrainingSet
from models.deep.steps import (
    check_rows,
    choose_weight,
    diagnosis_rows,
    is_new_best,
    is_window_without_gain,
    planned_steps,
    row_stream,
    target_loss_weight,
)

# --- checkpoint and early stop ---


def test_first_evaluation_is_saved_as_the_fallback() -> None:
    assert is_new_best([0.4])


def test_checkpoint_needs_a_strict_rise_above_the_best_so_far() -> None:
    assert is_new_best([0.5, 0.6, 0.55, 0.61])
    assert not is_new_best([0.5, 0.6, 0.6])
    assert not is_new_best([0.6, 0.5, 0.55])  # a rise above the last one only


def test_window_stops_on_a_tie_and_not_before_it_is_full() -> None:
    assert not is_window_without_gain([0.7, 0.6, 0.6], window=3)
    assert is_window_without_gain([0.7, 0.6, 0.6, 0.7], window=3)
    assert not is_window_without_gain([0.7, 0.6, 0.6, 0.71], window=3)
    assert not is_window_without_gain([0.1, 0.7, 0.6, 0.6], window=3)


# --- batches ---


@pytest.mark.parametrize(("keep_tails", "steps"), [(False, 700), (True, 800)])
def test_articles_sizes_give_the_articles_number_of_steps(keep_tails: bool, steps: int) -> None:
    spec = replace(ARTICLE, keep_tails=keep_tails)
    assert planned_steps(spec, 6_500, 3_605) == steps
    source, target = (row_stream(n, spec, np.random.default_rng(0)) for n in (6_500, 3_605))
    drawn = [len(target_rows) for _, target_rows in zip(source, target, strict=False)]
    assert len(drawn) == steps
    assert set(drawn) == ({512, 21} if keep_tails else {512})


@given(st.integers(1, 60), st.integers(1, 20), st.booleans(), st.integers(0, 99))
def test_every_epoch_of_a_stream_shows_each_row_at_most_once_in_a_new_order(
    rows: int, batch_size: int, keep_tails: bool, seed: int
) -> None:
    spec = replace(ARTICLE, batch_size=batch_size, keep_tails=keep_tails, epochs=2)
    batches = list(row_stream(rows, spec, np.random.default_rng(seed)))
    assert len(batches) == planned_steps(spec, rows, rows)
    epochs = [np.concatenate(batches[start : start + len(batches) // 2]) for start in (0, len(batches) // 2)]
    dropped = 0 if keep_tails else rows % min(batch_size, rows)
    for epoch in epochs:
        assert len(np.unique(epoch)) == len(epoch) == rows - dropped
    if rows - dropped > 20:
        assert not np.array_equal(*epochs)


def test_a_stream_without_epochs_repeats() -> None:
    batches = list(itertools.islice(row_stream(10, replace(DAN, batch_size=4), np.random.default_rng(0)), 50))
    assert {len(batch) for batch in batches} == {4}


def test_training_ends_with_whatever_ends_first() -> None:
    both = replace(ARTICLE, batch_size=10, epochs=2, max_steps=7)
    assert planned_steps(both, 100, 30) == 6  # the target's stream
    assert planned_steps(both, 30, 100) == 6  # the source's
    assert planned_steps(both, 100, 100) == 7
    assert planned_steps(DAN, 100, 5) == 600


def test_diagnosis_takes_twice_as_many_source_rows_as_target_rows_and_no_more_than_there_are() -> None:
    assert diagnosis_rows(DAN, 10_000, 10_000) == 256
    assert diagnosis_rows(DAN, 100, 10_000) == 50
    assert diagnosis_rows(DAN, 10_000, 30) == 30


# --- target labels ---


def test_a_labelled_target_row_counts_as_many_source_rows_as_the_recipe_says() -> None:
    rows = training_set(200, 150, known_share=0.2)
    assert target_loss_weight(replace(DAN, target_row_weight=3.0), rows) == pytest.approx(3.0 * 30 / 200)
    assert target_loss_weight(replace(DAN, use_target_labels=False), rows) == 0.0


# --- the choice of a weight ---


def scores(noise: float, *, rows: int = 400) -> tuple[Any, Any]:
    """Logits whose noise hides the label the more the larger it is, and the label."""
    label = (np.arange(rows) % 4 == 0).astype(np.float32)
    rng = np.random.default_rng(5)
    return 1.5 * label + rng.normal(size=rows) + noise * rng.normal(size=rows), label


def test_the_smallest_weight_within_one_standard_error_of_the_best_is_chosen() -> None:
    (best, label), (close, _), (further, _) = scores(0.0), scores(0.2), scores(1.0)
    for own, is_close in ((close, True), (further, False)):
        test = paired_test(label, best, own)
        assert test.difference is not None
        assert test.standard_error is not None
        assert (0.0 < test.difference < test.standard_error) == is_close
    assert choose_weight([further, close, best], label) == 1
    assert choose_weight([close, further, best], label) == 0
    assert choose_weight([further, further, best], label) == 2


def test_equal_rankings_are_no_reason_to_adapt() -> None:
    logits, label = scores(0.0)
    assert choose_weight([logits, 2 * logits + 1, logits], label) == 0


# --- refusals ---


@pytest.mark.parametrize(
    ("spec", "rows", "message"),
    [
        (replace(SMALL_ARTICLE, evaluate_every=100), training_set(), "at least evaluate_every = 100"),
        (SMALL_DAN, training_set(200, 1), "no-shift band"),
        (replace(SMALL_ARTICLE, estimator="unbiased", keep_tails=True), training_set(200, 65), "tail of 1 row"),
        (SMALL_DAN, replace(training_set(), y_t=np.full(150, 0.5)), "target labels"),
    ],
)
def test_rows_that_cannot_be_trained_as_asked_are_refused(spec: DeepSpec, rows: TrainingSet, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_rows(spec, rows)


@pytest.mark.parametrize(
    ("changes", "rows"),
    [
        ({"estimator": "unbiased"}, training_set(200, 65)),  # the tail is dropped
        ({"use_target_labels": False}, replace(training_set(), y_t=np.full(150, 0.5))),  # never read
        ({"logs_no_shift_band": False}, training_set(200, 1)),
    ],
)
def test_rows_are_not_refused_for_what_the_recipe_does_not_use(changes: dict[str, Any], rows: TrainingSet) -> None:
    check_rows(replace(SMALL_DAN, **changes), rows)

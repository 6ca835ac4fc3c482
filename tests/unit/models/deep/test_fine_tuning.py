"""Fine-tuning: a new head on a source network, layers thawed one by one, the target's labelled rows alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from networks import SMALL_DAN, population, same_bits, small, training_set

from crossrisk.metrics import auc_value
from models.deep.fine_tuning import fine_tune, layer_rates, second_stage, stack
from models.deep.loop import Draws, train_stack
from models.deep.perceptron import StackedPerceptron
from models.deep.spec import DeepSpec, FineTuning, TrainingSet
from models.deep.trainer import train_ensemble
from models.fitted import Network

SEEDS = (3, 4)
SPEC = small("fine_tuned", dropout=0.0)


def tuned(steps: int, **changes: Any) -> DeepSpec:
    """A second stage of so many steps, whose last weights are kept."""
    tuning = FineTuning(**{"head_steps": 2, "thaw_every": 3, "max_steps": steps, **changes})
    return replace(SPEC, fine_tuning=tuning, evaluate_every=steps, max_steps=max(SPEC.max_steps or 0, steps))


@pytest.fixture(scope="module")
def start() -> Network:
    return stack(train_stack(small("source_network"), training_set(), SEEDS))


def second(spec: DeepSpec, start: Network, rows: TrainingSet | None = None) -> Network:
    network, _ = train_ensemble(spec, rows or training_set(), SEEDS, start=start)
    return network


def unmoved(network: Network, start: Network) -> list[bool]:
    """Whether each hidden layer has the bits of the start."""
    return [
        np.array_equal(network.weights[layer], start.weights[layer])
        and np.array_equal(network.biases[layer], start.biases[layer])
        for layer in range(2)
    ]


# --- thaw, rates, head ---


@pytest.mark.parametrize(
    ("steps", "frozen"),
    [(2, [True, True]), (3, [True, False]), (5, [True, False]), (6, [False, False])],
)
def test_a_layer_keeps_its_bits_until_it_is_thawed(steps: int, frozen: list[bool], start: Network) -> None:
    assert unmoved(second(tuned(steps), start), start) == frozen  # head alone for 2 updates, then a layer every 3


def test_layers_that_are_never_thawed_keep_their_bits(start: Network) -> None:
    network = second(tuned(12, thaw_every=None), start)
    assert unmoved(network, start) == [True, True]
    assert not np.array_equal(network.weights[2], start.weights[2])


def test_rates_and_thaws_go_down_from_the_head() -> None:
    tuning = FineTuning(learning_rate=0.04, layer_decay=2.0, head_steps=5, thaw_every=7)
    rates = layer_rates(tuning, layers=3)
    assert rates.rates == (0.01, 0.02, 0.04)
    assert rates.thaw_steps == (12, 5, 0)
    assert layer_rates(replace(tuning, thaw_every=None), layers=3).thaw_steps == (None, None, 0)


def test_each_layer_moves_at_its_own_rate(start: Network) -> None:
    # Adam's first update moves every weight that has a gradient by the rate itself
    spec = tuned(1, learning_rate=1e-2, layer_decay=4.0, head_steps=0, thaw_every=0)
    network = second(replace(spec, optimizer="adam"), start)
    moved = [float(np.abs(network.weights[layer] - start.weights[layer]).max()) for layer in range(2)]
    assert moved == pytest.approx([1e-2 / 16, 1e-2 / 4], rel=1e-2)


def test_the_head_is_that_of_a_fresh_network(start: Network) -> None:
    network = second(tuned(1, learning_rate=1e-12), start)
    fresh = StackedPerceptron(SPEC, 3, [Draws.spawn(seed).network for seed in SEEDS])
    np.testing.assert_allclose(network.weights[2], fresh.head.kernel, atol=1e-9)
    np.testing.assert_allclose(network.biases[2], 0.0, atol=1e-9)
    assert np.abs(network.weights[2] - start.weights[2]).min() > 1e-5  # the start's own has learnt


# --- stages ---


def test_the_first_stage_is_the_source_network_and_the_second_starts_from_it(start: Network) -> None:
    spec = replace(SPEC, fine_tuning=FineTuning(max_steps=9, head_steps=3, thaw_every=3))
    whole, trained = train_ensemble(spec, training_set(), SEEDS)
    first = stack(train_stack(replace(spec, method="source_only", use_target_labels=False), training_set(), SEEDS))
    assert same_bits(whole, second(spec, first))
    assert [one.seed for one in trained] == list(SEEDS)
    assert trained[0].history["step"] == list(range(9))


def test_held_out_source_rows_stop_the_first_stage_and_the_stop_rows_the_second() -> None:
    spec = replace(SPEC, max_steps=30, evaluate_every=1, patience=2)
    held_out = population(120, False, 5)
    rows = replace(training_set(), held_out=held_out)
    x, y = population(80, True, 6)
    stopped_by_target = replace(rows, x_stop=x, y_stop=y)
    as_source = replace(spec, method="source_only", use_target_labels=False)
    first = stack(train_stack(as_source, replace(rows, x_stop=held_out[0], y_stop=held_out[1]), SEEDS))
    whole, trained = train_ensemble(spec, stopped_by_target, SEEDS)
    assert same_bits(whole, second(spec, first, stopped_by_target))
    assert not same_bits(whole, second(spec, first, replace(rows, x_stop=x, y_stop=1 - y)))
    assert rows.at_home.x_stop is held_out[0]
    assert training_set().at_home.held_out is None  # without such rows those there are
    assert len(trained) == len(SEEDS)


def test_only_labelled_target_rows_are_tuned_on(start: Network) -> None:
    rows = training_set(known_share=0.5)
    other = replace(rows, x_s=rows.x_s[::-1], x_t=np.where(np.isnan(rows.y_t)[:, None], 9.0, rows.x_t))
    other = replace(other, target_prior=0.01)
    assert same_bits(second(tuned(6), start, rows), second(tuned(6), start, other))
    flipped = replace(rows, y_t=1 - rows.y_t)
    assert not same_bits(second(tuned(6), start, rows), second(tuned(6), start, flipped))


def test_the_second_stage_aligns_nothing_and_ends_by_its_own_steps() -> None:
    stage = second_stage(replace(SMALL_DAN, method="fine_tuned", mmd_weight=1.0, epochs=2))
    assert (stage.method, stage.mmd_weight, stage.use_target_labels) == ("source_only", 0.0, False)
    assert (stage.epochs, stage.max_steps, stage.logs_no_shift_band) == (None, 400, False)


def test_progress_runs_over_both_stages_or_over_the_one_there_is(start: Network) -> None:
    spec = replace(tuned(6), evaluate_every=3, max_steps=9)
    for given, total in ((None, 15), (start, 6)):
        reports: list[tuple[int, int]] = []
        fine_tune(spec, training_set(), SEEDS, lambda *report: reports.append(report), start=given)  # noqa: B023
        assert [done for done, _ in reports] == list(range(3, total + 1, 3))
        assert {of for _, of in reports} == {total}


def test_tuning_learns_what_the_target_alone_can_teach() -> None:
    x_s, y_s = population(2000, False, 0)
    x_t, y_t = population(600, False, 1)
    x_t[:, 0] *= -1.0  # what raises risk at home lowers it here
    x_t[:, 1] = 0.0
    x_stop, y_stop = x_t[300:], y_t[300:]
    rows = TrainingSet(x_s, y_s, x_t[:300], y_t[:300], x_stop, y_stop)
    spec = small("fine_tuned", max_steps=60, evaluate_every=20, fine_tuning=FineTuning(learning_rate=1e-2))
    network, _ = train_ensemble(spec, rows, [1])
    alone, _ = train_ensemble(replace(spec, method="source_only", use_target_labels=False), rows, [1])
    tuned_auc, alone_auc = (auc_value(y_stop, one.raw_logit(x_stop)) for one in (network, alone))
    assert alone_auc < 0.5 < 0.7 < tuned_auc


# --- refusals ---


@pytest.mark.parametrize(
    ("labels", "found"),
    [(np.full(150, np.nan), "got 0 known, 0 of them bad"), (np.zeros(150), "got 150 known, 0 of them bad"),
     (np.where(np.arange(150) < 4, 1.0, np.nan), "got 4 known, 4 of them bad")],
)  # fmt: skip
def test_without_target_labels_of_both_classes_there_is_nothing_to_tune_on(labels: Any, found: str) -> None:
    with pytest.raises(ValueError, match=f"{found}; wait for labels, or leave fine_tuned out"):
        fine_tune(SPEC, replace(training_set(), y_t=labels), SEEDS)


def test_a_start_of_another_shape_is_refused(start: Network) -> None:
    with pytest.raises(ValueError, match="train as many seeds on the same features, or start anew"):
        train_ensemble(tuned(6), training_set(), [1, 2, 3], start=start)
    with pytest.raises(ValueError, match="expected an ensemble with kernels"):
        train_ensemble(replace(tuned(6), hidden=(12, 8)), training_set(), SEEDS, start=start)

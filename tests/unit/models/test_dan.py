"""The Deep Adaptation Network: its rules as pure functions, and what a training may and may not depend on."""

from __future__ import annotations

import itertools
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from crossrisk.errors import TrainingError
from crossrisk.metrics import auc_value, ks_value
from models import dan
from models.dan import TrainedNetwork, stack, train, train_ensemble
from models.dan_spec import (
    ARTICLE,
    DEFAULT,
    DanSpec,
    TrainingSet,
    is_new_best,
    is_window_without_gain,
    planned_steps,
    ramp,
    row_stream,
)
from models.mmd import label_shift_weights, mk_mmd2
from models.networks import build_network

SMALL_ARTICLE = replace(ARTICLE, hidden=(12, 6), batch_size=32, epochs=3, evaluate_every=2)
SMALL_DEFAULT = replace(DEFAULT, hidden=(12, 6), batch_size=32, max_steps=12, evaluate_every=4)

# The ones below keep the weights of the last step, whatever the stop rows say of them.
ARTICLE_TO_THE_END = replace(SMALL_ARTICLE, epochs=None, max_steps=9, evaluate_every=9)
DEFAULT_TO_THE_END = replace(SMALL_DEFAULT, max_steps=9, evaluate_every=9, logs_no_shift_band=False)


def population(n: int, is_target: bool, seed: int) -> tuple[Any, Any]:
    """Risk follows a latent signal. Column 0 shows it in both populations; column 1 shows it better in the source and
    is noise of another level and spread in the target; column 2 is noise."""
    rng = np.random.default_rng(seed)
    signal = rng.normal(size=n)
    y = rng.random(n) < 1 / (1 + np.exp(1 - 2 * signal))
    shifted = rng.normal(2, 2, size=n) if is_target else signal + 0.2 * rng.normal(size=n)
    x = np.stack([signal + 0.7 * rng.normal(size=n), shifted, rng.normal(size=n)], axis=1)
    return x.astype(np.float32), y.astype(np.float32)


def training_set(n_s: int = 200, n_t: int = 150, *, known_share: float = 0.5, prior: float | None = 0.4) -> TrainingSet:
    x_t, y_t = population(n_t, True, 1)
    y_t[int(known_share * n_t) :] = np.nan
    return TrainingSet(*population(n_s, False, 0), x_t, y_t, *population(300, False, 2), target_prior=prior)


@pytest.fixture(scope="module")
def article_run() -> TrainedNetwork:
    return train(replace(SMALL_ARTICLE, l2_scale=0.1, mmd_weight=2.0), training_set(), seed=1)


@pytest.fixture(scope="module")
def default_run() -> TrainedNetwork:
    return train(SMALL_DEFAULT, training_set(), seed=3)


def same_weights(one: TrainedNetwork, other: TrainedNetwork) -> bool:
    pairs = zip((*one.weights, *one.biases), (*other.weights, *other.biases), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


# --- rules ---


@pytest.mark.parametrize(("step", "expected"), [(0, 0.0), (45, 0.22), (100, 0.46), (200, 0.76)])
def test_ramp_has_the_articles_values(step: int, expected: float) -> None:
    assert round(ramp(step), 2) == expected
    assert ramp(step) == pytest.approx(2 / (1 + np.exp(-10 * step / 1000)) - 1, abs=1e-15)


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
    batches = list(itertools.islice(row_stream(10, replace(DEFAULT, batch_size=4), np.random.default_rng(0)), 50))
    assert {len(batch) for batch in batches} == {4}


def test_presets_hold_what_the_method_pins() -> None:
    assert (ARTICLE.hidden, ARTICLE.activation, ARTICLE.batch_size, ARTICLE.epochs) == ((256, 64), "sigmoid", 512, 100)
    assert (ARTICLE.optimizer, ARTICLE.learning_rate, ARTICLE.epsilon) == ("adam", 0.005, 1e-8)
    assert (ARTICLE.evaluate_every, ARTICLE.patience, ARTICLE.use_target_labels) == (3, 15, False)
    assert (DEFAULT.hidden, DEFAULT.activation, DEFAULT.dropout, DEFAULT.max_steps) == ((128, 32), "relu", 0.2, 600)
    assert (DEFAULT.optimizer, DEFAULT.learning_rate, DEFAULT.weight_decay) == ("adamw", 2e-3, 1e-2)


def test_presets_and_rules_are_read_without_tensorflow() -> None:
    program = "import sys, models.dan_spec; sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[3], check=True)


# --- one step, recomputed ---


def test_first_step_of_the_article_has_the_losses_of_its_formula(article_run: TrainedNetwork) -> None:
    rows, spec, seeds = training_set(), SMALL_ARTICLE, dan._Seeds.spawn(1)
    source = next(row_stream(200, spec, np.random.default_rng(seeds.source_stream)))
    target = next(row_stream(150, spec, np.random.default_rng(seeds.target_stream)))
    network = build_network(spec, 3, seeds.network)
    p = 1 / (1 + np.exp(-network(rows.x_s[source]).numpy().astype(float)))
    cross_entropy = -np.mean(np.where(rows.y_s[source] == 1, np.log(p), np.log(1 - p)))
    kernels, _ = network.layer_weights()
    penalty = 0.1 * sum(np.sum(kernel.astype(float) ** 2) / 2 for kernel in kernels[:2])
    mmd = mk_mmd2(network.activations(rows.x_s[source]), network.activations(rows.x_t[target]), bandwidth_gradient=True)
    assert article_run.history["classification_loss"][0] == pytest.approx(cross_entropy + penalty, rel=1e-5)
    assert article_run.history["mmd"][0] == pytest.approx(float(mmd), rel=1e-4)


def test_total_loss_is_the_classification_loss_plus_the_ramped_mmd(article_run: TrainedNetwork) -> None:
    history = article_run.history
    np.testing.assert_allclose(history["mmd_weight"], [2.0 * ramp(int(step)) for step in history["step"]], rtol=1e-6)
    parts = np.array(history["classification_loss"]) + np.array(history["mmd_weight"]) * np.array(history["mmd"])
    np.testing.assert_allclose(history["total_loss"], parts, rtol=1e-6)
    assert history["step"] == list(range(12))  # 4 target batches, 3 epochs; the step BEFORE the update


def test_weight_decay_leaves_biases_alone() -> None:
    network = build_network(SMALL_DEFAULT, 3, seed=0)
    variables = network.trainable_variables
    for variable in variables:
        variable.assign(tf.ones_like(variable))
    dan._optimizer(SMALL_DEFAULT).apply_gradients([(tf.zeros_like(variable), variable) for variable in variables])
    kernels, biases = network.layer_weights()
    assert all(np.allclose(kernel, 1 - 2e-3 * 1e-2, atol=1e-7) for kernel in kernels)
    assert all(np.all(bias == 1.0) for bias in biases)


def test_target_rows_are_weighted_by_label_shift_only_where_the_target_prior_is_known() -> None:
    spec = replace(DEFAULT_TO_THE_END, dropout=0.0)
    with_prior, without = (train(spec, training_set(prior=prior), seed=0).history["mmd"][0] for prior in (0.05, None))
    seeds, rows = dan._Seeds.spawn(0), training_set()
    source = next(row_stream(200, spec, np.random.default_rng(seeds.source_stream)))
    target = next(row_stream(150, spec, np.random.default_rng(seeds.target_stream)))
    network = build_network(spec, 3, seeds.network)
    x_s, x_t = network.activations(rows.x_s[source]), network.activations(rows.x_t[target])
    weights = label_shift_weights(tf.constant(rows.y_s[source]), 0.05)
    options: dict[str, Any] = {"reduce": "mean", "bandwidth_gradient": False}
    assert with_prior == pytest.approx(float(mk_mmd2(x_s, x_t, source_weights=weights, **options)), rel=1e-4)
    assert without == pytest.approx(float(mk_mmd2(x_s, x_t, **options)), rel=1e-4)


# --- what a training depends on ---


def source_only_training(spec: DanSpec, rows: TrainingSet, seed: int) -> Any:
    """The same training written down without a target: one stream, one pass, cross-entropy, update."""
    seeds = dan._Seeds.spawn(seed)
    network = build_network(spec, rows.x_s.shape[1], seeds.network)
    noise = dan.keras.random.SeedGenerator(seeds.source_noise)
    optimizer = dan._optimizer(spec)
    optimizer.build(network.trainable_variables)

    @tf.function
    def update(x: Any, y: Any) -> None:
        with tf.GradientTape() as tape:
            logits = network.logits(network.activations(x, noise), noise)
            loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=y, logits=logits))
        variables = network.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))

    stream = row_stream(len(rows.x_s), spec, np.random.default_rng(seeds.source_stream))
    for batch in itertools.islice(stream, spec.max_steps):
        update(tf.constant(rows.x_s[batch]), tf.constant(rows.y_s[batch]))
    return network.layer_weights()


@pytest.mark.parametrize("spec", [ARTICLE_TO_THE_END, DEFAULT_TO_THE_END], ids=["article", "default"])
def test_mmd_weight_zero_is_source_only_training_bit_for_bit(spec: DanSpec) -> None:
    trained = train(replace(spec, mmd_weight=0.0, use_target_labels=False), training_set(), seed=7)
    weights, biases = source_only_training(spec, training_set(), seed=7)
    for ours, expected in zip((*trained.weights, *trained.biases), (*weights, *biases), strict=True):
        assert np.array_equal(ours, expected)
    assert min(trained.history["mmd"]) > 0.0  # still logged: it shows what alignment would have to close


def test_poisoned_target_labels_change_nothing_in_the_article(article_run: TrainedNetwork) -> None:
    rows = training_set()
    poisoned = replace(rows, y_t=np.random.default_rng(0).normal(size=len(rows.y_t)) * 1e6)
    trained = train(replace(SMALL_ARTICLE, l2_scale=0.1, mmd_weight=2.0), poisoned, seed=1)
    assert same_weights(trained, article_run)
    assert trained.history == article_run.history


def test_default_learns_from_known_target_labels_and_from_no_unknown_one() -> None:
    spec, unknown = replace(DEFAULT_TO_THE_END, dropout=0.0), training_set(known_share=0.0)
    without = train(replace(spec, use_target_labels=False), unknown, seed=1)
    of_unknown, of_known = (train(spec, rows, seed=1).weights[0] for rows in (unknown, training_set(known_share=0.5)))
    np.testing.assert_allclose(of_unknown, without.weights[0], atol=1e-6)  # another graph: last bits may differ
    assert np.abs(of_known - without.weights[0]).max() > 1e-3


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(default_run: TrainedNetwork) -> None:
    again, other = (train(SMALL_DEFAULT, training_set(), seed=seed) for seed in (3, 4))
    assert same_weights(again, default_run)
    assert again.history == default_run.history
    assert not same_weights(other, default_run)


@pytest.mark.parametrize("spec", [SMALL_ARTICLE, SMALL_DEFAULT], ids=["article", "default"])
def test_a_network_trained_after_another_is_the_one_trained_alone(spec: DanSpec) -> None:
    rows = training_set()
    _, trained = train_ensemble(spec, rows, seeds=[1, 2])
    alone = train(spec, rows, seed=2)
    assert same_weights(trained[1], alone)
    assert trained[1].history == alone.history


def test_tails_of_unequal_size_train_too() -> None:
    trained = train(replace(SMALL_ARTICLE, keep_tails=True), training_set(200, 150), seed=0)
    assert trained.stopped_step == 15  # ceil(150 / 32) = 5 batches, the last of 22 rows, 3 epochs


def test_alignment_beats_source_only_on_a_shift_that_it_can_close() -> None:
    rows = TrainingSet(*population(3000, False, 0), *population(2000, True, 1), *population(1000, False, 2))
    spec = replace(ARTICLE, hidden=(16, 8), batch_size=128, epochs=None, max_steps=300, evaluate_every=300)
    x_test, y_test = population(5000, True, 3)
    auc = {}
    for mmd_weight in (0.0, 1.0):
        network, _ = train_ensemble(replace(spec, mmd_weight=mmd_weight), rows, seeds=[1])
        auc[mmd_weight] = auc_value(y_test, network.raw_logit(x_test))
    assert auc[1.0] > auc[0.0] + 0.1  # .80 against .55 when this was written


# --- evaluation, stopping, ensembles ---


def test_kept_weights_are_those_of_the_best_evaluation() -> None:
    rows = training_set()
    trained = train(replace(SMALL_ARTICLE, epochs=10, learning_rate=0.05), rows, seed=2)
    history = trained.history
    best = int(np.argmax(history["stop_auc"]))
    assert trained.best_step == history["evaluation_step"][best]
    logits = stack([trained]).raw_logit(rows.x_stop)
    assert auc_value(rows.y_stop, logits) == pytest.approx(history["stop_auc"][best], abs=1e-4)
    assert ks_value(rows.y_stop, logits) == pytest.approx(history["stop_ks"][best], abs=1e-2)


def test_training_stops_at_the_first_window_without_gain() -> None:
    spec = replace(SMALL_ARTICLE, epochs=None, max_steps=400, evaluate_every=1, patience=3, learning_rate=0.05)
    trained = train(spec, training_set(), seed=0)
    auc = trained.history["stop_auc"]
    assert trained.stop_reason == "patience"
    assert trained.stopped_step == len(auc) < 400
    assert [is_window_without_gain(auc[:end], 3) for end in range(1, len(auc) + 1)].index(True) == len(auc) - 1


def test_a_training_that_runs_out_says_of_what(article_run: TrainedNetwork, default_run: TrainedNetwork) -> None:
    assert (article_run.stop_reason, article_run.stopped_step) == ("streams_ended", 12)
    assert (default_run.stop_reason, default_run.stopped_step) == ("max_steps", 12)


def test_default_logs_the_unbiased_mmd_with_its_no_shift_band_at_every_evaluation(
    default_run: TrainedNetwork, article_run: TrainedNetwork
) -> None:
    history = default_run.history
    assert history["evaluation_step"] == [4, 8, 12]
    assert len(history["mmd_unbiased"]) == len(history["mmd_no_shift_band"]) == 3
    assert min(history["mmd_no_shift_band"]) > 0.0
    assert history["mmd_unbiased"][0] > 3 * history["mmd_no_shift_band"][0]  # the shift is in the rows
    assert article_run.history["mmd_unbiased"] == []


def test_populations_smaller_than_a_batch_are_used_whole() -> None:
    trained = train(replace(SMALL_DEFAULT, batch_size=256), training_set(200, 9), seed=0)
    assert trained.stopped_step == 12


def test_ensemble_stacks_its_seeds_and_reports_progress_to_its_end() -> None:
    rows, reports = training_set(), []
    spec = replace(SMALL_ARTICLE, epochs=4, evaluate_every=1, patience=2, learning_rate=0.05)
    network, trained = train_ensemble(spec, rows, seeds=[1, 2], on_progress=lambda *report: reports.append(report))
    assert [one.seed for one in trained] == [1, 2]
    assert [layer.shape for layer in network.weights] == [(2, 3, 12), (2, 12, 6), (2, 6, 1)]
    probability = np.mean([1 / (1 + np.exp(-stack([one]).raw_logit(rows.x_stop))) for one in trained], axis=0)
    np.testing.assert_allclose(1 / (1 + np.exp(-network.raw_logit(rows.x_stop))), probability, rtol=1e-9)
    done = [done for done, _ in reports]
    assert done == sorted(done)
    assert {total for _, total in reports} == {32}
    assert (16, 32) in reports
    assert reports[-1] == (32, 32)


# --- refusals ---


@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
def test_a_loss_that_is_not_a_number_ends_the_training_with_step_and_losses() -> None:
    rows = training_set()
    x_s = rows.x_s.copy()
    x_s[:, 0] = np.nan
    with pytest.raises(TrainingError, match=r"seed 3: .*classification_loss nan.*at step 0"):
        train(SMALL_ARTICLE, replace(rows, x_s=x_s), seed=3)


def test_scores_that_are_not_numbers_end_the_training() -> None:
    rows = training_set()
    with pytest.raises(TrainingError, match="finite scores of the stop rows"):
        train(SMALL_ARTICLE, replace(rows, x_stop=np.full_like(rows.x_stop, np.nan)), seed=3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_s": np.full(200, np.nan)}, "source labels"),
        ({"y_stop": np.zeros(300)}, "both goods and bads"),
        ({"y_t": np.zeros(149)}, "x_t and y_t"),
        ({"x_t": np.zeros((150, 4), np.float32)}, "x_t and y_t"),
        ({"x_t": np.zeros((0, 3), np.float32), "y_t": np.zeros(0)}, "x_t has no rows"),
    ],
)
def test_a_training_set_refuses_rows_that_do_not_fit(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(training_set(), **changes)


@pytest.mark.parametrize(
    ("spec", "rows", "message"),
    [
        (replace(SMALL_ARTICLE, evaluate_every=100), training_set(), "at least evaluate_every = 100"),
        (SMALL_DEFAULT, training_set(200, 1), "no-shift band"),
        (replace(SMALL_ARTICLE, estimator="unbiased", keep_tails=True), training_set(200, 65), "tail of 1 row"),
        (SMALL_DEFAULT, replace(training_set(), y_t=np.full(150, 0.5)), "target labels"),
    ],
)
def test_train_refuses_before_it_starts(spec: DanSpec, rows: TrainingSet, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train(spec, rows, seed=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": None, "max_steps": None}, "never end"),
        ({"batch_size": 0}, "batch_size"),
        ({"mmd_weight": -0.1}, "mmd_weight"),
    ],
)
def test_a_spec_refuses_what_cannot_train(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(ARTICLE, **changes)


@pytest.mark.parametrize(("changes", "message"), [({"hidden": ()}, "hidden layer"), ({"dropout": 1.0}, "dropout")])
def test_build_network_refuses_an_impossible_shape(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_network(replace(DEFAULT, **changes), 3, seed=0)

"""The one loop of all methods: what a training may and may not depend on, and what it writes down."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from networks import (
    ARTICLE_TO_THE_END,
    DAN_TO_THE_END,
    SMALL_ARTICLE,
    SMALL_DAN,
    largest_difference,
    layers,
    population,
    same_bits,
    small,
    training_set,
)

from crossrisk.errors import TrainingError
from crossrisk.metrics import auc_value, ks_value
from models.deep import loop
from models.deep.evaluation import TrainedNetwork
from models.deep.fine_tuning import stack
from models.deep.loop import METHODS, Draws, train_stack
from models.deep.perceptron import Noise, StackedPerceptron
from models.deep.presets import ARTICLE
from models.deep.schedules import scheduled
from models.deep.spec import DeepSpec, TrainingSet
from models.deep.steps import is_window_without_gain, row_stream
from models.deep.trainer import train_ensemble
from models.deep.weights import label_shift_weights
from models.kernel_family import KernelFamily
from models.mmd import mk_mmd2

EVERY_LAYER = ("hidden_1", "last_hidden", "logits")
SOURCE_ONLY = small("source_network")
ALIGNING = [method for method in METHODS if method != "source_only"]
BY_METHOD = {"source_only": SOURCE_ONLY, **{method: small(method) for method in ALIGNING}}


def train(spec: DeepSpec, rows: TrainingSet, seed: int) -> TrainedNetwork:
    (trained,) = train_stack(spec, rows, [seed])
    return trained


@pytest.fixture(scope="module")
def article_run() -> TrainedNetwork:
    return train(replace(SMALL_ARTICLE, l2_scale=0.1, mmd_weight=2.0), training_set(), seed=1)


@pytest.fixture(scope="module")
def default_run() -> TrainedNetwork:
    return train(SMALL_DAN, training_set(), seed=3)


# --- one step, recomputed ---


def first_batch(spec: DeepSpec, seed: int) -> tuple[Any, Any, StackedPerceptron]:
    """Source rows and target rows of the first step, and the network before it."""
    draws = Draws.spawn(seed)
    source = next(row_stream(200, spec, np.random.default_rng(draws.source_stream)))
    target = next(row_stream(150, spec, np.random.default_rng(draws.target_stream)))
    return source, target, StackedPerceptron(spec, 3, [draws.network])


def test_first_step_of_the_article_has_the_losses_of_its_formula(article_run: TrainedNetwork) -> None:
    rows = training_set()
    source, target, network = first_batch(SMALL_ARTICLE, seed=1)
    p = 1 / (1 + np.exp(-network(rows.x_s[source]).numpy()[0].astype(float)))
    cross_entropy = -np.mean(np.where(rows.y_s[source] == 1, np.log(p), np.log(1 - p)))
    kernels, _ = network.layer_weights(0)
    penalty = 0.1 * sum(np.sum(kernel.astype(float) ** 2) / 2 for kernel in kernels[:2])
    x_s, x_t = (network.activations(x)["hidden_2"][0] for x in (rows.x_s[source], rows.x_t[target]))
    assert article_run.history["classification_loss"][0] == pytest.approx(cross_entropy + penalty, rel=1e-5)
    assert article_run.history["mmd"][0] == pytest.approx(float(mk_mmd2(x_s, x_t, ARTICLE.kernels)), rel=1e-4)


@pytest.mark.parametrize("method", ["dan", "ddc", "deep_coral", "dsan"])
def test_total_loss_is_the_classification_loss_plus_the_scheduled_distance_of_all_layers(method: str) -> None:
    names = ("last_hidden",) if method == "ddc" else EVERY_LAYER
    spec = replace(BY_METHOD[method], mmd_weight=2.0, schedule="warm_up", warm_up_steps=5, layers=names)
    history = {name: np.array(values) for name, values in train(spec, training_set(), seed=1).history.items()}
    np.testing.assert_allclose(history["mmd_weight"], 2.0 * np.minimum(np.arange(9) / 5, 1))
    np.testing.assert_allclose(history["mmd"], sum(history[f"mmd_{layer}"] for layer in spec.aligned), rtol=1e-5)
    added = history["mmd_weight"] * history["mmd"]
    np.testing.assert_allclose(history["total_loss"], history["classification_loss"] + added, rtol=1e-5)


def test_labelled_target_rows_count_as_many_source_rows_as_the_recipe_says() -> None:
    rows = training_set(known_share=0.5)
    spec = replace(DAN_TO_THE_END, dropout=0.0, mmd_weight=0.0, target_row_weight=3.0)
    source, target, network = first_batch(spec, seed=0)

    def cross_entropy(x: Any, y: Any) -> Any:
        return tf.nn.sigmoid_cross_entropy_with_logits(labels=y, logits=network(x)[0]).numpy()

    known = target[np.isfinite(rows.y_t[target])]
    of_target = 3.0 * 75 / 200 * cross_entropy(rows.x_t[known], rows.y_t[known]).mean()
    expected = cross_entropy(rows.x_s[source], rows.y_s[source]).mean() + of_target
    assert train(spec, rows, seed=0).history["classification_loss"][0] == pytest.approx(expected, rel=1e-5)


def test_article_ramps_by_the_step_before_the_update(article_run: TrainedNetwork) -> None:
    history = article_run.history
    assert history["step"] == list(range(12))  # 4 target batches, 3 epochs
    ramp = [scheduled("article", step, planned=12, warm_up_steps=1) for step in range(12)]
    np.testing.assert_allclose(history["mmd_weight"], [2.0 * value for value in ramp], rtol=1e-6)


def test_dann_adds_its_domain_loss_whole_and_weighs_the_reversed_gradient_alone() -> None:
    spec = replace(BY_METHOD["dann"], schedule="constant", mmd_weight=0.3)
    history = train(spec, training_set(), seed=1).history
    total = np.array(history["classification_loss"]) + history["mmd"]
    np.testing.assert_allclose(history["total_loss"], total, rtol=1e-6)
    assert history["mmd"][0] == pytest.approx(np.log(2), abs=0.3)


def test_weight_decay_leaves_biases_alone() -> None:
    network = StackedPerceptron(SMALL_DAN, 3, [0])
    variables = network.trainable_variables
    for variable in variables:
        variable.assign(tf.ones_like(variable))
    loop._optimizer(SMALL_DAN, SMALL_DAN.learning_rate).apply([tf.zeros_like(one) for one in variables], variables)
    kernels, biases = network.layer_weights(0)
    assert all(np.allclose(kernel, 1 - 2e-3 * 1e-2, atol=1e-7) for kernel in kernels)
    assert all(np.all(bias == 1.0) for bias in biases)


def test_rows_are_weighted_by_label_shift_only_where_the_target_prior_is_known() -> None:
    spec = replace(DAN_TO_THE_END, dropout=0.0)
    with_prior, without = (train(spec, training_set(prior=prior), seed=0).history["mmd"][0] for prior in (0.05, None))
    rows = training_set()
    source, target, network = first_batch(spec, seed=0)
    x_s, x_t = (network.activations(x)["hidden_2"][0] for x in (rows.x_s[source], rows.x_t[target]))
    weights = label_shift_weights(tf.constant(rows.y_s[source]), 0.05)
    assert with_prior == pytest.approx(float(mk_mmd2(x_s, x_t, spec.kernels, weights_s=weights)), rel=1e-4)
    assert without == pytest.approx(float(mk_mmd2(x_s, x_t, spec.kernels)), rel=1e-4)


# --- what a training depends on ---


def source_only_training(spec: DeepSpec, rows: TrainingSet, seed: int) -> list[Any]:
    """The same training written down without a target: one stream, one pass, cross-entropy, update."""
    draws = Draws.spawn(seed)
    network = StackedPerceptron(spec, rows.x_s.shape[1], [draws.network])
    optimizer = loop._optimizer(spec, spec.learning_rate)
    optimizer.build(network.trainable_variables)
    seeds = tf.bitcast(tf.constant([draws.source_noise], tf.uint32), tf.int32)

    @tf.function
    def update(x: Any, y: Any, step: Any) -> None:
        with tf.GradientTape() as tape:
            noise = Noise(seeds, step, spec.hidden) if spec.dropout > 0.0 else None
            logits = network.activations(x, noise)["logits"][..., 0]
            loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=y, logits=logits))
        variables = network.trainable_variables
        optimizer.apply(tape.gradient(loss, variables), variables)

    stream = row_stream(len(rows.x_s), spec, np.random.default_rng(draws.source_stream))
    for step, batch in enumerate(itertools.islice(stream, spec.max_steps)):
        update(tf.constant(rows.x_s[batch][None]), tf.constant(rows.y_s[batch][None]), tf.constant(step))
    kernels, biases = network.layer_weights(0)
    return [*kernels, *biases]


@pytest.mark.parametrize("spec", [ARTICLE_TO_THE_END, DAN_TO_THE_END], ids=["article", "dan"])
def test_mmd_weight_zero_is_source_only_training_written_down_without_a_target(spec: DeepSpec) -> None:
    trained = train(replace(spec, mmd_weight=0.0, use_target_labels=False), training_set(), seed=7)
    expected = source_only_training(spec, training_set(), seed=7)
    assert all(np.array_equal(ours, other) for ours, other in zip(layers(trained), expected, strict=True))
    assert min(trained.history["mmd"]) > 0.0  # still logged: it shows what alignment would have to close


@pytest.fixture(scope="module")
def source_only() -> TrainedNetwork:
    return train(SOURCE_ONLY, training_set(), seed=7)


@pytest.mark.parametrize("method", ALIGNING)
def test_mmd_weight_zero_is_source_only_training_bit_for_bit(method: str, source_only: TrainedNetwork) -> None:
    spec = replace(BY_METHOD[method], mmd_weight=0.0, use_target_labels=False)
    trained = train(spec, training_set(), seed=7)
    assert same_bits(trained, source_only)
    assert min(np.abs(trained.history["mmd"])) > 0.0
    assert max(source_only.history["mmd"]) == 0.0


@pytest.mark.parametrize("method", ["dan", "deep_coral", "dann"])
def test_mmd_weight_zero_is_source_only_training_even_where_the_term_overflows(
    method: str, source_only: TrainedNetwork
) -> None:
    rows = training_set()
    far = replace(rows, x_t=np.where(np.arange(150)[:, None] % 9 == 0, np.float32(3e38), rows.x_t))
    trained = train(replace(BY_METHOD[method], mmd_weight=0.0, use_target_labels=False), far, seed=7)
    assert not np.isfinite(trained.history["mmd"]).all()  # else this asks nothing
    assert same_bits(trained, source_only)


@pytest.mark.flow
@pytest.mark.parametrize("method", METHODS)
def test_two_runs_give_the_same_bits_and_a_member_is_the_network_trained_alone(method: str) -> None:
    spec, rows = replace(BY_METHOD[method], mmd_weight=1.0), training_set()
    first, again = (train_stack(spec, rows, [1, 2, 5]) for _ in range(2))
    assert all(same_bits(a, b) and a.history == b.history for a, b in zip(first, again, strict=True))
    assert not same_bits(first[0], first[1])
    assert largest_difference(first[1], train(spec, rows, seed=2)) < 1e-5


@pytest.mark.parametrize("method", ["source_only", "dann"])
def test_a_member_is_the_network_trained_alone_bit_for_bit_where_no_pairs_are_summed(method: str) -> None:
    # widths that fill a vector register: else which entries a vector instruction takes depends on the members before
    spec = replace(BY_METHOD[method], hidden=(128, 32), batch_size=128, mmd_weight=1.0)
    together, alone = train_stack(spec, training_set(), [1, 2, 5])[1], train(spec, training_set(), seed=2)
    assert same_bits(together, alone)


def test_two_runs_with_the_diagnosis_give_the_same_history(default_run: TrainedNetwork) -> None:
    again = train(SMALL_DAN, training_set(), seed=3)
    assert same_bits(again, default_run)
    assert again.history == default_run.history


def test_shift_logged_of_a_member_is_that_of_the_network_trained_alone(default_run: TrainedNetwork) -> None:
    together = train_stack(SMALL_DAN, training_set(), [1, 3])[1].history
    assert set(together) == set(default_run.history)
    for name, values in default_run.history.items():
        np.testing.assert_allclose(together[name], values, rtol=1e-3, atol=2e-5, err_msg=name)


def test_poisoned_target_labels_change_nothing_in_the_article(article_run: TrainedNetwork) -> None:
    rows = training_set()
    poisoned = replace(rows, y_t=np.random.default_rng(0).normal(size=len(rows.y_t)) * 1e6)
    trained = train(replace(SMALL_ARTICLE, l2_scale=0.1, mmd_weight=2.0), poisoned, seed=1)
    assert same_bits(trained, article_run)
    assert trained.history == article_run.history


@pytest.mark.parametrize("method", ["dan", "dann", "dsan"])
def test_target_labels_that_may_not_be_used_are_not_read(method: str) -> None:
    spec = replace(BY_METHOD[method], mmd_weight=1.0, use_target_labels=False)
    unknown = training_set(known_share=0.0)
    poisoned = replace(unknown, y_t=np.full(150, 1e6))
    assert same_bits(train(spec, poisoned, seed=1), train(spec, unknown, seed=1))


def test_dan_learns_from_known_target_labels_and_from_no_unknown_one() -> None:
    spec, unknown = replace(DAN_TO_THE_END, dropout=0.0), training_set(known_share=0.0)
    without = train(replace(spec, use_target_labels=False), unknown, seed=1)
    of_unknown, of_known = (train(spec, rows, seed=1).weights[0] for rows in (unknown, training_set(known_share=0.5)))
    np.testing.assert_allclose(of_unknown, without.weights[0], atol=1e-6)  # another graph: last bits may differ
    assert np.abs(of_known - without.weights[0]).max() > 1e-3


def test_tails_of_unequal_size_train_too() -> None:
    trained = train(replace(SMALL_ARTICLE, keep_tails=True), training_set(200, 150), seed=0)
    assert trained.stopped_step == 15  # ceil(150 / 32) = 5 batches, the last of 22 rows, 3 epochs
    assert len(trained.history["mmd"]) == 15


def test_populations_smaller_than_a_batch_are_used_whole() -> None:
    trained = train(replace(SMALL_DAN, batch_size=256), training_set(200, 9), seed=0)
    assert trained.stopped_step == 12


def test_alignment_beats_source_only_on_a_shift_that_it_can_close() -> None:
    rows = TrainingSet(*population(3000, False, 0), *population(2000, True, 1), *population(1000, False, 2))
    spec = replace(ARTICLE, hidden=(16, 8), batch_size=128, epochs=None, max_steps=300, evaluate_every=300)
    x_test, y_test = population(5000, True, 3)
    auc = {}
    for mmd_weight in (0.0, 1.0):
        network, _ = train_ensemble(replace(spec, mmd_weight=mmd_weight), rows, seeds=[1])
        auc[mmd_weight] = auc_value(y_test, network.raw_logit(x_test))
    assert auc[1.0] > auc[0.0] + 0.1  # .80 against .55 when this was written


# --- evaluation and stopping ---


def test_kept_weights_are_those_of_the_best_evaluation() -> None:
    rows = training_set()
    trained = train(replace(SMALL_ARTICLE, epochs=10, learning_rate=0.05), rows, seed=2)
    history = trained.history
    best = int(np.argmax(history["stop_auc"]))
    assert trained.best_step == history["evaluation_step"][best]
    logits = stack([trained]).raw_logit(rows.x_stop)
    assert auc_value(rows.y_stop, logits) == pytest.approx(history["stop_auc"][best], abs=1e-4)
    assert ks_value(rows.y_stop, logits) == pytest.approx(history["stop_ks"][best], abs=1e-2)


def test_where_the_last_weights_are_kept_no_evaluation_stops_or_chooses() -> None:
    trained = train(replace(EARLY, checkpoint="last"), training_set(), seed=0)
    assert (trained.best_step, trained.stopped_step, trained.stop_reason) == (60, 60, "max_steps")
    assert is_window_without_gain(trained.history["stop_auc"], EARLY.patience)
    logits = stack([trained]).raw_logit(training_set().x_stop)
    assert auc_value(training_set().y_stop, logits) == pytest.approx(trained.history["stop_auc"][-1], abs=1e-4)


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


def test_a_last_block_that_is_not_whole_trains_and_is_not_judged() -> None:
    trained = train(replace(SMALL_DAN, max_steps=10), training_set(), seed=0)
    assert trained.history["evaluation_step"] == [4, 8]
    assert trained.stopped_step == len(trained.history["step"]) == 10


EARLY = replace(SMALL_ARTICLE, epochs=None, max_steps=60, evaluate_every=1, patience=2, learning_rate=0.05)


def test_one_members_early_stop_touches_no_other() -> None:
    rows, seeds = training_set(), [0, 1, 2, 3]
    together = train_stack(EARLY, rows, seeds)
    assert len({one.stopped_step for one in together}) > 1  # else this asks nothing
    for one in together:
        alone = train(EARLY, rows, one.seed)
        assert (one.best_step, one.stopped_step, one.stop_reason) == (
            alone.best_step, alone.stopped_step, alone.stop_reason,
        )  # fmt: skip
        assert len(one.history["step"]) == one.stopped_step
        np.testing.assert_allclose(one.history["stop_auc"], alone.history["stop_auc"], atol=1e-4)
        assert largest_difference(one, alone) < 1e-4


@pytest.fixture
def diverging_after_its_stop(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """Make the losses of a member NaN from a step on."""

    def spoil(member: int, step: int) -> None:
        run = loop.Program.run

        def spoilt(self: Any, block: Any, weights: Any, done: int) -> Any:
            logged = run(self, block, weights, done)
            if done >= step:
                logged["total_loss"][:, member] = np.nan
            return logged

        monkeypatch.setattr(loop.Program, "run", spoilt)

    return spoil


def test_a_member_that_diverges_after_its_stop_does_not_end_the_others(
    diverging_after_its_stop: Callable[[int, int], None],
) -> None:
    seeds = [0, 1, 2, 3]
    before = train_stack(EARLY, training_set(), seeds)
    first = min(range(4), key=lambda place: before[place].stopped_step)
    diverging_after_its_stop(first, before[first].stopped_step)
    after = train_stack(EARLY, training_set(), seeds)
    assert all(same_bits(a, b) and a.history == b.history for a, b in zip(before, after, strict=True))
    diverging_after_its_stop(first, before[first].stopped_step - 1)  # while it is still listened to
    with pytest.raises(TrainingError, match=f"of seed {first}; check the features"):
        train_stack(EARLY, training_set(), seeds)


# --- the shift that is logged ---


def test_every_layer_has_its_distance_by_step_and_its_shift_by_evaluation() -> None:
    (trained,) = train_stack(replace(SMALL_DAN, layers=EVERY_LAYER), training_set(), [3])
    history = trained.history
    assert history["evaluation_step"] == [4, 8, 12]
    for layer in ("hidden_1", "hidden_2", "logits"):
        assert len(history[f"mmd_{layer}"]) == 12
        for kind in ("mmd_unbiased", "mmd_no_shift_band", "mmd_fixed"):
            assert len(history[f"{kind}_{layer}"]) == 3
        assert min(history[f"mmd_no_shift_band_{layer}"]) > 0.0
        # at the first evaluation the fixed bandwidth is the adaptive one
        assert history[f"mmd_fixed_{layer}"][0] == pytest.approx(history[f"mmd_unbiased_{layer}"][0], abs=2e-3)
    assert (
        history["mmd_unbiased_hidden_1"][0] > 3 * history["mmd_no_shift_band_hidden_1"][0]
    )  # the shift is in the rows
    assert history["mmd_unbiased"] == history["mmd_unbiased_logits"]
    assert history["mmd_no_shift_band"] == history["mmd_no_shift_band_logits"]


@pytest.mark.flow
def test_every_method_logs_the_same_shift_whatever_it_minimises() -> None:
    logged = []
    for method in ("dan", "deep_coral", "dann"):
        spec = replace(BY_METHOD[method], logs_no_shift_band=True, mmd_weight=0.0, use_target_labels=False)
        logged.append(train(spec, training_set(), seed=2).history["mmd_unbiased_hidden_2"])
    assert logged[0] == logged[1] == logged[2]


def test_no_shift_stays_within_a_few_bands() -> None:
    x, y = population(600, False, 0)
    rows = TrainingSet(x[:400], y[:400], x[400:], np.full(200, np.nan, np.float32), *population(300, False, 2))
    history = train(replace(SMALL_DAN, batch_size=128), rows, seed=1).history
    assert np.all(np.abs(history["mmd_unbiased"]) < 4 * np.array(history["mmd_no_shift_band"]))


def test_without_the_diagnosis_no_shift_is_logged(article_run: TrainedNetwork) -> None:
    assert not [name for name in article_run.history if "unbiased" in name or "fixed" in name or "band" in name]


# --- ensembles ---


def test_ensemble_stacks_its_seeds_and_reports_progress_to_its_end() -> None:
    rows, reports = training_set(), []
    spec = replace(SMALL_ARTICLE, epochs=4, evaluate_every=1, patience=2, learning_rate=0.05)
    network, trained = train_ensemble(spec, rows, seeds=[1, 2], on_progress=lambda *report: reports.append(report))
    assert [one.seed for one in trained] == [1, 2]
    assert [layer.shape for layer in network.weights] == [(2, 3, 12), (2, 12, 6), (2, 6, 1)]
    probability = np.mean([1 / (1 + np.exp(-stack([one]).raw_logit(rows.x_stop))) for one in trained], axis=0)
    np.testing.assert_allclose(1 / (1 + np.exp(-network.raw_logit(rows.x_stop))), probability, rtol=1e-9)
    done = [done for done, _ in reports]
    assert done == sorted(set(done))
    assert {total for _, total in reports} == {16}
    assert reports[-1] == (16, 16)


def test_an_early_stop_of_all_jumps_to_the_end_of_the_progress() -> None:
    reports: list[tuple[int, int]] = []
    train_stack(EARLY, training_set(), [0], lambda *report: reports.append(report))
    assert len(reports) < 60
    assert reports[-1] == (60, 60)


def test_the_bandwidth_that_can_be_compared_over_time_is_of_the_recipes_rule() -> None:
    family = KernelFamily(bandwidth="fixed", sigma=3.0)
    history = train(small("dan", evaluate_every=3, logs_no_shift_band=True, kernels=family), training_set(), 0).history
    np.testing.assert_array_equal(history["mmd_fixed_hidden_2"], history["mmd_unbiased_hidden_2"])


def test_only_fine_tuning_starts_from_earlier_weights() -> None:
    start = stack(train_stack(DAN_TO_THE_END, training_set(), [1]))
    with pytest.raises(ValueError, match="only fine_tuned starts from earlier weights, not dan"):
        train_ensemble(DAN_TO_THE_END, training_set(), [1], start=start)


# --- refusals ---


def test_an_ensemble_without_seeds_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one seed, got none"):
        train_stack(SMALL_DAN, training_set(), [])


@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
def test_a_loss_that_is_not_a_number_ends_the_training_with_step_seed_and_losses() -> None:
    rows = training_set()
    x_s = rows.x_s.copy()
    x_s[:, 0] = np.nan
    with pytest.raises(TrainingError, match=r"classification_loss nan.*at step 0 of seed 3; check the features"):
        train(SMALL_ARTICLE, replace(rows, x_s=x_s), seed=3)


def test_scores_that_are_not_numbers_end_the_training() -> None:
    rows = training_set()
    with pytest.raises(TrainingError, match=r"finite scores of the stop rows.*after step 2 of seed 3"):
        train(SMALL_ARTICLE, replace(rows, x_stop=np.full_like(rows.x_stop, np.nan)), seed=3)


def test_keras_keeps_its_own_random_state_out_of_it(source_only: TrainedNetwork) -> None:
    keras.utils.set_random_seed(1)
    assert same_bits(train(SOURCE_ONLY, training_set(), seed=7), source_only)

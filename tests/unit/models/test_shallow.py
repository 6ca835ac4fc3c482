"""Rules of the shallow families: the plain form is the library's model, wherever it might not be."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier

from crossrisk.errors import TrainingError
from crossrisk.metrics import auc_value
from models.fitted import Contender, load_contender, save_contender, sigmoid
from models.lineup import TrainingRows, fit_baseline, needs_target_labels
from models.shallow.logistic import INVERSE_PENALTIES, choose_inverse_penalty, fit_logistic
from models.shallow.parity import refuse_disparity
from models.shallow.stacked import fit_stacked
from models.shallow.trees import (
    BoostedSettings,
    ForestSettings,
    fit_boosted,
    fit_forest,
    round_down_to_float32,
    split_by_seed,
)

FOREST = ForestSettings(seeds=(1, 2), trees_per_seed=5, depth=6)
SHALLOW = ("source_logistic", "source_boosted", "source_forest", "target_logistic", "target_boosted",
           "pooled_logistic", "pooled_boosted", "stacked")  # fmt: skip


def drawn(rows=1500, columns=6, seed=0):
    rng = np.random.default_rng(seed)
    x = np.round(rng.normal(size=(rows, columns)), 1).astype(np.float32)  # ties, and values on thresholds
    y = (rng.random(rows) < 1 / (1 + np.exp(-(x[:, 0] - x[:, 1] * x[:, 2] - 1)))).astype(np.int8)
    return x, y


def rows_of_both():
    x_s, y_s = drawn()
    x_t, y_t = drawn(600, seed=1)
    return TrainingRows(x_s, y_s, x_t, y_t)


@given(hnp.arrays(np.float64, 50, elements=st.floats(-1e38, 1e38)))
def test_rounded_thresholds_compare_as_the_exact_ones_for_every_float32(thresholds):
    rounded = round_down_to_float32(thresholds)
    around = np.concatenate(
        [rounded, np.nextafter(rounded, np.float32(np.inf)), np.nextafter(rounded, np.float32(-np.inf))]
    )
    exact = around.astype(np.float64) <= np.tile(thresholds, 3)
    assert (exact == (around <= np.tile(rounded, 3))).all()


def test_boosted_trees_say_what_scikit_learn_says():
    x, y = drawn()
    settings = BoostedSettings(rounds=30, learning_rate=0.1)
    form = fit_boosted(x, y, seed=3, settings=settings)
    model = HistGradientBoostingClassifier(
        max_iter=30, learning_rate=0.1, max_leaf_nodes=8, min_samples_leaf=50, early_stopping=False, random_state=3
    ).fit(x, y)
    fresh, _ = drawn(5000, seed=9)
    assert np.abs(sigmoid(form.raw_logit(fresh)) - model.predict_proba(fresh)[:, 1]).max() < 1e-12


def test_forests_of_several_seeds_are_the_mean_of_each():
    x, y = drawn()
    form = fit_forest(x, y, FOREST, threads=1)
    fresh, _ = drawn(5000, seed=9)
    each = []
    for seed, alone in zip(FOREST.seeds, split_by_seed(form, FOREST), strict=True):
        model = RandomForestClassifier(5, max_depth=6, min_samples_leaf=20, random_state=seed).fit(x, y)
        expected = model.predict_proba(fresh)[:, 1]
        assert np.abs(sigmoid(alone.raw_logit(fresh)) - expected).max() < 1e-6
        each.append(expected)
    assert np.abs(sigmoid(form.raw_logit(fresh)) - np.mean(each, axis=0)).max() < 1e-6


@pytest.mark.parametrize("name", SHALLOW)
def test_every_contender_ranks_better_than_chance_and_comes_back_from_its_files(name, tmp_path):
    fitted = fit_baseline(name, rows_of_both(), seed=1, forest=FOREST, threads=1).contender
    x, y = drawn(3000, seed=5)
    assert auc_value(y, fitted.probability(x)) > 0.6
    save_contender(fitted, tmp_path)
    again = load_contender(tmp_path)
    assert np.array_equal(again.probability(x), fitted.probability(x))
    assert {p.name for p in tmp_path.iterdir()} == {"model.json", "arrays.npz"}


def test_pooled_contenders_serve_everyone_as_target():
    rows = rows_of_both()
    shifted = TrainingRows(rows.x_source, rows.y_source, rows.x_target, np.ones_like(rows.y_target))
    fitted = fit_baseline("pooled_logistic", shifted, seed=1, forest=FOREST, threads=1).contender
    assert fitted.probability(rows.x_source).mean() > rows.y_source.mean() + 0.1


def test_contenders_that_need_target_labels_are_known():
    assert [name for name in SHALLOW if not needs_target_labels(name)] == list(SHALLOW[:3])


def test_stacking_keeps_the_sources_ranking_where_target_labels_show_nothing_else():
    x, y = drawn(4_000)
    source = fit_logistic(x, y)
    few_x, few_y = x[:120], np.random.default_rng(3).permutation(y[:120])  # labels that say nothing
    form = fit_stacked((source,), few_x, few_y)
    ranks = [np.argsort(np.argsort(score)) for score in (form.raw_logit(x), source.raw_logit(x))]
    assert abs(np.corrcoef(*ranks)[0, 1]) > 0.97


def test_stacking_corrects_a_source_whose_drivers_differ():
    x, y = drawn(4_000)
    wrong = fit_logistic(x, 1 - y)
    form = fit_stacked((wrong,), x, y)
    assert auc_value(y, form.raw_logit(x)) > auc_value(y, fit_logistic(x, y).raw_logit(x)) - 0.01


def test_stacking_takes_the_source_model_that_ranks_the_target_best():
    x, y = drawn(2_000)
    good, wrong = fit_logistic(x, y), fit_logistic(x, 1 - y)
    assert fit_stacked((wrong, good), x, y).source is good
    assert fit_stacked((good, wrong), x, y).source is good


def test_a_penalty_within_noise_of_the_least_loss_is_the_strongest_of_them():
    x, y = drawn(300)
    inputs = x.astype(np.float64)
    least = choose_inverse_penalty(inputs, y, seed=0)
    assert choose_inverse_penalty(inputs, y, seed=0, standard_errors=1e9) == INVERSE_PENALTIES[0] <= least


def test_a_form_that_disagrees_with_its_library_is_refused():
    x, _ = drawn(50)
    with pytest.raises(TrainingError, match="differ by"):
        refuse_disparity(lambda r: np.zeros(len(r)), lambda r: np.full((len(r), 2), 0.4), x)
    with pytest.raises(TrainingError, match="differ by nan"):
        refuse_disparity(lambda r: np.zeros(len(r)), lambda r: np.full((len(r), 2), np.nan), x)


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="unknown shallow contender"):
        fit_baseline("dan", rows_of_both(), seed=1, forest=FOREST, threads=1)


def test_a_contender_of_another_schema_is_refused(tmp_path):
    x, y = drawn(200)
    save_contender(Contender("a", fit_logistic(x, y)), tmp_path)
    path = tmp_path / "model.json"
    path.write_text(path.read_text().replace('"schema_version": 2', '"schema_version": 3'))
    with pytest.raises(ValueError, match="schema_version"):
        load_contender(tmp_path)

"""Rules of the credit splits' benchmark: who is drawn, how differences are judged, what is kept of an earlier run."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, stdtrit

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))

from bench_splits import Unit, read_results, time_left
from credit_splits import SPLITS, SplitRows, as_reference, draw_parts
from split_lineup import CHOSEN, CHOSEN_POOLED, PREFERRED, Settings
from split_table import Interval, check_targets, judge
from split_text import say_all

from crossrisk.contenders import HONEST_LINEUP
from crossrisk.metrics import auc_value, paired_test
from tasks.split import SOURCE_FIT, SOURCE_STOP, TARGET_SELECT, TARGET_TEST

SPLIT = replace(SPLITS[0], reference={"target_logistic": 0.6, "stacked": 0.65})
FEW_STEPS = Settings(("stacked", "target_logistic"), networks=2, max_steps=20)


def population(seed, n_source=400, n_target=600):
    rng = np.random.default_rng(seed)
    label = (rng.random(n_source + n_target) < 0.3).astype(np.int8)
    is_target = np.arange(len(label)) >= n_source
    is_test = is_target & (rng.random(len(label)) < 0.5)
    return SplitRows(None, pl.Series(range(len(label))), pl.DataFrame(), label, is_target, is_test)


def experiment(seed, draws=4, bads=80, goods=240, noise=0.5, of_draw=0.0, gain=0.0):
    """Scores of two contenders on one test; every draw adds its own noise to what the rows say of themselves.

    Args:
        of_draw: standard deviation of the weight that a draw gives to the signal of the first contender.
        gain: weight of the signal that the first contender has more than the second.
    """
    rng = np.random.default_rng(seed)
    label = np.repeat(np.array([1, 0], np.int8), [bads, goods])
    signal = rng.normal(label * 1.0)
    weights = {"stacked": 1 + gain + of_draw * rng.normal(size=draws), "target_logistic": np.ones(draws)}
    scores = {
        name: expit(weight[:, None] * signal + noise * rng.normal(size=(draws, len(label))) - 1.5)
        for name, weight in weights.items()
    }
    return label, scores


def judged(label, scores, *, chosen="stacked", split=SPLIT):
    draws = len(scores["stacked"])
    return judge(split, label, scores, {CHOSEN: [chosen] * draws, CHOSEN_POOLED: [chosen] * draws})


# --- drawing ---


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 100))
def test_a_draw_hides_the_labels_of_the_test_and_of_the_unlabelled_target_rows(rows_seed, seed):
    rows = population(rows_seed)
    drawn = draw_parts(rows, 30, seed)
    known = ~np.isnan(drawn.label)
    assert np.array_equal(drawn.of(TARGET_TEST), rows.is_test)
    assert not known[rows.is_test].any()
    assert known[~rows.is_target].all()
    assert known[drawn.of(TARGET_SELECT)].all()
    assert np.array_equal(drawn.label[known], rows.label[known])
    assert drawn.label[known & rows.is_target].sum() == 30
    assert rows.label[drawn.of(TARGET_SELECT)].sum() == 9
    assert set(drawn.part[~rows.is_target]) == {SOURCE_FIT, SOURCE_STOP}
    pool = rows.is_target & ~rows.is_test
    assert known[pool].mean() == pytest.approx(30 / rows.label[pool].sum(), abs=0.01)


def test_a_draw_of_few_labels_is_among_that_of_more_with_the_same_seed():
    rows = population(1)
    few, more = (~np.isnan(draw_parts(rows, bads, 7).label) for bads in (20, 60))
    assert not (few & ~more).any()
    assert not np.array_equal(few, ~np.isnan(draw_parts(rows, 20, 8).label))


def test_more_bads_than_the_target_holds_outside_the_test_are_refused():
    with pytest.raises(ValueError, match="500 target bads are to be drawn of"):
        draw_parts(population(1), 500, 0)


def test_every_contender_of_the_product_has_its_place_in_the_order_of_preference():
    assert [name for name in PREFERRED if name in HONEST_LINEUP] == list(HONEST_LINEUP)
    assert len(set(PREFERRED)) == len(PREFERRED)
    assert FEW_STEPS.spec("dan").max_steps == 20


# --- judging ---


def test_one_draw_has_the_interval_of_the_paired_delong_test_but_for_students_t():
    label, scores = experiment(0, draws=1)
    found = judged(label, scores).difference("stacked", "target_logistic")
    test = paired_test(label, scores["stacked"][0], scores["target_logistic"][0])
    assert found.value == pytest.approx(test.difference)
    assert found.high - found.value == pytest.approx(stdtrit(79, 0.975) * test.standard_error)


def test_draws_that_agree_do_not_shorten_the_interval():
    label, scores = experiment(0, draws=1)
    once = judged(label, scores).difference("stacked", "target_logistic")
    again = judged(label, {name: np.repeat(p, 10, axis=0) for name, p in scores.items()})
    assert vars(again.difference("stacked", "target_logistic")) == pytest.approx(vars(once))


def test_the_variance_of_the_test_rows_is_that_of_a_bootstrap_of_the_mean_over_draws():
    label, scores = experiment(3, draws=3)
    rng, means = np.random.default_rng(0), []
    for _ in range(1500):
        rows = np.concatenate([rng.choice(np.flatnonzero(label == y), (label == y).sum()) for y in (1, 0)])
        pairs = zip(*scores.values(), strict=True)
        means.append(np.mean([auc_value(label[rows], a[rows]) - auc_value(label[rows], b[rows]) for a, b in pairs]))
    found = judged(label, scores).variance_of_rows("stacked", "target_logistic")
    assert found == pytest.approx(np.var(means), rel=0.1)


@pytest.mark.parametrize("of_draw", [0.0, 0.4])
def test_the_interval_holds_a_difference_of_nought_in_about_95_of_100_experiments(of_draw):
    found = [
        judged(*experiment(seed, of_draw=of_draw, bads=60, goods=120)).difference("stacked", "target_logistic")
        for seed in range(200)
    ]
    share = np.mean([one.verdict == "does nothing" for one in found])
    assert share >= 0.91


def test_a_gain_that_rows_and_draws_agree_on_is_said_to_help_and_its_reverse_to_hurt():
    found = judged(*experiment(1, gain=2.0, bads=400, goods=800))
    assert found.difference("stacked", "target_logistic").verdict == "helps"
    assert found.difference("target_logistic", "stacked").verdict == "hurts"


def test_the_chosen_contender_is_taken_draw_by_draw():
    label, scores = experiment(2, draws=2)
    names = ["target_logistic", "stacked"]
    found = judge(SPLIT, label, scores, {CHOSEN: names, CHOSEN_POOLED: names})
    expected = np.mean([auc_value(label, scores[name][draw]) for draw, name in enumerate(names)])
    assert found.auc(CHOSEN) == pytest.approx(expected)
    assert found.observed_expected[CHOSEN][0] == pytest.approx(80 / scores["target_logistic"][0].sum())


# --- targets ---


def test_targets_say_by_how_much_they_are_missed():
    label, scores = experiment(1, gain=0.0)
    scores["stacked"] = scores["target_logistic"]
    gain, reference, level = check_targets(judged(label, scores))[:3]
    assert gain.missed_by == pytest.approx(0.02)
    assert reference.missed_by == 0
    assert level.missed_by == pytest.approx(max(0, 0.9 - level.found.value, level.found.value - 1.1))


@pytest.mark.parametrize(
    "changes", [{"target_bads": 300}, {"reference": {"target_logistic": 0.64, "stacked": 0.65}}], ids=str
)
def test_a_gain_is_asked_only_with_few_labels_and_where_the_reference_table_shows_room(changes):
    label, scores = experiment(1)
    titles = [one.title for one in check_targets(judged(label, scores, split=replace(SPLIT, **changes)))]
    assert not any("best target-only" in title for title in titles)
    assert any("best target-only" in one.title for one in check_targets(judged(label, scores)))


def test_an_interval_on_the_side_of_nought_is_beyond_noise():
    assert Interval(0.1, 0.01, 0.2).verdict == "helps"
    assert Interval(-0.1, -0.2, -0.01).verdict == "hurts"
    assert Interval(0.1, 0.0, 0.2).verdict == "does nothing"


# --- resuming ---


def kept(folder, unit_settings, draw, seed):
    """A unit as a finished run leaves it."""
    unit = Unit(SPLITS[0], draw, folder)
    label, scores = experiment(seed, draws=1)
    unit.predictions.parent.mkdir(exist_ok=True)
    pl.DataFrame({"id": range(len(label)), "label": label, **{n: p[0] for n, p in scores.items()}}).write_parquet(
        unit.predictions
    )
    facts = {
        "settings": unit_settings.digest,
        "chosen": {CHOSEN: "stacked", CHOSEN_POOLED: "stacked"},
        "weights": {"dan": 0.1},
        "risk_drivers": "small",
        "seconds": {"all": 60.0 * (draw + 1)},
    }
    unit.facts.write_text(json.dumps(facts))
    return unit


def test_a_comparison_with_the_reference_table_may_see_what_a_model_may_not():
    thin_file = next(split for split in SPLITS if split.name == "thin_file")
    shown = as_reference(thin_file)
    assert shown.name == "thin_file_as_reference"
    assert set(shown.more["numeric"]) >= {"age", "debt_ratio"}
    assert shown.more["protected"] == ()
    assert shown.more["sentinels"] == {}
    assert "numeric" not in thin_file.more


def test_a_unit_of_other_settings_is_not_done(tmp_path):
    unit = kept(tmp_path, FEW_STEPS, 0, 0)
    assert unit.read_facts(FEW_STEPS) is not None
    assert unit.read_facts(replace(FEW_STEPS, networks=3)) is None
    assert Unit(SPLITS[0], 1, tmp_path).read_facts(FEW_STEPS) is None


def test_the_time_left_is_that_of_units_done(tmp_path):
    units = [kept(tmp_path, FEW_STEPS, draw, 0) for draw in (0, 1)]
    missing = [Unit(split, 2, tmp_path) for split in SPLITS[:2]]
    assert time_left(missing, units, FEW_STEPS) == "2 units left, about 3 minutes"
    assert time_left(missing, missing, FEW_STEPS) == "2 units left"


def test_the_table_tells_of_the_draws_there_are(tmp_path):
    units = [kept(tmp_path, FEW_STEPS, draw, 0) for draw in (0, 1, 2)]
    unfinished = Unit(SPLITS[0], 3, tmp_path)
    ((found, choices),) = read_results([*units, unfinished], FEW_STEPS)
    text = say_all([found], {SPLITS[0].name: choices})
    assert "| draws | 3 |" in text
    assert "| chosen | stacked 3 |" in text
    assert "| mmd_weight of dan | 0.1 3 |" in text


def test_draws_of_other_rows_are_refused(tmp_path):
    units = [kept(tmp_path, FEW_STEPS, draw, 0) for draw in (0, 1)]
    pl.read_parquet(units[1].predictions).with_columns(pl.col("id") + 1).write_parquet(units[1].predictions)
    with pytest.raises(RuntimeError, match="judged on other rows"):
        list(read_results(units, FEW_STEPS))

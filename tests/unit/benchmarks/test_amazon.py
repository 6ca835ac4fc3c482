"""What the Amazon benchmark claims from its hits: the interval, the verdict, and that no target label trains."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_matrix

ROOT = Path(__file__).parents[3]


def load_bench():
    """The script, without its folder becoming a package."""
    spec = importlib.util.spec_from_file_location("bench_amazon", ROOT / "benchmarks" / "bench_amazon.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for the names in their annotations
    spec.loader.exec_module(module)
    return module


bench = load_bench()


def drawn_hits(rng, pairs=("B-D", "E-D", "B-K"), seeds=3, rows=400, gain=0.05):
    """Two methods' hits; one row is as hard for both, and for every pair that tests on it."""
    hardness = {target: rng.random(rows) for target in "DK"}
    adapter, source_only = {}, {}
    for pair in pairs:
        of_seeds = 0.03 * rng.normal(size=(2, seeds, 1))
        noise = 0.2 * rng.normal(size=(2, seeds, rows))
        skill = 0.7 + of_seeds + noise - hardness[pair[-1]]
        adapter[pair], source_only[pair] = skill[0] + gain > 0, skill[1] > 0
    return adapter, source_only


def bootstrap_variance_of_rows(adapter, source_only, rng, repeats=4000):
    """The slow way: draw the test rows of each target anew, the same draw for all pairs and seeds that use them."""
    rows = next(iter(adapter.values())).shape[1]
    means = []
    for _ in range(repeats):
        drawn = {target: rng.integers(rows, size=rows) for target in {pair[-1] for pair in adapter}}
        gains = [
            (adapter[pair][:, drawn[pair[-1]]] * 1.0 - source_only[pair][:, drawn[pair[-1]]]).mean() for pair in adapter
        ]
        means.append(np.mean(gains))
    return np.var(means)


def test_without_noise_of_seeds_the_interval_is_that_of_a_bootstrap_over_test_rows():
    rng = np.random.default_rng(1)
    adapter, source_only = (
        {pair: np.repeat(hits[:1], 3, axis=0) for pair, hits in one.items()} for one in drawn_hits(rng)
    )
    found = bench.paired_difference(adapter, source_only)
    expected = 1.96 * np.sqrt(bootstrap_variance_of_rows(adapter, source_only, rng))
    assert (found.high - found.low) / 2 == pytest.approx(expected, rel=0.05)


def test_interval_of_a_hand_worked_case_where_only_seeds_differ():
    source_only = {"B-D": np.zeros((3, 4), bool)}
    adapter = {"B-D": np.array([[0, 0, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1]], bool)}
    found = bench.paired_difference(adapter, source_only)
    # seeds' gains 0, 1, 1: mean 2/3, variance 1/3, of their mean 1/9; Student's 97.5% quantile with 2 degrees is 4.303
    assert found.mean == pytest.approx(2 / 3)
    assert found.high - found.mean == pytest.approx(4.303 / 3, rel=1e-3)


def test_interval_covers_the_true_difference_over_seeds_and_rows():
    truth = bench.paired_difference(*drawn_hits(np.random.default_rng(0), seeds=300, rows=4000)).mean
    drawn = (bench.paired_difference(*drawn_hits(np.random.default_rng(seed))) for seed in range(1, 301))
    assert 0.92 <= np.mean([one.low <= truth <= one.high for one in drawn]) <= 0.99


def test_interval_is_refused_for_one_seed_and_for_other_rows():
    one = {"B-D": np.ones((1, 5), bool)}
    with pytest.raises(ValueError, match="at least 2 seeds"):
        bench.paired_difference(one, one)
    with pytest.raises(ValueError, match="same pairs, seeds and rows"):
        bench.paired_difference({"B-D": np.ones((2, 5), bool)}, {"B-D": np.ones((2, 6), bool)})


@pytest.mark.parametrize(
    ("mean", "interval", "said"),
    [
        (0.7628, (-0.01, 0.01), ">= 0.7628; within noise of source-only"),
        (0.7700, (-0.02, -0.01), ">= 0.7628; worse than source-only beyond noise"),
        (0.7600, (-0.01, 0.01), "within noise of source-only; 0.0028 below 0.7628"),
        (0.7600, (0.01, 0.02), "better than source-only beyond noise; 0.0028 below 0.7628"),
        (0.7600, (-0.02, -0.01), "missed by 0.0028; worse than source-only beyond noise"),
    ],
)
def test_verdict_is_missed_only_below_both_the_published_mean_and_source_only(mean, interval, said):
    assert bench.verdict(mean, bench.Difference(sum(interval) / 2, *interval)) == said


def small_domain(rng, rows=40):
    counts = csr_matrix(rng.poisson(0.3, size=(rows, 6)))
    return bench.Domain(counts, np.resize([0, 1], rows).astype(np.int8), counts, np.zeros(rows, np.int8))


def test_training_rows_hold_no_label_of_the_target_and_no_source_row_twice():
    rng = np.random.default_rng(0)
    source, target = small_domain(rng), small_domain(rng)
    rows, x_test = bench.training_rows(source, target, split_seed=0)
    assert np.isnan(rows.y_t).all()
    assert len(rows.x_stop) == 4
    assert len(rows.x_s) == 36
    assert np.concatenate([rows.y_s, rows.y_stop]).sum() == source.y_train.sum()
    lengths = np.linalg.norm(np.concatenate([rows.x_s, rows.x_stop, rows.x_t, x_test]), axis=1)
    assert np.all(np.isclose(lengths, 1, atol=1e-6) | (lengths == 0))


def test_kept_unit_comes_back_and_answers_no_other_question(tmp_path):
    hits = np.array([[True, False, True], [False, False, True]])
    unit = bench.Unit(hits, hits[:1], (20, 40), 1.5)
    asked = bench.question("B-D", "dan", "digest", 2)
    bench.keep(tmp_path / "unit.json", asked, unit)
    kept = bench.find_kept(tmp_path / "unit.json", asked)
    assert kept is not None
    assert np.array_equal(kept.hits, hits)
    assert (kept.best_steps, kept.seconds) == (unit.best_steps, unit.seconds)
    assert bench.find_kept(tmp_path / "unit.json", bench.question("B-D", "dan", "digest", 3)) is None

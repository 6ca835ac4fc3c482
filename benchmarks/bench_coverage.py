"""How often 95% intervals contain the truth, at 105, 350 and 2,000 bads: AUC, KS and observed/expected.

    python benchmarks/bench_coverage.py [--bads 105 350 2000] [--samples 1000] [--json PATH]

Each sample has 14 rows for every bad expected, scores normal within each class and as far apart as a true KS of .30
says, and as probabilities the true ones, so that the true observed/expected is 1. The number of bads is random, as in a
month. KS is also given the interval that it does not have: plain percentiles of class-stratified resamples. Progress
goes to stderr; 1,000 samples take some two, five and twenty minutes.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from scipy.special import expit, logit, ndtr, ndtri

from crossrisk.metrics import evaluate
from crossrisk.metrics.base import wilson
from crossrisk.metrics.kolmogorov import merge_runs
from crossrisk.metrics.ranking import ScoreCounts, count_scores

TRUE_KS, ROWS_PER_BAD, REPLICATES = 0.30, 14, 1000
SHIFT = 2 * ndtri((1 + TRUE_KS) / 2)  # of the bads' mean, in standard deviations: KS = 2 Phi(shift / 2) - 1
TRUTH = {"auc": ndtr(SHIFT / np.sqrt(2)), "ks": TRUE_KS, "observed_expected": 1.0, "ks, plain percentile": TRUE_KS}


def main() -> None:
    """Simulate, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bads", type=int, nargs="+", default=[105, 350, 2000])
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(f"{'bads':>6}  {'metric':<22}{'covered':>8}  {'95% of it':<14}{'truth below':>12}{'above':>8}{'width':>8}")
    results = []
    for bads in options.bads:
        for result in simulate(bads, options.samples):
            results.append(result)
            show(result)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


def simulate(bads: int, samples: int) -> list[dict]:
    """Coverage of every interval over samples with so many bads on average."""
    bounds = {metric: np.empty((samples, 2)) for metric in TRUTH}
    for sample in range(samples):
        if sample % 50 == 0:
            print(f"{bads} bads: {sample} of {samples} samples", file=sys.stderr, flush=True)
        rng = np.random.default_rng([bads, sample])
        label, score, probability = draw(rng, bads)
        metrics = evaluate(label, {"m": probability}, replicates=REPLICATES, seed=sample).metrics["m"]
        for metric in ("auc", "ks", "observed_expected"):
            bounds[metric][sample] = metrics[metric].low, metrics[metric].high
        bounds["ks, plain percentile"][sample] = plain_percentiles(count_scores(label, score), rng)
    return [
        {
            "bads": bads,
            "metric": metric,
            "samples": samples,
            "covered": float(((low <= TRUTH[metric]) & (TRUTH[metric] <= high)).mean()),
            "truth_below": float((TRUTH[metric] < low).mean()),
            "truth_above": float((TRUTH[metric] > high).mean()),
            "width": float((high - low).mean()),
        }
        for metric, (low, high) in ((metric, found.T) for metric, found in bounds.items())
    ]


def draw(rng: np.random.Generator, bads: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, normal scores and the true probability of bad given the score."""
    label = rng.random(bads * ROWS_PER_BAD) < 1 / ROWS_PER_BAD
    score = rng.normal(SHIFT * label)
    return label, score, expit(logit(1 / ROWS_PER_BAD) + SHIFT * (score - SHIFT / 2))


def plain_percentiles(counts: ScoreCounts, rng: np.random.Generator) -> tuple[float, float]:
    """2.5% and 97.5% of the KS of resamples stratified by class."""
    runs = merge_runs(counts)
    shares = [
        np.cumsum(rng.multinomial(int(rows.sum()), rows / rows.sum(), REPLICATES), axis=1) / rows.sum()
        for rows in (runs.bads, runs.goods)
    ]
    low, high = np.quantile(np.abs(shares[0] - shares[1]).max(axis=1), [0.025, 0.975])
    return float(low), float(high)


def show(result: dict) -> None:
    """One line of the table."""
    low, high = wilson(result["covered"] * result["samples"], result["samples"], 0.95)
    print(
        f"{result['bads']:>6}  {result['metric']:<22}{result['covered']:>8.3f}  {f'{low:.3f} to {high:.3f}':<14}"
        f"{result['truth_below']:>12.3f}{result['truth_above']:>8.3f}{result['width']:>8.4f}",
        flush=True,
    )


if __name__ == "__main__":
    main()

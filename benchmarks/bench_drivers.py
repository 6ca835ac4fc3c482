"""What borrowing costs where one risk driver is weaker or reversed: contenders by strength of it and target bads.

    python benchmarks/bench_drivers.py [--draws 6]

Populations are `crossrisk.demo_shifts`' with a shift of concept, columns without effect beside theirs; a draw is a pair
of populations of its own. The last line of each strength is the most that any model can expect.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
from threadpoolctl import threadpool_limits

from crossrisk.demo_shifts import KnownRows, draw_shift
from crossrisk.metrics import auc_value
from models.fitted import Matrix
from models.lineup import TrainingRows, fit_baseline
from models.shallow.trees import ForestSettings

CONTENDERS = ("stacked", "target_logistic", "target_boosted", "pooled_logistic", "source_logistic")
STRENGTHS = (1.0, 0.75, 0.5, 0.25)
BADS = (70, 140, 210)
NOISE_COLUMNS = 14
"""A plan of twenty columns is small; with six, every coefficient is known to a decimal."""


def measure(strength: float, draws: int) -> dict[str, list[float]]:
    """Contender -> mean AUC on fresh target rows for each number of BADS that it was fitted on."""
    found: dict[str, list[list[float]]] = {name: [] for name in (*CONTENDERS, "best possible")}
    for draw in range(draws):
        populations = draw_shift("concept", seed=draw, strength=strength)
        rng = np.random.default_rng(draw)
        source, target, test = (
            (with_noise(rows, rng), rows.y.astype(np.int8))
            for rows in (populations.source_fit, populations.target_fit, populations.target_test)
        )
        for name in CONTENDERS:
            found[name].append([auc_of(name, source, target, test, bads) for bads in BADS])
        found["best possible"].append([populations.target_test.best_auc] * len(BADS))
    return {name: np.mean(of_draws, axis=0).tolist() for name, of_draws in found.items()}


Labelled = tuple[Matrix, "np.ndarray[tuple[int], np.dtype[np.int8]]"]


def auc_of(name: str, source: Labelled, target: Labelled, test: Labelled, bads: int) -> float:
    """AUC on the test rows of the contender that saw the first target rows, up to so many bads."""
    first = np.cumsum(target[1]) <= bads
    rows = TrainingRows(*source, target[0][first], target[1][first])
    fitted = fit_baseline(name, rows, seed=1, forest=ForestSettings((1,)), threads=1)
    return auc_value(test[1], fitted.contender.raw_logit(test[0]))


def with_noise(rows: KnownRows, rng: np.random.Generator) -> Matrix:
    """The columns, and NOISE_COLUMNS more that mean nothing."""
    return np.concatenate([rows.x, rng.normal(size=(len(rows.x), NOISE_COLUMNS)).astype(np.float32)], axis=1)


def show(strength: float, found: dict[str, list[float]], bads: Sequence[int]) -> None:
    """Print one table."""
    print(f"concept shift of strength {strength:g}" + "".join(f"{f'{n} bads':>10}" for n in bads))
    for name, aucs in found.items():
        print(f"  {name:28}" + "".join(f"{auc:10.3f}" for auc in aucs), flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=6)
    draws = parser.parse_args().draws
    with threadpool_limits(1):
        for strength in STRENGTHS:
            show(strength, measure(strength, draws), BADS)


if __name__ == "__main__":
    main()

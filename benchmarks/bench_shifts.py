"""What adaptation does under shifts whose answer is known: where it helps, does nothing, hurts.

    python benchmarks/bench_shifts.py [--draws 10] [--networks 2] [--json]

Populations are `crossrisk.demo_shifts`'; every draw is a new pair of populations with new networks, and the mean of a
draw's networks is compared, so that intervals (Student's t over draws, paired by draw) hold both kinds of chance. All
methods train one shape of network for a fixed number of steps and keep the last weights: no label chooses a step. None
sees a target label but `fine_tuned`, which has those of LABELLED rows. The discrepancy of the last hidden layer is the
unbiased one of fresh rows, as many as a batch, over BLOCKS batches: as the rows come, and with the source's rows drawn
to the target's bad rate, where a shift of the bad rate alone leaves nothing. The latter is at the no-shift level where
it is below two standard deviations of what permuted rows show in one batch.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.stats import t as student

from crossrisk.demo_shifts import SHIFTS, Shift, ShiftedPopulations, ShiftSizes, draw_shift
from crossrisk.metrics import auc_value
from models.deep.presets import PRESETS
from models.deep.spec import DeepSpec, FineTuning, TrainingSet
from models.deep.trainer import train_ensemble
from models.fitted import Matrix, Network
from models.two_sample import TwoSample, two_sample_test

SIZES = ShiftSizes(source_stop=2_000)
LABELLED = 300
"""target rows whose labels `fine_tuned` may use"""
BATCH = 256
"""rows of each population behind a discrepancy: the presets' batch"""
BLOCKS = 4
PERMUTATIONS = 50
NEGLIGIBLE = 0.005
"""of AUC: a difference no larger is nothing, however sure"""
COLLAPSED = 0.5
"""share of the source-only network's distance between goods and bads below which classes count as pulled together"""

STEPS = 300
SPEC = replace(
    PRESETS["dan"],
    hidden=(32, 16),  # six columns
    dropout=0.0,  # what the loss sees is then what is judged; with 0.2 the discrepancy ends several times higher
    learning_rate=5e-3,
    max_steps=STEPS,
    evaluate_every=STEPS,
    use_target_labels=False,
    fine_tuning=FineTuning(max_steps=STEPS),
)
# Chosen without target labels under the covariate shift of draws 101 and 102: of 1, 5, 10 the first that ends at the
# no-shift level. CORAL (10 to 10,000: it divides by 4 d^2 = 1,024) and DANN (0.3, 1, 3) never end there: the lowest
# discrepancy that costs less than 0.02 of the source's AUC.
MMD_WEIGHTS = {"dan": 5.0, "ddc": 5.0, "deep_coral": 100.0, "dann": 0.3, "dsan": 5.0}
SOURCE_ONLY, EQUAL_ROWS, FINE_TUNED = "source_network", "dan, equal rows", "fine_tuned"


@dataclass(frozen=True)
class Measured:
    """One method on one draw, the mean of its networks."""

    target_auc: float
    """on fresh target rows"""
    source_auc: float
    mmd: float
    """between source and target rows as they come, last hidden layer"""
    mmd_same_mix: float
    """with source rows drawn to the target's bad rate"""
    no_shift_sd: float
    """standard deviation of the latter where rows are permuted"""
    separation: float
    """discrepancy between goods and bads of the source, last hidden layer"""


@dataclass(frozen=True)
class Interval:
    """A mean over draws with its 95% interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:+.3f} ({self.low:+.3f} to {self.high:+.3f})"


@dataclass(frozen=True)
class Row:
    """One method under one shift, over all draws."""

    shift: Shift
    method: str
    best_auc: float
    """that the true probability can expect on the target"""
    target_auc: Interval
    gain: Interval
    """target_auc less the source-only network's, paired by draw"""
    source_auc: float
    mmd: float
    mmd_same_mix: float
    level: float
    """two standard deviations of no shift"""
    separation: float
    """as a share of the source-only network's"""

    @property
    def verdict(self) -> Literal["helps", "nothing", "hurts"]:
        """Of the gain, where its interval leaves out 0 and it is not negligible."""
        if abs(self.gain.mean) < NEGLIGIBLE or self.gain.low <= 0.0 <= self.gain.high:
            return "nothing"
        return "helps" if self.gain.mean > 0.0 else "hurts"

    @property
    def is_at_level(self) -> bool:
        """Whether the discrepancy, at one mix of classes, is what two halves of one population show."""
        return self.mmd_same_mix <= self.level

    @property
    def has_collapsed(self) -> bool:
        """Whether goods and bads of the source lie together."""
        return self.separation < COLLAPSED


def methods() -> dict[str, DeepSpec]:
    """Name -> recipe; all but `fine_tuned` train on source labels and target features."""
    aligned = {name: replace(SPEC, **_own(name), mmd_weight=weight) for name, weight in MMD_WEIGHTS.items()}
    return {
        SOURCE_ONLY: replace(SPEC, **_own(SOURCE_ONLY), mmd_weight=0.0),
        "dan": aligned.pop("dan"),
        EQUAL_ROWS: replace(SPEC, mmd_weight=MMD_WEIGHTS["dan"], row_weights="equal"),
        **aligned,
        FINE_TUNED: replace(SPEC, **_own(FINE_TUNED), mmd_weight=0.0),
    }


def measure_draw(draw: int, networks: int) -> Iterator[tuple[Shift, str, Measured, float]]:
    """Every shift and method on populations and networks of this seed, and the best AUC that the target allows."""
    seeds = [1_000 * (draw + 1) + member for member in range(networks)]
    recipes = methods()
    # the source of a seed is the same whatever the shift, and source-only training looks at nothing else
    alone, _ = train_ensemble(recipes[SOURCE_ONLY], _training_set(draw_shift("none", draw, sizes=SIZES), 0), seeds)
    for shift in SHIFTS:
        populations = draw_shift(shift, draw, sizes=SIZES)
        for name, spec in recipes.items():
            if name == SOURCE_ONLY:
                network = alone
            elif name == FINE_TUNED:
                network, _ = train_ensemble(spec, _training_set(populations, LABELLED), seeds, start=alone)
            else:
                network, _ = train_ensemble(spec, _training_set(populations, 0), seeds)
            yield shift, name, measure(network, populations, draw), populations.target_test.best_auc


def measure(network: Network, populations: ShiftedPopulations, seed: int) -> Measured:
    """The network's members one by one, on rows that trained nothing, and their mean."""
    source, target = populations.source_stop, populations.target_test
    rng = np.random.default_rng(seed)
    members = zip(forward(network, source.x), forward(network, target.x), strict=True)
    found = []
    for (hidden_s, logit_s), (hidden_t, logit_t) in members:
        found.append(
            Measured(
                target_auc=auc_value(target.y, logit_t),
                source_auc=auc_value(source.y, logit_s),
                **discrepancies(hidden_s, source.y, hidden_t, target.bad_rate, rng),
            )
        )
    return Measured(**{name: _mean(found, name) for name in _MEASURES})


def discrepancies(
    hidden_s: Matrix, y_s: NDArray[np.float32], hidden_t: Matrix, bad_rate_t: float, rng: np.random.Generator
) -> dict[str, float]:
    """The discrepancies of `Measured` from hidden activations (n, units) of both populations."""
    as_they_come, same_mix, classes = [], [], []
    for block in range(BLOCKS):
        rows = slice(block * BATCH, (block + 1) * BATCH)
        of_mix = rows_of_mix(y_s, bad_rate_t, BATCH, rng)
        bads, goods = rows_of_mix(y_s, 1.0, BATCH, rng), rows_of_mix(y_s, 0.0, BATCH, rng)
        as_they_come.append(two_sample_test(hidden_s[rows], hidden_t[rows], permutations=1, seed=block))
        same_mix.append(two_sample_test(hidden_s[of_mix], hidden_t[rows], permutations=PERMUTATIONS, seed=block))
        classes.append(two_sample_test(hidden_s[bads], hidden_s[goods], permutations=1, seed=block))
    return {
        "mmd": _mean(as_they_come, "mmd2"),
        "mmd_same_mix": _mean(same_mix, "mmd2"),
        "no_shift_sd": _mean(same_mix, "null_sd"),
        "separation": _mean(classes, "mmd2"),
    }


def rows_of_mix(y: NDArray[np.float32], bad_rate: float, rows: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Row numbers (rows,) of y (n,), without repeats, of which `bad_rate` are bad."""
    bads = round(bad_rate * rows)
    drawn = [rng.choice(np.flatnonzero(y == label), n, replace=False) for label, n in ((1, bads), (0, rows - bads))]
    return np.concatenate(drawn)


def forward(network: Network, x: NDArray[np.float32]) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Last hidden activations (n, units) and logits (n,) of each member; ReLU, as SPEC."""
    for member in range(len(network.weights[0])):
        hidden = x
        for weight, bias in zip(network.weights[:-1], network.biases[:-1], strict=True):
            hidden = np.maximum(hidden @ weight[member] + bias[member], np.float32(0))
        yield hidden, (hidden @ network.weights[-1][member] + network.biases[-1][member])[:, 0]


def interval(values: Sequence[float]) -> Interval:
    """Mean of (draws,) independent values with Student's interval."""
    mean = float(np.mean(values))
    half = float(student.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return Interval(mean, mean - half, mean + half)


def summarise(shift: Shift, method: str, of_draws: Sequence[Measured], alone: Sequence[Measured], best: float) -> Row:
    """One line of the table from a method's draws and those of the source-only network."""
    paired = [one.target_auc - other.target_auc for one, other in zip(of_draws, alone, strict=True)]
    return Row(
        shift=shift,
        method=method,
        best_auc=best,
        target_auc=interval([one.target_auc for one in of_draws]),
        gain=interval(paired),
        source_auc=_mean(of_draws, "source_auc"),
        mmd=_mean(of_draws, "mmd"),
        mmd_same_mix=_mean(of_draws, "mmd_same_mix"),
        level=2.0 * _mean(of_draws, "no_shift_sd"),
        separation=_mean(of_draws, "separation") / _mean(alone, "separation"),
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=10, help="pairs of populations, at least 2")
    parser.add_argument("--first-draw", type=int, default=0)
    parser.add_argument("--networks", type=int, default=2, help="of each method on each draw")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(2)

    measured: dict[tuple[Shift, str], list[Measured]] = {}
    best: dict[Shift, list[float]] = {}
    draws = range(options.first_draw, options.first_draw + options.draws)
    steps = (one for draw in draws for one in measure_draw(draw, options.networks))
    total = len(draws) * len(SHIFTS) * len(methods())
    for shift, method, one, best_auc in track(steps, "trainings", total=total, console=Console(stderr=True)):
        measured.setdefault((shift, method), []).append(one)
        best.setdefault(shift, []).append(best_auc)
    rows = [
        summarise(shift, method, of_draws, measured[shift, SOURCE_ONLY], float(np.mean(best[shift])))
        for (shift, method), of_draws in measured.items()
    ]
    if options.json:
        print(json.dumps({"draws": options.draws, "networks": options.networks, "rows": [_plain(row) for row in rows]}))
        return
    out = Console(width=150, highlight=False)
    for shift in SHIFTS:
        out.print(_table(shift, [row for row in rows if row.shift == shift]))


def _table(shift: Shift, rows: Sequence[Row]) -> Table:
    best, level = rows[0].best_auc, rows[0].level
    table = Table(
        title=f"{shift} shift: best AUC {best:.3f}; without a shift MMD² stays below {level:.4f}",
        caption="gain over source_network; class distance: of the source's goods and bads, as a share of its own",
    )
    for heading in (
        "method",
        "target AUC",
        "gain (95%)",
        "verdict",
        "source AUC",
        "MMD²",
        "at one bad rate",
        "no shift",
    ):
        table.add_column(heading, justify="left" if heading in ("method", "verdict") else "right", no_wrap=True)
    for heading in ("class distance", "classes"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        is_base = row.method == SOURCE_ONLY
        table.add_row(
            row.method,
            f"{row.target_auc.mean:.3f}",
            "" if is_base else str(row.gain),
            "" if is_base else row.verdict,
            f"{row.source_auc:.3f}",
            f"{row.mmd:.4f}",
            f"{row.mmd_same_mix:.4f}",
            "yes" if row.is_at_level else "no",
            f"{row.separation:.2f}",
            "collapsed" if row.has_collapsed else "kept",
        )
    return table


def _training_set(populations: ShiftedPopulations, labelled: int) -> TrainingSet:
    """The rows as a trainer meets them: target labels but the first `labelled` are unknown."""
    target, stop = populations.target_fit, populations.source_stop
    y_t = np.where(np.arange(len(target.y)) < labelled, target.y, np.float32(np.nan))
    source = populations.source_fit
    return TrainingSet(source.x, source.y, target.x, y_t, stop.x, stop.y, target_prior=target.bad_rate)


def _own(method: str) -> Mapping[str, Any]:
    """What makes the preset this method, beside the shape and length that all share here."""
    preset = PRESETS[method]
    return {name: getattr(preset, name) for name in ("method", "schedule", "kernels")}


_MEASURES = tuple(field.name for field in fields(Measured))


def _mean(found: Sequence[Measured | TwoSample], name: str) -> float:
    return float(np.mean([getattr(one, name) for one in found]))


def _plain(row: Row) -> dict[str, Any]:
    return {**asdict(row), "verdict": row.verdict, "is_at_level": row.is_at_level, "has_collapsed": row.has_collapsed}


if __name__ == "__main__":
    sys.exit(main())

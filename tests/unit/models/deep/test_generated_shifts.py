"""What adaptation must do, must not do and cannot do, on shifts whose answer is known (docs/method.md).

Every training keeps its last weights, so that no label chooses a step, and none sees a target label unless its test
says so. Differences are means over the networks of one program; margins are about half of what
`benchmarks/bench_shifts.py` measures over its draws.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from crossrisk.demo_shifts import Shift, ShiftedPopulations, ShiftSizes, draw_shift
from crossrisk.metrics import auc_value
from models.deep.presets import PRESETS
from models.deep.spec import DeepSpec, FineTuning, TrainingSet
from models.deep.steps import choose_weight
from models.deep.trainer import train_ensemble
from models.fitted import Matrix, Network
from models.two_sample import two_sample_test

pytestmark = pytest.mark.flow  # some thirty networks to their end: most of a minute

DRAW, SEEDS = 11, (0, 1, 2)
STEPS = 300
DAN = replace(
    PRESETS["dan"],
    hidden=(32, 16),
    dropout=0.0,
    learning_rate=5e-3,
    max_steps=STEPS,
    evaluate_every=STEPS,
    mmd_weight=5.0,
    use_target_labels=False,
)
ALONE = replace(DAN, method="source_only", mmd_weight=0.0)
EQUAL_ROWS = replace(DAN, row_weights="equal")
FINE_TUNED = replace(ALONE, method="fine_tuned", fine_tuning=FineTuning(max_steps=STEPS))
LABELLED = 300
"""target rows with a label, where a training has any"""
ROWS = 256
"""of each sample behind a discrepancy: as many as a batch; the mean over BLOCKS of them"""
BLOCKS = 4


@dataclass(frozen=True)
class Outcome:
    """Means over the networks of one training."""

    target_auc: float
    source_auc: float
    mmd: float
    """last hidden layer, fresh rows of source and target"""
    no_shift_sd: float
    """of one batch, where rows are permuted"""
    separation: float
    """discrepancy between goods and bads of the source, last hidden layer"""
    logit_gap: float
    """mean logit of the source's bads less that of its goods"""


@cache
def populations(shift: Shift) -> ShiftedPopulations:
    return draw_shift(shift, DRAW, sizes=ShiftSizes(source_stop=2_000))


def training_set(drawn: ShiftedPopulations, labelled: int = 0) -> TrainingSet:
    target, stop = drawn.target_fit, drawn.source_stop
    y_t = np.where(np.arange(len(target.y)) < labelled, target.y, np.float32(np.nan))
    prior = target.bad_rate
    return TrainingSet(drawn.source_fit.x, drawn.source_fit.y, target.x, y_t, stop.x, stop.y, target_prior=prior)


@cache
def network(shift: Shift, spec: DeepSpec) -> Network:
    return train_ensemble(spec, training_set(populations(shift)), SEEDS)[0]


def alone() -> Network:
    """The source of a draw is the same whatever the shift, and this one looks at nothing else."""
    return network("none", ALONE)


def outcome(shift: Shift, trained: Network) -> Outcome:
    drawn = populations(shift)
    source, target = drawn.source_stop, drawn.target_test
    bad = source.y == 1
    found = []
    for (hidden_s, logit_s), (hidden_t, logit_t) in zip(
        members(trained, source.x), members(trained, target.x), strict=True
    ):
        mmd, no_shift_sd = discrepancy(hidden_s, hidden_t, blocks=BLOCKS, permutations=50)
        separation, _ = discrepancy(hidden_s[bad], hidden_s[~bad], blocks=1, permutations=1)
        aucs = auc_value(target.y, logit_t), auc_value(source.y, logit_s)
        gap = float(logit_s[bad].mean() - logit_s[~bad].mean())
        found.append((*aucs, mmd, no_shift_sd, separation, gap))
    return Outcome(*np.mean(found, axis=0).tolist())


def discrepancy(first: Matrix, second: Matrix, *, blocks: int, permutations: int) -> tuple[float, float]:
    """Mean over blocks of ROWS of the unbiased MK-MMD, and the mean standard deviation of one without a shift."""
    cuts = [slice(block * ROWS, (block + 1) * ROWS) for block in range(blocks)]
    tests = [two_sample_test(first[cut], second[cut], permutations=permutations, seed=0) for cut in cuts]
    return float(np.mean([one.mmd2 for one in tests])), float(np.mean([one.null_sd for one in tests]))


def members(trained: Network, x: NDArray[np.float32]) -> list[tuple[Any, Any]]:
    """Last hidden activations and logits of each member."""
    hidden = np.broadcast_to(x, (len(SEEDS), *x.shape))
    layers = [(w, b[:, None, :]) for w, b in zip(trained.weights, trained.biases, strict=True)]
    for weight, bias in layers[:-1]:
        hidden = np.maximum(hidden @ weight + bias, 0)
    weight, bias = layers[-1]
    return list(zip(hidden, (hidden @ weight + bias)[..., 0], strict=True))


@cache
def measured(shift: Shift, spec: DeepSpec) -> Outcome:
    return outcome(shift, alone() if spec is ALONE else network(shift, spec))


# --- covariate: alignment helps ---


def test_covariate_shift_is_seen_by_the_source_network_and_gone_from_dans_features() -> None:
    before, after = measured("covariate", ALONE), measured("covariate", DAN)
    assert before.mmd > 100 * before.no_shift_sd
    assert after.mmd < 2 * after.no_shift_sd


def test_dan_gains_under_covariate_shift_and_stays_below_the_best_attainable() -> None:
    before, after = measured("covariate", ALONE), measured("covariate", DAN)
    best = populations("covariate").target_test.best_auc
    assert before.target_auc + 0.02 < after.target_auc < best + 0.01


def test_what_dan_gains_under_covariate_shift_costs_the_source_little() -> None:
    assert measured("covariate", DAN).source_auc > measured("covariate", ALONE).source_auc - 0.03


# --- label: weights of rows keep the classes apart ---


def test_under_label_shift_dan_with_row_weights_keeps_the_classes_apart() -> None:
    before, after = measured("label", ALONE), measured("label", DAN)
    assert after.separation > 0.8 * before.separation
    assert after.logit_gap > 0.8 * before.logit_gap
    assert after.source_auc > before.source_auc - 0.01
    assert after.target_auc > before.target_auc - 0.01


def test_under_label_shift_dan_without_row_weights_pulls_the_classes_together() -> None:
    weighted, equal = measured("label", DAN), measured("label", EQUAL_ROWS)
    assert equal.separation < 0.3 * weighted.separation
    assert equal.logit_gap < weighted.logit_gap
    assert equal.target_auc < weighted.target_auc - 0.004


def test_without_row_weights_dan_removes_a_discrepancy_that_is_only_a_bad_rate() -> None:
    before, weighted, equal = (measured("label", spec) for spec in (ALONE, DAN, EQUAL_ROWS))
    assert before.mmd > 5 * before.no_shift_sd
    assert weighted.mmd > before.mmd  # of rows as they come: two bad rates, and classes further apart
    assert equal.mmd < before.mmd / 3


# --- concept: features cannot tell ---


def test_under_concept_shift_alignment_without_labels_gains_nothing() -> None:
    before, after = measured("concept", ALONE), measured("concept", DAN)
    assert before.mmd < 2 * before.no_shift_sd  # nothing to align
    assert after.target_auc == pytest.approx(before.target_auc, abs=0.02)
    assert after.target_auc < 0.5 < populations("concept").target_test.best_auc - 0.3


def test_under_concept_shift_a_few_target_labels_turn_the_network_round() -> None:
    start = alone()
    tuned, _ = train_ensemble(FINE_TUNED, training_set(populations("concept"), LABELLED), SEEDS, start=start)
    after = outcome("concept", tuned)
    assert after.target_auc > measured("concept", ALONE).target_auc + 0.3
    assert after.target_auc > populations("concept").target_test.best_auc - 0.08


# --- never harms ---


def test_without_a_shift_dan_neither_gains_nor_loses() -> None:
    before, after = measured("none", ALONE), measured("none", DAN)
    assert after.target_auc == pytest.approx(before.target_auc, abs=0.01)
    assert after.separation > 0.8 * before.separation


@pytest.mark.parametrize(("shift", "spec", "chosen_weight"), [("covariate", DAN, 5.0), ("label", EQUAL_ROWS, 0.0)])
def test_grid_takes_alignment_where_it_helps_and_weight_zero_where_it_hurts(
    shift: Shift, spec: DeepSpec, chosen_weight: float
) -> None:
    select = populations(shift).target_fit
    grid = {0.0: alone(), spec.mmd_weight: network(shift, spec)}
    place = choose_weight([trained.raw_logit(select.x) for trained in grid.values()], select.y)
    assert list(grid)[place] == chosen_weight

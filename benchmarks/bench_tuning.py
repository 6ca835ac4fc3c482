"""What fine-tuning gains by its number of steps, on the credit splits, and who would stop it where.

    python benchmarks/bench_tuning.py [--draws 3] [--splits NAME ...]

For every split and draw: AUC on the rows that judge, of the source's network and after so many steps of the second
stage, ensembles of three seeds; then the steps of which a member's weights are kept where the held-out source rows stop
it, and where target_select does. Not a choice: the rows that judge are read at every step.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported: the table stays readable

import numpy as np
from credit_splits import SPLITS, Split, draw_parts, read_split
from split_fits import Encoded, encode, set_up_tensorflow

from crossrisk.metrics import auc_value
from models.deep.presets import PRESETS
from models.deep.spec import DeepSpec, TrainingSet
from models.deep.trainer import train_ensemble
from tasks.split import SOURCE_STOP, TARGET_SELECT, TARGET_TEST

SPEC, SOURCE = (replace(PRESETS[name], logs_no_shift_band=False) for name in ("fine_tuned", "source_network"))
STEPS = (20, 40, 80, 140, 200, 300, 400)
MEMBERS = 3
NEVER = 1_000_000


def after(steps: int) -> DeepSpec:
    """The recipe that keeps the weights after so many steps, whatever the stop rows say."""
    short = replace(SPEC.fine_tuning, max_steps=steps)
    return replace(SPEC, fine_tuning=short, evaluate_every=steps, patience=NEVER)


def measure(split: Split, draw: int) -> tuple[list[float], dict[str, list[int]]]:
    """AUC of the source's network and after each of STEPS; stopping rows -> the steps that each member keeps."""
    rows = read_split(split)
    encoded = encode(rows, draw_parts(rows, split.target_bads, draw))
    seeds = range(1_000 * draw, 1_000 * draw + MEMBERS)
    training_set = encoded.training_set
    start, _ = train_ensemble(SOURCE, training_set.at_home, seeds)
    is_test = encoded.drawn.of(TARGET_TEST)
    networks = [start, *(train_ensemble(after(steps), training_set, seeds, start=start)[0] for steps in STEPS)]
    aucs = [auc_value(rows.label[is_test], one.raw_logit(encoded.x[is_test])) for one in networks]
    kept = {}
    for part in (SOURCE_STOP, TARGET_SELECT):
        _, trained = train_ensemble(SPEC, stopped_by(encoded, part), seeds, start=start)
        kept[part] = [one.best_step for one in trained]
    return aucs, kept


def stopped_by(encoded: Encoded, part: str) -> TrainingSet:
    """The training set with the rows of the part as stop rows."""
    x, y = encoded.labelled(part)
    return replace(encoded.training_set, x_stop=x, y_stop=y.astype(np.float32))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [split.name for split in SPLITS]
    parser.add_argument("--splits", nargs="+", choices=names, default=names, metavar="NAME")
    parser.add_argument("--draws", type=int, default=3)
    options = parser.parse_args()
    set_up_tensorflow()
    print(f"{'split':22}{'draw':>5}{'source':>8}" + "".join(f"{steps:>7}" for steps in STEPS) + "   kept")
    for split in (one for one in SPLITS if one.name in options.splits):
        for draw in range(options.draws):
            aucs, kept = measure(split, draw)
            said = "; ".join(f"{part} {', '.join(map(str, steps))}" for part, steps in kept.items())
            print(
                f"{split.name:22}{draw:5}{aucs[0]:8.3f}" + "".join(f"{auc:7.3f}" for auc in aucs[1:]) + f"   {said}",
                flush=True,
            )


if __name__ == "__main__":
    main()

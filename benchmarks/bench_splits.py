"""Every contender on the seven credit splits, ten draws of the target's labels: where does borrowing help, and hurt?

    CROSSRISK_DATA=... python benchmarks/bench_splits.py [--splits NAME ...] [--draws 10] [--networks 10]

Hours. One draw of one split is a unit of work: its predictions (Parquet) and facts (JSON) appear under work/splits/
whole or not at all, and a rerun with the same settings takes up where an earlier one ended. Units go draw by draw over
all splits, so that `--table-only` always has a table to show, of the draws there are. A unit that fails is said at the
end, and does not end the others. How the intervals are found: `split_table`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import polars as pl
from credit_splits import SPLITS, Split, as_reference
from split_lineup import PREFERRED, Settings, default_contenders
from split_plot import draw_differences
from split_table import Judged, judge
from split_text import Choices, say_all

from crossrisk.errors import CrossriskError
from crossrisk.quiet import make_quiet
from crossrisk.store import code_digest, library_versions, whole_file, write_json

DIFFERENCES = "differences.svg"


@dataclass(frozen=True)
class Unit:
    """One draw of one split, and where it is kept."""

    split: Split
    draw: int
    folder: Path

    @property
    def predictions(self) -> Path:
        """id, label and a column of probabilities a contender."""
        return self.folder / self.split.name / f"draw_{self.draw:02}.parquet"

    @property
    def facts(self) -> Path:
        """Written last: with it the unit is done."""
        return self.predictions.with_suffix(".json")

    def read_facts(self, settings: Settings) -> dict[str, Any] | None:
        """None where the unit is not done, or was done under other settings."""
        if not self.facts.is_file():
            return None
        facts: dict[str, Any] = json.loads(self.facts.read_text(encoding="utf-8"))
        return facts if facts["settings"] == settings.digest else None


def say(text: str) -> None:
    """Progress, with the time of day."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def run_unit(unit: Unit, settings: Settings) -> None:
    """Fit and keep one draw; in a process of its own, for TensorFlow's memory ends with nothing less."""
    from split_draw import run_draw
    from split_fits import set_up_tensorflow

    set_up_tensorflow()
    title = f"{unit.split.name}, draw {unit.draw}"
    predictions, facts = run_draw(unit.split, unit.draw, settings, lambda text: say(f"{title}: {text}"))
    unit.facts.unlink(missing_ok=True)  # of other settings: it must not stand beside these predictions
    with whole_file(unit.predictions) as temporary:
        predictions.write_parquet(temporary, compression="zstd")
    write_json(unit.facts, {**facts, "code": code_digest(), "libraries": library_versions()})


def run_all(units: Sequence[Unit], settings: Settings) -> list[str]:
    """Run what is not done, one unit after the other; what failed, in words."""
    missing = [unit for unit in units if unit.read_facts(settings) is None]
    say(f"{len(units) - len(missing)} of {len(units)} units are done")
    failures = []
    for position, unit in enumerate(missing):
        say(f"{unit.split.name}, draw {unit.draw}: {time_left(missing[position:], units, settings)}")
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            try:
                process.submit(run_unit, unit, settings).result()
            except Exception as error:  # whatever ended one child, hours of others need not be lost
                failures.append(f"{unit.split.name}, draw {unit.draw}: {type(error).__name__}: {error}")
                say(failures[-1])
    return failures


def time_left(missing: Sequence[Unit], units: Sequence[Unit], settings: Settings) -> str:
    """From what done units of the same split took; of all splits where there is none yet."""
    by_split: dict[str, list[float]] = {}
    for unit in units:
        if facts := unit.read_facts(settings):
            by_split.setdefault(unit.split.name, []).append(facts["seconds"]["all"])
    if not by_split:
        return f"{len(missing)} units left"
    typical = {name: mean(seconds) for name, seconds in by_split.items()}
    seconds = sum(typical.get(unit.split.name, mean(typical.values())) for unit in missing)
    return f"{len(missing)} units left, about {seconds / 60:.0f} minutes"


def read_results(units: Sequence[Unit], settings: Settings) -> Iterator[tuple[Judged, Choices]]:
    """Every split with a draw, judged on the draws that are done."""
    for split in {unit.split.name: unit.split for unit in units}.values():
        done = [(unit, facts) for unit in units if unit.split is split and (facts := unit.read_facts(settings))]
        if not done:
            continue
        frames = [pl.read_parquet(unit.predictions) for unit, _ in done]
        ids, names = frames[0]["id"], [name for name in frames[0].columns if name not in ("id", "label")]
        for (unit, _), frame in zip(done, frames, strict=True):
            if not frame["id"].equals(ids):
                raise RuntimeError(
                    f"{unit.predictions} was judged on other rows than draw {done[0][0].draw}; remove it"
                )
        chosen = {key: [facts["chosen"][key] for _, facts in done] for key in done[0][1]["chosen"]}
        weights = {
            f"mmd_weight of {name}": [f"{facts['weights'][name]:g}" for _, facts in done]
            for name in done[0][1]["weights"]
        }
        drivers = {"difference of risk drivers": [str(facts["risk_drivers"]) for _, facts in done]}
        scores = {name: np.stack([frame[name].to_numpy() for frame in frames]) for name in names}
        yield judge(split, frames[0]["label"].to_numpy(), scores, chosen), chosen | weights | drivers


def show(units: Sequence[Unit], settings: Settings, folder: Path) -> None:
    """Print tables, verdicts and targets, and draw the differences."""
    found = list(read_results(units, settings))
    if not found:
        print("no draw is done under these settings; run without --table-only")
        return
    splits = [judged for judged, _ in found]
    print(say_all(splits, {judged.split.name: choices for judged, choices in found}))
    with whole_file(folder / DIFFERENCES) as temporary:
        draw_differences(splits, temporary, DIFFERENCES.rpartition(".")[2])


def main() -> int:
    """Run what is missing, then the table. 1 where a unit failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [split.name for split in SPLITS]
    parser.add_argument("--splits", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--draws", type=int, default=10, help="of the target's labelled rows, seeds 0, 1, ...")
    parser.add_argument("--networks", type=int, default=10, help="seeds of an ensemble")
    lineup = default_contenders()
    parser.add_argument(
        "--contenders", nargs="+", choices=lineup, default=lineup, metavar="NAME", help=", ".join(lineup)
    )
    parser.add_argument(
        "--as-reference", action="store_true", help="protected columns as features, codes for missing as numbers"
    )
    parser.add_argument("--max-steps", type=int, help="of a network, in the place of its preset's; to try things out")
    parser.add_argument("--work", type=Path, default=Path("work/splits"))
    parser.add_argument("--table-only", action="store_true", help="fit nothing; the table of what is there")
    options = parser.parse_args()
    make_quiet(os.environ)
    settings = Settings(
        tuple(name for name in PREFERRED if name in options.contenders), options.networks, options.max_steps
    )
    splits = [
        as_reference(split) if options.as_reference else split for split in SPLITS if split.name in options.splits
    ]
    units = [Unit(split, draw, options.work) for draw in range(options.draws) for split in splits]
    try:
        failures = [] if options.table_only else run_all(units, settings)
        show(units, settings, options.work)
    except CrossriskError as error:
        parser.exit(error.exit_code, f"{error}\n")
    print("\n".join(failures), file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

"""Row 22: the same seed and inputs again, the rows in another order, another number of threads.

Four whole retrains up to the comparison, each in a process of its own, two at a time. The same twice is the same to the
last bit. Otherwise sums are added up in another order: parts and ids stay, probabilities and metrics move by less than
TOLERANCE.
"""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

from crossrisk.store import read_json
from tasks.calibrate import PREDICTIONS
from tasks.split import ASSIGNMENT

pytestmark = [pytest.mark.fault(22), pytest.mark.heavy]

TOLERANCE = 1e-6
"""of probabilities, AUC, KS, Brier and log loss: a hundredth of the last digit that a report shows"""
THREADS = ("POLARS_MAX_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
WALKS = {"plain": (0, 2), "again": (0, 2), "shuffled": (7, 2), "one thread": (0, 1)}
"""seed of the rows' order, number of threads"""


@dataclass(frozen=True)
class Seen:
    """What a walk came to."""

    parts: pl.DataFrame
    predictions: pl.DataFrame
    compared: dict


def walk(folder: Path, seed: int, threads: int) -> Seen:
    folder.mkdir()
    environ = {**os.environ, **dict.fromkeys(THREADS, str(threads))}
    command = [sys.executable, str(Path(__file__).with_name("walk_once.py")), str(folder), str(seed)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    folders = {name: Path(path) for name, path in json.loads(done.stdout.splitlines()[-1]).items()}
    return Seen(
        parts=pl.read_parquet(folders["split"] / ASSIGNMENT).sort("id"),
        predictions=pl.read_parquet(folders["calibrated"] / PREDICTIONS).sort("id"),
        compared=read_json(folders["compared"] / "stage.json")["facts"],
    )


@pytest.fixture(scope="module")
def seen(tmp_path_factory) -> dict[str, Seen]:
    root = tmp_path_factory.mktemp("walks")
    with ThreadPoolExecutor(2) as pool:
        walks = pool.map(lambda name: walk(root / name.replace(" ", "_"), *WALKS[name]), WALKS)
        return dict(zip(WALKS, walks, strict=True))


OTHERS = [name for name in WALKS if name != "plain"]


def test_the_same_twice_is_the_same_to_the_last_bit(seen):
    assert seen["again"].predictions.equals(seen["plain"].predictions)
    assert seen["again"].compared == seen["plain"].compared


@pytest.mark.parametrize("name", OTHERS)
def test_every_id_keeps_its_part(seen, name):
    columns = ["id", "part", "label", "label_used"]
    assert seen[name].parts.select(columns).equals(seen["plain"].parts.select(columns))


@pytest.mark.parametrize("name", OTHERS)
def test_probabilities_stay_within_the_tolerance(seen, name):
    ours, theirs = seen["plain"].predictions, seen[name].predictions
    assert theirs["id"].equals(ours["id"])
    numbers = [column for column, kind in ours.schema.items() if kind.is_float()]
    assert len(numbers) == 4
    furthest = {column: float((ours[column] - theirs[column]).abs().max()) for column in numbers}
    assert max(furthest.values()) < TOLERANCE, furthest


@pytest.mark.parametrize("name", OTHERS)
def test_metrics_stay_within_the_tolerance_and_the_challenger_is_the_same(seen, name):
    ours, theirs = seen["plain"].compared, seen[name].compared
    assert theirs["challenger"] == ours["challenger"]
    assert theirs["judged_ids"] == ours["judged_ids"]
    for contender, metrics in ours["metrics"].items():
        for key in ("auc", "ks", "brier", "log_loss", "observed_expected"):
            found = theirs["metrics"][contender][key]["value"]
            assert found == pytest.approx(metrics[key]["value"], abs=TOLERANCE), (contender, key)

"""Publishers at once, and a poller like TF Serving's that looks every millisecond while they publish.

The quick test publishes files that look like a model; the heavy one real SavedModels, each loaded and asked before its
rename: in the publisher's own process, where TensorFlow is warm, and for twenty of them in a child, as a run does it.
"""

from __future__ import annotations

import multiprocessing
import shutil
import time
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from registries import publish
from serving_poller import Watch, watching
from serving_server import read_models

from crossrisk.registry import Registry, locked, publish_version, staging_folder
from crossrisk.registry.audit import check_registry
from crossrisk.registry.serving import config_path
from crossrisk.store import read_json

PUBLISHERS, ROUNDS = 8, 50
THOROUGH, EVERY = 2, 5
"""Two publishers verify every fifth of theirs in a child: 20 of 400, each seven seconds of a core under the lock."""
QUICK_PUBLISHERS, QUICK_ROUNDS = 3, 5
LONGEST_ROUND_S = 300.0
"""A publisher that dies ends the others too."""
ROWS = 8
GOLDEN = "golden.parquet"
"""as `tasks.publish` calls it, which imports Prefect: only publishers that are thorough need it"""


def run_publishers(publisher: Callable[[Path, int, int, Barrier], None], root: Path, count: int, rounds: int) -> Watch:
    """Let processes publish at once, round by round, and say what the poller saw meanwhile."""
    context = multiprocessing.get_context("spawn")  # forked, the thread pools of TensorFlow and Polars would be dead
    together = context.Barrier(count, timeout=LONGEST_ROUND_S)
    with watching(root) as watch:
        workers = [context.Process(target=publisher, args=(root, place, rounds, together)) for place in range(count)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert [worker.exitcode for worker in workers] == [0] * count
    return watch


def assert_one_history(registry: Registry, publishers: int, rounds: int) -> None:
    """Numbers rise in the order of the ledger, every manifest holds, and all that names a champion names one."""
    records, count = registry.records(), publishers * rounds  # the chain holds
    numbers = [record["version"] for record in records]
    assert len(numbers) == count
    assert numbers == sorted(set(numbers)) == registry.versions()
    of_rounds = [{record["place"] for record in records[n : n + publishers]} for n in range(0, count, publishers)]
    assert of_rounds == [set(range(publishers))] * rounds  # in each round everybody wanted the lock, and got it
    for number in numbers:
        registry.version(number)
    assert read_json(registry.pointer) == {
        "schema_version": 2,
        "version": numbers[-1],
        "path": f"models/{numbers[-1]}",
        "ledger": {"lines": count, "digest": records[-1]["digest"]},
    }
    assert registry.champion().version == numbers[-1]
    (model,) = read_models(config_path(registry)).values()
    assert [label.value for label in model.version_labels] == [numbers[-1]]
    assert [finding.said for finding in check_registry(registry) if not finding.holds] == []
    assert not registry.intent.exists()
    assert not (registry.root / "staging").exists()


def assert_only_whole_versions_were_seen(watch: Watch, registry: Registry) -> None:
    assert watch.failures == []
    assert sorted(watch.sightings) == registry.versions()
    assert watch.polls > len(watch.sightings)


# --- files that look like a model ---


def publish_files(root: Path, place: int, rounds: int, together: Barrier) -> None:
    for turn in range(rounds):
        together.wait()
        publish(Registry(root), time.time(), f"{place}-{turn}", record={"place": place})


@pytest.mark.fault(3)
@pytest.mark.fault(4)
def test_a_few_publishers_at_once_make_one_history_of_whole_versions(tmp_path):
    registry = Registry(tmp_path / "cards")
    watch = run_publishers(publish_files, registry.root, QUICK_PUBLISHERS, QUICK_ROUNDS)
    assert_one_history(registry, QUICK_PUBLISHERS, QUICK_ROUNDS)
    assert_only_whole_versions_were_seen(watch, registry)


# --- SavedModels ---


def export_tiny(folder: Path, weight: float) -> None:
    """A SavedModel with our signature: one raw column in, a logistic curve of it out."""
    import tensorflow as tf

    class Tiny(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = tf.Variable(weight, dtype=tf.float64)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float64, name="income")])
        def serve(self, income: tf.Tensor) -> dict[str, tf.Tensor]:
            logit = self.weight * income
            return {"probability": tf.sigmoid(logit), "score": 600.0 - 20.0 * logit}

    module = Tiny()
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serve.get_concrete_function()})


def publish_models(root: Path, place: int, rounds: int, together: Barrier) -> None:
    """Publish one model again and again, with a golden batch of what it must answer."""
    import numpy as np
    import polars as pl

    from models import verification

    made = root.parent / f"model-{place}"
    weight = 0.1 * (place + 1)
    export_tiny(made, weight)
    income = np.linspace(-3.0, 3.0, ROWS)
    expected = 1 / (1 + np.exp(-weight * income))
    golden = pl.DataFrame({"income": income, "probability": expected})
    batch = {"income": income}

    def verify(folder: Path) -> None:
        if is_full:
            from tasks.publish import verify_bundle

            verify_bundle(folder)
        verification.verify(folder / "model", batch, expected)

    registry = Registry(root)
    for turn in range(rounds):
        run_id, is_full = f"{place}-{turn}", place < THOROUGH and turn % EVERY == 0
        together.wait()
        with locked(registry), staging_folder(registry) as folder:
            shutil.copytree(made, folder / "model")
            (folder / "companions").mkdir()
            golden.write_parquet(folder / "companions" / GOLDEN)
            said = {"decision": {"verdict": "promote"}, "place": place, "full": is_full}
            record = {"kind": "decision", "run_id": run_id, **said}
            publish_version(registry, folder, {"identity": run_id}, record, now=time.time(), verify=verify)


@pytest.mark.fault(3)
@pytest.mark.fault(4)
@pytest.mark.heavy
def test_eight_publishers_of_models_at_once_make_one_history_of_whole_versions(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    registry = Registry(tmp_path / "cards")
    watch = run_publishers(publish_models, registry.root, PUBLISHERS, ROUNDS)
    assert_one_history(registry, PUBLISHERS, ROUNDS)
    assert_only_whole_versions_were_seen(watch, registry)
    assert sum(record["full"] for record in registry.records()) == THOROUGH * ROUNDS // EVERY

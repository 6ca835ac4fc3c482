"""Row 19: the process that trains diverges, runs out of memory or is killed. The step fails with the cause in words.

The parent is this process: that a test goes on is the proof that it lives. TensorFlow starts in the heavy tests.
"""

import os
import re
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import psutil
import pytest
from builders import FLOW_TOML, loans_with_noise, portfolio
from steps import Walk

import tasks.train_network
from crossrisk.errors import TrainingError
from crossrisk.store import Stage
from models.child import run_worker
from tasks.features import ENCODED
from tasks.train_network import train_network

pytestmark = pytest.mark.fault(19)

Spec = dict[str, Any]
SMALL = ("lineup.contenders=['source_logistic', 'dan']", "lineup.dan.mmd_weights=[0.0]")
LIMITED_WORKER = """
import resource
from models import deep_worker
from models.child import serve

def handle(spec, emit):
    with open("/proc/self/statm") as statm:
        used = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + SPARE, used + SPARE))
    return deep_worker.handle(spec, emit)

serve(handle)
"""
"""The real worker, whose address space may grow by SPARE bytes once everything is imported."""


class Training:
    """A portfolio that is ready to train, beside a registry that nobody may touch."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.patch = patch
        self.walk = Walk(portfolio(folder, loans_with_noise(), toml=FLOW_TOML, overrides=SMALL)).encode()
        self.folders = self.walk.loaded.folders
        champion = self.folders.registry / "models" / "1700000000" / "saved_model.pb"
        champion.parent.mkdir(parents=True)
        champion.write_bytes(b"the champion")
        self.before = self.registry()

    def registry(self) -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in self.folders.registry.rglob("*") if path.is_file()}

    def train(self) -> Stage:
        return train_network.fn(self.walk.loaded, "dan", self.walk["encoded"], self.walk["plan"])

    def with_spec(self, change: Callable[[Spec], Spec], module: str = "models.deep_worker") -> None:
        """The child is given another spec, or is another module."""

        def run(_: str, spec: Mapping[str, Any], **options: Any) -> Spec:
            return run_worker(module, change(dict(spec)), **options)

        self.patch.setattr(tasks.train_network, "run_worker", run)

    def fails(self) -> str:
        """The message with which training fails; nothing else has happened."""
        with pytest.raises(TrainingError) as failed:
            self.train()
        assert [child for child in psutil.Process().children() if "worker" in " ".join(child.cmdline())] == []
        assert list((self.folders.stages / "train-dan").iterdir()) == []
        assert self.registry() == self.before
        return str(failed.value)


@pytest.fixture
def training(tmp_path, monkeypatch) -> Training:
    return Training(tmp_path, monkeypatch)


def with_overrides(**overrides: Any) -> Callable[[Spec], Spec]:
    return lambda spec: {**spec, "overrides": {**spec["overrides"], **overrides}}


@pytest.mark.heavy
def test_a_loss_that_is_no_number_ends_the_training_with_its_step(training, tmp_path):
    poisoned = tmp_path / "poisoned.parquet"
    rows = pl.read_parquet(training.walk["encoded"].folder / ENCODED)
    feature = next(name for name, kind in rows.schema.items() if kind == pl.Float32)
    rows.with_columns(pl.lit(float("nan"), pl.Float32).alias(feature)).write_parquet(poisoned)
    training.with_spec(lambda spec: {**spec, "matrix": str(poisoned)})
    assert "finite" in training.fails()


@pytest.mark.heavy
def test_a_divergence_says_what_diverged_and_what_to_lower(training):
    training.with_spec(with_overrides(learning_rate=1e30))
    said = training.fails()
    assert "finite" in said
    assert "learning_rate" in said


OUT_OF_MEMORY = r"OOM when allocating tensor|was ended by SIGABRT \(a native library gave up, mostly for lack of memory"
"""TensorFlow says so; polars, which reads the matrix, aborts. Who asks for too much first depends on the limit."""


@pytest.mark.heavy
@pytest.mark.parametrize("gib", [0.5, 2.0])
def test_a_child_out_of_memory_fails_the_step_and_not_the_parent(training, tmp_path, gib):
    (tmp_path / "limited_worker.py").write_text(LIMITED_WORKER.replace("SPARE", str(int(gib * 2**30))))
    training.patch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    training.with_spec(with_overrides(hidden=[20_000, 20_000]), module="limited_worker")  # 1.6 GB of weights
    assert re.search(OUT_OF_MEMORY, training.fails())


@pytest.mark.heavy
def test_a_child_killed_in_the_middle_is_named_with_its_signal_and_the_next_training_is_whole(training):
    killed = []

    @contextmanager
    def killing(_: str) -> Iterator[Callable[..., None]]:
        def on_progress(*_: Any) -> None:
            (child,) = [one for one in psutil.Process().children() if "models.deep_worker" in one.cmdline()]
            child.send_signal(signal.SIGKILL)
            killed.append(child.pid)

        yield on_progress

    with training.patch.context() as patch:
        patch.setattr(tasks.train_network, "progress", killing)
        said = training.fails()
    assert killed
    assert "models.deep_worker was ended by SIGKILL (usually the kernel, out of memory" in said
    made = training.train()
    assert (made.reused, made.facts["fitted"]) == (False, True)


ABORTING_WORKER = """
import os, sys
from models.child import serve

def deeper(depth):
    deeper(depth - 1) if depth else os.abort()

def handle(spec, emit):
    print("memory allocation of 4096 bytes failed", file=sys.stderr, flush=True)
    deeper(60)

serve(handle)
"""


def test_what_a_library_said_before_it_gave_up_is_shown_above_the_end_of_a_long_stack(tmp_path, monkeypatch):
    (tmp_path / "aborting_worker.py").write_text(ABORTING_WORKER)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    with pytest.raises(TrainingError) as failed:
        run_worker("aborting_worker", {}, workdir=tmp_path)
    said = str(failed.value)
    assert "aborting_worker was ended by SIGABRT (a native library gave up" in said
    assert said.index("memory allocation of 4096 bytes failed") < said.index("Fatal Python error: Aborted")
    assert "Extension modules" not in said
    assert len(said.splitlines()) < 35

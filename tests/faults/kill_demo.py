"""kill -9 in the middle of a publication does no harm: ten rounds, and what a reader saw meanwhile (make kill-demo).

In a folder of its own a publisher is started and killed: in odd rounds after a time drawn by chance within that of a
whole publication, in even ones at a step drawn by chance from the last and shortest ones. A reader looks at the base
path all the while, as a server does, takes the largest number it finds and compares every file with its manifest.
Prints a line a round; exits non-zero if a look found anything but a whole version.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "data"))

from registries import publish
from rich.console import Console
from rich.table import Table

from crossrisk.errors import PublishError
from crossrisk.failpoints import VARIABLE
from crossrisk.registry import Registry, digest_tree, locked
from crossrisk.registry.protocol import STEPS

ROUNDS = 10
MODEL_BYTES = 4_000_000
"""Of the model: written, digested and synced, so that a publication takes long enough to be hit."""
PUBLISHER = """
import sys, time
sys.path.insert(0, {data!r})
from pathlib import Path
from registries import publish, write_model
from crossrisk.registry import Registry
print("ready", flush=True)
sys.stdin.readline()
publish(Registry(Path({root!r})), time.time(), {text!r}, write=lambda folder: write_model(folder, {text!r} * {times}))
"""


@dataclass
class Reader(threading.Thread):
    """Looks at the base path until it is told to stop."""

    registry: Registry
    seen: dict[int, int] = field(default_factory=dict)
    """version -> looks that found it whole"""
    broken: list[str] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        super().__init__(daemon=True)

    def __hash__(self) -> int:
        return id(self)

    def run(self) -> None:
        """Look, compare, and look again."""
        while not self.stopped.is_set():
            newest = max(int(path.name) for path in self.registry.models.iterdir())
            try:
                manifest = json.loads(self.registry.manifest_path(newest).read_text())
                is_whole = manifest["files"] == digest_tree(self.registry.models / str(newest))
            except (OSError, ValueError) as error:
                self.broken.append(f"{newest}: {error}")
                continue
            if is_whole:
                self.seen[newest] = self.seen.get(newest, 0) + 1
            else:
                self.broken.append(f"{newest}: differs from its manifest")


def start_publisher(registry: Registry, text: str, *, failpoint: str = "") -> subprocess.Popen[str]:
    """A publisher that has imported everything and waits for a line."""
    script = PUBLISHER.format(data=sys.path[0], root=str(registry.root), text=text, times=MODEL_BYTES // len(text))
    path = os.pathsep.join(filter(None, sys.path))
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": path, VARIABLE: failpoint},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


def go(process: subprocess.Popen[str]) -> None:
    """Let it publish."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def left_behind(registry: Registry) -> str:
    """Where the dead publisher was, by what it left."""
    if registry.intent.exists():
        version = json.loads(registry.intent.read_text())["version"]
        placed = (registry.models / str(version)).exists()
        return "after its rename, before its end" if placed else "after its intent, before its rename"
    return "while it staged" if any(registry.root.glob("staging/*")) else "with nothing begun, or all done"


def main(rounds: int = ROUNDS) -> int:
    """Run the rounds and print what happened."""
    console = Console(width=None if Console().is_terminal else 130, highlight=False)
    chance = random.Random(20261120)
    with tempfile.TemporaryDirectory() as folder:
        registry = Registry(Path(folder) / "registry")
        publish(registry, time.time(), "first")
        whole = start_publisher(registry, "measured")
        started = time.monotonic()
        go(whole)
        whole.wait()
        seconds = time.monotonic() - started
        table = Table(title=f"one publication takes {seconds * 1000:.0f} ms; the publisher is killed within them")
        for name, justify in (("round", "right"), ("killed", "left"), ("so it died", "left"),
                              ("champion before", "right"), ("readers saw", "left"), ("looks", "right"),
                              ("broken", "right"), ("after the next lock", "right")):  # fmt: skip
            table.add_column(name, justify=justify)
        broken = 0
        for place in range(1, rounds + 1):
            before = registry.champion()
            assert before is not None
            step = chance.choice(STEPS[STEPS.index("intended") :])
            process = start_publisher(registry, f"round {place}", failpoint="" if place % 2 else f"publish.{step}=kill")
            reader = Reader(registry)
            reader.start()
            wait = chance.uniform(0.0, seconds)
            go(process)
            if place % 2:
                time.sleep(wait)
                process.send_signal(signal.SIGKILL)
            process.communicate()
            died = left_behind(registry)
            time.sleep(0.05)
            reader.stopped.set()
            reader.join()
            with locked(registry):  # the next publisher, or anybody who takes the lock
                after = registry.champion()
            assert after is not None
            broken += len(reader.broken)
            saw = ", ".join(str(version) for version in sorted(reader.seen))
            how = f"after {wait * 1000:.0f} ms" if place % 2 else f"at {step!r}"
            looks, found = str(sum(reader.seen.values())), str(len(reader.broken))
            table.add_row(str(place), how, died, str(before.version), saw, looks, found, str(after.version))
        console.print(table)
        try:
            lines = len(registry.records())
        except PublishError as error:
            console.print(str(error))
            return 1
        console.print(
            f"{rounds} publishers killed; {broken} looks found something broken; {len(registry.versions())} versions, "
            f"{lines} lines of the ledger, the chain holds"
        )
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())

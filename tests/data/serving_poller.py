"""What TF Serving would take from a base path, by its own rules, and a process that looks every millisecond.

The rules are those of its file_system_storage_path_source (what is listed), aspired_versions_manager and
availability_preserving_policy (what is loaded and unloaded); written from reading them, nothing is copied. `Poller` is
one server's model; `watching` a process of its own that checks the manifest of whatever appears, as it appears.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from crossrisk.registry.layout import digest_tree
from crossrisk.store import read_json

LOAD_RETRIES, RETRY_SECONDS = 5, 60.0
"""defaults of --max_num_load_retries and --load_retry_interval_micros"""
POLL_SECONDS = 0.001
_SPACE = " \t\n\v\f\r"


# --- what is listed ---


@dataclass(frozen=True)
class Latest:
    """The highest numbers."""

    num_versions: int = 1


@dataclass(frozen=True)
class All:
    """Every number."""


@dataclass(frozen=True)
class Specific:
    """These numbers, where they are there."""

    versions: frozenset[int]


Policy = Latest | All | Specific


def parse_version(name: str) -> int | None:
    """The number that a name in the base path is read as: spaces around, one sign, leading zeros, 64 bits."""
    digits = name.strip(_SPACE)
    unsigned = digits[1:] if digits[:1] in ("+", "-") else digits
    if not (unsigned.isascii() and unsigned.isdigit()):
        return None
    number = int(digits)
    return number if -(2**63) <= number < 2**63 else None


def aspired_versions(names: Iterable[str], policy: Policy) -> dict[int, str]:
    """Number -> name of what a server wants to have loaded, of the names in the base path, folders and files alike."""
    listed = [(number, name) for name in sorted(names, key=os.fsencode) if (number := parse_version(name)) is not None]
    if isinstance(policy, All):  # here the name listed first is kept: the second is refused as managed already
        return dict(reversed(listed))
    by_number = dict(listed)  # the name listed later wins, with a line in the log
    if isinstance(policy, Specific):
        return {number: name for number, name in by_number.items() if number in policy.versions}
    newest = sorted(by_number, reverse=True)[: max(policy.num_versions, 1)]
    return {number: by_number[number] for number in newest}


# --- what is loaded ---


def can_load(path: Path) -> bool:
    """Whether the loader finds a SavedModel: it looks for its graph and not for its variables."""
    return (path / "saved_model.pb").is_file() or (path / "saved_model.pbtxt").is_file()


@dataclass
class _Harness:
    path: Path
    is_aspired: bool = True
    state: str = "START"
    attempts: int = 0
    next_attempt: float = 0.0


@dataclass
class Poller:
    """One model of a server: `poll` is one look at the base path, and all loading and unloading that follows."""

    base_path: Path
    policy: Policy = field(default_factory=Latest)
    load: Callable[[Path], bool] = can_load
    managed: dict[int, _Harness] = field(default_factory=dict)

    @property
    def loaded(self) -> set[int]:
        """Versions that answer."""
        return {number for number, harness in self.managed.items() if harness.state == "AVAILABLE"}

    def list_versions(self) -> dict[int, str] | None:
        """What the policy wants of what lies there now; None where the base path is missing."""
        try:
            return aspired_versions((path.name for path in self.base_path.iterdir()), self.policy)
        except FileNotFoundError:
            return None

    def poll(self, now: float) -> set[int]:
        """Look once, at `now` in seconds of any clock; the versions that answer afterwards."""
        wanted = self.list_versions()
        if wanted is not None:  # a base path that is missing unloads nothing, one that is empty everything
            self.aspire(wanted)
        self.manage(now)
        return self.loaded

    def aspire(self, wanted: dict[int, str]) -> None:
        """Take note of what is wanted now. What is loaded or given up keeps its path and its state."""
        for number, harness in list(self.managed.items()):
            harness.is_aspired = number in wanted
            if not harness.is_aspired and harness.state != "AVAILABLE":
                del self.managed[number]  # retries end, and an error is forgotten
        for number, name in wanted.items():
            self.managed.setdefault(number, _Harness(self.base_path / name))

    def manage(self, now: float) -> None:
        """Unload and load, one action at a time, until nothing is left to do: availability is preserved."""
        while self._unload_one() or self._load_one(now):
            pass

    def _unload_one(self) -> bool:
        aspired = [harness for harness in self.managed.values() if harness.is_aspired]
        leaving = [n for n in sorted(self.loaded) if not self.managed[n].is_aspired]
        is_served = any(harness.state == "AVAILABLE" for harness in aspired)
        if not leaving or not (not aspired or is_served or len(leaving) > 1):
            return False
        del self.managed[leaving[0]]
        return True

    def _load_one(self, now: float) -> bool:
        due = [n for n, h in self.managed.items() if h.is_aspired and h.state in ("START", "LOADING")]
        due = [n for n in due if self.managed[n].next_attempt <= now]
        if not due:
            return False
        harness = self.managed[max(due)]
        harness.attempts += 1
        if self.load(harness.path):
            harness.state = "AVAILABLE"
        elif harness.attempts <= LOAD_RETRIES:
            harness.state, harness.next_attempt = "LOADING", now + RETRY_SECONDS
        else:
            harness.state = "END"  # and stays so while it is listed: nothing loads it again
        return True


# --- looking at a registry while others write ---


@dataclass
class Sighting:
    """A version that appeared in the base path."""

    version: int
    checks: int = 0
    failures: list[str] = field(default_factory=list)
    """what its manifest said of its files, whenever it did not hold"""


@dataclass
class Watch:
    """What a watcher saw, complete once its block has ended."""

    polls: int = 0
    sightings: dict[int, Sighting] = field(default_factory=dict)

    @property
    def failures(self) -> list[str]:
        """All of them."""
        return [f"{s.version}: {said}" for s in self.sightings.values() for said in s.failures]


def manifest_fault(root: Path, number: int, name: str) -> str | None:
    """Why the manifest of a version does not hold at this moment; None where it does."""
    try:
        expected = read_json(root / "manifests" / f"{number}.json")["files"]
        found = digest_tree(root / "models" / name)
    except (OSError, ValueError, KeyError) as error:
        return repr(error)
    return None if found == expected else f"files {sorted(found)}, manifest {sorted(expected)}"


def look(root: Path, watch: Watch) -> None:
    """Look once: check every version that was not there before, and always the newest."""
    listed = Poller(root / "models", All()).list_versions() or {}
    newest = max(listed, default=None)
    for number, name in listed.items():
        if number == newest or number not in watch.sightings:
            sighting = watch.sightings.setdefault(number, Sighting(number))
            sighting.checks += 1
            fault = manifest_fault(root, number, name)
            if fault is not None:
                sighting.failures.append(fault)
    watch.polls += 1


def _watch(root: Path, pipe: Connection) -> None:
    watch = Watch()
    look(root, watch)
    pipe.send("looking")
    while not pipe.poll(POLL_SECONDS):
        look(root, watch)
    look(root, watch)
    pipe.send(watch)


@contextmanager
def watching(root: Path) -> Iterator[Watch]:
    """Look at a registry every millisecond from a process of its own, for as long as the block runs."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_watch, args=(root, theirs), daemon=True)
    process.start()
    theirs.close()  # so that its death ends our waiting
    watch = Watch()
    try:
        assert ours.recv() == "looking"
        yield watch
        ours.send("enough")
        seen = ours.recv()
        watch.polls, watch.sightings = seen.polls, seen.sightings
        process.join(30)
    finally:
        process.kill()
        process.join()

"""Rows 2, 5, 17 and 18: whole retrains that are stopped, killed, started twice or lose their server; real commands."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest
from builders import FLOW_TOML, loans_with_noise
from deaths import assert_readable, assert_settled

from crossrisk.failpoints import VARIABLE
from crossrisk.registry import Registry
from crossrisk.runs import Run, read_runs

CROSSRISK = str(Path(sys.executable).parent / "crossrisk")
LIMIT_S = 240
LENIENT = ["gate.observed_expected=[0.2, 5.0]", "gate.replicates=100"]

pytestmark = pytest.mark.heavy


class Home:
    """A small portfolio in a folder of its own, retrained by the command line in processes of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.registry = Registry(folder / "registry" / "mini")
        (folder / "data").mkdir(parents=True)
        loans_with_noise().write_parquet(folder / "data" / "loans.parquet")
        (folder / "mini.toml").write_text(FLOW_TOML)
        self.out, self.err = folder / "out", folder / "err"

    def start(self, *overrides: str, **environ: str) -> subprocess.Popen[str]:
        sets = [part for one in (*LENIENT, *overrides) for part in ("--set", one)]
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "CROSSRISK_"))}
        here = {"CROSSRISK_HOME": str(self.folder), "PREFECT_HOME": str(self.folder / "prefect")}
        return subprocess.Popen(
            [CROSSRISK, "retrain", str(self.folder / "mini.toml"), "--json", *sets],
            env={**kept, **here, **environ}, stdout=self.out.open("a"), stderr=self.err.open("a"), text=True,
            start_new_session=True,
        )  # fmt: skip

    def end(self, process: subprocess.Popen[str]) -> int:
        """Wait for it, and end whatever outlived it: of a killed command, the server that Prefect started for it."""
        try:
            return process.wait(LIMIT_S)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    def retrain(self, *overrides: str, **environ: str) -> dict:
        assert self.end(self.start(*overrides, **environ)) == 0, self.err.read_text()[-2000:]
        return self.results()[-1]

    def results(self) -> list[dict]:
        """What every finished command printed."""
        return [json.loads(line) for line in self.out.read_text().splitlines()]

    def wait_for_step(self, process: subprocess.Popen[str], step: str) -> Run:
        deadline = time.monotonic() + LIMIT_S
        while time.monotonic() < deadline:
            for run in self.runs():
                if run.step == step:
                    return run
            assert process.poll() is None, self.err.read_text()[-2000:]
            time.sleep(0.1)
        raise TimeoutError(step)

    def runs(self) -> list[Run]:
        return read_runs(self.folder / "work" / "mini" / "runs")

    def stages(self) -> set[str]:
        return {f"{path.parent.name}/{path.name}" for path in self.folder.glob("work/mini/stages/*/[!.]*")}

    def report(self, result: dict) -> dict:
        return json.loads(Path(result["paths"]["json"]).read_text())


@pytest.fixture
def home(tmp_path) -> Home:
    return Home(tmp_path / "home")


@pytest.mark.fault(2)
@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGINT])
def test_a_run_stopped_while_it_trains_says_so_leaves_no_child_and_is_taken_up_again(home, told):
    process = home.start()
    home.wait_for_step(process, "train dan")
    deadline = time.monotonic() + LIMIT_S
    while not (children := psutil.Process(process.pid).children(recursive=True)):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(told)
    assert process.wait(60) == 128 + told
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    (run,) = home.runs()
    assert (run.state, run.step) == ("failed", "train dan")
    assert run.message.startswith("stopped")
    assert home.registry.versions() == home.registry.records() == []
    assert not list(home.folder.glob("work/mini/stages/*/.making-*"))
    finished = home.stages()
    again = home.report(home.retrain())
    assert {"ingest", "validate", "split", "plan", "encoded", "source_logistic"} <= set(again["reused"])
    assert finished <= home.stages()
    assert assert_settled(home.registry) == again["version"]


@pytest.mark.fault(2)
@pytest.mark.parametrize(("step", "stands"), [("intended", False), ("renamed", True)])
def test_a_run_stopped_while_it_publishes_leaves_a_settled_registry(home, step, stands):
    process = home.start("lineup.contenders=['source_logistic']", **{VARIABLE: f"publish.{step}=term"})
    assert home.end(process) == 143
    assert not home.registry.intent.exists()
    assert len(home.registry.versions()) == len(home.registry.records()) == int(stands)
    assert home.runs()[0].message.startswith("stopped")


@pytest.mark.fault(17)
@pytest.mark.parametrize("step", ["train dan", "publish.renamed", "publish.ended"])
def test_a_killed_run_is_taken_up_where_it_was_and_nothing_is_published_twice(home, step):
    if step.startswith("publish."):
        process = home.start(**{VARIABLE: f"{step}=kill"})
    else:
        process = home.start()
        home.wait_for_step(process, step)
        process.kill()
    assert home.end(process) == -signal.SIGKILL
    finished, published = home.stages(), home.registry.versions()
    if published:
        assert_readable(home.registry)
    again = home.report(home.retrain())
    assert finished <= home.stages()
    assert {"ingest", "validate", "split", "plan", "encoded", "source_logistic"} <= set(again["reused"])
    if published:
        assert [again["version"]] == published
        assert again["decided_by"] is not None
    assert len(home.registry.records()) == len(home.registry.versions()) == 1
    assert assert_settled(home.registry) == again["version"]


@pytest.mark.fault(5)
def test_two_runs_of_the_same_inputs_at_once_and_a_third_after_them_are_one_decision(home):
    quick = "lineup.contenders=['source_logistic']"
    both = [home.start(quick) for _ in range(2)]
    assert [home.end(process) for process in both] == [0, 0], home.err.read_text()[-2000:]
    home.retrain(quick)
    results = home.results()
    assert len({result["version"] for result in results}) == 1
    assert len({result["run_id"] for result in results}) == 3
    assert sorted(result["decided_by"] is None for result in results) == [False, False, True]
    assert {result["decided_by"] for result in results} - {None} <= {result["run_id"] for result in results}
    assert len(home.registry.records()) == 1
    assert assert_settled(home.registry) == results[0]["version"]


@pytest.mark.fault(18)
@pytest.mark.parametrize("damage", ["deleted", "broken"])
def test_results_that_prefect_keeps_may_be_lost_or_broken(home, damage):
    quick = "lineup.contenders=['source_logistic']"
    keeps = {"PREFECT_RESULTS_PERSIST_BY_DEFAULT": "true"}
    first = home.report(home.retrain(quick, **keeps))
    stages = home.stages()
    kept = [path for path in (home.folder / "prefect" / "storage").rglob("*") if path.is_file()]
    assert kept, "nothing was kept: this test tests nothing"
    if damage == "deleted":
        shutil.rmtree(home.folder / "prefect")
    else:
        for path in kept:
            path.write_bytes(path.read_bytes()[:10])
    shutil.rmtree(home.folder / "work")
    again = home.report(home.retrain(quick, **keeps))
    assert home.stages() == stages
    for key in ("contenders", "verdict", "version", "differences"):
        assert again[key] == first[key], key
    assert len(home.registry.records()) == 1


@pytest.mark.fault(17)
def test_a_server_that_goes_down_midway_costs_the_run_at_most_its_own_time(home):
    """Whether Prefect gives the run up or not: what was finished is found, and there is one publication."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {
        "PREFECT_HOME": str(home.folder / "server"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_CLIENT_MAX_RETRIES": "1",
    }
    server = subprocess.Popen(
        [str(Path(sys.executable).parent / "prefect"), "server", "start", "--host", "127.0.0.1", "--port", str(port)],
        env={**os.environ, **settings}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for_health(f"http://127.0.0.1:{port}/api/health")
        process = home.start(PREFECT_API_URL=f"http://127.0.0.1:{port}/api", PREFECT_CLIENT_MAX_RETRIES="1")
        home.wait_for_step(process, "train dan")
    finally:
        for child in psutil.Process(server.pid).children(recursive=True):
            child.kill()
        server.kill()
        server.wait(30)
    home.end(process)
    finished = home.stages()
    again = home.report(home.retrain())
    assert finished <= home.stages()
    assert {"ingest", "validate", "split", "plan", "encoded"} <= set(again["reused"])
    assert len(home.registry.records()) == 1
    assert assert_settled(home.registry) == again["version"]


def wait_for_health(url: str) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            if httpx.get(url, timeout=2).status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(0.5)
    raise TimeoutError(url)

"""The three ways it is started, for real: the demo on a server, a worker and deployments of `deployments/serve.sh`."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from crossrisk.registry import Registry, read_ledger
from crossrisk.runs import Run, read_runs

ROOT = Path(__file__).resolve().parents[2]
CROSSRISK = str(Path(sys.executable).parent / "crossrisk")
QUICK = ["lineup.contenders=['stacked', 'source_logistic']"]
LONGEST_RUN_S = 300

pytestmark = pytest.mark.slow


class Served:
    """A running server with its deployments, in a folder of its own."""

    def __init__(self, home: Path, port: int, environ: dict[str, str]) -> None:
        self.home = home
        self.environ = environ
        self.api = httpx.Client(base_url=f"http://127.0.0.1:{port}/api", timeout=30)
        self.registry = Registry(home / "registry" / "demo")

    def start(self, deployment: str, parameters: dict, *, at: datetime | None = None) -> str:
        found = self.api.get(f"/deployments/name/{deployment}").json()
        state = {"type": "SCHEDULED", "state_details": {"scheduled_time": at.isoformat()}} if at else None
        body = {"parameters": parameters, **({"state": state} if state else {})}
        made = self.api.post(f"/deployments/{found['id']}/create_flow_run", json=body)
        made.raise_for_status()
        return made.json()["id"]

    def wait(self, run: str) -> str:
        deadline = time.monotonic() + LONGEST_RUN_S
        while time.monotonic() < deadline:
            state = self.api.get(f"/flow_runs/{run}").json()["state"]
            if state["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
                return state["type"] + (f": {state['message']}" if state["message"] else "")
            time.sleep(1)
        raise TimeoutError(run)

    def record(self, run: str) -> Run:
        """What the run left, by the first digits of the id that Prefect gave it."""
        (found,) = (one for one in read_runs(self.home / "work" / "demo" / "runs") if one.run_id.endswith(run[:8]))
        assert (self.home / "work" / "demo" / "runs" / found.run_id / str(found.page)).exists()
        return found

    def status(self) -> dict:
        command = [CROSSRISK, "status", str(self.home / "configs" / "demo.toml"), "--json"]
        done = subprocess.run(command, env=self.environ, capture_output=True, text=True, check=True)
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[Served]:
    home = tmp_path_factory.mktemp("served")
    subprocess.run([CROSSRISK, "demo", str(home / "data")], check=True, capture_output=True)
    (home / "configs").mkdir()
    shutil.copyfile(ROOT / "configs" / "demo.toml", home / "configs" / "demo.toml")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environ = {**os.environ, "CROSSRISK_HOME": str(home), "PREFECT_PORT": str(port)}
    for name in ("CROSSRISK_DATA", "PREFECT_API_URL", "PREFECT_HOME"):
        environ.pop(name, None)
    serve = str(ROOT / "deployments" / "serve.sh")
    started = subprocess.run([serve, "start"], env=environ, capture_output=True, text=True, check=False, timeout=180)
    try:
        assert started.returncode == 0, started.stdout + started.stderr
        yield Served(home, port, environ)
    finally:
        subprocess.run([serve, "stop"], env=environ, check=True, timeout=60)


def test_schedules_are_inactive_outside_production(served):
    for name in ("retrain/monthly", "monitor/monthly"):
        schedules = served.api.get(f"/deployments/name/{name}").json()["schedules"]
        assert [s["active"] for s in schedules] == [False]
        assert [s["slug"] for s in schedules] == ["demo"]


def test_a_run_from_the_form_takes_its_parameters(served):
    run = served.start("retrain/on-demand", {"as_of": "2026-05-31", "overrides": QUICK})
    assert served.wait(run).startswith("COMPLETED")
    record, decision = served.record(run), read_ledger(served.registry)[-1]
    assert (record.state, record.as_of, record.outcome) == ("completed", "2026-05-31", "bootstrap")
    assert decision["run_id"] == record.run_id
    assert served.registry.champion().version == decision["version"]


def test_the_form_refuses_what_the_pattern_does_not_know(served):
    with pytest.raises(httpx.HTTPStatusError, match=r"409|422"):
        served.start("retrain/on-demand", {"as_of": "yesterday"})


def test_a_scheduled_run_sees_the_date_it_was_scheduled_for(served):
    at = datetime.now(UTC) + timedelta(seconds=5)
    run = served.start("retrain/monthly", {"overrides": QUICK}, at=at)
    assert served.wait(run).startswith("COMPLETED")
    record, decision = served.record(run), read_ledger(served.registry)[-1]
    assert (record.state, record.as_of) == ("completed", at.date().isoformat())
    assert (decision["run_id"], decision["decision"]["verdict"]) == (record.run_id, record.outcome)


def test_a_monitoring_run_leaves_its_page_and_its_light(served):
    run = served.start("monitor/monthly", {"month": "2025-12"})
    assert served.wait(run).startswith("COMPLETED")
    record = served.record(run)
    assert (record.kind, record.subject, record.page) == ("monitor", "2025-12", "monitor.html")
    status = served.status()
    assert (status["last_light"], status["watched_month"]) == (record.outcome, "2025-12")


def test_a_run_that_fails_leaves_its_page_too(served):
    run = served.start("retrain/on-demand", {"overrides": ["data.path=nowhere"]})
    assert served.wait(run).startswith("FAILED")
    record = served.record(run)
    assert (record.state, record.step) == ("failed", "ingest")
    assert "no Parquet file at 'nowhere'" in record.message
    assert served.status()["last_run"]["run_id"] == record.run_id


def test_the_status_knows_the_next_run_from_the_server_that_make_serve_started(served):
    assert "none is scheduled" in served.status()["next_run"]["why_not"]
    served.start("retrain/monthly", {}, at=datetime(2031, 1, 8, 6, tzinfo=UTC))
    assert served.status()["next_run"] == {"at": "2031-01-08 06:00 UTC", "deployment": "retrain/monthly",
                                           "why_not": None}  # fmt: skip

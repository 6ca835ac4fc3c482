"""The three ways it is started, for real: server, process worker, deployments, all by `deployments/serve.sh`."""

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from builders import FLOW_TOML, loans_with_noise

from crossrisk.registry import Registry, read_ledger

ROOT = Path(__file__).resolve().parents[2]
QUICK = ["lineup.contenders=['source_logistic']"]
LONGEST_RUN_S = 180

pytestmark = pytest.mark.slow


class Served:
    """A running server with its deployments, in a folder of its own."""

    def __init__(self, home: Path, port: int) -> None:
        self.home = home
        self.api = httpx.Client(base_url=f"http://127.0.0.1:{port}/api", timeout=30)
        self.registry = Registry(home / "registry" / "mini")

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


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[Served]:
    home = tmp_path_factory.mktemp("served")
    (home / "data").mkdir()
    loans_with_noise().write_parquet(home / "data" / "loans.parquet")
    (home / "mini.toml").write_text(FLOW_TOML)
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
        yield Served(home, port)
    finally:
        subprocess.run([serve, "stop"], env=environ, check=True, timeout=60)


def test_schedules_are_inactive_outside_production(served):
    for name in ("retrain/monthly", "monitor/monthly"):
        schedules = served.api.get(f"/deployments/name/{name}").json()["schedules"]
        assert [s["active"] for s in schedules] == [False]
        assert [s["slug"] for s in schedules] == ["demo"]


def test_a_run_from_the_form_takes_its_parameters(served):
    run = served.start("retrain/on-demand", {"config": "mini.toml", "as_of": "2024-12-30", "overrides": QUICK})
    assert served.wait(run).startswith("COMPLETED")
    record = read_ledger(served.registry)[-1]
    assert (record["as_of"], record["decision"]["verdict"]) == ("2024-12-30", "bootstrap")
    assert (served.home / "work" / "mini" / "runs" / record["run_id"] / "report.html").exists()


def test_the_form_refuses_what_the_pattern_does_not_know(served):
    with pytest.raises(httpx.HTTPStatusError, match=r"409|422"):
        served.start("retrain/on-demand", {"config": "mini.toml", "as_of": "yesterday"})


def test_a_scheduled_run_sees_the_date_it_was_scheduled_for(served):
    at = datetime.now(UTC) + timedelta(seconds=5)
    run = served.start("retrain/monthly", {"config": "mini.toml", "overrides": QUICK}, at=at)
    assert served.wait(run).startswith("COMPLETED")
    assert read_ledger(served.registry)[-1]["as_of"] == at.date().isoformat()


def test_a_monitoring_run_leaves_its_page(served):
    run = served.start("monitor/monthly", {"config": "mini.toml", "month": "2024-12"})
    assert served.wait(run).startswith("COMPLETED")
    assert list((served.home / "work" / "mini" / "runs").glob("*/monitor.html"))

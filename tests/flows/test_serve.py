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
import psutil
import pytest

from crossrisk.registry import Registry
from crossrisk.runs import Run, read_runs

ROOT = Path(__file__).resolve().parents[2]
CROSSRISK = str(Path(sys.executable).parent / "crossrisk")
SERVE = str(ROOT / "deployments" / "serve.sh")
QUICK = ["lineup.contenders=['stacked', 'source_logistic']"]
LONGEST_RUN_S = 300
SCHEDULER_S = 120
"""the server's scheduler looks at deployments once a minute"""

pytestmark = pytest.mark.flow


class Served:
    """A running server with its deployments, in a folder of its own."""

    def __init__(self, home: Path, port: int, environ: dict[str, str]) -> None:
        self.home = home
        self.environ = environ
        self.api = httpx.Client(base_url=f"http://127.0.0.1:{port}/api", timeout=30)
        self.registry = Registry(home / "registry" / "demo")

    def serve(self, **settings: str) -> subprocess.CompletedProcess[str]:
        """What make serve does."""
        environ = {**self.environ, **settings}
        return subprocess.run([SERVE, "start"], env=environ, capture_output=True, text=True, check=False, timeout=180)

    def stop(self) -> None:
        """What make stop does."""
        subprocess.run([SERVE, "stop"], env=self.environ, check=True, timeout=60)

    def start(self, deployment: str, parameters: dict, *, at: datetime | None = None) -> str:
        found = self.api.get(f"/deployments/name/{deployment}").json()
        state = {"type": "SCHEDULED", "state_details": {"scheduled_time": at.isoformat()}} if at else None
        body = {"parameters": parameters, **({"state": state} if state else {})}
        for _ in range(10):  # SQLite is locked now and then, and the server says 503: Prefect's own client asks again
            made = self.api.post(f"/deployments/{found['id']}/create_flow_run", json=body)
            if made.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                break
            time.sleep(1)
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

    def wait_for_step(self, run: str, step: str) -> None:
        deadline = time.monotonic() + LONGEST_RUN_S
        while time.monotonic() < deadline:
            if any(one.step == step for one in self.runs() if one.run_id.endswith(run[:8])):
                return
            time.sleep(0.5)
        raise TimeoutError(f"{run} has not come to {step}")

    def runs(self) -> list[Run]:
        return read_runs(self.home / "work" / "demo" / "runs")

    def record(self, run: str) -> Run:
        """What the run left, by the first digits of the id that Prefect gave it."""
        (found,) = (one for one in self.runs() if one.run_id.endswith(run[:8]))
        assert (self.home / "work" / "demo" / "runs" / found.run_id / str(found.page)).exists()
        return found

    def status(self) -> dict:
        command = [CROSSRISK, "status", str(self.home / "configs" / "demo.toml"), "--json"]
        done = subprocess.run(command, env=self.environ, capture_output=True, text=True, check=True)
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[Served]:
    home = tmp_path_factory.mktemp("served")
    # where make demo writes it, and no data/: the form has to work as it stands after make demo && make serve
    subprocess.run([CROSSRISK, "demo", str(home / "work" / "demo_data")], check=True, capture_output=True)
    (home / "configs").mkdir()
    shutil.copyfile(ROOT / "configs" / "demo.toml", home / "configs" / "demo.toml")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environ = {**os.environ, "CROSSRISK_HOME": str(home), "PREFECT_PORT": str(port)}
    # a shell's own settings, and what a command line called earlier in this process has set for itself
    settings = "CROSSRISK_DATA CROSSRISK_SCHEDULES_ACTIVE PREFECT_API_URL PREFECT_HOME PREFECT_LOGGING_LEVEL"
    for name in settings.split():
        environ.pop(name, None)
    served = Served(home, port, environ)
    try:
        started = served.serve()
        assert started.returncode == 0, started.stdout + started.stderr
        assert "runs read the demo's portfolio" in started.stdout
        yield served
    finally:
        served.stop()


def test_schedules_are_inactive_outside_production(served):
    for name in ("retrain/monthly", "monitor/monthly"):
        schedules = served.api.get(f"/deployments/name/{name}").json()["schedules"]
        assert [s["active"] for s in schedules] == [False]
        assert [s["slug"] for s in schedules] == ["demo"]


def test_a_run_from_the_form_takes_its_parameters(served):
    run = served.start("retrain/on-demand", {"as_of": "2026-05-31", "overrides": QUICK})
    assert served.wait(run).startswith("COMPLETED")
    record, decision = served.record(run), served.registry.records()[-1]
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
    record, decision = served.record(run), served.registry.records()[-1]
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


def test_an_error_of_ours_is_one_line_in_the_log_not_pages_of_frames(served):
    for overrides in (
        ["data.path=nowhere"],
        ["data.pathh=demo"],
    ):  # refused by a step; refused before there is a record
        assert served.wait(served.start("retrain/on-demand", {"overrides": overrides})).startswith("FAILED")
    log = (served.home / "work" / "serve" / "worker.log").read_text()
    assert "InputError: no Parquet file at 'nowhere'" in log
    assert "ConfigError: demo.toml: unknown key 'data.pathh'" in log
    assert "Traceback" not in log


def test_the_status_knows_the_next_run_from_the_server_that_make_serve_started(served):
    assert "none is scheduled" in served.status()["next_run"]["why_not"]
    served.start("retrain/monthly", {}, at=datetime(2031, 1, 8, 6, tzinfo=UTC))
    assert served.status()["next_run"] == {"at": "2031-01-08 06:00 UTC", "deployment": "retrain/monthly",
                                           "why_not": None}  # fmt: skip


def test_an_active_schedule_starts_runs_that_nobody_asked_for(served):
    again = served.serve(CROSSRISK_SCHEDULES_ACTIVE="true")
    assert again.returncode == 0, again.stdout + again.stderr
    expected = min((next_eighth(5), "monitor/monthly"), (next_eighth(6), "retrain/monthly"))
    deadline = time.monotonic() + SCHEDULER_S
    while (found := served.status()["next_run"])["deployment"] != expected[1] and time.monotonic() < deadline:
        time.sleep(1)
    assert found == {"at": f"{expected[0]:%Y-%m-%d %H:%M} UTC", "deployment": expected[1], "why_not": None}


def next_eighth(hour: int) -> datetime:
    """The next time that a schedule of prefect.yaml names."""
    now = datetime.now(UTC)
    at = now.replace(day=8, hour=hour, minute=0, second=0, microsecond=0)
    return at if at > now else (at + timedelta(days=31)).replace(day=8)


def test_other_settings_are_refused_while_a_worker_runs_with_its_own(served):
    refused = served.serve(CROSSRISK_DATA="elsewhere")
    assert refused.returncode == 1
    assert "make stop first" in refused.stderr
    assert "running:   CROSSRISK_DATA=work/demo_data" in refused.stderr
    assert "asked for: CROSSRISK_DATA=elsewhere" in refused.stderr


def test_make_stop_ends_the_run_under_way_and_its_page_says_so(served):
    run = served.start("retrain/on-demand", {"overrides": ["lineup.contenders=['stacked', 'dan']"]})
    served.wait_for_step(run, "train dan")
    worker = psutil.Process(int((served.home / "work" / "serve" / "worker.pid").read_text()))
    processes = [worker, *worker.children(recursive=True)]
    assert len(processes) > 1
    began = time.monotonic()
    served.stop()
    assert time.monotonic() - began < 30
    assert not [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    record = served.record(run)
    assert (record.state, record.step) == ("failed", "train dan")
    assert record.message is not None
    assert record.message.startswith("stopped by a signal to end")
    assert record.message in (served.home / "work" / "demo" / "runs" / record.run_id / "report.html").read_text()

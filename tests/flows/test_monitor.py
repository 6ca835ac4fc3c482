"""The monthly watch after a small retrain, against a real Prefect server."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from builders import FLOW_TOML, loans_with_noise
from prefect.client.orchestration import get_client
from prefect.runtime import flow_run

from crossrisk.registry import Registry
from flows.cli import main
from flows.dates import logical_date
from flows.monitor import monitor
from flows.retrain import retrain

pytestmark = [pytest.mark.flow, pytest.mark.usefixtures("prefect_server")]

ONE_CONTENDER = ("lineup.contenders=['source_logistic']", "gate.observed_expected=[0.5, 2.0]", "gate.replicates=100")


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """A folder with the TOML of a portfolio that has a champion as of 2024-12-31."""
    folder = tmp_path_factory.mktemp("watched")
    (folder / "data").mkdir()
    loans_with_noise().write_parquet(folder / "data" / "loans.parquet")
    (folder / "mini.toml").write_text(FLOW_TOML)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CROSSRISK_HOME", str(folder))
        patch.delenv("CROSSRISK_DATA", raising=False)
        assert retrain(config=str(folder / "mini.toml"), overrides=list(ONE_CONTENDER))["verdict"] == "bootstrap"
    return folder


@pytest.fixture
def config(published, monkeypatch) -> str:
    monkeypatch.setenv("CROSSRISK_HOME", str(published))
    monkeypatch.delenv("CROSSRISK_DATA", raising=False)
    return str(published / "mini.toml")


def artifact_keys() -> set[str]:
    with get_client(sync_client=True) as client:
        return {str(one.key) for one in client.read_artifacts(limit=200)}


def test_a_month_is_watched_after_a_retrain_and_decides_nothing(published, config):
    registry = Registry(published / "registry" / "mini")
    ledger = registry.records()
    result = monitor(config=config, month="2024-11")
    assert result["month"] == "2024-11"
    assert result["champion"]["version"] == registry.champion().version
    # the rows of November were in the reference: what was judged is what is served, to the bin
    assert result["score_psi"]["value"] < result["score_psi"]["critical"]
    assert result["performance"]["auc"]["n_bad"] >= 30
    assert result["light"] in ("green", "grey"), result["reasons"]
    for path in result["paths"].values():
        assert Path(path).exists()
    assert json.loads(Path(result["paths"]["json"]).read_text())["light"] == result["light"]
    assert {"mini-monitor-light", "mini-monitor-months", "mini-monitor-features"} <= artifact_keys()
    assert registry.records() == ledger


def test_the_command_prints_one_object_and_the_default_month(config, capsys):
    assert main(["monitor", config, "--set", "label.reporting_lag_days=10", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["month"] == "2024-11"
    assert len(printed["feature_psi"]) == 10


def test_without_a_champion_the_command_ends_with_2(config, capsys, tmp_path, monkeypatch):
    assert main(["monitor", config, "--set", f"publish.registry={tmp_path}/none"]) == 2
    assert "no champion to watch" in capsys.readouterr().err


def test_a_deployed_run_has_the_date_it_was_scheduled_for(monkeypatch):
    scheduled = datetime(2026, 6, 1, 2, tzinfo=UTC)
    monkeypatch.setitem(flow_run.FIELDS, "scheduled_start_time", lambda: scheduled)
    assert logical_date("") == ""
    monkeypatch.setenv("PREFECT__RUNTIME__DEPLOYMENT__ID", "a-deployment")
    assert logical_date("") == "2026-06-01"
    assert logical_date("2026-05-01") == "2026-05-01"

"""Rules of approval, on a small portfolio against a real Prefect server: what waits is published as it was verified."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from builders import FLOW_TOML, loans_with_noise

from crossrisk.registry import Registry, read_ledger
from flows.cli import main

pytestmark = pytest.mark.usefixtures("prefect_server")

QUICK = ("lineup.contenders=['source_logistic']", "gate.observed_expected=[0.5, 2.0]", "gate.replicates=100")


class Portfolio:
    """A small portfolio in a folder of its own, driven by the command line."""

    def __init__(self, folder: Path) -> None:
        self.config = folder / "mini.toml"
        self.registry = Registry(folder / "registry" / "mini")
        (folder / "data").mkdir()
        loans_with_noise().write_parquet(folder / "data" / "loans.parquet")
        self.config.write_text(FLOW_TOML)

    def retrain(self, capsys, *overrides, by="Ada"):
        capsys.readouterr()
        sets = [part for one in (*QUICK, *overrides) for part in ("--set", one)]
        assert main(["retrain", str(self.config), "--json", "--by", by, *sets]) == 0
        return json.loads(capsys.readouterr().out)

    def promote(self, run_id, decision, *, by="Grace", reason="seen"):
        return main(
            ["promote", str(self.config), "--run", run_id, "--decision", decision, "--by", by, "--reason", reason]
        )


@pytest.fixture
def portfolio(tmp_path, monkeypatch):
    monkeypatch.setenv("CROSSRISK_HOME", str(tmp_path))
    monkeypatch.delenv("CROSSRISK_DATA", raising=False)
    return Portfolio(tmp_path)


def test_what_needs_approval_is_published_by_another_person_as_it_was_verified(portfolio, capsys):
    run = portfolio.retrain(capsys, "gate.approval=required")
    assert run["verdict"] == "needs_approval"
    assert portfolio.registry.versions() == []

    assert portfolio.promote(run["run_id"], "approve", by=" ada ") == 2  # who asked may not approve
    assert "somebody else must" in capsys.readouterr().err
    assert portfolio.registry.versions() == []

    assert portfolio.promote(run["run_id"], "approve") == 0
    champion = portfolio.registry.champion()
    assert champion.manifest["approved_by"] == "Grace"
    assert champion.manifest["files"] == champion.manifest["verified_files"]
    asked, settled = read_ledger(portfolio.registry)
    assert (asked["decision"]["verdict"], asked["version"]) == ("needs_approval", None)
    assert (settled["decision"]["verdict"], settled["version"]) == ("bootstrap", champion.version)
    assert settled["ruling"] == {"ruling": "approve", "by": "Grace", "reason": "seen", "requested_by": "Ada"}

    assert portfolio.promote(run["run_id"], "approve") == 2  # once
    assert "pending: none" in capsys.readouterr().err


def test_a_rejected_run_is_gone_and_in_the_ledger(portfolio, capsys):
    run = portfolio.retrain(capsys, "gate.approval=required")
    assert portfolio.promote(run["run_id"], "reject", reason="too early") == 0
    assert portfolio.registry.versions() == []
    assert read_ledger(portfolio.registry)[-1]["decision"]["verdict"] == "reject"
    assert not list((portfolio.registry.root / "pending").iterdir())


def test_an_override_publishes_what_the_gate_refused_with_reason_and_name(portfolio, capsys):
    run = portfolio.retrain(capsys, "gate.auc_floor=0.9")
    assert run["verdict"] == "reject"
    assert "auc floor" in run["reasons"][0]
    assert portfolio.promote(run["run_id"], "approve") == 2
    assert "takes an override" in capsys.readouterr().err
    assert portfolio.promote(run["run_id"], "override", reason="pilot without volume") == 0
    record = read_ledger(portfolio.registry)[-1]
    assert record["decision"]["verdict"] == "override"
    assert record["decision"]["reasons"][0] == "override by Grace: pilot without volume"
    assert portfolio.registry.champion().manifest["decision"]["verdict"] == "override"


def test_a_tampered_model_or_another_champion_is_not_published(portfolio, capsys):
    waits = portfolio.retrain(capsys, "gate.approval=required")
    model = portfolio.registry.root / "pending" / waits["run_id"] / "model"
    fingerprint = model / "fingerprint.pb"
    kept = fingerprint.read_bytes()
    fingerprint.write_bytes(kept + b"x")
    assert portfolio.promote(waits["run_id"], "approve") == 4
    assert portfolio.registry.versions() == []
    fingerprint.write_bytes(kept)

    other = portfolio.retrain(capsys, "split.seed=5")  # publishes meanwhile
    assert other["verdict"] == "bootstrap"
    assert portfolio.promote(waits["run_id"], "approve") == 4
    assert "run again" in capsys.readouterr().err
    assert portfolio.registry.versions() == [other["version"]]


def test_every_number_is_shown_against_every_rule(portfolio, capsys):
    run = portfolio.retrain(capsys)
    folder = Path(run["paths"]["report"]).parent
    for name in (run["run_id"], str(folder), str(folder / "report.json")):
        assert main(["decide", "--explain", name, "--json"]) == 0
        explained = json.loads(capsys.readouterr().out)
        assert (explained["verdict"], explained["recorded"]) == (run["verdict"], run["verdict"])
        assert len(explained["checks"]) == 13
    assert main(["decide", "--explain", run["run_id"]]) == 0
    text = capsys.readouterr().out
    for check in explained["checks"]:
        assert check["rule"] in text
    assert re.search(r"Bootstrap: source_logistic", text)
    assert main(["decide", "--explain", "nothing"]) == 2
    assert "no retrain called 'nothing'" in capsys.readouterr().err

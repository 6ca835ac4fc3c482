"""Rules of approval, on a small portfolio against a real Prefect server: what waits is published as it was verified."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from builders import FLOW_TOML, loans_with_noise

from crossrisk.registry import Registry
from flows.cli import main
from flows.retrain import retrain

pytestmark = [pytest.mark.flow, pytest.mark.usefixtures("prefect_server")]

QUICK = ("lineup.contenders=['source_logistic']", "gate.observed_expected=[0.5, 2.0]", "gate.replicates=100")


class Portfolio:
    """A small portfolio in a folder of its own, driven by the command line."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "mini.toml"
        self.registry = Registry(folder / "registry" / "mini")

    def retrain(self, capsys, *overrides, by="Ada"):
        capsys.readouterr()
        sets = [part for one in (*QUICK, *overrides) for part in ("--set", one)]
        assert main(["retrain", str(self.config), "--json", "--by", by, *sets]) == 0
        return json.loads(capsys.readouterr().out)

    def promote(self, run_id, decision, *, by="Grace", reason="seen"):
        return main(
            ["promote", str(self.config), "--run", run_id, "--decision", decision, "--by", by, "--reason", reason]
        )

    @property
    def pending(self):
        return sorted(folder.name for folder in (self.registry.root / "pending").iterdir())


@pytest.fixture(scope="module")
def after_one_run(tmp_path_factory) -> Path:
    """A portfolio whose first model waits for approval: each test starts from a copy, stages and all."""
    folder = tmp_path_factory.mktemp("waits")
    (folder / "data").mkdir()
    loans_with_noise().write_parquet(folder / "data" / "loans.parquet")
    (folder / "mini.toml").write_text(FLOW_TOML)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CROSSRISK_HOME", str(folder))
        patch.delenv("CROSSRISK_DATA", raising=False)
        overrides = [*QUICK, "gate.approval=required"]
        result = retrain(config=str(folder / "mini.toml"), overrides=overrides, requested_by="Ada")
    assert result["verdict"] == "needs_approval"
    return folder


@pytest.fixture
def portfolio(after_one_run, tmp_path, monkeypatch):
    shutil.copytree(after_one_run, tmp_path / "copy")
    monkeypatch.setenv("CROSSRISK_HOME", str(tmp_path / "copy"))
    monkeypatch.delenv("CROSSRISK_DATA", raising=False)
    return Portfolio(tmp_path / "copy")


def test_what_needs_approval_is_published_by_another_person_as_it_was_verified(portfolio, capsys):
    (run_id,) = portfolio.pending
    assert portfolio.registry.versions() == []
    assert portfolio.promote(run_id, "approve", by=" ada ") == 2  # who asked may not approve
    assert "somebody else must" in capsys.readouterr().err
    assert portfolio.registry.versions() == []

    assert portfolio.promote(run_id, "approve") == 0
    champion = portfolio.registry.champion()
    assert champion.manifest["approved_by"] == "Grace"
    assert champion.manifest["files"] == champion.manifest["verified_files"]
    asked, settled = portfolio.registry.records()
    assert (asked["decision"]["verdict"], asked["version"]) == ("needs_approval", None)
    assert (settled["decision"]["verdict"], settled["version"]) == ("bootstrap", champion.version)
    assert settled["ruling"] == {"ruling": "approve", "by": "Grace", "reason": "seen", "requested_by": "Ada"}

    assert portfolio.promote(run_id, "approve") == 2  # once
    assert "pending: none" in capsys.readouterr().err


def memo_of(result):
    return json.loads(Path(result["paths"]["report"]).with_name("memo.json").read_text())


def test_what_waits_is_told_again_with_the_run_to_approve_and_who_may_not(portfolio, capsys):
    (waits,) = portfolio.pending
    again = portfolio.retrain(capsys, "gate.approval=required", by="Carol")
    assert (again["verdict"], again["decided_by"]) == ("needs_approval", waits)
    assert portfolio.pending == [waits]
    said = json.dumps(memo_of(again))
    assert f"--run {waits}" in said
    assert again["run_id"] != waits
    assert memo_of(again)["requested_by"] == "Ada"

    assert portfolio.promote(waits, "approve") == 0
    ruled = portfolio.retrain(capsys, "gate.approval=required", by="Carol")
    assert (ruled["verdict"], ruled["version"]) == ("bootstrap", portfolio.registry.champion().version)
    assert "Nothing has moved" not in json.dumps(memo_of(ruled))
    assert len(portfolio.registry.records()) == 2


def test_a_question_that_waited_while_the_champion_changed_is_decided_anew(portfolio, capsys):
    (waits,) = portfolio.pending
    other = portfolio.retrain(capsys)
    assert portfolio.promote(waits, "approve") == 4
    assert "Run the retrain again" in capsys.readouterr().err
    anew = portfolio.retrain(capsys, "gate.approval=required")
    assert anew["decided_by"] is None
    assert portfolio.registry.records()[-1]["compared_with"] == other["version"]


def test_an_override_of_content_that_answers_already_is_on_record_with_its_name(portfolio, capsys):
    """As after a change of code that changes no weight: the gate keeps, somebody wants it all the same."""
    first = portfolio.retrain(capsys)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.publish.find_decision", lambda records, question: None)
        patch.setattr("tasks.decide.find_decision", lambda records, question: None)
        patch.setattr("tasks.compare.find_decision", lambda records, question: None)
        kept = portfolio.retrain(capsys)
    assert kept["verdict"] == "keep"
    assert portfolio.promote(kept["run_id"], "override", reason="I want it") == 0
    line = portfolio.registry.records()[-1]
    assert (line["kind"], line["ruling"]["by"], line["ruling"]["reason"]) == ("ruling", "Grace", "I want it")
    assert (line["version"], line["answers_already"]) == (None, first["version"])
    assert portfolio.registry.versions() == [first["version"]]


def test_a_rejected_run_is_gone_and_in_the_ledger(portfolio):
    (run_id,) = portfolio.pending
    assert portfolio.promote(run_id, "reject", reason="too early") == 0
    assert portfolio.registry.versions() == []
    assert portfolio.registry.records()[-1]["decision"]["verdict"] == "reject"
    assert portfolio.pending == []


def test_an_override_publishes_what_the_gate_refused_with_reason_and_name(portfolio, capsys):
    run = portfolio.retrain(capsys, "gate.auc_floor=0.9")
    assert run["verdict"] == "reject"
    assert "auc floor" in run["reasons"][0]
    assert portfolio.promote(run["run_id"], "approve") == 2
    assert "takes an override" in capsys.readouterr().err
    assert portfolio.promote(run["run_id"], "override", reason="pilot without volume") == 0
    record = portfolio.registry.records()[-1]
    assert record["decision"]["verdict"] == "override"
    assert record["decision"]["reasons"][0] == "override by Grace: pilot without volume"
    assert portfolio.registry.champion().manifest["decision"]["verdict"] == "override"


def test_a_tampered_model_is_not_published(portfolio, capsys):
    (run_id,) = portfolio.pending
    variables = portfolio.registry.root / "pending" / run_id / "model" / "saved_model.pb"
    variables.write_bytes(variables.read_bytes()[:-10])
    assert portfolio.promote(run_id, "approve") == 4
    assert "not what was verified" in capsys.readouterr().err
    assert portfolio.registry.versions() == []


def test_what_waits_is_not_published_over_a_champion_it_was_not_compared_with(portfolio, capsys):
    (waits,) = portfolio.pending
    other = portfolio.retrain(capsys)
    assert other["verdict"] == "bootstrap"
    assert portfolio.promote(waits, "approve") == 4
    assert "Run the retrain again" in capsys.readouterr().err
    assert portfolio.registry.versions() == [other["version"]]
    assert portfolio.pending == [waits]


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

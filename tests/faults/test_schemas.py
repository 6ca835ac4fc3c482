"""Row 24, without the ledger: what another release wrote is refused with a message that says so, never half read."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from documents import document

from crossrisk.errors import ConfigError
from crossrisk.pages.memo import build_memo
from crossrisk.pages.model_card import build_card
from crossrisk.pages.monitor_page import render_month
from crossrisk.pages.reporting import render_report
from crossrisk.runs import RECORD, Run, end_killed, keep_run, read_records
from crossrisk.store import read_json, write_json
from expectations import load_suites
from flows.cli import main
from models.calibration import Calibration
from models.fitted import Contender, Logistic, load_contender, save_contender
from tasks.reference import read_reference

pytestmark = pytest.mark.fault(24)

OTHERS = (0, 2, "1", None)
"""an older version, a newer one, one of another type, none"""
RUN = Run("2024-12-31-0000aaaa", "retrain", "mini", "2024-12-31", "running", started_unix_s=1.0, step="ingest")


def rewrite(path: Path, **changes: Any) -> bytes:
    """The file's bytes with keys replaced."""
    write_json(path, {**read_json(path), **changes})
    return path.read_bytes()


# --- records of runs ---


@pytest.mark.parametrize("version", OTHERS)
def test_a_record_of_another_release_is_named_and_hides_no_other_run(tmp_path, version):
    for name in ("ours", "theirs"):
        keep_run(tmp_path / name, RUN)
    written = rewrite(tmp_path / "theirs" / RECORD, schema_version=version)
    found = read_records(tmp_path)
    assert [run.run_id for run in found.runs] == [RUN.run_id]
    assert found.unreadable == (tmp_path / "theirs" / RECORD,)
    end_killed(tmp_path, lambda folder, run: None)
    assert (tmp_path / "theirs" / RECORD).read_bytes() == written


def test_a_record_with_a_state_that_this_release_does_not_know_is_named(tmp_path):
    keep_run(tmp_path / "theirs", RUN)
    rewrite(tmp_path / "theirs" / RECORD, state="paused")
    assert read_records(tmp_path).unreadable == (tmp_path / "theirs" / RECORD,)


# --- reports ---


@pytest.mark.parametrize("version", OTHERS)
@pytest.mark.parametrize("told", [render_report, build_memo, build_card, render_month])
def test_no_page_is_drawn_of_a_result_of_another_version(told: Callable[[dict], Any], version):
    with pytest.raises(
        ValueError, match=f"result of schema_version {version}, expected 1; .* the release that wrote it"
    ):
        told({**document(), "schema_version": version})


def report(folder: Path, **changes: Any) -> Path:
    write_json(folder / "report.json", {**document(champion=True), **changes})
    return folder


def test_a_report_of_this_version_is_explained(tmp_path, capsys):
    assert main(["decide", "--explain", str(report(tmp_path)), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["recorded"] == "promote"


@pytest.mark.parametrize("version", OTHERS)
def test_the_command_refuses_to_explain_a_report_of_another_version(tmp_path, capsys, version):
    assert main(["decide", "--explain", str(report(tmp_path, schema_version=version)), "--json"]) == 2
    said = json.loads(capsys.readouterr().out)["message"]
    assert f"has schema_version {version}, expected 1: another release wrote it" in said


@pytest.mark.parametrize(
    "change",
    [
        lambda told: {"evidence": {**told["evidence"], "moon_phase": 0.5}},
        lambda told: {"evidence": {k: v for k, v in told["evidence"].items() if k != "metrics"}},
        lambda told: {"gate": {**told["gate"], "moon_phase": 0.5}},
    ],
)
def test_nor_evidence_or_limits_that_this_release_does_not_know(tmp_path, capsys, change):
    changes = change(document(champion=True))
    assert main(["decide", "--explain", str(report(tmp_path, **changes)), "--json"]) == 2
    said = json.loads(capsys.readouterr().out)["message"]
    assert "explain it with the release that wrote it" in said


def test_a_report_from_before_evidence_was_kept_is_refused(tmp_path, capsys):
    told = document(champion=True)
    del told["evidence"]
    write_json(tmp_path / "report.json", told)
    assert main(["decide", "--explain", str(tmp_path), "--json"]) == 2
    assert "holds no evidence: an earlier release wrote it" in json.loads(capsys.readouterr().out)["message"]


# --- what lies beside a version, and what a run starts from ---


@pytest.mark.parametrize("version", [0, 3, "1", None])
def test_a_fitted_contender_of_another_version_is_not_loaded(tmp_path, version):
    save_contender(Contender("m", Logistic(np.ones(2), 0.0), Calibration(0.0, 1.0)), tmp_path)
    assert load_contender(tmp_path).name == "m"
    rewrite(tmp_path / "model.json", schema_version=version)
    with pytest.raises(ValueError, match=r"model\.json: expected schema_version 1 or 2, got "):
        load_contender(tmp_path)


@pytest.mark.parametrize("version", OTHERS)
def test_a_reference_of_another_version_is_not_compared_with(tmp_path, version):
    write_json(tmp_path / "reference.json", {"schema_version": version})
    with pytest.raises(ValueError, match=f"reference.json: reference of schema_version {version}, expected 1"):
        read_reference(tmp_path / "reference.json")


@pytest.mark.parametrize("version", OTHERS)
def test_a_suite_of_another_version_is_refused_by_file(tmp_path, version):
    path = tmp_path / "own.json"
    write_json(path, {"schema_version": version, "name": "own", "max_quarantined_share": 0.1, "expectations": []})
    with pytest.raises(ConfigError, match=r"own\.json: schema_version: "):
        load_suites([str(path)], {})

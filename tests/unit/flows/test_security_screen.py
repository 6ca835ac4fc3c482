"""Attacks on the terminal: what comes from files never steers it."""

import re

import polars as pl
from builders import FLOW_TOML, portfolio
from registries import publish

from crossrisk.policy import Decision
from crossrisk.registry import Registry
from crossrisk.registry.audit import Finding
from flows.cli import main
from flows.explain import Explanation, show_explanation
from flows.screen import show_finding, show_history
from tasks.serving import follow_publication

STEERS = "\x1b]0;owned\x07\x1b[2J\x1b[31m[bold]red[/bold]\u202e\x9b31m"


def test_an_error_about_a_hostile_file_name_steers_nothing(tmp_path, capsys):
    folder = tmp_path / f"a{STEERS.replace('/', '')}"
    folder.mkdir()
    (folder / "x.toml").write_text("name = 1")
    assert main(["retrain", str(folder / "none.toml")]) == 2
    printed = capsys.readouterr().err
    assert "\\x1b]0;owned\\x07" in printed
    assert re.sub(r"[\n -~]", "", printed) == ""


def test_a_conclusion_about_hostile_columns_steers_nothing(tmp_path, capsys):
    rows = 40
    frame = pl.DataFrame({
        "id": range(rows), "bad": [i % 4 == 0 for i in range(rows)], STEERS: range(rows), "kind": ["a", STEERS] * 20,
    }).with_columns(pl.col("bad").cast(pl.Int8))  # fmt: skip
    frame.write_parquet(tmp_path / "loans.parquet")
    out = str(tmp_path / "configs")
    assert main(["init", str(tmp_path / "loans.parquet"), "--target", "kind=a", "--out", out]) in (0, 2)
    printed = capsys.readouterr()
    assert "\x1b" not in printed.out + printed.err
    assert "\x9b" not in printed.out + printed.err


def test_a_recorded_decision_is_printed_without_its_escapes_and_markup(capsys):
    decision = Decision("keep", "dan", (f"because {STEERS}",))
    show_explanation(Explanation(STEERS, decision, "promote", 1))
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "[bold]red" in printed


def test_what_people_typed_into_the_ledger_steers_no_history(capsys):
    line = {"when": "2024-01-01 00:00", "as of": "", "what": STEERS, "version": "1", "who": STEERS, "why": STEERS}
    show_history("mini", [line], None)
    printed = capsys.readouterr().out
    assert "\\x1b]0;owned" in printed
    assert "\x1b" not in printed


def test_a_finding_about_hostile_files_steers_nothing(capsys):
    show_finding(Finding("files", None, holds=False, said=f"differs in {STEERS}"))
    printed = capsys.readouterr().out
    assert "\\x1b]0;owned" in printed
    assert "\x1b" not in printed


def test_what_a_server_answers_steers_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CROSSRISK_HOME", str(tmp_path))
    (tmp_path / "mini.toml").write_text(FLOW_TOML)
    publish(Registry(tmp_path / "registry" / "mini"), 1_700_000_000)
    monkeypatch.setattr("tasks.serving._ask", lambda url: (None, f"{url}: {STEERS}"))
    command = ["serving", str(tmp_path / "mini.toml"), "--server", "http://localhost:1", "--timeout", "0.01"]
    assert main(command) == 4
    printed = capsys.readouterr().err
    assert printed.count("\\x1b]0;owned") == 2
    assert "\x1b" not in printed


def test_what_a_server_answers_after_a_publication_steers_no_log(tmp_path, monkeypatch, caplog):
    loaded = portfolio(tmp_path, overrides=("publish.server=http://localhost:1",))
    publish(Registry(loaded.folders.registry), 1_700_000_000)
    monkeypatch.setattr("tasks.serving._ask", lambda url: (None, f"{url}: {STEERS}"))
    said = follow_publication(loaded, timeout_s=0.01)
    assert "\\x1b]0;owned" in said
    assert "\x1b" not in said + caplog.text

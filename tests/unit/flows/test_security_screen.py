"""Attacks on the terminal: what comes from files never steers it."""

import re

import polars as pl

from crossrisk.policy import Decision
from flows.cli import main
from flows.explain import Explanation, show_explanation

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

"""Scoring by the real command: a child scores, a kill does no harm, the run leaves its record; a real server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from builders import loans
from prefect.settings import PREFECT_API_URL
from scoring import FIRST_VERSION, Published, write_published

from crossrisk.errors import InputError, PublishError, ValidationBlockedError
from crossrisk.failpoints import VARIABLE
from crossrisk.runs import read_runs
from flows.cli import main
from flows.score import score
from tasks.score_folder import partial_of

pytestmark = [pytest.mark.flow, pytest.mark.usefixtures("prefect_server")]

ROWS, ROWS_PER_PARTITION = 2_000, 600


@pytest.fixture
def published(tmp_path, monkeypatch) -> Published:
    """A portfolio with two versions, and applicants to score."""
    made = write_published(tmp_path, intercepts=(-2.0, 0.5))
    rows = loans(ROWS, seed=3).drop("bad", "product", "opened_on")
    for part, (first, last) in enumerate([(0, 700), (700, ROWS)]):
        path = tmp_path / "data" / "new" / f"{part}.parquet"
        path.parent.mkdir(exist_ok=True)
        rows[first:last].write_parquet(path)
    monkeypatch.setenv("CROSSRISK_HOME", str(tmp_path))
    monkeypatch.delenv("CROSSRISK_DATA", raising=False)
    return made


def arguments(folder: Path, output: str, *more: str) -> list[str]:
    sizes = ["--rows-per-partition", str(ROWS_PER_PARTITION)]
    return ["score", str(folder / "mini.toml"), "--input", "new", "--output", str(folder / output), *sizes, *more]


def command(folder: Path, output: str, *more: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, on the server of these tests."""
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", *arguments(folder, output, *more)],
        env={**os.environ, "PREFECT_API_URL": str(PREFECT_API_URL.value()), **environ},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def parts(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("part-*.parquet")}


def test_a_scoring_that_is_killed_goes_on_and_ends_with_the_bytes_of_one_that_was_not(published, tmp_path):
    killed = command(tmp_path, "out", **{VARIABLE: "score.1=kill"})
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
    partial = partial_of(tmp_path / "out")
    assert not (tmp_path / "out").exists()
    finished = {name: (partial / name).stat() for name in ("part-00000.parquet", "part-00001.parquet")}

    again = command(tmp_path, "out", "--json")
    assert again.returncode == 0, again.stderr[-2000:]
    result = json.loads(again.stdout)
    assert (result["rows"], result["scored"], result["reused_partitions"]) == (ROWS, ROWS, 2)
    for name, before in finished.items():
        after = (tmp_path / "out" / name).stat()
        assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino), name

    assert main(arguments(tmp_path, "whole")) == 0
    assert parts(tmp_path / "out") == parts(tmp_path / "whole")
    assert len(parts(tmp_path / "whole")) == 4
    assert {run.state for run in read_runs(tmp_path / "work" / "mini" / "runs")} == {"killed", "completed"}


def test_the_command_says_what_came_of_it_and_answers_again_without_work(published, tmp_path, capsys, monkeypatch):
    assert main(arguments(tmp_path, "out", "--version", str(FIRST_VERSION))) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == f"version      {FIRST_VERSION} of mini (source_logistic, as of 2024-12-31)"
    assert printed[1] == "rows         2,000 of 2 files, 2,000 scored"
    assert f"note         version {FIRST_VERSION} is not the champion" in printed
    page = Path(next(line.split()[1] for line in printed if line.startswith("page")))
    assert "scored by version" in page.read_text()
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    scored = pl.read_parquet(tmp_path / "out" / "part-*.parquet")
    assert scored["version"].unique().to_list() == [FIRST_VERSION]

    monkeypatch.setattr("tasks.score.run_worker", None)  # would fail
    assert main(arguments(tmp_path, "out", "--version", str(FIRST_VERSION), "--json")) == 0
    result = json.loads(capsys.readouterr().out)
    assert result.pop("is_new") is False
    assert result.pop("paths")["output"] == str(tmp_path / "out")
    assert result == summary


def test_another_question_ends_with_2_and_touches_nothing(published, tmp_path, capsys):
    assert main(arguments(tmp_path, "out")) == 0
    before = parts(tmp_path / "out")
    capsys.readouterr()
    assert main(arguments(tmp_path, "out", "--version", str(FIRST_VERSION))) == 2
    assert "give another --output" in capsys.readouterr().err
    assert parts(tmp_path / "out") == before


def test_a_stop_rule_ends_with_3_names_itself_and_nothing_is_scored(published, tmp_path):
    path = tmp_path / "data" / "new" / "1.parquet"
    pl.read_parquet(path).with_columns(region=pl.lit("atlantis")).write_parquet(path)
    with pytest.raises(ValidationBlockedError, match="nothing was scored: stop rule 'region-sold'") as refused:
        score(config="mini.toml", input="new", output="out")
    assert refused.value.exit_code == 3
    assert not (tmp_path / "out").exists()
    assert not partial_of(tmp_path / "out").exists()
    (run,) = read_runs(tmp_path / "work" / "mini" / "runs")
    assert (run.kind, run.state, run.subject) == ("score", "blocked", "out")


def test_a_damaged_or_unknown_version_scores_nothing(published, tmp_path):
    with pytest.raises(InputError, match="one of the 2 versions"):
        score(config="mini.toml", input="new", output="out", version=17)
    (published.champion.folder / "saved_model.pb").write_text("other")
    with pytest.raises(PublishError, match="differs from its manifest"):
        score(config="mini.toml", input="new", output="out")
    assert not (tmp_path / "out").exists()

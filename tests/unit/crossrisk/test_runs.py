"""Rules of a run's record: it tells how far a run came, also of one whose process was killed."""

import subprocess
import sys
from dataclasses import replace

from crossrisk.run_page import STATES, render_run
from crossrisk.runs import Run, alive, keep_run, read_runs

STARTED = Run("2026-06-30-abc", "retrain", "demo", "2026-06-30", "running", 1000.0, step="ingest", page="report.html")


def test_the_last_started_comes_first_and_other_folders_are_no_runs(tmp_path):
    for name, started in (("a", 3.0), ("b", 9.0), ("c", 5.0)):
        keep_run(tmp_path / name, replace(STARTED, run_id=name, state="completed", started_unix_s=started))
    (tmp_path / "notes").mkdir()
    assert [run.run_id for run in read_runs(tmp_path)] == ["b", "c", "a"]
    assert read_runs(tmp_path / "nowhere") == []


def test_a_record_comes_back_as_it_was_kept(tmp_path):
    kept = replace(STARTED, state="failed", message="x", seconds={"ingest": 1.5}, ended_unix_s=2000.0)
    keep_run(tmp_path / "a", kept)
    assert read_runs(tmp_path) == [kept]


def test_a_run_is_running_for_as_long_as_its_process_lives(tmp_path):
    with alive(tmp_path / "a"):
        keep_run(tmp_path / "a", STARTED)
        assert [run.state for run in read_runs(tmp_path)] == ["running"]
    assert [run.state for run in read_runs(tmp_path)] == ["killed"]


def test_a_killed_process_leaves_a_run_that_was_killed(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from crossrisk.runs import *\n"
        "with alive(Path(sys.argv[1])):\n"
        "    keep_run(Path(sys.argv[1]), Run('a', 'retrain', 'demo', '2026-06-30', 'running', 1.0, step='train dan'))\n"
        "    print('ready', flush=True); time.sleep(60)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        assert read_runs(tmp_path)[0].state == "running"
        process.kill()
        process.wait()
    (run,) = read_runs(tmp_path)
    assert (run.state, run.step) == ("killed", "train dan")


def test_the_page_says_state_reason_step_and_champion_and_runs_no_foreign_markup():
    hostile = "<script>alert(1)</script>"
    failed = replace(STARTED, state="failed", message=hostile, portfolio=hostile, seconds={hostile: 2.0})
    page = render_run(failed, champion=17, attached=["validation.html"])
    assert "<script" not in page
    for said in ("Failed", "&lt;script&gt;", "<dd>ingest</dd>", "version 17", 'href="validation.html"'):
        assert said in page
    for state, words in STATES.items():
        assert words.word in render_run(replace(STARTED, state=state), champion=None)

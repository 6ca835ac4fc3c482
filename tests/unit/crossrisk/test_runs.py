"""Rules of a run's record: it tells how far a run came, also of one whose process was killed."""

import json
import subprocess
import sys
import threading
from dataclasses import asdict, replace
from functools import partial

import pytest

from crossrisk.pages.run_page import STATES, render_run, write_killed_page
from crossrisk.runs import Run, alive, end_killed, keep_run, read_records, read_runs

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


def test_the_page_of_a_start_says_when_it_started_and_that_no_step_was_done():
    page = render_run(replace(STARTED, started_unix_s=1_750_000_000.0, step=None), champion=None)
    assert "<dd>2025-06-15 15:06 UTC</dd>" in page
    assert "the first, when this page was written" in page
    assert "the first, when" not in render_run(replace(STARTED, step=None, state="failed"), champion=None)


# --- records that cannot be read ---


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\x00",
        "[]",
        '{"a": 1}',
        '{"schema_version": 1, "a": 1}',
        json.dumps({"schema_version": 2, **asdict(STARTED)}),
        json.dumps({"schema_version": 1, **asdict(STARTED), "state": "asleep"}),
        json.dumps({"schema_version": 1, **asdict(STARTED), "started_unix_s": "yesterday"}),
    ],
)
def test_a_record_that_cannot_be_read_is_named_and_hides_no_other(tmp_path, text):
    done = replace(STARTED, state="completed")
    keep_run(tmp_path / "b", done)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "run.json").write_text(text)
    records = read_records(tmp_path)
    assert (records.runs, records.unreadable) == ((done,), (tmp_path / "a" / "run.json",))
    end_killed(tmp_path, lambda folder, run: pytest.fail("nobody was killed"))
    assert (tmp_path / "a" / "run.json").read_text() == text


# --- who was killed ---


def a_start(folder):
    """What a run leaves that was killed in its first step."""
    keep_run(folder, STARTED)
    (folder / "lock").touch()
    (folder / "report.html").write_text(render_run(replace(STARTED, step=None), champion=None), encoding="utf-8")


def test_a_killed_run_is_ended_once_with_record_and_page(tmp_path):
    a_start(tmp_path / "a")
    (tmp_path / "a" / "validation.html").write_text("checked")
    end_killed(tmp_path, partial(write_killed_page, champion=17))
    written = json.loads((tmp_path / "a" / "run.json").read_text())
    assert (written["state"], written["step"]) == ("killed", "ingest")
    page = (tmp_path / "a" / "report.html").read_text()
    for said in ("Killed", "<dd>ingest</dd>", "version 17", 'href="validation.html"'):
        assert said in page
    assert "Running" not in page
    end_killed(tmp_path, lambda folder, run: pytest.fail("it was ended before"))
    assert (tmp_path / "a" / "report.html").read_text() == page


def test_a_living_run_is_left_alone(tmp_path):
    a_start(tmp_path / "a")
    page = (tmp_path / "a" / "report.html").read_text()
    with alive(tmp_path / "a"):
        end_killed(tmp_path, lambda folder, run: pytest.fail("it lives"))
    assert (tmp_path / "a" / "report.html").read_text() == page
    assert json.loads((tmp_path / "a" / "run.json").read_text())["state"] == "running"


def test_a_run_cannot_start_again_while_it_is_being_ended(tmp_path):
    a_start(tmp_path / "a")
    has_started = threading.Event()

    def start_again():
        with alive(tmp_path / "a"):
            has_started.set()

    again = threading.Thread(target=start_again)

    def look(folder, run):
        again.start()
        assert not has_started.wait(0.3)

    end_killed(tmp_path, look)
    again.join(10)
    assert has_started.is_set()


def test_a_report_written_before_the_kill_is_kept(tmp_path):
    a_start(tmp_path / "a")
    (tmp_path / "a" / "report.html").write_text('<section class="verdict is-promote">Promoted</section>')
    end_killed(tmp_path, partial(write_killed_page, champion=None))
    assert "Promoted" in (tmp_path / "a" / "report.html").read_text()
    assert read_runs(tmp_path)[0].state == "killed"


def test_a_killed_run_without_a_page_gets_none(tmp_path):
    keep_run(tmp_path / "a", replace(STARTED, page=None))
    end_killed(tmp_path, partial(write_killed_page, champion=None))
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["run.json"]

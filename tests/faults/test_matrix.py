"""Rules of the matrix itself: every row is held or says what is missing, and the runner tells the truth about a run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from rows import ROWS, Row
from verdicts import Finished, judge, last_line, page, read_tests

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
ROW = Row(12, "a fault | of two words", "it is said")


@pytest.fixture(scope="module")
def collected(tmp_path_factory) -> list[Finished]:
    """Every test beside this file, whatever was asked of the session that runs this one."""
    record = tmp_path_factory.mktemp("collected") / "record.jsonl"
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", str(HERE), "-p", "recorder"]
    done = subprocess.run(
        [*command, "--record-faults", str(record), "-p", "no:cacheprovider"],
        cwd=ROOT, capture_output=True, text=True, check=False, env=with_path(),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    return read_tests(record.read_text().splitlines())


def with_path() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH"))))}


def test_rows_are_numbered_from_one_to_twenty_six():
    assert [row.number for row in ROWS] == list(range(1, 27))


def test_every_row_has_a_test_or_says_what_is_missing(collected):
    held = {number for test in collected for number in test.rows}
    assert [row.number for row in ROWS if row.number not in held and not row.missing] == []


def test_every_test_of_the_folder_belongs_to_a_row_that_exists(collected):
    others = [test for test in collected if "/test_matrix.py::" not in test.test]
    assert [test.test for test in others if not test.rows] == []
    assert {number for test in others for number in test.rows} <= {row.number for row in ROWS}


# --- verdicts ---


def verdict_of(*outcomes: str, row: Row = ROW):
    tests = [Finished(f"t.py::{n}", (row.number,), outcome, 1.0, "no net") for n, outcome in enumerate(outcomes)]
    (verdict,) = judge([row], tests)
    return verdict


@pytest.mark.parametrize(
    ("outcomes", "kind", "is_held"),
    [
        (("passed", "passed"), "holds", True),
        (("passed", "failed", "skipped"), "FAILS", False),
        (("passed", "not finished"), "FAILS", False),
        (("passed", "skipped"), "skipped", False),
        (("left out",), "skipped", False),
        ((), "not yet built", False),
    ],
)
def test_a_row_holds_only_where_every_test_of_it_passed(outcomes, kind, is_held):
    verdict = verdict_of(*outcomes)
    assert (verdict.kind, verdict.is_held) == (kind, is_held)


def test_a_row_that_misses_a_part_holds_in_part_and_says_which():
    verdict = verdict_of("passed", row=Row(26, "noise", "no promotion", "coverage is open"))
    assert (verdict.is_held, str(verdict)) == (False, "holds, in part: coverage is open")


def test_a_skipped_row_says_why_and_how_many_of_its_tests():
    assert str(verdict_of("passed", "skipped", "skipped")) == "skipped: no net (2 of 3 tests)"


def test_the_page_keeps_its_table_whatever_a_row_says():
    lines = page([verdict_of("passed")], "2 cores").splitlines()
    (line,) = [line for line in lines if line.startswith("| 12 |")]
    assert line.replace("\\|", "").count("|") == 7
    assert (
        "**1 of 1 hold, 0 in part (built but for what the verdict says); 0 fail, 0 were skipped, 0 are not yet built.**"
        in "\n".join(lines)
    )


# --- the runner ---

TESTS = """
import os
import pytest

@pytest.mark.fault(12)
def test_held(): pass

@pytest.mark.fault(13)
@pytest.mark.skip(reason="needs a tape drive")
def test_skipped(): pass

@pytest.mark.fault(15)
@pytest.mark.heavy
def test_heavy(): pass
"""
FAILING = """
@pytest.mark.fault(14)
def test_failing(): assert 1 == 2, "one is not two"
"""
DYING = """
@pytest.mark.fault(14)
def test_dying(): os._exit(0)

@pytest.mark.fault(14)
def test_after(): pass
"""


def run_matrix(folder: Path, text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_tiny.py").write_text(text)
    command = [sys.executable, str(HERE / "run_matrix.py"), str(folder), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_runner_fails_where_a_row_fails_and_ends_with_the_count(tmp_path):
    done = run_matrix(tmp_path, TESTS + FAILING, "--document", str(tmp_path / "faults.md"))
    assert done.returncode == 1, done.stderr
    assert done.stdout.endswith("\n2 of 26 hold\n")
    assert "one is not two" in done.stdout
    assert "skipped: needs a tape drive" in done.stdout
    assert "FAILS: test_failing" in (tmp_path / "faults.md").read_text()
    assert [line.split()[:2] for line in done.stderr.splitlines()] == [
        ["12", "passed"], ["13", "skipped"], ["15", "passed"], ["14", "failed"],
    ]  # fmt: skip


def test_a_skipped_row_does_not_fail_and_quick_leaves_heavy_tests_out_and_writes_no_page(tmp_path):
    done = run_matrix(tmp_path, TESTS, "--quick", "--document", str(tmp_path / "faults.md"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("\n1 of 26 hold\n")
    assert "left out by --quick" in done.stdout
    assert not (tmp_path / "faults.md").exists()


def test_a_test_that_takes_its_process_with_it_fails_its_row(tmp_path):
    done = run_matrix(tmp_path, TESTS + DYING)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "FAILS: test_dying, test_after" in done.stdout
    assert done.stdout.endswith("\n2 of 26 hold\n")


@pytest.mark.parametrize("text", ["import nothing_of_this_name\n", ""])
def test_a_file_that_cannot_be_read_or_no_test_at_all_fails(tmp_path, text):
    done = run_matrix(tmp_path, text)
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout.endswith("\n0 of 26 hold\n")


def test_the_last_line_counts_rows():
    assert last_line([verdict_of("passed"), verdict_of("failed"), verdict_of()]) == "1 of 3 hold"

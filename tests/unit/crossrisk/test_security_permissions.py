"""What lies about customers is its owner's alone, whatever the umask of the process that wrote it."""

import os
import stat
from pathlib import Path

import polars as pl
import pytest

from crossrisk.runs import alive
from crossrisk.store import make_private, stage, write_text
from expectations import Rule, Suite
from tasks.validate import validate_files


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=[0o000, 0o022, 0o077], ids=oct, autouse=True)
def umask(request):
    before = os.umask(request.param)
    yield
    os.umask(before)


def test_stages_are_a_folder_that_only_the_owner_enters(tmp_path):
    def build(folder: Path) -> dict[str, int]:
        write_text(folder / "rows.parquet", "ids of customers")
        return {}

    made = stage(tmp_path / "work" / "mini" / "stages", "split", {}, build)
    assert (made.folder / "rows.parquet").exists()
    assert mode(tmp_path / "work" / "mini" / "stages") == 0o700


def test_stages_that_were_open_are_closed_by_the_next_run(tmp_path):
    stages = tmp_path / "stages"
    stages.mkdir()
    stages.chmod(0o777)
    stage(stages, "split", {}, lambda folder: {})
    assert mode(stages) == 0o700


def test_runs_are_a_folder_that_only_the_owner_enters(tmp_path):
    with alive(tmp_path / "work" / "mini" / "runs" / "2024-12-31-abc"):
        assert mode(tmp_path / "work" / "mini" / "runs") == 0o700


def test_the_quarantine_is_the_owners_wherever_it_is_moved_to(tmp_path):
    pl.DataFrame({"id": [1, 2], "x": [None, 1.0]}).write_parquet(tmp_path / "rows.parquet")
    rule = Rule("r", "expect_column_values_to_not_be_null", {"column": "x"}, "quarantine", "w.", "o", "test.json")
    report = validate_files(
        [tmp_path / "rows.parquet"], Suite("s", 1.0, (rule,), ()), tmp_path / "out", id_column="id", hive=False
    )
    assert mode(report.quarantine_file) == 0o600
    assert pl.read_parquet(report.quarantine_file)["id"].to_list() == [1]


def test_a_file_or_folder_is_made_private_and_a_folder_made_at_all(tmp_path):
    (tmp_path / "seen_rows.parquet").touch(mode=0o644)
    assert mode(make_private(tmp_path / "seen_rows.parquet")) == 0o600
    assert mode(make_private(tmp_path / "a" / "scores")) == 0o700


def test_what_lies_in_a_private_folder_keeps_its_mode_so_that_a_copied_model_can_be_served(tmp_path):
    private = make_private(tmp_path / "stages")
    (private / "model").mkdir()
    (private / "model").chmod(0o755)
    make_private(private)
    assert mode(private / "model") == 0o755

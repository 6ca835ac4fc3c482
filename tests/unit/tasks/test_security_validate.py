"""Attacks through DuckDB: whatever SQL is run, it reaches the validated files and its own folder and nothing else."""

from pathlib import Path

import polars as pl
import pytest
from sqlalchemy.exc import SQLAlchemyError

from expectations import Rule, Suite
from tasks.gx_duckdb import ROWS, open_parquet_view
from tasks.validate import validate_files


@pytest.fixture
def place(tmp_path) -> Path:
    """loans/ with a file to validate, secret.parquet and secret.csv beside it, out/ to write to."""
    for folder in ("loans", "out"):
        (tmp_path / folder).mkdir()
    pl.DataFrame({"id": [1, 2, 3], "x": ["a", "b", None]}).write_parquet(tmp_path / "loans" / "rows.parquet")
    pl.DataFrame({"id": [1, 2], "key": ["of", "the house"]}).write_parquet(tmp_path / "secret.parquet")
    (tmp_path / "secret.csv").write_text("key\nof the house\n")
    return tmp_path


ATTACKS = [
    "SELECT * FROM read_csv('{place}/secret.csv')",
    "SELECT * FROM read_text('/etc/hostname')",
    "SELECT * FROM read_parquet('{place}/secret.parquet')",
    "SELECT * FROM read_parquet('{place}/out/../secret.parquet')",
    "SELECT * FROM '{place}/secret.parquet'",
    'SELECT * FROM "{place}/secret.csv"',
    "SELECT * FROM read_parquet('http://127.0.0.1:9/a.parquet')",
    "SELECT * FROM glob('{place}/*')",
    "COPY (SELECT 1) TO '{place}/written.csv'",
    "COPY (SELECT 1) TO '{place}/loans/written.csv'",
    "EXPORT DATABASE '{place}/exported'",
    "ATTACH '{place}/other.db'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET enable_external_access = true",
    "SET allowed_directories = ['/']",
    "SET allowed_paths = ['{place}/secret.csv']",
    "SET temp_directory = '{place}'",
]


@pytest.mark.parametrize("attack", ATTACKS)
def test_sql_reaches_the_validated_files_and_nothing_else(place, attack):
    before = sorted(place.rglob("*"))
    files = [place / "loans" / "rows.parquet"]
    with open_parquet_view(files, reads={"x"}, hive=False, out=place / "out", memory_limit="500MB") as view:
        with pytest.raises(SQLAlchemyError):
            view.connection.exec_driver_sql(attack.replace("{place}", str(place)))
        view.connection.rollback()
        assert view.connection.exec_driver_sql(f"SELECT count(*) FROM {ROWS}").scalar_one() == 3
    assert [path for path in place.rglob("*") if path not in before and path.parent != place / "out"] == []


def test_names_that_are_patterns_and_relative_paths_are_read_all_the_same(place, monkeypatch):
    names = ["a[1]*.parquet", "it's,b?.parquet", "plain.parquet"]
    for name in names:
        pl.DataFrame({"id": [name]}).write_parquet(place / "loans" / name)
    (place / "loans" / "link.parquet").symlink_to(place / "loans" / "plain.parquet")
    monkeypatch.chdir(place)
    files = [Path("loans") / name for name in (*names, "link.parquet")]
    present = Rule("present", "expect_column_values_to_be_null", {"column": "id"}, "quarantine", "w.", "o", "test.json")
    report = validate_files(files, Suite("test", 1.0, (present,), ()), Path("out"), id_column="id", hive=False)
    assert report.rows == 4
    assert pl.read_parquet(report.quarantine_file).height == 4

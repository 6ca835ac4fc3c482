"""Row 12: one of several Parquet files is broken. The error names that file, and nothing is made of the others."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
from builders import TOML, loans, portfolio

from crossrisk.errors import InputError
from tasks.ingest import ingest

pytestmark = pytest.mark.fault(12)

BROKEN = "loans/2024-02.parquet"
FOLDER_TOML = TOML.replace("loans.parquet", "loans")
CROSSRISK = str(Path(sys.executable).parent / "crossrisk")


def deliver(folder: Path, toml: str = FOLDER_TOML) -> Path:
    """Three files of one table below `folder`/data; the path of the second."""
    path = folder / "data" / BROKEN
    path.parent.mkdir(parents=True)
    for name, rows in zip(("2024-01", "2024-02", "2024-03"), loans().iter_slices(200), strict=True):
        rows.write_parquet(path.with_name(f"{name}.parquet"))
    (folder / "mini.toml").write_text(toml)
    return path


def whole(path: Path) -> bytes:
    return path.read_bytes()


def without_half_of_its_rows(path: Path) -> bytes:
    """The pages end half way, the footer is whole: what a copy leaves that skips blocks."""
    content = whole(path)
    footer = int.from_bytes(content[-8:-4], "little") + 8
    pages = content[:-footer]
    return pages[: len(pages) // 2] + content[-footer:]


def with_half_of_its_rows_zeroed(path: Path) -> bytes:
    """Sizes are right, half of the pages were never flushed: what a crashed host leaves."""
    content = whole(path)
    footer = int.from_bytes(content[-8:-4], "little") + 8
    pages = content[:-footer]
    return pages[: len(pages) // 2].ljust(len(pages), b"\0") + content[-footer:]


BYTES: dict[str, Callable[[Path], bytes]] = {
    "footer cut by one byte": lambda path: whole(path)[:-1],
    "footer cut in half": lambda path: whole(path)[: -(int.from_bytes(whole(path)[-8:-4], "little") // 2)],
    "first half only": lambda path: whole(path)[: len(whole(path)) // 2],
    "no byte": lambda path: b"",
    "magic of another format": lambda path: whole(path)[:-4] + b"ORC1",
    "CSV under a Parquet name": lambda path: pl.read_parquet(path).write_csv().encode(),
    "footer length beyond the file": lambda path: whole(path)[:-8] + b"\xff\xff\xff\x7fPAR1",
    "half a row group, cut": without_half_of_its_rows,
    "half a row group, zeroed": with_half_of_its_rows_zeroed,
}


@pytest.mark.parametrize("fault", BYTES)
def test_a_broken_file_among_whole_ones_is_named_and_nothing_is_made(tmp_path, fault):
    path = deliver(tmp_path)
    path.write_bytes(BYTES[fault](path))
    loaded = portfolio(tmp_path, toml=FOLDER_TOML)
    with pytest.raises(InputError) as refused:
        ingest.fn(loaded)
    said = str(refused.value)
    assert said.startswith(f"{BROKEN}: not readable as Parquet")
    assert "Nothing was made of it; deliver it again" in said
    assert not list(loaded.folders.work.rglob("stage.json"))


def test_a_hole_in_the_values_is_found_where_the_writer_left_checksums(tmp_path):
    """Of a column without compression every byte is a value: only its checksum tells zeros from a hole."""
    path = deliver(tmp_path)
    rows = pl.concat([pl.read_parquet(path)] * 20)
    pq.write_table(rows.to_arrow(), path, compression="none", use_dictionary=False, write_page_checksum=True)
    content = whole(path)
    middle = len(content) // 2
    path.write_bytes(content[:middle] + bytes(64) + content[middle + 64 :])
    with pytest.raises(InputError, match=f"{BROKEN}: not readable as Parquet .*CRC"):
        ingest.fn(portfolio(tmp_path, toml=FOLDER_TOML))


MIXED: dict[str, tuple[Callable[[pl.DataFrame], pl.DataFrame], str]] = {
    "another table": (lambda f: pl.DataFrame({"a": [1]}), "'loan_id' is missing"),
    "a column less": (lambda f: f.drop("income_usd"), "'income_usd' is missing"),
    "a column of another type": (
        lambda f: f.with_columns(pl.col("balance_usd").cast(pl.Int64)),
        "'balance_usd' is double",
    ),
    "ids of another type": (lambda f: f.with_columns(pl.col("loan_id").cast(pl.String)), "'loan_id' is int64"),
}


@pytest.mark.parametrize("fault", MIXED)
def test_files_that_are_not_one_table_are_refused_with_the_odd_one_named(tmp_path, fault):
    path = deliver(tmp_path)
    change, message = MIXED[fault]
    change(pl.read_parquet(path)).write_parquet(path)
    with pytest.raises(InputError) as refused:
        ingest.fn(portfolio(tmp_path, toml=FOLDER_TOML))
    assert BROKEN in str(refused.value)
    assert message in str(refused.value)


def test_files_that_differ_only_in_how_they_were_written_are_one_table(tmp_path):
    path = deliver(tmp_path)
    pq.write_table(pl.read_parquet(path).to_arrow(), path, compression="gzip", row_group_size=7, version="1.0")
    assert ingest.fn(portfolio(tmp_path, toml=FOLDER_TOML)).facts["rows"] == 600


@pytest.mark.heavy
def test_the_command_ends_with_its_code_for_bad_input_and_trains_nothing(tmp_path):
    path = deliver(tmp_path)
    path.write_bytes(BYTES["first half only"](path))
    environ = {key: value for key, value in os.environ.items() if key != "CROSSRISK_DATA"}
    environ |= {"CROSSRISK_HOME": str(tmp_path), "PREFECT_HOME": str(tmp_path / "prefect")}
    command = [CROSSRISK, "retrain", str(tmp_path / "mini.toml"), "--json"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    said = json.loads(done.stdout)
    assert (done.returncode, said["exit_code"], said["error"]) == (2, 2, "InputError"), done.stderr[-2000:]
    assert said["message"].startswith(BROKEN)
    assert not (tmp_path / "registry").exists()
    assert not list((tmp_path / "work").rglob("stage.json"))
    (record,) = (tmp_path / "work").rglob("run.json")
    assert json.loads(record.read_text())["state"] == "failed"

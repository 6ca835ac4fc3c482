"""Attacks by files: places outside the data, links, pipes, and sizes that a small file can claim."""

import os

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import TOML, loans, portfolio

from crossrisk.errors import InputError
from crossrisk.limits import MOST_CELL_BYTES, MOST_COLUMNS, MOST_ROWS
from tasks import input_files
from tasks.ingest import ingest
from tasks.input_files import InputFile, find_files, refuse_too_many_rows


@pytest.mark.parametrize("path", ["/etc", "../secret.parquet", "a/../../secret.parquet", "../*", "**/../../*.parquet"])
def test_a_path_leads_nowhere_but_below_the_data(tmp_path, path):
    (tmp_path / "data").mkdir()
    loans().write_parquet(tmp_path / "secret.parquet")
    with pytest.raises(InputError, match=r"leads outside data\.root"):
        find_files(tmp_path / "data", path)


@pytest.mark.parametrize("path", ["loans.parquet", "month=1", "month=1/loans.parquet", "*.parquet", "m*/*.parquet"])
def test_a_link_to_outside_the_data_is_refused_wherever_it_is_found(tmp_path, path):
    data = tmp_path / "data"
    (tmp_path / "elsewhere").mkdir()
    data.mkdir()
    loans().write_parquet(tmp_path / "elsewhere" / "loans.parquet")
    (data / "loans.parquet").symlink_to(tmp_path / "elsewhere" / "loans.parquet")
    (data / "month=1").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"is a link to outside data\.root|no Parquet file at"):
        find_files(data, path)


def test_a_pipe_is_no_file_and_nobody_waits_for_it(tmp_path):
    os.mkfifo(tmp_path / "loans.parquet")
    with pytest.raises(InputError, match="no Parquet file at"):
        find_files(tmp_path, "loans.parquet")


def test_a_hundred_thousand_columns_are_refused_by_their_number(tmp_path):
    wide = pa.schema([(f"c{i}", pa.int8()) for i in range(100_000)])
    (tmp_path / "data").mkdir()
    pq.write_table(wide.empty_table(), tmp_path / "data" / "loans.parquet")
    with pytest.raises(InputError, match=f"100,000 columns, at most {MOST_COLUMNS:,} are read"):
        ingest.fn(portfolio(tmp_path))


def test_a_text_of_a_hundred_megabytes_repeated_in_a_small_file_is_refused(tmp_path):
    frame = loans()
    texts = pa.array(["x" * (100 << 20), "north"], pa.string())
    region = pa.DictionaryArray.from_arrays(pa.array([i % 2 for i in range(frame.height)], pa.int32()), texts)
    table = pa.table({**{name: frame[name].to_arrow() for name in frame.columns}, "region": region})
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / "loans.parquet"
    pq.write_table(table, path, compression="zstd")
    assert path.stat().st_size < 1 << 20  # and 30 GB unpacked
    with pytest.raises(InputError, match=r"'region' holds a text of 104,857,600 bytes, at most 10,000 are read"):
        ingest.fn(portfolio(tmp_path))


def test_a_text_as_long_as_allowed_is_read(tmp_path):
    long = loans().with_columns(region=pl.lit("x" * MOST_CELL_BYTES))
    assert ingest.fn(portfolio(tmp_path, long)).facts["rows"] == 600


def test_a_long_text_in_a_column_that_nothing_reads_is_left_alone(tmp_path):
    remarked = loans().with_columns(remarks=pl.lit("x" * (2 * MOST_CELL_BYTES)))
    assert ingest.fn(portfolio(tmp_path, remarked)).facts["rows"] == 600


def test_a_stretch_of_a_column_that_cannot_be_held_at_once_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(input_files, "MOST_CHUNK_BYTES", 1000)
    with pytest.raises(InputError, match=r"row group 0 has .* write smaller row groups"):
        ingest.fn(portfolio(tmp_path, loans()))


@pytest.mark.parametrize("key", ["data.path", "label.outcomes"])
def test_thousands_of_millions_of_rows_are_refused_by_the_footers_alone(tmp_path, key):
    files = [InputFile(tmp_path / name, name, pa.schema([]), (), MOST_ROWS) for name in ("a", "b")]
    refuse_too_many_rows(files[:1], key)
    with pytest.raises(InputError, match=rf"{key} leads to 200,000,000 rows in 2 files, at most 100,000,000"):
        refuse_too_many_rows(files, key)


@pytest.mark.parametrize("kind", ["loans", "revisions"])
def test_rows_are_counted_before_a_file_is_read(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(input_files, "MOST_ROWS", 700)
    monkeypatch.setattr(input_files, "decode", lambda *_: pytest.fail("read"))
    frame = loans(600 if kind == "revisions" else 701)
    revisions = pl.DataFrame({"loan_id": [1] * 701, "known_on": ["2024-01-01"] * 701, "bad": [0] * 701})
    loaded = portfolio(
        tmp_path,
        frame,
        toml=TOML.replace('column = "bad"', 'column = "bad"\nrevisions = "revisions.parquet"\nknown_date = "known_on"')
        if kind == "revisions"
        else TOML,
    )
    revisions.write_parquet(tmp_path / "data" / "revisions.parquet")
    with pytest.raises(InputError, match=r"leads to 701 rows in 1 file, at most 700"):
        ingest.fn(loaded)

"""Attacks by the columns of a stranger's file on the portfolio that init drafts of it."""

import polars as pl
import pytest

from crossrisk.config import load_portfolio
from flows.init import Question, start_portfolio
from tasks.ingest import ingest, scan_ingested

ROWS = 300
LINES = 'a"\n[publish]\nregistry = "/somewhere"\n#'


@pytest.mark.parametrize("name", ["*", "^.*$", "^bad$", "^sex$", LINES, '"; DROP TABLE x; --', "\x1b[31m", "${label}"])
def test_a_column_is_itself_whatever_its_name_means_to_others(tmp_path, name):
    frame = pl.DataFrame(
        {
            "loan_id": range(ROWS),
            "bad": pl.Series([int(i % 3 == 0) for i in range(ROWS)], dtype=pl.Int8),
            "product": ["card", "loan"] * (ROWS // 2),
            name: [float(i) for i in range(ROWS)],
            "income": [7.0 * i % 11 for i in range(ROWS)],
        }
    )
    frame.write_parquet(tmp_path / "loans.parquet")
    environ = {"CROSSRISK_HOME": str(tmp_path), "CROSSRISK_DATA": str(tmp_path)}
    start = start_portfolio(Question(data="loans.parquet", targets=("product=card",)), tmp_path / "configs", environ)
    loaded = load_portfolio(start.config, environ=environ)
    assert loaded.folders.registry == tmp_path / "registry" / "loans"
    assert loaded.portfolio.data.id == "loan_id"
    assert loaded.portfolio.label.column == "bad"
    ours = {theirs: ours for ours, theirs in loaded.portfolio.data.columns.items()}.get(name, name)
    rows = scan_ingested(loaded, ingest.fn(loaded)).collect()
    assert rows[ours].to_list() == frame[name].to_list()
    assert rows["loan_id"].to_list() == list(range(ROWS))

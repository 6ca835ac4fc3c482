"""Rules of scoring one batch, with a model made up here: what is null where, reasons, two readers that disagree."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from crossrisk.bands import band_by_points
from crossrisk.errors import CrossriskError, InputError
from crossrisk.features import RawColumn
from crossrisk.stability import CategoryBins, NumberBins
from models.bundle import Scores
from models.score_worker import NO_NUMBER, ROW_ID, SCORED, RowFile, Scorer, Tally, read_rows

UNSCORED = {"row": pl.Int64, "id": pl.String, "status": pl.String, "detail": pl.String}


@dataclass
class Model:
    """Says p = x, and 600 - 100 p points."""

    reasons: int | None = 2

    columns = (RawColumn(name="x", kind="number"),)

    def score_batch(self, batch):
        return Scores(batch["x"], 600 - 100 * batch["x"])

    def explain_batch(self, batch):
        if self.reasons is None:
            return None
        shape = (len(batch["x"]), self.reasons)
        features = np.full(shape, "", object)
        features[:, 0] = "x"
        return SimpleNamespace(features=features, contributions=np.ones(shape), points=np.full(shape, -3.0))


def score(x, unscored=(), *, model=None, reasons=0, offset=0, ids=None):
    rows = pl.DataFrame({ROW_ID: ids or list(range(10, 10 + len(x))), "x": pl.Series(x, dtype=pl.Float64)})
    marked = pl.DataFrame(list(unscored), schema=UNSCORED, orient="row")
    return Scorer(model or Model(), 17, band_by_points([560.0]), reasons).score(rows, marked, offset)


def test_a_row_not_to_score_keeps_its_place_and_has_no_number():
    scored = score([0.1, 0.2, 0.5], [(1, "11", "quarantined", "fails rule")])
    assert scored.columns == ["id", "probability", "score", "band", "version", "status", "detail"]
    assert scored.rows() == [
        (10, 0.1, 590.0, 2, 17, SCORED, None),
        (11, None, None, None, 17, "quarantined", "fails rule"),
        (12, 0.5, 550.0, 1, 17, SCORED, None),
    ]


def test_rows_are_counted_from_the_offset_and_those_of_other_batches_passed_over():
    marks = [(99, "7", "id twice", "a"), (101, "11", "id twice", "b"), (102, "9", "id twice", "c")]
    assert score([0.1, 0.2], marks, offset=100)["detail"].to_list() == [None, "b"]


def test_an_answer_that_is_no_number_is_a_status_and_not_a_score():
    scored = score([0.1, float("nan"), float("inf")])
    assert scored["status"].to_list() == [SCORED, NO_NUMBER, NO_NUMBER]
    assert scored.select(pl.col("probability", "score", "band").null_count()).row(0) == (2, 2, 2)


def test_where_no_row_is_to_be_scored_the_model_is_not_asked():
    scored = score([0.1], [(0, "10", "id twice", "")], model=Model(reasons=None), reasons=1)
    assert scored["status"].to_list() == ["id twice"]
    assert scored.select("reason_1", "reason_1_points").row(0) == (None, None)


def test_an_id_that_another_reader_does_not_see_there_ends_the_scoring():
    with pytest.raises(CrossriskError, match="two readers disagree"):
        score([0.1, 0.2], [(1, "10", "id twice", "")])


def test_a_missing_id_is_the_same_for_both_readers():
    scored = score([0.1, 0.2], [(1, None, "id missing", "")], ids=[1, None])
    assert scored["status"].to_list() == [SCORED, "id missing"]


def test_reasons_are_null_where_there_are_fewer_or_no_score():
    scored = score([0.1, 0.2], [(0, "10", "quarantined", "")], reasons=2)
    assert scored.columns[7:] == ["reason_1", "reason_1_points", "reason_2", "reason_2_points"]
    assert scored.select(scored.columns[7:]).rows() == [(None, None, None, None), ("x", -3.0, None, None)]


@pytest.mark.parametrize(("gives", "message"), [(None, "gives no reasons"), (2, "gives 2 reasons a row, 3 were asked")])
def test_reasons_that_the_version_cannot_give_are_refused(gives, message):
    with pytest.raises(InputError, match=message):
        score([0.1], model=Model(reasons=gives), reasons=3)


def test_levels_are_counted_where_a_row_has_a_score_batch_by_batch():
    tally = Tally(NumberBins((0.15,)), {"flag": CategoryBins(("", "false", "true"))})
    scored = score([0.1, 0.2, float("nan"), 0.3], [(0, "10", "quarantined", "")])
    for flag in ([True, False, True, None], ["yes", "no", "maybe", "no"], [1, 0, 1, 1]):
        tally.add(pl.DataFrame({"flag": flag}), scored)
    assert tally.to_json()["unseen"] == {"flag": {"rows": 4, "values": {"no": 2, "0": 1, "1": 1}}}


# --- reading ---


@pytest.fixture
def files(tmp_path):
    frame = pl.DataFrame({"key": range(20), "x": [value / 10 for value in range(20)], "other": ["z"] * 20})
    found = []
    for number, (first, rows) in enumerate([(0, 7), (7, 0), (7, 13)]):
        path = tmp_path / f"{number}.parquet"
        frame[first : first + rows].write_parquet(path, row_group_size=5)
        found.append(RowFile(str(path), rows, ()))
    return found


@pytest.mark.parametrize("batch_rows", [1, 3, 100])
@pytest.mark.parametrize(("start", "stop"), [(0, 20), (0, 0), (6, 8), (11, 13), (12, 20), (19, 20)])
def test_reading_may_begin_and_end_anywhere(files, start, stop, batch_rows):
    frames = list(read_rows(files, {ROW_ID: "key", "mine": "x"}, start, stop, batch_rows))
    assert [value for frame in frames for value in frame[ROW_ID]] == list(range(start, stop))
    assert all(frame.columns == [ROW_ID, "mine"] and 0 < frame.height <= batch_rows for frame in frames)


def test_row_groups_before_the_first_row_are_not_read(files, monkeypatch):
    asked = []
    real = pq.ParquetFile.iter_batches

    def spy(self, **options):
        asked.append(options["row_groups"])
        return real(self, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", spy)
    list(read_rows(files, {ROW_ID: "key"}, 13, 18, 100))
    assert asked == [[1, 2]]  # of the third file, rows 6 to 10 of it

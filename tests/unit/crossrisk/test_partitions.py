"""Rules of cutting a list of files into partitions and batches: every row once, in order, wherever reading begins."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossrisk.partitions import Partition, batch_sizes, cut, join_neighbours, plan_partitions, spans_of

LENGTHS = st.lists(st.integers(0, 7), max_size=6)


def test_partitions_follow_each_other_and_the_last_is_what_is_left():
    assert plan_partitions(7, 3) == (Partition(0, 0, 3), Partition(1, 3, 6), Partition(2, 6, 7))
    assert [one.rows for one in plan_partitions(6, 3)] == [3, 3]
    assert plan_partitions(0, 3) == ()


def test_names_of_partitions_sort_as_their_rows():
    names = [one.name for one in plan_partitions(1200, 1)]
    assert names[:2] == ["part-00000.parquet", "part-00001.parquet"]
    assert names == sorted(names)


@pytest.mark.parametrize(("rows", "size", "message"), [(5, 0, "at least 1 row"), (100_001, 1, "100,001 files")])
def test_no_rows_a_partition_and_too_many_partitions_are_refused(rows, size, message):
    with pytest.raises(ValueError, match=message):
        plan_partitions(rows, size)


def test_partitions_beside_each_other_are_read_in_one_go():
    a, b, c, d = plan_partitions(8, 2)
    assert join_neighbours([a, b, d]) == [[a, b], [d]]
    assert join_neighbours([a, c]) == [[a], [c]]
    assert join_neighbours([]) == []


@given(lengths=LENGTHS, ends=st.tuples(st.integers(0, 40), st.integers(0, 40)))
def test_spans_are_the_rows_asked_for_in_order(lengths, ends):
    rows = [(piece, row) for piece, length in enumerate(lengths) for row in range(length)]
    start, stop = min(ends), max(ends)
    spans = spans_of(lengths, start, stop)
    assert [(span.piece, row) for span in spans for row in range(span.first, span.last)] == rows[start:stop]
    assert all(span.first < span.last for span in spans)


@given(lengths=LENGTHS, size=st.integers(1, 9))
def test_batches_are_of_the_sizes_asked_for_whatever_comes(lengths, size):
    rows = pl.DataFrame({"x": range(sum(lengths))})
    starts = [sum(lengths[:at]) for at in range(len(lengths))]
    frames = [rows[start : start + length] for start, length in zip(starts, lengths, strict=True)]
    sizes = batch_sizes(rows.height, size)
    batches = list(cut(iter(frames), sizes))
    assert [batch.height for batch in batches] == sizes
    assert [value for batch in batches for value in batch["x"]] == rows["x"].to_list()


def test_too_few_rows_are_an_error_and_not_a_short_batch():
    with pytest.raises(ValueError, match="batch of 3 rows, the frames end after 2"):
        list(cut([pl.DataFrame({"x": [1, 2]})], [3]))

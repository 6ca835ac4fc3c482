"""Child process that scores many rows with a published SavedModel: `python -m models.score_worker SPEC.json`.

The model is loaded once; record batches come in, one Parquet file a partition goes out, and one batch is in memory at a
time. Which rows must not be scored, and why, was decided before and is read from a file (`tasks.score_rules`); what
becomes of a finished partition is `tasks.score`'s. The protocol is `models.child`'s.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from models.child import Emit, Json, serve

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# As in models.export_worker: in TF32 a GPU would say something else than what was verified.
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import numpy as np
import polars as pl
import polars.selectors as cs
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from crossrisk.bands import Bands, read_bands
from crossrisk.errors import CrossriskError, InputError
from crossrisk.partitions import Partition, batch_sizes, cut, join_neighbours, spans_of
from crossrisk.stability import CategoryBins, NumberBins, read_histogram
from crossrisk.store import digest_file, make_private, whole_file
from crossrisk.unseen import UnseenCount, add_up, count_unseen
from models import bundle
from models.fitted import Floats

SCORED, NO_NUMBER = "scored", "no number"
"""Statuses that are given here: the row has a score; the model's answer is no finite number."""
ROW_ID = " id"
"""Column of the rows in memory: no raw column begins with a space."""


@dataclass(frozen=True)
class RowFile:
    """A Parquet file of the input."""

    path: str
    rows: int
    folder_columns: Sequence[str]
    """columns that its `key=value` folders add, by their names there"""


def score(spec: Json, emit: Emit) -> Json:
    """Score the rows of partitions and write them.

    Keys of the spec: directory (the SavedModel), version; files (fields of `RowFile`, in order), columns (name in the
    model -> name in the files), id (name in the files), unscored (Parquet: row, id as text, status, detail of the rows
    that must not be scored, ascending by row); partitions (index, start, stop; ascending), folder (to write to),
    batch_rows; bands and reference (as `Bands` and `Histogram` write themselves), known_levels (category column -> all
    levels that the version knows, where that can be told), reasons (so many a row, 0 for none).

    Emits {"event": "scored", "rows": so far} after each batch, and after each partition {"event": "partition"} with its
    index, start, stop, file, sha256 and what `Tally.to_json` gives. The result is {"rows": all}.

    Raises:
        InputError: the version gives no reasons, or fewer than asked for.
        ValueError: a file holds fewer rows than its footer said before.
        CrossriskError: a row to leave out has another id than the row at its place.
    """
    scorer = Scorer(
        bundle.load(Path(spec["directory"])), spec["version"], read_bands(spec["bands"]), reasons=spec["reasons"]
    )
    files = [RowFile(**one) for one in spec["files"]]
    columns = {ROW_ID: spec["id"], **spec["columns"]}
    bins = read_histogram(spec["reference"]).bins
    known_levels = {column: CategoryBins(tuple(levels)) for column, levels in spec["known_levels"].items()}
    batch_rows, done = spec["batch_rows"], 0
    for run in join_neighbours([Partition(**one) for one in spec["partitions"]]):
        wanted = [size for partition in run for size in batch_sizes(partition.rows, batch_rows)]
        batches = cut(read_rows(files, columns, run[0].start, run[-1].stop, batch_rows), wanted)
        for partition in run:
            of_partition = pl.col("row").is_between(partition.start, partition.stop - 1)
            unscored = pl.scan_parquet(spec["unscored"]).filter(of_partition).collect()
            tally, file = Tally(bins, known_levels), Path(spec["folder"]) / partition.name
            with whole_file(file) as staged, Sink(staged) as sink:
                offset = partition.start
                for _ in batch_sizes(partition.rows, batch_rows):
                    rows = next(batches)
                    scored = scorer.score(rows, unscored, offset)
                    sink.write(scored)
                    tally.add(rows, scored)
                    offset, done = offset + scored.height, done + scored.height
                    emit({"event": "scored", "rows": done})
            place = {"index": partition.index, "start": partition.start, "stop": partition.stop, "file": file.name}
            emit({"event": "partition", **place, "sha256": digest_file(file), **tally.to_json()})
    return {"rows": done}


# --- reading ---


def read_rows(
    files: Sequence[RowFile], columns: Mapping[str, str], start: int, stop: int, batch_rows: int
) -> Iterator[pl.DataFrame]:
    """The rows [start, stop) of the files in order, under our names, in frames of at most `batch_rows` rows.

    Row groups before the first row are passed over unread. Dictionaries become strings.

    Args:
        files: in order.
        columns: our name -> name in the files.
        start: first row.
        stop: behind the last row.
        batch_rows: of a frame, at most.
    """
    for span in spans_of([file.rows for file in files], start, stop):
        file = files[span.piece]
        constants = _folder_values(file)
        own = [theirs for theirs in columns.values() if theirs not in constants]
        renamed = [pl.col(theirs).alias(ours) for ours, theirs in columns.items()]
        for frame in _read_file(file, own, span.first, span.last, batch_rows):
            with_folders = frame.with_columns(**constants)
            yield with_folders.select(renamed).with_columns(cs.by_dtype(pl.Categorical, pl.Enum).cast(pl.String))


def _read_file(file: RowFile, columns: Sequence[str], first: int, last: int, batch_rows: int) -> Iterator[pl.DataFrame]:
    with pq.ParquetFile(file.path, page_checksum_verification=True) as parquet:
        lengths = [parquet.metadata.row_group(group).num_rows for group in range(parquet.num_row_groups)]
        spans = spans_of(lengths, first, last)
        if not spans:  # the file has shrunk: `cut` finds too few rows
            return
        groups = [span.piece for span in spans]
        passed, wanted = spans[0].first, last - first
        for batch in parquet.iter_batches(batch_size=batch_rows, row_groups=groups, columns=columns):
            frame = pl.DataFrame(batch)[passed : passed + wanted]
            passed, wanted = max(0, passed - batch.num_rows), wanted - frame.height
            if frame.height:
                yield frame


def _folder_values(file: RowFile) -> dict[str, pl.Expr]:
    """Columns of `key=value` folders, as literals of the types that ingest infers."""
    if not file.folder_columns:
        return {}
    rows = pl.scan_parquet([file.path], hive_partitioning=True, glob=False)
    first = rows.select(file.folder_columns).head(1).collect()
    return {name: pl.lit(first[name].first(), dtype=first[name].dtype) for name in file.folder_columns}


# --- scoring ---


@dataclass(frozen=True)
class Scorer:
    """A loaded version and what is asked of it."""

    model: bundle.LoadedModel
    version: int
    bands: Bands
    reasons: int
    """of each row; 0 for none"""

    def score(self, rows: pl.DataFrame, unscored: pl.DataFrame, offset: int) -> pl.DataFrame:
        """Every row of a batch with its status, in order; what has no score is null.

        Args:
            rows: (n, ...) raw columns and `ROW_ID`.
            unscored: row, id, status, detail of rows not to score; those of other batches are passed over.
            offset: number of the first row.

        Returns:
            (n, 7 + 2 * reasons): id, probability, score, band, version, status, detail, then reason_1,
            reason_1_points, ...
        """
        marks = pl.DataFrame({"row": np.arange(offset, offset + rows.height)}).join(
            unscored, on="row", how="left", maintain_order="left"
        )
        _refuse_other_ids(rows, marks)
        is_asked = marks["status"].is_null().to_numpy()
        probability, points = (np.full(rows.height, np.nan) for _ in range(2))
        batch = bundle.raw_batch(rows.filter(is_asked), self.model.columns)
        if is_asked.any():
            answer = self.model.score_batch(batch)
            probability[is_asked], points[is_asked] = answer.probability, answer.score
        is_scored = np.isfinite(probability) & np.isfinite(points)
        status = (
            pl.when(~pl.Series(is_asked))
            .then(marks["status"])
            .otherwise(pl.when(pl.Series(is_scored)).then(pl.lit(SCORED)).otherwise(pl.lit(NO_NUMBER)))
        )
        scored = pl.DataFrame({"id": rows[ROW_ID]}).with_columns(
            probability=_where(is_scored, probability),
            score=_where(is_scored, points),
            band=self._bands(is_scored, probability, points),
            version=pl.lit(self.version, dtype=pl.Int64),
            status=status,
            detail=marks["detail"],
        )
        return scored.with_columns(**self._reasons(batch, is_asked, is_scored)) if self.reasons else scored

    def _bands(self, is_scored: NDArray[np.bool_], probability: Floats, points: Floats) -> pl.Series:
        bands = np.zeros(len(points), np.int16)
        bands[is_scored] = self.bands.assign(probability[is_scored], points[is_scored])
        return _where(is_scored, bands)

    def _reasons(
        self, batch: bundle.Batch, is_asked: NDArray[np.bool_], is_scored: NDArray[np.bool_]
    ) -> dict[str, pl.Series]:
        """The first reasons of each row; null where a row has no score or fewer reasons."""
        shape = (len(is_asked), self.reasons)
        features, points = np.full(shape, "", object), np.zeros(shape)
        if is_asked.any():
            said = self.model.explain_batch(batch)
            if said is None:
                raise InputError(f"version {self.version} gives no reasons for its scores; leave --reasons out")
            if said.features.shape[1] < self.reasons:
                raise InputError(
                    f"version {self.version} gives {said.features.shape[1]} reasons a row, {self.reasons} were asked "
                    "for; ask for fewer with --reasons"
                )
            features[is_asked], points[is_asked] = said.features[:, : self.reasons], said.points[:, : self.reasons]
        columns: dict[str, pl.Series] = {}
        for place in range(self.reasons):
            is_said = is_scored & (features[:, place] != "")
            columns[f"reason_{place + 1}"] = _where(is_said, features[:, place])
            columns[f"reason_{place + 1}_points"] = _where(is_said, points[:, place])
        return columns


def _refuse_other_ids(rows: pl.DataFrame, marks: pl.DataFrame) -> None:
    """Two readers have numbered the rows, DuckDB and we: where they disagree, scores would go to other people."""
    is_marked = marks["status"].is_not_null()
    here, there = rows[ROW_ID].filter(is_marked).cast(pl.String), marks["id"].filter(is_marked)
    if not here.equals(there, null_equal=True, check_names=False):
        raise CrossriskError(
            "the rows to leave out are not those at their places: two readers disagree about the order of the input; "
            "nothing was concluded, please report this"
        )


def _where(is_there: NDArray[np.bool_], values: NDArray[np.generic]) -> pl.Series:
    """Values with null where they are not there."""
    column = pl.Series(values.tolist(), dtype=pl.String) if values.dtype == object else pl.Series(values)
    return pl.select(pl.when(pl.Series(is_there)).then(column)).to_series()


# --- writing ---


@dataclass
class Tally:
    """What a partition holds, counted while it is written."""

    bins: NumberBins | CategoryBins
    """of the probability, as the version was published with"""
    known_levels: Mapping[str, CategoryBins]
    """all that the version knows, of each category column of which that can be told"""
    statuses: Counter[str] = field(default_factory=Counter)
    bands: Counter[int] = field(default_factory=Counter)
    histogram: list[int] = field(default_factory=list)
    probability_sum: float = 0.0
    unseen: dict[str, UnseenCount] = field(default_factory=dict)
    """of the rows that have a score"""

    def add(self, rows: pl.DataFrame, scored: pl.DataFrame) -> None:
        """Count a batch of rows and what `Scorer.score` made of them."""
        self.statuses.update(dict(scored["status"].value_counts().iter_rows()))
        self.bands.update(dict(scored["band"].drop_nulls().value_counts().iter_rows()))
        probability = scored["probability"].drop_nulls()
        counts = self.bins.count(probability).tolist()
        self.histogram = [a + b for a, b in zip(self.histogram or [0] * len(counts), counts, strict=True)]
        self.probability_sum += float(probability.sum())
        is_scored = scored["status"] == SCORED
        for column, known in self.known_levels.items():
            counted = count_unseen(rows[column].filter(is_scored), known)
            self.unseen[column] = add_up([self.unseen.get(column, UnseenCount()), counted])

    def to_json(self) -> Json:
        """Plain data: rows, statuses, bands, histogram, probability_sum, unseen."""
        return {
            "rows": self.statuses.total(),
            "statuses": dict(sorted(self.statuses.items())),
            "bands": {str(band): rows for band, rows in sorted(self.bands.items())},
            "histogram": self.histogram,
            "probability_sum": self.probability_sum,
            "unseen": {column: one.to_json() for column, one in self.unseen.items()},
        }


class Sink:
    """A Parquet file that grows by frames of one schema; nobody but its owner may read it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> Sink:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()
            make_private(self._path)

    def write(self, frame: pl.DataFrame) -> None:
        """Append a frame as a row group; texts are plain strings, which every reader knows."""
        table = frame.to_arrow()
        if self._writer is None:
            plain = [pa.string() if not pa.types.is_primitive(field.type) else field.type for field in table.schema]
            names = zip(table.schema.names, plain, strict=True)
            self._writer = pq.ParquetWriter(self._path, pa.schema(list(names)), compression="zstd")
        self._writer.write_table(table.cast(self._writer.schema))


if __name__ == "__main__":
    serve(score)

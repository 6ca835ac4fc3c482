"""Child process that exports, verifies or asks SavedModels: `python -m models.export_worker SPEC.json`.

The spec's "mode" picks one of the four functions here; its other keys are that function's paths and numbers, as
their docstrings say. The protocol is `models.child`'s. Verification belongs in another process than export, so that
nothing but the files can make it pass.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from models.child import Emit, Json, serve

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# On a GPU TensorFlow multiplies float32 matrices in TF32, three digits short of what is verified here.
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from crossrisk.errors import InputError
from crossrisk.features import FeaturePlan, encoding_expressions, rowwise_expressions
from crossrisk.scoring import Scaling
from models import article_export, bundle, verification
from models.fitted import Floats, load_contender

PROBABILITY_COLUMN = "probability"
"""Column of the golden Parquet file that holds what the contender said."""


def export(spec: Json, emit: Emit) -> Json:
    """Keys: plan (JSON file), contender (folder), scaling (fields of `Scaling`), directory (to write).

    With the key reference (.npy file: the encoded row (d,) that reasons compare with) the version gives reasons.
    With the key article_names true, the tensors carry the article's names (`models.article_export`).
    """
    write = article_export.export if spec.get("article_names") else bundle.export
    contender = load_contender(Path(spec["contender"]))
    reference = np.load(spec["reference"], allow_pickle=False) if spec.get("reference") else None
    write(_read_plan(spec), contender, Scaling(**spec["scaling"]), Path(spec["directory"]), reference=reference)
    return {"directory": spec["directory"]}


def verify(spec: Json, emit: Emit) -> Json:
    """Keys: directory, golden (Parquet: raw columns and probability), tolerance.

    Result: fields of `Verification`, and under "latency" those of `Latency`.

    With the key plan (JSON file of the feature plan), the features of the golden rows are compared with what Polars
    makes of them, number for number. With the key article_names true besides, the article's reader is verified too,
    on those features; the result then has "article_reader", its largest difference.
    """
    directory, tolerance = Path(spec["directory"]), spec["tolerance"]
    golden = pl.read_parquet(spec["golden"])
    if PROBABILITY_COLUMN not in golden.columns:
        raise InputError(f"{spec['golden']}: expected a column {PROBABILITY_COLUMN}, got {', '.join(golden.columns)}")
    expected: Floats = golden[PROBABILITY_COLUMN].cast(pl.Float64).fill_null(float("nan")).to_numpy()
    model = bundle.load(directory)
    batch = bundle.raw_batch(golden, model.columns)
    encoded = _encode(_read_plan(spec), golden) if spec.get("plan") or spec.get("article_names") else None
    verified = dataclasses.asdict(verification.verify(directory, batch, expected, tolerance, encoded=encoded))
    verified["latency"] = dataclasses.asdict(verification.measure_latency(model, batch))
    if encoded is not None and spec.get("article_names"):
        matrix = np.ascontiguousarray(encoded.to_numpy())
        verified["article_reader"] = article_export.verify(directory, matrix, expected, tolerance)
    return verified


def _read_plan(spec: Json) -> FeaturePlan:
    return FeaturePlan.model_validate_json(Path(spec["plan"]).read_text(encoding="utf-8"))


def _encode(plan: FeaturePlan, rows: pl.DataFrame) -> pl.DataFrame:
    """The encoded matrix (n, d) by Polars, the compiler that the SavedModel does not hold; all columns float32."""
    return rows.select(rowwise_expressions(plan.rows)).select(encoding_expressions(plan))


def score(spec: Json, emit: Emit) -> Json:
    """Keys: directory, input (Parquet), id_column, output (Parquet to write: id, probability, score), batch_rows.

    One batch is in memory at a time. `output` is written in place: give a temporary name and rename it after.
    Emits {"event": "scored", "rows": so far} after each batch; the result is {"rows": all}.
    """
    model = bundle.load(Path(spec["directory"]))
    id_column = spec["id_column"]
    needed = [id_column, *(column.name for column in model.columns if column.name != id_column)]
    rows = 0
    with pq.ParquetFile(spec["input"]) as source:
        absent = [name for name in needed if name not in source.schema_arrow.names]
        if absent:
            raise InputError(f"{spec['input']}: expected the columns {', '.join(needed)}; missing: {', '.join(absent)}")
        ids = source.schema_arrow.field(id_column)
        schema = pa.schema([ids, pa.field("probability", pa.float64()), pa.field("score", pa.float64())])
        with pq.ParquetWriter(spec["output"], schema) as sink:
            for batch in source.iter_batches(batch_size=spec["batch_rows"], columns=needed):
                scores = model.score_frame(pl.DataFrame(batch), batch_rows=spec["batch_rows"])
                columns = [batch.column(id_column), pa.array(scores.probability), pa.array(scores.score)]
                sink.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))
                rows += batch.num_rows
                emit({"event": "scored", "rows": rows})
    return {"rows": rows}


def explain(spec: Json, emit: Emit) -> Json:
    """Keys: directory, input (Parquet of a few rows, for all of them go into the result).

    Result: "rows", one {"probability", "score", "reasons"} a row; "reasons" is a list of {"feature", "contribution",
    "points"}, the strongest first, or None where the version gives none.
    """
    model = bundle.load(Path(spec["directory"]))
    batch = bundle.raw_batch(pl.read_parquet(spec["input"]), model.columns)
    scores, reasons = model.score_batch(batch), model.explain_batch(batch)
    rows = zip(scores.probability.tolist(), scores.score.tolist(), strict=True)
    return {
        "rows": [
            {"probability": probability, "score": score, "reasons": _reasons_of_row(reasons, row)}
            for row, (probability, score) in enumerate(rows)
        ]
    }


def _reasons_of_row(reasons: bundle.Reasons | None, row: int) -> list[Json] | None:
    if reasons is None:
        return None
    given = zip(reasons.features[row], reasons.contributions[row].tolist(), reasons.points[row].tolist(), strict=True)
    return [
        {"feature": feature, "contribution": contribution, "points": points}
        for feature, contribution, points in given
        if feature
    ]


_MODES = {"export": export, "verify": verify, "score": score, "explain": explain}


def handle(spec: Json, emit: Emit) -> Json:
    """Do what the spec's mode says."""
    if spec.get("mode") not in _MODES:
        raise ValueError(f"expected mode to be one of {', '.join(_MODES)}; got {spec.get('mode')!r}")
    return _MODES[spec["mode"]](spec, emit)


if __name__ == "__main__":
    serve(handle)

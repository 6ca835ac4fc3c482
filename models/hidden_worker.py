"""Child process that compares two samples in a model's hidden features: `python -m models.hidden_worker SPEC.json`.

The protocol is `models.child`'s. `models.two_sample` is the test, `tasks.monitor_hidden` says whose rows are compared.
"""

from __future__ import annotations

import os
from pathlib import Path

from models.child import Emit, Json, serve

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")  # as models.export_worker

import numpy as np
import polars as pl

from models import bundle
from models.two_sample import FEWEST_ROWS, two_sample_test


def handle(spec: Json, emit: Emit) -> Json:
    """Keys: directory (SavedModel with the signature `embedding`), reference and rows (Parquet with its raw columns),
    most_rows (of each), permutations, seed.

    Result: status "ok" and the fields of `TwoSample`, or "small sample" where one has fewer than FEWEST_ROWS rows.
    """
    model = bundle.load(Path(spec["directory"]))
    rng = np.random.default_rng(spec["seed"])
    samples = [_sample(pl.read_parquet(spec[key]), spec["most_rows"], rng) for key in ("reference", "rows")]
    if min(sample.height for sample in samples) < FEWEST_ROWS:
        return {"status": "small sample"}
    first, second = (model.embed_frame(sample) for sample in samples)
    found = two_sample_test(first, second, permutations=spec["permutations"], seed=spec["seed"])
    return {"status": "ok", **found.to_json()}


def _sample(rows: pl.DataFrame, most: int, rng: np.random.Generator) -> pl.DataFrame:
    return rows if rows.height <= most else rows[np.sort(rng.permutation(rows.height)[:most])]


if __name__ == "__main__":
    serve(handle)

"""The DAN's worker: what it reads, how it chooses, what it writes and reports."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from crossrisk.errors import InputError, TrainingError
from models.child import run_worker
from models.dan_spec import ARTICLE, DEFAULT
from models.dan_worker import Candidate, Progress, choose, handle, preset_with_overrides, read_training_set
from models.fitted import Network, load_contender

PARTS = {"source_fit": ["source_fit"], "target_fit": ["target_fit"], "stop": ["source_stop", "target_select"]}
COLUMNS = ["income", "age", "noise"]
SMALL = {"hidden": [8, 4], "batch_size": 32, "max_steps": 6, "evaluate_every": 3}


def matrix() -> pl.DataFrame:
    rng = np.random.default_rng(0)
    sizes = {"source_fit": 120, "source_stop": 60, "target_fit": 80, "target_select": 60, "target_test": 40}
    part = np.repeat(list(sizes), list(sizes.values()))
    x = rng.normal(size=(len(part), 3)).astype(np.float32)
    label = (x[:, 0] + rng.normal(size=len(part)) > 0).astype(np.int8)
    frame = pl.DataFrame(
        {
            "id": [f"loan-{i:04d}" for i in range(len(part))],
            "population": [name.split("_")[0] for name in part],
            "part": part,
            "label": label,
            **{name: x[:, i] for i, name in enumerate(COLUMNS)},
        }
    )
    is_unknown = (pl.col("part") == "target_fit") & (pl.int_range(pl.len()) % 2 == 0)
    return frame.with_columns(pl.when(is_unknown).then(None).otherwise(pl.col("label")).alias("label"))


@pytest.fixture
def spec(tmp_path: Path) -> dict[str, Any]:
    matrix().write_parquet(tmp_path / "matrix.parquet")
    (tmp_path / "out").mkdir()
    return {
        "name": "dan",
        "matrix": str(tmp_path / "matrix.parquet"),
        "columns": COLUMNS,
        "parts": PARTS,
        "preset": "dan",
        "overrides": SMALL,
        "mmd_weights": [1.0, 0.0],
        "seeds": [1, 2],
        "target_prior": 0.4,
        "out": str(tmp_path / "out"),
    }


def read(spec: dict[str, Any], **changes: Any) -> Any:
    arguments = {"parts": spec["parts"], "columns": spec["columns"], **changes}
    return read_training_set(Path(spec["matrix"]), target_prior=0.4, **arguments)


def candidate(mmd_weight: float, stop_auc: float) -> Candidate:
    return Candidate(mmd_weight, Network((), (), "relu"), [], stop_auc)


def test_child_trains_the_grid_and_leaves_the_chosen_ensemble_and_the_history_of_all(
    spec: dict[str, Any], tmp_path: Path
) -> None:
    events: list[dict[str, Any]] = []
    result = run_worker("models.dan_worker", spec, workdir=tmp_path, on_event=events.append)
    contender = load_contender(Path(spec["out"]))
    assert contender.name == result["name"] == "dan"
    assert isinstance(contender.form, Network)
    assert [layer.shape for layer in contender.form.weights] == [(2, 3, 8), (2, 8, 4), (2, 4, 1)]
    history = json.loads((Path(spec["out"]) / "history.json").read_text())
    assert [one["mmd_weight"] for one in history["candidates"]] == [0.0, 1.0]
    assert [[t["seed"] for t in one["trainings"]] for one in history["candidates"]] == [[1, 2], [1, 2]]
    assert history["candidates"][1]["trainings"][0]["history"]["step"] == [0, 1, 2, 3, 4, 5]
    best = max(history["candidates"], key=lambda one: one["stop_auc"])
    assert history["chosen_mmd_weight"] == result["mmd_weight"] == best["mmd_weight"]
    assert result["stop_auc"] == best["stop_auc"]
    assert {event["event"] for event in events} == {"progress"}
    assert (events[-1]["done"], events[-1]["total"]) == (24, 24)  # 2 weights, 2 seeds, 6 steps


def test_article_trains_one_network_of_the_first_seed_at_weight_one(spec: dict[str, Any]) -> None:
    spec |= {"preset": "article", "overrides": {"hidden": [8, 4], "batch_size": 32, "epochs": 2}, "seeds": [7, 8]}
    result = handle(spec, lambda event: None)
    history = json.loads((Path(spec["out"]) / "history.json").read_text())
    assert result["mmd_weight"] == 1.0
    assert [(one["mmd_weight"], [t["seed"] for t in one["trainings"]]) for one in history["candidates"]] == [(1.0, [7])]


def without_labels(part: str, unknown: pl.Expr) -> pl.DataFrame:
    """The matrix, some labels of a part not known."""
    hidden = (pl.col("part") == part) & unknown
    return matrix().with_columns(pl.when(hidden).then(None).otherwise(pl.col("label")).alias("label"))


@pytest.mark.parametrize("preset", ["dan", "article"])
def test_stop_rows_with_an_unknown_label_are_left_out_and_counted(spec: dict[str, Any], preset: str) -> None:
    every_fifth = pl.int_range(pl.len()) % 5 == 0
    rows = without_labels("target_select", every_fifth)
    unknown = rows.filter(pl.col("part") == "target_select")["label"].null_count()
    parts = {**PARTS, "stop": ["target_select"]}
    overrides = SMALL if preset == "dan" else {"hidden": [8, 4], "batch_size": 32, "epochs": 2}
    spec |= {"preset": preset, "overrides": overrides, "parts": parts, "seeds": [1]}
    rows.write_parquet(spec["matrix"])
    result = handle(spec, lambda event: None)
    assert (result["stop_rows"], result["stop_rows_unknown"]) == (60 - unknown, unknown) == (48, 12)

    # they decide nothing: without them at all, the same network
    again = Path(spec["out"]).parent / "again"
    again.mkdir()
    rows.filter((pl.col("part") != "target_select") | pl.col("label").is_not_null()).write_parquet(spec["matrix"])
    assert handle(spec | {"out": str(again)}, lambda event: None) == result | {"stop_rows_unknown": 0}
    networks = [load_contender(folder).form for folder in (Path(spec["out"]), again)]
    for one, other in zip(*(network.weights for network in networks if isinstance(network, Network)), strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize(
    ("unknown", "found"),
    [
        (pl.lit(True), "found 0 bads, 0 goods and 60 rows without one"),
        (pl.col("label") == 1, r"found 0 bads, \d+ goods and \d+ rows"),
        (pl.col("label") == 0, r"found \d+ bads, 0 goods and \d+ rows"),
    ],
)
def test_stop_rows_that_lack_a_class_are_refused_with_their_numbers_and_what_to_do(
    spec: dict[str, Any], unknown: pl.Expr, found: str
) -> None:
    without_labels("target_select", unknown).write_parquet(spec["matrix"])
    with pytest.raises(InputError, match=f"AUC on target_select.*{found}.*later as_of.*lineup.contenders"):
        read(spec, parts={**PARTS, "stop": ["target_select"]})


def test_too_few_rows_are_a_training_error_that_names_the_weight(spec: dict[str, Any]) -> None:
    spec["overrides"] = {**SMALL, "evaluate_every": 50}
    with pytest.raises(TrainingError, match=r"mmd_weight 0 \(1 of 2\).*at least evaluate_every = 50"):
        handle(spec, lambda event: None)


def test_the_highest_stop_auc_is_chosen_and_on_a_tie_the_smallest_weight() -> None:
    assert choose([candidate(0.0, 0.70), candidate(0.1, 0.72), candidate(1.0, 0.71)]).mmd_weight == 0.1
    assert choose([candidate(1.0, 0.70), candidate(0.0, 0.70), candidate(0.1, 0.70)]).mmd_weight == 0.0


def test_roles_take_their_parts_and_an_unknown_label_is_nan(spec: dict[str, Any]) -> None:
    rows = read(spec)
    assert (len(rows.x_s), len(rows.x_t), len(rows.x_stop)) == (120, 80, 120)
    assert rows.x_s.dtype == np.float32
    assert np.isnan(rows.y_t).sum() == 40
    assert rows.target_prior == 0.4


def test_the_order_of_the_rows_in_the_file_changes_nothing(spec: dict[str, Any]) -> None:
    rows = read(spec)
    matrix().sample(fraction=1.0, shuffle=True, seed=3).write_parquet(spec["matrix"])
    again = read(spec)
    assert np.array_equal(rows.x_s, again.x_s)
    assert np.array_equal(rows.y_stop, again.y_stop)


def test_a_part_that_trains_may_not_decide_the_stop(spec: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"target_fit.*a row does one of the two"):
        read(spec, parts={**PARTS, "stop": ["target_fit"]})


def test_a_missing_column_and_an_empty_role_are_named(spec: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="first 'salary'"):
        read(spec, columns=["income", "salary"])
    with pytest.raises(InputError, match="no row has a part among \\['nowhere'\\]"):
        read(spec, parts={**PARTS, "target_fit": ["nowhere"]})


def test_an_unknown_source_label_is_an_input_error(spec: dict[str, Any]) -> None:
    without_labels("source_fit", pl.int_range(pl.len()) % 5 == 0).write_parquet(spec["matrix"])
    with pytest.raises(InputError, match="source labels must all be 0 or 1"):
        read(spec)


def test_overrides_replace_fields_of_the_preset() -> None:
    assert preset_with_overrides("article", {}) == ARTICLE
    expected = replace(DEFAULT, hidden=(8, 4), max_steps=9)
    assert preset_with_overrides("dan", {"hidden": [8, 4], "max_steps": 9}) == expected


@pytest.mark.parametrize(
    ("preset", "overrides", "message"),
    [
        ("deep", {}, "unknown preset 'deep'"),
        ("dan", {"learning_rat": 0.1}, "did you mean 'learning_rate'"),
        ("dan", {"batch_size": 0}, "batch_size must be at least 1"),
    ],
)
def test_an_unknown_preset_or_override_is_refused(preset: str, overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        preset_with_overrides(preset, overrides)


def test_progress_is_told_at_most_twice_a_second_and_always_at_the_end() -> None:
    events: list[dict[str, Any]] = []
    seconds = iter(np.arange(0.0, 3.0, 0.1))
    progress = Progress(events.append, lambda: float(next(seconds)))
    for position in (0, 1):
        on_progress = progress.part(position, 2, f"part {position}")
        for done in range(1, 9):
            on_progress(done, 8)
    assert [event["done"] for event in events] == [1, 6, 11, 16]
    assert {event["total"] for event in events} == {16}
    assert events[-1]["message"] == "part 1"

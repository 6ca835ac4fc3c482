"""The networks' worker: what it reads, how it chooses, what it writes and reports."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from crossrisk.errors import InputError, TrainingError
from crossrisk.metrics import auc_value
from crossrisk.shift.label import estimate_prior
from models import deep_worker
from models.child import run_worker
from models.deep.presets import ARTICLE, DAN, PRESETS, preset_with_overrides
from models.deep.spec import FineTuning, TrainingSet
from models.deep_worker import Candidate, Progress, choose, handle, read_rows
from models.fitted import Network, load_contender
from models.kernel_family import KernelFamily

pytestmark = pytest.mark.flow  # trains in a child or whole grids: a minute

PARTS = {
    "source_fit": ["source_fit"],
    "target_fit": ["target_fit"],
    "stop": ["target_select"],
    "choose": ["target_select"],
    "held_out": ["source_stop"],
}
COLUMNS = ["income", "age", "noise"]
SMALL = {"hidden": [8, 4], "batch_size": 32, "max_steps": 6, "evaluate_every": 3, "logs_no_shift_band": False}


def matrix() -> pl.DataFrame:
    rng = np.random.default_rng(0)
    sizes = {"source_fit": 120, "source_stop": 160, "target_fit": 80, "target_select": 60, "target_test": 40}
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
    return spec_in(tmp_path)


def spec_in(folder: Path) -> dict[str, Any]:
    matrix().write_parquet(folder / "matrix.parquet")
    (folder / "out").mkdir()
    return {
        "name": "dan",
        "matrix": str(folder / "matrix.parquet"),
        "columns": COLUMNS,
        "parts": PARTS,
        "preset": "dan",
        "overrides": SMALL,
        "mmd_weights": [1.0, 0.0],
        "seeds": [1, 2],
        "target_prior": 0.4,
        "prior_rule": "bbse",
        "start": None,
        "start_version": None,
        "out": str(folder / "out"),
    }


def run(spec: dict[str, Any]) -> dict[str, Any]:
    return handle(spec, lambda event: None)


def history(spec: dict[str, Any]) -> dict[str, Any]:
    return json.loads((Path(spec["out"]) / "history.json").read_text())


def networks_of(folder: Path) -> Network:
    form = load_contender(folder).form
    assert isinstance(form, Network)
    return form


def read(spec: dict[str, Any], **changes: Any) -> TrainingSet:
    arguments = {"parts": spec["parts"], "columns": spec["columns"], **changes}
    return read_rows(Path(spec["matrix"]), **arguments).training_set(0.4)


def candidate(mmd_weight: float, logits: Any) -> Candidate:
    return Candidate(mmd_weight, Network((), (), "relu"), [], 0.5, np.asarray(logits, np.float64))


# --- a whole training ---


@dataclass(frozen=True)
class ChildRun:
    """What a child made of a spec."""

    spec: dict[str, Any]
    result: dict[str, Any]
    events: list[dict[str, Any]]


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory) -> ChildRun:
    folder = tmp_path_factory.mktemp("child")
    made = ChildRun(spec_in(folder) | {"overrides": SMALL | {"logs_no_shift_band": True}}, {}, [])
    made.result.update(run_worker("models.deep_worker", made.spec, workdir=folder, on_event=made.events.append))
    return made


def test_child_trains_the_grid_and_leaves_the_chosen_ensemble_and_the_history_of_all(child: ChildRun) -> None:
    spec, result, events = child.spec, child.result, child.events
    contender = load_contender(Path(spec["out"]))
    assert contender.name == result["name"] == "dan"
    assert [layer.shape for layer in networks_of(Path(spec["out"])).weights] == [(2, 3, 8), (2, 8, 4), (2, 4, 1)]
    document = history(spec)
    assert (document["schema_version"], document["method"], document["layers"]) == (2, "dan", ["hidden_2"])
    assert document["target_prior"] == {"value": 0.4, "from": "labels", "reason": None}
    assert [one["mmd_weight"] for one in document["candidates"]] == [0.0, 1.0]
    assert [[t["seed"] for t in one["trainings"]] for one in document["candidates"]] == [[1, 2], [1, 2]]
    logged = document["candidates"][1]["trainings"][0]["history"]
    assert logged["step"] == [0, 1, 2, 3, 4, 5]
    assert len(logged["mmd_unbiased_hidden_2"]) == len(logged["mmd_fixed_hidden_2"]) == 2
    assert document["chosen_mmd_weight"] == result["mmd_weight"]
    (kept,) = (one for one in document["candidates"] if one["mmd_weight"] == result["mmd_weight"])
    assert result["stop_auc"] == kept["stop_auc"] == kept["choose_auc"]  # the same rows here
    assert {event["event"] for event in events} == {"progress"}
    assert (events[-1]["done"], events[-1]["total"]) == (12, 12)  # 2 weights, 6 steps of both seeds at once


def test_two_runs_of_the_child_write_the_same_bytes(child: ChildRun, tmp_path: Path) -> None:
    again = child.spec | {"out": str(tmp_path)}
    assert run_worker("models.deep_worker", again, workdir=tmp_path) == child.result
    for name in ("history.json", "arrays.npz", "model.json", "source_only/alone/arrays.npz"):
        assert (Path(child.spec["out"]) / name).read_bytes() == (tmp_path / name).read_bytes()


@pytest.mark.parametrize("name", ["ddc", "deep_coral", "dann", "dsan"])
def test_every_adapter_trains_by_its_name(spec: dict[str, Any], name: str) -> None:
    hidden = [8, 6, 4] if name == "ddc" else [8, 4]
    overrides = {**SMALL, "hidden": hidden}
    result = run(spec | {"name": name, "preset": name, "overrides": overrides, "seeds": [1], "mmd_weights": [1.0]})
    assert load_contender(Path(spec["out"])).name == result["name"] == name
    assert history(spec)["method"] == name
    assert history(spec)["layers"] == [f"hidden_{len(hidden)}"]


def test_article_trains_one_network_of_the_first_seed_at_weight_one(spec: dict[str, Any]) -> None:
    overrides = {"hidden": [8, 4], "batch_size": 32, "epochs": 2}
    spec |= {"preset": "article", "overrides": overrides, "seeds": [7, 8], "target_prior": None, "prior_rule": None}
    assert run(spec)["mmd_weight"] == 1.0
    document = history(spec)
    assert [(one["mmd_weight"], [t["seed"] for t in one["trainings"]]) for one in document["candidates"]] == [
        (1.0, [7])
    ]
    assert document["target_prior"] == {"value": None, "from": "none", "reason": "not asked for"}
    assert not (Path(spec["out"]) / "source_only").exists()


def test_the_chosen_ensemble_lies_beside_one_that_saw_the_source_alone(spec: dict[str, Any]) -> None:
    spec |= {"mmd_weights": [1.0]}
    run(spec)
    folder = Path(spec["out"]) / "source_only"
    for mine, kept in zip(networks_of(folder / "chosen").weights, networks_of(Path(spec["out"])).weights, strict=True):
        assert np.array_equal(mine, kept)
    poisoned = pl.read_parquet(spec["matrix"]).with_columns(
        pl.when(pl.col("part") == "target_fit").then(1 - pl.col("label")).otherwise(pl.col("label")).alias("label"),
        pl.when(pl.col("part") == "target_fit").then(-pl.col("income")).otherwise(pl.col("income")).alias("income"),
    )
    poisoned.write_parquet(spec["matrix"])
    again = Path(spec["out"]).parent / "again"
    again.mkdir()
    run(spec | {"out": str(again)})
    for mine, other in zip(
        networks_of(folder / "alone").weights, networks_of(again / "source_only" / "alone").weights, strict=True
    ):
        assert np.array_equal(mine, other)


# --- fine-tuning ---


@pytest.fixture
def tuning(spec: dict[str, Any]) -> dict[str, Any]:
    overrides = {**SMALL, "fine_tuning": {"max_steps": 6, "head_steps": 3, "thaw_every": None}}
    changes = {"mmd_weights": [0.0], "target_prior": None, "prior_rule": None}
    return spec | {"name": "fine_tuned", "preset": "fine_tuned", "overrides": overrides, **changes}


def published(members: int = 2) -> Network:
    """A network of the worker's shape."""
    rng = np.random.default_rng(1)
    shapes = ((members, 3, 8), (members, 8, 4), (members, 4, 1))
    weights = tuple(rng.normal(size=shape).astype(np.float32) for shape in shapes)
    return Network(weights, tuple(np.zeros((members, shape[-1]), np.float32) for shape in shapes), "relu")


def test_fine_tuned_starts_from_the_version_that_it_is_given(
    tuning: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    start = published()
    asked = []
    monkeypatch.setattr(deep_worker, "read_network", lambda *given: asked.append(given) or start)
    result = run(tuning | {"start": "models/1700000000", "start_version": 1_700_000_000})
    assert result["started_from"] == "1700000000"
    found = networks_of(Path(tuning["out"]))
    assert asked == [(Path("models/1700000000"), "relu")]
    assert np.array_equal(found.weights[0], start.weights[0])  # never thawed
    assert np.array_equal(found.weights[1], start.weights[1])
    assert not np.array_equal(found.weights[2], start.weights[2])


def test_held_out_source_rows_stop_the_first_stage_of_fine_tuned_and_the_history_says_so(
    tuning: dict[str, Any],
) -> None:
    stops, held_out = tuning["parts"]["stop"], tuning["parts"]["held_out"]
    assert stops != held_out
    run(tuning)
    assert history(tuning)["decided_by"]["first_stage"] == held_out
    again = Path(tuning["out"]).parent / "again"
    again.mkdir()
    without = {**tuning, "parts": {**tuning["parts"], "held_out": []}, "out": str(again)}
    run(without)
    assert history(without)["decided_by"]["first_stage"] == stops
    rows = read_rows(Path(tuning["matrix"]), tuning["columns"], tuning["parts"])
    np.testing.assert_array_equal(rows.training_set(None).at_home.x_stop, rows.held_out[0])
    of_one_class = replace(rows, held_out=(rows.held_out[0], np.zeros_like(rows.held_out[1])))
    assert of_one_class.training_set(None).held_out is None
    assert of_one_class.first_stage_of(tuning["parts"]) == stops


@pytest.mark.parametrize("start", [None, published(3)])
def test_a_version_that_is_no_network_of_the_same_shape_is_left_and_the_source_tuned(
    tuning: dict[str, Any], monkeypatch: pytest.MonkeyPatch, start: Network | None
) -> None:
    monkeypatch.setattr(deep_worker, "read_network", lambda *_: start)
    result = run(tuning | {"start": "models/1700000000", "start_version": 1_700_000_000})
    assert result["started_from"] == "source"
    left = networks_of(Path(tuning["out"]))
    again = Path(tuning["out"]).parent / "again"
    again.mkdir()
    run(tuning | {"start": None, "out": str(again)})
    assert all(np.array_equal(a, b) for a, b in zip(left.weights, networks_of(again).weights, strict=True))


def test_fine_tuned_without_target_labels_of_both_classes_is_a_training_error(tuning: dict[str, Any]) -> None:
    without_labels("target_fit", pl.lit(True)).write_parquet(tuning["matrix"])
    with pytest.raises(TrainingError, match="got 0 known, 0 of them bad; wait for labels"):
        run(tuning)


# --- the target's bad rate ---


def unlabelled(spec: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A run to which no target label is known but those that decide the stop."""
    without_labels("target_fit", pl.lit(True)).write_parquet(spec["matrix"])
    overrides = {**SMALL, "learning_rate": 0.05, "use_target_labels": False}  # ranks after six steps
    return spec | {"overrides": overrides, "target_prior": None, **changes}


@pytest.mark.parametrize("rule", ["bbse", "em"])
def test_a_prior_that_is_not_known_is_estimated_from_the_network_that_adapts_nothing(
    spec: dict[str, Any], rule: Any
) -> None:
    spec = unlabelled(spec, prior_rule=rule)
    result = run(spec)
    rows = read_rows(Path(spec["matrix"]), spec["columns"], spec["parts"])
    assert rows.held_out is not None
    # mmd_weight 0 without target labels is the ensemble that saw the source alone
    alone = networks_of(Path(spec["out"]) / "source_only" / "alone")
    x, y = rows.held_out
    expected = estimate_prior(rule, alone.raw_logit(x), y, alone.raw_logit(rows.target_fit[0]))
    assert expected.value is not None
    assert (result["target_prior"], result["prior_from"], result["prior_reason"]) == (expected.value, rule, None)
    assert history(spec)["target_prior"] == {"value": expected.value, "from": rule, "reason": None}


def test_the_estimated_prior_weights_the_rows_of_the_other_weights(spec: dict[str, Any]) -> None:
    spec = unlabelled(spec, seeds=[1])
    first, told, untold = (spec | {"out": str(Path(spec["out"]) / name)} for name in ("first", "told", "untold"))
    for one in (first, told, untold):
        Path(one["out"]).mkdir()
    estimated = run(first)["target_prior"]
    run(told | {"target_prior": estimated, "prior_rule": None})
    run(untold | {"prior_rule": None})
    of_first, of_told, of_untold = (history(one)["candidates"][1] for one in (first, told, untold))
    assert of_first == of_told
    assert of_first != of_untold


@pytest.mark.parametrize(
    ("changes", "rule", "reason"),
    [
        ({"prior_rule": None}, "none", "not asked for"),
        ({"parts": PARTS | {"held_out": []}}, "bbse", "no source rows were held out"),
        ({"parts": PARTS | {"held_out": ["nowhere"]}}, "bbse", "no source rows were held out"),
        ({"mmd_weights": [1.0]}, "bbse", "mmd_weight 0 was not trained"),
    ],
)
def test_a_prior_that_is_not_estimated_is_reported_with_its_reason(
    spec: dict[str, Any], changes: dict[str, Any], rule: str, reason: str
) -> None:
    spec = unlabelled(spec, seeds=[1], **changes)
    result = run(spec)
    assert (result["target_prior"], result["prior_from"], result["prior_reason"]) == (None, rule, reason)
    assert history(spec)["target_prior"] == {"value": None, "from": rule, "reason": reason}


def test_a_prior_that_cannot_be_relied_on_is_none_with_its_reason(spec: dict[str, Any]) -> None:
    spec = unlabelled(spec, seeds=[1])
    one_bad = (pl.col("part") == "source_stop") & (pl.int_range(pl.len()) % 40 != 0)
    rows = pl.read_parquet(spec["matrix"])
    rows.with_columns(pl.when(one_bad).then(0).otherwise(pl.col("label")).alias("label")).write_parquet(spec["matrix"])
    result = run(spec)
    assert result["target_prior"] is None
    assert "label shift cannot be estimated from these scores" in result["prior_reason"]


# --- the stop rows ---


def without_labels(part: str, unknown: pl.Expr) -> pl.DataFrame:
    """The matrix, some labels of a part not known."""
    hidden = (pl.col("part") == part) & unknown
    return matrix().with_columns(pl.when(hidden).then(None).otherwise(pl.col("label")).alias("label"))


@pytest.mark.parametrize("preset", ["dan", "article"])
def test_stop_rows_with_an_unknown_label_are_left_out_and_counted(spec: dict[str, Any], preset: str) -> None:
    every_fifth = pl.int_range(pl.len()) % 5 == 0
    rows = without_labels("target_select", every_fifth)
    unknown = rows.filter(pl.col("part") == "target_select")["label"].null_count()
    overrides = SMALL if preset == "dan" else {"hidden": [8, 4], "batch_size": 32, "epochs": 2}
    spec |= {"preset": preset, "overrides": overrides, "seeds": [1], "mmd_weights": [1.0]}
    rows.write_parquet(spec["matrix"])
    result = run(spec)
    assert (result["stop_rows"], result["stop_rows_unknown"]) == (60 - unknown, unknown) == (48, 12)

    # they decide nothing: without them at all, the same network
    again = Path(spec["out"]).parent / "again"
    again.mkdir()
    rows.filter((pl.col("part") != "target_select") | pl.col("label").is_not_null()).write_parquet(spec["matrix"])
    assert run(spec | {"out": str(again)}) == result | {"stop_rows_unknown": 0}
    for one, other in zip(networks_of(Path(spec["out"])).weights, networks_of(again).weights, strict=True):
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
        read(spec)


# --- choice ---


def test_too_few_rows_are_a_training_error_that_names_the_weight(spec: dict[str, Any]) -> None:
    spec["overrides"] = {**SMALL, "epochs": 1, "max_steps": 60, "evaluate_every": 50}
    with pytest.raises(TrainingError, match=r"mmd_weight 0 \(1 of 2\).*at least evaluate_every = 50"):
        run(spec)


def test_the_smallest_weight_that_ranks_the_choosing_rows_as_well_is_chosen_in_whatever_order_they_come() -> None:
    label = np.array([0, 0, 1, 1] * 20)
    good, poor = label + 0.01 * np.arange(80), np.arange(80) % 3
    assert choose([candidate(1.0, good), candidate(0.1, good), candidate(0.0, poor)], label).mmd_weight == 0.1
    assert choose([candidate(1.0, good), candidate(0.0, good), candidate(0.1, poor)], label).mmd_weight == 0.0


def test_rows_that_choose_need_not_be_those_that_stop(spec: dict[str, Any]) -> None:
    spec |= {"parts": {**PARTS, "stop": ["source_stop"]}, "seeds": [1]}
    result = run(spec)
    assert result["stop_rows"] == 160
    rows = read_rows(Path(spec["matrix"]), COLUMNS, spec["parts"])
    found = networks_of(Path(spec["out"]))
    kept = next(one for one in history(spec)["candidates"] if one["mmd_weight"] == result["mmd_weight"])
    assert kept["choose_auc"] == pytest.approx(auc_value(rows.choose[1], found.raw_logit(rows.choose[0])))
    assert kept["stop_auc"] == pytest.approx(auc_value(rows.stop[1], found.raw_logit(rows.stop[0])))


# --- rows ---


def test_roles_take_their_parts_and_an_unknown_label_is_nan(spec: dict[str, Any]) -> None:
    rows = read(spec, parts={**PARTS, "stop": ["source_stop", "target_select"]})
    assert (len(rows.x_s), len(rows.x_t), len(rows.x_stop)) == (120, 80, 220)
    assert rows.x_s.dtype == np.float32
    assert np.isnan(rows.y_t).sum() == 40
    assert rows.target_prior == 0.4


def test_held_out_rows_are_those_with_a_known_label(spec: dict[str, Any]) -> None:
    without_labels("source_stop", pl.int_range(pl.len()) % 4 == 0).write_parquet(spec["matrix"])
    rows = read_rows(Path(spec["matrix"]), COLUMNS, PARTS)
    assert rows.held_out is not None
    x, y = rows.held_out
    assert (x.shape, y.shape) == ((120, 3), (120,))
    assert set(np.unique(y)) == {0, 1}


def test_the_order_of_the_rows_in_the_file_changes_nothing(spec: dict[str, Any]) -> None:
    rows = read(spec)
    matrix().sample(fraction=1.0, shuffle=True, seed=3).write_parquet(spec["matrix"])
    again = read(spec)
    assert np.array_equal(rows.x_s, again.x_s)
    assert np.array_equal(rows.y_stop, again.y_stop)


def test_a_part_that_trains_may_decide_neither_stop_nor_weight(spec: dict[str, Any]) -> None:
    for role in ("stop", "choose"):
        with pytest.raises(InputError, match=r"target_fit.*a row does one of them"):
            read(spec, parts={**PARTS, role: ["target_fit"]})


def test_a_missing_column_and_an_empty_role_are_named(spec: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="first 'salary'"):
        read(spec, columns=["income", "salary"])
    with pytest.raises(InputError, match="no row has a part among \\['nowhere'\\]"):
        read(spec, parts={**PARTS, "target_fit": ["nowhere"]})


def test_an_unknown_source_label_is_an_input_error(spec: dict[str, Any]) -> None:
    without_labels("source_fit", pl.int_range(pl.len()) % 5 == 0).write_parquet(spec["matrix"])
    with pytest.raises(InputError, match="source labels must all be 0 or 1"):
        read(spec)


# --- presets and overrides ---


def test_overrides_replace_fields_of_the_preset() -> None:
    assert preset_with_overrides("article", {}) == ARTICLE
    expected = replace(DAN, hidden=(8, 4), max_steps=90)
    assert preset_with_overrides("dan", {"hidden": [8, 4], "max_steps": 90}) == expected


def test_tables_of_the_overrides_replace_fields_of_theirs_and_keep_the_rest() -> None:
    found = preset_with_overrides("ddc", {"kernels": {"bandwidth": "median"}})
    assert found == replace(PRESETS["ddc"], kernels=KernelFamily(num=1, bandwidth="median"))
    tuned = preset_with_overrides("fine_tuned", {"fine_tuning": {"thaw_every": None}})
    assert tuned.fine_tuning == FineTuning(thaw_every=None)


@pytest.mark.parametrize(
    ("preset", "overrides", "message"),
    [
        ("deep", {}, "unknown preset 'deep'"),
        ("dan", {"learning_rat": 0.1}, "did you mean 'learning_rate'"),
        ("dan", {"batch_size": 0}, "batch_size must be at least 1"),
        ("dan", {"kernels": {"nam": 1}}, "unknown training option 'nam'"),
        ("dan", {"kernels": {"bandwidth": "fixed"}}, "fix_sigma goes with"),
        ("dan", {"layers": ["hidden_3"]}, "'hidden_3', which a network of"),
    ],
)
def test_an_unknown_preset_or_override_is_refused(preset: str, overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        preset_with_overrides(preset, overrides)


# --- progress ---


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

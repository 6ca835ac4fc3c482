"""A contender behind raw columns: what is exported is what was fitted, for every form and both readers."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import tensorflow as tf
from contenders import (
    CONTENDERS,
    PLAN,
    REFERENCE,
    ROWS,
    SCALING,
    TRAINING,
    WIDTH,
    expected_probability,
    loans,
    logistic,
    network,
    stacked,
    trees,
)
from tensorflow.core.protobuf import saved_model_pb2

from crossrisk.errors import InputError, PublishError
from crossrisk.features import (
    FitSettings,
    RawColumn,
    RowPlan,
    check_servable_names,
    encoding_expressions,
    fit_plan,
    rowwise_expressions,
)
from models import bundle, export_worker, verification
from models.child import run_worker
from models.feature_graph import DATE_MISSING
from models.fitted import Contender, Form, Network, save_contender


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The forest as a SavedModel, for the tests that only read it."""
    directory = tmp_path_factory.mktemp("exported") / "1700000000"
    bundle.export(PLAN, CONTENDERS["forest"][0], SCALING, directory, reference=REFERENCE)
    return directory


# --- what goes in comes out ---


@pytest.mark.parametrize("name", CONTENDERS)
def test_exported_contender_says_what_the_contender_says(name: str, tmp_path: Path) -> None:
    contender, tolerance = CONTENDERS[name]
    bundle.export(PLAN, contender, SCALING, tmp_path / "model")
    golden = loans(300, seed=9)
    expected = expected_probability(contender, golden)
    assert expected.std() > 0.01

    batch = bundle.raw_batch(golden, PLAN.rows.raw_columns)
    verified = verification.verify(tmp_path / "model", batch, expected, tolerance)
    assert verified.rows == 300
    assert max(verified.graph_reader, verified.object_reader) <= tolerance

    scores = bundle.load(tmp_path / "model").score_frame(golden, batch_rows=128)
    np.testing.assert_allclose(scores.probability, expected, rtol=0, atol=tolerance)
    np.testing.assert_allclose(scores.score, SCALING.score(scores.probability), rtol=0, atol=1e-9)

    # the variables of a network, and of nothing else, are a network to start from
    found = bundle.read_network(tmp_path / "model", "relu")
    assert (found is not None) == isinstance(contender.form, Network)
    if found is not None and isinstance(contender.form, Network):
        layers = zip((*found.weights, *found.biases), (*contender.form.weights, *contender.form.biases), strict=True)
        assert all(np.array_equal(read, written) for read, written in layers)


def test_directory_holds_what_tensorflow_writes_the_warm_up_and_nothing_else(exported: Path) -> None:
    tensorflows = {"saved_model.pb", "fingerprint.pb", "variables", "assets"}
    assert {path.name for path in exported.iterdir()} <= {*tensorflows, "assets.extra"}
    assert not any((exported / "assets").glob("*"))
    assert [path.name for path in (exported / "assets.extra").iterdir()] == ["tf_serving_warmup_requests"]


def test_signature_alone_says_which_columns_of_which_kind_are_needed(exported: Path) -> None:
    columns = bundle.load(exported).columns
    assert set(columns) == set(PLAN.rows.raw_columns)


def test_scores_keep_the_order_of_the_rows_whatever_the_batch(exported: Path) -> None:
    model, frame = bundle.load(exported), loans(50, seed=5)
    whole, sliced = model.score_frame(frame), model.score_frame(frame, batch_rows=7)
    backwards = model.score_frame(frame.reverse())
    assert whole.probability.std() > 0.01
    # the last bit may move: sums over trees are taken in another order for another number of rows
    np.testing.assert_allclose(sliced.probability, whole.probability, rtol=0, atol=1e-14)
    np.testing.assert_allclose(backwards.score, whole.score[::-1], rtol=0, atol=1e-9)


def test_frame_without_rows_scores_to_nothing(exported: Path) -> None:
    scores = bundle.load(exported).score_frame(TRAINING.clear())
    assert scores.probability.shape == scores.score.shape == (0,)


def test_column_that_training_never_saw_vary_is_still_an_input(tmp_path: Path) -> None:
    # a plan may drop a feature; the raw column stays in the contract, or inputs would change from month to month
    frame = TRAINING.with_columns(has_phone=pl.lit(True))
    features = frame.select(rowwise_expressions(ROWS))
    plan = fit_plan(features, ROWS, FitSettings(clip_quantiles=(0.01, 0.99), min_level_rows=30))
    assert "has_phone" in {one.feature for one in plan.dropped}
    contender = Contender("logistic", logistic(len(plan.outputs)))
    bundle.export(plan, contender, SCALING, tmp_path / "model")
    model = bundle.load(tmp_path / "model")
    assert RawColumn(name="has_phone", kind="number") in model.columns
    expected = contender.probability(features.select(encoding_expressions(plan)).to_numpy())
    verification.verify(tmp_path / "model", bundle.raw_batch(frame, model.columns), expected, 1e-9)


# --- what is refused at export ---


@pytest.mark.parametrize(
    "name", ["loan amount", "1st_income", "class", "_hidden", "crédit", "a.b", "a-b", "", "self", "probability"]
)
def test_column_name_that_a_signature_cannot_carry_is_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=f"raw column '{name}' cannot be an input"):
        check_servable_names([RawColumn(name="income", kind="number"), RawColumn(name=name, kind="number")])


def test_column_names_that_differ_in_case_alone_are_refused() -> None:
    with pytest.raises(ValueError, match="'DTI' and 'dti' differ in case alone"):
        check_servable_names([RawColumn(name="DTI", kind="number"), RawColumn(name="dti", kind="number")])


def test_column_names_that_look_odd_but_work_are_kept(tmp_path: Path) -> None:
    names = ("name", "args", "kwargs", "inputs", "training", "print", "match", "X1__", "income_1", "income", "unknown")
    rows = RowPlan(decision_date=None, numbers=names, categories=(), sentinels=(), ratios=(), ages=())
    frame = pl.DataFrame({name: np.random.default_rng(i).normal(size=20) for i, name in enumerate(names)})
    plan = fit_plan(
        frame.select(rowwise_expressions(rows)), rows, FitSettings(clip_quantiles=(0.0, 1.0), min_level_rows=5)
    )
    contender = Contender("logistic", logistic(len(plan.outputs)))
    bundle.export(plan, contender, SCALING, tmp_path / "model")
    features = frame.select(rowwise_expressions(rows)).select(encoding_expressions(plan))
    batch = bundle.raw_batch(frame, plan.rows.raw_columns)
    verification.verify(tmp_path / "model", batch, contender.probability(features.to_numpy()), 1e-9)


@pytest.mark.parametrize(
    "form", [logistic(WIDTH + 1), trees("sum", 3 * WIDTH), network("relu", WIDTH - 1), stacked(logistic(WIDTH - 1))]
)
def test_contender_of_another_plan_is_refused(form: Form, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="columns"):
        bundle.export(PLAN, Contender("misfit", form), SCALING, tmp_path / "model")


def test_directory_that_holds_something_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"the champion")
    with pytest.raises(PublishError, match="holds files"):
        bundle.export(PLAN, CONTENDERS["logistic"][0], SCALING, tmp_path)
    assert (tmp_path / "saved_model.pb").read_bytes() == b"the champion"


# --- what is refused at scoring ---


def test_missing_column_is_named(exported: Path) -> None:
    with pytest.raises(InputError, match="1 of them are not in the frame: opened_on"):
        bundle.load(exported).score_frame(TRAINING.drop("opened_on"))


@pytest.mark.parametrize(
    ("column", "values", "kind"),
    [
        ("debt_usd", pl.Series(["1", "2"]), "number"),
        ("debt_usd", pl.Series([dt.date(2020, 1, 1)] * 2), "number"),
        ("region", pl.Series([36.0, 60.0]), "category"),
        ("opened_on", pl.Series(["2020-01-01", "2020-01-02"]), "date"),
        ("opened_on", pl.Series([20200101, 20200102]), "date"),
    ],
)
def test_mistyped_column_is_named(column: str, values: pl.Series, kind: str) -> None:
    frame = TRAINING.head(2).with_columns(values.alias(column))
    with pytest.raises(InputError, match=f"raw column '{column}' is a {kind}: expected .*, got {values.dtype}"):
        bundle.raw_batch(frame, PLAN.rows.raw_columns)


def test_missing_values_become_the_marks_of_the_signature() -> None:
    columns = [RawColumn(name=k, kind=k) for k in ("number", "category", "date")]
    frame = pl.DataFrame({"number": [None, 1], "category": [None, "a"], "date": [None, dt.date(1970, 1, 2)]})
    batch = bundle.raw_batch(frame, columns)
    assert {name: values.dtype.name for name, values in batch.items()} == {
        "number": "float64",
        "category": "object",
        "date": "int32",
    }
    assert np.isnan(batch["number"][0])
    assert batch["category"].tolist() == ["", "a"]
    assert batch["date"].tolist() == [DATE_MISSING, 1]


# --- what is refused at loading ---


def test_savedmodel_with_other_outputs_is_not_loaded(tmp_path: Path) -> None:
    module = tf.Module()
    module.serve = tf.function(
        lambda income: {"prob": income}, input_signature=[tf.TensorSpec([None], tf.float64, name="income")]
    )
    tf.saved_model.save(module, str(tmp_path), signatures={"serving_default": module.serve})
    with pytest.raises(PublishError, match=r"3 of the outputs .* first 'prob': expected .* none, got"):
        bundle.load(tmp_path)


@pytest.mark.parametrize("name", ["/etc/passwd", "../secret.txt", "vocabulary/../../x", "a\\b"])
def test_graph_that_names_a_file_outside_of_its_directory_is_not_loaded(
    exported: Path, tmp_path: Path, name: str
) -> None:
    graph = saved_model_pb2.SavedModel.FromString((exported / "saved_model.pb").read_bytes())
    graph.meta_graphs[0].asset_file_def.add(filename=name).tensor_info.name = "asset:0"
    (tmp_path / "saved_model.pb").write_bytes(graph.SerializeToString())
    with pytest.raises(PublishError, match=r"the graph of .* names a file .*: expected a name below the folder"):
        bundle.load(tmp_path)
    batch = bundle.raw_batch(TRAINING, PLAN.rows.raw_columns)
    with pytest.raises(PublishError, match="names a file"):
        verification.verify(tmp_path, batch, np.zeros(TRAINING.height))


def test_batch_without_a_column_and_with_one_of_another_type_are_refused_by_name(exported: Path) -> None:
    model, batch = bundle.load(exported), bundle.raw_batch(TRAINING, PLAN.rows.raw_columns)
    mistyped = batch | {"opened_on": batch["opened_on"].astype(np.int64)}
    for ask in (model.score_batch, model.explain_batch):
        with pytest.raises(InputError, match="lacks the raw column 'opened_on'; it has debt_usd"):
            ask({name: values for name, values in batch.items() if name != "opened_on"})
        with pytest.raises(InputError, match="'opened_on' is a date: expected int32, got int64"):
            ask(mistyped)


# --- as a colleague meets it: the command line tool and the worker process ---


@pytest.mark.flow
def test_saved_model_cli_shows_and_runs_it(exported: Path, tmp_path: Path) -> None:
    tool = str(Path(sys.executable).parent / "saved_model_cli")
    base = ["--dir", str(exported), "--tag_set", "serve", "--signature_def", "serving_default"]
    shown = _tool_output([tool, "show", *base])
    for name, dtype in [("income_monthly_usd", "DT_DOUBLE"), ("region", "DT_STRING"), ("opened_on", "DT_INT32")]:
        assert f"inputs['{name}'] tensor_info:\n      dtype: {dtype}\n      shape: (-1)" in shown

    frame = loans(2, seed=7)
    batch = bundle.raw_batch(frame, PLAN.rows.raw_columns)
    # its --input_exprs takes literals only, which know no NaN; object arrays would be pickled into the file
    feed = {name: values.astype(str) if values.dtype == object else values for name, values in batch.items()}
    np.savez(tmp_path / "feed.npz", allow_pickle=False, **feed)
    inputs = ";".join(f"{name}={tmp_path / 'feed.npz'}[{name}]" for name in feed)
    ran = _tool_output([tool, "run", *base, "--inputs", inputs])
    printed = ran.split("Result for output key probability:\n")[1].split("Result")[0]
    got = np.array(printed.replace("[", " ").replace("]", " ").split(), np.float64)
    np.testing.assert_allclose(got, expected_probability(CONTENDERS["forest"][0], frame), atol=1e-6)


def _tool_output(command: list[str]) -> str:
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    finished = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.mark.flow
def test_worker_exports_verifies_and_scores_in_three_processes(tmp_path: Path) -> None:
    contender = CONTENDERS["boosted_constant"][0]
    (tmp_path / "plan.json").write_text(PLAN.model_dump_json(), encoding="utf-8")
    save_contender(contender, tmp_path)
    golden = loans(30, seed=8)
    expected = expected_probability(contender, golden)
    golden.with_columns(probability=pl.Series(expected)).write_parquet(tmp_path / "golden.parquet")
    directory = str(tmp_path / "model")

    def worker(mode: str, **spec: object) -> dict[str, object]:
        spec = {"mode": mode, "directory": directory, **spec}
        return run_worker("models.export_worker", spec, workdir=tmp_path, on_event=events.append)

    events: list[dict[str, object]] = []
    scaling = {"score_at_odds": 600.0, "odds": 30.0, "points_to_double": 20.0}
    worker("export", plan=str(tmp_path / "plan.json"), contender=str(tmp_path), scaling=scaling)
    verification = worker("verify", golden=str(tmp_path / "golden.parquet"), tolerance=1e-9)
    assert verification["rows"] == 30

    output = tmp_path / "scores.parquet"
    files = {"input": str(tmp_path / "golden.parquet"), "output": str(output)}
    assert worker("score", **files, id_column="loan_id", batch_rows=12) == {"rows": 30}
    assert [event["rows"] for event in events] == [12, 24, 30]
    scores = pl.read_parquet(output)
    assert scores.columns == ["loan_id", "probability", "score"]
    assert scores["loan_id"].to_list() == golden["loan_id"].to_list()
    np.testing.assert_allclose(scores["probability"].to_numpy(), expected, rtol=0, atol=1e-9)
    np.testing.assert_allclose(scores["score"].to_numpy(), SCALING.score(expected), rtol=0, atol=1e-6)


def test_file_without_a_column_of_the_model_is_named_before_anything_is_scored(exported: Path, tmp_path: Path) -> None:
    TRAINING.drop("region").write_parquet(tmp_path / "short.parquet")
    spec = {
        "directory": str(exported),
        "input": str(tmp_path / "short.parquet"),
        "output": str(tmp_path / "scores.parquet"),
        "id_column": "loan_id",
        "batch_rows": 100,
    }
    with pytest.raises(InputError, match=r"short\.parquet: expected the columns .*; missing: region"):
        export_worker.score(spec, lambda event: None)
    assert not (tmp_path / "scores.parquet").exists()


def test_mode_that_the_worker_does_not_know_is_refused() -> None:
    with pytest.raises(ValueError, match="export, verify, score, explain; got 'serve'"):
        export_worker.handle({"mode": "serve"}, lambda event: None)

"""What a server can ask of a version, by name and type, in a process that cannot import this project."""

from __future__ import annotations

import base64
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import tensorflow as tf
from contenders import (
    CONTENDERS,
    PLAN,
    REFERENCE,
    SCALING,
    WIDTH,
    ask_stranger,
    encode,
    expected_probability,
    loans,
    logistic,
)

from crossrisk.features import FitSettings, RowPlan, Sentinels, fit_plan, rowwise_expressions
from models import article_export, bundle
from models.feature_graph import DATE_MISSING
from models.fitted import Calibration, Contender, Logistic, Matrix, Network, Trees
from models.serving_graph import REASONS_GIVEN, ServingGraph, parse_examples

pytestmark = pytest.mark.flow  # exports every form, and asks them from other processes

COLUMNS = PLAN.rows.raw_columns
RAW = {
    "income_monthly_usd": ["float64", 1],
    "has_phone": ["float64", 1],
    "debt_usd": ["float64", 1],
    "region": ["string", 1],
    "opened_on": ["int32", 1],
    "decided_on": ["int32", 1],
}
CUSTOMER = {
    "income_monthly_usd": 2500.5, "has_phone": 1, "debt_usd": float("nan"),
    "region": "north", "opened_on": 18500, "decided_on": 19509,
}  # fmt: skip
SCORES = {"probability": ["float64", 1], "score": ["float64", 1]}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network: the form with all signatures."""
    directory = tmp_path_factory.mktemp("exported") / "1700000000"
    bundle.export(PLAN, CONTENDERS["network_relu"][0], SCALING, directory, reference=REFERENCE)
    return directory


@cache
def loaded(directory: Path) -> bundle.LoadedModel:
    return bundle.load(directory)


def ask(directory: Path, signature: str, frame: pl.DataFrame) -> dict[str, Any]:
    """The outputs of a signature of raw columns."""
    feed = {name: tf.constant(values) for name, values in bundle.raw_batch(frame, COLUMNS).items()}
    return {name: tensor.numpy() for name, tensor in loaded(directory).saved.signatures[signature](**feed).items()}


# --- names and types ---


def test_a_stranger_finds_every_signature_by_name_and_type(exported: Path) -> None:
    (said,) = ask_stranger(exported, {"describe": True})
    assert {name: signature["inputs"] for name, signature in said.items()} == {
        "serving_default": RAW, "reasons": RAW, "features": RAW, "embedding": RAW,
        "examples": {"examples": ["string", 1]},
    }  # fmt: skip
    assert {name: signature["outputs"] for name, signature in said.items()} == {
        "serving_default": SCORES,
        "reasons": {
            "feature": ["string", 2], "contribution": ["float64", 2], "points": ["float64", 2], "base": ["float64", 1],
        },
        "features": {"features": ["float32", 2]},
        "embedding": {"embedding": ["float32", 2]},
        "examples": SCORES,
    }  # fmt: skip


def test_a_stranger_gets_the_contenders_answer_by_rows_by_columns_and_by_examples(exported: Path) -> None:
    nothing_missing = CUSTOMER | {"debt_usd": 1024.0}
    frame = pl.DataFrame({name: [value] for name, value in nothing_missing.items()}).with_columns(
        pl.col("opened_on", "decided_on").cast(pl.Int32).cast(pl.Date)
    )
    expected = expected_probability(CONTENDERS["network_relu"][0], frame)[0]
    serialised = {"b64": base64.b64encode(example(nothing_missing)).decode()}
    rows, columns, examples = ask_stranger(
        exported,
        {"instances": [nothing_missing]},
        {"inputs": {name: [value] for name, value in nothing_missing.items()}},
        {"signature_name": "examples", "instances": [serialised]},
    )
    by_row, by_column, by_example = rows["predictions"][0], columns["outputs"], examples["predictions"][0]
    answers = [by_row["probability"], by_column["probability"][0], by_example["probability"]]
    assert answers == pytest.approx([expected] * 3, abs=1e-6)
    assert by_row["score"] == pytest.approx(SCALING.score(np.array([expected]))[0], abs=1e-4)


@pytest.mark.parametrize("name", CONTENDERS)
def test_every_contender_has_reasons_and_only_networks_an_embedding(name: str) -> None:
    contender, _ = CONTENDERS[name]
    offered = set(ServingGraph(PLAN, contender, SCALING, REFERENCE).of_matrix)
    assert offered == {"serving_default", "features", "reasons"} | (
        {"embedding"} if isinstance(contender.form, Network) else set()
    )


def test_a_version_exported_without_a_reference_gives_no_reasons(tmp_path: Path) -> None:
    bundle.export(PLAN, CONTENDERS["logistic"][0], SCALING, tmp_path / "model")
    model = bundle.load(tmp_path / "model")
    assert "reasons" not in model.saved.signatures
    assert model.explain_batch(bundle.raw_batch(loans(2), COLUMNS)) is None


def test_a_reference_of_another_plan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"expected a reference of shape \({WIDTH},\), got \(3,\)"):
        bundle.export(PLAN, CONTENDERS["logistic"][0], SCALING, tmp_path / "m", reference=np.zeros(3, np.float32))


def test_raw_columns_may_be_called_as_outputs_are(tmp_path: Path) -> None:
    names = ("feature", "features", "contribution", "points", "base", "embedding", "examples", "reasons", "raw")
    rows = RowPlan(decision_date=None, numbers=names, categories=(), sentinels=(), ratios=(), ages=())
    frame = pl.DataFrame({name: np.random.default_rng(i).normal(size=20) for i, name in enumerate(names)})
    settings = FitSettings(clip_quantiles=(0.0, 1.0), min_level_rows=5)
    plan = fit_plan(frame.select(rowwise_expressions(rows)), rows, settings)
    contender = Contender("logistic", logistic(len(plan.outputs)))
    bundle.export(plan, contender, SCALING, tmp_path / "m", reference=np.zeros(len(plan.outputs), np.float32))
    model = bundle.load(tmp_path / "m")
    assert {column.name for column in model.columns} == set(names)
    reasons = model.explain_batch(bundle.raw_batch(frame, model.columns))
    assert reasons is not None
    assert set(reasons.features.ravel()) <= {*names, ""}


# --- features and embedding ---


def test_features_are_the_matrix_that_polars_makes(exported: Path) -> None:
    frame = loans(500, seed=11)
    np.testing.assert_array_equal(ask(exported, "features", frame)["features"], encode(frame).to_numpy())


def test_embedding_is_the_last_hidden_layer_member_after_member(exported: Path) -> None:
    form = CONTENDERS["network_relu"][0].form
    assert isinstance(form, Network)
    frame = loans(40, seed=12)
    members = []
    for member in range(3):
        hidden: Matrix = encode(frame).to_numpy()
        for weight, bias in zip(form.weights[:-1], form.biases[:-1], strict=True):
            hidden = np.maximum(hidden @ weight[member] + bias[member], 0)
        members.append(hidden)
    got = ask(exported, "embedding", frame)["embedding"]
    assert got.shape == (40, 3 * 8)
    np.testing.assert_allclose(got, np.concatenate(members, axis=1), rtol=0, atol=1e-4)


# --- reasons ---


def explained(frame: pl.DataFrame, form: Logistic, calibration: Calibration, directory: Path) -> bundle.Reasons:
    bundle.export(PLAN, Contender("card", form, calibration), SCALING, directory, reference=REFERENCE)
    reasons = bundle.load(directory).explain_batch(bundle.raw_batch(frame, COLUMNS))
    assert reasons is not None
    return reasons


def test_reasons_of_a_scorecard_are_slope_times_coefficient_times_distance_summed_by_feature(tmp_path: Path) -> None:
    """By hand: the definition, row by row in NumPy."""
    frame, form, calibration = loans(60, seed=13), logistic(), Calibration(0.4, 0.7)
    reasons = explained(frame, form, calibration, tmp_path / "m")
    of_outputs = 0.7 * form.coefficients * (encode(frame).to_numpy().astype(np.float64) - REFERENCE)
    for row in range(60):
        totals: dict[str, float] = {}
        for feature, contribution in zip(PLAN.features_of_outputs, of_outputs[row], strict=True):
            totals[feature] = totals.get(feature, 0.0) + contribution
        expected = sorted(((c, f) for f, c in totals.items() if c > 0), reverse=True)[:REASONS_GIVEN]
        given = [f for f in reasons.features[row] if f]
        assert given == [f for _, f in expected]
        np.testing.assert_allclose(reasons.contributions[row, : len(given)], [c for c, _ in expected], atol=1e-6)
    assert reasons.features.shape == (60, REASONS_GIVEN)


def test_points_of_a_reason_are_what_it_takes_from_the_score(tmp_path: Path) -> None:
    reasons = explained(loans(60, seed=13), logistic(), Calibration(), tmp_path / "m")
    np.testing.assert_allclose(reasons.points, -SCALING.factor * reasons.contributions, rtol=1e-12)
    assert (reasons.contributions >= 0).all()
    assert reasons.points.min() < 0


def test_places_without_a_reason_are_empty_and_behind_the_others(tmp_path: Path) -> None:
    reasons = explained(loans(200, seed=14), logistic(), Calibration(), tmp_path / "m")
    empty = reasons.features == ""
    assert 0 < empty.mean() < 1
    assert (reasons.contributions[empty] == 0).all()
    assert (reasons.points[empty] == 0).all()
    assert not np.signbit(reasons.points[empty]).any()  # -0.0 on a notice to a customer
    assert (np.diff(empty.astype(int), axis=1) >= 0).all()
    assert (np.diff(reasons.contributions, axis=1) <= 0).all()


def test_base_and_all_contributions_make_the_log_odds(tmp_path: Path) -> None:
    form = Logistic(np.abs(logistic().coefficients), -1.5)
    bundle.export(PLAN, Contender("card", form), SCALING, tmp_path / "m", reference=REFERENCE)
    frame = loans(40, seed=15)
    base = ask(tmp_path / "m", "reasons", frame)["base"]
    at_reference = float(REFERENCE.astype(np.float64) @ form.coefficients - 1.5)
    np.testing.assert_allclose(base, at_reference, atol=1e-6)


@pytest.mark.parametrize("name", CONTENDERS)
def test_whatever_the_form_reasons_start_from_one_base_for_everybody(name: str) -> None:
    """What is left of the log odds without all contributions: they are complete, or the base would follow the row."""
    contender, _ = CONTENDERS[name]
    graph = ServingGraph(PLAN, contender, SCALING, REFERENCE)
    x = tf.constant(encode(loans(80, seed=17)).to_numpy())
    given = graph.of_matrix["reasons"](x)
    base = given["base"].numpy()
    assert np.ptp(base) <= 1e-4
    log_odds = np.log(contender.probability(x.numpy()) / (1 - contender.probability(x.numpy())))
    assert np.ptp(log_odds) > 0.1
    assert (given["contribution"].numpy() >= 0).all()


@pytest.mark.parametrize("name", ["forest", "boosted_constant", "stacked_logistic", "network_sigmoid"])
def test_reasons_are_the_same_through_the_articles_door(name: str, tmp_path: Path) -> None:
    """Its graph is built without eager execution, where variables have no values yet."""
    batch = bundle.raw_batch(loans(40, seed=19), COLUMNS)
    given = []
    for door in (bundle.export, article_export.export):
        directory = tmp_path / door.__module__
        door(PLAN, CONTENDERS[name][0], SCALING, directory, reference=REFERENCE)
        reasons = bundle.load(directory).explain_batch(batch)
        assert reasons is not None
        given.append(reasons)
    assert given[0].contributions.max() > 0.1
    np.testing.assert_allclose(given[0].contributions, given[1].contributions, rtol=0, atol=1e-5)
    assert (given[0].features == given[1].features).mean() > 0.99  # near ties may change places


def complete_forest(count: int, depth: int) -> Trees:
    """Trees whose leaves are all at the last level."""
    rng, node = np.random.default_rng(18), np.arange(2 ** (depth + 1) - 1)
    is_leaf, level = node >= 2**depth - 1, np.log2(node + 1).astype(np.int32)
    left = np.where(is_leaf, node, 2 * node + 1).astype(np.int32)
    shape = (count, len(node))
    return Trees(
        feature=np.where(is_leaf, 0, rng.integers(0, WIDTH, shape)).astype(np.int32),
        threshold=rng.normal(size=shape).astype(np.float32),
        left=np.tile(left, (count, 1)),
        right=np.tile(np.where(is_leaf, left, left + 1), (count, 1)),
        value=np.where(is_leaf, rng.random(shape), 0.0),
        depth=depth,
        link="mean",
        rows=np.tile(2 ** (depth - level), (count, 1)),
    )


def test_reasons_make_a_large_forest_hardly_larger_and_change_no_bit_of_a_score(tmp_path: Path) -> None:
    form = complete_forest(300, 12)
    unexplained = replace(form, rows=None)  # nor can it be: its inner nodes expect nothing
    bundle.export(PLAN, Contender("forest", form), SCALING, tmp_path / "with", reference=REFERENCE)
    bundle.export(PLAN, Contender("forest", unexplained), SCALING, tmp_path / "without")
    batch = bundle.raw_batch(loans(300, seed=18), COLUMNS)
    scores, size = {}, {}
    for name in ("with", "without"):
        scores[name] = bundle.load(tmp_path / name).score_batch(batch)
        size[name] = sum(file.stat().st_size for file in (tmp_path / name).rglob("*") if file.is_file())
    assert size["without"] > 30e6
    assert size["with"] < 1.1 * size["without"]
    assert (tmp_path / "with" / "saved_model.pb").stat().st_size < 1e6
    assert np.ptp(scores["with"].probability) > 0
    np.testing.assert_array_equal(scores["with"].probability, scores["without"].probability)
    np.testing.assert_array_equal(scores["with"].score, scores["without"].score)


# --- serialised tf.Examples ---


def feature(value: object) -> tf.train.Feature:
    match value:
        case str():
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.encode()]))
        case int():
            return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
        case float():
            return tf.train.Feature(float_list=tf.train.FloatList(value=[value]))
        case tf.train.Feature():
            return value
    raise AssertionError(value)


def example(values: dict[str, Any]) -> bytes:
    """An Example of raw values; numbers as floats, dates as days."""
    numbers = {c.name for c in COLUMNS if c.kind == "number"}
    typed = {name: feature(float(v) if name in numbers and isinstance(v, int) else v) for name, v in values.items()}
    return bytes(tf.train.Example(features=tf.train.Features(feature=typed)).SerializeToString())


def parse(*examples: bytes) -> dict[str, list[Any]]:
    parsed = parse_examples(PLAN.rows, tf.constant(list(examples), tf.string))
    return {name: tensor.numpy().tolist() for name, tensor in parsed.items()}


def test_examples_score_as_raw_columns_do_where_float32_holds_the_numbers(exported: Path) -> None:
    frame = loans(200, seed=16).with_columns(pl.col("income_monthly_usd").cast(pl.Float32).cast(pl.Float64))
    batch = bundle.raw_batch(frame, COLUMNS)
    rows = [
        {name: values[i].item() if name != "region" else values[i] for name, values in batch.items()}
        for i in range(200)
    ]
    serialised = tf.constant([example(row) for row in rows])
    by_example = loaded(exported).saved.signatures["examples"](examples=serialised)
    by_column = loaded(exported).score_batch(batch)
    np.testing.assert_array_equal(by_example["probability"].numpy(), by_column.probability)
    np.testing.assert_array_equal(by_example["score"].numpy(), by_column.score)


def test_a_feature_that_is_not_there_is_missing() -> None:
    raw = parse(example({"has_phone": 1}))
    assert np.isnan(raw["debt_usd"][0])
    assert (raw["has_phone"], raw["region"], raw["opened_on"]) == ([1.0], [b""], [DATE_MISSING])


def test_numbers_arrive_as_float32() -> None:
    assert parse(example({"debt_usd": 16_777_217.0}))["debt_usd"] == [16_777_216.0]


def test_a_missing_code_that_float32_cannot_hold_is_still_the_code() -> None:
    rows = PLAN.rows.model_copy(update={"sentinels": (Sentinels(column="debt_usd", codes=(99_999_999.0, -0.1)),)})
    given = tf.constant([example({"debt_usd": value}) for value in (99_999_999.0, -0.1, 1.5)])
    assert parse_examples(rows, given)["debt_usd"].numpy().tolist() == [99_999_999.0, -0.1, 1.5]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"debt_usd": feature(3)}, "Key: debt_usd, Index: 0.  Data types don't match. Data type: int64"),
        ({"region": feature(1.0)}, "Key: region, Index: 0.  Data types don't match. Data type: float"),
        ({"opened_on": feature("2020-01-01")}, "Key: opened_on, Index: 0.  Data types don't match. Data type: string"),
        (
            {"debt_usd": tf.train.Feature(float_list=tf.train.FloatList(value=[1.0, 2.0]))},
            "Key: debt_usd, Index: 0.  Number of float values != expected.  Values size: 2",
        ),
        ({"has_phone": 1.0, "opened_on": 2**40}, "feature opened_on is a date: expected int32 days"),
        ({"debt_eur": 1.0}, "holds none of the features that are wanted: income_monthly_usd, has_phone"),
    ],
)
def test_an_example_that_cannot_be_meant_fails_and_names_the_feature(
    exported: Path, values: dict[str, Any], words: str
) -> None:
    good = example({"debt_usd": 1.0})
    bad = bytes(
        tf.train.Example(
            features=tf.train.Features(feature={name: feature(value) for name, value in values.items()})
        ).SerializeToString()
    )
    with pytest.raises(tf.errors.InvalidArgumentError) as refused:
        loaded(exported).saved.signatures["examples"](examples=tf.constant([bad]))
    assert words in str(refused.value)
    with pytest.raises(tf.errors.InvalidArgumentError):  # one bad Example fails its whole batch
        loaded(exported).saved.signatures["examples"](examples=tf.constant([good, bad]))


@pytest.mark.parametrize("rubbish", [b"", b"rubbish", b"\n\x05ab", b'{"debt_usd": 1.0}'])
def test_bytes_that_are_no_example_are_not_scored(exported: Path, rubbish: bytes) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError):
        loaded(exported).saved.signatures["examples"](examples=tf.constant([rubbish]))


# --- a missing or mistyped column, as each reader says it ---


def test_over_rest_a_missing_or_mistyped_column_is_named(exported: Path) -> None:
    without = {name: value for name, value in CUSTOMER.items() if name != "region"}
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"instances": [without]}, "keys must be equal to: debt_usd,decided_on,has_phone,income_monthly_usd,"),
        ({"instances": [CUSTOMER | {"debt_eur": 1}]}, "key: debt_eur of 'instances' list"),
        ({"instances": [CUSTOMER | {"debt_usd": "1"}]}, "key: debt_usd of 'instances' list. Error: INVALID_ARGUMENT"),
        ({"instances": [CUSTOMER | {"debt_usd": None}]}, "key: debt_usd of 'instances' list. Error: INVALID_ARGUMENT"),
        ({"instances": [CUSTOMER | {"opened_on": 1.5}]}, "Type: Number is not of expected type: int32"),
        ({"inputs": {name: [value] for name, value in without.items()}}, "Missing named input: region in 'inputs'"),
    ]
    answers = ask_stranger(exported, *(request for request, _ in wrong))
    for answer, (_, words) in zip(answers, wrong, strict=True):
        assert words in answer["error"]


def test_a_call_of_the_signature_names_a_missing_column(exported: Path) -> None:
    with pytest.raises(TypeError, match="missing a required argument: 'debt_usd'"):
        loaded(exported).saved.signatures["serving_default"](region=tf.constant(["north"]))


def test_the_session_that_serves_grpc_names_a_missing_and_a_mistyped_column(exported: Path) -> None:
    from tensorflow.python.client import pywrap_tf_session as session_api  # what Session.run converts away

    batch = bundle.raw_batch(loans(2), COLUMNS)
    with tf.Graph().as_default() as graph, tf.compat.v1.Session() as session:
        meta_graph = tf.compat.v1.saved_model.load(session, ["serve"], str(exported))
        signature = meta_graph.signature_def["serving_default"]

        def run(feeds: dict[str, Any]) -> None:
            at = {graph.get_tensor_by_name(signature.inputs[n].name)._as_tf_output(): v for n, v in feeds.items()}
            score = [graph.get_tensor_by_name(signature.outputs["score"].name)._as_tf_output()]
            session_api.TF_SessionRun_wrapper(session._session, None, at, score, [], None)

        run(batch)
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"must feed a value for .*serving_default_region"):
            run({name: values for name, values in batch.items() if name != "region"})
        place = sorted(batch).index("has_phone")  # it counts the columns by the alphabet, which docs/serving.md says
        with pytest.raises(
            tf.errors.InvalidArgumentError, match=rf"arg\[{place}\] to be double but string is provided"
        ):
            run(batch | {"has_phone": np.array(["a", "b"], object)})

"""The article's reader and everybody else's read one version, and get one answer."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from datetime import date
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import tensorflow as tf
from registries import publish

from crossrisk.errors import PublishError
from crossrisk.features import (
    Age,
    FeaturePlan,
    FitSettings,
    Ratio,
    RowPlan,
    encoding_expressions,
    fit_plan,
    rowwise_expressions,
)
from crossrisk.registry import Registry
from crossrisk.scoring import Scaling
from models import article_export, bundle, export_worker, verification
from models.fitted import Calibration, Contender, Logistic, Matrix, Network, save_contender

SCALING = Scaling(score_at_odds=600.0, odds=30.0, points_to_double=20.0)
ROWS = RowPlan(
    decision_date="decided_on",
    # names that the graph wants for itself: the signature must carry them all the same
    numbers=("income_usd", "output", "source_input_x", "weight_0"),
    categories=("prob",),
    sentinels=(),
    ratios=(Ratio(name="burden", numerator="weight_0", denominator="income_usd"),),
    ages=(Age(name="account_months", date="opened_on"),),
)


def loans(rows: int, seed: int = 1) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    numbers = {name: np.where(rng.random(rows) < 0.1, np.nan, rng.normal(size=rows)) for name in ROWS.numbers}
    return pl.DataFrame(
        {
            **numbers,
            "prob": rng.choice(["north", "south", ""], rows),
            "opened_on": [date(2015 + i % 8, 1 + i % 12, 3) for i in range(rows)],
            "decided_on": [date(2024, 6, 1)] * rows,
        }
    )


def plan() -> FeaturePlan:
    return fit_plan(
        loans(400).select(rowwise_expressions(ROWS)), ROWS, FitSettings(clip_quantiles=(0.01, 0.99), min_level_rows=20)
    )


PLAN = plan()
GOLDEN = loans(200, seed=2)
BATCH = bundle.raw_batch(GOLDEN, ROWS.raw_columns)


def encode_frame(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select(rowwise_expressions(ROWS)).select(encoding_expressions(PLAN))


def encode(frame: pl.DataFrame) -> Matrix:
    return encode_frame(frame).to_numpy()


def article_network(intercept: float = -0.7) -> Contender:
    """The article's shape, narrowed: two hidden layers of sigmoids, one logit; calibrated."""
    rng = np.random.default_rng(3)
    shapes = [(len(PLAN.outputs), 16), (16, 8), (8, 1)]
    form = Network(
        weights=tuple(rng.normal(size=(1, *shape)).astype(np.float32) for shape in shapes),
        biases=tuple(rng.normal(size=(1, shape[1])).astype(np.float32) for shape in shapes),
        activation="sigmoid",
    )
    return Contender("dan", form, Calibration(intercept, 0.8))


NETWORK = article_network()
EXPECTED = NETWORK.probability(encode(GOLDEN))
REFERENCE = encode(loans(400)).mean(axis=0, dtype=np.float64).astype(np.float32)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("exported") / "1682593104"
    article_export.export(PLAN, NETWORK, SCALING, directory, reference=REFERENCE)
    return directory


def read_newest_as_the_article(base: Path, x: Matrix) -> tuple[str, np.ndarray]:
    """The article's reader, from its description: largest name as a string, tag serve, feed one op, fetch another."""
    newest = max(path.name for path in base.iterdir())
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        tf.compat.v1.saved_model.loader.load(session, ["serve"], str(base / newest))
        graph = session.graph
        source_input_x = graph.get_operation_by_name("source_input_x").outputs[0]
        return newest, session.run("output/prob:0", feed_dict={source_input_x: x})


# --- both doors ---


def test_all_three_readers_say_what_was_judged(exported: Path) -> None:
    assert EXPECTED.std() > 0.01
    assert verification.verify(exported, BATCH, EXPECTED, encoded=encode_frame(GOLDEN)).differing_rows == 0
    assert article_export.verify(exported, encode(GOLDEN), EXPECTED, tolerance=1e-6) <= 1e-6
    scores = bundle.load(exported).score_frame(GOLDEN)
    np.testing.assert_allclose(scores.score, SCALING.score(EXPECTED), rtol=0, atol=1e-4)


def test_the_two_exports_of_one_contender_say_the_same(exported: Path, tmp_path: Path) -> None:
    bundle.export(PLAN, NETWORK, SCALING, tmp_path / "usual")
    usual, article = (bundle.load(d).score_frame(GOLDEN) for d in (tmp_path / "usual", exported))
    np.testing.assert_allclose(article.probability, usual.probability, rtol=0, atol=1e-7)
    np.testing.assert_allclose(article.score, usual.score, rtol=0, atol=1e-4)


def test_columns_named_like_the_ops_keep_their_names_in_the_signature(exported: Path) -> None:
    assert set(bundle.load(exported).columns) == set(ROWS.raw_columns)


def test_the_articles_reader_feeds_the_matrix_alone_and_gets_one_column(exported: Path) -> None:
    _, probability = read_newest_as_the_article(exported.parent, encode(GOLDEN))
    assert probability.shape == (200, 1)
    np.testing.assert_allclose(probability[:, 0], EXPECTED, rtol=0, atol=1e-6)


def test_directory_holds_what_tensorflow_writes_and_the_warm_up(exported: Path) -> None:
    assert {path.name for path in exported.iterdir()} == {"saved_model.pb", "variables", "assets.extra"}


def test_it_has_the_signatures_of_the_usual_export_with_the_same_names_and_types(
    exported: Path, tmp_path: Path
) -> None:
    bundle.export(PLAN, NETWORK, SCALING, tmp_path / "usual", reference=REFERENCE)
    usual, article = (bundle.load(d).saved.signatures for d in (tmp_path / "usual", exported))
    assert set(article) == set(usual) == {"serving_default", "reasons", "features", "embedding", "examples"}
    for name in usual:
        specs = [
            {key: (spec.dtype, spec.shape.rank) for key, spec in specs.items()}
            for signature in (usual[name], article[name])
            for specs in (signature.structured_input_signature[1], signature.structured_outputs)
        ]
        assert specs[:2] == specs[2:], name


def test_both_exports_give_the_same_features_embedding_and_reasons(exported: Path, tmp_path: Path) -> None:
    bundle.export(PLAN, NETWORK, SCALING, tmp_path / "usual", reference=REFERENCE)
    usual, article = (bundle.load(d) for d in (tmp_path / "usual", exported))
    for name in ("features", "embedding"):
        feed = {column: tf.constant(values) for column, values in BATCH.items()}
        given = [model.saved.signatures[name](**feed)[name].numpy() for model in (usual, article)]
        np.testing.assert_allclose(given[0], given[1], rtol=0, atol=1e-6)
    reasons = [model.explain_batch(BATCH) for model in (usual, article)]
    assert (reasons[0].features == reasons[1].features).mean() > 0.99  # near ties may change places
    np.testing.assert_allclose(reasons[0].contributions, reasons[1].contributions, rtol=0, atol=1e-5)


@pytest.mark.flow
def test_saved_model_cli_runs_the_signature(exported: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "feed.npz", **{n: v.astype(str) if v.dtype == object else v for n, v in BATCH.items()})
    inputs = ";".join(f"{name}={tmp_path / 'feed.npz'}[{name}]" for name in BATCH)
    tool = str(Path(sys.executable).parent / "saved_model_cli")
    base = ["--dir", str(exported), "--tag_set", "serve", "--signature_def", "serving_default"]
    command = [tool, "run", *base, "--inputs", inputs, "--outdir", str(tmp_path)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    finished = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert finished.returncode == 0, finished.stderr
    np.testing.assert_allclose(np.load(tmp_path / "probability.npy"), EXPECTED, rtol=0, atol=1e-6)


# --- the newest version ---


def test_the_articles_reader_takes_the_version_that_the_registry_calls_champion(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry")
    # two in one second, and a clock that went back: each publication is still the newest
    clocks = (1_682_593_104.2, 1_682_593_104.9, 1_600_000_000.0, 1_790_000_000.0)
    x, placed, shown = encode(GOLDEN.head(5)), [], []
    for number, now in enumerate(clocks):
        contender = article_network(intercept=float(number))
        export = partial(article_export.export, PLAN, contender, SCALING)
        placed.append(publish(registry, now, write=export).version)

        newest, probability = read_newest_as_the_article(registry.models, x)
        shown.append(newest)
        champion = registry.champion()
        assert champion is not None
        assert newest == str(champion.version) == str(max(int(path.name) for path in registry.models.iterdir()))
        np.testing.assert_allclose(probability[:, 0], contender.probability(x), rtol=0, atol=1e-6)
    assert shown == [str(version) for version in placed]
    assert placed == [1_682_593_104, 1_682_593_105, 1_682_593_106, 1_790_000_000]


# --- what is refused ---


def test_a_probability_off_by_more_than_the_tolerance_fails_verification(exported: Path) -> None:
    with pytest.raises(PublishError, match=r"output/prob:0 of 200 golden rows .* differs by up to 0\.01"):
        article_export.verify(exported, encode(GOLDEN), EXPECTED + 0.01)


def test_an_expected_probability_that_is_no_number_fails_verification(exported: Path) -> None:
    with pytest.raises(PublishError, match="differs by up to nan"):
        article_export.verify(exported, encode(GOLDEN), np.full(200, np.nan))


def test_the_usual_export_cannot_be_read_the_articles_way(tmp_path: Path) -> None:
    bundle.export(PLAN, NETWORK, SCALING, tmp_path / "usual")
    with pytest.raises(PublishError, match="cannot be read by the article's reader"):
        article_export.read_probability(tmp_path / "usual", encode(GOLDEN))


def test_a_damaged_graph_cannot_be_read_the_articles_way(exported: Path, tmp_path: Path) -> None:
    damaged = Path(shutil.copytree(exported, tmp_path / "damaged"))
    (damaged / "saved_model.pb").write_bytes((damaged / "saved_model.pb").read_bytes()[:-100])
    with pytest.raises(PublishError, match="cannot be read by the article's reader"):
        article_export.read_probability(damaged, encode(GOLDEN))


def test_export_into_a_folder_that_holds_something_leaves_it_alone(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"the champion")
    with pytest.raises(PublishError, match="holds files"):
        article_export.export(PLAN, NETWORK, SCALING, tmp_path)
    assert (tmp_path / "saved_model.pb").read_bytes() == b"the champion"


# --- the worker ---


@pytest.fixture
def spec(tmp_path: Path) -> dict[str, object]:
    """Of an export and its verification, with the article's names."""
    save_contender(NETWORK, tmp_path)
    (tmp_path / "plan.json").write_text(PLAN.model_dump_json(), encoding="utf-8")
    GOLDEN.with_columns(probability=pl.Series(EXPECTED)).write_parquet(tmp_path / "golden.parquet")
    return {
        "article_names": True,
        "plan": str(tmp_path / "plan.json"),
        "contender": str(tmp_path),
        "scaling": {"score_at_odds": 600.0, "odds": 30.0, "points_to_double": 20.0},
        "directory": str(tmp_path / "model"),
        "golden": str(tmp_path / "golden.parquet"),
        "tolerance": 1e-6,
    }


def test_the_worker_verifies_the_articles_reader_where_its_names_were_asked_for(spec: dict[str, object]) -> None:
    export_worker.export(spec, print)
    verified = export_worker.verify(spec, print)
    assert max(verified[reader] for reader in ("graph_reader", "object_reader", "article_reader")) <= 1e-6


def test_without_the_articles_names_the_worker_exports_and_verifies_as_ever(spec: dict[str, object]) -> None:
    usual = spec | {"article_names": False}
    export_worker.export(usual, print)
    assert "article_reader" not in export_worker.verify(usual, print)
    with pytest.raises(PublishError, match="article's reader"):
        export_worker.verify(spec, print)


def test_the_worker_refuses_a_version_of_another_plan(spec: dict[str, object], tmp_path: Path) -> None:
    export_worker.export(spec, print)
    first = PLAN.numerics[0]
    moved = PLAN.model_copy(
        update={"numerics": (first.model_copy(update={"mean": first.mean + 1}), *PLAN.numerics[1:])}
    )
    (tmp_path / "plan.json").write_text(moved.model_dump_json(), encoding="utf-8")
    with pytest.raises(PublishError, match=r"200 of 200 golden rows .* first column 'income_usd' of row 0"):
        export_worker.verify(spec, print)


def test_a_linear_contender_has_the_door_too(tmp_path: Path) -> None:
    linear = Contender("source_logistic", Logistic(np.linspace(-1, 1, len(PLAN.outputs)), -1.0))
    article_export.export(PLAN, linear, SCALING, tmp_path / "model")
    expected = linear.probability(encode(GOLDEN))
    assert article_export.verify(tmp_path / "model", encode(GOLDEN), expected, tolerance=1e-12) <= 1e-12

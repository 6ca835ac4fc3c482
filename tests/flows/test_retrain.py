"""The main path on a small portfolio, against a real Prefect server."""

import html
import json
import re
from datetime import date
from pathlib import Path

import polars as pl
import pytest
from builders import FLOW_TOML, loans_with_noise

from crossrisk.contenders import ADAPTERS, NETWORKS
from crossrisk.errors import ConfigError, InputError, ValidationBlockedError
from crossrisk.registry import Registry
from crossrisk.runs import read_runs
from flows.retrain import retrain

pytestmark = pytest.mark.usefixtures("prefect_server")


class Mini:
    """A portfolio in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "mini.toml"
        self.registry = Registry(folder / "registry" / "mini")

    def write(self, frame: pl.DataFrame, toml: str = FLOW_TOML) -> None:
        (self.folder / "data").mkdir(exist_ok=True)
        frame.write_parquet(self.folder / "data" / "loans.parquet")
        self.config.write_text(toml)

    def retrain(self, *overrides: str, **parameters: str) -> dict:
        return retrain(config=str(self.config), overrides=list(overrides), **parameters)


@pytest.fixture
def mini(tmp_path, monkeypatch) -> Mini:
    monkeypatch.setenv("CROSSRISK_HOME", str(tmp_path))
    monkeypatch.delenv("CROSSRISK_DATA", raising=False)
    return Mini(tmp_path)


@pytest.fixture(scope="module")
def first_run(tmp_path_factory) -> tuple[Mini, dict]:
    """One finished first run that several tests look at."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("mini")
        patch.setenv("CROSSRISK_HOME", str(folder))
        patch.delenv("CROSSRISK_DATA", raising=False)
        mini = Mini(folder)
        mini.write(loans_with_noise())
        return mini, mini.retrain()


def test_the_first_run_bootstraps_a_model_and_leaves_a_report(first_run):
    mini, result = first_run
    assert result["verdict"] == "bootstrap"
    assert set(result["contenders"]) == {"source_logistic", "dan"}
    assert result["contenders"]["dan"]["auc"]["status"] == "ok"
    assert mini.registry.champion().version == result["version"]
    assert result["verified_difference"] < 1e-5
    for key in ("model", "report", "json", "validation"):
        assert Path(result["paths"][key]).exists(), key
    assert json.loads(Path(result["paths"]["json"]).read_text())["run_id"] == result["run_id"]
    assert [r["decision"]["verdict"] for r in mini.registry.records()] == ["bootstrap"]
    (run,) = read_runs(mini.folder / "work" / "mini" / "runs")
    assert (run.run_id, run.state, run.outcome) == (result["run_id"], "completed", "bootstrap")


def test_every_step_is_a_task_that_ran_under_its_name(first_run):
    _, result = first_run
    assert list(result["seconds"]) == [
        "ingest", "validate", "mature labels", "row-wise features", "split", "check leaks", "fit encodings",
        "apply encodings", "train source_logistic", "train dan", "calibrate", "diagnose shift", "compare",
        "stage the candidate", "decide", "publish", "report",
    ]  # fmt: skip


def test_the_same_question_gets_its_first_answer_again(first_run, monkeypatch):
    mini, first = first_run
    monkeypatch.setenv("CROSSRISK_HOME", str(mini.folder))
    monkeypatch.delenv("CROSSRISK_DATA", raising=False)
    again = mini.retrain()
    for key in ("verdict", "version", "reasons", "contenders", "champion"):
        assert again[key] == first[key], key
    assert again["decided_by"] == first["run_id"] != again["run_id"]
    assert mini.registry.versions() == [first["version"]]
    assert len(mini.registry.records()) == 1


def test_another_question_skips_finished_stages_and_keeps_the_champion(first_run, monkeypatch):
    mini, first = first_run
    monkeypatch.setenv("CROSSRISK_HOME", str(mini.folder))
    monkeypatch.delenv("CROSSRISK_DATA", raising=False)
    again = mini.retrain("gate.auc_floor=0.51")
    assert again["verdict"] == "keep"
    assert again["decided_by"] is None
    assert again["version"] is None
    assert {"ingest", "validate", "split", "plan", "encoded", "dan", "source_logistic", "calibrated"} <= set(
        again["reused"]
    )
    assert again["differences"]["auc"]["value"] == pytest.approx(0.0, abs=1e-9)
    assert mini.registry.versions() == [first["version"]]
    assert len(mini.registry.records()) == 2


@pytest.mark.flow
def test_a_portfolio_without_dates_is_split_by_hash(mini):
    toml = FLOW_TOML.replace('decision_date = "opened_on"\n', "")
    mini.write(loans_with_noise().drop("opened_on"), toml)
    result = mini.retrain("lineup.contenders=['source_logistic']", "gate.observed_expected=[0.5, 2.0]")
    assert result["verdict"] == "bootstrap"
    assert result["split"]["parts"]["target_test"]["rows"] == pytest.approx(400, abs=10)


@pytest.mark.flow
def test_the_article_reports_three_figures_and_publishes_the_network(mini):
    mini.write(loans_with_noise())
    contenders = "lineup.contenders=['source_forest', 'dan']"
    result = mini.retrain(contenders, "gate.observed_expected=[0.2, 5.0]", preset="article")
    assert result["challenger"] == "dan"
    assert set(result["article"]) == {"test (the 30% that chose the stop)", "total target", "unlabelled 70%"}
    assert result["judged"]["part"] == "target_unlabelled"
    assert len(result["forest_spread"]) == 5


@pytest.mark.flow
def test_every_network_is_trained_judged_and_told(mini):
    mini.write(loans_with_noise())
    few = [f"lineup.{name}.{key}" for name in NETWORKS for key in ("seeds=2", "max_steps=30")]
    result = mini.retrain(
        f"lineup.contenders={['source_logistic', *NETWORKS]}", *few, "lineup.fine_tuned.tuning_steps=30"
    )
    assert set(result["contenders"]) == {"source_logistic", *NETWORKS}
    assert set(result["trainings"]) == set(NETWORKS)
    page = Path(result["paths"]["report"]).read_text()
    assert page.count('aria-label="Training curves of the network"') == len(NETWORKS)
    for name in (*ADAPTERS, "source_network"):
        assert re.search(rf"<li>{name}: hidden_\d: source and target differ by", page)
    spread = {one["contender"] for one in json.loads(Path(result["paths"]["memo.json"]).read_text())["seed_spread"]}
    assert spread >= set(NETWORKS)


@pytest.mark.flow
def test_quarantined_rows_are_set_aside_by_rule_and_nobody_is_fitted_on_them(mini):
    strange = pl.when(pl.col("loan_id") == 7).then(7).otherwise("bad").cast(pl.Int8)
    mini.write(loans_with_noise().with_columns(bad=strange))
    result = mini.retrain("lineup.contenders=['source_logistic']")
    assert result["validation"]["quarantined_ids"] == 1
    (stage,) = mini.folder.glob("work/mini/stages/validate/*/quarantine.parquet")
    assert pl.read_parquet(stage).select("loan_id", "quarantine_rule").rows() == [(7, "label-binary")]
    assert sum(p["rows"] for p in result["labels"]["populations"].values()) == 1999


@pytest.mark.flow
def test_few_target_bads_leave_target_contenders_unfitted(mini):
    mini.write(loans_with_noise())
    result = mini.retrain("lineup.contenders=['source_logistic', 'stacked']", "lineup.min_target_bads=100000")
    assert not result["contender_facts"]["stacked"]["fitted"]
    assert "target bads" in result["contender_facts"]["stacked"]["reason"]
    assert set(result["contenders"]) == {"source_logistic"}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda f: f.filter(pl.col("product") == "loan"), InputError, "population 'target' is empty"),
        (lambda f: f.with_columns(bad=pl.lit(0)), ValidationBlockedError, "label-both-classes"),
        (
            lambda f: f.with_columns(bad=pl.when(pl.col("product") == "loan").then(0).otherwise("bad")),
            InputError,
            "both classes are needed",
        ),
        (lambda f: f.drop("region"), InputError, "'region' is missing"),
        (lambda f: f.with_columns(loan_id=pl.lit(1)), ValidationBlockedError, "id"),
        (lambda f: f.with_columns(opened_on=pl.lit(date(2030, 1, 1))), InputError, "no row left"),
    ],
)
def test_bad_input_ends_the_run_and_touches_nothing(mini, change, error, message):
    mini.write(change(loans_with_noise()))
    with pytest.raises(error, match=message):
        mini.retrain()
    assert not mini.registry.root.exists()
    (run,) = read_runs(mini.folder / "work" / "mini" / "runs")
    assert run.state == ("blocked" if error is ValidationBlockedError else "failed")
    page = (mini.folder / "work" / "mini" / "runs" / run.run_id / "report.html").read_text()
    assert run.state.capitalize() in page
    assert html.escape(message) in html.unescape(page).replace("'", "&#x27;")
    assert ("validation.html" in page) == ("validate" in run.seconds)


def test_a_truncated_file_ends_the_run_by_name(mini):
    mini.write(loans_with_noise())
    path = mini.folder / "data" / "loans.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"loans\.parquet: not readable"):
        mini.retrain()


def test_an_unknown_key_is_refused_with_the_nearest(mini):
    mini.write(loans_with_noise(), FLOW_TOML + "\n[gates]\nx = 1\n")
    with pytest.raises(ConfigError, match="did you mean 'gate'"):
        mini.retrain()

"""Rules of scoring one customer: who answers, what may be asked, what is said of missing values."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import date

import numpy as np
import polars as pl
import pytest
import registries
from builders import TOML, loans, portfolio
from registries import write_model

from crossrisk.errors import InputError, PublishError
from crossrisk.features import FitSettings, RawColumn, encoding_expressions, fit_plan, rowwise_expressions
from crossrisk.registry import Registry
from crossrisk.registry.asking import find_version
from crossrisk.scoring import Scaling
from crossrisk.stability import describe_categories
from flows.cli import main
from flows.predict import Prediction, Reason, describe, parse_row, predict

COLUMNS = (
    RawColumn(name="income_usd", kind="number"),
    RawColumn(name="balance_usd", kind="number"),
    RawColumn(name="region", kind="category"),
    RawColumn(name="joined_on", kind="date"),
)


# --- the row ---


def test_values_take_the_kind_of_their_column():
    row = parse_row(["income_usd=1e3", "balance_usd=-2.5", "region=north=east", "joined_on=2024-02-29"], COLUMNS)
    assert row.schema == {
        "income_usd": pl.Float64,
        "balance_usd": pl.Float64,
        "region": pl.String,
        "joined_on": pl.Date,
    }
    assert row.row(0) == (1000.0, -2.5, "north=east", date(2024, 2, 29))


def test_what_is_not_given_or_empty_is_missing_and_still_typed():
    row = parse_row(["income_usd=", "region="], COLUMNS)
    assert row.row(0) == (None, None, None, None)
    assert row.dtypes == [pl.Float64, pl.Float64, pl.String, pl.Date]


@pytest.mark.parametrize(("text", "number"), [("true", 1.0), ("TRUE", 1.0), ("False", 0.0)])
def test_a_boolean_is_a_number_as_it_is_in_parquet_and_a_text_elsewhere(text, number):
    row = parse_row([f"income_usd={text}", f"region={text}"], COLUMNS)
    assert row.select("income_usd", "region").row(0) == (number, text)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("income_usd=yes", "income_usd=yes: expected a number such as"),
        ("incomeusd=1", "no raw column 'incomeusd'; did you mean 'income_usd'"),
        ("=1", "no raw column ''"),
        ("income_usd", "expects column=value, such as income_usd=...; got 'income_usd'"),
        ("income_usd=12,5", "income_usd=12,5: expected a number such as"),
        ("income_usd=nan", "expected a number"),
        ("income_usd=-inf", "expected a number"),
        ("joined_on=29.02.2024", "expected a date such as 2026-01-31, got '29.02.2024'"),
        ("joined_on=2023-02-29", "expected a date"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused_by_name(assignment, message):
    with pytest.raises(InputError, match=message):
        parse_row([assignment], COLUMNS)


def test_a_column_given_twice_is_refused():
    with pytest.raises(InputError, match="income_usd is given twice, as '1' and as '2'"):
        parse_row(["income_usd=1", "region=x", "income_usd=2"], COLUMNS)


# --- the version that answers ---


def publish(registry, now, write=write_model, **manifest):
    return registries.publish(registry, now, write=write, **manifest).version


def test_the_champion_answers_unless_another_version_is_asked(tmp_path):
    registry = Registry(tmp_path)
    first, second = (publish(registry, now, contender=str(now)) for now in (1_700_000_000, 1_700_000_009))
    assert find_version(registry, None).version == second
    assert find_version(registry, second).version == second
    older = find_version(registry, first)
    assert (older.version, older.folder.name, older.manifest["contender"]) == (first, str(first), "1700000000")


def test_an_unknown_version_is_answered_with_those_there(tmp_path):
    registry = Registry(tmp_path)
    for now in range(1_700_000_000, 1_700_000_012):
        publish(registry, now)
    with pytest.raises(InputError, match=r"one of the 12 versions .* newest first: 1700000011, .*; got 17") as refused:
        find_version(registry, 17)
    assert "1700000002" in str(refused.value)
    assert "1700000001" not in str(refused.value)


@pytest.mark.parametrize(
    ("version", "message"),
    [(None, "holds no version; publish one first"), (1_700_000_000, "one of the 0 versions .*: none; got 1700000000")],
)
def test_where_nothing_is_published_it_says_so(tmp_path, version, message):
    with pytest.raises(InputError, match=message):
        find_version(Registry(tmp_path), version)


def test_a_damaged_version_does_not_answer_but_the_others_do(tmp_path):
    registry = Registry(tmp_path)
    first, second = (publish(registry, now) for now in (1_700_000_000, 1_700_000_001))
    (registry.models / str(second) / "saved_model.pb").write_text("other")
    assert find_version(registry, first).version == first
    with pytest.raises(PublishError, match=f"version {second} differs from its manifest"):
        find_version(registry, second)
    (registry.models / str(first) / "saved_model.pb").write_text("other")
    with pytest.raises(PublishError, match=f"version {first} differs from its manifest"):
        find_version(registry, first)


def test_a_registry_that_was_emptied_does_not_ask_for_a_first_version(tmp_path):
    registry = Registry(tmp_path)
    version = publish(registry, 1_700_000_000)
    shutil.rmtree(registry.models)
    with pytest.raises(PublishError, match=f"version {version} was published"):
        find_version(registry, None)


def test_a_broken_manifest_is_named_by_its_path(tmp_path):
    registry = Registry(tmp_path)
    version = publish(registry, 1_700_000_000)
    registry.manifest_path(version).write_text("not JSON")
    for asked in (None, version):
        with pytest.raises(PublishError, match=f"{version}.json is no JSON"):
            find_version(registry, asked)


def test_a_version_of_an_earlier_release_is_refused_before_anything_is_loaded(tmp_path):
    loaded = portfolio(tmp_path)
    publish(Registry(loaded.folders.registry), 1_700_000_000, contender="dan", as_of="2024-12-31")
    with pytest.raises(PublishError, match="does not list raw_columns"):
        predict(loaded, ["income_usd=1"])


# --- what is said ---

REASONS = (Reason("income_usd", 1.25, -36.07), Reason("region", 0.5, -14.43))
PREDICTION = Prediction(
    "mini", 1_700_000_000, "dan", "2024-12-31", 0.12345, 612.34, columns=4, missing=(), reasons=REASONS
)


def test_the_screen_names_the_version_that_answered():
    assert describe(PREDICTION).splitlines() == [
        "probability  0.1235 of bad",
        "score        612.3 points (higher is safer)",
        "version      1700000000 of mini",
        "contender    dan, as of 2024-12-31",
        "missing      none of the 4 columns",
        "reasons      income_usd -36.1 points",
        "             region     -14.4 points",
    ]


@pytest.mark.parametrize(
    ("reasons", "words"),
    [
        ((), "reasons      none: no feature makes this customer riskier than the mean one"),
        (None, "reasons      none: the version was published by a release that gave none"),
    ],
)
def test_where_there_is_no_reason_it_says_why(reasons, words):
    assert describe(replace(PREDICTION, reasons=reasons)).splitlines()[-1] == words


def test_levels_that_training_did_not_know_are_named_and_so_are_columns_of_which_nobody_can_tell():
    told = replace(PREDICTION, unseen={"region": "atlantis", "flag": "1"}, untold=("job", "town"))
    assert describe(told).splitlines()[5:8] == [
        "unseen       region='atlantis': training did not know it; scored as a rare level",
        "unseen       flag='1': training did not know it; scored as a rare level",
        "unseen       cannot be told of job, town: not all levels of the version are listed",
    ]


def test_of_many_missing_columns_ten_are_named_and_the_rest_counted():
    names = tuple(f"x_{i:02d}" for i in range(12))
    line = describe(replace(PREDICTION, columns=20, missing=names)).splitlines()[4]
    assert line.endswith("12 of 20 columns: " + ", ".join(names[:10]) + " and 2 more (all of them with --json)")


# --- end to end: two versions, asked through the command line ---

DATED = TOML + '[features.ages]\nmembership_months = "joined_on"\n'
GIVEN = ["income_usd=2500.5", "region=north", "opened_on=2024-06-01"]


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Two versions of one portfolio, and the probability of the customer GIVEN by each."""
    from models.bundle import export
    from models.fitted import Calibration, Contender, Logistic

    folder = tmp_path_factory.mktemp("published")
    loaded = portfolio(folder, toml=DATED)
    rows = loaded.portfolio.row_plan
    frame = loans().with_columns(joined_on=pl.date(2020, 1, 1) + pl.duration(days=pl.col("loan_id")))
    plan = fit_plan(
        frame.select(rowwise_expressions(rows)), rows, FitSettings(clip_quantiles=(0.01, 0.99), min_level_rows=20)
    )
    customer = frame.head(1).select(
        income_usd=pl.lit(2500.5), balance_usd=pl.lit(None, pl.Float64), region=pl.lit("north"),
        joined_on=pl.lit(None, pl.Date), opened_on=pl.lit(date(2024, 6, 1)),
    )  # fmt: skip
    matrix = customer.select(rowwise_expressions(rows)).select(encoding_expressions(plan)).to_numpy()
    counted = {"region": describe_categories(frame["region"]).to_json()}
    levels = json.dumps({"features": counted})
    expected = {}
    for now, intercept in ((1_700_000_000, -2.0), (1_700_000_500, 0.5)):
        form = Logistic(np.linspace(-1, 1, len(plan.outputs)), 0.0)
        contender = Contender("source_logistic", form, Calibration(intercept, 1.0))

        # only the second is of a release that gives reasons
        reference = np.zeros(len(plan.outputs), np.float32) if intercept > 0 else None

        def write(model, contender=contender, reference=reference):
            export(plan, contender, Scaling(600, 30, 20), model, reference=reference)

        beside = {"plan.json": plan.model_dump_json(), "reference.json": levels} if intercept > 0 else {}
        version = publish(
            Registry(loaded.folders.registry), now, write, contender="source_logistic", as_of="2024-12-31",
            companions=beside,
            raw_columns=[column.model_dump() for column in rows.raw_columns],
        )  # fmt: skip
        expected[version] = float(contender.probability(matrix)[0])
    return folder, expected


def test_predict_prints_the_champions_answer_and_what_it_was_not_told(published, monkeypatch, capsys):
    folder, expected = published
    monkeypatch.setenv("CROSSRISK_HOME", str(folder))
    assert main(["predict", str(folder / "mini.toml"), "--row", *GIVEN[:2], "--row", GIVEN[2]]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == f"probability  {expected[1_700_000_500]:.4f} of bad"
    assert printed[2] == "version      1700000500 of mini"
    assert printed[4] == "missing      2 of 5 columns: balance_usd, joined_on"
    assert printed[5].startswith("reasons      ")
    assert printed[5].endswith(" points")


@pytest.mark.parametrize(("level", "unseen"), [("atlantis", {"region": "atlantis"}), ("south", {}), ("", {})])
def test_a_level_that_training_did_not_know_is_in_the_json(published, monkeypatch, capsys, level, unseen):
    folder, _ = published
    monkeypatch.setenv("CROSSRISK_HOME", str(folder))
    assert main(["predict", str(folder / "mini.toml"), "--json", "--row", f"region={level}"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["unseen"], answer["untold"]) == (unseen, [])


def test_reasons_are_in_the_json_with_what_they_cost(published, monkeypatch, capsys):
    folder, _ = published
    monkeypatch.setenv("CROSSRISK_HOME", str(folder))
    assert main(["predict", str(folder / "mini.toml"), "--json", "--row", *GIVEN]) == 0
    reasons = json.loads(capsys.readouterr().out)["reasons"]
    assert 1 <= len(reasons) <= 5
    assert {name for reason in reasons for name in reason} == {"feature", "contribution", "points"}
    features = {"income_usd", "balance_usd", "balance_to_income", "region", "membership_months"}
    assert {reason["feature"] for reason in reasons} <= features
    for reason in reasons:
        assert reason["points"] == pytest.approx(-20 / np.log(2) * reason["contribution"])
    contributions = [reason["contribution"] for reason in reasons]
    assert contributions == sorted(contributions, reverse=True)


def test_predict_asks_an_older_version_and_needs_no_prefect(published, monkeypatch):
    folder, expected = published
    monkeypatch.setenv("CROSSRISK_HOME", str(folder))
    arguments = ["predict", str(folder / "mini.toml"), "--version", "1700000000", "--json", "--row", *GIVEN]
    command = f"import sys; sys.modules['prefect'] = None; from flows.cli import main; sys.exit(main({arguments!r}))"
    finished = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    answer = json.loads(finished.stdout)
    probability = expected[1_700_000_000]
    assert answer.pop("probability") == pytest.approx(probability, abs=1e-9)
    assert answer.pop("score") == pytest.approx(Scaling(600, 30, 20).score(np.array([probability]))[0], abs=1e-6)
    assert answer == {
        "schema_version": 1,
        "portfolio": "mini",
        "version": 1_700_000_000,
        "contender": "source_logistic",
        "as_of": "2024-12-31",
        "columns": 5,
        "missing": ["balance_usd", "joined_on"],
        "unseen": {},
        "untold": ["region"],  # an earlier release published it
        "reasons": None,
    }


def test_a_refused_row_ends_with_2_and_one_line(published, monkeypatch, capsys):
    folder, _ = published
    monkeypatch.setenv("CROSSRISK_HOME", str(folder))
    assert main(["predict", str(folder / "mini.toml"), "--row", "incme_usd=1"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert "did you mean 'income_usd'" in printed.err


def test_predict_without_a_row_is_wrong_usage(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["predict", "mini.toml"])
    assert ended.value.code == 2
    assert "--row" in capsys.readouterr().err

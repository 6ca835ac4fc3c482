"""Rules of `crossrisk plan`: a table of everything, sentences about one column, a drawing, JSON for machines."""

import json

import polars as pl
import pytest
from builders import TOML, loans, portfolio
from registries import publish

from crossrisk.features import FitSettings, fit_plan, rowwise_expressions
from crossrisk.registry import Registry
from flows.cli import main


@pytest.fixture
def config(tmp_path, monkeypatch):
    """A portfolio with a version that has its plan beside it, and an older one that has none."""
    monkeypatch.setenv("CROSSRISK_HOME", str(tmp_path))
    loaded = portfolio(tmp_path, toml=TOML)
    rows = loaded.portfolio.row_plan
    frame = loans().with_columns(region=pl.lit("north"))
    settings = FitSettings(encodings={"region": ("woe",)}, logs={"income_usd": "log1p"})
    plan = fit_plan(frame.select(rowwise_expressions(rows)), rows, settings, label=frame["bad"])
    registry = Registry(loaded.folders.registry)
    publish(registry, 1_700_000_000)
    publish(registry, 1_700_000_500, companions={"plan.json": plan.model_dump_json()})
    return str(tmp_path / "mini.toml")


def test_every_feature_is_a_line_with_its_columns_and_what_becomes_of_it(config, capsys):
    assert main(["plan", config]) == 0
    head, _, titles, *lines = capsys.readouterr().out.splitlines()
    assert head.startswith("Feature plan of version 1700000500 of mini: 3 raw columns, 4 columns of the matrix")
    assert [line.split()[0] for line in lines] == ["income_usd", "balance_usd", "balance_to_income", "region"]
    column = titles.index("enters the matrix as")
    assert all(line[column - 2 : column] == "  " for line in lines)
    assert "ln(1 + x)" in lines[0]
    assert lines[-1].endswith("dropped: does not vary among training rows")


def test_a_column_s_way_is_told_with_every_feature_made_of_it(config, capsys):
    assert main(["plan", config, "--column", "balance_usd"]) == 0
    printed = capsys.readouterr().out
    assert "balance_to_income\n  made of    balance_usd, income_usd" in printed
    assert "(balance_usd is missing where -1)" in printed
    assert "\nincome_usd\n" not in printed


def test_the_drawing_is_written_whole_and_json_names_it(config, tmp_path, capsys):
    drawing = tmp_path / "plan.svg"
    assert main(["plan", config, "--draw", str(drawing), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["drawing"] == str(drawing)
    assert drawing.read_text().startswith("<svg ")
    assert {way["feature"] for way in answer["ways"]} >= {"income_usd", "region"}
    assert answer["ways"][-1]["dropped"]


def test_an_unknown_column_and_a_version_without_a_plan_are_bad_input(config, capsys):
    assert main(["plan", config, "--column", "balance_us"]) == 2
    assert "nearest: 'balance_usd'" in capsys.readouterr().err
    assert main(["plan", config, "--version", "1700000000"]) == 2
    assert "has no feature plan beside it" in capsys.readouterr().err


def test_a_plan_that_was_edited_since_and_a_folder_that_is_not_there_are_refused(config, tmp_path, capsys):
    assert main(["plan", config, "--draw", str(tmp_path / "nowhere" / "plan.svg")]) == 2
    assert f"there is no folder {tmp_path / 'nowhere'}" in capsys.readouterr().err
    (beside,) = tmp_path.rglob("1700000500.plan.json")
    beside.chmod(0o600)
    beside.write_text(beside.read_text().replace("log1p", "none"))
    assert main(["plan", config]) == 4
    assert "is not what was published with version 1700000500" in capsys.readouterr().err

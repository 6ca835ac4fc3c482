"""Rules of `crossrisk init`: where data lie, what is written where, what is refused, what the terminal shows."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from builders import loans

from crossrisk.config import load_portfolio
from crossrisk.errors import ConfigError, InputError
from flows.cli import main
from flows.init import Question, find_data, start_portfolio


@pytest.fixture
def data(tmp_path: Path) -> Path:
    loans().write_parquet(tmp_path / "loans.parquet")
    return tmp_path / "loans.parquet"


def start(data: Path, *targets: str, force: bool = False, environ=None, **question):
    asked = Question(data=str(data), targets=targets or ("product=card",), **question)
    home = {"CROSSRISK_HOME": str(data.parent)}
    return start_portfolio(asked, data.parent / "configs", environ or home, force=force)


def test_a_draft_lies_in_the_folder_it_was_told_beside_its_suite(data):
    made = start(data)
    assert made.config == data.parent / "configs" / "loans.toml"
    assert sorted(made.config.parent.iterdir()) == [made.suite, made.config]
    loaded = load_portfolio(made.config, environ={"CROSSRISK_HOME": str(data.parent)})
    assert loaded.portfolio.data.expectations == (made.suite.name,)
    assert loaded.folders.data_root / loaded.portfolio.data.path == data.resolve()


def test_data_below_the_common_root_have_no_root_of_their_own(data):
    environ = {"CROSSRISK_DATA": str(data.parent), "CROSSRISK_HOME": "/elsewhere"}
    files, place = find_data("loans.parquet", environ)
    assert (files, place.path, place.root) == ([data.resolve()], "loans.parquet", None)


def test_data_elsewhere_keep_their_root_relative_to_home_where_they_can(data):
    assert find_data(str(data), {"CROSSRISK_HOME": str(data.parent.parent)})[1].root == data.parent.name
    assert find_data(str(data), {"CROSSRISK_HOME": "/elsewhere"})[1].root == str(data.parent.resolve())


def test_a_folder_of_months_is_one_table(tmp_path):
    for month, rows in loans().with_columns(month=pl.lit("m")).group_by(pl.col("opened_on").dt.month()):
        folder = tmp_path / "loans" / f"month=2024-{month[0]:02}"
        folder.mkdir(parents=True)
        rows.drop("month").write_parquet(folder / "part.parquet")
    made = start(tmp_path / "loans")
    assert made.draft.profile.rows == 600
    month = next(column for column in made.draft.profile.columns if column.name == "month")
    assert month.reason.startswith("a feature may not be called")


def test_what_is_there_is_written_over_by_force_alone(data):
    made = start(data)
    made.config.write_text("mine")
    with pytest.raises(ConfigError, match="is there already"):
        start(data)
    assert made.config.read_text() == "mine"
    assert start(data, force=True).config.read_text() != "mine"


@pytest.mark.parametrize("name", ["../up", "a/b", "Upper", "a.b", "1st", "x\n"])
def test_a_name_cannot_lead_out_of_the_folder(data, name):
    with pytest.raises(ConfigError, match="--name"):
        start(data, name=name)


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ({"label": "region=north"}, "must be a column of 1 = bad and 0 = good.*polars.col\\('region'\\)"),
        ({"label": "bad=0"}, "init writes no data"),
        ({"label": "nope"}, "--label expects COLUMN=VALUE"),
        ({"id": "region"}, "cannot be the id"),
        ({"targets": ("product=boat",)}, "no row has product = 'boat'"),
    ],
)
def test_what_cannot_be_drafted_is_bad_input_with_the_next_move(data, question, message):
    asked = Question(**{"data": str(data), "targets": ("product=card",)} | question)
    with pytest.raises(InputError, match=message):
        start_portfolio(asked, data.parent / "configs", {})
    assert not (data.parent / "configs").exists()


def test_a_label_may_be_named_with_its_bad_value(data):
    assert start(data, label="bad=1").draft.profile.the("label").name == "bad"


def test_bytes_that_are_no_parquet_are_bad_input(tmp_path):
    (tmp_path / "x.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match="not readable as one Parquet table"):
        start(tmp_path / "x.parquet")


@pytest.mark.parametrize("name", [".hidden.parquet", "_part.parquet"])
def test_files_that_ingest_would_skip_are_said(tmp_path, name):
    loans().write_parquet(tmp_path / name)
    with pytest.raises(InputError, match="start with neither"):
        start(tmp_path / name)


def test_the_command_prints_aligned_conclusions_and_the_next_command(data, capsys):
    out = data.parent / "drafts"
    assert main(["init", str(data), "--target", "product=card", "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    lines = printed.out.splitlines()
    assert lines[-1] == f"next  crossrisk retrain {out / 'loans.toml'}"
    concluded = lines[2 : lines.index("", 2)]
    column = concluded[0].index("loan_id")
    assert all(line[column - 1] == " " and line[column] != " " for line in concluded)


def test_the_next_command_without_a_target_is_to_name_one(data):
    made = start_portfolio(Question(data=str(data)), data.parent / "configs", {})
    assert made.next_command.endswith("--target COLUMN=VALUE --name loans --force")


def test_json_is_one_object_with_every_column(data, capsys):
    out = str(data.parent / "drafts")
    assert main(["init", str(data), "--target", "product=card", "--out", out, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [column["name"] for column in printed["columns"]] == loans().columns
    assert printed["populations"]["target"]["rows"] == 300


def test_a_name_cannot_steer_the_terminal(tmp_path, capsys):
    rows = loans().with_columns(pl.Series("\x1b[2Jname\n", np.arange(600) * 1.0))
    rows.write_parquet(tmp_path / "x.parquet")
    arguments = ["init", str(tmp_path / "x.parquet"), "--target", "product=card", "--out", str(tmp_path / "o")]
    assert main(arguments) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_a_failure_ends_with_2_and_one_line(tmp_path, capsys):
    assert main(["init", str(tmp_path / "none.parquet")]) == 2
    assert capsys.readouterr().err.count("\n") == 1

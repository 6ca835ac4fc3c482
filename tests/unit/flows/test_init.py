"""Rules of `crossrisk init`: where data lie, what is written where, what is refused, what the terminal shows."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from builders import loans

from crossrisk.config import load_portfolio
from crossrisk.errors import ConfigError, InputError
from flows.cli import main
from flows.init import Question, find_data, start_portfolio
from tasks.ingest import ingest
from tasks.labels import LABELS, mature_labels
from tasks.validate import validate


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
    assert month.reason.startswith("dates written as text"), "a month is no feature: the next one is not among them"


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
        ({"label": "region=north"}, "expected a label of 1 = bad and 0 = good.*'south', 'west'.* is good then"),
        ({"label": "bad=0"}, "init writes no data"),
        ({"label": "region=nowhere"}, "no row has region = 'nowhere'; of its 3 values the nearest: 'north'"),
        ({"label": "region"}, "got 3 values of type string; name another column, or .* --label region=VALUE"),
        ({"label": "bda"}, "no column 'bda'; the nearest is 'bad'"),
        ({"label": "bad", "targets": ("bad=1",)}, "cannot be the label: it already tells the target from the source"),
        ({"targets": ("bad=1",)}, "nor any just 0/1; --label COLUMN=VALUE"),
        ({"id": "region"}, "cannot be the id.* 3 values in 600 rows, 0 missing"),
        ({"decision_date": "region"}, "cannot be the decision date.*it is string"),
        ({"targets": ("product=boat",)}, "no row has product = 'boat'"),
        ({"targets": ("product=loan", "product=card")}, "it is the rest, and 600 rows meet --target"),
        ({"targets": ("product",)}, "expects COLUMN=VALUE, got 'product'; such as product=VALUE"),
        ({"data": "lons.parquet"}, "no file or folder 'lons.parquet'.*the nearest is .*loans.parquet"),
    ],
)
def test_what_cannot_be_drafted_is_bad_input_with_the_next_move(data, question, message):
    asked = Question(**{"data": str(data), "targets": ("product=card",)} | question)
    with pytest.raises(InputError, match=message) as refused:
        start_portfolio(asked, data.parent / "configs", {"CROSSRISK_DATA": str(data.parent)})
    assert "\n" not in str(refused.value)
    assert not (data.parent / "configs").exists()


def test_a_label_may_be_named_with_its_bad_value(data):
    assert start(data, label="bad=1").draft.profile.the("label").name == "bad"


@pytest.mark.parametrize(
    ("coded", "asked", "label"),
    [
        (pl.when(pl.col("bad") == 1).then(pl.lit("Lost")).otherwise(pl.lit("Paid")), "status=Lost", "bad"),
        (pl.col("bad") + 1.0, "status=2", "bad"),
        (pl.col("bad") == 0, "status=false", "bad"),
        (1 - pl.col("bad"), "bad=0", "bad"),
    ],
)
def test_the_line_that_recodes_a_label_makes_one(tmp_path, coded, asked, label):
    column = asked.partition("=")[0]
    old, new = tmp_path / "old.parquet", tmp_path / "new.parquet"
    loans().with_columns(coded.alias("recoded")).drop("bad").rename({"recoded": column}).write_parquet(old)
    with pytest.raises(InputError) as refused:
        start(old, label=asked)
    code = re.search(r"polars\.scan_parquet.*sink_parquet\(NEW\)", str(refused.value))[0]
    eval(code, {"polars": pl, "DATA": old, "NEW": new})  # the line that a person is told to run
    assert start(new, label=label).draft.profile.bads == loans()["bad"].sum()
    assert pl.read_parquet(new)["bad"].cast(pl.Int8).equals(loans()["bad"])


THEIRS = {
    "loan_id": "Loan No.",
    "opened_on": "month",
    "product": "Product (type)",
    "income_usd": "Income, monthly (USD)",
    "balance_usd": "score",
    "region": "class",
    "bad": "Default?",
}


def test_a_draft_of_names_that_nothing_can_take_runs_as_it_is(tmp_path):
    extra = {
        "Client No": pl.col("loan_id") // 2,
        "Gender [m/f]": pl.lit("f"),
        "Class": pl.col("income_usd").sqrt(),
        "first line": pl.date(2010, 1, 1) + pl.duration(days=pl.col("loan_id")),
        "CLASS": pl.lit("one value"),
        "Outcome known": pl.date(2025, 1, 31),
    }
    rows = loans().with_columns(**extra).rename(THEIRS)
    rows.write_parquet(tmp_path / "loans.parquet")
    made = start(tmp_path / "loans.parquet", "Product (type)=card", label="Default?")
    loaded = load_portfolio(made.config, environ={"CROSSRISK_HOME": str(tmp_path)})
    portfolio = loaded.portfolio
    assert (portfolio.data.id, portfolio.data.customer) == ("loan_no", "client_no")
    assert (portfolio.data.decision_date, portfolio.label.known_date) == ("month_given", "outcome_known")
    assert (portfolio.label.column, portfolio.population.target) == ("default", "product_type = 'card'")
    assert portfolio.features.numeric == ("income_monthly_usd", "score_given", "Class")
    assert portfolio.features.categorical == ("class_given",)
    assert portfolio.features.ages == {"months_since_first_line": "first_line"}
    assert portfolio.features.protected == ("gender_m_f",)
    assert portfolio.data.ignore == ("class_given_2",)

    ingested = ingest.fn(loaded)
    assert ingested.facts["populations"] == {"source": 300, "target": 300}
    assert ingested.facts["warnings"] == []
    checked = validate.fn(loaded, ingested)
    assert (checked.facts["outcome"], checked.facts["quarantined_ids"]) == ("pass", 0)
    assert [result["rule"] for result in checked.facts["results"] if not result["success"]] == []
    labels = pl.read_parquet(mature_labels.fn(loaded, ingested, checked).folder / LABELS)
    assert labels["label"].equals(loans().sort("loan_id")["bad"])


def test_a_twin_that_is_left_out_does_not_stand_in_for_its_namesake(tmp_path):
    rows = loans().select(pl.lit("x").alias("REGION"), *loans().columns)
    rows.write_parquet(tmp_path / "loans.parquet")
    made = start(tmp_path / "loans.parquet")
    loaded = load_portfolio(made.config, environ={"CROSSRISK_HOME": str(tmp_path)})
    assert loaded.portfolio.data.columns == {"region_2": "REGION"}
    checked = validate.fn(loaded, ingest.fn(loaded))
    assert [result["rule"] for result in checked.facts["results"] if not result["success"]] == []


def test_new_names_are_shown_with_the_old_ones(tmp_path, capsys):
    loans().rename({"income_usd": "Income, monthly (USD)"}).write_parquet(tmp_path / "x.parquet")
    arguments = ["init", str(tmp_path / "x.parquet"), "--target", "product=card", "--out", str(tmp_path / "o")]
    assert main(arguments) == 0
    assert "income_monthly_usd = Income, monthly (USD)" in capsys.readouterr().out
    assert main([*arguments, "--force", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["renamed"] == {"income_monthly_usd": "Income, monthly (USD)"}


def test_bytes_that_are_no_parquet_are_bad_input(tmp_path):
    (tmp_path / "x.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match="not readable as Parquet"):
        start(tmp_path / "x.parquet")


@pytest.mark.parametrize(("asked", "separator"), [("loans.csv", ","), ("loans.tsv", "\t"), (".", ",")])
def test_a_csv_is_answered_with_the_line_that_makes_parquet_of_it(tmp_path, asked, separator):
    loans().write_csv(tmp_path / ("loans.csv" if asked == "." else asked), separator=separator)
    with pytest.raises(InputError, match=r"no Parquet|expected Parquet") as refused:
        start(tmp_path / asked)
    *_, code = shlex.split(re.search(r"python -c .*", str(refused.value))[0])
    exec(code)  # the line that a person is told to run
    assert start(tmp_path / "loans.parquet").draft.profile.the("decision_date").name == "opened_on"


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "came an empty file"), (b"PK\x03\x04", "expected Parquet, came a file that begins")]
)
def test_another_format_is_named(tmp_path, content, message):
    (tmp_path / "x.parquet").write_bytes(content)
    with pytest.raises(InputError, match=message):
        start(tmp_path / "x.parquet")


@pytest.mark.parametrize("other", [loans().drop("region"), loans().with_columns(bad=pl.lit("0"))])
def test_files_of_two_tables_are_not_called_corrupt(tmp_path, other):
    (tmp_path / "loans").mkdir()
    loans().write_parquet(tmp_path / "loans" / "a.parquet")
    other.write_parquet(tmp_path / "loans" / "b.parquet")
    with pytest.raises(InputError, match="expected one table, came 2 files that do not fit together") as refused:
        start(tmp_path / "loans")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (loans().clear(), r"expected rows to draft a portfolio from, came none \(7 columns\)"),
        (loans().select("region"), "no column is 0/1 and named like a label"),
        (loans().select("bad"), "no column tells the rows apart"),
    ],
)
def test_a_table_too_small_says_what_it_lacks(tmp_path, frame, message):
    frame.write_parquet(tmp_path / "x.parquet")
    with pytest.raises(InputError, match=message):
        start_portfolio(Question(data=str(tmp_path / "x.parquet")), tmp_path, {})


def test_a_folder_that_cannot_be_written_is_said(data):
    with pytest.raises(ConfigError, match=r"--out .*loans\.parquet: cannot write there"):
        start_portfolio(Question(data=str(data), targets=("product=card",)), data, {})


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

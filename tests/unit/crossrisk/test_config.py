"""Rules of the portfolio's TOML."""

import tomllib
from pathlib import Path

import pytest
from pydantic import ValidationError

from crossrisk.config import load_portfolio, parse_portfolio
from crossrisk.errors import ConfigError

MINIMAL = """
name = "cards"
as_of = 2024-06-30
[data]
path = "cards"
id = "loan_id"
decision_date = "opened"
[label]
column = "bad"
[population]
source = "product = 'loan'"
target = "product = 'card'"
[features]
numeric = ["income", "balance"]
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "cards.toml"
    path.write_text(text)
    return path


def test_a_minimal_portfolio_gets_the_documented_defaults(tmp_path):
    loaded = load_portfolio(write(tmp_path, MINIMAL), environ={"CROSSRISK_HOME": str(tmp_path)})
    assert loaded.portfolio.preset == "honest"
    assert loaded.portfolio.contenders[0] == "stacked"
    assert loaded.folders.data_root == tmp_path / "data"
    assert loaded.folders.registry == tmp_path / "registry" / "cards"


def test_data_root_comes_from_the_toml_then_the_environment_then_the_default(tmp_path):
    path = write(tmp_path, MINIMAL)
    environ = {"CROSSRISK_HOME": str(tmp_path), "CROSSRISK_DATA": "/elsewhere"}
    assert load_portfolio(path, environ=environ).folders.data_root == Path("/elsewhere")
    chosen = load_portfolio(path, environ=environ, overrides=["data.root=own"])
    assert chosen.folders.data_root == tmp_path / "own"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('nmae = "x"', "did you mean 'name'"),
        ("[gate]\nreplicate = 100", "did you mean 'replicates'"),
        ("[lineup]\ncontenders = ['source_forrest']", "did you mean 'source_forest'"),
        ("[lineup.dan]\nmmd_weights = [0.1]", "must hold 0"),
        ("[gate]\nreplicates = 5", "greater than or equal to 100"),
        ("[split]\ntarget_test_months = ['2011-13', '2011-14']", "split.target_test_months"),
    ],
)
def test_a_wrong_key_or_value_is_refused_with_its_place(tmp_path, line, message):
    text = line + MINIMAL if line.startswith("nmae") else MINIMAL + line
    with pytest.raises(ConfigError, match=message.replace("[", r"\[")):
        load_portfolio(write(tmp_path, text), environ={})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["features.protected=['income']"], "protected column 'income' is also a feature"),
        (["features.numeric=['bad']"], "'bad' is a label"),
        (["features.ratios.leak=['bad', 'income']"], "'bad' is a label"),
        (["label.known_date=known", "features.ages.leak=known"], "'known' is a label"),
        (["features.numeric=['two words']"], "cannot be an input of the SavedModel"),
        (["lineup.contenders=['pooled_logistic']"], "nothing could be published"),
        (["features.numeric=['month']"], "may not be called 'month'"),
        (["features.numeric=[]"], "no feature at all"),
        (["features.sentinels.other=[9]"], "not a numeric feature"),
        (["features.numeric=['income', 'income']"], "listed twice"),
    ],
)
def test_features_that_cannot_be_are_refused(tmp_path, change, message):
    with pytest.raises(ConfigError, match=message):
        load_portfolio(write(tmp_path, MINIMAL), environ={}, overrides=change)


def test_rules_about_dates_need_a_decision_date(tmp_path):
    text = MINIMAL.replace('decision_date = "opened"\n', "") + '[features.ages]\nage = "born"\n'
    with pytest.raises(ConfigError, match=r"features.ages needs data.decision_date"):
        load_portfolio(write(tmp_path, text), environ={})


def test_set_takes_toml_values_and_plain_strings(tmp_path):
    overrides = ["gate.replicates=500", "publish.registry=/some/where", "lineup.dan.mmd_weights=[0.0, 2.0]"]
    loaded = load_portfolio(write(tmp_path, MINIMAL), environ={}, overrides=overrides)
    assert loaded.portfolio.gate.replicates == 500
    assert loaded.folders.registry == Path("/some/where/cards")
    assert loaded.portfolio.lineup.dan.mmd_weights == (0.0, 2.0)


@pytest.mark.parametrize("override", ["gate.replicates", "=3", "name.first=3"])
def test_a_malformed_set_is_refused(tmp_path, override):
    with pytest.raises(ConfigError, match="--set"):
        load_portfolio(write(tmp_path, MINIMAL), environ={}, overrides=[override])


def test_an_unreadable_file_is_a_config_error(tmp_path):
    with pytest.raises(ConfigError, match="cannot read"):
        load_portfolio(tmp_path / "none.toml", environ={})
    with pytest.raises(ConfigError, match="is not TOML"):
        load_portfolio(write(tmp_path, "name ="), environ={})


def test_the_tree_is_frozen():
    portfolio = parse_portfolio(tomllib.loads(MINIMAL), where="x")
    with pytest.raises(ValidationError, match="frozen"):
        portfolio.gate.replicates = 7


def test_a_portfolio_name_cannot_leave_its_folder(tmp_path):
    with pytest.raises(ConfigError, match="name"):
        load_portfolio(write(tmp_path, MINIMAL.replace('"cards"', '"../up"', 1)), environ={})

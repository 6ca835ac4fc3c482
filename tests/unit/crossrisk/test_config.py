"""Rules of the portfolio's TOML."""

import re
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
        ("[lineup.dan]\nmmd_weights = [0.0, 1.0, 1.0]", "each weight once"),
        ("[lineup.dan]\nwarm_up_steps = 5", 'warm_up_steps goes with schedule = "warm_up"'),
        ("[lineup]\ncontenders = ['dan', 'dan']", "named once each"),
        ("[lineup.dann]\nmmd_weights = [0.0, -1.0]", "greater than or equal to 0"),
        ("[lineup.dan]\nlayers = ['hidden']", "lineup.dan.layers"),
        ("[lineup.ddc]\nfix_sigma = 1.0", 'fix_sigma goes with bandwidth = "fixed"'),
        ("[lineup.dsan]\nbandwidth = 'fixed'", 'fix_sigma goes with bandwidth = "fixed"'),
        ("[lineup.deep_coral]\nbandwidth = 'mean'", "unknown key 'lineup.deep_coral.bandwidth'"),
        ("[lineup.fine_tuned]\ntuning_rat = 1.0", "did you mean 'tuning_rate'"),
        ("[lineup.source_network]\nmmd_weights = [0.0]", "unknown key 'lineup.source_network.mmd_weights'"),
        ("[lineup]\ncontenders = ['deep_corl']", "did you mean 'deep_coral'"),
        ("[gate]\nreplicates = 5", "greater than or equal to 100"),
        ("[split]\ntarget_test_months = ['2011-13', '2011-14']", "split.target_test_months"),
        ("[data.source]\npaht = 'x'", "unknown key 'data.source.paht'; did you mean 'path'? Known: path, columns"),
        ("[data.target]\npath = 'x'\ncolumn = {}", "unknown key 'data.target.column'; did you mean 'columns'?"),
        ("[label.outcomes]\nsorce = 'x'", "unknown key 'label.outcomes.sorce'; did you mean 'source'?"),
    ],
)
def test_a_wrong_key_or_value_is_refused_with_its_place(tmp_path, line, message):
    text = line + MINIMAL if line.startswith("nmae") else MINIMAL + line
    with pytest.raises(ConfigError, match=re.escape(message)):
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
        (["features.numeric=['month']"], "a feature may not be called 'month'"),
        (["features.ratios.share=['id', 'income']"], "a feature may not be called 'id'"),
        (["features.protected=['part']"], "a protected column may not be called 'part'"),
        (["use.segments=['id']"], "a segment may not be called 'id'.*such as id_given = "),
        (["data.columns.crossrisk_input='channel'"], "a column may not be called 'crossrisk_input'"),
        (["data.columns.label='bad flag'"], "a column may not be called 'label'"),
        (["features.numeric=[]"], "no feature at all"),
        (["features.sentinels.other=[9]"], "not a numeric feature"),
        (["features.numeric=['income', 'income']"], "listed twice"),
    ],
)
def test_features_that_cannot_be_are_refused(tmp_path, change, message):
    with pytest.raises(ConfigError, match=message):
        load_portfolio(write(tmp_path, MINIMAL), environ={}, overrides=change)


def test_a_key_may_have_the_name_that_stages_give_it(tmp_path):
    keys = ["data.id=id", "data.columns.id='Contract No'", "label.column=label", "data.columns.label='bad flag'"]
    assert load_portfolio(write(tmp_path, MINIMAL), environ={}, overrides=keys).portfolio.data.id == "id"


@pytest.mark.parametrize(
    "override", ["population.target=crossrisk_input = 'target'", "label.grey=crossrisk_grey", "data.id=crossrisk_input"]
)
def test_what_ingest_adds_is_no_column_of_the_data(tmp_path, override):
    with pytest.raises(ConfigError, match="which is no column of the data: ingest adds it; leave it out"):
        load_portfolio(write(tmp_path, MINIMAL), environ={}, overrides=[override])


@pytest.mark.parametrize(
    "key", ["population.target", "population.source", "label.grey", "label.known_date", "data.customer", "data.path"]
)
def test_an_empty_text_is_not_taken_for_a_key_left_out(tmp_path, key):
    with pytest.raises(ConfigError, match=f"{key} is empty; write what is meant, or leave the key out"):
        load_portfolio(write(tmp_path, MINIMAL), environ={}, overrides=[f"{key}="])


@pytest.mark.parametrize("rule", ["' '", "product ===", "opened > DATE '2024-13-41'"])
def test_a_rule_that_is_no_sql_is_refused_with_its_key(tmp_path, rule):
    with pytest.raises(
        ConfigError, match=r"population\.target: expected a filter in SQL, such as product = 'card'; got"
    ):
        load_portfolio(write(tmp_path, MINIMAL), environ={}, overrides=[f"population.target={rule}"])


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


def test_a_mark_of_byte_order_in_front_is_read_over(tmp_path):
    path = tmp_path / "cards.toml"
    path.write_text(MINIMAL, encoding="utf-8-sig")
    assert load_portfolio(path, environ={}).portfolio.name == "cards"


def test_a_file_in_another_encoding_is_told_to_be_saved_as_utf_8(tmp_path):
    path = tmp_path / "cards.toml"
    path.write_text(MINIMAL, encoding="utf-16")
    with pytest.raises(ConfigError, match=r"cards\.toml is not UTF-8 \(.* at byte 0\); save it as UTF-8"):
        load_portfolio(path, environ={})


def test_the_tree_is_frozen():
    portfolio = parse_portfolio(tomllib.loads(MINIMAL), where="x")
    with pytest.raises(ValidationError, match="frozen"):
        portfolio.gate.replicates = 7


@pytest.mark.parametrize("name", ["../up", "Cards", "1st", "a" * 64, "cards\\n", ""])
def test_a_portfolio_name_is_a_plain_folder_in_lower_case(tmp_path, name):
    with pytest.raises(ConfigError, match="name: expected a lower-case letter, then up to 62 lower-case letters"):
        load_portfolio(write(tmp_path, MINIMAL.replace('"cards"', f'"{name}"', 1)), environ={})


def test_what_is_left_lying_is_no_part_of_what_a_run_asks(tmp_path):
    path = write(tmp_path, MINIMAL)
    longer = load_portfolio(path, environ={}, overrides=["retention.stages_days=90"]).portfolio
    assert longer.retention.stages_days == 90
    assert longer.model_dump() == load_portfolio(path, environ={}).portfolio.model_dump()


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("features.ratios={r = ['a', 'region']}", "ratios.r: 'region' is a category; expected two different numeric"),
        ("features.differences={d = ['a', 'a']}", "differences.d: 'a' and itself say nothing"),
        ("features.encodings={region = ['magic']}", "features.encodings.region"),
        ("features.encodings={a = ['one_hot']}", "features.encodings.a: expected some of standard"),
        ("features.date_parts={m = ['opened', 'moth']}", "features.date_parts.m"),
        ("features.aggregates={a = ['a', 'mean', 'region']}", "features.aggregates.a: a feature is called so"),
        ("features.bins=1", "features.bins"),
        ("lineup.boosted_inputs='nativ'", "lineup.boosted_inputs"),
    ],
)
def test_a_step_of_the_plan_that_cannot_be_is_refused_by_its_key(tmp_path, override, said):
    given = ["features.numeric=['a', 'b']", "features.categorical=['region']", override]
    with pytest.raises(ConfigError) as refused:
        load_portfolio(write(tmp_path, MINIMAL), environ={}, overrides=given)
    assert said in str(refused.value)
    assert "at least 1 item" not in str(refused.value)


def test_columns_of_differences_and_parts_of_dates_are_inputs(tmp_path):
    given = ["features.differences={left = ['a', 'b']}", "features.date_parts={opened_month = ['opened', 'month']}"]
    plan = load_portfolio(write(tmp_path, MINIMAL), environ={}, overrides=given).portfolio.row_plan
    assert {"a", "b", "opened"} <= {column.name for column in plan.raw_columns}
    assert plan.inputs_of("left") == ("a", "b")
    assert plan.numeric_features[-2:] == ("left", "opened_month")


def test_a_key_of_deep_corals_own_leaves_its_grid_alone(tmp_path):
    loaded = load_portfolio(write(tmp_path, MINIMAL), environ={}, overrides=["lineup.deep_coral.seeds=2"])
    assert loaded.portfolio.lineup.deep_coral.mmd_weights == (0.0, 1.0, 10.0)

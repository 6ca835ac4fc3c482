"""Rules of the column map: two systems' names and types become one table, or the column that cannot is named."""

import polars as pl
import pytest
from builders import TOML, loans, portfolio

from crossrisk.errors import ConfigError, InputError
from tasks.ingest import ingest, scan_ingested
from tasks.labels import LABELS, mature_labels
from tasks.validate import validate

THEIRS = {"loan_id": "Contract No", "income_usd": "inc", "region": "Region/Area"}
TWO_INPUTS = TOML.replace('path = "loans.parquet"\n', "").replace(
    "[population]\nsource = \"product = 'loan'\"\ntarget = \"product = 'card'\"\n",
    """
[data.source]
path = "old/*.parquet"
[data.target]
path = "new/cards.parquet"
columns = { loan_id = "Contract No", income_usd = "inc", region = "Region/Area" }
""",
)


def two_inputs(folder, *, source=lambda f: f, target=lambda f: f, toml=TWO_INPUTS):
    frame = loans()
    for name, rows in (
        ("old/a.parquet", source(frame.filter(pl.col("product") == "loan").drop("product"))),
        ("new/cards.parquet", target(frame.filter(pl.col("product") == "card").drop("product").rename(_theirs()))),
    ):
        path = folder / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        rows.write_parquet(path)
    return portfolio(folder, toml=toml)


def _theirs():
    return dict(THEIRS)


def labelled(loaded):
    ingested = ingest.fn(loaded)
    return pl.read_parquet(mature_labels.fn(loaded, ingested, validate.fn(loaded, ingested)).folder / LABELS)


def test_two_inputs_say_the_same_as_one_file_with_two_rules(tmp_path):
    one = labelled(portfolio(tmp_path / "one", loans()))
    two = labelled(two_inputs(tmp_path / "two"))
    assert two.columns == one.columns
    as_one = two.with_columns(pl.col("id").str.split("/").list.last().cast(pl.Int64)).sort("id")
    assert as_one.drop("customer").equals(one.drop("customer"))
    assert set(two["id"].str.split("/").list.first()) == {"source", "target"}


def test_features_of_both_inputs_stand_under_the_names_of_the_portfolio(tmp_path):
    loaded = two_inputs(tmp_path)
    rows = scan_ingested(loaded, ingest.fn(loaded)).collect()
    assert rows.height == 600
    expected = loans().sort("loan_id")
    found = rows.with_columns(pl.col("loan_id").str.split("/").list.last().cast(pl.Int64)).sort("loan_id")
    for column in ("income_usd", "balance_usd", "region", "bad"):
        assert found[column].equals(expected[column]), column


def test_the_same_number_in_both_systems_is_two_loans(tmp_path):
    loaded = two_inputs(tmp_path, target=lambda f: f.with_columns(pl.col("Contract No") - 1))
    found = labelled(loaded)
    assert found["id"].n_unique() == found.height == 600


def test_one_customer_in_both_systems_is_one_customer(tmp_path):
    toml = TWO_INPUTS.replace('id = "loan_id"', 'id = "loan_id"\ncustomer = "person"')
    loaded = two_inputs(
        tmp_path,
        source=lambda f: f.with_columns(person=pl.int_range(pl.len())),
        target=lambda f: f.with_columns(person=pl.int_range(pl.len()).cast(pl.String)),
        toml=toml,
    )
    found = labelled(loaded)
    assert found["customer"].n_unique() == 300


def test_types_that_differ_are_brought_together_by_role_and_said(tmp_path):
    loaded = two_inputs(
        tmp_path,
        source=lambda f: f.with_columns(pl.col("bad").cast(pl.Boolean), pl.col("balance_usd").cast(pl.Int32)),
        target=lambda f: f.with_columns(pl.col("opened_on").cast(pl.Datetime)),
    )
    facts = ingest.fn(loaded).facts
    assert facts["populations"] == {"source": 300, "target": 300}
    said = " ".join(facts["warnings"])
    for column, kind in (("bad", "Float64"), ("balance_usd", "Float64"), ("opened_on", "Date")):
        assert f"column {column!r} is" in said
        assert f"read as {kind}" in said


def test_an_unnamed_column_of_two_types_is_left_out_and_said(tmp_path):
    loaded = two_inputs(
        tmp_path, source=lambda f: f.with_columns(note=1), target=lambda f: f.with_columns(note=pl.lit("x"))
    )
    ingested = ingest.fn(loaded)
    assert any("'note'" in warning and "not carried over" in warning for warning in ingested.facts["warnings"])
    assert "note" not in scan_ingested(loaded, ingested).collect_schema()


def test_a_rule_looks_at_the_rows_of_its_own_input(tmp_path):
    toml = TWO_INPUTS + "[population]\ntarget = \"channel = 'web'\"\n"
    loaded = two_inputs(
        tmp_path, target=lambda f: f.with_columns(channel=pl.Series(["web", "branch"] * 150)), toml=toml
    )
    facts = ingest.fn(loaded).facts
    assert facts["populations"] == {"neither": 150, "source": 300, "target": 150}


def test_a_segment_may_be_missing_in_one_input_and_not_in_both(tmp_path):
    toml = TWO_INPUTS + '[use]\nsegments = ["channel"]\n'
    in_one = two_inputs(tmp_path / "one", target=lambda f: f.with_columns(channel=pl.lit("web")), toml=toml)
    assert ingest.fn(in_one).facts["populations"] == {"source": 300, "target": 300}
    with pytest.raises(InputError, match="column 'channel' is in neither input"):
        ingest.fn(two_inputs(tmp_path / "none", toml=toml))


def test_a_warning_names_its_file(tmp_path):
    toml = TWO_INPUTS + '[use]\nsegments = ["channel"]\n'
    loaded = two_inputs(tmp_path, target=lambda f: f.with_columns(channel=pl.lit("web")), toml=toml)
    assert ingest.fn(loaded).facts["warnings"] == ["old/a.parquet: column 'channel' is missing"]


def test_a_segment_that_is_a_feature_may_be_missing_in_neither_input(tmp_path):
    toml = TWO_INPUTS + '[use]\nsegments = ["region"]\n'
    with pytest.raises(InputError, match=r"old/a\.parquet: column 'region' is missing"):
        ingest.fn(two_inputs(tmp_path, source=lambda f: f.drop("region"), toml=toml))


@pytest.mark.parametrize("first", [True, False])
def test_a_segment_that_only_some_files_of_an_input_have_is_named_with_both(tmp_path, first):
    toml = TWO_INPUTS + '[use]\nsegments = ["channel"]\n'
    loaded = two_inputs(tmp_path, source=lambda f: f.with_columns(channel=pl.lit("web")), toml=toml)
    other = loans(20).drop("product").with_columns(pl.col("loan_id") + 1000)
    other.write_parquet(tmp_path / "data" / "old" / ("0.parquet" if first else "b.parquet"))
    with pytest.raises(InputError, match=r"'channel' is in old/a\.parquet and missing in old/[0b]\.parquet; write it"):
        ingest.fn(loaded)


def test_a_rule_on_a_column_of_the_other_input_is_no_empty_population(tmp_path):
    toml = TWO_INPUTS + '[use]\nsegments = ["branch"]\n[population]\ntarget = "branch = \'A\'"\n'
    loaded = two_inputs(tmp_path, source=lambda f: f.with_columns(branch=pl.lit("A")), toml=toml)
    with pytest.raises(
        InputError, match=r"new/cards\.parquet: column 'branch' is missing \(read by .* population\.target"
    ):
        ingest.fn(loaded)


def test_an_input_without_rows_is_named(tmp_path):
    loaded = two_inputs(tmp_path, source=lambda f: f.clear())
    with pytest.raises(
        InputError, match=r"data\.source\.path 'old/\*\.parquet' leads to old/a\.parquet, .*no row in it"
    ):
        ingest.fn(loaded)


def test_an_empty_population_is_counted_in_its_own_input(tmp_path):
    loaded = two_inputs(
        tmp_path, toml=TWO_INPUTS + "[population]\ntarget = \"Region = 'x'\"\n".replace("Region", "region")
    )
    with pytest.raises(
        InputError, match=r"'target' is empty: of the 300 rows of data\.target\.path none meets \"region = 'x'"
    ):
        ingest.fn(loaded)


# --- one file in both inputs ---

SHARED = TOML.replace('path = "loans.parquet"\n', "").replace(
    "[label]\n", '[data.source]\npath = "*.parquet"\n[data.target]\npath = "loans.parquet"\n[label]\n'
)
RULES = "[population]\nsource = \"product = 'loan'\"\ntarget = \"product = 'card'\"\n"


@pytest.mark.parametrize("rule", ["", RULES.splitlines()[1], RULES.splitlines()[2]])
def test_a_file_in_both_inputs_is_refused_unless_both_have_a_rule(tmp_path, rule):
    loaded = portfolio(tmp_path, loans(), toml=SHARED.replace(RULES, f"[population]\n{rule}\n"))
    with pytest.raises(InputError, match=r"loans\.parquet is read by data\.source and by data\.target: .*Give each"):
        ingest.fn(loaded)


def test_a_copy_under_another_name_is_the_same_file(tmp_path):
    toml = SHARED.replace(RULES, "").replace('"*.parquet"', '"copy.parquet"')
    loaded = portfolio(tmp_path, loans(), toml=toml)
    loans().write_parquet(tmp_path / "data" / "copy.parquet")
    with pytest.raises(
        InputError, match=r"loans\.parquet of data\.target has the bytes of copy\.parquet of data\.source"
    ):
        ingest.fn(loaded)


def test_files_without_rows_are_no_shared_files(tmp_path):
    toml = SHARED.replace(RULES, "").replace("*.parquet", "old").replace('"loans.parquet"', '"new"')
    for name, rows in (("old", loans().head(300)), ("new", loans().tail(300))):
        (tmp_path / "data" / name).mkdir(parents=True)
        rows.write_parquet(tmp_path / "data" / name / "0.parquet")
        rows.clear().write_parquet(tmp_path / "data" / name / "1.parquet")
    assert ingest.fn(portfolio(tmp_path, toml=toml)).facts["populations"] == {"source": 300, "target": 300}


def test_a_shared_file_with_two_rules_gives_every_loan_one_population(tmp_path):
    loaded = portfolio(tmp_path, loans(), toml=SHARED)
    assert ingest.fn(loaded).facts["populations"] == {"neither": 600, "source": 300, "target": 300}


def test_a_loan_that_two_rules_take_from_a_shared_file_is_refused_by_id(tmp_path):
    loaded = portfolio(tmp_path, loans(), toml=SHARED, overrides=("population.source=product IS NOT NULL",))
    with pytest.raises(
        InputError, match=r"300 loans are in both .*, such as loan_id '1', for loans\.parquet is read by"
    ):
        ingest.fn(loaded)


# --- types and names ---


@pytest.mark.parametrize("whole", ["source", "target"])
def test_a_category_of_flags_here_and_numbers_there_is_refused(tmp_path, whole):
    toml = TWO_INPUTS.replace('categorical = ["region"]', 'categorical = ["region", "is_new"]')
    kinds = {"source": pl.Boolean, "target": pl.Boolean} | {whole: pl.Int8}
    changes = {
        name: lambda f, kind=kind: f.with_columns(is_new=(pl.int_range(pl.len()) % 2).cast(kind))
        for name, kind in kinds.items()
    }
    with pytest.raises(InputError, match=r"'is_new' is .*'true' and '1' would never meet.*write one type to both"):
        ingest.fn(two_inputs(tmp_path, **changes, toml=toml))


def test_a_map_written_the_wrong_way_round_is_recognised(tmp_path):
    toml = TWO_INPUTS.replace('income_usd = "inc"', 'inc = "income_usd"')
    with pytest.raises(
        InputError, match=r"no column 'income_usd'. It has 'inc': the map reads name here = name in the"
    ):
        ingest.fn(two_inputs(tmp_path, toml=toml))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (lambda f: f.rename({"inc": "income"}), r"data.target.columns calls 'inc' 'income_usd', .*there: 'income'"),
        (
            lambda f: f.rename({"inc": "z"}),
            r"no column 'inc'.*There are 'Contract No', .*'bad': correct the name on the",
        ),
        (lambda f: f.drop("balance_usd"), r"new/cards\.parquet: column 'balance_usd' is missing"),
        (lambda f: f.with_columns(region=1), r"has a column 'region' of its own; give that one another name"),
        (lambda f: f.with_columns(pl.col("inc").cast(pl.String)), r"column 'income_usd': expected a number"),
    ],
)
def test_a_fault_of_the_map_is_named_with_its_file(tmp_path, target, message):
    with pytest.raises(InputError, match=message):
        ingest.fn(two_inputs(tmp_path, target=target))


def test_one_input_with_a_map_is_read_under_the_names_of_the_portfolio(tmp_path):
    toml = TOML.replace("[label]", '[data.columns]\nincome_usd = "annual income (USD)"\n[label]', 1)
    loaded = portfolio(tmp_path, loans().rename({"income_usd": "annual income (USD)"}), toml=toml)
    rows = scan_ingested(loaded, ingest.fn(loaded)).collect()
    assert rows.equals(loans())


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        (TWO_INPUTS.replace('[data.source]\npath = "old/*.parquet"\n', ""), r"expected either path .* or both"),
        (TOML.replace('path = "loans.parquet"\n', ""), r"expected either path .* or both"),
        (TOML.replace("source = \"product = 'loan'\"\n", ""), r"population.source is missing: one input needs a rule"),
        (TWO_INPUTS.replace('income_usd = "inc"', 'income_usd = "inc", other = "inc"'), r"'inc' .* two names"),
    ],
)
def test_a_config_that_leaves_the_inputs_open_is_refused(tmp_path, toml, message):
    with pytest.raises(ConfigError, match=message):
        portfolio(tmp_path, toml=toml)

"""Rules of ingest: what cannot be the portfolio's data is refused, by name, before anything is trained."""

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import loans, portfolio

from crossrisk.errors import ConfigError, InputError
from tasks.ingest import ingest, scan_ingested
from tasks.input_files import find_files


def test_counts_are_by_population_and_month(tmp_path):
    facts = ingest.fn(portfolio(tmp_path, loans())).facts
    assert facts["populations"] == {"source": 300, "target": 300}
    assert sum(row["rows"] for row in facts["months"]) == 600
    assert len({row["month"] for row in facts["months"]}) == 12
    assert facts["warnings"] == []


def test_an_unchanged_input_is_not_inspected_again(tmp_path):
    loaded = portfolio(tmp_path, loans())
    assert not ingest.fn(loaded).reused
    assert ingest.fn(loaded).reused
    assert not ingest.fn(portfolio(tmp_path, loans(seed=1))).reused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop("income_usd"), "column 'income_usd' is missing"),
        (lambda f: f.rename({"income_usd": "Income_USD"}), "'income_usd' came as 'Income_USD'"),
        (lambda f: f.with_columns(pl.col("income_usd").cast(pl.String)), "'income_usd': expected a number"),
        (lambda f: f.with_columns(pl.col("opened_on").cast(pl.String)), "'opened_on': expected a date"),
        (lambda f: f.with_columns(pl.col("region").is_null().cast(pl.Float64)), "'region': expected a string"),
        (lambda f: f.filter(pl.col("product") == "loan"), "population 'target' is empty"),
        (lambda f: f.drop("product"), "column 'product' is missing"),
    ],
)
def test_a_fault_of_the_file_is_named(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        ingest.fn(portfolio(tmp_path, change(loans())))


def test_an_extra_column_is_a_warning_until_it_is_named(tmp_path):
    frame = loans().with_columns(extra=1)
    assert ingest.fn(portfolio(tmp_path, frame)).facts["warnings"] == [
        "loans.parquet: column 'extra' is not named in the portfolio"
    ]
    assert ingest.fn(portfolio(tmp_path, frame, overrides=("data.ignore=['extra']",))).facts["warnings"] == []


@pytest.mark.parametrize("kept", [0, 3, 0.5, 0.99])
def test_a_truncated_file_is_named_and_nothing_is_made(tmp_path, kept):
    loaded = portfolio(tmp_path, loans())
    path = tmp_path / "data" / "loans.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    with pytest.raises(InputError, match=r"loans\.parquet: not readable"):
        ingest.fn(loaded)
    assert not list((tmp_path / "work" / "mini" / "stages").glob("ingest/[!.]*"))


def test_broken_pages_below_a_whole_footer_are_found(tmp_path):
    loaded = portfolio(tmp_path, loans())
    path = tmp_path / "data" / "loans.parquet"
    whole = bytearray(path.read_bytes())
    whole[200:4000] = b"\x00" * 3800
    path.write_bytes(whole)
    with pytest.raises(InputError, match=r"loans\.parquet: not readable"):
        ingest.fn(loaded)


def test_the_broken_one_of_several_files_is_named(tmp_path):
    folder = tmp_path / "data" / "loans"
    folder.mkdir(parents=True)
    loans().write_parquet(folder / "a.parquet")
    loans().drop("region").write_parquet(folder / "b.parquet")
    with pytest.raises(InputError, match=r"loans/b\.parquet: column 'region'"):
        ingest.fn(portfolio(tmp_path, overrides=("data.path=loans",)))


def test_hive_folders_become_columns(tmp_path):
    frame = loans()
    for (product,), rows in frame.group_by("product"):
        folder = tmp_path / "data" / "loans" / f"product={product}"
        folder.mkdir(parents=True)
        rows.drop("product").write_parquet(folder / "part-0.parquet")
    facts = ingest.fn(portfolio(tmp_path, overrides=("data.path=loans",))).facts
    assert facts["populations"] == {"source": 300, "target": 300}


def test_partitions_by_date_and_by_number_keep_their_types(tmp_path):
    for (day,), rows in loans(200).with_columns(opened_on=pl.date(2024, 1, 1)).group_by("opened_on"):
        folder = tmp_path / "data" / "region=prod" / f"opened_on={day}"
        folder.mkdir(parents=True)
        rows.drop("opened_on", "region").write_parquet(folder / "part-0.parquet")
    facts = ingest.fn(portfolio(tmp_path, overrides=("data.path=region=prod",))).facts
    assert facts["months"][0]["month"] == "2024-01"


def test_a_partition_folder_above_the_root_is_no_column(tmp_path):
    (tmp_path / "region=prod").mkdir()
    (tmp_path / "data").symlink_to(tmp_path / "region=prod")
    with pytest.raises(InputError, match="column 'region' is missing"):
        ingest.fn(portfolio(tmp_path, loans().drop("region")))


def test_a_type_that_changes_between_files_is_named_with_both(tmp_path):
    folder = tmp_path / "data" / "loans"
    folder.mkdir(parents=True)
    loans().with_columns(pl.col("income_usd").cast(pl.Int64)).write_parquet(folder / "a.parquet")
    loans().write_parquet(folder / "b.parquet")
    with pytest.raises(InputError, match=r"'income_usd' is int64 in loans/a\.parquet and double in loans/b\.parquet"):
        ingest.fn(portfolio(tmp_path, overrides=("data.path=loans",)))


def several(folder, **frames):
    """Write the files of the folder `loans`, named by their stem."""
    (folder / "data" / "loans").mkdir(parents=True)
    for name, frame in frames.items():
        frame.write_parquet(folder / "data" / "loans" / f"{name}.parquet")


@pytest.mark.parametrize("lacking", ["a", "b"])
def test_a_rule_s_column_that_only_some_label_files_have_is_named_with_both(tmp_path, lacking):
    told = {one: loans(20).select("loan_id", paid_on="opened_on", late=1) for one in "ab"}
    several(tmp_path, **(told | {lacking: told[lacking].drop("late")}))
    overrides = ("label.outcomes=loans", "label.grey=late > 1")
    with pytest.raises(
        InputError, match=r"'late' is in loans/[ab]\.parquet and missing in loans/[ab]\.parquet; write it"
    ):
        ingest.fn(portfolio(tmp_path, loans(), overrides=overrides))


OF_KIND = ("population.source=kind = 'loan'", "population.target=kind = 'card'")


@pytest.mark.parametrize("odd", [lambda f: f.drop("note"), lambda f: f.with_columns(note=pl.lit("x"))])
def test_an_unnamed_column_that_differs_between_files_is_left_out_of_the_one_table_and_said(tmp_path, odd):
    first, second = loans().head(300), loans().tail(300)
    several(tmp_path, a=first.with_columns(note=1), b=odd(second.with_columns(note=1)))
    loaded = portfolio(tmp_path, overrides=("data.path=loans", 'data.columns={kind = "product"}', *OF_KIND))
    ingested = ingest.fn(loaded)
    assert any("'note' is" in said and "not carried over" in said for said in ingested.facts["warnings"])
    assert scan_ingested(loaded, ingested).collect().height == 600


def test_text_of_two_widths_is_one_type(tmp_path):
    several(tmp_path, a=loans().head(300))
    narrow = loans().tail(300).to_arrow()
    schema = pa.schema([f.with_type(pa.string()) if pa.types.is_large_string(f.type) else f for f in narrow.schema])
    pq.write_table(narrow.cast(schema), tmp_path / "data" / "loans" / "b.parquet")
    loaded = portfolio(tmp_path, overrides=("data.path=loans",))
    assert scan_ingested(loaded, ingest.fn(loaded)).collect().height == 600


def test_two_columns_of_one_name_are_refused(tmp_path):
    (tmp_path / "data").mkdir()
    table = loans().to_arrow()
    pq.write_table(table.append_column("region", table["region"]), tmp_path / "data" / "loans.parquet")
    with pytest.raises(InputError, match=r"loans\.parquet: two columns are called 'region'"):
        ingest.fn(portfolio(tmp_path))


def test_a_file_beside_partition_folders_is_named(tmp_path):
    several(tmp_path, z=loans().filter(pl.col("product") == "card"))
    inner = tmp_path / "data" / "loans" / "product=loan"
    inner.mkdir()
    loans().filter(pl.col("product") == "loan").drop("product").write_parquet(inner / "part-0.parquet")
    message = (
        r"product=loan/part-0\.parquet lies in folders of product, but loans/z\.parquet in no such folder: .* Move"
    )
    with pytest.raises(InputError, match=message):
        ingest.fn(portfolio(tmp_path, overrides=("data.path=loans",)))


def test_files_without_rows_are_said_to_be_empty(tmp_path):
    with pytest.raises(InputError, match=r"data\.path 'loans\.parquet' leads to .* no row in it; deliver it again"):
        ingest.fn(portfolio(tmp_path, loans().clear()))


def test_a_column_of_ingest_s_own_name_is_refused_until_it_is_mapped(tmp_path):
    frame = loans().with_columns(crossrisk_input=1)
    with pytest.raises(InputError, match=r'data\.columns = \{ crossrisk_input_given = "crossrisk_input" \}'):
        ingest.fn(portfolio(tmp_path, frame))
    mapped = ('data.columns={crossrisk_input_given = "crossrisk_input"}',)
    assert ingest.fn(portfolio(tmp_path, frame, overrides=mapped)).facts["rows"] == 600


def test_a_name_of_the_files_in_a_rule_is_answered_with_the_portfolio_s(tmp_path):
    mapped = ('data.columns={kind = "product"}',)
    with pytest.raises(
        InputError, match=r"'product' is missing.*data\.columns calls 'product' 'kind': use the name on"
    ):
        ingest.fn(portfolio(tmp_path, loans(), overrides=mapped))


@pytest.mark.parametrize("path", ["spark", "spark/*.parquet", "spark/x.parquet", "spark/**/*.parquet", "*/x.parquet"])
def test_a_folder_that_is_called_like_a_file_is_read_once(tmp_path, path):
    folder = tmp_path / "data" / "spark" / "x.parquet"
    folder.mkdir(parents=True)
    (folder / "_SUCCESS").touch()
    loans().write_parquet(folder / "part-0000.parquet")
    assert ingest.fn(portfolio(tmp_path, overrides=(f"data.path={path}",))).facts["rows"] == 600


def test_a_glob_that_finds_only_folders_says_so(tmp_path):
    several(tmp_path, a=loans(20))
    with pytest.raises(
        InputError, match=r"no Parquet file at 'l\*' .* folders such as 'loans', in which 'l\*/\*\.parquet'"
    ):
        find_files(tmp_path / "data", "l*")


def test_a_malformed_glob_is_named_with_its_key(tmp_path):
    (tmp_path / "data").mkdir()
    with pytest.raises(InputError, match=r"data\.path 'a\*\*/x' is no glob"):
        find_files(tmp_path / "data", "a**/x")


@pytest.mark.parametrize("root", ["../data", "link"])
def test_a_root_given_by_detour_is_the_same_root(tmp_path, root):
    (tmp_path / "home").mkdir()
    portfolio(tmp_path, loans())
    (tmp_path / "home" / "link").symlink_to(tmp_path / "data")
    loaded = portfolio(tmp_path / "home", overrides=(f"data.root={root}",))
    assert ingest.fn(loaded).facts["rows"] == 600


def test_dictionary_ids_are_strings_everywhere(tmp_path):
    frame = loans().with_columns(pl.col("loan_id").cast(pl.String).cast(pl.Categorical))
    loaded = portfolio(tmp_path, frame)
    assert scan_ingested(loaded, ingest.fn(loaded)).collect_schema()["loan_id"] == pl.String


@pytest.mark.parametrize("rule", ["product = 5", "product", "opened_on < '2024-05-01'"])
def test_a_rule_that_does_not_fit_the_types_is_a_config_error(tmp_path, rule):
    with pytest.raises(ConfigError, match=r"cannot be applied to the data: [^\n]*a string in single quotes$"):
        ingest.fn(portfolio(tmp_path, loans(), overrides=(f"population.source={rule}",)))  # no query plan of Polars


def test_the_cut_off_is_no_input_of_ingest(tmp_path):
    ingest.fn(portfolio(tmp_path, loans()))
    assert ingest.fn(portfolio(tmp_path, loans(), overrides=("use.cutoff_probability=0.2",))).reused


@pytest.mark.parametrize("path", ["../secret.parquet", "/etc/secret.parquet", "a/../../secret.parquet"])
def test_a_path_that_leads_outside_the_root_is_refused(tmp_path, path):
    (tmp_path / "data").mkdir()
    loans(20).write_parquet(tmp_path / "secret.parquet")
    with pytest.raises(InputError, match=r"outside data\.root"):
        find_files(tmp_path / "data", path)


def test_a_link_that_leads_outside_the_root_is_refused(tmp_path):
    (tmp_path / "data").mkdir()
    loans(20).write_parquet(tmp_path / "secret.parquet")
    (tmp_path / "data" / "loans.parquet").symlink_to(tmp_path / "secret.parquet")
    with pytest.raises(InputError, match="link to outside"):
        find_files(tmp_path / "data", "*.parquet")


def test_hidden_and_unfinished_files_are_not_read(tmp_path):
    (tmp_path / "data" / "_tmp").mkdir(parents=True)
    for name in ("a.parquet", ".b.parquet", "_tmp/c.parquet"):
        loans(20).write_parquet(tmp_path / "data" / name)
    assert [f.name for f in find_files(tmp_path / "data", ".")] == ["a.parquet"]


def test_nothing_there_is_said(tmp_path):
    with pytest.raises(InputError, match="is no folder"):
        find_files(tmp_path / "data", "x")
    (tmp_path / "data").mkdir()
    with pytest.raises(InputError, match="no Parquet file"):
        find_files(tmp_path / "data", "x/*.parquet")


def test_a_rule_that_is_no_sql_is_a_config_error(tmp_path):
    with pytest.raises(
        ConfigError, match=r"population\.source: expected a filter in SQL, such as .* got 'product ==='"
    ):
        portfolio(tmp_path, loans(), overrides=("population.source=product ===",))


def test_overlapping_populations_are_refused(tmp_path):
    with pytest.raises(InputError, match="belong to both"):
        ingest.fn(portfolio(tmp_path, loans(), overrides=("population.source=product IS NOT NULL",)))

"""Rules of outcomes and revisions: joined by id for the label alone, and blind to what came after as_of."""

from datetime import date, timedelta

import polars as pl
import pytest
from builders import TOML, loans, portfolio
from hypothesis import given, settings
from hypothesis import strategies as st

from crossrisk.config import GREY_COLUMN, INPUT_COLUMN, KNOWN_COLUMN
from crossrisk.errors import ConfigError, InputError
from crossrisk.store import stage
from tasks.ingest import ingest, scan_ingested
from tasks.labels import LABELS, mature_labels, read_vintages
from tasks.validate import validate

OUTCOMES = TOML.replace(
    'column = "bad"\n',
    """column = "charged_off"
known_date = "COALESCE(last_paid_on, opened_on) + INTERVAL '30 days'"
window_months = 3
within_window = true
grey = "dpd_worst BETWEEN 1 AND 29"
outcomes = "outcomes.parquet"
amount = "income_usd"
""",
)
REVISIONS = TOML.replace('column = "bad"\n', 'column = "bad"\nknown_date = "told_on"\nrevisions = "history.parquet"\n')


def outcomes(rows=600):
    """Two thirds good, of them one in ten grey; the others stop paying after 10 to 199 days."""
    frame = loans(rows).select("loan_id", "opened_on").with_row_index("i")
    days = 10 + (pl.col("i") * 37) % 190
    return frame.select(
        pl.col("loan_id").cast(pl.Int32),
        charged_off=(pl.col("i") % 3 == 0).cast(pl.Int8),
        last_paid_on=pl.when(pl.col("i") % 3 == 0).then(pl.col("opened_on") + pl.duration(days=days)),
        dpd_worst=pl.when(pl.col("i") % 30 == 1).then(15).otherwise(0),
        recovered_usd=pl.lit(1.0),
    )


def history(rows=600):
    """Every label told after 40 days, one in seven told otherwise after 100."""
    first = loans(rows).select("loan_id", told_on=pl.col("opened_on") + pl.duration(days=40), bad="bad")
    again = first.filter(pl.col("loan_id") % 7 == 0).select(
        "loan_id", pl.col("told_on") + pl.duration(days=60), bad=1 - pl.col("bad")
    )
    return pl.concat([first, again])


def prepare(folder, toml=OUTCOMES, frame=None, overrides=(), **files):
    """The portfolio with its files: loans without the columns that only the label may see."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for name, rows in files.items():
        rows.write_parquet(folder / "data" / f"{name}.parquet")
    return portfolio(folder, loans().drop("bad") if frame is None else frame, toml=toml, overrides=overrides)


def labelled(loaded):
    """The labels of all rows: what validation sets aside is not the point here."""
    return mature_labels.fn(loaded, ingest.fn(loaded), stage(loaded.folders.stages, "validate", {}, lambda _: {}))


def labels_of(loaded):
    return pl.read_parquet(labelled(loaded).folder / LABELS)


def test_outcomes_make_the_label_and_no_column_of_them_is_left(tmp_path):
    loaded = prepare(tmp_path, outcomes=outcomes())
    columns = scan_ingested(loaded, ingest.fn(loaded)).collect_schema().names()
    assert set(columns) == {*loans().columns} - {"bad"} | {"charged_off", KNOWN_COLUMN, GREY_COLUMN}
    made = labelled(loaded)
    found = pl.read_parquet(made.folder / LABELS).join(loans(), left_on="id", right_on="loan_id")
    expected = found.join(outcomes(), left_on="id", right_on="loan_id").sort("id")
    closes = expected["opened_on"].dt.offset_by("3mo")
    is_bad = (expected["charged_off"] == 1) & (expected["last_paid_on"] + timedelta(days=30) <= closes).fill_null(False)
    is_grey = expected["dpd_worst"] > 0
    is_old = closes <= date(2024, 12, 31)
    assert expected.filter(is_old & ~is_grey)["label"].to_list() == is_bad.filter(is_old & ~is_grey).to_list()
    assert set(expected.filter(~is_old)["why_unknown"]) == {"unmatured"}
    assert set(expected.filter(is_old & is_grey)["why_unknown"]) == {"grey"}
    counts = [one["unknown"] for one in made.facts["populations"].values()]
    assert sum(one["unmatured"] for one in counts) == (~is_old).sum()
    assert sum(one.get("grey", 0) for one in counts) == (is_old & is_grey).sum() > 0


def test_the_curve_at_the_window_is_the_bad_rate_of_the_label(tmp_path):
    loaded = prepare(tmp_path, outcomes=outcomes().with_columns(dpd_worst=0))
    made = labelled(loaded)
    found = pl.read_parquet(made.folder / LABELS).drop_nulls("label")
    described = read_vintages(made, loaded.portfolio)
    assert described["months"] == 3
    read = {(v["population"], v["vintage"]): v["at_months"]["share"] for v in described["vintages"] if v["at_months"]}
    rates = found.group_by("population", "month").agg(pl.col("label").mean()).rows()
    assert {(name, month): rate for name, month, rate in rates if (name, month) in read} == pytest.approx(read)
    assert len(read) >= 16
    assert described["by_amount"]


def test_validation_judges_the_computed_date(tmp_path):
    swapped = pl.when(pl.col("loan_id") == 3).then(pl.lit(date(2020, 1, 1))).otherwise("last_paid_on")
    loaded = prepare(tmp_path, outcomes=outcomes().with_columns(last_paid_on=swapped))
    ingested = ingest.fn(loaded)
    validated = validate.fn(loaded, ingested)
    broken = {one["rule"] for one in validated.facts["results"] if not one["success"]}
    assert broken == {"label-known-after-decision"}
    made = mature_labels.fn(loaded, ingested, validated)
    assert 3 not in pl.read_parquet(made.folder / LABELS)["id"]


def test_a_loan_without_a_line_is_unknown_and_counted(tmp_path):
    loaded = prepare(tmp_path, outcomes=outcomes().filter(pl.col("loan_id") >= 10))
    facts = ingest.fn(loaded).facts
    assert facts["label_files"]["outcomes"] == {"lines": 590, "loans_without_line": 10, "lines_without_loan": 0}
    assert facts["warnings"] == ["10 loans have no line in label.outcomes: their label is unknown"]
    found = labels_of(loaded).filter(pl.col("id") < 10)
    assert set(found["why_unknown"]) == {"not reported"}


def test_the_files_of_the_label_are_listed_with_what_they_hold(tmp_path):
    files = ingest.fn(prepare(tmp_path, outcomes=outcomes())).facts["files"]
    assert [(file["path"], file.get("holds")) for file in files] == [
        ("loans.parquet", None), ("outcomes.parquet", "outcomes"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "frame", "overrides", "message"),
    [
        (
            lambda f: f,
            None,
            ("features.numeric=['recovered_usd']",),
            r"'recovered_usd' is missing.*for the label alone",
        ),
        (lambda f: f, None, ("use.segments=['recovered_usd']",), r"'recovered_usd' is missing.*for the label alone"),
        (lambda f: f, loans().rename({"bad": "charged_off"}), (), "'charged_off' is among the loans and in the files"),
        (lambda f: pl.concat([f, f.head(2)]), None, (), "2 ids have more than one line in label.outcomes, such as"),
        (
            lambda f: f.with_columns(pl.col("loan_id").cast(pl.String)),
            None,
            (),
            "'loan_id' is String in label.outcomes",
        ),
        (lambda f: f.drop("loan_id"), None, (), r"outcomes\.parquet: column 'loan_id' is missing"),
        (lambda f: f.drop("last_paid_on"), None, (), "column 'last_paid_on' is missing"),
        (lambda f: f.select("loan_id", "recovered_usd"), None, (), "'charged_off' is missing"),
        (lambda f: f.with_columns(dpd_worst=pl.lit("x")), None, (), "cannot be applied to the data"),
    ],
)
def test_outcomes_that_do_not_fit_are_refused_by_name(tmp_path, change, frame, overrides, message):
    with pytest.raises((InputError, ConfigError), match=message):
        ingest.fn(prepare(tmp_path, frame=frame, overrides=overrides, outcomes=change(outcomes())))


def test_outcomes_of_which_nothing_is_read_are_refused(tmp_path):
    toml = TOML.replace('column = "bad"\n', 'column = "bad"\noutcomes = "outcomes.parquet"\n')
    with pytest.raises(InputError, match=r"label.outcomes holds no column that the label reads"):
        ingest.fn(prepare(tmp_path, toml=toml, frame=loans(), outcomes=outcomes()))


def test_a_known_date_that_is_no_date_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"label.known_date must be a date, but .* is Int"):
        ingest.fn(prepare(tmp_path, outcomes=outcomes(), overrides=('label.known_date="(1 + 2)"',)))


def test_truncated_outcomes_are_named(tmp_path):
    loaded = prepare(tmp_path, outcomes=outcomes())
    path = tmp_path / "data" / "outcomes.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"outcomes\.parquet: not readable"):
        ingest.fn(loaded)


# --- revisions ---


def test_a_run_of_an_older_as_of_sees_what_it_saw_then(tmp_path):
    def at(as_of, lines):
        folder = tmp_path / f"{as_of}-{lines.height}"
        return labels_of(prepare(folder, REVISIONS, overrides=(f"as_of={as_of}",), history=lines))

    early, whole = date(2024, 7, 31), history()
    then = at(early, whole.filter(pl.col("told_on") <= early))
    assert at(early, whole).equals(then)
    now = at(date(2024, 12, 31), whole)
    both = then.join(now, on="id", suffix="_now").drop_nulls("label")
    restated = both.filter(pl.col("label") != pl.col("label_now"))
    assert restated.height > 10
    assert set(restated["id"] % 7) == {0}


def test_restated_and_later_lines_are_counted(tmp_path):
    lines = pl.concat(
        [history(), pl.DataFrame({"loan_id": [9999, 1], "told_on": [date(2024, 1, 1), None], "bad": [0, 1]},
                                 schema=history().schema)]
    )  # fmt: skip
    facts = ingest.fn(prepare(tmp_path, REVISIONS, history=lines)).facts
    by_now = history().filter(pl.col("told_on") <= date(2024, 12, 31))
    restated = by_now.filter(pl.col("loan_id").is_duplicated())["loan_id"].n_unique()
    assert facts["label_files"]["revisions"] == {
        "lines": lines.height, "lines_later_than_as_of": history().height - by_now.height, "lines_without_date": 1,
        "ids_restated": restated, "lines_without_loan": 1,
    }  # fmt: skip
    assert len(facts["warnings"]) == 2


def test_two_labels_of_one_day_are_refused_unless_they_lie_after_as_of(tmp_path):
    torn = pl.DataFrame({"loan_id": [5], "told_on": [date(2024, 6, 1)], "bad": [0]}, schema=history().schema)
    lines = pl.concat([history(), torn, torn.with_columns(bad=pl.lit(1, pl.Int8))])
    with pytest.raises(InputError, match=r"two labels of one id and day 1 times, such as loan_id 5 on 2024-06-01"):
        ingest.fn(prepare(tmp_path / "now", REVISIONS, history=lines))
    assert ingest.fn(prepare(tmp_path / "then", REVISIONS, overrides=("as_of=2024-05-31",), history=lines))


# --- two inputs ---

TWO = TOML.replace('path = "loans.parquet"\n', "").replace(
    "[label]\n",
    '[data.source]\npath = "old.parquet"\n[data.target]\npath = "new.parquet"\ncolumns = { loan_id = "No" }\n[label]\n',
)
TWO = TWO.replace("[population]\nsource = \"product = 'loan'\"\ntarget = \"product = 'card'\"\n", "")
TWO_FILES = TWO.replace('column = "bad"\n', 'column = "bad"\nknown_date = "told_on"\nrevisions = {files}\n')


def two(folder, toml):
    (folder / "data").mkdir(parents=True)
    frame, number = loans().drop("bad"), pl.int_range(pl.len())
    for name, product in (("old", "loan"), ("new", "card")):
        rows = frame.filter(pl.col("product") == product).sort("loan_id")
        ids = rows.select("loan_id", own=number)
        lines = history().join(ids, on="loan_id").select(loan_id="own", told_on="told_on", bad="bad")
        rows, theirs = rows.with_columns(loan_id=number), {"loan_id": "No"} if name == "new" else {}
        rows.rename(theirs).write_parquet(folder / "data" / f"{name}.parquet")
        lines.rename(theirs).write_parquet(folder / "data" / f"{name}_history.parquet")
    return portfolio(folder, toml=toml)


def test_each_of_two_inputs_has_its_own_label_file_under_its_own_ids(tmp_path):
    files = '{ source = "old_history.parquet", target = "new_history.parquet" }'
    loaded = two(tmp_path / "two", TWO_FILES.replace("{files}", files))
    found = labels_of(loaded)
    one = labels_of(prepare(tmp_path / "one", REVISIONS, history=history()))
    assert found.height == one.height
    for name in ("source", "target"):  # both systems number from 0, in the order of the one file
        rows = found.filter(pl.col("population") == name)
        in_order = rows.sort(pl.col("id").str.split("/").list.last().cast(pl.Int64))
        assert in_order["label"].to_list() == one.filter(pl.col("population") == name).sort("id")["label"].to_list()
    assert INPUT_COLUMN in scan_ingested(loaded, ingest.fn(loaded)).collect_schema()


def test_one_label_file_for_two_inputs_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"two inputs number their loans on their own, so each has its own file"):
        two(tmp_path, TWO_FILES.replace("{files}", '"history.parquet"'))


# --- nothing later than as_of ---


@given(code=st.sampled_from([0, 1, 9]), days=st.integers(1, 400), month=st.integers(4, 11))
@settings(max_examples=8, deadline=None)
def test_poisoned_outcomes_leave_the_table_of_labels_byte_for_byte(tmp_path_factory, code, days, month):
    as_of = date(2024, month, 15)
    known = pl.col("last_paid_on") + pl.duration(days=30)
    later = outcomes().with_columns(
        charged_off=pl.when(known > as_of).then(code).otherwise("charged_off").cast(pl.Int8),
        last_paid_on=pl.when(known > as_of).then(pl.lit(as_of) + pl.duration(days=days)).otherwise("last_paid_on"),
    )
    assert not later.equals(outcomes())
    _equal_bytes(tmp_path_factory, OUTCOMES, as_of, {"outcomes": outcomes()}, {"outcomes": later})


@given(code=st.sampled_from([0, 1, 9, None]), days=st.integers(1, 400), month=st.integers(2, 11))
@settings(max_examples=8, deadline=None)
def test_poisoned_revisions_leave_the_table_of_labels_byte_for_byte(tmp_path_factory, code, days, month):
    as_of = date(2024, month, 15)
    is_later = pl.col("told_on") > as_of
    later = history().with_columns(
        bad=pl.when(is_later).then(pl.lit(code, pl.Int8)).otherwise("bad"),
        told_on=pl.when(is_later).then(pl.lit(as_of) + pl.duration(days=days)).otherwise("told_on"),
    )
    _equal_bytes(tmp_path_factory, REVISIONS, as_of, {"history": history()}, {"history": later})


def _equal_bytes(tmp_path_factory, toml, as_of, clean, poisoned):
    tables = []
    for files in (clean, poisoned):
        loaded = prepare(tmp_path_factory.mktemp("poison"), toml, overrides=(f"as_of={as_of}",), **files)
        tables.append((labelled(loaded).folder / LABELS).read_bytes())
    assert tables[0] == tables[1]

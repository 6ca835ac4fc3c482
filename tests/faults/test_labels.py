"""Row 15: labels that come late, twice, otherwise, or from the future. Only what is known at as_of is ever seen."""

from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest
from builders import TOML, loans, portfolio
from steps import Walk

from crossrisk.config import Loaded
from crossrisk.errors import InputError
from tasks.ingest import ingest
from tasks.labels import LABELS

pytestmark = pytest.mark.fault(15)

TOLD = TOML.replace(
    'column = "bad"\n', 'column = "bad"\nwindow_months = 2\nreporting_lag_days = 10\nknown_date = "told_on"\n'
)
REVISED = TOLD.replace('known_date = "told_on"\n', 'known_date = "told_on"\nrevisions = "history.parquet"\n')
AS_OF = date(2024, 9, 30)
EARLY = (f"as_of={AS_OF}",)
DAYS = 75
"""from the decision to the first telling: window and lag have closed by then"""


def told() -> pl.DataFrame:
    """The loans with the day on which their label was told."""
    return loans().with_columns(told_on=pl.col("opened_on") + pl.duration(days=DAYS))


def history() -> pl.DataFrame:
    """One telling a loan."""
    return told().select("loan_id", "told_on", "bad")


def telling(loan: int, day: date, bad: int) -> pl.DataFrame:
    return pl.DataFrame({"loan_id": [loan], "told_on": [day], "bad": [bad]}, schema=history().schema)


def revised(folder: Path, *lines: pl.DataFrame, overrides: tuple[str, ...] = EARLY) -> Loaded:
    (folder / "data").mkdir(parents=True)
    pl.concat([history(), *lines]).write_parquet(folder / "data" / "history.parquet")
    return portfolio(folder, loans().drop("bad"), toml=REVISED, overrides=overrides)


def labels(loaded: Loaded) -> pl.DataFrame:
    return pl.read_parquet(Walk(loaded).mature()["labels"].folder / LABELS)


def label_of(loaded: Loaded, loan: int) -> int | None:
    return labels(loaded).filter(pl.col("id") == loan)["label"].item()


def first_told_by(day: date) -> int:
    """A loan whose label was told before the day."""
    return int(history().filter(pl.col("told_on") < day)["loan_id"][0])


# --- late ---


def test_a_label_told_after_as_of_is_unknown_and_never_good(tmp_path):
    found = labels(portfolio(tmp_path, told(), toml=TOLD, overrides=EARLY)).sort("id")
    expected = told().filter(pl.col("opened_on") <= AS_OF).sort("loan_id")
    by_then = expected.select(pl.when(pl.col("told_on") <= AS_OF).then("bad").alias("label"))
    assert found["label"].to_list() == by_then["label"].to_list()
    assert set(found.filter(pl.col("label").is_null())["why_unknown"]) == {"unmatured"}


def test_a_bad_told_early_waits_for_its_window(tmp_path):
    early = told().with_columns(told_on=pl.col("opened_on") + pl.duration(days=1))
    found = labels(portfolio(tmp_path, early, toml=TOLD, overrides=EARLY))
    young = early.filter(pl.col("opened_on") > AS_OF - timedelta(days=50), pl.col("opened_on") <= AS_OF)
    assert found.filter(pl.col("id").is_in(young["loan_id"].implode()))["label"].null_count() == young.height


# --- restated ---


def test_a_restated_label_counts_from_the_day_it_was_told(tmp_path):
    loan = first_told_by(date(2024, 6, 1))
    before = int(history().filter(pl.col("loan_id") == loan)["bad"][0])
    again = telling(loan, date(2024, 10, 15), 1 - before)
    assert label_of(revised(tmp_path / "then", again), loan) == before
    assert label_of(revised(tmp_path / "now", again, overrides=()), loan) == 1 - before


def test_restatements_are_counted(tmp_path):
    loan = first_told_by(date(2024, 6, 1))
    lines = [telling(loan, date(2024, month, 20), month % 2) for month in (7, 8, 11)]
    facts = ingest.fn(revised(tmp_path, *lines)).facts["label_files"]["revisions"]
    later = history().filter(pl.col("told_on") > AS_OF).height
    assert (facts["ids_restated"], facts["lines_later_than_as_of"]) == (1, later + 1)


# --- doubled, contradictory ---


def test_the_same_telling_twice_restates_nothing(tmp_path):
    once, twice = revised(tmp_path / "once"), revised(tmp_path / "twice", history())
    assert labels(twice).equals(labels(once))
    assert ingest.fn(twice).facts["label_files"]["revisions"]["ids_restated"] == 0


def test_two_labels_of_one_day_are_refused_by_id_and_day(tmp_path):
    loan = first_told_by(date(2024, 6, 1))
    lines = [telling(loan, date(2024, 7, 1), bad) for bad in (0, 1)]
    with pytest.raises(InputError, match=rf"such as loan_id {loan} on 2024-07-01; nobody can say which is the last"):
        labels(revised(tmp_path, *lines))


def test_a_loan_delivered_twice_is_blocked_before_any_label_counts_double(tmp_path):
    facts = Walk(portfolio(tmp_path, pl.concat([loans(), loans().head(1)]))).check_input()["validate"].facts
    assert facts["outcome"] == "blocked"
    assert "id-unique" in facts["reasons"][0]


@pytest.mark.parametrize("code", [2, -1, 9])
def test_a_code_that_is_no_label_is_set_aside(tmp_path, code):
    strange = pl.when(pl.col("loan_id") == 7).then(code).otherwise("bad")
    walk = Walk(portfolio(tmp_path, loans().with_columns(bad=strange))).mature()
    assert walk["validate"].facts["quarantined_ids"] == 1
    assert sum(found["rows"] for found in walk["labels"].facts["populations"].values()) == 599


# --- from the future, or from before there was anything to tell ---


def test_a_label_told_before_the_decision_is_set_aside(tmp_path):
    swapped = pl.when(pl.col("loan_id") < 5).then(pl.col("opened_on") - pl.duration(days=1)).otherwise("told_on")
    walk = Walk(portfolio(tmp_path, told().with_columns(told_on=swapped), toml=TOLD)).mature()
    assert walk["validate"].facts["quarantined_ids"] == 5


def test_a_loan_decided_after_as_of_is_not_there_and_is_counted(tmp_path):
    walk = Walk(portfolio(tmp_path, told(), toml=TOLD, overrides=EARLY)).mature()
    later = told().filter(pl.col("opened_on") > AS_OF).height
    assert walk["labels"].facts["left_out"] == {f"decided after {AS_OF}": later}


@pytest.mark.parametrize("bad", [0, 1, None])
def test_whatever_the_future_says_the_table_of_labels_is_the_same_bytes(tmp_path, bad):
    """Every label told after as_of is replaced; a single byte of difference would be a leak."""

    def written(name: str, frame: pl.DataFrame) -> bytes:
        walk = Walk(portfolio(tmp_path / name, frame, toml=TOLD, overrides=EARLY)).mature()
        return (walk["labels"].folder / LABELS).read_bytes()

    for name in ("so", "otherwise"):
        (tmp_path / name).mkdir()
    replaced = told().with_columns(bad=pl.when(pl.col("told_on") > AS_OF).then(pl.lit(bad, pl.Int8)).otherwise("bad"))
    assert written("so", told()) == written("otherwise", replaced)

"""Rules of label maturity as the pipeline applies them."""

from datetime import date

import polars as pl
import pytest
from builders import TOML, loans, portfolio

from crossrisk.errors import InputError
from crossrisk.store import stage
from tasks.ingest import ingest
from tasks.labels import LABELS, QUARANTINE, mature_labels

CONTRACT = TOML + "[label]\n"


def run(loaded, quarantined=()):
    def build(folder):
        if quarantined:
            pl.DataFrame({"loan_id": quarantined, "quarantine_rule": "r"}).write_parquet(folder / QUARANTINE)
        return {}

    validated = stage(loaded.folders.stages, "validate", {"q": list(quarantined)}, build)
    made = mature_labels.fn(loaded, ingest.fn(loaded), validated)
    return made, pl.read_parquet(made.folder / LABELS)


def test_a_label_is_unknown_until_window_and_lag_have_passed(tmp_path):
    overrides = ("label.window_months=6", "label.reporting_lag_days=30", "as_of=2024-10-01")
    made, labels = run(portfolio(tmp_path, loans(), overrides=overrides))
    opened = dict(loans().select("loan_id", "opened_on").iter_rows())
    for row in labels.iter_rows(named=True):
        closes = opened[row["id"]].replace(month=opened[row["id"]].month + 6) if opened[row["id"]].month <= 6 else None
        known = closes is not None and (date(2024, 10, 1) - closes).days >= 30
        assert (row["label"] is not None) == known, row
    assert made.facts["left_out"] == {
        "decided after 2024-10-01": sum(day > date(2024, 10, 1) for day in opened.values())
    }


def test_an_early_bad_of_an_open_window_stays_unknown(tmp_path):
    _, labels = run(portfolio(tmp_path, loans(), overrides=("label.window_months=6",)))
    young = labels.filter(pl.col("month") > "2024-06")
    assert young["label"].null_count() == len(young) > 0


def test_a_label_known_only_later_is_unknown(tmp_path):
    frame = loans().with_columns(known=pl.lit(date(2025, 1, 1)))
    frame = frame.with_columns(
        pl.when(pl.col("loan_id") % 3 == 0).then(date(2024, 5, 1)).otherwise("known").alias("known")
    )
    _, labels = run(portfolio(tmp_path, frame, overrides=("label.known_date=known",)))
    assert labels.filter(pl.col("label").is_not_null())["id"].to_list() == list(range(0, 600, 3))


def test_quarantined_rows_stay_out(tmp_path):
    _, labels = run(portfolio(tmp_path, loans()), quarantined=(3, 5))
    assert len(labels) == 598
    assert not {3, 5} & set(labels["id"])


def test_one_class_only_is_refused(tmp_path):
    frame = loans().with_columns(bad=pl.lit(0))
    with pytest.raises(InputError, match="both classes are needed"):
        run(portfolio(tmp_path, frame))


def test_dates_after_as_of_are_left_out(tmp_path):
    made, labels = run(portfolio(tmp_path, loans(), overrides=("as_of=2024-06-30",)))
    assert labels["month"].max() == "2024-06"
    assert made.facts["left_out"]["decided after 2024-06-30"] == 300

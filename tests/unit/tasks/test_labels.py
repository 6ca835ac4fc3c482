"""Rules of label maturity as the pipeline applies them."""

from datetime import date

import polars as pl
import pytest
from builders import TOML, loans, portfolio

from crossrisk.errors import InputError
from crossrisk.store import stage
from tasks.ingest import ingest
from tasks.labels import LABELS, QUARANTINE, mature_labels, read_vintages

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


def test_every_unknown_label_is_counted_by_reason_and_population(tmp_path):
    frame = loans().with_columns(bad=pl.when(pl.col("loan_id") < 4).then(None).otherwise("bad"))
    overrides = ("label.window_months=6", "label.grey=\"region = 'east'\"", "features.categorical=[]")
    frame = frame.with_columns(pl.when(pl.col("loan_id") < 10).then(pl.lit("east")).otherwise("region").alias("region"))
    made, labels = run(portfolio(tmp_path, frame, overrides=overrides))
    unknown = {name: one["unknown"] for name, one in made.facts["populations"].items()}
    assert unknown == {"source": {"grey": 5, "unmatured": 150}, "target": {"grey": 5, "unmatured": 150}}
    assert (labels["label"].is_null() == labels["why_unknown"].is_not_null()).all()


STAMPED = TOML + '[features.timestamps]\nbalance_usd = "balance_on"\nregion = "region_on"\n'


def stamped(late):
    day = pl.col("opened_on")
    is_late = pl.col("loan_id") < late
    return loans().with_columns(
        balance_on=pl.when(is_late).then(day + pl.duration(days=1)).otherwise(day), region_on=pl.lit(None, pl.Date)
    )


def test_a_feature_known_after_the_decision_is_refused_with_its_rows(tmp_path):
    with pytest.raises(InputError, match=r"feature 'balance_usd' was known only after .* opened_on in 7 rows.*deliver"):
        run(portfolio(tmp_path, stamped(7), toml=STAMPED))


def test_a_feature_known_on_the_day_of_the_decision_is_not_refused(tmp_path):
    assert run(portfolio(tmp_path, stamped(0), toml=STAMPED))[1].height == 600


def test_late_features_of_rows_that_are_left_out_do_not_matter(tmp_path):
    assert run(portfolio(tmp_path, stamped(2), toml=STAMPED), quarantined=(0, 1))[1].height == 598


def test_a_negative_age_is_counted_and_refused_only_where_it_is_a_timestamp(tmp_path):
    frame = loans().with_columns(
        born=pl.when(pl.col("loan_id") < 3).then(pl.lit(date(2068, 1, 1))).otherwise(pl.lit(date(1990, 1, 1)))
    )
    toml = TOML + '[features.ages]\nage_months = "born"\n'
    made, _ = run(portfolio(tmp_path / "counted", frame, toml=toml))
    assert made.facts["dates_after_decision"] == {"born": 3}
    with pytest.raises(InputError, match="feature 'born' was known only after the decision: born is later than"):
        run(portfolio(tmp_path / "refused", frame, toml=toml + '[features.timestamps]\nborn = "born"\n'))


def test_a_portfolio_without_known_dates_has_no_vintages(tmp_path):
    loaded = portfolio(tmp_path, loans())
    assert read_vintages(run(loaded)[0], loaded.portfolio) is None

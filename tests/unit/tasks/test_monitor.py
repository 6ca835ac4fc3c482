"""Rules of the monthly watch on a portfolio whose champion is made up here: no Prefect, no TensorFlow."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from builders import loans, portfolio
from registries import publish

from crossrisk.config import Loaded
from crossrisk.errors import InputError
from crossrisk.features import rowwise_expressions
from crossrisk.registry import Champion, Registry
from crossrisk.registry.asking import PLAN
from crossrisk.stability import describe_categories, describe_numbers, psi
from crossrisk.store import Stage, stage, write_json
from tasks.features import ROWS
from tasks.ingest import ingest
from tasks.monitor import (
    MONTHS,
    SCORES,
    Watched,
    collect_months,
    measure_months,
    set_light,
    watched_champion,
)
from tasks.monitor_hidden import compare_hidden
from tasks.monitor_report import report_month
from tasks.reference import Reference, as_floats, describe_reference, read_reference, reference_path

MONTH = "2024-06"
LAGGED = ("label.window_months=3", "as_of=2024-07-15", "gate.replicates=100")


def probability(rows: pl.DataFrame) -> pl.Series:
    """What the made-up champion says of raw rows."""
    return rows.select((1 / (1 + (1.5 - 0.4 * (pl.col("balance_usd").clip(1).log() - 6)).exp())).alias("p"))["p"]


def cards(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.filter(pl.col("product") == "card")


def watched(loaded: Loaded, seen: list[int] | None = None, reference_rows: pl.DataFrame | None = None) -> Watched:
    """A champion whose reference is the cards of the builder's loans, or those given."""
    rows = cards(loans(4000, seed=9)) if reference_rows is None else reference_rows
    features = rows.select(rowwise_expressions(loaded.portfolio.row_plan))
    reference = Reference(
        plan=loaded.portfolio.row_plan,
        rows=rows.height,
        first_month="2023-01",
        last_month="2023-12",
        score=describe_numbers(as_floats(probability(rows)), decimals=6),
        features={
            **{
                name: describe_numbers(as_floats(features[name])) for name in loaded.portfolio.row_plan.numeric_features
            },
            "region": describe_categories(features["region"].to_list()),
        },
    )
    manifest = {
        "contender": "made_up",
        "as_of": "2023-12-31",
        "files": {},
        "metrics": {"auc": {"value": 0.7}},
    }
    path = loaded.folders.work / "seen.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pl.DataFrame({"id": seen or []}, schema={"id": pl.Int64}).write_parquet(path)
    return Watched(Champion(17, loaded.folders.registry, manifest), reference, path)


def watch(loaded: Loaded, champion: Watched, month: str = MONTH) -> dict[str, Any]:
    """Every step but the child process, which `probability` stands in for."""
    ingested = ingest.fn(loaded)
    collected = collect_months.fn(loaded, ingested, champion, month)
    rows = pl.read_parquet(collected.folder / MONTHS)

    def build(folder: Path) -> dict[str, Any]:
        rows.select("id", probability(rows).alias("probability")).write_parquet(folder / SCORES)
        return {}

    scored = stage(loaded.folders.stages, "watched_scores", {"months": collected.digest}, build)
    measured = measure_months.fn(loaded, champion, collected, scored, month)
    signals = set_light.fn(loaded, champion, measured)
    hidden = compare_hidden.fn(loaded, champion, collected, month)
    return report_month.fn(loaded, "run", champion, ingested, collected, measured, hidden, signals)


# --- what is collected ---


def test_only_target_rows_decided_by_as_of_are_seen(tmp_path):
    loaded = portfolio(tmp_path, loans(), overrides=LAGGED)
    collected = collect_months.fn(loaded, ingest.fn(loaded), watched(loaded, [1, 3]), "2024-07")
    rows = pl.read_parquet(collected.folder / MONTHS).sort("id")
    expected = cards(loans()).filter(pl.col("opened_on") <= date(2024, 7, 15))
    assert rows["id"].to_list() == expected["loan_id"].to_list()
    assert rows.filter("is_seen")["id"].to_list() == [1, 3]
    assert set(rows.filter(pl.col("label").is_not_null())["month"]) == {"2024-01", "2024-02", "2024-03", "2024-04"}


def test_at_most_twelve_months_are_looked_at(tmp_path):
    old = loans().with_columns(loan_id=pl.col("loan_id") + 600, opened_on=pl.col("opened_on").dt.offset_by("-1y"))
    loaded = portfolio(tmp_path, pl.concat([old, loans()]))
    collected = collect_months.fn(loaded, ingest.fn(loaded), watched(loaded), "2024-06")
    months = pl.read_parquet(collected.folder / MONTHS)["month"]
    assert (months.min(), months.max(), months.n_unique()) == ("2023-07", "2024-06", 12)


def test_a_column_of_the_champion_that_no_longer_comes_is_named(tmp_path):
    loaded = portfolio(tmp_path, loans())
    champion = watched(loaded)
    plan = champion.reference.plan.model_copy(update={"numbers": ("income_usd", "gone_usd")})
    champion = replace(champion, reference=replace(champion.reference, plan=plan))
    with pytest.raises(InputError, match="lack gone_usd"):
        collect_months.fn(loaded, ingest.fn(loaded), champion, MONTH)


# --- what is measured ---


def test_volumes_and_psi_are_those_of_the_rows(tmp_path):
    loaded = portfolio(tmp_path, loans(), overrides=LAGGED)
    champion = watched(loaded)
    result = watch(loaded, champion)
    of_month = cards(loans()).filter(pl.col("opened_on").dt.strftime("%Y-%m") == MONTH)
    assert result["volumes"]["rows"] == of_month.height == 25
    assert result["volumes"]["mean_probability"] == pytest.approx(probability(of_month).mean())
    counts = champion.reference.score.bins.count(as_floats(probability(of_month)))  # type: ignore[arg-type]
    assert result["score_psi"]["value"] == psi(champion.reference.score.counts, counts).value
    assert [one["month"] for one in result["volumes"]["months"]][-1] == MONTH
    assert sum(one["matured"] > 0 for one in result["volumes"]["months"]) == 4


def test_the_feature_that_moved_is_first_and_says_where(tmp_path):
    in_june = pl.col("opened_on").dt.strftime("%Y-%m") == MONTH
    broken = loans(6000).with_columns(pl.when(in_june).then(-1.0).otherwise("balance_usd").alias("balance_usd"))
    loaded = portfolio(tmp_path, broken, overrides=LAGGED)
    result = watch(loaded, watched(loaded))
    first, second, *rest = result["feature_psi"]
    assert {first["feature"], second["feature"]} == {"balance_usd", "balance_to_income"}
    assert (first["verdict"], first["moved"]["label"], first["moved"]["share"]) == ("red", "missing", 1.0)
    assert {one["verdict"] for one in rest} == {"ok"}
    assert result["light"] == "red"  # the score follows its balance


def test_an_unshifted_portfolio_with_labels_is_green(tmp_path):
    frame = loans(24000, seed=2)
    draws = np.random.default_rng(5).random(len(frame))
    labelled = frame.with_columns(bad=(draws < probability(frame).to_numpy()).astype(np.int8))
    loaded = portfolio(tmp_path, labelled, overrides=LAGGED)
    champion = watched(loaded, reference_rows=cards(loans(24000, seed=3)))
    auc = watch(loaded, champion)["performance"]["auc"]["value"]
    champion.champion.manifest["metrics"]["auc"]["value"] = auc  # type: ignore[index]
    result = watch(loaded, champion)
    assert result["performance"]["judged_months"] == ["2024-04"]
    assert result["light"] == "green", result["reasons"]


def test_rows_that_training_has_seen_judge_nothing(tmp_path):
    loaded = portfolio(tmp_path, loans(), overrides=LAGGED)
    seen = cards(loans())["loan_id"].to_list()
    blind = watch(loaded, watched(loaded, seen))
    assert blind["performance"]["auc"] is None
    known = sum(one["matured"] for one in blind["volumes"]["months"])
    assert blind["performance"]["left_out"] == known > 0
    assert "no label is known yet that training has not seen" in " ".join(blind["reasons"])


# --- little to go by: grey, never raised ---


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: f.filter(pl.col("opened_on") < date(2024, 6, 1)), "no target row in this month"),
        (lambda f: f.with_columns(bad=pl.lit(None, pl.Int8)), "no label is known yet"),
        (lambda f: f.with_columns(bad=pl.lit(0, pl.Int8)), "0 bads"),
        (lambda f: f.filter(pl.col("opened_on").is_between(date(2024, 6, 1), date(2024, 6, 30))), "no label is known"),
        (lambda f: f, "too few to tell"),
    ],
)
def test_little_to_go_by_is_grey_with_its_reason(tmp_path, change, said):
    loaded = portfolio(tmp_path, change(loans()), overrides=LAGGED)
    result = watch(loaded, watched(loaded))
    assert result["light"] == "grey"
    assert said in "; ".join(result["reasons"])
    assert Path(result["paths"]["report"]).read_text().startswith("<!doctype html>")


def test_of_a_month_without_rows_the_last_month_that_has_some_is_named_however_old(tmp_path):
    loaded = portfolio(
        tmp_path, loans().filter(pl.col("opened_on") < date(2024, 4, 1)), overrides=("as_of=2026-06-30",)
    )
    result = watch(loaded, watched(loaded), "2026-05")
    assert result["volumes"]["last_month_with_rows"] == "2024-03"
    assert result["score_psi"]["verdict"] is None
    assert {one["verdict"] for one in (*result["score_psi"]["months"], *result["feature_psi"])} == {None}
    assert (
        "No target row in 2026-05: the last month with rows is 2024-03" in Path(result["paths"]["report"]).read_text()
    )


def test_a_month_after_as_of_is_never_named(tmp_path):
    loaded = portfolio(tmp_path, loans().filter(pl.col("opened_on") > date(2024, 8, 1)), overrides=LAGGED)
    assert watch(loaded, watched(loaded))["volumes"]["last_month_with_rows"] is None


def test_repeated_ids_are_counted_and_said(tmp_path):
    frame = loans()
    loaded = portfolio(tmp_path, pl.concat([frame, cards(frame).tail(160).head(20)]), overrides=LAGGED)
    result = watch(loaded, watched(loaded))
    assert any("repeat the id of another" in note for note in result["notes"])


def test_a_month_of_the_reference_itself_is_said_to_be_one(tmp_path):
    loaded = portfolio(tmp_path, loans(), overrides=LAGGED)
    champion = watched(loaded)
    assert not any("not new to the champion" in note for note in watch(loaded, champion)["notes"])
    champion = replace(champion, reference=replace(champion.reference, last_month=MONTH))
    assert any("not new to the champion" in note for note in watch(loaded, champion)["notes"])


def test_the_json_twin_is_the_result_and_the_same_twice(tmp_path):
    loaded = portfolio(tmp_path, loans(), overrides=LAGGED)
    champion = watched(loaded)
    result = watch(loaded, champion)
    written = Path(result["paths"]["json"]).read_bytes()
    assert json.loads(written) == json.loads(json.dumps(result))
    watch(loaded, champion)
    assert Path(result["paths"]["json"]).read_bytes() == written


# --- champion and reference ---


def test_without_a_champion_there_is_nothing_to_watch(tmp_path):
    with pytest.raises(InputError, match="no champion to watch") as raised:
        watched_champion(portfolio(tmp_path, loans()))
    assert raised.value.exit_code == 2


def test_a_champion_without_a_reference_is_named(tmp_path):
    loaded = portfolio(tmp_path, loans())
    version = publish(Registry(loaded.folders.registry), 1_700_000_000).version
    with pytest.raises(InputError, match=f"version {version} has no reference"):
        watched_champion(loaded)


def made_stage(tmp_path: Path, name: str, **files: pl.DataFrame) -> Stage:
    (tmp_path / name).mkdir()
    for file, frame in files.items():
        frame.write_parquet(tmp_path / name / f"{file}.parquet")
    return Stage(name, tmp_path / name, name, False, 0.0, {})


def test_the_reference_holds_the_target_rows_alone_and_survives_its_file(tmp_path):
    loaded = portfolio(tmp_path, loans())
    frame, plan = loans(), loaded.portfolio.row_plan
    part = pl.when(pl.col("product") == "loan").then(pl.lit("source_fit")).otherwise(pl.lit("target_select"))
    ids = frame.select(
        pl.col("loan_id").alias("id"), part.alias("part"), month=pl.col("opened_on").dt.strftime("%Y-%m")
    )
    stages = {
        "rows": made_stage(
            tmp_path, "rows", rows=frame.select(pl.col("loan_id").alias("id"), *rowwise_expressions(plan))
        ),
        "ingest": ingest.fn(loaded),
        "split": made_stage(tmp_path, "split", assignment=ids),
        "calibrated": made_stage(
            tmp_path, "calibrated", predictions=ids.drop("month").with_columns(probability(frame).alias("dan"))
        ),
        "plan": made_stage(tmp_path, "plan"),
    }
    assert (stages["rows"].folder / ROWS).exists()
    fitted = {"rows": plan.model_dump(mode="json"), "numerics": [], "categories": []}
    write_json(stages["plan"].folder / PLAN, fitted)
    path = reference_path(Registry(loaded.folders.registry), 17)
    write_json(path, describe_reference(loaded, stages, "dan"))
    reference = read_reference(path)

    targets = cards(frame)
    assert (reference.rows, reference.first_month, reference.last_month) == (targets.height, "2024-01", "2024-12")
    assert reference.plan == plan
    assert set(reference.features) == {"income_usd", "balance_usd", "balance_to_income", "region"}
    assert reference.score == describe_numbers(as_floats(probability(targets)), decimals=6)
    for histogram in reference.features.values():
        assert sum(histogram.counts) == targets.height
    assert reference.features["balance_usd"].counts[-2] == (targets["balance_usd"] == -1).sum()


def test_a_reference_is_no_version(tmp_path):
    registry = Registry(tmp_path)
    write_json(reference_path(registry, 17), {"schema_version": 2})
    assert registry.champion() is None
    with pytest.raises(ValueError, match="schema_version 2"):
        read_reference(reference_path(registry, 17))

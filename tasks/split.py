"""Stratified split of source and target: who is fitted on, who chooses, who judges.

The pure part (`assign`) turns the table of labels and an earlier assignment into a new one; the task around it reads
and writes Parquet. The rules are in docs/method.md and docs/decisions/0003-split.md. Preset `honest`:

source_fit, source_stop    matured source rows, stratified by label within month
target_fit, target_select  target rows before the test, likewise; labels that are not matured stay unknown
target_test                matured target rows of the last whole months: out of time, never stratified

Preset `article`: source_fit; target_unlabelled (70%, its labels are never used in training and so can judge);
target_select (30%, decides the stop).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from prefect import task
from prefect.cache_policies import NO_CACHE

from crossrisk.config import Loaded, Months, Portfolio, SplitConfig
from crossrisk.errors import InputError
from crossrisk.labels import GREY, SOURCE, TARGET
from crossrisk.store import Stage, digest_file, make_private, read_json, stage, whole_file, write_json
from tasks.labels import LABELS

logger = logging.getLogger("crossrisk.split")

ASSIGNMENT = "assignment.parquet"
SOURCE_FIT, SOURCE_STOP = "source_fit", "source_stop"
TARGET_FIT, TARGET_SELECT, TARGET_TEST = "target_fit", "target_select", "target_test"
TARGET_UNLABELLED = "target_unlabelled"

_FIT, _SELECT, _TEST = "fit", "select", "test"
_PARTS = {
    "honest": {
        (SOURCE, _FIT): SOURCE_FIT,
        (SOURCE, _SELECT): SOURCE_STOP,
        (TARGET, _FIT): TARGET_FIT,
        (TARGET, _SELECT): TARGET_SELECT,
        (TARGET, _TEST): TARGET_TEST,
    },
    "article": {
        (SOURCE, _FIT): SOURCE_FIT,
        (SOURCE, _SELECT): SOURCE_FIT,
        (TARGET, _FIT): TARGET_UNLABELLED,
        (TARGET, _SELECT): TARGET_SELECT,
    },
}


def judging_part(portfolio: Portfolio) -> str:
    """The part on which contenders are compared: no contender's training has seen its labels."""
    return TARGET_UNLABELLED if portfolio.preset == "article" else TARGET_TEST


@task(name="split source and target", cache_policy=NO_CACHE)
def split_populations(loaded: Loaded, labels: Stage) -> Stage:
    """Write assignment.parquet (id, population, part, stratum, label_used). Facts: counts by part and stratum.

    The newest earlier assignment of this portfolio, preset and generation (not later than as_of) binds.

    Raises:
        InputError: a part that must have rows has none.
    """
    portfolio = loaded.portfolio
    kept = loaded.folders.registry / "splits" / f"{portfolio.preset}-{portfolio.split.generation}"
    make_private(kept.parent)  # ids of customers
    earlier = _newest_assignment(kept, portfolio)

    def build(folder: Path) -> dict[str, Any]:
        before = pl.read_parquet(earlier) if earlier else None
        assigned = assign(pl.read_parquet(labels.folder / LABELS), portfolio, before)
        assigned.rows.write_parquet(folder / ASSIGNMENT, compression="zstd")
        return {
            "parts": _count_parts(assigned.rows),
            "strata": _count_strata(assigned.rows),
            "notes": [*assigned.notes, *_changed_rules(earlier, rule)],
            "earlier": earlier.name if earlier else None,
        }

    rule = {
        "labels": labels.digest,
        "split": portfolio.split.model_dump(mode="json"),
        "preset": portfolio.preset,
    }
    inputs = rule | {"earlier": _binding_digest(earlier, rule, portfolio)}
    made = stage(loaded.folders.stages, "split", inputs, build)
    _refuse_empty(made, portfolio)
    _keep_assignment(kept, made, inputs, portfolio)
    for part, count in made.facts["parts"].items():
        logger.info("%s: %d rows, %d bads", part, count["rows"], count["bads"])
    for note in made.facts["notes"]:
        logger.warning(note)
    return made


# --- the manifests that bind later runs ---


def _newest_assignment(kept: Path, portfolio: Portfolio) -> Path | None:
    earlier = [p for p in sorted(kept.glob("*.parquet")) if p.stem <= portfolio.as_of.isoformat()]
    return earlier[-1] if earlier else None


def _binding_digest(earlier: Path | None, rule: Mapping[str, Any], portfolio: Portfolio) -> str | None:
    """Digest of the earlier assignment; for a repetition of the run that wrote it, the digest that bound that run."""
    if earlier is None:
        return None
    made_from: dict[str, Any] = read_json(earlier.with_suffix(".json"))
    bound = made_from.pop("earlier")
    is_repetition = earlier.stem == portfolio.as_of.isoformat() and made_from == rule
    return bound if is_repetition else digest_file(earlier)


def _changed_rules(earlier: Path | None, rule: Mapping[str, Any]) -> list[str]:
    """Say so where [split] has changed since the assignment that still binds."""
    if earlier is None or read_json(earlier.with_suffix(".json"))["split"] == rule["split"]:
        return []
    return [
        f"[split] has changed since {earlier.stem}, but rows assigned then keep their part; raise split.generation to "
        "draw all of them anew"
    ]


def _keep_assignment(kept: Path, made: Stage, inputs: Mapping[str, Any], portfolio: Portfolio) -> None:
    name = portfolio.as_of.isoformat()
    write_json(kept / f"{name}.json", inputs)
    with whole_file(kept / f"{name}.parquet") as temporary:
        temporary.write_bytes((made.folder / ASSIGNMENT).read_bytes())


# --- pure: labels + earlier assignment -> assignment ---


@dataclass(frozen=True)
class Assignment:
    """The parts of the rows, and what had to be said about them."""

    rows: pl.DataFrame
    """id, customer, population, month, stratum, part, label (null = unknown), label_used; sorted by id"""
    notes: tuple[str, ...]


def assign(labels: pl.DataFrame, portfolio: Portfolio, earlier: pl.DataFrame | None) -> Assignment:
    """Give every usable row a part.

    Sides are drawn by customer: with whatever row, a customer stays on one side (fit, select or test) of both
    populations. Sides of an earlier assignment are kept, but for test rows whose month has left the test window: they
    may be fitted on from now on. The reverse, a fitted row that becomes a test row, does not happen.

    Args:
        labels: id, customer, population, month, label; the order of the rows does not matter.
        portfolio: fractions, windows and seed.
        earlier: an earlier result's rows, or None.
    """
    config = portfolio.split
    is_target = pl.col("population") == TARGET
    known = pl.col("label").cast(pl.String).fill_null("unknown")
    if portfolio.preset == "article":  # not even the strata may look at the labels of the 70%
        known = pl.when(is_target).then(pl.lit("any")).otherwise(known)
    rows = labels.filter(is_target | pl.col("label").is_not_null()).with_columns(known.alias("known"))
    windows = _windows(rows, portfolio)
    rows = rows.filter(~is_target | windows.usable).with_columns(pl.when(is_target).then(windows.side).alias("fixed"))
    customers = _customers(rows)
    kept = _kept_sides(customers, earlier, tests_by_month=_has_test_months(portfolio))
    strata, notes = _strata(customers, config.min_stratum_rows)
    sides = _draw(customers.join(strata, on=["population", "month", "known"], nulls_equal=True), kept, portfolio)
    parts = _PARTS[portfolio.preset]
    table = pl.DataFrame(
        [(population, side, part) for (population, side), part in parts.items()],
        schema=["population", "side", "part"],
        orient="row",
    )
    placed = rows.join(sides, on="customer").join(table, on=["population", "side"], how="left")
    assigned = placed.filter(_fits(placed, portfolio))
    stray = len(placed) - len(assigned)
    if stray:
        notes.append(f"{stray} rows left out: their customer is on another side of the split")
    assigned = _with_budget(assigned, portfolio).sort("id")
    columns = ["id", "customer", "population", "month", "stratum", "part", "label", "label_used"]
    return Assignment(assigned.select(columns), tuple(notes))


def _fits(placed: pl.DataFrame, portfolio: Portfolio) -> pl.Expr:
    """Whether a row may take the part of its customer's side.

    A customer of the test takes no source row and no row of another month along, or the test were neither untouched
    nor out of time; one who was fitted on takes no row of a test month along. Under `article`, customers of the target
    take no source row along: all source labels are used, and theirs would be known before they judge.
    """
    fits = pl.col("part").is_not_null()
    if _has_test_months(portfolio):
        in_test_month = pl.col("fixed").eq_missing(_TEST)
        fits &= (pl.col("population") == SOURCE) | ((pl.col("side") == _TEST) == in_test_month)
    if portfolio.preset == "article":
        in_target = placed.filter(pl.col("population") == TARGET)["customer"].unique()
        fits &= (pl.col("population") == TARGET) | ~pl.col("customer").is_in(in_target.implode())
    return fits


def _has_test_months(portfolio: Portfolio) -> bool:
    return portfolio.preset == "honest" and portfolio.data.decision_date is not None


@dataclass(frozen=True)
class _Windows:
    """What the months say of target rows."""

    usable: pl.Expr
    side: pl.Expr
    """the side that the month fixes, null where it is drawn"""


def _windows(rows: pl.DataFrame, portfolio: Portfolio) -> _Windows:
    """Test months are those named in the config, or the last matured ones; later months wait for their labels."""
    config, undecided = portfolio.split, pl.lit(None, pl.String)
    if not _has_test_months(portfolio):
        return _Windows(usable=pl.lit(True), side=undecided)
    test = config.target_test_months or _last_matured_months(rows, config)
    in_test, in_fit, in_select = (
        _within(test),
        _within(config.target_fit_months),
        _within(config.target_select_months),
    )
    before = pl.col("month") < test[0]
    if config.target_fit_months:
        before = in_fit
    before = before | in_select
    usable = (in_test & pl.col("label").is_not_null()) | (~in_test & before)
    named = config.target_select_months is not None
    side = (
        pl.when(in_test)
        .then(pl.lit(_TEST))
        .when(in_select)
        .then(pl.lit(_SELECT))
        .when(named & before)
        .then(pl.lit(_FIT))
        .otherwise(undecided)
    )
    return _Windows(usable, side)


def _within(months: Months | None) -> pl.Expr:
    if months is None:
        return pl.lit(False)
    return pl.col("month").is_between(pl.lit(months[0]), pl.lit(months[1]))


def _last_matured_months(rows: pl.DataFrame, config: SplitConfig) -> tuple[str, str]:
    """First and last of the newest target months in which enough labels are known.

    Raises InputError where there is no such month.
    """
    # a grey account will never have a label: waiting for it would keep its month from ever maturing
    known = (pl.col("label").is_not_null() | (pl.col("why_unknown") == GREY).fill_null(False)).mean()
    months = (
        rows.filter(pl.col("population") == TARGET, pl.col("month").is_not_null())
        .group_by("month")
        .agg(known.alias("known"))
        .filter(pl.col("known") >= config.matured_share)
        .sort("month")
    )["month"].to_list()
    if not months:
        raise InputError(
            f"no month of the target has {config.matured_share:.0%} of its labels known at as_of, so nothing can be "
            "tested out of time; wait, shorten label.window_months, or name split.target_test_months"
        )
    last = months[-config.target_test_last_months :]
    return last[0], last[-1]


def _customers(rows: pl.DataFrame) -> pl.DataFrame:
    """One row a customer: the population, month and label that decide the stratum, and the side that months fix.

    A customer with a target row counts as target, by the first month; one with any bad row counts as bad.
    """
    order = pl.col("population").eq(SOURCE), pl.col("month"), pl.col("id")
    first = rows.sort(*order).group_by("customer", maintain_order=True)
    return first.agg(
        pl.col("population").first(),
        pl.col("month").first(),
        pl.when((pl.col("known") == "1").any())
        .then(pl.lit("1"))
        .when((pl.col("known") == "0").any())
        .then(pl.lit("0"))
        .otherwise(pl.lit("unknown"))
        .alias("known"),
        pl.when((pl.col("fixed") == _TEST).any())
        .then(pl.lit(_TEST))
        .otherwise(pl.col("fixed").drop_nulls().first())
        .alias("fixed"),
    )


def _kept_sides(customers: pl.DataFrame, earlier: pl.DataFrame | None, *, tests_by_month: bool) -> pl.DataFrame:
    """Sides (customer, kept) that an earlier assignment fixed: fit and select always, test while its month is test."""
    if earlier is None:
        return pl.DataFrame(schema={"customer": pl.String, "kept": pl.String})
    side = pl.col("part").str.extract("_([a-z]+)$").replace({"stop": _SELECT, "unlabelled": _FIT})
    before = earlier.group_by("customer").agg(side.sort_by(pl.col("population") == SOURCE).first().alias("kept"))
    still = customers.select("customer", "fixed").join(before, on="customer")
    graduates = (pl.col("kept") == _TEST) & pl.col("fixed").ne_missing(_TEST) & pl.lit(tests_by_month)
    return still.filter(~graduates).select("customer", "kept")


def _strata(customers: pl.DataFrame, minimum: int) -> tuple[pl.DataFrame, list[str]]:
    """Population, label and month; months with fewer than `minimum` customers of a label are merged, and named."""
    keys = ["population", "month", "known"]
    counts = customers.group_by(keys).len().sort(keys, nulls_last=True)
    is_rare = pl.col("len") < minimum
    name = pl.format("{} {} {}", "population", pl.col("month").fill_null("undated"), "known")
    merged = pl.format("{} merged {}", "population", "known")
    strata = counts.with_columns(pl.when(is_rare).then(merged).otherwise(name).alias("stratum"))
    notes = []
    for population, rare in strata.filter(is_rare).group_by("population", maintain_order=True):
        cells = [f"{row['month']} label {row['known']}" for row in rare.iter_rows(named=True)]
        shown = ", ".join(cells[:4]) + (f" and {len(cells) - 4} more" if len(cells) > 4 else "")
        notes.append(f"{population[0]}: cells below {minimum} customers merged for stratifying: {shown}")
    return strata.drop("len"), notes


def _draw(customers: pl.DataFrame, kept: pl.DataFrame, portfolio: Portfolio) -> pl.DataFrame:
    """The side of every customer (customer, stratum, side): kept, else fixed by months, else drawn by keyed hash."""
    customers = customers.join(kept, on="customer", how="left")
    is_new = pl.col("kept").is_null() & pl.col("fixed").is_null()
    drawn = customers.filter(is_new).with_columns(
        pl.Series("rank_key", keyed_hash(customers.filter(is_new)["customer"], portfolio.split.seed))
    )
    quotas = _quotas(portfolio)
    ranked = drawn.with_columns(
        pl.col("rank_key").rank("ordinal").over("stratum").alias("rank"), pl.len().over("stratum").alias("of")
    )
    select = pl.col("population").replace_strict(quotas.select)
    test = pl.col("population").replace_strict(quotas.test)
    ranked = ranked.with_columns(
        pl.when(pl.col("rank") <= (test * pl.col("of")).round())
        .then(pl.lit(_TEST))
        .when(pl.col("rank") <= (test * pl.col("of")).round() + (select * pl.col("of")).round())
        .then(pl.lit(_SELECT))
        .otherwise(pl.lit(_FIT))
        .alias("side")
    )
    settled = customers.filter(~is_new).with_columns(pl.coalesce("kept", "fixed").alias("side"))
    return pl.concat([ranked.select("customer", "stratum", "side"), settled.select("customer", "stratum", "side")])


@dataclass(frozen=True)
class _Quotas:
    select: Mapping[str, float]
    test: Mapping[str, float]


def _quotas(portfolio: Portfolio) -> _Quotas:
    config = portfolio.split
    if portfolio.preset == "article":
        return _Quotas(select={SOURCE: 0.0, TARGET: config.target_select_share}, test={SOURCE: 0.0, TARGET: 0.0})
    undated = portfolio.data.decision_date is None
    test = config.target_test_share if undated else 0.0
    return _Quotas(
        select={SOURCE: config.source_stop_share, TARGET: config.target_select_share * (1 - test)},
        test={SOURCE: 0.0, TARGET: test},
    )


def keyed_hash(keys: pl.Series, seed: int) -> NDArray[np.uint64]:
    """BLAKE2b of each key under the seed, as unsigned 64-bit integers: the same on every machine and version."""
    key = seed.to_bytes(8, "big", signed=True)
    digests = b"".join(hashlib.blake2b(str(k).encode(), digest_size=8, key=key).digest() for k in keys)
    return np.frombuffer(digests, dtype=">u8").astype(np.uint64)


def _with_budget(assigned: pl.DataFrame, portfolio: Portfolio) -> pl.DataFrame:
    """Add label_used: whether training may see the label. A budget of bads takes the same share of goods."""
    seen_parts = [SOURCE_FIT, SOURCE_STOP, TARGET_FIT, TARGET_SELECT]
    usable = pl.col("part").is_in(seen_parts) & pl.col("label").is_not_null()
    budget = portfolio.split.target_label_budget_bads
    in_fit = (pl.col("part") == TARGET_FIT) & pl.col("label").is_not_null()
    bads = assigned.filter(in_fit)["label"].sum()
    if budget is None or bads <= budget:
        return assigned.with_columns(usable.alias("label_used"))
    fit = assigned.filter(in_fit)
    ranked = fit.select(
        "id", "label", pl.Series("rank_key", keyed_hash(fit["id"].cast(pl.String), portfolio.split.seed + 1))
    ).with_columns(pl.col("rank_key").rank("ordinal").over("label").alias("rank"), pl.len().over("label").alias("of"))
    chosen = ranked.filter(pl.col("rank") <= (pl.col("of") * (budget / bads)).round()).select("id")
    is_chosen = pl.col("id").is_in(chosen["id"].implode())
    return assigned.with_columns((usable & (~in_fit | is_chosen)).alias("label_used"))


# --- counts for report and log ---


def _count_parts(rows: pl.DataFrame) -> dict[str, dict[str, int]]:
    table = rows.group_by("part").agg(
        pl.len().alias("rows"),
        pl.col("label").is_not_null().sum().alias("labelled"),
        (pl.col("label") == 1).sum().alias("bads"),
        (pl.col("label_used") & (pl.col("label") == 1)).sum().alias("bads_used"),
        pl.col("month").min().alias("first_month"),
        pl.col("month").max().alias("last_month"),
    ).sort("part")  # fmt: skip
    return {row.pop("part"): row for row in table.to_dicts()}


def _count_strata(rows: pl.DataFrame) -> list[dict[str, Any]]:
    return rows.group_by("stratum", "part").len("rows").sort("stratum", "part").to_dicts()


def _refuse_empty(made: Stage, portfolio: Portfolio) -> None:
    for part in sorted(set(_PARTS[portfolio.preset].values())):
        if not made.facts["parts"].get(part, {}).get("rows"):
            raise InputError(
                f"part {part} has no row; widen months or shares under [split], or check population.target and as_of"
            )

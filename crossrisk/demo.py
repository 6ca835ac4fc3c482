"""The demo portfolio: two generated populations whose true probability of bad is known, row by row.

Here live its rows as they are written and the writer of its monthly Parquet partitions; the recipe and the risk model
behind them live in `crossrisk.demo_risk`. Reading, validating, splitting and training stay out: the pipeline meets
these files as it meets any other.

`x_001`, `x_002`, ... have no effect on risk: they are families of near repeats, as bureau columns are; whole families
shift or are missing together, and the last column is constant. The protected `age_years` follows income and adds
nothing once income is known. Quotas are spread evenly over months, so a small cell has its bads rounded.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import chain
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from crossrisk.demo_risk import (
    FOR_FRESH_ROWS,
    FOR_MONTHS,
    NEVER,
    POPULATIONS,
    Category,
    Numeric,
    Population,
    calibrate,
    draw_named,
    draw_quota,
    named_columns,
    standardised,
    true_probability,
)
from crossrisk.demo_risk import DemoSpec as DemoSpec  # the recipe, for whoever writes a portfolio from here
from crossrisk.errors import InputError

PRODUCT: dict[Population, str] = {"source": "term_loan", "target": "card"}

_BLOCK_ROWS = 20_000  # rows in memory at once: 20,000 x 291 float64 are 47 MB, whatever the portfolio's size
_FAMILIES, _FAMILY_CORRELATION, _FAMILY_SHIFT = 12, 0.9, 0.5
_ARROW = pl.CompatLevel.oldest()  # plain strings, which every reader of Parquet knows


@dataclass(frozen=True)
class DemoColumns:
    """Which column of the demo files plays which role; a portfolio's config is written from it."""

    customer_id: str
    decision_date: str
    label: str
    label_known_date: str
    population: str
    source_value: str
    target_value: str
    numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    protected: tuple[str, ...]
    sentinels: dict[str, float]
    """Column -> the value that is a code, not a quantity."""
    ratios: dict[str, tuple[str, str]]
    """Ratio that drives risk -> its numerator and denominator."""


@dataclass(frozen=True)
class DemoFacts:
    """What `write_demo` wrote, and the AUC that the true probability itself is expected to reach on it."""

    data_directory: Path
    truth_directory: Path
    months: int
    source_rows: int
    target_rows: int
    source_bayes_auc: float
    target_bayes_auc: float


def column_roles(spec: DemoSpec) -> DemoColumns:
    """Roles of the columns that `write_demo` writes for this recipe."""
    named = named_columns(spec)
    return DemoColumns(
        customer_id="customer_id",
        decision_date="application_date",
        label="bad",
        label_known_date="label_known_date",
        population="product",
        source_value=PRODUCT["source"],
        target_value=PRODUCT["target"],
        numeric=(*(c.name for c in named if isinstance(c, Numeric)), *_unnamed(spec)),
        categorical=tuple(c.name for c in named if isinstance(c, Category)),
        protected=("age_years",),
        sentinels={c.name: NEVER for c in named if isinstance(c, Numeric) and c.never_share > 0},
        ratios={"payment_to_income": ("payment_monthly_usd", "income_monthly_usd")},
    )


def write_demo(directory: Path, spec: DemoSpec, on_month: Callable[[int, int], None] | None = None) -> DemoFacts:
    """Write the portfolio to `directory`/demo and its true probabilities to `directory`/demo_truth.

    Both hold one file per month, `month=YYYY-MM/part-0.parquet`, with the same customers in the same order. A
    month depends on the recipe and its own number only; at most `_BLOCK_ROWS` rows or so are in memory at once.
    `on_month(done, months)` is called after each month. Raises InputError where other months already lie there.
    """
    facts = DemoFacts(
        data_directory=directory / "demo",
        truth_directory=directory / "demo_truth",
        months=spec.months,
        source_rows=sum(spec.counts("source")),
        target_rows=sum(spec.counts("target")),
        source_bayes_auc=calibrate(spec, "source")[1],
        target_bayes_auc=calibrate(spec, "target")[1],
    )
    for folder in (facts.data_directory, facts.truth_directory):
        _refuse_other_months(folder, spec)
    for month in range(spec.months):
        _write_month(facts, spec, month)
        if on_month is not None:
            on_month(month + 1, spec.months)
    return facts


def draw_target(spec: DemoSpec, rows: int, seed: int) -> tuple[pl.DataFrame, NDArray[np.float64]]:
    """Draw fresh target rows, with the columns of the files, and their true probabilities, `(rows,)`.

    Labels are free draws from those probabilities (no quota), months are uniform, and no row is one of
    `write_demo`'s. The rows are held in memory whole.
    """
    rng = np.random.default_rng([FOR_FRESH_ROWS, spec.seed, seed])
    named = draw_named(spec, "target", rows, rng)
    probability = true_probability(named, spec, "target")
    bad = rng.random(rows) < probability
    month = pl.Series(_month_starts(spec), dtype=pl.Date).gather(rng.integers(spec.months, size=rows))
    customer_id = _customer_ids(f"{PRODUCT['target']}-fresh-{seed}", rows)
    return _complete(spec, "target", customer_id, month, named, bad, rng), probability


def _unnamed(spec: DemoSpec) -> tuple[str, ...]:
    return tuple(f"x_{number:03d}" for number in range(1, spec.features - len(named_columns(spec)) + 1))


def _month_starts(spec: DemoSpec) -> list[date]:
    first = spec.first_month.year * 12 + spec.first_month.month - 1
    return [date(number // 12, number % 12 + 1, 1) for number in range(first, first + spec.months)]


def _complete(
    spec: DemoSpec,
    population: Population,
    customer_id: pl.Series,
    month: pl.Series,
    named: pl.DataFrame,
    bad: NDArray[np.bool_],
    rng: np.random.Generator,
) -> pl.DataFrame:
    """Add dates, the protected column and the unnamed ones: the rows as they are written."""
    rows = named.height
    income = next(c for c in named_columns(spec) if isinstance(c, Numeric) and c.name == "income_monthly_usd")
    wealth = named.select(standardised(income).fill_null(0.0)).to_series().to_numpy()
    age = 42 + 6 * wealth + 10 * rng.standard_normal(rows)
    day = (pl.Series(rng.random(rows)) * month.dt.days_in_month()).floor().cast(pl.Int64)
    frame = pl.DataFrame(
        {
            "customer_id": customer_id,
            "application_date": month + day * timedelta(days=1),
            "product": pl.repeat(PRODUCT[population], rows, eager=True),
            "age_years": age.clip(18, 90).round().astype(np.int16),
            **named.to_dict(),
            **_draw_unnamed(spec, population, rows, rng).to_dict(),
            "bad": bad.astype(np.int8),
        }
    )
    return frame.with_columns(_label_known_date(spec, pl.Series(rng.random(rows))))


def _label_known_date(spec: DemoSpec, delay: pl.Series) -> pl.Expr:
    """A bad is reported after its default, in the second half of the window; a good after the whole window."""
    applied = pl.col("application_date")
    days = (applied.dt.offset_by(f"{spec.label_window_months}mo") - applied).dt.total_days()
    days_to_default = (days * (1 + pl.lit(delay)) / 2).ceil().cast(pl.Int64)
    resolved = pl.when(pl.col("bad") == 1).then(days_to_default).otherwise(days)
    return (applied + pl.duration(days=resolved + spec.reporting_lag_days)).alias("label_known_date")


def _draw_unnamed(spec: DemoSpec, population: Population, rows: int, rng: np.random.Generator) -> pl.DataFrame:
    names = _unnamed(spec)
    every_third = np.arange(_FAMILIES) % 3 == 0
    every_other = np.arange(_FAMILIES) % 2 == 1
    factor = rng.standard_normal((rows, _FAMILIES))
    if population == "target":
        factor += spec.covariate_shift * _FAMILY_SHIFT * every_third
    absent = rng.random((rows, _FAMILIES)) < spec.missing_share * every_other
    family = np.arange(len(names)) % _FAMILIES
    own = rng.standard_normal((rows, len(names)))
    x = _FAMILY_CORRELATION * factor[:, family] + (1 - _FAMILY_CORRELATION**2) ** 0.5 * own
    x[absent[:, family]] = np.nan
    x[:, -1:] = 1.0
    return pl.DataFrame(x.round(3), schema=names).fill_nan(None)


def _customer_ids(prefix: str, rows: int) -> pl.Series:
    number = pl.int_range(rows).cast(pl.String).str.zfill(6)
    return pl.select(pl.format("{}-{}", pl.lit(prefix), number)).to_series()


def _month_blocks(spec: DemoSpec, month: int) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Rows of one month and their truth, block by block, each block seeded by its own place."""
    start = _month_starts(spec)[month]
    for number, population in enumerate(POPULATIONS):
        bads, goods = (_share(total, spec.months, month) for total in spec.counts(population))
        blocks = max(1, -(-(bads + goods) // _BLOCK_ROWS))
        for block in range(blocks):
            rng = np.random.default_rng([FOR_MONTHS, spec.seed, month, number, block])
            quota = _share(bads, blocks, block), _share(goods, blocks, block)
            named, bad = draw_quota(spec, population, *quota, rng)
            ids = _customer_ids(f"{PRODUCT[population]}-{start:%Y%m}-{block:04d}", len(bad))
            starts = pl.repeat(start, len(bad), dtype=pl.Date, eager=True)
            rows = _complete(spec, population, ids, starts, named, bad, rng)
            probability = true_probability(named, spec, population)
            truth = pl.DataFrame({"customer_id": ids, "true_probability": probability})
            yield rows.to_arrow(compat_level=_ARROW), truth.to_arrow(compat_level=_ARROW)


def _share(total: int, parts: int, part: int) -> int:
    """What part number `part` gets when `total` is spread evenly over `parts`; the parts sum to `total`."""
    return total * (part + 1) // parts - total * part // parts


def _write_month(facts: DemoFacts, spec: DemoSpec, month: int) -> None:
    part = Path(f"month={_month_starts(spec)[month]:%Y-%m}", "part-0.parquet")
    blocks = _month_blocks(spec, month)
    first = next(blocks)  # a file's schema is that of its first block
    with (
        _open_parquet(facts.data_directory / part, first[0].schema) as rows_file,
        _open_parquet(facts.truth_directory / part, first[1].schema) as truth_file,
    ):
        for rows, truth in chain([first], blocks):
            rows_file.write_table(rows)
            truth_file.write_table(truth)


@contextmanager
def _open_parquet(path: Path, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """Write under a hidden name outside the table; the file takes its place when complete, or leaves nothing."""
    table, partition = path.parents[1], path.parent
    partition.mkdir(parents=True, exist_ok=True)
    unfinished = table.parent / f".{table.name}-{partition.name}.tmp"
    try:
        with pq.ParquetWriter(unfinished, schema, compression="zstd") as writer:
            yield writer
        with unfinished.open("rb+") as written:
            os.fsync(written.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _refuse_other_months(folder: Path, spec: DemoSpec) -> None:
    expected = {f"month={start:%Y-%m}" for start in _month_starts(spec)}
    others = sorted(path.name for path in folder.glob("*") if path.name not in expected)
    if others:
        raise InputError(
            f"{folder}: expected no month but the recipe's {spec.months}, found {', '.join(others[:3])} "
            f"({len(others)} in all), which would mix two portfolios; remove them or write elsewhere"
        )

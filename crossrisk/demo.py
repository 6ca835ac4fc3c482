"""The demo portfolio: two generated populations whose true probability of bad is known, row by row.

Here live the recipe (`DemoSpec`), the risk model behind it and the writer of its monthly Parquet partitions.
Reading, validating, splitting and training stay out: the pipeline meets these files as it meets any other.

The risk model. A row's columns are drawn first, missing values and sentinels included; then
    logit P(bad | row, population) = intercept + effects of the OBSERVED values + a ratio + an interaction,
a missing value having an effect of its own. So the true probability is that of the row as a model sees it, not of
some complete row that nobody observes, and no model ranks better: regret is measured against it. Only named
columns have effects. `x_001`, `x_002`, ... have none: they are families of near repeats, as bureau columns are;
whole families shift or are missing together, and the last column is constant. The protected `age_years` follows
income and adds nothing once income is known.

Exact counts. Rows and labels are drawn from the model and kept until both classes have their quota: this leaves
P(row | class) as it is and moves the logit by one constant, the log of quota odds over natural odds. The intercept
is set so that the natural bad rate is the quota's, over `_CALIBRATION_ROWS` draws; what remains of that constant
is about 0.01 or less. Quotas are spread evenly over months, so a small cell has its bads rounded.

What differs from source to target: the columns' distribution (`covariate_shift`), the bad rate (the class counts)
and the effects (`concept_shift`). Every number in the tables is invented, and set so that borrowing helps. At the
defaults the regret in AUC on 30,000 fresh target rows, mean of two seeds, each family at its best penalty, is
    logistic regression   0.017 from 1,000 source bads   0.031 from 245 target bads   0.023 from both, pooled
    boosted trees         0.025                          0.036                        0.031
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from crossrisk.errors import InputError

Population = Literal["source", "target"]
POPULATIONS: tuple[Population, Population] = ("source", "target")
PRODUCT: dict[Population, str] = {"source": "term_loan", "target": "card"}
NEVER = 999.0  # months_since_last_delinquency of a customer who never was delinquent

_BLOCK_ROWS = 20_000  # rows in memory at once: 20,000 x 291 float64 are 47 MB, whatever the portfolio's size
_CALIBRATION_ROWS = 200_000
_MOST_SCALES = 4.0  # no column lies further from its centre, so that no logit is extreme
_FAMILIES, _FAMILY_CORRELATION, _FAMILY_SHIFT = 12, 0.9, 0.5
_MONTHS, _FRESH, _CALIBRATION = 1, 2, 3  # first word of every seed: the three uses never share a stream
_ARROW = pl.CompatLevel.oldest()  # plain strings, which every reader of Parquet knows


@dataclass(frozen=True)
class DemoSpec:
    """Recipe of a demo portfolio; the defaults have the shape of the article's two populations."""

    seed: int = 20240101
    target_bads: int = 350
    target_goods: int = 4_800
    source_bads: int = 1_000
    source_goods: int = 5_500
    features: int = 291
    """Numeric and categorical columns that a model may use, at least 10; the named ones come first."""
    months: int = 24
    first_month: date = date(2024, 1, 1)
    covariate_shift: float = 1.0
    """Strength of the target's other means, spreads and category shares; 0: both are distributed alike."""
    concept_shift: float = 1.0
    """Strength of the target's other effects; 0: the populations differ by an intercept only."""
    missing_share: float = 0.05
    """Share missing in a typical column, in [0, 0.3] (three times that in the sparsest); 0: none anywhere."""
    label_window_months: int = 6
    reporting_lag_days: int = 30

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                raise ValueError(f"DemoSpec.{name} is {getattr(self, name)}, at least {least} expected")
        if self.missing_share > 0.3:
            raise ValueError(f"DemoSpec.missing_share is {self.missing_share}, at most 0.3 expected")
        if self.first_month.day != 1:
            raise ValueError(f"DemoSpec.first_month is {self.first_month}, expected the first day of a month")

    def counts(self, population: Population) -> tuple[int, int]:
        """Bads and goods of one population, over all months."""
        if population == "target":
            return self.target_bads, self.target_goods
        return self.source_bads, self.source_goods


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


@dataclass(frozen=True)
class _Numeric:
    """A column that is normal, or log-normal, around its centre; `weight` is its effect per scale."""

    name: str
    center: float
    scale: float
    weight: float = 0.0
    log: bool = False
    decimals: int = 0
    shift: float = 0.0  # of the target's mean, in scales
    stretch: float = 0.0  # of the target's spread, as a share of it
    concept: float = 0.0  # added to the target's weight
    missing: float = 0.0  # share missing, in units of missing_share
    missing_effect: float = 0.0
    never_share: float = 0.0  # share of rows that carry NEVER
    never_effect: float = 0.0


@dataclass(frozen=True)
class _Category:
    """A column of names; the target's shares are proportional to share x exp(covariate_shift x tilt)."""

    name: str
    levels: tuple[str, ...]
    share: tuple[float, ...]
    tilt: tuple[float, ...]
    effect: tuple[float, ...]
    missing: float = 0.0
    missing_effect: float = 0.0


# fmt: off
_REGIONS = tuple(f"region_{number:02d}" for number in range(1, 13))
_NAMED_ALWAYS: tuple[_Numeric | _Category, ...] = (
    _Numeric("external_score_points", 640, 60, -1.05, shift=0.3, stretch=0.1, concept=0.05),
    _Numeric("income_monthly_usd", 8.2, 0.5, log=True, shift=-0.5, missing=0.5, missing_effect=0.2),
    _Numeric("payment_monthly_usd", 5.8, 0.6, log=True, decimals=2, shift=-0.6, stretch=0.2),
    _Numeric("debt_to_income", 0.36, 0.12, 0.1, decimals=4, shift=0.3, concept=0.05, missing=1),
    _Numeric("utilisation_share", 0.45, 0.18, 0.5, decimals=4, shift=0.5, stretch=0.2, concept=0.05, missing=1),
    _Numeric("inquiries_last_6m_count", 3, 1.5, 0.1, shift=0.4),
    _Numeric("months_since_last_delinquency", 3, 0.7, -0.2, log=True, shift=0.2, never_share=0.6, never_effect=-0.6),
    _Numeric("savings_balance_usd", 7.2, 1.1, -0.15, log=True, shift=-0.3, missing=3, missing_effect=0.5),
    _Category("home_ownership", ("rent", "mortgage", "own", "other"), share=(0.4, 0.4, 0.18, 0.02),
              tilt=(0.4, -0.4, 0, 0), effect=(0.2, -0.2, -0.1, 0.3), missing=0.5),
    _Category("purpose", ("consolidation", "purchase", "car", "medical", "moving"),
              share=(0.5, 0.25, 0.15, 0.09, 0.01), tilt=(-0.3, 0.5, -0.5, 0, 1.5),
              effect=(0.1, -0.1, -0.2, 0.3, 0.2), missing=1, missing_effect=0.2),
)
_NAMED_MORE: tuple[_Numeric | _Category, ...] = (
    _Numeric("months_at_employer", 3.6, 0.7, -0.05, log=True, shift=-0.4, missing=2, missing_effect=0.2),
    _Numeric("months_since_oldest_account", 4.6, 0.5, -0.1, log=True, shift=-0.4, concept=-0.05),
    _Numeric("loan_amount_usd", 9, 0.6, log=True, shift=-0.8, stretch=0.2),
    _Numeric("days_past_due_worst_12m", 20, 10, 0.1, shift=-0.1, stretch=0.1, missing=1),
    _Numeric("open_accounts_count", 9, 3, concept=0.05, missing=1),
    _Category("employment_type", ("salaried", "self_employed", "temporary", "retired"), share=(0.7, 0.15, 0.1, 0.05),
              tilt=(0, 0.3, 0.5, -0.5), effect=(-0.05, 0.1, 0.2, -0.1), missing=1, missing_effect=0.1),
    _Category("acquisition_channel", ("branch", "web", "partner"), share=(0.5, 0.3, 0.2),
              tilt=(-0.6, 0.6, 0), effect=(-0.1, 0, 0.2)),
    _Category("region", _REGIONS, share=(1 / 12,) * 12, tilt=tuple(np.linspace(-1, 1, 12)), effect=(0,) * 12),
)
# fmt: on
_RATIO_WEIGHT, _RATIO_CENTER, _RATIO_SCALE = 0.5, -2.4, 0.78  # log(payment / income) is about N(-2.4, 0.78)
_PAIR_WEIGHT, _PAIR_CONCEPT = 0.08, 0.025  # of utilisation x inquiries, both in scales
_LEAST = {"seed": 0, "target_bads": 1, "target_goods": 1, "source_bads": 1, "source_goods": 1, "months": 1}
_LEAST |= {"features": len(_NAMED_ALWAYS), "covariate_shift": 0, "concept_shift": 0, "missing_share": 0}
_LEAST |= {"label_window_months": 1, "reporting_lag_days": 0}


def column_roles(spec: DemoSpec) -> DemoColumns:
    """Roles of the columns that `write_demo` writes for this recipe."""
    named = _named(spec)
    return DemoColumns(
        customer_id="customer_id",
        decision_date="application_date",
        label="bad",
        label_known_date="label_known_date",
        population="product",
        source_value=PRODUCT["source"],
        target_value=PRODUCT["target"],
        numeric=(*(c.name for c in named if isinstance(c, _Numeric)), *_unnamed(spec)),
        categorical=tuple(c.name for c in named if isinstance(c, _Category)),
        protected=("age_years",),
        sentinels={c.name: NEVER for c in named if isinstance(c, _Numeric) and c.never_share > 0},
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
        source_bayes_auc=_calibration(spec, "source")[1],
        target_bayes_auc=_calibration(spec, "target")[1],
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
    rng = np.random.default_rng([_FRESH, spec.seed, seed])
    named = _draw_named(spec, "target", rows, rng)
    probability = true_probability(named, spec, "target")
    bad = rng.random(rows) < probability
    month = pl.Series(_month_starts(spec), dtype=pl.Date).gather(rng.integers(spec.months, size=rows))
    customer_id = _customer_ids(f"{PRODUCT['target']}-fresh-{seed}", rows)
    return _complete(spec, "target", customer_id, month, named, bad, rng), probability


def true_probability(frame: pl.DataFrame, spec: DemoSpec, population: Population) -> NDArray[np.float64]:
    """P(bad | observed row, population), `(rows,)`, in (0, 1), from the named columns of `frame`."""
    log_odds = frame.select(_effects(spec, population)).to_series().to_numpy()
    return _sigmoid(_calibration(spec, population)[0] + log_odds)


def bayes_auc(probability: NDArray[np.float64]) -> float:
    """AUC that ranking by the true probability is expected to reach, in [0.5, 1], over the labels' own chance.

    Of the `(n,)` probabilities p, a row is bad with weight p and good with weight 1 - p; ties are of order 1 / n.
    """
    p = np.sort(probability)
    good = 1 - p
    good_below = np.cumsum(good) - good
    return float(np.sum(p * (good_below + good / 2)) / (p.sum() * good.sum()))


def _named(spec: DemoSpec) -> tuple[_Numeric | _Category, ...]:
    return (_NAMED_ALWAYS + _NAMED_MORE)[: spec.features]


def _unnamed(spec: DemoSpec) -> tuple[str, ...]:
    return tuple(f"x_{number:03d}" for number in range(1, spec.features - len(_named(spec)) + 1))


def _month_starts(spec: DemoSpec) -> list[date]:
    first = spec.first_month.year * 12 + spec.first_month.month - 1
    return [date(number // 12, number % 12 + 1, 1) for number in range(first, first + spec.months)]


def _sigmoid(log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-log_odds))


def _standardised(column: _Numeric) -> pl.Expr:
    value = pl.col(column.name)
    return ((value.log() if column.log else value) - column.center) / column.scale


def _effects(spec: DemoSpec, population: Population) -> pl.Expr:
    """Log odds of bad without the intercept, as an expression over the observed columns."""
    concept = spec.concept_shift if population == "target" else 0.0
    z = {c.name: _standardised(c) for c in _named(spec) if isinstance(c, _Numeric)}
    log_odds = pl.lit(0.0)  # summed one by one: sum_horizontal's threads add in an order that changes last digits
    for column in _named(spec):
        value = pl.col(column.name)
        if isinstance(column, _Category):
            effect = value.replace_strict(column.levels, column.effect, return_dtype=pl.Float64)
        else:
            effect = (column.weight + concept * column.concept) * z[column.name]
            if column.never_share > 0:
                effect = pl.when(value == NEVER).then(column.never_effect).otherwise(effect)
        log_odds += effect.fill_null(column.missing_effect)
    log_ratio = (pl.col("payment_monthly_usd") / pl.col("income_monthly_usd")).log()
    ratio = _RATIO_WEIGHT * (log_ratio - _RATIO_CENTER) / _RATIO_SCALE
    pair = (_PAIR_WEIGHT + concept * _PAIR_CONCEPT) * z["utilisation_share"] * z["inquiries_last_6m_count"]
    return log_odds + ratio.fill_null(0.0) + pair.fill_null(0.0)


@lru_cache(maxsize=16)
def _calibration(spec: DemoSpec, population: Population) -> tuple[float, float]:
    """Intercept at which the natural bad rate is the quota's, and the Bayes-optimal AUC there."""
    rng = np.random.default_rng([_CALIBRATION, spec.seed, POPULATIONS.index(population)])
    named = _draw_named(spec, population, _CALIBRATION_ROWS, rng)
    log_odds = named.select(_effects(spec, population)).to_series().to_numpy()
    bads, goods = spec.counts(population)
    low, high = -40.0, 40.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        too_few = _sigmoid(middle + log_odds).mean() < bads / (bads + goods)
        low, high = (middle, high) if too_few else (low, middle)
    return low, bayes_auc(_sigmoid(low + log_odds))


def _draw_named(spec: DemoSpec, population: Population, rows: int, rng: np.random.Generator) -> pl.DataFrame:
    """Named columns as they are observed."""
    strength = spec.covariate_shift if population == "target" else 0.0
    columns: list[pl.Series] = []
    for column in _named(spec):
        if isinstance(column, _Category):
            values = _draw_category(column, strength, rows, rng)
        else:
            values = _draw_numeric(column, strength, rows, rng)
        absent = rng.random(rows) < column.missing * spec.missing_share
        columns.append(values.set(pl.Series(absent), None))
    return pl.DataFrame(columns)


def _draw_category(column: _Category, strength: float, rows: int, rng: np.random.Generator) -> pl.Series:
    weight = np.array(column.share) * np.exp(strength * np.array(column.tilt))
    level = rng.choice(len(column.levels), size=rows, p=weight / weight.sum())
    return pl.Series(column.name, column.levels, dtype=pl.String).gather(level)


def _draw_numeric(column: _Numeric, strength: float, rows: int, rng: np.random.Generator) -> pl.Series:
    z = strength * column.shift + (1 + strength * column.stretch) * rng.standard_normal(rows)
    value = column.center + column.scale * z.clip(-_MOST_SCALES, _MOST_SCALES)
    value = (np.exp(value) if column.log else value.clip(0.0)).round(column.decimals)
    value[rng.random(rows) < column.never_share] = NEVER
    return pl.Series(column.name, value)


def _draw_quota(
    spec: DemoSpec, population: Population, bads: int, goods: int, rng: np.random.Generator
) -> tuple[pl.DataFrame, NDArray[np.bool_]]:
    """Named columns and labels of exactly so many bads and goods, in random order."""
    total_bads, total_goods = spec.counts(population)
    rate = total_bads / (total_bads + total_goods)
    frames: list[pl.DataFrame] = []
    labels: list[NDArray[np.bool_]] = []
    while not frames or bads > 0 or goods > 0:
        rows = int(1.05 * max(bads / rate, goods / (1 - rate))) + 50
        named = _draw_named(spec, population, rows, rng)
        bad = rng.random(rows) < true_probability(named, spec, population)
        kept = np.concatenate([np.flatnonzero(bad)[:bads], np.flatnonzero(~bad)[:goods]])
        frames.append(named[kept])
        labels.append(bad[kept])
        bads -= int(bad[kept].sum())
        goods -= int((~bad[kept]).sum())
    label = np.concatenate(labels)
    order = rng.permutation(len(label))
    return pl.concat(frames)[order], label[order]


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
    income = next(c for c in _named(spec) if isinstance(c, _Numeric) and c.name == "income_monthly_usd")
    wealth = named.select(_standardised(income).fill_null(0.0)).to_series().to_numpy()
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
            rng = np.random.default_rng([_MONTHS, spec.seed, month, number, block])
            quota = _share(bads, blocks, block), _share(goods, blocks, block)
            named, bad = _draw_quota(spec, population, *quota, rng)
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

"""The risk model of the demo portfolio: its recipe, the named columns with their effects, and P(bad) of every row.

Here live `DemoSpec`, the tables of columns, the draws of named columns and labels, and the true probability. Columns
without effect, dates, ids and files are made in `crossrisk.demo`.

The risk model. A row's columns are drawn first, missing values and sentinels included; then
    logit P(bad | row, population) = intercept + effects of the OBSERVED values + a ratio + an interaction,
a missing value having an effect of its own. So the true probability is that of the row as a model sees it, not of
some complete row that nobody observes, and no model ranks better: regret is measured against it. Only named
columns have effects.

Exact counts. Rows and labels are drawn from the model and kept until both classes have their quota: this leaves
P(row | class) as it is and moves the logit by one constant, the log of quota odds over natural odds. The intercept
is set so that the natural bad rate is the quota's, over `_CALIBRATION_ROWS` draws; what remains of that constant
is about 0.01 or less.

What differs from source to target: the columns' distribution (`covariate_shift`), the bad rate (the class counts)
and the effects (`concept_shift`). Every number in the tables is invented, and set so that borrowing helps. At the
defaults the regret in AUC on 30,000 fresh target rows, mean of two seeds, each family at its best penalty, is
    logistic regression   0.017 from 1,000 source bads   0.031 from 245 target bads   0.023 from both, pooled
    boosted trees         0.025                          0.036                        0.031
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

Population = Literal["source", "target"]
POPULATIONS: tuple[Population, Population] = ("source", "target")
NEVER = 999.0  # months_since_last_delinquency of a customer who never was delinquent
FOR_MONTHS, FOR_FRESH_ROWS, FOR_CALIBRATION = 1, 2, 3  # first word of every seed: the three uses never share a stream

_CALIBRATION_ROWS = 200_000
_MOST_SCALES = 4.0  # no column lies further from its centre, so that no logit is extreme


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
class Numeric:
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
class Category:
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
_NAMED_ALWAYS: tuple[Numeric | Category, ...] = (
    Numeric("external_score_points", 640, 60, -1.05, shift=0.3, stretch=0.1, concept=0.05),
    Numeric("income_monthly_usd", 8.2, 0.5, log=True, shift=-0.5, missing=0.5, missing_effect=0.2),
    Numeric("payment_monthly_usd", 5.8, 0.6, log=True, decimals=2, shift=-0.6, stretch=0.2),
    Numeric("debt_to_income", 0.36, 0.12, 0.1, decimals=4, shift=0.3, concept=0.05, missing=1),
    Numeric("utilisation_share", 0.45, 0.18, 0.5, decimals=4, shift=0.5, stretch=0.2, concept=0.05, missing=1),
    Numeric("inquiries_last_6m_count", 3, 1.5, 0.1, shift=0.4),
    Numeric("months_since_last_delinquency", 3, 0.7, -0.2, log=True, shift=0.2, never_share=0.6, never_effect=-0.6),
    Numeric("savings_balance_usd", 7.2, 1.1, -0.15, log=True, shift=-0.3, missing=3, missing_effect=0.5),
    Category("home_ownership", ("rent", "mortgage", "own", "other"), share=(0.4, 0.4, 0.18, 0.02),
             tilt=(0.4, -0.4, 0, 0), effect=(0.2, -0.2, -0.1, 0.3), missing=0.5),
    Category("purpose", ("consolidation", "purchase", "car", "medical", "moving"),
             share=(0.5, 0.25, 0.15, 0.09, 0.01), tilt=(-0.3, 0.5, -0.5, 0, 1.5),
             effect=(0.1, -0.1, -0.2, 0.3, 0.2), missing=1, missing_effect=0.2),
)
_NAMED_MORE: tuple[Numeric | Category, ...] = (
    Numeric("months_at_employer", 3.6, 0.7, -0.05, log=True, shift=-0.4, missing=2, missing_effect=0.2),
    Numeric("months_since_oldest_account", 4.6, 0.5, -0.1, log=True, shift=-0.4, concept=-0.05),
    Numeric("loan_amount_usd", 9, 0.6, log=True, shift=-0.8, stretch=0.2),
    Numeric("days_past_due_worst_12m", 20, 10, 0.1, shift=-0.1, stretch=0.1, missing=1),
    Numeric("open_accounts_count", 9, 3, concept=0.05, missing=1),
    Category("employment_type", ("salaried", "self_employed", "temporary", "retired"), share=(0.7, 0.15, 0.1, 0.05),
             tilt=(0, 0.3, 0.5, -0.5), effect=(-0.05, 0.1, 0.2, -0.1), missing=1, missing_effect=0.1),
    Category("acquisition_channel", ("branch", "web", "partner"), share=(0.5, 0.3, 0.2),
             tilt=(-0.6, 0.6, 0), effect=(-0.1, 0, 0.2)),
    Category("region", _REGIONS, share=(1 / 12,) * 12, tilt=tuple(np.linspace(-1, 1, 12)), effect=(0,) * 12),
)
# fmt: on
_RATIO_WEIGHT, _RATIO_CENTER, _RATIO_SCALE = 0.5, -2.4, 0.78  # log(payment / income) is about N(-2.4, 0.78)
_PAIR_WEIGHT, _PAIR_CONCEPT = 0.08, 0.025  # of utilisation x inquiries, both in scales
_LEAST = {"seed": 0, "target_bads": 1, "target_goods": 1, "source_bads": 1, "source_goods": 1, "months": 1}
_LEAST |= {"features": len(_NAMED_ALWAYS), "covariate_shift": 0, "concept_shift": 0, "missing_share": 0}
_LEAST |= {"label_window_months": 1, "reporting_lag_days": 0}


def true_probability(frame: pl.DataFrame, spec: DemoSpec, population: Population) -> NDArray[np.float64]:
    """P(bad | observed row, population), `(rows,)`, in (0, 1), from the named columns of `frame`."""
    log_odds = frame.select(_effects(spec, population)).to_series().to_numpy()
    return _sigmoid(calibrate(spec, population)[0] + log_odds)


def bayes_auc(probability: NDArray[np.float64]) -> float:
    """AUC that ranking by the true probability is expected to reach, in [0.5, 1], over the labels' own chance.

    Of the `(n,)` probabilities p, a row is bad with weight p and good with weight 1 - p; ties are of order 1 / n.
    """
    p = np.sort(probability)
    good = 1 - p
    good_below = np.cumsum(good) - good
    return float(np.sum(p * (good_below + good / 2)) / (p.sum() * good.sum()))


def named_columns(spec: DemoSpec) -> tuple[Numeric | Category, ...]:
    """The columns that may drive risk, in the order in which they are drawn and written."""
    return (_NAMED_ALWAYS + _NAMED_MORE)[: spec.features]


def standardised(column: Numeric) -> pl.Expr:
    """Distance of a value, or of its log, from the column's centre, in scales."""
    value = pl.col(column.name)
    return ((value.log() if column.log else value) - column.center) / column.scale


@lru_cache(maxsize=16)
def calibrate(spec: DemoSpec, population: Population) -> tuple[float, float]:
    """Find the intercept at which the natural bad rate is the quota's, and the Bayes-optimal AUC there, in [0.5, 1]."""
    rng = np.random.default_rng([FOR_CALIBRATION, spec.seed, POPULATIONS.index(population)])
    named = draw_named(spec, population, _CALIBRATION_ROWS, rng)
    log_odds = named.select(_effects(spec, population)).to_series().to_numpy()
    bads, goods = spec.counts(population)
    low, high = -40.0, 40.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        too_few = _sigmoid(middle + log_odds).mean() < bads / (bads + goods)
        low, high = (middle, high) if too_few else (low, middle)
    return low, bayes_auc(_sigmoid(low + log_odds))


def draw_named(spec: DemoSpec, population: Population, rows: int, rng: np.random.Generator) -> pl.DataFrame:
    """Draw so many rows of the named columns as they are observed: missing values are nulls."""
    strength = spec.covariate_shift if population == "target" else 0.0
    columns: list[pl.Series] = []
    for column in named_columns(spec):
        if isinstance(column, Category):
            values = _draw_category(column, strength, rows, rng)
        else:
            values = _draw_numeric(column, strength, rows, rng)
        absent = rng.random(rows) < column.missing * spec.missing_share
        columns.append(values.set(pl.Series(absent), None))
    return pl.DataFrame(columns)


def draw_quota(
    spec: DemoSpec, population: Population, bads: int, goods: int, rng: np.random.Generator
) -> tuple[pl.DataFrame, NDArray[np.bool_]]:
    """Draw named columns and labels `(bads + goods,)` of exactly so many bads and goods, in random order."""
    total_bads, total_goods = spec.counts(population)
    rate = total_bads / (total_bads + total_goods)
    frames: list[pl.DataFrame] = []
    labels: list[NDArray[np.bool_]] = []
    while not frames or bads > 0 or goods > 0:
        rows = int(1.05 * max(bads / rate, goods / (1 - rate))) + 50
        named = draw_named(spec, population, rows, rng)
        bad = rng.random(rows) < true_probability(named, spec, population)
        kept = np.concatenate([np.flatnonzero(bad)[:bads], np.flatnonzero(~bad)[:goods]])
        frames.append(named[kept])
        labels.append(bad[kept])
        bads -= int(bad[kept].sum())
        goods -= int((~bad[kept]).sum())
    label = np.concatenate(labels)
    order = rng.permutation(len(label))
    return pl.concat(frames)[order], label[order]


def _effects(spec: DemoSpec, population: Population) -> pl.Expr:
    """Log odds of bad without the intercept, as an expression over the observed columns."""
    concept = spec.concept_shift if population == "target" else 0.0
    z = {c.name: standardised(c) for c in named_columns(spec) if isinstance(c, Numeric)}
    log_odds = pl.lit(0.0)  # summed one by one: sum_horizontal's threads add in an order that changes last digits
    for column in named_columns(spec):
        value = pl.col(column.name)
        if isinstance(column, Category):
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


def _draw_category(column: Category, strength: float, rows: int, rng: np.random.Generator) -> pl.Series:
    weight = np.array(column.share) * np.exp(strength * np.array(column.tilt))
    level = rng.choice(len(column.levels), size=rows, p=weight / weight.sum())
    return pl.Series(column.name, column.levels, dtype=pl.String).gather(level)


def _draw_numeric(column: Numeric, strength: float, rows: int, rng: np.random.Generator) -> pl.Series:
    z = strength * column.shift + (1 + strength * column.stretch) * rng.standard_normal(rows)
    value = column.center + column.scale * z.clip(-_MOST_SCALES, _MOST_SCALES)
    value = (np.exp(value) if column.log else value.clip(0.0)).round(column.decimals)
    value[rng.random(rows) < column.never_share] = NEVER
    return pl.Series(column.name, value)


def _sigmoid(log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-log_odds))

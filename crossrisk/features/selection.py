"""Which features are left out, by rules over training rows: missing, near-constant, redundant, noise, unstable.

Each rule is a number of `SelectionRules`; none is on unless it is set. A rule says which features it drops and why, in
figures. What the features are made of is `rows`', what becomes of the others `fitting`'s.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field

from crossrisk.features.plan import Dropped
from crossrisk.features.rows import Plain
from crossrisk.features.tables import Keys, bin_keys, count_labels, level_keys
from crossrisk.metrics.woe import InformationValue, information_value
from crossrisk.stability import describe_categories, describe_numbers, psi

MOST_ROWS_CORRELATED = 50_000
"""Rows that correlations are taken over, evenly spread: their standard error is then below .005."""


class SelectionRules(Plain):
    """Limits beyond which a feature does not enter the matrix; None: the rule is off."""

    max_missing_share: float | None = Field(default=None, gt=0, le=1, description="of training rows")
    max_same_share: float | None = Field(
        default=None, gt=0, le=1, description="near-zero variance: share of the most frequent value, missing being one"
    )
    max_correlation: float | None = Field(
        default=None, gt=0, le=1, description="of two numbers more correlated than this the one with less IV goes"
    )
    iv_above_noise: bool = Field(
        default=False, description="IV above what 95% of features that carry nothing show (crossrisk.metrics.woe)"
    )
    max_psi: float | None = Field(default=None, gt=0, description="PSI of the target against the source")
    keep: tuple[str, ...] = Field(default=(), description="features that no rule drops")

    @property
    def needs_labels(self) -> bool:
        """Whether a rule looks at labels."""
        return self.iv_above_noise


def quantile_edges(known: pl.Series, bins: int) -> tuple[float, ...]:
    """Ascending edges of at most `bins` bins with about as many rows each; fewer where values repeat.

    Args:
        known: (n,) without null.
        bins: at least 2.
    """
    if known.is_empty():
        return ()
    cuts = [known.quantile(i / bins, "nearest") for i in range(1, bins)]
    top = known.max()
    return tuple(sorted({float(cut) for cut in cuts if cut is not None and cut < top}))  # type: ignore[operator]


def select(
    features: pl.DataFrame,
    numbers: Sequence[str],
    categories: Sequence[str],
    rules: SelectionRules,
    *,
    bins: int,
    min_level_rows: int,
    label: NDArray[np.int8] | None,
    is_target: NDArray[np.bool_] | None,
) -> list[Dropped]:
    """The features that the rules drop, each with the first rule that drops it.

    Args:
        features: (n, ...) row-wise features of the training rows.
        numbers: names of the numeric ones among them.
        categories: names of the others.
        rules: which limits.
        bins: of numbers, for the IV.
        min_level_rows: levels of fewer rows count as one.
        label: (n,) 0, 1, or -1 where training may not see it; None where no rule asks.
        is_target: (n,) which rows are of the target; None where no rule asks.

    Raises:
        ValueError: a rule needs labels or populations that were not given.
    """
    names = [*numbers, *categories]
    dropped: dict[str, str] = {}

    def left() -> list[str]:
        return [name for name in names if name not in dropped and name not in rules.keep]

    if rules.max_missing_share is not None:
        dropped |= dict(_mostly_missing(features, left(), rules.max_missing_share))
    if rules.max_same_share is not None:
        dropped |= dict(_near_constant(features, left(), rules.max_same_share))
    if rules.max_psi is not None:
        if is_target is None:
            raise ValueError("features.select.max_psi needs to know which rows are of the target")
        dropped |= dict(_unstable(features, left(), is_target, rules.max_psi))
    values: dict[str, InformationValue] = {}
    if label is not None:
        values = {
            name: _information(features[name], label, bins=bins, min_level_rows=min_level_rows) for name in left()
        }
    if rules.iv_above_noise:
        if label is None:
            raise ValueError("features.select.iv_above_noise needs labels of training rows")
        dropped |= dict(_noise(values, left()))
    if rules.max_correlation is not None:
        worth = {name: value.iv.value or 0.0 for name, value in values.items()}
        kept = [name for name in numbers if name not in dropped]
        dropped |= dict(_redundant(features, kept, worth, rules.max_correlation, rules.keep))
    return [Dropped(feature=name, reason=dropped[name]) for name in names if name in dropped]


def _mostly_missing(features: pl.DataFrame, names: Sequence[str], limit: float) -> Iterator[tuple[str, str]]:
    for name in names:
        share = features[name].null_count() / features.height
        if share > limit:
            yield name, f"missing on {share:.1%} of training rows, at most {limit:.1%} allowed"


def _near_constant(features: pl.DataFrame, names: Sequence[str], limit: float) -> Iterator[tuple[str, str]]:
    for name in names:
        share = float(features[name].value_counts()["count"].max()) / features.height  # type: ignore[arg-type]
        if share > limit:
            yield name, f"{share:.2%} of training rows have one value, at most {limit:.2%} allowed"


def _unstable(
    features: pl.DataFrame, names: Sequence[str], is_target: NDArray[np.bool_], limit: float
) -> Iterator[tuple[str, str]]:
    mask = pl.Series(is_target)
    for name in names:
        source, target = features[name].filter(~mask), features[name].filter(mask)
        reference = describe_numbers(source) if source.dtype.is_numeric() else describe_categories(source)
        shift = psi(reference.counts, reference.bins.count(target))
        if shift.value is not None and shift.value > limit:
            yield name, f"PSI of the target against the source {shift.value:.3f}, at most {limit:g} allowed"


def _information(values: pl.Series, label: NDArray[np.int8], *, bins: int, min_level_rows: int) -> InformationValue:
    keys = feature_keys(values, bins=bins, min_level_rows=min_level_rows)
    bads, goods = count_labels(keys, label)
    return information_value(bads, goods, names=[""] * keys.size, sign="ln(bad/good)")


def feature_keys(values: pl.Series, *, bins: int, min_level_rows: int) -> Keys:
    """Rows by quantile bin of a number, or by frequent level of a category; missing apart."""
    if values.dtype.is_numeric():
        return bin_keys(values, quantile_edges(values.drop_nulls(), bins))
    return level_keys(values, frequent_levels(values, min_level_rows))


def frequent_levels(values: pl.Series, min_level_rows: int) -> tuple[str, ...]:
    """The levels of at least so many rows, in order of name; missing is none."""
    counts = values.drop_nulls().value_counts(name="rows")
    return tuple(counts.filter(pl.col("rows") >= min_level_rows)[values.name].sort())


def _noise(values: dict[str, InformationValue], names: Sequence[str]) -> Iterator[tuple[str, str]]:
    for name in names:
        value = values[name]
        if value.verdict == "not above noise" and value.iv.value is not None:
            yield name, f"IV {value.iv.value:.3f}, noise alone reaches {value.critical:.3f} in 5% of features"


def _redundant(
    features: pl.DataFrame, names: Sequence[str], worth: dict[str, float], limit: float, keep: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """Features in order of their IV (those to keep first, then by place); each that a better one stands for goes."""
    if len(names) < 2:
        return
    step = max(1, features.height // MOST_ROWS_CORRELATED)
    thinned = features.select(names).gather_every(step)
    varying = [name for name in names if thinned[name].drop_nulls().n_unique() > 1]
    filled = thinned.select(pl.col(varying).fill_null(pl.col(varying).median()))
    correlation = np.corrcoef(filled.to_numpy(), rowvar=False).reshape(len(varying), len(varying))
    ranked = sorted(range(len(varying)), key=lambda i: (varying[i] not in keep, -worth.get(varying[i], 0.0), i))
    kept: list[int] = []
    for i in ranked:
        twin = next((k for k in kept if abs(correlation[i, k]) > limit), None)
        if twin is None or varying[i] in keep:
            kept.append(i)
        else:
            yield (
                varying[i],
                f"correlation {correlation[i, twin]:+.3f} with {varying[twin]!r}, at most {limit:g} allowed",
            )

"""The seven credit splits of the data sets' reference table, as data, and how one draw of them gives every row a part.

Columns and features come from a portfolio's TOML; a split says who is source, who is target, which rows judge and how
many target bads have a known label. Nothing here fits, scores or writes.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from crossrisk.config import Loaded, load_portfolio
from crossrisk.errors import InputError
from crossrisk.features import rowwise_expressions
from crossrisk.sql_rules import parse_rule
from tasks.split import SOURCE_FIT, SOURCE_STOP, TARGET_FIT, TARGET_SELECT, TARGET_TEST

HERE = Path(__file__).parent
LENDING_CLUB = HERE.parent / "configs" / "lending_club.toml"
TAIWAN = HERE.parent / "configs" / "taiwan_inactive.toml"
GIVE_ME_CREDIT = HERE / "give_me_some_credit.toml"

SELECT_SHARE = 0.3
"""of the target's known labels choose and calibrate, as in the product's default split"""
STOP_SHARE = 0.2
"""of the source is held out"""
TEST_SEED = 20_260_101
"""of the half that judges where no date does: one seed for all draws, so that they are judged on the same rows"""
ROOM = 0.02
"""points by which borrowing must lead the target's own models in the reference table for there to be room"""


@dataclass(frozen=True, kw_only=True)
class Split:
    """One row of the reference table."""

    name: str
    """of its folder"""
    title: str
    portfolio: Path
    """TOML with columns and features"""
    source: str
    """SQL rule"""
    target: str
    """SQL rule"""
    test: str | None = None
    """SQL rule of the target rows that judge; None: a random half"""
    target_bads: int
    """with a known label, of those that do not judge"""
    more: Mapping[str, tuple[str, ...] | dict[str, tuple[float, ...]]]
    """features.* in the place of the portfolio's"""
    counts: tuple[tuple[int, int], tuple[int, int]]
    """(good, bad) of the source and of the target, as the reference table has them"""
    reference: Mapping[str, float]
    """contender -> AUC in the reference table"""

    @property
    def room(self) -> float:
        """How far the best that borrows leads the best target-only contender in the reference table, in AUC."""
        own = max(auc for name, auc in self.reference.items() if name.startswith("target_"))
        return max(self.reference.values()) - own


def _reference(source: str, target: str, pooled: str, stacked: float) -> dict[str, float]:
    """Figures `h / l` of the reference table, boosted trees first."""
    figures: dict[str, float] = {}
    for family, pair in (("source", source), ("target", target), ("pooled", pooled)):
        boosted, logistic = pair.split("/")
        figures |= {f"{family}_boosted": float(boosted), f"{family}_logistic": float(logistic)}
    return figures | {"stacked": stacked}


_APPLICATION = (
    "loan_amnt", "term_months", "annual_inc", "dti", "delinq_2yrs", "inq_last_6mths", "mths_since_last_delinq",
    "mths_since_last_record", "open_acc", "pub_rec", "revol_bal", "revol_util", "total_acc", "acc_now_delinq",
    "pub_rec_bankruptcies", "tax_liens",
)  # fmt: skip
"""the portfolio's, and the term, which both populations of these two splits have"""

_PRODUCTS = Split(
    name="lending_club_60m_100",
    title="36 -> 60 months, 100",
    portfolio=LENDING_CLUB,
    source="term_months = 36 AND issue_d < DATE '2011-01-01' AND meets_credit_policy",
    # two months between the labels and the test, as the reference table has it
    target="term_months = 60 AND meets_credit_policy AND issue_d NOT IN (DATE '2010-11-01', DATE '2010-12-01')",
    test="issue_d >= DATE '2011-01-01'",
    target_bads=100,
    more={},
    counts=((13_267, 1_728), (7_587, 2_287)),
    reference=_reference(".618/.618", ".565/.589", ".616/.619", 0.617),
)
_PAST_DUE = "(n_30_59_dpd > 0 OR n_60_89_dpd > 0 OR n_90_dpd > 0)"
_NOT_REVOLVING = "(pay_1 <= -1 AND pay_2 <= -1 AND pay_3 <= -1)"

SPLITS = (
    _PRODUCTS,
    replace(
        _PRODUCTS,
        name="lending_club_60m_300",
        title="36 -> 60 months, 300",
        target_bads=300,
        reference=_reference(".618/.618", ".588/.617", ".616/.623", 0.626),
    ),
    Split(
        name="small_business",
        title="consolidation -> small business, 100",
        portfolio=LENDING_CLUB,
        source="purpose IN ('debt_consolidation', 'credit_card')",
        target="purpose = 'small_business'",
        target_bads=100,
        # the purpose defines the split
        more={
            "numeric": _APPLICATION,
            "categorical": ("emp_length", "home_ownership", "verification_status", "addr_state"),
        },
        counts=((21_552, 3_701), (1_441, 551)),
        reference=_reference(".650/.660", ".602/.635", ".650/.660", 0.648),
    ),
    Split(
        name="policy_exceptions",
        title="meets policy -> exceptions, 100",
        portfolio=LENDING_CLUB,
        source="meets_credit_policy",
        target="NOT meets_credit_policy",
        target_bads=100,
        more={"numeric": _APPLICATION},
        counts=((34_116, 5_670), (1_988, 761)),
        reference=_reference(".608/.611", ".553/.577", ".614/.616", 0.601),
    ),
    Split(
        name="thin_file",
        title="5+ lines -> thin file, 100",
        portfolio=GIVE_ME_CREDIT,
        source="n_open_credit_lines >= 5",
        target="n_open_credit_lines <= 2",
        target_bads=100,
        more={},
        counts=((109_418, 6_923), (11_314, 1_678)),
        reference=_reference(".850/.839", ".831/.832", ".851/.838", 0.852),
    ),
    Split(
        name="clean_history",
        title="past due -> clean history, 300",
        portfolio=GIVE_ME_CREDIT,
        source=_PAST_DUE,
        target=f"NOT {_PAST_DUE}",
        target_bads=300,
        more={},
        counts=((23_601, 6_762), (116_373, 3_264)),
        reference=_reference(".763/.758", ".761/.763", ".769/.760", 0.773),
    ),
    Split(
        name="taiwan_inactive",
        title="revolvers -> inactive, 200",
        portfolio=TAIWAN,
        source=f"NOT {_NOT_REVOLVING}",
        target=_NOT_REVOLVING,
        target_bads=200,
        more={},
        counts=((17_556, 5_676), (5_808, 960)),
        reference=_reference(".654/.571", ".640/.627", ".664/.580", 0.658),
    ),
)


def as_reference(split: Split) -> Split:
    """The split with the protected columns of its portfolio as features, and codes for missing read as numbers.

    For a comparison with the reference table, whose models saw both, and never for a model that is used.
    """
    features = tomllib.loads(split.portfolio.read_text(encoding="utf-8"))["features"]
    protected = features.get("protected", [])
    numeric = (*split.more.get("numeric", features["numeric"]), *protected)
    more = {**split.more, "numeric": numeric, "protected": (), "sentinels": {}}
    return replace(split, name=f"{split.name}_as_reference", more=more)


@dataclass(frozen=True)
class SplitRows:
    """The rows of a split, in the order of their id."""

    loaded: Loaded
    ids: pl.Series
    features: pl.DataFrame
    """row-wise, nothing fitted"""
    label: NDArray[np.int8]
    """(n,) 0 or 1, of every row: who may see it is `Draw`'s"""
    is_target: NDArray[np.bool_]
    """(n,)"""
    is_test: NDArray[np.bool_]
    """(n,) the target rows that judge"""


@dataclass(frozen=True)
class Draw:
    """What one draw makes of the rows."""

    part: NDArray[np.str_]
    """(n,) as the product names its parts; target_fit holds labelled and unlabelled rows"""
    label: NDArray[np.float64]
    """(n,) 0, 1, or NaN where training may not see it: unlabelled rows of the target, and the test"""

    def of(self, *parts: str) -> NDArray[np.bool_]:
        """Which rows belong to one of the parts."""
        return np.isin(self.part, parts)

    def labelled(self, *parts: str) -> NDArray[np.bool_]:
        """Those of them whose label may be seen."""
        return self.of(*parts) & ~np.isnan(self.label)


def read_split(split: Split, environ: Mapping[str, str] = os.environ) -> SplitRows:
    """Read the rows of both populations with the portfolio's features.

    Raises:
        ConfigError: the portfolio cannot be read.
        InputError: the file is not there, or source or target have other counts than the reference table.
    """
    loaded = load_portfolio(split.portfolio, environ=environ, overrides=_overrides(split))
    data = loaded.portfolio.data
    path = loaded.folders.data_root / str(data.path)
    if not path.is_file():
        raise InputError(
            f"{split.name}: expected the data at {path}; set CROSSRISK_DATA to the folder of the data sets"
        )
    either = parse_rule(split.source) | parse_rule(split.target)
    rows = pl.read_parquet(path).filter(either).sort(data.id)
    is_target = rows.select(parse_rule(split.target)).to_series().to_numpy()
    label = rows[loaded.portfolio.label.column].cast(pl.Int8).to_numpy()
    _check_counts(split, label, is_target)
    is_test = is_target & rows.select(parse_rule(split.test)).to_series().to_numpy() if split.test else is_target.copy()
    if split.test is None:
        first, _ = _halves(np.flatnonzero(is_target), label, 0.5, np.random.default_rng(TEST_SEED))
        is_test[first] = False
    features = rows.select(rowwise_expressions(loaded.portfolio.row_plan))
    return SplitRows(loaded, rows[data.id], features, label, is_target, is_test)


def draw_parts(rows: SplitRows, target_bads: int, seed: int) -> Draw:
    """Draw which target rows have a known label, and divide what is known.

    Goods with a known label come at the rate of the target rows that do not judge. With the same seed the labels of a
    smaller number of bads are among those of a larger one.

    Args:
        rows: of the split.
        target_bads: with a known label.
        seed: of the draw.

    Raises:
        ValueError: the target holds fewer bads outside the test.
    """
    rng = np.random.default_rng(seed)
    label, part = rows.label, np.full(len(rows.label), TARGET_FIT, "U16")
    part[rows.is_test] = TARGET_TEST
    fit, stop = _halves(np.flatnonzero(~rows.is_target), label, 1 - STOP_SHARE, rng)
    part[fit], part[stop] = SOURCE_FIT, SOURCE_STOP
    seen = np.full(len(label), np.nan)
    seen[~rows.is_target] = label[~rows.is_target]
    pool = np.flatnonzero(rows.is_target & ~rows.is_test)
    available = int(label[pool].sum())
    if available < target_bads:
        raise ValueError(f"{target_bads} target bads are to be drawn of {available} outside the test; draw fewer")
    known, _ = _halves(pool, label, target_bads / available, rng)
    seen[known] = label[known]
    _, select = _halves(known, label, 1 - SELECT_SHARE, rng)
    part[select] = TARGET_SELECT
    return Draw(part, seen)


def _halves(
    rows: NDArray[np.intp], label: NDArray[np.int8], share: float, rng: np.random.Generator
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Two random halves of the rows, the first with the share of the bads and of the goods."""
    first, second = [], []
    for of_class in (rows[label[rows] == 1], rows[label[rows] == 0]):
        shuffled = rng.permutation(of_class)
        cut = round(share * len(shuffled))
        first.append(shuffled[:cut])
        second.append(shuffled[cut:])
    return np.concatenate(first), np.concatenate(second)


def _overrides(split: Split) -> list[str]:
    """The split as `--set` of its portfolio."""
    values: dict[str, object] = {"population.source": split.source, "population.target": split.target}
    values |= {f"features.{key}": given for key, given in split.more.items()}
    return [f"{key}={json.dumps(value)}" for key, value in values.items()]


def _check_counts(split: Split, label: NDArray[np.int8], is_target: NDArray[np.bool_]) -> None:
    found = tuple((int((label[rows] == 0).sum()), int(label[rows].sum())) for rows in (~is_target, is_target))
    if found != split.counts:
        raise InputError(
            f"{split.name}: expected (good, bad) of source and target {split.counts}, got {found}: these are not the "
            "files of the reference table, or the rules of the split are not its"
        )

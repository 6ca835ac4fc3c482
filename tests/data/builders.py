"""Small portfolios for tests: a frame, its Parquet, its TOML."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import polars as pl

from crossrisk.config import Loaded, load_portfolio

NOISE = tuple(f"n{i}" for i in range(1, 8))

TOML = """
name = "mini"
as_of = 2024-12-31
[data]
path = "loans.parquet"
id = "loan_id"
decision_date = "opened_on"
[label]
column = "bad"
[population]
source = "product = 'loan'"
target = "product = 'card'"
[features]
numeric = ["income_usd", "balance_usd"]
categorical = ["region"]
[features.ratios]
balance_to_income = ["balance_usd", "income_usd"]
[features.sentinels]
balance_usd = [-1]
"""


FLOW_TOML = (
    TOML.replace('numeric = ["income_usd", "balance_usd"]', f"numeric = {['income_usd', 'balance_usd', *NOISE]}")
    + """
[split]
target_test_last_months = 4
min_stratum_rows = 5
[lineup]
contenders = ["source_logistic", "dan"]
min_target_bads = 20
[lineup.dan]
mmd_weights = [0.0, 1.0]
seeds = 1
max_steps = 30
[gate]
replicates = 200
[use]
cutoff_probability = 0.3
segments = ["region"]
"""
)
"""Two contenders, thirty steps: a whole retrain in the time that TensorFlow needs to start."""


def loans(rows: int = 600, *, seed: int = 0, months: int = 12) -> pl.DataFrame:
    """Loans whose risk rises with balance and falls with income, half source, half target, over 2024."""
    rng = np.random.default_rng(seed)
    income = rng.lognormal(8, 0.5, rows)
    balance = np.where(rng.random(rows) < 0.1, -1, rng.lognormal(6, 1, rows))
    risk = -1.2 + 0.9 * (np.log(np.maximum(balance, 1)) - 6) - 0.9 * (np.log(income) - 8)
    return pl.DataFrame(
        {
            "loan_id": np.arange(rows),
            "opened_on": [date(2024, 1 + i * months // rows, 1 + i % 28) for i in range(rows)],
            "product": np.where(np.arange(rows) % 2 == 0, "loan", "card"),
            "income_usd": income,
            "balance_usd": balance,
            "region": rng.choice(["north", "south", "west"], rows),
            "bad": (rng.random(rows) < 1 / (1 + np.exp(-risk))).astype(np.int8),
        }
    )


def loans_with_noise(rows: int = 2000, *, seed: int = 0) -> pl.DataFrame:
    """The loans with seven useless columns more: ten features in all."""
    rng = np.random.default_rng(seed + 1)
    return loans(rows, seed=seed).with_columns(**{name: rng.normal(size=rows) for name in NOISE})


def portfolio(
    folder: Path, frame: pl.DataFrame | None = None, *, toml: str = TOML, overrides: tuple[str, ...] = ()
) -> Loaded:
    """Write the frame (if any) and the TOML below `folder` and load the portfolio; everything it makes stays there."""
    if frame is not None:
        (folder / "data").mkdir(parents=True, exist_ok=True)
        frame.write_parquet(folder / "data" / "loans.parquet")
    path = folder / "mini.toml"
    path.write_text(toml)
    return load_portfolio(path, environ={"CROSSRISK_HOME": str(folder)}, overrides=overrides)

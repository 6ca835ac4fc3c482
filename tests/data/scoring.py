"""A portfolio with a small exported version, its own loans as what it was published on, for tests of scoring."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from builders import TOML, loans, portfolio
from registries import publish

from crossrisk.config import Loaded
from crossrisk.features import FeaturePlan, FitSettings, encoding_expressions, fit_plan, rowwise_expressions
from crossrisk.registry import Champion, Registry
from crossrisk.scoring import Scaling
from crossrisk.stability import describe_categories, describe_numbers
from models.fitted import Calibration, Contender, Logistic

RULES = {
    "schema_version": 1,
    "name": "own",
    "max_quarantined_share": 0.01,
    "expectations": [
        {
            "name": "income-positive",
            "type": "expect_column_values_to_be_between",
            "kwargs": {"column": "income_usd", "min_value": 0, "strict_min": True},
            "meta": {"action": "quarantine", "why": "Ratios divide by it.", "owner": "risk"},
        },
        {
            "name": "region-sold",
            "type": "expect_column_values_to_not_be_in_set",
            "kwargs": {"column": "region", "value_set": ["atlantis"]},
            "meta": {"action": "stop", "why": "Nothing is sold there.", "owner": "sales"},
        },
        {
            "name": "balance-small",
            "type": "expect_column_values_to_be_between",
            "kwargs": {"column": "balance_usd", "max_value": 1e6},
            "meta": {"action": "warn", "why": "Larger is mostly cents.", "owner": "risk"},
        },
        {
            "name": "product-known",
            "type": "expect_column_values_to_be_in_set",
            "kwargs": {"column": "product", "value_set": ["loan", "card"]},
            "meta": {"action": "stop", "why": "It defines the populations.", "owner": "product"},
        },
    ],
}
WITH_RULES = TOML.replace('id = "loan_id"', 'id = "loan_id"\nexpectations = ["own.json"]')
SCALING = Scaling(score_at_odds=600, odds=30, points_to_double=20)
FIRST_VERSION = 1_700_000_000


@dataclass(frozen=True)
class Published:
    """A portfolio, its version, and what the version should say."""

    loaded: Loaded
    plan: FeaturePlan
    contender: Contender
    champion: Champion

    def probability(self, rows: pl.DataFrame) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Of the fitted contender, without the SavedModel."""
        return self.contender.probability(self._matrix(rows))

    def _matrix(self, rows: pl.DataFrame) -> np.ndarray[Any, Any]:
        features = rows.select(rowwise_expressions(self.plan.rows))
        return features.select(encoding_expressions(self.plan)).to_numpy()


def write_published(folder: Path, *, toml: str = WITH_RULES, intercepts: tuple[float, ...] = (-2.0,)) -> Published:
    """Publish one version an intercept below `folder`, the last with reasons; nothing lies under data/ yet."""
    from models.bundle import export

    (folder / "data").mkdir(parents=True)
    (folder / "own.json").write_text(json.dumps(RULES))
    loaded = portfolio(folder, toml=toml)
    rows = loaded.portfolio.row_plan
    frame = loans()
    plan = fit_plan(frame.select(rowwise_expressions(rows)), rows, FitSettings(min_level_rows=20))
    mean = frame.select(rowwise_expressions(rows)).select(encoding_expressions(plan)).to_numpy().mean(axis=0)
    levels = frame.select(rowwise_expressions(rows))
    for number, intercept in enumerate(intercepts):
        compared_with = mean.astype(np.float32) if number == len(intercepts) - 1 else None
        weights = np.linspace(-1, 1, len(plan.outputs))
        contender = Contender("source_logistic", Logistic(weights, 0.0), Calibration(intercept, 1.0))
        told = Published(loaded, plan, contender, None)  # type: ignore[arg-type]
        reference = {
            "schema_version": 1,
            "plan": rows.model_dump(mode="json"),
            "rows": frame.height,
            "first_month": "2024-01",
            "last_month": "2024-12",
            "score": describe_numbers(told.probability(frame), decimals=6).to_json(),
            "features": {name: describe_categories(levels[name]).to_json() for name in rows.categories},
        }
        champion = publish(
            Registry(loaded.folders.registry),
            FIRST_VERSION + number,
            write=lambda model, it=contender, row=compared_with: export(plan, it, SCALING, model, reference=row),
            companions={"reference.json": json.dumps(reference), "plan.json": plan.model_dump_json()},
            contender="source_logistic",
            raw_columns=[column.model_dump() for column in rows.raw_columns],
            config=loaded.portfolio.model_dump(mode="json"),
        )
    return Published(loaded, plan, contender, champion)

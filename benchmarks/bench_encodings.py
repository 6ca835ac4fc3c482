"""What the choices of the feature plan do to the shallow contenders' AUC on the real splits.

    CROSSRISK_DATA=... python benchmarks/bench_encodings.py [--config configs/lending_club.toml ...] [--json PATH]

Each variant is a run up to the comparison, in a folder of its own, with overrides on top of the portfolio's TOML; rows
and splits are the same, so the differences are of paired AUCs on target_test. Nothing is decided or published.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from crossrisk.config import Loaded, load_portfolio
from crossrisk.metrics import auc_value, paired_test
from crossrisk.quiet import make_quiet
from flows.retrain import make_comparison
from tasks.compare import JUDGED

CONTENDERS = (
    "source_logistic", "target_logistic", "pooled_logistic", "stacked", "source_boosted", "target_boosted",
    "pooled_boosted",
)  # fmt: skip
BASE = "default"


class Bare:
    """Steps as plain functions: no Prefect, no record."""

    def step(self, name: str, step: Any, *args: Any, **kwargs: Any) -> Any:
        """Run one step."""
        return step.fn(*args, **kwargs)

    def attach(self, page: Path) -> Path:
        """A page stays where it was made."""
        return page


def variants(loaded: Loaded) -> dict[str, list[str]]:
    """Name -> overrides."""
    features = loaded.portfolio.features
    numbers, categories = loaded.portfolio.row_plan.numeric_features, features.categorical
    every = {**dict.fromkeys(numbers, ("woe",)), **dict.fromkeys(categories, ("woe",))}
    skewed = {name: "signed_log" for name in numbers}
    return {
        BASE: [],
        "logs": [_table("features.logs", skewed)],
        "bins": [_table("features.encodings", dict.fromkeys(numbers, ("standard", "bins")))],
        "woe of categories": [_table("features.encodings", dict.fromkeys(categories, ("woe",)))],
        "woe of everything": [_table("features.encodings", every)],
        "noise dropped": ["features.select.iv_above_noise=true"],
        "native trees": ['lineup.boosted_inputs="native"'],
    }


def _table(key: str, values: dict[str, Any]) -> str:
    return f"{key}={{{', '.join(f'{name} = {json.dumps(value)}' for name, value in values.items())}}}"


def measure(config: Path, say: Callable[[str], None]) -> dict[str, pl.DataFrame]:
    """Variant -> id, label and one column of probabilities a contender, on the rows that judge."""
    judged: dict[str, pl.DataFrame] = {}
    shallow = f"lineup.contenders={json.dumps(CONTENDERS)}"
    plain = load_portfolio(config, environ=os.environ)
    with tempfile.TemporaryDirectory() as scratch:
        for name, overrides in variants(plain).items():
            say(f"{config.stem}: {name}")
            folder = f'work="{scratch}/{name}"', f'publish.registry="{scratch}/registry"'
            loaded = load_portfolio(config, environ=os.environ, overrides=[shallow, *folder, *overrides])
            made = make_comparison(Bare(), loaded)
            judged[name] = pl.read_parquet(made.stages["compared"].folder / JUDGED).sort("id")
    return judged


def report(config: Path, judged: dict[str, pl.DataFrame]) -> list[dict[str, Any]]:
    """Print AUCs and paired differences from the default; the same as rows."""
    base = judged[BASE]
    label = base["label"].to_numpy()
    fitted = [name for name in CONTENDERS if name in base.columns]
    print(
        f"\n{config.stem}: AUC on {len(label):,} rows of the target's test, {int(label.sum()):,} bads; below it what a"
    )
    print("variant adds, * where the 95% interval of the paired difference (DeLong) leaves out 0")
    print(f"{'':18} " + " ".join(f"{name:>15}" for name in fitted))
    rows = []
    for variant, frame in judged.items():
        if not np.array_equal(frame["id"].to_numpy(), base["id"].to_numpy()):
            raise RuntimeError(f"{variant} was judged on other rows than {BASE}")
        cells = []
        for name in fitted:
            test = paired_test(label, frame[name].to_numpy(), base[name].to_numpy())
            rows.append({"config": config.stem, "variant": variant, "contender": name, **test.to_json()})
            is_beyond_noise = test.low is not None and test.high is not None and not test.low <= 0 <= test.high
            moved = f"{test.difference:+.3f}{'*' if is_beyond_noise else ' '}"
            cells.append(f"{auc_value(label, frame[name].to_numpy()):.3f} " if variant == BASE else moved)
        print(f"{variant:18} " + " ".join(f"{cell:>15}" for cell in cells))
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = [Path("configs/lending_club.toml"), Path("configs/taiwan_inactive.toml")]
    parser.add_argument("--config", type=Path, nargs="+", default=default)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    make_quiet(os.environ)
    logging.getLogger("crossrisk").setLevel(logging.ERROR)
    rows: list[dict[str, Any]] = []
    for config in options.config:
        rows += report(config, measure(config, lambda text: print(text, file=sys.stderr)))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()

"""What the gate does to models whose truth is known: equally good ones, better ones, broken ones.

    python benchmarks/bench_gate.py [--repeats 500] [--json]

Scores are binormal: log odds of goods and bads are normal with equal variance, so AUC is known exactly and the
probabilities are calibrated (p = prior odds times the likelihood ratio). Challenger and champion are correlated within
each class. Every comparison goes through the metrics that a run measures and through `decide`.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.special import betaincinv, expit, logit, ndtri

from crossrisk.config import GateConfig
from crossrisk.evidence import Evidence
from crossrisk.metrics import Difference
from crossrisk.metrics.calibration import calibration_slope, observed_expected
from crossrisk.metrics.delong import auc_metric, paired_test
from crossrisk.metrics.rows import scored
from crossrisk.policy import Decision, decide
from crossrisk.rules import alpha_of_look

Floats = NDArray[np.float64]

GOODS_PER_BAD = 13.7
"""of the article's target population: 4,800 goods, 350 bads"""
AUC = 0.70
MONTHS, WINDOW = 12, 6
"""monthly looks at the newest so many months of one champion"""
GATE = GateConfig()


@dataclass(frozen=True)
class Share:
    """How often something happened, with its exact 95% interval (Clopper and Pearson, Biometrika 26, 1934)."""

    count: int
    repeats: int

    @property
    def interval(self) -> tuple[float, float]:
        """In [0, 1]."""
        k, n = self.count, self.repeats
        low = betaincinv(k, n - k + 1, 0.025) if k else 0.0
        high = betaincinv(k + 1, n - k, 0.975) if k < n else 1.0
        return float(low), float(high)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.count / self.repeats:.1%} ({low:.1%} to {high:.1%})"


def draw(
    rng: np.random.Generator, bads: int, aucs: tuple[float, float], correlation: float
) -> tuple[Floats, Floats, Floats]:
    """Labels (N,) and calibrated probabilities (N,) of challenger and champion of known AUC."""
    goods = round(bads * GOODS_PER_BAD)
    label = np.repeat([1.0, 0.0], [bads, goods])
    shared, own = rng.normal(size=len(label)), rng.normal(size=(2, len(label)))
    noise = np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own
    models = []
    for auc, one in zip(aucs, noise, strict=True):
        distance = np.sqrt(2) * ndtri(auc)
        score = distance * label + one
        models.append(expit(distance * score - distance**2 / 2 + np.log(bads / goods)))
    return label, models[0], models[1]


def judge(label: Floats, challenger: Floats, champion: Floats, *, look: int = 1) -> Decision:
    """What the gate says of these scores. The numbers are those that `evaluate` gives."""
    rows = scored(label, challenger)
    test = paired_test(label, challenger, champion, confidence=1 - alpha_of_look(GATE.alpha, look))
    shown = Evidence(
        challenger="challenger",
        metrics={
            "auc": auc_metric(label, challenger, confidence=GATE.confidence),
            "observed_expected": observed_expected(rows),
            "calibration_slope": calibration_slope(rows),
        },
        champion=1,
        differences={"auc": Difference("auc", test.difference, test.low, test.high, test.status, test.p)},
        source_only=False,
        score_psi=0.0,
        latency_p95_ms=1.0,
        size_mb=1.0,
        look=look,
    )
    return decide(shown, GATE)


def promotions(gain: float, bads: int, correlation: float, repeats: int, seed: int) -> Share:
    """How often a challenger whose AUC is `gain` higher is promoted."""
    rng = np.random.default_rng(seed)
    verdicts = [judge(*draw(rng, bads, (AUC + gain, AUC), correlation)).verdict for _ in range(repeats)]
    return Share(verdicts.count("promote"), repeats)


def promotions_of_a_year(bads_a_month: int, correlation: float, repeats: int, seed: int) -> Share:
    """How often any of twelve monthly looks at overlapping windows replaces a champion by one no better."""
    rng = np.random.default_rng(seed)
    replaced = 0
    for _ in track(range(repeats), "a year of looks", console=Console(stderr=True), transient=True):
        months = [draw(rng, bads_a_month, (AUC, AUC), correlation) for _ in range(MONTHS + WINDOW - 1)]
        windows = (months[start : start + WINDOW] for start in range(MONTHS))
        looks = enumerate(windows, start=1)
        replaced += any(
            judge(*(np.concatenate(part) for part in zip(*window, strict=True)), look=look).verdict == "promote"
            for look, window in looks
        )
    return Share(replaced, repeats)


def regressions(bads: int, seed: int) -> dict[str, Decision]:
    """What the gate says of a challenger broken in one known way, the champion being the same model unbroken."""
    rng = np.random.default_rng(seed)
    label, good, champion = draw(rng, bads, (AUC, AUC), 0.8)
    broken = {
        "shuffled labels": expit(logit(rng.permutation(good))),
        "leaked target": expit(logit(good) + 3 * label - 1),
        "constant score": np.full_like(good, label.mean()),
        "PD doubled": np.minimum(2 * good, 1.0),
        "sign flipped": 1 - good,
    }
    return {name: judge(label, score, champion) for name, score in broken.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=500)
    parser.add_argument("--seed", type=int, default=20261120)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    console = Console(stderr=True)
    repeats, seed = options.repeats, options.seed

    cells = [(gain, bads, rho) for gain in (0.0, 0.01, 0.02, 0.05) for bads in (105, 350) for rho in (0.6, 0.8, 0.9)]
    power = {
        cell: promotions(*cell, repeats, seed) for cell in track(cells, "comparisons", console=console, transient=True)
    }
    year = promotions_of_a_year(60, 0.8, repeats, seed)
    broken = {bads: regressions(bads, seed) for bads in (105, 350)}

    if options.json:
        print(json.dumps(_plain(power, year, broken, repeats)))
        return
    out = Console(width=130, highlight=False)
    table = Table(title=f"promoted, of {repeats} comparisons each (AUC of the champion {AUC:.2f})")
    for heading in ("true gain in AUC", "bads", "correlation .6", ".8", ".9"):
        table.add_column(heading, justify="right")
    for gain in (0.0, 0.01, 0.02, 0.05):
        for bads in (105, 350):
            table.add_row(f"{gain:.2f}", str(bads), *(str(power[gain, bads, rho]) for rho in (0.6, 0.8, 0.9)))
    out.print(table)
    out.print(f"equally good, {MONTHS} monthly looks at {WINDOW} overlapping months of 60 bads each: replaced {year}")
    table = Table(title="broken challengers")
    for heading in ("what is broken", "bads", "verdict", "rule"):
        table.add_column(heading)
    for bads, found in broken.items():
        for name, decision in found.items():
            table.add_row(name, str(bads), decision.verdict, "; ".join(r.split(":")[0] for r in decision.reasons))
    out.print(table)


def _plain(power: dict[Any, Share], year: Share, broken: dict[int, dict[str, Decision]], repeats: int) -> Any:
    def share(one: Share) -> Any:
        return {**asdict(one), "interval": one.interval}

    return {
        "repeats": repeats,
        "promotions": [
            {"gain": gain, "bads": bads, "correlation": rho, **share(one)} for (gain, bads, rho), one in power.items()
        ],
        "a_year": share(year),
        "regressions": [
            {"broken": name, "bads": bads, "verdict": decision.verdict, "reasons": decision.reasons}
            for bads, found in broken.items()
            for name, decision in found.items()
        ],
    }


if __name__ == "__main__":
    sys.exit(main())

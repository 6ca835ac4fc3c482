"""The networks of the lineup, each trained in a child process: its memory ends with it, a crash there is a failed task.

What a training is lives in `models.deep`; which rows it sees and what the portfolio may change of it, here.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from prefect import task
from prefect.cache_policies import NO_CACHE

from crossrisk.config import Loaded, Portfolio
from crossrisk.contenders import ADAPTERS, NETWORKS, AdapterConfig, FineTunedConfig, KernelConfig, NetworkConfig
from crossrisk.errors import ConfigError, InputError
from crossrisk.registry import Champion, Registry
from crossrisk.registry.asking import plan_of
from crossrisk.store import Stage, stage
from models.child import run_worker
from models.deep.presets import preset_with_overrides
from models.lineup import needs_target_labels
from tasks.features import ENCODED, load_plan
from tasks.matrix import Part, read_parts
from tasks.progress import progress
from tasks.split import SOURCE_FIT, SOURCE_STOP, TARGET_FIT, TARGET_SELECT, TARGET_UNLABELLED

logger = logging.getLogger("crossrisk.networks")

HISTORY = "history.json"
MIN_BADS_TO_STOP = 150
"""Fewer bads in target_select do not decide a stop, but fine_tuned's: source_stop does. With 30 the stopping step was
drawn by lot, and the networks lost .01 to .03 AUC on real splits (docs/decisions/0014)."""
MIN_BADS_FOR_PRIOR = 10
"""of target_fit: fewer do not tell the target's bad rate, which is then estimated from scores. Ten tell it within a
third; on the demo the estimate was four times too high, because its populations differ by more than their bad rate."""
MIN_BADS_TO_CHOOSE = 30
"""Fewer bads in target_select do not choose the mmd_weight."""
MIN_BADS_TO_TUNE = 30
"""Fewer bads in target_select do not decide how far fine_tuned goes. Source rows cannot tell what the target's labels
are worth: they stopped every tuning at once (docs/decisions/0014)."""


def check_networks(portfolio: Portfolio) -> None:
    """Refuse a network of the lineup that cannot be trained as it is told, before any data are read.

    Raises:
        ConfigError: names the contender, what does not fit, and what would.
    """
    for name in filter(NETWORKS.__contains__, portfolio.contenders):
        try:
            preset_with_overrides(*_recipe(portfolio, name))
        except InputError as error:
            raise ConfigError(f"lineup.{name}: {error}") from error


@task(name="train network", task_run_name="train {name}", cache_policy=NO_CACHE)
def train_network(loaded: Loaded, name: str, encoded: Stage, fitted: Stage) -> Stage:
    """Train the contender's networks for every mmd_weight and seed; keep the smallest weight that the rows which choose
    cannot tell from the best (`models.deep.steps.choose_weight`).

    Files: the contender, history.json with every curve. Facts: `fitted`, and `reason` where it is False because too few
    target bads have matured; chosen mmd_weight, its AUC on the stop rows, how many these are, and how many more had no
    known label and were left out; the target's bad rate that rows were weighted to.

    Raises:
        TrainingError: the loss diverged, or the child was killed.
    """
    matrix = encoded.folder / ENCODED
    columns = load_plan(fitted).outputs
    target = read_parts(matrix, columns, [TARGET_FIT, TARGET_SELECT])
    bads = _fit_bads(target)
    spec = worker_spec(loaded, name, target)
    champion = _champion_to_start_from(loaded, name, columns)
    spec["start_version"] = champion.version if champion else None

    def build(folder: Path) -> dict[str, Any]:
        if needs_target_labels(name) and bads < loaded.portfolio.lineup.min_target_bads:
            least = loaded.portfolio.lineup.min_target_bads
            return {"fitted": False, "reason": f"{bads} matured target bads to fit on, at least {least} needed"}
        with progress(name) as report:
            facts = run_worker(
                "models.deep_worker",
                {
                    **spec,
                    "matrix": str(matrix),
                    "columns": list(columns),
                    "start": str(champion.folder) if champion else None,
                    "out": str(folder),
                },
                workdir=folder,
                on_event=lambda event: report(event["done"], event["total"], event["message"]),
            )
        used_target_labels = needs_target_labels(name) or spec["overrides"].get("use_target_labels", False)
        return {"fitted": True, "used_target_labels": used_target_labels, **facts}

    made = stage(loaded.folders.stages, f"train-{name}", {"encoded": encoded.digest, "spec": spec}, build)
    if not made.facts["fitted"]:
        logger.info("%s not fitted: %s", name, made.facts["reason"])
        return made
    logger.info("%s fitted: %s", name, {k: v for k, v in made.facts.items() if k != "fitted"})
    if made.facts["stop_rows_unknown"]:
        logger.info(
            "%d rows of %s have no known label and decided no stop; %d did",
            made.facts["stop_rows_unknown"],
            " and ".join(spec["parts"]["stop"]),
            made.facts["stop_rows"],
        )
    return made


def _champion_to_start_from(loaded: Loaded, name: str, columns: Sequence[str]) -> Champion | None:
    """The champion where fine_tuned is to start from it and it is a network on the same columns; said where not."""
    if name != "fine_tuned" or loaded.portfolio.lineup.fine_tuned.start != "champion":
        return None
    registry = Registry(loaded.folders.registry)
    champion = registry.champion()
    if champion is None:
        logger.info("fine_tuned starts from a network of the source: there is no champion yet")
        return None
    is_alike = champion.manifest["contender"] in NETWORKS and champion.manifest.get("preset") == loaded.portfolio.preset
    if not is_alike or plan_of(registry, champion).outputs != tuple(columns):
        logger.info(
            "fine_tuned starts from a network of the source: champion %d is %s, of another preset or on other columns",
            champion.version,
            champion.manifest["contender"],
        )
        return None
    return champion


def worker_spec(loaded: Loaded, name: str, target: Part) -> dict[str, Any]:
    """All but the paths of what the child is told."""
    portfolio = loaded.portfolio
    settings: NetworkConfig = getattr(portfolio.lineup, name)
    seed = portfolio.lineup.seed
    preset, overrides = _recipe(portfolio, name)
    article = preset == "article"
    bads, fit_labels = _fit_bads(target), _fit_labels(target)
    enough = bads >= portfolio.lineup.min_target_bads
    knows_rate = bads >= MIN_BADS_FOR_PRIOR and bads < len(fit_labels)
    select_bads = np.nansum(target.label[(target.parts == TARGET_SELECT).to_numpy()])
    to_stop = MIN_BADS_TO_TUNE if name == "fine_tuned" else MIN_BADS_TO_STOP
    # the source's own network takes nothing from the target, its stop included
    stops, chooses = (
        TARGET_SELECT if article or (name != "source_network" and select_bads >= least) else SOURCE_STOP
        for least in (to_stop, MIN_BADS_TO_CHOOSE)
    )
    if isinstance(settings, AdapterConfig) and not article:
        overrides["use_target_labels"] = bool(settings.use_target_labels and enough)
    return {
        "name": name,
        "preset": preset,
        "overrides": overrides,
        "parts": {
            "source_fit": [SOURCE_FIT],
            "target_fit": [TARGET_UNLABELLED if article else TARGET_FIT],
            "stop": [stops],
            "choose": [chooses],
            "held_out": [] if article else [SOURCE_STOP],
        },
        "mmd_weights": list(settings.mmd_weights) if isinstance(settings, AdapterConfig) and not article else [0.0],
        "seeds": [seed] if article else list(range(seed, seed + settings.seeds)),
        "target_prior": float(fit_labels.mean()) if knows_rate and not article and name in ADAPTERS else None,
        "prior_rule": settings.prior if isinstance(settings, AdapterConfig) and not article else None,
    }


def _recipe(portfolio: Portfolio, name: str) -> tuple[str, dict[str, Any]]:
    """Name of the preset, and what the portfolio changes of it; of the article's nothing but its length."""
    overrides = overrides_of(getattr(portfolio.lineup, name))
    if portfolio.preset == "article" and name == "dan":
        return "article", {key: value for key, value in overrides.items() if key == "max_steps"}
    return name, overrides


def overrides_of(settings: NetworkConfig) -> dict[str, Any]:
    """What the portfolio changes of the preset, as fields of `models.deep.spec.DeepSpec`."""
    plain = ("max_steps", "learning_rate", "hidden", "dropout", "schedule", "warm_up_steps", "layers", "row_weights")
    found = _given(settings, {name: name for name in (*plain, "estimator")})
    if isinstance(settings, KernelConfig):
        kernels = {"bandwidth": "bandwidth", "fix_sigma": "sigma", "kernel_num": "num", "kernel_mul": "mul"}
        found |= {"kernels": given} if (given := _given(settings, kernels)) else {}
    if isinstance(settings, FineTunedConfig):
        stage = {
            "tuning_rate": "learning_rate",
            "layer_decay": "layer_decay",
            "head_steps": "head_steps",
            "thaw_every": "thaw_every",
            "tuning_steps": "max_steps",
        }
        found |= {"fine_tuning": given} if (given := _given(settings, stage)) else {}
    return found


def _given(settings: NetworkConfig, names: dict[str, str]) -> dict[str, Any]:
    """Our key -> the recipe's field, of those that are set."""
    values = settings.model_dump(mode="json")
    return {field: values[key] for key, field in names.items() if values.get(key) is not None}


def _fit_labels(target: Part) -> Any:
    labels = target.label[(target.parts == TARGET_FIT).to_numpy()]
    return labels[~np.isnan(labels)]


def _fit_bads(target: Part) -> int:
    return int(_fit_labels(target).sum())

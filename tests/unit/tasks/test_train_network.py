"""What the child that trains a network is told: rows by role, priors, what the portfolio changes of the preset."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from builders import FLOW_TOML, portfolio
from registries import publish

from crossrisk.config import Loaded
from crossrisk.contenders import ADAPTERS, NETWORKS, FineTunedConfig, KernelConfig, NetworkConfig
from crossrisk.errors import ConfigError
from crossrisk.registry import Registry
from crossrisk.store import Stage
from models.deep.presets import PRESETS, preset_with_overrides
from tasks import train_network as task
from tasks.matrix import Part
from tasks.train_network import check_networks, overrides_of, train_network, worker_spec

MANY = 200


def loaded(folder: Path, *overrides: str) -> Loaded:
    return portfolio(folder, toml=FLOW_TOML, overrides=overrides)


def target(fit_bads: int, select_bads: int, *, unknown: int = 0) -> Part:
    """Rows of the target: a tenth of each part is bad, and so many more rows of target_fit have no known label."""
    labels = {
        "target_fit": [1.0] * fit_bads + [0.0] * 9 * fit_bads + [np.nan] * unknown,
        "target_select": [1.0] * select_bads + [0.0] * 9 * select_bads + [np.nan] * unknown,
    }
    parts = pl.Series([part for part, own in labels.items() for _ in own])
    label = np.array([value for own in labels.values() for value in own])
    return Part(pl.Series(range(len(label))), parts, np.zeros((len(label), 1), np.float32), label)


def spec_of(folder: Path, name: str, rows: Part, *overrides: str) -> dict[str, Any]:
    return worker_spec(loaded(folder, *overrides), name, rows)


# --- rows ---


@pytest.mark.parametrize(
    ("select_bads", "stops", "chooses"),
    [(MANY, "target_select", "target_select"), (150, "target_select", "target_select"),
     (149, "source_stop", "target_select"), (30, "source_stop", "target_select"), (29, "source_stop", "source_stop")],
)  # fmt: skip
def test_few_target_bads_decide_no_stop_and_fewer_choose_no_weight(
    tmp_path: Path, select_bads: int, stops: str, chooses: str
) -> None:
    parts = spec_of(tmp_path, "dan", target(MANY, select_bads, unknown=5))["parts"]
    assert (parts["stop"], parts["choose"]) == ([stops], [chooses])


@pytest.mark.parametrize(("select_bads", "stops"), [(30, "target_select"), (29, "source_stop")])
def test_the_target_decides_how_far_fine_tuned_goes_from_30_bads_on(
    tmp_path: Path, select_bads: int, stops: str
) -> None:
    assert spec_of(tmp_path, "fine_tuned", target(MANY, select_bads))["parts"]["stop"] == [stops]


def test_the_sources_own_network_takes_nothing_from_the_target(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "source_network", target(MANY, MANY))
    assert (spec["parts"]["stop"], spec["parts"]["choose"]) == (["source_stop"], ["source_stop"])
    assert (spec["target_prior"], spec["prior_rule"], spec["mmd_weights"]) == (None, None, [0.0])
    assert PRESETS["source_network"].use_target_labels is False


# --- labels and prior ---


@pytest.mark.parametrize("name", ADAPTERS)
def test_adapters_learn_from_target_labels_and_their_bad_rate_where_they_are_enough(tmp_path: Path, name: str) -> None:
    next_to_none, few, enough = (spec_of(tmp_path, name, target(bads, MANY, unknown=300)) for bads in (9, 19, 20))
    assert (next_to_none["target_prior"], next_to_none["prior_rule"]) == (None, "bbse")
    assert (few["overrides"]["use_target_labels"], few["target_prior"]) == (False, pytest.approx(0.1))
    assert (enough["overrides"]["use_target_labels"], enough["target_prior"]) == (True, pytest.approx(0.1))


def test_target_labels_that_the_portfolio_forbids_are_not_learnt_from(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "dan", target(MANY, MANY), "lineup.dan.use_target_labels=false", "lineup.dan.prior=em")
    assert spec["overrides"]["use_target_labels"] is False
    assert spec["prior_rule"] == "em"


def test_the_article_is_told_its_rows_and_its_seed_alone(tmp_path: Path) -> None:
    changes = ("preset=article", "lineup.dan.hidden=[8, 4]", "lineup.dan.max_steps=40", "lineup.dan.seeds=5")
    spec = spec_of(tmp_path, "dan", target(MANY, 3), *changes)
    assert spec["preset"] == "article"
    assert spec["overrides"] == {"max_steps": 40}
    assert spec["parts"]["target_fit"] == ["target_unlabelled"]
    assert spec["parts"]["stop"] == ["target_select"]
    assert (len(spec["seeds"]), spec["target_prior"], spec["prior_rule"]) == (1, None, None)


def test_seeds_count_up_from_the_lineups(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "dsan", target(MANY, MANY), "lineup.seed=40", "lineup.dsan.seeds=3")
    assert spec["seeds"] == [40, 41, 42]


# --- what the portfolio changes ---


def test_what_the_portfolio_leaves_out_is_the_presets() -> None:
    assert overrides_of(NetworkConfig()) == overrides_of(KernelConfig()) == overrides_of(FineTunedConfig()) == {}


def test_kernels_and_the_second_stage_are_tables_of_their_own() -> None:
    kernels = KernelConfig(bandwidth="fixed", fix_sigma=2.0, kernel_num=3, kernel_mul=4.0, estimator="unbiased")
    assert overrides_of(kernels) == {
        "estimator": "unbiased",
        "kernels": {"bandwidth": "fixed", "sigma": 2.0, "num": 3, "mul": 4.0},
    }
    tuned = FineTunedConfig(tuning_rate=0.01, head_steps=0, tuning_steps=7, max_steps=9)
    assert overrides_of(tuned) == {
        "max_steps": 9, "fine_tuning": {"learning_rate": 0.01, "head_steps": 0, "max_steps": 7},
    }  # fmt: skip


EVERY_SETTING: dict[str, list[str]] = {
    "network": ["max_steps=90", "learning_rate=0.1", "hidden=[8, 4, 2]", "dropout=0.1"],
    "adapter": ["schedule='warm_up'", "warm_up_steps=5", "row_weights='equal'"],
    "kernels": [
        "estimator='unbiased'",
        "bandwidth='fixed'",
        "fix_sigma=1.0",
        "kernel_mul=3.0",
        "row_weights='class_conditional'",
    ],
    "tuning": ["tuning_rate=0.1", "layer_decay=3.0", "head_steps=1", "thaw_every=2", "tuning_steps=80"],
}


@pytest.mark.parametrize("name", NETWORKS)
def test_everything_that_a_portfolio_may_change_is_understood_by_the_worker(tmp_path: Path, name: str) -> None:
    kinds = ["network"]
    kinds += ["adapter"] if name in ADAPTERS else []
    kinds += ["kernels"] if name in ("dan", "ddc", "dsan") else []
    kinds += ["tuning"] if name == "fine_tuned" else []
    changes = [f"lineup.{name}.{one}" for kind in kinds for one in EVERY_SETTING[kind]]
    if name in ADAPTERS:
        changes.append(f"lineup.{name}.layers=['{'last_hidden' if name == 'ddc' else 'hidden_1'}']")
    spec = spec_of(tmp_path, name, target(MANY, MANY), *changes)
    recipe = preset_with_overrides(spec["preset"], spec["overrides"])
    assert (recipe.hidden, recipe.max_steps, recipe.learning_rate) == ((8, 4, 2), 90, 0.1)
    assert recipe.method == PRESETS[name].method
    if "kernels" in kinds:
        assert (recipe.kernels.sigma, recipe.kernels.mul) == (1.0, 3.0)
    if "tuning" in kinds:
        assert (recipe.fine_tuning.thaw_every, recipe.fine_tuning.max_steps) == (2, 80)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("dan", ["layers=['hidden_5']"], "lineup.dan: .*'hidden_5', which a network of .* has not; it has last_hidden"),
        ("dan", ["estimator='linear'", "row_weights='class_conditional'"], 'needs estimator "biased" or "unbiased"'),
        ("dsan", ["estimator='linear'"], 'lineup.dsan: .*needs estimator "biased" or "unbiased"'),
        ("ddc", ["kernel_num=3"], "lineup.ddc: .*take dan for more"),
        ("dann", ["row_weights='class_conditional'"], "lineup.dann: .*no distance for each class"),
        ("dan", ["max_steps=10"], "lineup.dan: .*give at least 20"),
        ("fine_tuned", ["tuning_steps=10"], "lineup.fine_tuned: .*give at least 20"),
    ],
)
def test_a_network_that_cannot_be_trained_as_told_is_refused_before_data_are_read(
    tmp_path: Path, name: str, changes: list[str], message: str
) -> None:
    told = [f"lineup.{name}.{change}" for change in changes]
    with pytest.raises(ConfigError, match=message):
        check_networks(loaded(tmp_path, f"lineup.contenders=['{name}']", *told).portfolio)
    check_networks(loaded(tmp_path, "lineup.contenders=['source_logistic']", *told).portfolio)


def test_the_article_takes_nothing_of_the_portfolios_recipe_but_its_length(tmp_path: Path) -> None:
    check_networks(loaded(tmp_path, "preset='article'", "lineup.dan.layers=['hidden_5']").portfolio)


# --- the champion as a start ---


@pytest.fixture
def of_champion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int | None]:
    """Which version fine_tuned starts from, where this contender is the champion, on the one column x."""

    class Plan:
        outputs = ("x",)

    monkeypatch.setattr(task, "plan_of", lambda *_: Plan)

    def start(
        contender: str | None, *, columns: tuple[str, ...] = ("x",), rule: str = "champion", preset: str = "honest"
    ) -> int | None:
        home = loaded(tmp_path, f"lineup.fine_tuned.start={rule}")
        if contender is not None:
            publish(Registry(home.folders.registry), 1_700_000_000, contender=contender, preset=preset)
        found = task._champion_to_start_from(home, "fine_tuned", columns)
        return None if found is None else found.version

    return start


@pytest.mark.parametrize("contender", NETWORKS)
def test_a_champion_that_is_a_network_on_the_same_columns_is_started_from(
    of_champion: Callable[..., int | None], contender: str
) -> None:
    assert of_champion(contender) == 1_700_000_000


@pytest.mark.parametrize(
    ("contender", "changes"),
    [
        (None, {}),
        ("source_logistic", {}),
        ("dan", {"columns": ("x", "y")}),
        ("dan", {"rule": "source"}),
        ("dan", {"preset": "article"}),
    ],
)
def test_otherwise_the_sources_network_is_tuned(
    of_champion: Callable[..., int | None], contender: str | None, changes: dict[str, Any]
) -> None:
    assert of_champion(contender, **changes) is None


# --- few labels ---


def test_fine_tuning_without_enough_target_bads_is_not_fitted_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = target(12, MANY)

    class Plan:
        outputs = ("x",)

    monkeypatch.setattr(task, "read_parts", lambda *_: rows)
    monkeypatch.setattr(task, "load_plan", lambda _: Plan)
    monkeypatch.setattr(task, "run_worker", lambda *_, **__: pytest.fail("a child was started"))
    stage = Stage("encoded", tmp_path, "ab" * 8, reused=False, seconds=0.0, facts={})
    made = train_network.fn(loaded(tmp_path), "fine_tuned", stage, stage)
    assert made.facts == {"fitted": False, "reason": "12 matured target bads to fit on, at least 20 needed"}

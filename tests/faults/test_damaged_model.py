"""Row 8: a staged SavedModel that lost a shard, a byte or a name is refused by its verification; a real one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from builders import loans
from deaths import assert_settled
from registries import accept

from crossrisk.errors import PublishError
from crossrisk.features import FitSettings, RowPlan, encoding_expressions, fit_plan, rowwise_expressions
from crossrisk.registry import Registry, locked, publish_version, staging_folder
from crossrisk.scoring import Scaling
from models.child import run_worker
from models.fitted import Calibration, Contender, Network, save_contender
from tasks.publish import GOLDEN, verify_bundle

pytestmark = pytest.mark.heavy

NOW = 1_700_000_000
ROWS = RowPlan(
    decision_date="opened_on",
    numbers=("income_usd", "balance_usd"),
    categories=("region",),
    sentinels=(),
    ratios=(),
    ages=(),
)


@pytest.fixture(scope="module")
def verified(tmp_path_factory) -> Path:
    """A bundle as tasks.publish writes it: a network behind raw columns, and what it must say."""
    folder = tmp_path_factory.mktemp("bundle")
    frame = loans(400)
    plan = fit_plan(
        frame.select(rowwise_expressions(ROWS)), ROWS, FitSettings(clip_quantiles=(0.01, 0.99), min_level_rows=10)
    )
    encoded = frame.select(rowwise_expressions(ROWS)).select(encoding_expressions(plan)).to_numpy().astype(np.float32)
    rng = np.random.default_rng(8)
    shapes = [(encoded.shape[1], 32), (32, 1)]
    network = Network(
        weights=tuple(rng.normal(0, 0.5, (1, *shape)).astype(np.float32) for shape in shapes),
        biases=tuple(np.zeros((1, shape[1]), np.float32) for shape in shapes),
        activation="relu",
    )
    contender = Contender("dan", network, Calibration(0.0, 1.0), ())
    (folder / "contender").mkdir()
    save_contender(contender, folder / "contender")
    (folder / "plan.json").write_text(plan.model_dump_json())
    (folder / "bundle" / "companions").mkdir(parents=True)
    probability = pl.Series("probability", contender.probability(encoded))
    frame.with_columns(probability).write_parquet(folder / "bundle" / "companions" / GOLDEN)
    spec = {
        "mode": "export",
        "directory": str(folder / "bundle" / "model"),
        "plan": str(folder / "plan.json"),
        "contender": str(folder / "contender"),
        "scaling": Scaling(score_at_odds=600.0, odds=30.0, points_to_double=20.0).to_json(),
    }
    run_worker("models.export_worker", spec, workdir=folder, failure=PublishError)
    return folder / "bundle"


def lose_the_shard(model: Path) -> None:
    next((model / "variables").glob("*.data-*")).unlink()


def flip_a_byte(model: Path) -> None:
    shard = next((model / "variables").glob("*.data-*"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 3] ^= 0x40
    shard.write_bytes(content)


def rename_the_index(model: Path) -> None:
    (model / "variables" / "variables.index").rename(model / "variables" / "variables.inde")


def cut_the_graph(model: Path) -> None:
    graph = model / "saved_model.pb"
    graph.write_bytes(graph.read_bytes()[:-100])


def lose_the_graph(model: Path) -> None:
    (model / "saved_model.pb").unlink()


def lose_the_variables(model: Path) -> None:
    shutil.rmtree(model / "variables")


DAMAGES = (lose_the_shard, flip_a_byte, rename_the_index, cut_the_graph, lose_the_graph, lose_the_variables)


def stage(registry: Registry, bundle: Path, verify: Callable[[Path], None], damage: Callable[[Path], object]) -> None:
    with locked(registry), staging_folder(registry) as folder:
        shutil.copytree(bundle, folder, dirs_exist_ok=True)
        damage(folder / "model")
        record = {"kind": "decision", "run_id": "r", "as_of": "2024-12-31", "decision": {"verdict": "promote"}}
        publish_version(registry, folder, {"identity": "x"}, record, now=NOW, verify=verify)


@pytest.mark.fault(8)
def test_the_model_as_it_was_verified_is_published(tmp_path, verified):
    registry = Registry(tmp_path / "r")
    stage(registry, verified, verify_bundle, accept)
    assert assert_settled(registry) == NOW


@pytest.mark.fault(8)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_model_is_refused_and_nothing_numbered_exists(tmp_path, verified, damage):
    registry = Registry(tmp_path / "r")
    with pytest.raises(PublishError, match=r"cannot be read by|differ by up to"):
        stage(registry, verified, verify_bundle, damage)
    assert registry.versions() == []
    assert registry.records() == []
    assert not (registry.root / "staging").exists()

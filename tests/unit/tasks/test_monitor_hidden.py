"""Rules of the watch over hidden features: a real network's layer, the month against the golden batch, noise told."""

import polars as pl
import pytest
from builders import TOML, portfolio
from contenders import PLAN, REFERENCE, SCALING, loans, network
from registries import publish

from crossrisk.registry import Registry
from crossrisk.store import stage
from models.bundle import export
from models.fitted import Contender
from tasks.monitor import MONTHS, Watched
from tasks.monitor_hidden import compare_hidden
from tasks.publish import GOLDEN

pytestmark = pytest.mark.flow  # TensorFlow starts anew for every case

MONTH = "2024-05"


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """A published network with a golden batch beside it."""
    loaded = portfolio(tmp_path_factory.mktemp("hidden"), toml=TOML)
    registry = Registry(loaded.folders.registry)

    def write(model):
        export(PLAN, Contender("dan", network("relu")), SCALING, model, reference=REFERENCE)

    champion = publish(registry, 1_700_000_000, write=write, signatures=["embedding", "serving_default"])
    loans(400, seed=8).write_parquet(registry.companion_path(champion.version, GOLDEN))
    return loaded, Watched(champion, None, registry.root)


def compare(watched, rows, month=MONTH):
    loaded, champion = watched
    frame = rows.with_columns(month=pl.lit(month))

    def build(folder):
        frame.write_parquet(folder / MONTHS)
        return {}

    digest = str(frame.hash_rows().sum())
    collected = stage(loaded.folders.stages, "watched_months", {"rows": digest}, build)
    return compare_hidden.fn(loaded, champion, collected, MONTH).facts


def test_a_month_like_the_golden_batch_is_noise_and_a_shifted_one_is_not(watched):
    quiet = compare(watched, loans(400, seed=9))
    assert quiet["status"] == "ok"
    assert (quiet["n_first"], quiet["n_second"]) == (400, 400)
    assert quiet["p"] > 0.01
    moved = compare(watched, loans(400, seed=9).with_columns(debt_usd=pl.col("debt_usd") * 6, has_phone=pl.lit(False)))
    assert moved["p"] < 0.01
    assert moved["mmd2"] > 5 * moved["null_sd"]


def test_a_month_without_rows_is_a_small_sample(watched):
    assert compare(watched, loans(50, seed=3), month="2024-04") == {"status": "small sample"}


def test_a_version_without_hidden_layer_or_golden_batch_is_told_as_such(watched):
    loaded, champion = watched
    bare = Watched(champion.champion, None, champion.seen)
    bare.champion.manifest["signatures"] = ["serving_default"]
    try:
        assert compare((loaded, bare), loans(20, seed=5)) == {"status": "no network"}
    finally:
        bare.champion.manifest["signatures"] = ["embedding", "serving_default"]
    golden = Registry(loaded.folders.registry).companion_path(champion.champion.version, GOLDEN)
    golden.rename(golden.with_suffix(".away"))
    try:
        assert compare(watched, loans(20, seed=6)) == {"status": "no golden batch"}
    finally:
        golden.with_suffix(".away").rename(golden)

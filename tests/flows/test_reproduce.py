"""Rules of reproduction, on a small portfolio against a real Prefect server: published numbers come out again."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import date
from pathlib import Path

import polars as pl
import pytest
from builders import FLOW_TOML, loans_with_noise

from crossrisk.registry import Registry, digest_tree
from expectations import load_suites
from flows.cli import main
from flows.retrain import retrain

pytestmark = [pytest.mark.flow, pytest.mark.usefixtures("prefect_server")]

# two ratios in an order that is not that of the alphabet: what JSON sorts must come back as it was
TOML = FLOW_TOML.replace(
    "balance_to_income =",
    'z_first = ["income_usd", "balance_usd"]\na_second = ["n1", "income_usd"]\nbalance_to_income =',
).replace('path = "loans.parquet"', 'path = "loans*.parquet"')
SECOND = ("as_of=2025-01-31", "gate.approval=required", "lineup.contenders=['source_logistic']")


class Portfolio:
    """A portfolio in a folder of its own, driven by the command line."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = str(folder / "mini.toml")
        self.registry = Registry(folder / "registry" / "mini")
        self.data = folder / "data" / "loans.parquet"

    def reproduce(self, capsys, version, *options):
        capsys.readouterr()
        code = main(["reproduce", self.config, str(version), "--json", *options])
        return code, json.loads(capsys.readouterr().out)


@pytest.fixture(scope="module")
def after_two_versions(tmp_path_factory) -> Path:
    """A champion, and a second version approved over it; then all of work/ is gone, and new data have come."""
    folder = tmp_path_factory.mktemp("published")
    (folder / "data").mkdir()
    loans_with_noise().write_parquet(folder / "data" / "loans.parquet")
    (folder / "mini.toml").write_text(TOML)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CROSSRISK_HOME", str(folder))
        patch.delenv("CROSSRISK_DATA", raising=False)
        config = str(folder / "mini.toml")
        assert retrain(config=config)["verdict"] == "bootstrap"
        result = retrain(config=config, overrides=list(SECOND), requested_by="Ada")
        said = ["--by", "Grace", "--reason", "seen"]
        decision = "approve" if result["verdict"] == "needs_approval" else "override"
        assert main(["promote", config, "--run", result["run_id"], "--decision", decision, *said]) == 0
    shutil.rmtree(folder / "work")
    later = loans_with_noise(200, seed=5).with_columns(pl.col("loan_id") + 10_000, opened_on=pl.lit(date(2025, 3, 1)))
    later.write_parquet(folder / "data" / "loans_later.parquet")
    return folder


@pytest.fixture
def mini(after_two_versions, tmp_path, monkeypatch) -> Portfolio:
    shutil.copytree(after_two_versions, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("CROSSRISK_HOME", str(tmp_path))
    monkeypatch.delenv("CROSSRISK_DATA", raising=False)
    return Portfolio(tmp_path)


def test_every_published_number_comes_out_again_and_nothing_else_is_touched(mini, capsys):
    before = digest_tree(mini.registry.root)
    code, result = mini.reproduce(capsys, mini.registry.versions()[0])
    assert [line for line in result["lines"] if not line["same"]] == []
    assert (code, result["reproduced"], result["warnings"]) == (0, True, [])
    names = {line["name"] for line in result["lines"]}
    assert {"auc", "ks", "brier", "challenger", "input", "plan", "weights"} <= names
    assert digest_tree(mini.registry.root) == before
    assert [path.name for path in mini.folder.glob("work/mini/*")] == ["reproducing"]
    assert list(mini.folder.glob("work/mini/reproducing/*")) == []


def test_an_approved_version_is_re_derived_against_the_champion_of_then_though_its_own_model_is_gone(mini, capsys):
    first, second = mini.registry.versions()
    assert json.loads(mini.registry.manifest_path(second).read_text())["compared_with"] == first
    shutil.rmtree(mini.registry.models / str(second))
    code, result = mini.reproduce(capsys, second)
    assert (code, result["reproduced"], result["warnings"]) == (0, True, [])


def test_one_changed_byte_of_the_data_is_named_before_anything_is_computed(mini, capsys):
    content = bytearray(mini.data.read_bytes())
    content[100] ^= 1
    mini.data.write_bytes(content)
    code, said = mini.reproduce(capsys, mini.registry.versions()[0])
    assert code == 2
    assert "loans.parquet has changed (SHA-256 " in said["message"]
    assert not (mini.folder / "work").exists()


def test_everything_that_is_gone_is_named_at_once(mini, capsys):
    first, second = mini.registry.versions()
    mini.data.unlink()
    shutil.rmtree(mini.registry.models / str(first))
    code, said = mini.reproduce(capsys, second)
    assert code == 2
    assert "loans.parquet is gone from" in said["message"]
    assert f"champion {first}, with which it was compared: version {first} is not in" in said["message"]


def test_a_manifest_that_was_changed_is_no_record(mini, capsys):
    version = mini.registry.versions()[0]
    path = mini.registry.manifest_path(version)
    path.write_text(path.read_text().replace('"preset": "honest"', '"preset": "article"'))
    code, said = mini.reproduce(capsys, version)
    assert (code, said["error"]) == (4, "PublishError")
    assert "was changed after" in said["message"]


def test_numbers_that_do_not_come_out_again_are_named_with_what_may_be_why(mini, capsys, monkeypatch):
    monkeypatch.setattr("tasks.validate.load_suites", other_suites)
    monkeypatch.setattr("tasks.publish.digest_file", lambda path: "another plan")
    version = mini.registry.versions()[1]
    assert main(["reproduce", mini.config, str(version), "--keep", str(mini.folder / "kept")]) == 4
    printed = capsys.readouterr().out
    assert "differ: plan" in printed
    assert "step validate was made from suites of expectations" in printed
    assert list((mini.folder / "kept").glob("work/stages/compared/*/stage.json"))


def other_suites(names, roles):
    return replace(load_suites(names, roles), name="another")


def test_a_version_that_never_was_is_refused_with_those_that_were(mini, capsys):
    code, said = mini.reproduce(capsys, 17)
    assert code == 2
    assert f"published, newest first: {', '.join(map(str, reversed(mini.registry.versions())))}" in said["message"]


def test_a_folder_to_keep_that_holds_something_is_refused(mini, capsys):
    code, said = mini.reproduce(capsys, mini.registry.versions()[0], "--keep", str(mini.folder / "data"))
    assert code == 2
    assert "is not empty" in said["message"]

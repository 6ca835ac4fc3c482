"""Rules of versions, lock and ledger."""

import json
import multiprocessing
import time

import pytest

from crossrisk.errors import PublishError
from crossrisk.registry import (
    Registry,
    append_ledger,
    locked,
    place_version,
    read_ledger,
    staging_folder,
)


def publish_one(registry, now, text="model"):
    with locked(registry), staging_folder(registry) as folder:
        staged = folder / "model"
        staged.mkdir()
        (staged / "saved_model.pb").write_text(text)
        return place_version(registry, staged, {"contender": "stacked"}, now=now)


def test_versions_are_unix_seconds_and_never_go_back(tmp_path):
    registry = Registry(tmp_path / "r")
    assert registry.champion() is None
    versions = [publish_one(registry, now).version for now in (1_700_000_000.9, 1_700_000_000.2, 1_600_000_000, 1.8e9)]
    assert versions == [1_700_000_000, 1_700_000_001, 1_700_000_002, 1_800_000_000]
    names = [p.name for p in registry.models.iterdir()]
    assert max(names) == str(max(map(int, names))) == str(registry.champion().version)


def test_a_number_is_not_reused_after_its_version_is_gone(tmp_path):
    registry = Registry(tmp_path / "r")
    gone = publish_one(registry, 1_700_000_000)
    gone.folder.rename(tmp_path / "elsewhere")
    assert publish_one(registry, 1_700_000_000).version == 1_700_000_001


def test_a_failure_before_the_rename_leaves_no_version_and_no_staging(tmp_path):
    registry = Registry(tmp_path / "r")

    def fail():
        with locked(registry), staging_folder(registry) as folder:
            (folder / "half").write_text("x")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert registry.versions() == []
    assert not (registry.root / "staging").exists()


def test_a_changed_byte_of_the_champion_is_found(tmp_path):
    registry = Registry(tmp_path / "r")
    champion = publish_one(registry, 1_700_000_000)
    (champion.folder / "saved_model.pb").write_text("other")
    with pytest.raises(PublishError, match=r"saved_model\.pb"):
        registry.champion()


def test_a_version_without_manifest_is_not_trusted(tmp_path):
    registry = Registry(tmp_path / "r")
    (registry.models / "17").mkdir(parents=True)
    with pytest.raises(PublishError, match="no manifest"):
        registry.champion()


@pytest.mark.parametrize("name", ["0007", "-1", "+5", "12a", "tmp"])
def test_a_stranger_in_the_base_path_is_reported_and_never_a_version(tmp_path, name):
    registry = Registry(tmp_path / "r")
    first = publish_one(registry, 1_700_000_000)
    (registry.models / name).mkdir()
    assert registry.versions() == [first.version]
    with pytest.raises(PublishError, match="no version of ours"):
        publish_one(registry, 1_700_000_001)
    assert registry.versions() == [first.version]


def test_the_ledger_is_a_chain_and_a_changed_line_is_found(tmp_path):
    registry = Registry(tmp_path)
    with locked(registry):
        for number in range(3):
            append_ledger(registry, {"number": number})
    records = read_ledger(registry)
    assert [r["number"] for r in records] == [0, 1, 2]
    assert records[1]["previous"] == records[0]["digest"]
    lines = registry.ledger.read_text().splitlines()
    changed = json.loads(lines[1]) | {"number": 9}
    registry.ledger.write_text("\n".join([lines[0], json.dumps(changed), lines[2]]))
    with pytest.raises(PublishError, match="line 2 was changed"):
        read_ledger(registry)
    registry.ledger.write_text("\n".join([lines[0], lines[2]]))
    with pytest.raises(PublishError, match="line 2 was changed"):
        read_ledger(registry)


def _publish_many(root, rounds):
    for _ in range(rounds):
        publish_one(Registry(root), time.time())


def test_publishers_at_once_get_distinct_increasing_versions(tmp_path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_publish_many, args=(tmp_path / "r", 5)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    registry = Registry(tmp_path / "r")
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert len(registry.versions()) == 15
    assert registry.champion().version == max(registry.versions())


def test_a_held_lock_is_waited_for_and_then_named(tmp_path):
    registry = Registry(tmp_path)
    with locked(registry), pytest.raises(PublishError, match="another publisher"), locked(registry, timeout_s=0.2):
        pass

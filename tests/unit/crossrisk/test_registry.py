"""Rules of versions, lock and ledger."""

import json
import multiprocessing
import shutil
import threading
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
        placed = place_version(registry, staged, {"contender": "stacked"}, now=now)
        append_ledger(registry, {"run_id": f"run-{placed.version}", "version": placed.version})
        return placed


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


# --- a registry that contradicts itself ---


@pytest.fixture
def registry(tmp_path):
    """Three versions and a decision that published nothing."""
    made = Registry(tmp_path / "r")
    for now in (1_700_000_000, 1_700_000_001, 1_700_000_002):
        publish_one(made, now)
    with locked(made):
        append_ledger(made, {"run_id": "kept", "version": None})
    return made


FIRST, SECOND, THIRD = 1_700_000_000, 1_700_000_001, 1_700_000_002


def withdraw(registry, version):
    (registry.models / str(version)).rename(registry.root / f"withdrawn-{version}")


def test_emptied_models_are_no_first_run(registry):
    shutil.rmtree(registry.models)
    said = rf"version {THIRD} was published, as the ledger and champion\.json and a manifest says, but models holds no"
    with pytest.raises(PublishError, match=said) as refused:
        registry.champion()
    for move in (f"restore models/{THIRD}", f"empty folder withdrawn-{THIRD}", f"move {registry.root} aside"):
        assert move in str(refused.value)


@pytest.mark.parametrize("kept", ["ledger.jsonl", "champion.json", "manifests"])
def test_each_trace_of_a_version_alone_keeps_it_from_being_forgotten(registry, kept):
    for path in registry.root.iterdir():
        if path.name != kept:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(PublishError, match=r"was published, as .* says, but models holds no version"):
        registry.champion()


def test_a_champion_that_is_gone_does_not_hand_over_in_silence(registry):
    shutil.rmtree(registry.models / str(THIRD))
    with pytest.raises(PublishError, match=f"version {THIRD} was published.*models holds 2, the newest {SECOND}"):
        registry.champion()
    (registry.root / f"withdrawn-{THIRD}").mkdir()
    assert registry.champion().version == SECOND


@pytest.mark.parametrize("text", [None, ""])
def test_versions_without_a_ledger_are_refused(registry, text):
    registry.ledger.unlink() if text is None else registry.ledger.write_text(text)
    said = rf"holds version {THIRD}, but ledger\.jsonl is empty or not there; restore it"
    with pytest.raises(PublishError, match=said):
        registry.champion()


def test_a_ledger_that_ends_before_the_last_publication_is_refused(registry):
    lines = registry.ledger.read_text().splitlines(keepends=True)
    registry.ledger.write_text("".join(lines[:2]))
    with pytest.raises(PublishError, match=f"version {THIRD}, but .* holds 2 decisions and none that published it"):
        registry.champion()


def test_a_ledger_that_began_anew_is_refused(registry):
    registry.ledger.unlink()
    publish_one(registry, THIRD + 1)
    with pytest.raises(PublishError, match=f"holds version {THIRD}, but .* holds 1 decisions and none"):
        registry.champion()


def test_withdrawn_versions_let_the_one_before_answer_and_the_last_one_nobody(registry):
    withdraw(registry, THIRD)
    assert registry.champion().version == SECOND
    withdraw(registry, SECOND)
    withdraw(registry, FIRST)
    assert registry.champion() is None
    assert publish_one(registry, 1_600_000_000).version == THIRD + 1
    assert registry.champion().version == THIRD + 1


def test_a_withdrawn_version_that_is_moved_back_answers_again(registry):
    withdraw(registry, THIRD)
    (registry.root / f"withdrawn-{THIRD}").rename(registry.models / str(THIRD))
    assert registry.champion().version == THIRD


def test_an_old_version_may_be_gone(registry):
    shutil.rmtree(registry.models / str(FIRST))
    assert registry.champion().version == THIRD


def test_a_publication_interrupted_before_its_rename_changes_nothing(registry):
    registry.manifest_path(THIRD + 1).write_text("{}")
    assert registry.champion().version == THIRD


def test_the_first_publication_interrupted_before_its_rename_is_still_a_start(tmp_path):
    registry = Registry(tmp_path)
    registry.manifest_path(17).parent.mkdir()
    registry.manifest_path(17).write_text("{}")
    assert registry.champion() is None


def test_a_publication_interrupted_before_its_ledger_line_is_taken_back_as_the_message_says(registry):
    lines = registry.ledger.read_text()
    publish_one(registry, THIRD + 1)
    registry.ledger.write_text(lines)
    with pytest.raises(PublishError, match=f"{THIRD + 1} to .*withdrawn-{THIRD + 1}"):
        registry.champion()
    withdraw(registry, THIRD + 1)
    assert registry.champion().version == THIRD


def test_a_publisher_at_work_is_waited_for(registry):
    line = registry.ledger.read_text().splitlines(keepends=True)
    registry.ledger.write_text("".join(line[:2]))

    def finish():
        time.sleep(0.3)
        registry.ledger.write_text("".join(line))

    with locked(registry):
        publisher = threading.Thread(target=finish)
        publisher.start()
        assert registry.champion().version == THIRD
        publisher.join()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no JSON"),
        ("", "is no JSON"),
        ("[]", "expected a JSON object, found list"),
        ("{}", r"is no manifest: expected the digests .*found the keys \[\]"),
    ],
)
def test_a_manifest_that_cannot_be_read_is_named_by_its_path(registry, text, message):
    path = registry.manifest_path(THIRD)
    path.write_text(text)
    with pytest.raises(PublishError, match=message) as refused:
        registry.champion()
    assert str(path) in str(refused.value)


@pytest.mark.parametrize("text", ["{", "{}", '{"version": "17"}'])
def test_a_broken_pointer_is_named_by_its_path(registry, text):
    (registry.root / "champion.json").write_text(text)
    with pytest.raises(PublishError, match=r"champion\.json"):
        registry.champion()

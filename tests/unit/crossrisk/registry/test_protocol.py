"""Rules of lock, publication and recovery. Real deaths of real processes are in tests/faults."""

import errno
import json
import multiprocessing
import os
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from registries import accept, enter, publish, write_model

from crossrisk.errors import PublishError
from crossrisk.failpoints import VARIABLE
from crossrisk.registry import Registry, locked, publish_version, staging_folder
from crossrisk.registry.layout import FIRST_VERSION, LAST_VERSION
from crossrisk.registry.protocol import FAR_AHEAD_S, STEPS, point

NOW = 1_700_000_000


@pytest.fixture
def registry(tmp_path):
    return Registry(tmp_path / "r")


def test_versions_are_unix_seconds_and_never_go_back(registry):
    assert registry.champion() is None
    versions = [publish(registry, now, str(now)).version for now in (NOW + 0.9, NOW + 0.2, 1_600_000_000, 1.8e9)]
    assert versions == [NOW, NOW + 1, NOW + 2, 1_800_000_000]
    names = [p.name for p in registry.models.iterdir()]
    assert max(names) == str(max(map(int, names))) == str(registry.champion().version)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(FIRST_VERSION, LAST_VERSION - 100), min_size=1, max_size=6))
def test_whatever_the_clock_does_the_last_published_is_the_largest_as_number_and_as_string(tmp_path_factory, clock):
    registry = Registry(tmp_path_factory.mktemp("clock"))
    versions = [publish(registry, now, str(place)).version for place, now in enumerate(clock)]
    assert versions == sorted(set(versions))
    names = [p.name for p in registry.models.iterdir()]
    assert max(names) == max(names, key=int) == str(versions[-1])


def test_a_number_is_not_reused_after_its_version_is_gone(registry, tmp_path):
    publish(registry, NOW).folder.rename(tmp_path / "elsewhere")
    with pytest.raises(PublishError, match="contradicts itself"):
        registry.champion()
    assert publish(registry, NOW, "next").version == NOW + 1


def test_a_clock_before_all_versions_is_refused_for_the_first_and_harmless_later(registry):
    with pytest.raises(PublishError, match=r"the clock says 1970-01-01.*set the clock"):
        publish(registry, 5.0)
    assert registry.versions() == []
    publish(registry, NOW)
    assert publish(registry, 5.0, "later").version == NOW + 1


@pytest.mark.parametrize("ahead", [FAR_AHEAD_S + 60, LAST_VERSION - NOW])
def test_a_foreign_number_far_ahead_of_the_clock_is_named_and_not_passed(registry, ahead):
    publish(registry, NOW)
    (registry.models / str(NOW + ahead)).mkdir()
    assert registry.champion().version == NOW
    with pytest.raises(PublishError, match=f"holds '{NOW + ahead}', which this tool did not publish.*move it out"):
        publish(registry, NOW + 1)
    (registry.models / str(NOW + ahead)).rmdir()
    assert publish(registry, NOW + 1).version == NOW + 1


@pytest.mark.parametrize("junk", ["0000000007", "+1700000005", "1700000005", " 1700000005 "])
def test_the_next_number_lies_above_all_that_a_server_would_take_for_one(registry, junk):
    publish(registry, NOW)
    (registry.models / junk).write_text("junk")
    assert publish(registry, NOW, "next").version == max(int(junk), NOW) + 1


def publish_live(registry, live, **record):
    with locked(registry), staging_folder(registry) as folder:
        write_model(folder / "model")
        (folder / "companions").mkdir()
        return publish_version(registry, folder, {"identity": "same"}, record, now=NOW, verify=accept, live=live)


def test_content_that_is_live_is_not_published_again(registry):
    first = publish(registry, NOW, identity="same")
    (line,) = registry.records()
    assert publish_live(registry, first, kind="decision", run_id=line["run_id"]) is first
    assert registry.versions() == [NOW]
    assert registry.records() == [line]


def test_who_decides_on_content_that_is_live_is_on_record_with_the_version_that_has_it(registry):
    first = publish(registry, NOW, identity="same")
    assert publish_live(registry, first, kind="ruling", run_id="other", ruling={"by": "bob"}) is first
    assert registry.versions() == [NOW]
    line = registry.records()[-1]
    assert (line["ruling"]["by"], line["version"], line["answers_already"]) == ("bob", None, NOW)


def test_a_model_that_does_not_verify_leaves_nothing(registry):
    first = publish(registry, NOW)

    def refuse(bundle):
        assert (bundle / "model" / "saved_model.pb").exists()
        raise PublishError("does not answer")

    with pytest.raises(PublishError, match="does not answer"):
        publish(registry, NOW, "other", verify=refuse)
    assert_untouched(registry, first)


def assert_untouched(registry, champion):
    assert registry.champion() == champion
    assert [p.name for p in registry.models.iterdir()] == [str(champion.version)]
    assert len(registry.records()) == 1
    assert not registry.intent.exists()
    assert not (registry.root / "staging").exists()
    assert [p.name for p in registry.manifest_path(0).parent.iterdir()] == [f"{champion.version}.json"]


def test_the_manifest_holds_the_digest_of_every_file_and_companion(registry):
    manifest = publish(registry, NOW, companions={"rows": "a"}).manifest
    assert sorted(manifest["files"]) == ["saved_model.pb", "variables/variables.index"]
    assert sorted(manifest["companions"]) == ["rows"]
    assert registry.companion_path(NOW, "rows").read_text() == "a"
    assert all(len(digest) == 64 for digest in [*manifest["files"].values(), *manifest["companions"].values()])


def test_what_goes_with_a_version_is_its_owners_alone_and_the_model_is_not(registry):
    before = os.umask(0)
    try:
        placed = publish(registry, NOW, companions={"rows": "ids"})
    finally:
        os.umask(before)
    assert registry.companion_path(NOW, "rows").stat().st_mode & 0o777 == 0o600
    assert (placed.folder / "saved_model.pb").stat().st_mode & 0o444 == 0o444


def test_the_pointer_names_champion_and_head_of_the_ledger(registry):
    publish(registry, NOW)
    enter(registry)
    pointer = json.loads(registry.pointer.read_text())
    assert (pointer["version"], pointer["path"]) == (NOW, f"models/{NOW}")
    assert pointer["ledger"] == {"lines": 2, "digest": registry.records()[-1]["digest"]}


# --- a disk that fills at every step ---


@pytest.mark.parametrize("step", STEPS)
def test_a_full_disk_at_any_step_is_one_clear_error_and_the_next_publisher_goes_on(registry, monkeypatch, step):
    first = publish(registry, NOW)
    monkeypatch.setenv(VARIABLE, f"publish.{step}=enospc")
    with pytest.raises(PublishError, match="No space left on device") as refused:
        publish(registry, NOW, "second")
    monkeypatch.delenv(VARIABLE)
    is_placed = STEPS.index(step) >= STEPS.index("renamed")
    assert registry.champion().version == (NOW + 1 if is_placed else NOW)  # readers, before anybody recovers
    if is_placed:
        assert f"version {NOW + 1} is in place and whole" in str(refused.value)
        with locked(registry):
            pass
        assert [r["version"] for r in registry.records()] == [NOW, NOW + 1]
        assert not registry.intent.exists()
    else:
        assert "nothing was published and the champion is as it was" in str(refused.value)
        assert_untouched(registry, first)
    third = publish(registry, NOW, "third")
    assert registry.champion() == third


# --- the lock ---


def test_a_held_lock_is_waited_for_and_then_its_holder_is_named(registry):
    said = r"another publisher holds .*\(process \d+ on "
    with locked(registry), pytest.raises(PublishError, match=said), locked(registry, timeout_s=0.2):
        pass


def _publish_many(root, rounds):
    for place in range(rounds):
        publish(Registry(root), time.time(), f"{multiprocessing.current_process().name}-{place}")


def test_publishers_at_once_get_distinct_increasing_versions(tmp_path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_publish_many, args=(tmp_path / "r", 5)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    registry = Registry(tmp_path / "r")
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert [r["version"] for r in registry.records()] == registry.versions()
    assert len(registry.versions()) == 15


def test_an_error_of_the_system_within_the_lock_says_what_became_of_the_registry(registry):
    with pytest.raises(PublishError, match=r"Read-only file system \(there\); nothing was published"), locked(registry):
        raise OSError(errno.EROFS, "Read-only file system", "there")


def test_an_error_after_the_commit_does_not_say_that_nothing_was_published(registry):
    def tidy_in_vain():
        with locked(registry), staging_folder(registry) as folder:
            write_model(folder / "model")
            (folder / "companions").mkdir()
            publish_version(registry, folder, {"identity": "x"}, {"kind": "decision"}, now=NOW, verify=accept)
            raise OSError(errno.EPERM, "Operation not permitted", "pending")

    with pytest.raises(PublishError, match=f"version {NOW} stands and is on record"):
        tidy_in_vain()


# --- what died, or was laid there, stands in nobody's way ---


def test_a_version_that_is_damaged_before_it_is_on_record_is_set_aside(registry, monkeypatch):
    publish(registry, NOW)
    monkeypatch.setenv(VARIABLE, "publish.placed=enospc")
    with pytest.raises(PublishError):
        publish(registry, NOW, "second")
    monkeypatch.delenv(VARIABLE)
    (registry.models / str(NOW + 1) / "saved_model.pb").write_text("flipped")
    assert publish(registry, NOW, "third").version == NOW + 2
    assert (registry.root / f"damaged-{NOW + 1}" / "saved_model.pb").read_text() == "flipped"
    assert registry.champion().version == NOW + 2
    assert not registry.manifest_path(NOW + 1).exists()


def test_a_pointer_that_is_gone_or_behind_is_written_anew_by_the_next_to_take_the_lock(registry):
    publish(registry, NOW)
    behind = registry.pointer.read_text()
    enter(registry)
    newest = registry.pointer.read_text()
    registry.pointer.write_text(behind)
    assert registry.champion().version == NOW
    with locked(registry):
        assert registry.pointer.read_text() == newest
    registry.pointer.unlink()
    with locked(registry):
        assert registry.pointer.read_text() == newest


@pytest.mark.parametrize(
    "change",
    [
        {"version": NOW - 1}, {"version": None}, {"path": "/etc"}, {"ledger": None}, {"ledger": {}},
        {"ledger": {"lines": 0, "digest": ""}}, {"ledger": {"lines": "1", "digest": ""}}, {"ledger": {"lines": 1}},
    ],
)  # fmt: skip
def test_a_pointer_that_was_changed_is_refused(registry, change):
    publish(registry, NOW)
    point(registry)
    registry.pointer.write_text(json.dumps({**json.loads(registry.pointer.read_text()), **change}))
    with pytest.raises(PublishError, match=r"champion\.json"):
        registry.champion()
    registry.pointer.unlink()  # as the message says
    publish(registry, NOW, "next")
    assert registry.champion().version == NOW + 1


def test_files_of_others_stand_in_nobodys_way(registry):
    publish(registry, NOW, companions={"rows": "x"})
    registry.pending.mkdir()
    (registry.pending / ".DS_Store").write_text("junk")
    (registry.pending / "copied by hand").mkdir()
    registry.companion_path(NOW, "rows.bak").write_text("junk")
    registry.serving.mkdir(exist_ok=True)
    (registry.serving / "state.json").write_text("{")
    (registry.root / "damaged-by hand").mkdir()
    assert publish(registry, NOW, "next").version == NOW + 1
    assert not registry.intent.exists()
    assert sorted(path.name for path in registry.pending.iterdir()) == [".DS_Store", "copied by hand"]


@pytest.mark.parametrize(
    "text", ["{}", '{"version": 5}', '{"version": "5", "record": {}}', '{"record": {}}', "{", "[]"]
)
def test_an_intent_that_is_none_is_refused_by_its_path(registry, text):
    publish(registry, NOW)
    registry.intent.write_text(text)
    with pytest.raises(PublishError, match=r"intent\.json"):
        registry.champion()
    with pytest.raises(PublishError, match=r"intent\.json"), locked(registry):
        pass


@pytest.mark.parametrize("name", ["ledger.jsonl", "champion.json", "manifest"])
def test_a_folder_in_the_place_of_a_file_is_named(registry, name):
    publish(registry, NOW)
    path = registry.manifest_path(NOW) if name == "manifest" else registry.root / name
    path.unlink()
    path.mkdir()
    with pytest.raises(PublishError, match=rf"{path.name} cannot be read: Is a directory"):
        registry.champion()


def test_a_number_of_more_than_ten_digits_is_no_version(registry):
    publish(registry, NOW)
    (registry.models / "99999999999999999" / "x").mkdir(parents=True)
    assert registry.versions() == [NOW]

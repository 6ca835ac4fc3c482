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
from crossrisk.registry.protocol import FIRST_VERSION, LAST_VERSION, STEPS

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


def test_a_number_that_leaves_no_room_above_it_is_named(registry):
    registry.models.mkdir(parents=True)
    (registry.models / str(LAST_VERSION)).write_text("junk")
    with pytest.raises(PublishError, match=f"no number of ten digits .* holds '{LAST_VERSION}'"):
        publish(registry, NOW)


@pytest.mark.parametrize("junk", ["0000000007", "+1700000005", "1700000005"])
def test_the_next_number_lies_above_all_that_a_server_would_take_for_one(registry, junk):
    publish(registry, NOW)
    (registry.models / junk).write_text("junk")
    assert publish(registry, NOW, "next").version == max(int(junk), NOW) + 1


def test_content_that_is_live_is_not_published_again(registry):
    first = publish(registry, NOW, identity="same")
    with locked(registry), staging_folder(registry) as folder:
        write_model(folder / "model")
        (folder / "companions").mkdir()
        again = publish_version(registry, folder, {"identity": "same"}, {}, now=NOW, verify=accept, live=first)
    assert again is first
    assert registry.versions() == [NOW]
    assert len(registry.records()) == 1


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

"""Rules of removal: nothing that answers, may have to answer, is labelled or is being read."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from registries import publish

from crossrisk.errors import PublishError
from crossrisk.failpoints import VARIABLE
from crossrisk.registry import Registry, locked
from crossrisk.registry.protocol import prune_versions
from crossrisk.registry.pruning import choose_versions, fallback_of, held

NOW = 1_700_000_000


@pytest.fixture
def registry(tmp_path):
    """Five versions."""
    made = Registry(tmp_path)
    for place in range(5):
        publish(made, NOW + place, str(place), companions={"rows": "x"})
    return made


def line(version, kind="decision"):
    return {"kind": kind, "version": version}


@pytest.mark.parametrize(
    ("records", "target"),
    [
        ([], None),
        ([line(1)], None),
        ([line(1), line(2)], 1),
        ([line(1), line(2), line(None), line(3, "rollback")], 1),
        ([line(1), line(2), line(3, "rollback"), line(4, "rollback")], 1),
        ([line(1), line(2), line(3, "rollback"), line(4)], 3),
        ([line(1), line(2), line(3)], 2),
    ],
)
def test_a_rollback_goes_to_the_champion_before_the_last_decision_however_often_it_is_asked(records, target):
    assert fallback_of(records) == target


@given(
    st.lists(st.integers(1, 40), min_size=1, unique=True),
    st.integers(2, 6),
    st.sets(st.integers(1, 40)),
    st.sets(st.integers(1, 40)),
)
def test_champion_previous_labelled_and_read_versions_are_never_chosen(present, keep, labelled, is_read):
    records = [line(version) for version in sorted(present)]
    chosen = choose_versions(present, records, keep=keep, labelled=labelled, is_read=is_read)
    newest = sorted(present)[-keep:]
    assert not set(chosen.removed) & ({*newest} | labelled | is_read)
    assert sorted([*chosen.removed, *[v for v in chosen.kept if v in present]]) == sorted(present)


def test_fewer_than_champion_and_previous_cannot_be_kept():
    with pytest.raises(ValueError, match="at least 2"):
        choose_versions([1, 2, 3], [], keep=1)


def test_a_pruned_version_leaves_its_manifest_and_its_line(registry):
    with locked(registry):
        prune_versions(registry, [NOW, NOW + 1], {"kind": "prune", "pruned": [NOW, NOW + 1], "version": None})
    assert registry.versions() == [NOW + 2, NOW + 3, NOW + 4]
    assert registry.manifest_path(NOW).exists()
    assert not registry.companions(NOW)
    assert registry.records()[-1]["pruned"] == [NOW, NOW + 1]
    assert registry.champion().version == NOW + 4
    assert not registry.trash.exists()
    assert not registry.intent.exists()


@pytest.mark.parametrize("step", ["moved", "committed", "removed"])
def test_a_pruning_that_ends_early_is_finished_by_the_next_holder_of_the_lock(registry, monkeypatch, step):
    monkeypatch.setenv(VARIABLE, f"prune.{step}=enospc")
    with pytest.raises(PublishError), locked(registry):
        prune_versions(registry, [NOW], {"kind": "prune", "pruned": [NOW], "version": None})
    monkeypatch.delenv(VARIABLE)
    assert registry.champion().version == NOW + 4
    with locked(registry):
        pass
    assert registry.versions()[0] == NOW + 1
    assert [r["kind"] for r in registry.records()].count("prune") == 1
    assert not registry.intent.exists()
    assert not registry.trash.exists()


def test_a_version_that_is_being_read_is_known(registry):
    versions = set(registry.versions())
    with registry.reading(NOW + 1), held(registry, registry.versions()) as unread:
        assert unread == versions - {NOW + 1}
    with held(registry, registry.versions()) as unread:
        assert unread == versions


def test_nobody_begins_to_read_what_is_being_pruned(registry):
    finished = threading.Event()

    def read():
        with pytest.raises(PublishError, match=f"version {NOW} has just been pruned"), registry.reading(NOW):
            pass
        finished.set()

    with locked(registry), held(registry, [NOW]):
        reader = threading.Thread(target=read)
        reader.start()
        assert not finished.wait(0.2)
        prune_versions(registry, [NOW], {"kind": "prune", "pruned": [NOW], "version": None})
    assert finished.wait(5)
    reader.join()

"""Rules of a challenger on trial: served beside the champion, never among its versions, known by the ledger."""

import pytest
from pending_bundles import keep_verified
from registries import publish
from serving_poller import Latest
from serving_server import ModelServer, policy_of, read_models

from crossrisk.errors import InputError, PublishError
from crossrisk.failpoints import VARIABLE
from crossrisk.registry import Registry, digest_tree, locked, read_manifest
from crossrisk.registry.audit import check_registry
from crossrisk.registry.pending import find_pending
from crossrisk.registry.serving import config_path, labelled_versions, write_configuration
from crossrisk.store import read_json
from tasks import canary as task
from tasks.canary import begin_canary, end_canary

NOW = 1_700_000_000
RUN = "2024-12-31-abc"


@pytest.fixture
def verified(monkeypatch):
    """What was loaded and asked, without TensorFlow."""
    seen = []
    monkeypatch.setattr(task, "verify_bundle", lambda bundle: seen.append(digest_tree(bundle / "model")))
    return seen


@pytest.fixture
def registry(tmp_path, verified):
    """A champion, and a challenger that waits."""
    made = Registry(tmp_path / "cards")
    publish(made, NOW)
    keep_verified(made, RUN)
    return made


def begin(registry, now=NOW + 5, run_id=RUN):
    return begin_canary(registry, run_id, by=" Ada ", now=now)


def canaries(registry):
    return [path.name for path in registry.canary.iterdir()]


def test_a_canary_is_a_second_model_with_its_own_base_path(registry, verified):
    before = registry.champion()
    began = begin(registry)
    assert (began.number, began.model, began.run_id) == (NOW + 5, "cards_canary", RUN)
    models = read_models(config_path(registry))
    assert sorted(models) == ["cards", "cards_canary"]
    assert models["cards_canary"].base_path == str(registry.canary)
    assert policy_of(models["cards_canary"]) == Latest(1)
    assert not models["cards_canary"].version_labels
    assert canaries(registry) == [str(NOW + 5)]
    assert verified == [digest_tree(registry.canary / str(NOW + 5))]
    assert registry.champion() == before
    assert registry.versions() == [NOW]
    assert labelled_versions(registry) == {NOW}


def test_it_leaves_its_manifest_and_a_line_and_the_registry_still_agrees(registry):
    number = begin(registry).number
    manifest = read_json(registry.root / "manifests" / f"canary-{number}.json")
    assert manifest["files"] == digest_tree(registry.canary / str(number))
    line = registry.records()[-1]
    assert {key: line[key] for key in ("kind", "version", "canary", "run_id", "ended", "by", "at_unix_s")} == {
        "kind": "canary", "version": None, "canary": number, "run_id": RUN, "ended": False, "by": "Ada",
        "at_unix_s": NOW + 5,
    }  # fmt: skip
    assert all(finding.holds for finding in check_registry(registry))
    assert find_pending(registry, RUN).manifest["run_id"] == RUN


def test_publications_go_on_beside_a_canary(registry):
    number = begin(registry).number
    publish(registry, NOW, "second")
    assert sorted(read_models(config_path(registry))) == ["cards", "cards_canary"]
    assert registry.champion().version == NOW + 1
    assert str(number) not in {path.name for path in registry.models.iterdir()}
    with pytest.raises(PublishError, match="no manifest"):
        read_manifest(registry, number)


def test_one_that_ended_is_gone_from_the_config_and_its_base_path_stays(registry):
    number = begin(registry).number
    server = ModelServer(config_path(registry))
    server.reload()
    server.poll()
    assert server.ask("cards_canary") == number
    assert end_canary(registry, by="Ada", now=NOW + 9).number == number
    assert (registry.canary.is_dir(), canaries(registry), registry.trash.exists()) == (True, [], False)
    publish(registry, NOW + 1, "second")
    server.poll()  # before the server has read the new config: a base path that is gone would hide the champion's
    assert (server.ask("cards"), server.ask("cards_canary")) == (NOW + 1, None)
    assert server.reload()
    assert sorted(server.pollers) == ["cards"]
    assert registry.records()[-2]["ended"] is True
    assert find_pending(registry, RUN)


def test_numbers_go_up_whatever_the_clock_does(registry):
    numbers = []
    for now in (NOW + 5, NOW + 5, NOW - 100):
        numbers.append(begin(registry, now).number)
        end_canary(registry, by="Ada", now=now)
    assert numbers == [NOW + 5, NOW + 6, NOW + 7]


def test_there_is_one_canary_at_a_time_and_none_to_end_before(registry):
    with pytest.raises(InputError, match="there is no canary"):
        end_canary(registry, by="Ada", now=NOW)
    begin(registry)
    keep_verified(registry, "other")
    with pytest.raises(InputError, match=f"canary {NOW + 5} is on trial; end it first"):
        begin(registry, run_id="other")


def test_it_needs_a_name_a_pending_run_and_a_champion(registry, tmp_path):
    with pytest.raises(InputError, match="needs a name"):
        begin_canary(registry, RUN, by=" ", now=NOW)
    with pytest.raises(InputError, match=f"pending: {RUN}"):
        begin(registry, run_id="nobody")
    empty = Registry(tmp_path / "empty")
    keep_verified(empty, RUN)
    with pytest.raises(InputError, match="no champion"):
        begin(empty)


def test_a_challenger_that_was_changed_or_does_not_answer_leaves_nothing(registry, monkeypatch):
    def refuse(bundle):
        raise PublishError("does not answer")

    monkeypatch.setattr(task, "verify_bundle", refuse)
    with pytest.raises(PublishError, match="does not answer"):
        begin(registry)
    (registry.pending / RUN / "model" / "saved_model.pb").write_text("other")
    with pytest.raises(PublishError, match="not what was verified"):
        begin(registry)
    assert not registry.canary.exists()
    assert not list((registry.root / "manifests").glob("canary-*"))
    assert sorted(read_models(config_path(registry))) == ["cards"]


def test_one_whose_line_was_never_written_is_not_served_and_is_swept(registry, monkeypatch):
    real = task._enter
    monkeypatch.setattr(task, "_enter", lambda *_, **__: (_ for _ in ()).throw(PublishError("died here")))
    with pytest.raises(PublishError, match="died here"):
        begin(registry)
    monkeypatch.setattr(task, "_enter", real)
    assert canaries(registry) == [str(NOW + 5)]
    with locked(registry):
        write_configuration(registry)
    assert sorted(read_models(config_path(registry))) == ["cards"]
    assert begin(registry, NOW + 6).number == NOW + 6
    assert canaries(registry) == [str(NOW + 6)]


def test_one_whose_end_was_written_and_whose_folder_was_left_is_not_served_and_is_swept(registry, monkeypatch):
    begin(registry)
    sweep = task._sweep
    monkeypatch.setattr(task, "_sweep", lambda *_: (_ for _ in ()).throw(PublishError("died here")))
    with pytest.raises(PublishError, match="died here"):
        end_canary(registry, by="Ada", now=NOW)
    monkeypatch.setattr(task, "_sweep", sweep)
    publish(registry, NOW + 1, "second")
    assert sorted(read_models(config_path(registry))) == ["cards"]
    with pytest.raises(InputError, match="there is no canary"):
        end_canary(registry, by="Ada", now=NOW)
    assert canaries(registry) == []


def test_a_full_disk_while_a_canary_begins_is_one_clear_error(registry, monkeypatch):
    monkeypatch.setenv(VARIABLE, "publish.locked=enospc")
    with pytest.raises(PublishError, match="No space left on device"):
        begin(registry)
    assert not registry.canary.exists()

"""Rules of the generated configuration, held against a server that follows TF Serving's rules (tests/data)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from registries import enter, publish
from serving_poller import Latest, Specific
from serving_server import ModelServer, policy_of, read_models

from crossrisk.errors import InputError, PublishError
from crossrisk.failpoints import VARIABLE
from crossrisk.registry import Registry, locked
from crossrisk.registry.serving import (
    STABLE,
    Serving,
    advance,
    choose_way,
    config_path,
    labelled_versions,
    read_serving,
    settle_state,
    write_configuration,
)
from crossrisk.store import read_json, write_json

NOW = 1_700_000_000


@pytest.fixture
def registry(tmp_path):
    return Registry(tmp_path / "cards")


@pytest.fixture
def specific(registry):
    """One version, in the way that takes two steps."""
    publish(registry, NOW)
    with locked(registry):
        choose_way(registry, "specific")
    return registry


def step(registry):
    """The second step."""
    with locked(registry):
        return advance(registry, read_serving(registry).arriving)


def labels(registry):
    (model,) = [m for name, m in read_models(config_path(registry)).items() if name == registry.root.name]
    return {label.key: label.value for label in model.version_labels}


# --- latest ---


def test_a_publication_leaves_a_config_with_policy_and_label(registry):
    publish(registry, NOW)
    publish(registry, NOW + 1, "second")
    (model,) = read_models(config_path(registry)).values()
    assert (model.name, model.base_path) == ("cards", str(registry.models))
    assert policy_of(model) == Latest(2)
    assert labels(registry) == {STABLE: NOW + 1}
    assert read_serving(registry) == Serving("latest", stable=NOW + 1)
    assert labelled_versions(registry) == {NOW + 1}


def test_under_latest_the_label_answers_at_every_moment_of_a_publication(registry):
    publish(registry, NOW)
    server = ModelServer(config_path(registry))
    assert server.reload()
    server.poll()
    assert server.ask("cards", STABLE) == NOW
    publish(registry, NOW + 1, "second")
    assert not server.reload()  # the config is read before the base path: refused, and the label stays
    assert server.ask("cards", STABLE) == NOW
    server.poll()
    assert (server.ask("cards"), server.ask("cards", STABLE)) == (NOW + 1, NOW)
    assert server.reload()
    assert server.ask("cards", STABLE) == NOW + 1


def test_with_one_version_under_latest_the_label_would_answer_nobody(registry):
    publish(registry, NOW)
    config = config_path(registry)
    server = ModelServer(config)
    config.write_text(config.read_text().replace("num_versions: 2", "num_versions: 1"))
    server.reload()
    server.poll()
    publish(registry, NOW + 1, "second")
    server.poll()
    assert server.ask("cards", STABLE) is None


def test_two_publications_within_one_reading_cost_the_label_its_answer_under_latest_and_not_under_specific(tmp_path):
    answers = {}
    for way in ("latest", "specific"):
        registry = Registry(tmp_path / way)
        with locked(registry):
            choose_way(registry, way)
        publish(registry, NOW)
        server = ModelServer(config_path(registry))
        server.reload()
        server.poll()
        publish(registry, NOW + 1, "second")
        publish(registry, NOW + 2, "third")
        server.poll()
        answers[way] = server.ask(way), server.ask(way, STABLE)
        server.reload()
        assert server.ask(way, STABLE) == (NOW + 2 if way == "latest" else NOW)
    assert answers == {"latest": (NOW + 2, None), "specific": (NOW, NOW)}


def test_under_latest_a_version_that_does_not_load_leaves_label_and_answers_where_they_were(registry):
    publish(registry, NOW)
    server = ModelServer(config_path(registry))
    server.reload()
    server.poll()
    second = publish(registry, NOW + 1, "second")
    (second.folder / "saved_model.pb").unlink()
    for _ in range(3):
        server.poll()
        server.reload()
    assert (server.ask("cards"), server.ask("cards", STABLE)) == (NOW, NOW)


def test_a_server_starts_with_the_label_only_where_it_is_told_to_allow_that(registry):
    publish(registry, NOW)
    assert "--allow_version_labels_for_unavailable_models" in config_path(registry).read_text()
    assert not ModelServer(config_path(registry), allows_new_labels=False).reload()
    assert ModelServer(config_path(registry)).reload()


# --- specific ---


def test_specific_names_old_and_new_and_moves_the_label_in_a_second_step(specific):
    publish(specific, NOW + 1, "second")
    (model,) = read_models(config_path(specific)).values()
    assert policy_of(model) == Specific(frozenset({NOW, NOW + 1}))
    assert labels(specific) == {STABLE: NOW}
    assert step(specific) == Serving("specific", stable=NOW + 1, leaving=NOW)
    assert labels(specific) == {STABLE: NOW + 1}
    assert labelled_versions(specific) == {NOW, NOW + 1}


def test_the_version_before_stays_loaded_until_the_next_publication(specific):
    publish(specific, NOW + 1, "second")
    step(specific)
    publish(specific, NOW + 2, "third")
    assert read_serving(specific) == Serving("specific", stable=NOW + 1, arriving=NOW + 2)
    assert labelled_versions(specific) == {NOW + 1, NOW + 2}


def test_a_version_that_never_arrived_is_dropped_by_the_next_one(specific):
    publish(specific, NOW + 1, "second")
    publish(specific, NOW + 2, "third")
    assert read_serving(specific) == Serving("specific", stable=NOW, arriving=NOW + 2)


def test_in_two_steps_the_label_answers_at_every_moment(specific):
    server = ModelServer(config_path(specific))
    server.reload()
    server.poll()
    for number in (NOW + 1, NOW + 2):
        before = number - 1
        publish(specific, number, str(number))
        for look in (server.reload, server.poll, server.reload):
            look()
            assert server.ask("cards", STABLE) == before
        assert not server.refused
        step(specific)
        for look in (server.poll, server.reload, server.poll):
            look()
            assert server.ask("cards", STABLE) in (before, number)
        assert server.ask("cards", STABLE) == number


def test_in_one_step_the_server_would_never_load_the_new_version(specific):
    server = ModelServer(config_path(specific))
    server.reload()
    server.poll()
    publish(specific, NOW + 1, "second")
    step(specific)  # before the server has read the first step
    for _ in range(3):
        assert not server.reload()
        server.poll()
    assert server.loaded("cards") == {NOW}
    restarted = ModelServer(config_path(specific))
    assert restarted.reload()
    restarted.poll()
    assert restarted.ask("cards", STABLE) == NOW + 1


def test_only_the_version_that_arrives_gets_the_label(specific):
    with pytest.raises(PublishError, match="not on its way to the label stable, but none"), locked(specific):
        advance(specific, NOW)
    publish(specific, NOW + 1, "second")
    publish(specific, NOW + 2, "third")
    with pytest.raises(PublishError, match=f"but {NOW + 2}: another publisher was faster"), locked(specific):
        advance(specific, NOW + 1)


def test_the_way_does_not_change_while_a_version_is_on_its_way(specific):
    publish(specific, NOW + 1, "second")
    with pytest.raises(InputError, match="finish that first"), locked(specific):
        choose_way(specific, "latest")
    step(specific)
    with locked(specific):
        assert choose_way(specific, "latest") == Serving("latest", stable=NOW + 1)


# --- of both ---


def test_the_config_of_an_empty_registry_is_not_written_but_its_way_is_kept(registry):
    with locked(registry):
        assert choose_way(registry, "specific") == Serving("specific")
    assert not config_path(registry).exists()
    publish(registry, NOW)
    assert read_serving(registry) == Serving("specific", stable=NOW)


@pytest.mark.parametrize("way", ["latest", "specific"])
def test_writing_the_configuration_again_changes_nothing(registry, way):
    with locked(registry):
        choose_way(registry, way)
    publish(registry, NOW)
    publish(registry, NOW + 1, "second")
    before = {path.name: path.read_text() for path in registry.serving.iterdir()}
    with locked(registry):
        write_configuration(registry)
    assert {path.name: path.read_text() for path in registry.serving.iterdir()} == before


def test_a_publication_that_ended_before_its_configuration_gets_it_from_the_next_holder_of_the_lock(
    specific, monkeypatch
):
    monkeypatch.setenv(VARIABLE, "publish.pointed=enospc")
    with pytest.raises(PublishError):
        publish(specific, NOW + 1, "second")
    monkeypatch.delenv(VARIABLE)
    assert read_serving(specific).arriving is None
    with locked(specific):
        pass
    assert read_serving(specific).arriving == NOW + 1


def test_decisions_that_publish_nothing_leave_the_configuration(registry):
    publish(registry, NOW)
    before = config_path(registry).read_text()
    enter(registry)
    with locked(registry):
        write_configuration(registry)
    assert config_path(registry).read_text() == before


def test_a_path_with_quotes_is_read_back_as_it_is(tmp_path):
    registry = Registry(tmp_path / 'a "b" \\ ü' / "cards")
    publish(registry, NOW)
    assert read_models(config_path(registry))["cards"].base_path == str(registry.models)


@pytest.mark.parametrize("document", [{"way": "newest"}, {"way": "latest", "stable": "7"}, {"schema_version": 99}, []])
def test_a_state_that_cannot_be_read_is_named(registry, document):
    write_json(registry.serving / "state.json", document)
    with pytest.raises(PublishError, match=r"state\.json"):
        read_serving(registry)


def test_the_state_names_its_schema(registry):
    publish(registry, NOW)
    assert read_json(registry.serving / "state.json") == {
        "schema_version": 2, "way": "latest", "stable": NOW, "arriving": None, "leaving": None,
    }  # fmt: skip


versions = st.sets(st.integers(1, 9), min_size=1)


@given(versions, st.sampled_from(["latest", "specific"]), *[st.none() | st.integers(1, 9)] * 3)
def test_whatever_was_told_before_the_label_and_all_that_is_named_are_there(present, way, stable, arriving, leaving):
    champion = max(present)
    told = settle_state(Serving(way, stable, arriving, leaving), champion=champion, present=present)
    assert told.stable in present
    assert set(told.versions) <= present
    assert champion in told.versions
    assert told.stable == (stable if way == "specific" and stable in present else champion)
    assert settle_state(told, champion=champion, present=present) == told

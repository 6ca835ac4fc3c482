"""Rules of asking a server: in its own words, with an end to the waiting, and never against a publication."""

import json
import socket
import threading
from types import SimpleNamespace

import pytest
from builders import portfolio
from registries import publish
from serving_server import ModelServer, rest

from crossrisk.errors import ConfigError, InputError, PublishError
from crossrisk.registry import Registry, locked
from crossrisk.registry.serving import STABLE, Serving, choose_way, config_path, read_serving
from tasks import serving as task
from tasks.serving import advance_unasked, bring_in, configure, follow_publication

NOW = 1_700_000_000
NO_ADDRESS = ["http://[bad", "http://host:port", "http://:8501", "http://host:99999", "http://ho\nst"]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(task, "ASK_EVERY_S", 0.01)


@pytest.fixture
def registry(tmp_path):
    made = Registry(tmp_path / "cards")
    publish(made, NOW)
    return made


@pytest.fixture
def specific(registry):
    """A version that is loaded, and one that arrives."""
    configure(registry, "specific")
    return registry


def loaded(registry, *, server=None, way="latest"):
    """As much of a loaded portfolio as is looked at."""
    publish_config = SimpleNamespace(serving=way, server=server)
    return SimpleNamespace(
        folders=SimpleNamespace(registry=registry.root), portfolio=SimpleNamespace(publish=publish_config)
    )


@pytest.mark.parametrize("way", ["latest", "specific"])
def test_a_new_version_is_waited_for_and_then_the_label_names_it(registry, way):
    configure(registry, way)
    server, said = ModelServer(config_path(registry)), []
    with rest(server) as url:
        assert bring_in(registry, url, timeout_s=5).stable == NOW
        publish(registry, NOW + 1, "second")
        assert server.ask("cards", STABLE) == NOW
        told = bring_in(registry, f"{url}/", timeout_s=5, say=said.append)
    assert told.stable == NOW + 1
    assert (server.ask("cards", STABLE), told.leaving) == (NOW + 1, NOW if way == "specific" else None)
    assert said[-1] == f"cards label stable: version {NOW + 1}"
    assert f"cards version {NOW + 1}: AVAILABLE" in said


def test_a_version_that_does_not_load_keeps_the_label_and_the_servers_words_are_told(specific):
    server, said = ModelServer(config_path(specific)), []
    with rest(server) as url:
        bring_in(specific, url, timeout_s=5)
        second = publish(specific, NOW + 1, "second")
        (second.folder / "saved_model.pb").unlink()
        with pytest.raises(PublishError, match=r"LOADING, Could not find SavedModel .*; waited for 0 s"):
            bring_in(specific, url, timeout_s=0.05, say=said.append)
        assert read_serving(specific) == Serving("specific", stable=NOW, arriving=NOW + 1)
        server.pollers["cards"].managed[NOW + 1].state = "END"
        with pytest.raises(PublishError, match="gave up loading it: Could not find SavedModel"):
            bring_in(specific, url, timeout_s=60)
        assert server.ask("cards", STABLE) == NOW
    assert len([line for line in said if "LOADING" in line]) == 1  # said once, not at every look


def test_a_server_that_keeps_the_label_where_it_was_is_told(specific):
    server = ModelServer(config_path(specific))
    with rest(server) as url:
        bring_in(specific, url, timeout_s=5)
    server.reload()
    publish(specific, NOW + 1, "second")
    server.reload()
    server.poll()
    with rest(server, reads_config=False) as url, pytest.raises(PublishError, match=rf"still version {NOW};"):
        bring_in(specific, url, timeout_s=0.05)
    assert read_serving(specific).stable == NOW + 1  # it is written, and the server reads it when it reads anew
    with rest(server) as url:
        assert bring_in(specific, url, timeout_s=5).stable == NOW + 1


def test_a_server_that_is_not_there_is_named(registry):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    with pytest.raises(PublishError, match=rf"{url}.* does not answer: .*refused"):
        bring_in(registry, url, timeout_s=0.05)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.0 200 OK\r\n\r\nhello", b"HTTP/1.0 200 OK\r\n\r\n[1]", b"\x00\x00grpc\r\n",
        b"HTTP/1.0 200 OK\r\n\r\nnull", b"HTTP/1.0 200 OK\r\n\r\n" + b"[" * 100_000,
        b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\nff\r\ncut off",
    ],
)  # fmt: skip
def test_an_answer_that_is_not_tf_servings_is_told_and_not_believed(registry, answer):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(4096)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(PublishError, match=r"no JSON|no status of TF Serving|answers null"):
            bring_in(registry, url, timeout_s=0.05)
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)


@pytest.mark.parametrize("server", ["file:///etc/passwd", "localhost:8501", "ftp://host", "http://", *NO_ADDRESS])
def test_only_http_addresses_are_asked(registry, server):
    with pytest.raises(InputError, match="REST address"):
        bring_in(registry, server)


def test_a_registry_without_a_version_has_nothing_to_serve(tmp_path):
    with pytest.raises(InputError, match="nothing was published"):
        bring_in(Registry(tmp_path), "http://127.0.0.1:1")


def test_who_has_looked_himself_takes_the_second_step_without_asking(specific):
    with pytest.raises(InputError, match="no second step"):
        advance_unasked(specific)
    publish(specific, NOW + 1, "second")
    assert advance_unasked(specific).stable == NOW + 1


# --- after a publication ---


def test_after_a_publication_the_way_of_the_toml_is_followed_and_without_a_server_nobody_is_asked(registry):
    assert follow_publication(loaded(registry, way="specific")) is None
    assert read_serving(registry).way == "specific"


def test_after_a_publication_what_the_server_serves_is_said(specific):
    with rest(ModelServer(config_path(specific))) as url:
        said = follow_publication(loaded(specific, server=url, way="specific"), timeout_s=5)
    assert said == f"{url} serves version {NOW} as stable"


def test_a_server_that_does_not_follow_is_a_warning_and_no_failure(specific):
    publish(specific, NOW + 1, "second")
    said = follow_publication(loaded(specific, server="http://127.0.0.1:1", way="specific"), timeout_s=0.05)
    assert said.startswith("published, but http://127.0.0.1:1/v1/models/cards/versions/1700000001 does not answer")
    assert specific.champion().version == NOW + 1


@pytest.mark.parametrize("fault", [ValueError("Invalid IPv6 URL"), OSError(5, "Input/output error")])
def test_no_failure_of_asking_becomes_a_failure_of_the_publication(specific, monkeypatch, fault):
    def fail(*_, **__):
        raise fault

    monkeypatch.setattr(task, "bring_in", fail)
    said = follow_publication(loaded(specific, server="http://localhost:8501", way="specific"))
    assert said == f"published, but {fault}"


@pytest.mark.parametrize("server", NO_ADDRESS)
def test_an_address_that_cannot_be_parsed_is_refused_with_the_config(tmp_path, server):
    with pytest.raises(ConfigError, match="REST address"):
        portfolio(tmp_path, overrides=(f"publish.server={json.dumps(server)}",))


def test_a_way_that_cannot_change_now_is_a_warning_and_no_failure(specific):
    publish(specific, NOW + 1, "second")
    said = follow_publication(loaded(specific, way="latest"))
    assert said.startswith("published, but version 1700000001 is on its way")


def test_the_lock_is_free_while_a_server_is_waited_for(specific):
    publish(specific, NOW + 1, "second")

    def say(_):
        with locked(specific, timeout_s=0):
            choose_way(specific, "specific")

    with pytest.raises(PublishError, match="does not answer"):
        bring_in(specific, "http://127.0.0.1:1", timeout_s=0.05, say=say)

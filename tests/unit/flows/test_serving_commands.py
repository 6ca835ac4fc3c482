"""Rules of the commands `serving` and `canary`: what they print, and with what they end."""

import json

import pytest
from builders import FLOW_TOML
from pending_bundles import keep_verified
from registries import publish
from serving_server import ModelServer, read_models, rest

from crossrisk.registry import Registry
from crossrisk.registry.serving import config_path
from flows.cli import main
from flows.registry_commands import history_line
from tasks import canary

NOW = 1_700_000_000


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setenv("CROSSRISK_HOME", str(tmp_path))
    path = tmp_path / "mini.toml"
    path.write_text(FLOW_TOML)
    return str(path)


@pytest.fixture
def registry(tmp_path):
    return Registry(tmp_path / "registry" / "mini")


def run(capsys, *arguments):
    code = main([*arguments])
    return code, capsys.readouterr()


def test_serving_says_where_things_are_and_follows_the_toml(config, registry, capsys):
    code, said = run(capsys, "serving", config)
    assert (code, said.out) == (0, "mini (latest): stable is none yet\n")
    publish(registry, NOW)
    code, said = run(capsys, "serving", config)
    assert said.out.splitlines() == [f"mini (latest): stable is {NOW}", f"configuration: {config_path(registry)}"]
    specific = ("serving", config, "--set", "publish.serving=specific")
    assert run(capsys, *specific)[0] == 0
    publish(registry, NOW + 1, "second")
    code, said = run(capsys, *specific, "--json")
    assert json.loads(said.out) == {
        "schema_version": 1, "portfolio": "mini", "way": "specific", "stable": NOW, "arriving": NOW + 1,
        "leaving": None, "canary": None,
    }  # fmt: skip
    code, said = run(capsys, *specific, "--advance")
    assert (code, said.out.splitlines()[1]) == (0, f"{NOW} stays loaded until the next publication")


def test_serving_with_a_server_moves_the_label_and_tells_what_it_waits_for_on_standard_error(config, registry, capsys):
    publish(registry, NOW)
    specific = ("serving", config, "--set", "publish.serving=specific")
    with rest(ModelServer(config_path(registry))) as url:
        assert run(capsys, *specific, "--server", url)[0] == 0
        publish(registry, NOW + 1, "second")
        code, said = run(capsys, *specific, "--set", f"publish.server={url}", "--server")
    assert (code, said.out.splitlines()[0]) == (0, f"mini (specific): stable is {NOW + 1}")
    assert said.err.splitlines()[-1] == f"mini label stable: version {NOW + 1}"


def test_a_server_that_is_not_there_ends_with_4_and_one_without_address_with_2(config, registry, capsys):
    publish(registry, NOW)
    code, said = run(capsys, "serving", config, "--server", "http://127.0.0.1:1", "--timeout", "0.05")
    assert (code, "does not answer" in said.err) == (4, True)
    code, said = run(capsys, "serving", config, "--server")
    assert (code, "publish.server is not set" in said.err) == (2, True)
    assert run(capsys, "serving", config, "--set", "publish.server=ftp://x")[0] == 2


def test_canary_begins_ends_and_is_told_by_history(config, registry, capsys, monkeypatch):
    monkeypatch.setattr(canary, "verify_bundle", lambda bundle: None)
    publish(registry, NOW)
    keep_verified(registry, "run-1")
    code, said = run(capsys, "canary", config, "--run", "run-1", "--by", "Ada", "--json")
    number = json.loads(said.out)["canary"]
    assert (code, sorted(read_models(config_path(registry)))) == (0, ["mini", "mini_canary"])
    assert f"mini_canary: {number}" in run(capsys, "serving", config)[1].out
    code, said = run(capsys, "canary", config, "--end", "--by", "Ada")
    assert (code, said.out.split(";")[0]) == (0, f"canary {number} (run run-1) ended")
    lines = [history_line(record) for record in registry.records()[-2:]]
    assert [(line["what"], line["who"], line["why"]) for line in lines] == [
        (f"canary {number} begun", "Ada", "challenger of run run-1"),
        (f"canary {number} ended", "Ada", "challenger of run run-1"),
    ]


def test_a_canary_needs_a_run_or_an_end(config, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["canary", config, "--by", "Ada"])
    assert ended.value.code == 2

"""Rules of the commands `serving` and `canary`: what they print, and with what they end."""

import json
import shutil

import pytest
from builders import FLOW_TOML
from pending_bundles import keep_verified
from registries import publish
from serving_server import ModelServer, read_models, rest

from crossrisk.registry import Registry, locked
from crossrisk.registry.protocol import enter_record
from crossrisk.registry.serving import config_path
from flows.cli import main
from flows.registry_commands import history_line
from tasks import canary
from tasks.publish import Publication

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
    publish(registry, NOW)
    code, said = run(capsys, "serving", config)
    assert said.out.splitlines() == [f"mini (latest): stable is {NOW}", f"configuration: {config_path(registry)}"]
    specific = ("serving", config, "--set", "publish.serving=specific")
    assert run(capsys, *specific)[0] == 0
    publish(registry, NOW + 1, "second")
    code, said = run(capsys, *specific, "--json")
    assert json.loads(said.out) == {
        "schema_version": 1, "portfolio": "mini", "way": "specific", "stable": NOW, "arriving": NOW + 1,
        "leaving": None, "canary": None, "note": None,
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


# --- what is refused, and what only reads ---


@pytest.mark.parametrize(
    "command",
    [
        ("serving",), ("prune", "--by", "Ada"), ("rollback", "--by", "Ada", "--reason", "why"),
        ("canary", "--end", "--by", "Ada"),
    ],
)  # fmt: skip
def test_a_portfolio_without_registry_gets_none_by_being_asked(config, registry, capsys, command):
    code, said = run(capsys, command[0], config, *command[1:])
    assert (code, "nothing was published yet" in said.err) == (2, True)
    assert not registry.root.parent.exists()


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf"])
def test_a_wait_without_an_end_or_without_a_length_is_refused(config, registry, capsys, seconds):
    publish(registry, NOW)
    code, said = run(capsys, "serving", config, f"--timeout={seconds}")
    assert (code, "seconds above 0" in said.err) == (2, True)


def test_nobody_prunes_without_a_name(config, registry, capsys):
    for second in range(4):
        publish(registry, NOW + second, str(second))
    code, said = run(capsys, "prune", config, "--keep", "2", "--by", " ")
    assert (code, "needs a name" in said.err, len(registry.versions())) == (2, True, 4)


@pytest.mark.parametrize(
    "command",
    [
        ("prune", "--by", "A\udcff"), ("rollback", "--by", "Ada", "--reason", "\udcff"), ("retrain", "--by", "\udcff"),
        ("canary", "--end", "--by", "\udcff"),
        ("promote", "--run", "r", "--decision", "reject", "--by", "Ada", "--reason", "\udcff"),
    ],
)  # fmt: skip
def test_a_name_or_reason_that_no_ledger_could_hold_is_refused(config, registry, capsys, command):
    publish(registry, NOW)
    lines = registry.ledger.read_bytes()
    code, said = run(capsys, command[0], config, *command[1:])
    assert (code, "is no UTF-8" in said.err) == (2, True)
    assert registry.ledger.read_bytes() == lines


@pytest.mark.parametrize("command", [("prune", "--keep", "2", "--by", "Ada", "--dry-run"), ("serving",)])
def test_what_only_reads_writes_nothing_not_even_the_lock(config, registry, capsys, command):
    for second in range(4):
        publish(registry, NOW + second, str(second))
    before = written(registry)
    code, said = run(capsys, command[0], config, *command[1:])
    assert (code, written(registry)) == (0, before)
    if command[0] == "prune":
        assert f"{NOW}  would be removed" in said.out


def test_a_configuration_that_a_death_left_unwritten_is_written_by_asking(config, registry, capsys):
    publish(registry, NOW)
    config_path(registry).unlink()
    assert run(capsys, "serving", config)[0] == 0
    assert config_path(registry).exists()


def written(registry):
    """When and where anything was written last."""
    return {path: path.stat().st_mtime_ns for path in registry.root.rglob("*")}


def test_a_registry_behind_a_link_is_served_under_the_portfolios_name(config, registry, capsys, tmp_path):
    registry.root.parent.mkdir()
    (tmp_path / "elsewhere").mkdir()
    registry.root.symlink_to(tmp_path / "elsewhere")
    publish(registry, NOW)
    assert list(read_models(config_path(registry))) == ["mini"]
    assert run(capsys, "serving", config)[1].out.startswith("mini (latest)")


@pytest.mark.parametrize(("version", "became"), [(NOW, f"was published as version {NOW}"), (None, "was rejected")])
def test_a_canary_whose_challenger_was_ruled_on_is_told_with_the_next_move(
    config, registry, capsys, monkeypatch, version, became
):
    monkeypatch.setattr(canary, "verify_bundle", lambda bundle: None)
    publish(registry, NOW)
    keep_verified(registry, "run-1")
    assert run(capsys, "canary", config, "--run", "run-1", "--by", "Ada")[0] == 0
    assert json.loads(run(capsys, "serving", config, "--json")[1].out)["note"] is None
    with locked(registry):
        shutil.rmtree(registry.pending / "run-1")
        enter_record(registry, {"kind": "ruling", "run_id": "run-1", "version": version})
    said = run(capsys, "serving", config)[1].out
    assert f"of run run-1, {became}; end it: crossrisk canary CONFIG --end --by NAME" in said


def test_who_promotes_a_canary_is_told_that_it_is_still_on_trial(config, registry, capsys, monkeypatch):
    monkeypatch.setattr(canary, "verify_bundle", lambda bundle: None)
    publish(registry, NOW)
    keep_verified(registry, "run-1")
    assert run(capsys, "canary", config, "--run", "run-1", "--by", "Ada")[0] == 0

    def settle(*_, **__):
        shutil.rmtree(registry.pending / "run-1")
        return Publication(version=None, champion=NOW, path=None, pending=None)

    monkeypatch.setattr("tasks.publish.settle_pending", settle)
    rejects = ("--run", "run-1", "--decision", "reject", "--by", "Grace", "--reason", "why")
    assert "is still on trial" in run(capsys, "promote", config, *rejects)[1].out
